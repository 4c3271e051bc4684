"""The outermost module: two orders that are one function, streaming, and its errors."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, nn
from tests.compare import assert_close, assert_equal
from tests.nn.layers import B, T, leaves, rngs, sequence

FRAME = (8, 8, 2)


def body(over):
    r = rngs()
    return nn.Sequential(
        nn.Conv(2, 4, rngs=r), nn.BatchNorm(4, over=over, scale=2.0), nn.LIF(learn=("decay",)),
        nn.MaxPool(), nn.Flatten(), nn.Linear(64, 3, rngs=r), nn.LI(),
    )  # fmt: skip


def network(order="layer", over="frozen", *, time_scan=None):
    return nn.Network(body(over), FRAME, order=order, time_scan=time_scan)


FRAMES = sequence((B, *FRAME))


@jax.jit(static_argnames="training")
def graded(net, frames, *, training):
    def loss(net, frames):
        outputs, aux = net(frames, net.initial_state(B), training=training)
        return jnp.sum(outputs**2), (outputs, aux)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(net, frames)


def results(net, *, training=True):
    (_, (outputs, aux)), gradients = graded(net, FRAMES, training=training)
    return outputs, aux, gradients


@pytest.mark.parametrize(("over", "training"), [("step", True), ("window", False)])
def test_the_two_orders_are_one_function(over, training):
    layer, aux, to_layer = results(network("layer", over), training=training)
    time, moved, to_time = results(network("time", over), training=training)
    assert_close(time, layer, 1e-5)
    assert_close(leaves(to_time), leaves(to_layer), 1e-4)
    assert_close(moved.statistics, aux.statistics, 1e-5)
    assert_close(moved.state, aux.state, 1e-5)
    assert float(jnp.abs(layer).max()) > 0


def test_the_two_orders_drop_the_same_neurons():
    outputs = [
        net(jnp.ones((T, B, 9)), net.initial_state(B), training=True, key=jax.random.key(0))[0]
        for net in (nn.Network(nn.Dropout(0.5), (9,), order=order) for order in ("layer", "time"))
    ]
    np.testing.assert_array_equal(outputs[1], outputs[0])
    assert set(np.unique(outputs[0])) == {0.0, 2.0}


def test_batch_statistics_over_the_window_make_the_orders_two_functions():
    window, _, _ = results(network("layer", "window"))
    step, _, _ = results(network("time", "step"))
    assert float(jnp.abs(window - step).max()) > 1e-3


@pytest.mark.fast
@pytest.mark.parametrize("order", ["layer", "time"])
def test_one_frame_at_a_time_is_the_whole_window(order):
    net = network(order)
    forward = jax.jit(lambda net, frames, state: net(frames, state, training=False))
    state = net.initial_state(B)
    whole, end = forward(net, FRAMES, state)
    outputs = []
    for frame in FRAMES:
        output, aux = forward(net, frame[None], state)
        state = state.after(aux)
        outputs.append(output[0])
    if order == "time":
        np.testing.assert_array_equal(jnp.stack(outputs), whole)
        assert_equal(state.neurons, end.state)
        return
    # Convolutions of more rows may round otherwise, on processors without AVX-512.
    assert_close((jnp.stack(outputs), state.neurons), (whole, end.state), 1e-6)


def test_a_time_scan_over_the_whole_network_changes_nothing():
    stored, aux, gradients = results(network("time", "step"))
    recomputed, moved, again = results(network("time", "step", time_scan=memory.recompute(3)))
    np.testing.assert_array_equal(recomputed, stored)
    assert_close(leaves(again), leaves(gradients), 1e-5)
    assert_close(moved.statistics, aux.statistics, 1e-6)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 3, T])
def test_frames_can_be_run_a_few_at_a_time_layer_by_layer(every):
    """Products of more rows may round otherwise; statistics are the mean over all timesteps."""
    stored, aux, gradients = results(network("time", "step"))
    scan = memory.recompute(every, inner=memory.sequence)
    chunked, moved, again = results(network("time", "step", time_scan=scan))
    assert_close(chunked, stored, 1e-5)
    assert_close(leaves(again), leaves(gradients), 1e-4)
    assert_close((moved.state, moved.statistics), (aux.state, aux.statistics), 1e-5)


def test_a_network_that_runs_at_once_in_time_order_is_that_of_layer_order():
    layer, _, to_layer = results(network("layer", "step"))
    time, _, to_time = results(network("time", "step", time_scan=memory.sequence))
    np.testing.assert_array_equal(time, layer)
    assert_close(leaves(to_time), leaves(to_layer), 1e-6)


def test_outputs_of_a_layer_are_kept_by_its_name():
    def products(keep):
        r, scan = rngs(), memory.recompute(2, inner=memory.sequence, keep=keep)
        layers = nn.Linear(9, 6, rngs=r), nn.LIF(), nn.Linear(6, 5, rngs=r), nn.LIF()
        net = nn.Network(nn.Sequential(*layers), (9,), order="time", time_scan=scan)
        frames, state = sequence((B, 9)), net.initial_state(B)
        loss = lambda net: net(frames, state, training=True)[0].sum()  # noqa: E731
        return str(jax.make_jaxpr(jax.grad(loss))(net)).count("dot_general")

    # Forward, again, to the weights; and to the inputs but for the first.
    assert [products(()), products(("linear0",)), products(("currents",))] == [7, 6, 5]


def test_the_module_and_its_statistics_leave_as_they_came_in_evaluation():
    for order in ("layer", "time"):
        net = network(order, "step")
        state = net.initial_state(B)
        outputs, aux = net(FRAMES, state, training=False)
        assert outputs.shape == (T, B, 3)
        assert_equal(aux.statistics, state.statistics)
        assert jax.tree.structure(aux.state) == jax.tree.structure(state.neurons)


def test_both_orders_are_seen_alike():
    by_three = memory.recompute(3, inner=memory.sequence)
    ways = network("layer"), network("time"), network("time", time_scan=by_three)
    kinds = ("spikes", "membrane", "rates")

    @jax.jit
    def seen(net):
        return net(FRAMES, net.initial_state(B), training=False, taps=kinds)[1].taps

    taps, *others = map(seen, ways)
    assert sorted(taps) == ["li6", "lif2"]
    for other in others:
        assert_close(other, taps, 1e-6)


@pytest.mark.fast
def test_later_inputs_leave_earlier_outputs_alone():
    """Law 7, with fixed statistics: the gradient is zero, not small."""
    net = network("layer")

    @jax.jit
    def backward(frames, cotangent):
        run = lambda frames: net(frames, net.initial_state(B), training=False)[0]  # noqa: E731
        return jax.vjp(run, frames)[1](cotangent)[0]

    for t in range(T):
        gradient = backward(FRAMES, jnp.zeros((T, B, 3)).at[t].set(1.0))
        np.testing.assert_array_equal(np.asarray(gradient[t + 1 :]), 0.0)
        assert np.abs(gradient[: t + 1]).max() > 0


def test_batch_statistics_over_the_window_are_the_named_exception():
    net = network("layer", "window")
    loss = lambda x: net(x, net.initial_state(B), training=True)[0][0].sum()  # noqa: E731
    assert float(jnp.abs(jax.jit(jax.grad(loss))(FRAMES)[1:]).max()) > 0


def test_errors_of_construction():
    with pytest.raises(ValueError, match="layer, time"):
        network("depth")
    with pytest.raises(ValueError, match="belongs to the neurons"):
        network("layer", time_scan=memory.store)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        network().initial_state(0)


@pytest.mark.parametrize(
    "shape", [(T, B, 8, 8, 3), (T, 8, 8, 2), (T, B, 128), (T,), (T, B, 2, 8, 8)]
)
def test_inputs_of_another_shape_are_an_error_that_names_the_right_one(shape):
    net = network()
    with pytest.raises(ValueError, match=r"\[T, B, 8, 8, 2\]"):
        net(jnp.zeros(shape), net.initial_state(B), training=False)


@pytest.mark.parametrize("order", ["layer", "time"])
def test_errors_of_a_call(order):
    net = network(order)
    with pytest.raises(ValueError, match="no timesteps"):
        net(FRAMES[:0], net.initial_state(B), training=False)
    for batch in (1, B + 1):
        with pytest.raises(ValueError, match=f"initial_state\\({B}\\)"):
            net(FRAMES, net.initial_state(batch), training=False)


def test_window_statistics_do_not_exist_in_time_order():
    net = network("time", "window")
    net(FRAMES, net.initial_state(B), training=False)
    with pytest.raises(ValueError, match='over="step"'):
        net(FRAMES, net.initial_state(B), training=True)


@pytest.mark.parametrize("taps", ["spikes", ("spike",), ("spikes", "v")])
def test_an_unknown_tap_is_refused(taps):
    net = nn.Network(nn.Sequential(nn.IF()), (3,))
    with pytest.raises(ValueError, match="membrane"):
        net(jnp.zeros((1, 2, 3)), net.initial_state(2), training=False, taps=taps)


@pytest.mark.parametrize(("collect", "of"), [("mean", jnp.mean), ("last", lambda y, _: y[-1])])
@pytest.mark.parametrize(
    "scan",
    [
        None,
        pytest.param(memory.recompute(3), marks=pytest.mark.slow),
        pytest.param(memory.recompute(3, inner=memory.sequence), marks=pytest.mark.slow),
    ],
)
def test_outputs_held_in_the_carry_are_those_of_the_window(collect, of, scan):
    net = nn.Network(body("step"), FRAME, order="time", time_scan=scan, collect=collect)
    full = network("time", "step", time_scan=scan)

    def loss(net, pool):
        outputs, aux = net(FRAMES, net.initial_state(B), training=True)
        pooled = of(outputs, 0) if pool else outputs[0]
        return jnp.sum(pooled**2), (pooled, aux)

    (_, got), gradient = jax.value_and_grad(loss, has_aux=True)(net, False)
    (_, want), expected = jax.value_and_grad(loss, has_aux=True)(full, True)
    assert_close(got, want, 1e-6)
    assert_close(leaves(gradient), leaves(expected), 1e-5)
    assert net(FRAMES, net.initial_state(B), training=True)[0].shape == (1, B, 3)


@pytest.mark.fast
def test_unknown_collections_are_refused():
    with pytest.raises(ValueError, match="all outputs exist at once"):
        nn.Network(body("step"), FRAME, collect="mean")
    with pytest.raises(ValueError, match="collect must be one of"):
        nn.Network(body("step"), FRAME, order="time", collect="first")


def by_step(net, frames):
    """Each timestep's loss pulled back at once, nothing of the one before (SLTT, spatial only)."""

    def loss(net, state, frame):
        outputs, aux = net(frame[None], state, training=False)
        return jnp.sum(outputs**2) / len(frames), aux.state

    def step(carry, frame):
        neurons, total = carry
        state = rest._replace(neurons=neurons)
        gradient, after = jax.grad(loss, has_aux=True)(net, state, frame)
        return (after, jax.tree.map(jnp.add, total, gradient)), None

    rest = net.initial_state(frames.shape[1])
    carry = (nn.contract.repeat_state(rest.neurons), jax.tree.map(jnp.zeros_like, net))
    return jax.lax.scan(step, carry, frames)[0][1]


def test_a_leak_that_is_cut_makes_training_a_matter_of_one_timestep():
    """Meng et al. 2023, arXiv:2302.14311: equal to backpropagation with the membranes detached."""
    net = nn.Network(nn.Sequential(nn.Linear(9, 6, rngs=rngs()), nn.LIF(decay=0.5)), (9,))
    frames = 3 * sequence((B, 9))

    def through_time(net):
        state, total = net.initial_state(B), 0.0
        for frame in frames:
            outputs, aux = net(frame[None], jax.lax.stop_gradient(state), training=False)
            state, total = state._replace(neurons=aux.state), total + jnp.sum(outputs**2)
        return total / len(frames)

    expected = jax.jit(jax.grad(through_time))(net)
    assert_close(leaves(jax.jit(by_step)(net, frames)), leaves(expected), 1e-6)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in leaves(expected))

    def temporary(timesteps):
        longer = jax.ShapeDtypeStruct((timesteps, B, 9), jnp.float32)
        return jax.jit(by_step).lower(net, longer).compile().memory_analysis().temp_size_in_bytes

    assert temporary(64) == temporary(8)


# Evaluation with statistics that training did not leave.


def normed(**options):
    layers = [nn.Linear(3, 4, rngs=rngs()), nn.BatchNorm(4, **options)]
    return nn.Network(nn.Sequential(*layers), (3,))


@pytest.mark.fast
@pytest.mark.parametrize("compiled", [False, True])
def test_evaluation_with_forgotten_statistics_warns(compiled):
    """Under jit too, where the state is made inside."""
    net, frames = normed(), jnp.ones((2, 1, 3))
    evaluate = lambda net: net(frames, net.initial_state(1), training=False)[0]  # noqa: E731
    with pytest.warns(UserWarning, match=r"never updated.*state = state\.after\(aux\)"):
        (jax.jit(evaluate) if compiled else evaluate)(net)


@pytest.mark.fast
def test_evaluation_with_known_statistics_does_not_warn():
    net, frames = normed(), sequence((B, 3))
    state = net.initial_state(B)
    state = state.after(net(frames, state, training=True)[1])
    frozen = normed(over="frozen")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(frames, state, training=False)
        net(frames, net.initial_state(B, statistics=state.statistics), training=False)
        frozen(frames, frozen.initial_state(B), training=False)


@pytest.mark.fast
def test_a_fresh_state_given_to_a_compiled_function_warns():
    net, frames = normed(), jnp.ones((2, 1, 3))
    evaluate = jax.jit(lambda net, state: net(frames, state, training=False)[0])
    with pytest.warns(UserWarning, match="never updated"):
        evaluate(net, net.initial_state(1))
    state = net.initial_state(1)
    state = state.after(net(frames, state, training=True)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(net, state)


@pytest.mark.fast
def test_statistics_that_a_training_loop_forgot_warn():
    """The mark of the state is gone, the values are those of the start."""
    net, frames = normed(), jnp.ones((2, 1, 3))
    forgotten = net.initial_state(1).statistics
    with pytest.warns(UserWarning, match="never updated"):
        net(frames, net.initial_state(1, statistics=forgotten), training=False)


@pytest.mark.fast
@pytest.mark.parametrize("order", ["layer", "time"])
def test_a_stream_carries_a_fresh_state_through_a_scan(order):
    net = normed(over="step")
    net = nn.replace(net, order=order)
    frames = jnp.ones((3, 1, 3))

    def step(state, frame):
        outputs, aux = net(frame[None], state, training=False)
        return state.after(aux), outputs[0]

    with pytest.warns(UserWarning, match="never updated"):
        after, outputs = jax.lax.scan(step, net.initial_state(1), frames)
    assert isinstance(after, nn.contract.InitialState) and outputs.shape == (3, 1, 4)


class Halved(nn.Sequential):
    """A user's layer that changes what an inherited method knows."""

    def __call__(self, inputs, state, call):
        outputs, aux = super().__call__(inputs, state, call)
        return outputs[..., ::2], aux


@pytest.mark.fast
def test_a_shape_is_inferred_as_a_call_gives_it():
    inner = nn.Sequential(nn.Linear(6, 8, rngs=rngs()), nn.LIF())
    for layer, width in ((inner, 8), (Halved(*inner.layers), 4)):
        state = layer.initial_state((2, 6))
        assert nn.contract.output_shape(layer, state, (2, 6)) == (2, width)
        net = nn.Network(nn.Sequential(layer, nn.Linear(width, 3, rngs=rngs()), nn.LI()), (6,))
        assert net.initial_state(2).neurons[2][0].shape == (2, 3)
