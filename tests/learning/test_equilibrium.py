"""The equilibrium layer: reductions to known gradients, constant bytes, strategies, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.learning import (
    Equilibrium,
    Frobenius,
    RateNeuron,
    Spectral,
    dsr_if_model,
    lif_rate_model,
    rates,
    solvers,
    transposed_conv,
    unit_filters,
)
from snnjax.models import feedback_net
from snnjax.nn.contract import State
from tests.compare import assert_close, assert_equal

UNITS, BATCH = 12, 5
own = functools.partial(RateNeuron, lif_rate_model(threshold=2.0))


def linear(inputs, outputs, seed, *, bias=False, scale=1.0):
    fold = nn.Linear(inputs, outputs, use_bias=bias, rngs=nnx.Rngs(seed))
    fold.function.kernel = nnx.Param(scale * fold.function.kernel[...])
    return fold


def layer(timesteps=8, *, inner="map", feedback=True, depth=2, scale=1.0, **options):
    body = [own()]
    for i in range(depth - 1):
        body += [linear(UNITS, UNITS, i, scale=3.0), own()]
    inputs = linear(6, UNITS, 10, bias=True, scale=3.0)
    return Equilibrium(
        nn.Sequential(*body), timesteps=timesteps, inputs=inputs,
        feedback=Spectral(linear(UNITS, UNITS, 11), bound=scale) if feedback else None,
        inner=inner, **options,
    )  # fmt: skip


X = jax.random.uniform(jax.random.key(0), (1, BATCH, 6), minval=-1, maxval=2)
G = jax.random.normal(jax.random.key(1), (BATCH, UNITS))


@functools.partial(jax.jit, static_argnames="taps")
def run(net, x, **options):
    return net(x, net.initial_state(x.shape[1:]), nn.Call(training=True, **options))


@jax.jit
def graded(net, x=X):
    """Gradient, and `(outputs, aux)`."""

    def loss(net):
        outputs, aux = run(net, x)
        return jnp.sum(outputs[0] * G), (outputs, aux)

    return jax.grad(loss, has_aux=True)(net)


def gradient(net, x=X):
    return graded(net, x)[0]


@pytest.mark.fast
@pytest.mark.parametrize("depth", [1, pytest.param(2, marks=pytest.mark.slow), 3])  # 3 has a middle
def test_without_feedback_the_gradient_is_that_of_the_clamp_network(depth):
    """Also with a feedback weight of zero: the equation has nothing to solve."""
    net = layer(feedback=False, depth=depth)

    def clamp_network(net, x):
        rate = net.inputs(x, State(), nn.Call(training=True))[0][0]
        for part in net.body.layers:
            if isinstance(part, RateNeuron):
                rate = rates.clamp(rate / 2.0, 0, 1)
            else:
                rate = part(rate[None], State(), nn.Call(training=True))[0][0]
        return jnp.sum(rate * G)

    expected = jax.jit(jax.grad(clamp_network))(net, X)
    zero = layer(depth=depth)
    zero.feedback.gain = nnx.Param(jnp.zeros(()))
    for found in map(gradient, (net, zero)):
        assert_close((found.body, found.inputs), (expected.body, expected.inputs), 1e-6)


@pytest.mark.fast
def test_solving_for_all_layers_equals_eliminating_the_inner_ones():
    """At many timesteps the simulated inner rates are those of the map."""
    solver = solvers.neumann(iterations=200)
    grads = [gradient(layer(3000, inner=inner, solver=solver)) for inner in ("map", "rates")]
    for a, b in zip(*(jax.tree.leaves(g) for g in grads), strict=True):
        scale = float(jnp.abs(b).max())
        assert float(jnp.abs(a - b).max()) <= 0.02 * scale


RULES = {
    "IDE": {},
    "SPIDE": {"inner": "rates", "solver": solvers.spiking_ternary(timesteps=20)},
    "DSR": {"inner": "rates", "feedback": False},
}


def rule(name, timesteps, scan=None):
    """IDE, SPIDE, or DSR without feedback; under a scan its backpropagation through time."""
    net = layer(timesteps, **RULES[name])
    if scan is None:
        return net
    return net.with_memory(nn.contract.MemoryRequest(memory.Strategy(time=scan))).layer


def rules(kept):
    """All rules, and those but one in the slow lane: seconds of compilation each."""
    return [name if name == kept else pytest.param(name, marks=pytest.mark.slow) for name in RULES]


@pytest.mark.parametrize("name", rules("DSR"))
def test_bytes_of_a_gradient_are_constant_in_time(name):
    """T = 4 and 256; those of backpropagation through time grow."""

    def temp_bytes(timesteps, scan=None):
        return memory.measure(graded, rule(name, timesteps, scan), X).temp_bytes

    few = temp_bytes(4)
    assert temp_bytes(256) == few
    assert temp_bytes(4, memory.store) < temp_bytes(256, memory.store) > 3 * few


@pytest.mark.parametrize("name", rules("IDE"))
def test_a_strategy_over_time_changes_the_gradient_and_no_value(name):
    """The gradients of two strategies are one."""
    net = rule(name, 8)
    exact = [rule(name, 8, scan) for scan in (memory.store, memory.recompute(3))]
    outputs, aux = run(net, X)
    for other in exact:
        assert other.exact and not net.exact
        found, own = run(other, X)
        assert_equal((found, own.state), (outputs, aux.state))
    assert_close(*(jax.tree.leaves(gradient(other)) for other in exact), 1e-5)


def agreement(actual, expected):
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (actual, expected))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# Six programs; tests of derivatives have the gradient at spiking rates approach that of the limit.
@pytest.mark.slow
def test_the_gradient_approaches_that_of_backpropagation_through_time():
    """Cosine over all weights at T = 5, 20, 100."""
    cosines = []
    for timesteps in (5, 20, 100):
        nets = (rule("IDE", timesteps, scan) for scan in (None, memory.store))
        cosines.append(agreement(*map(gradient, nets)))
    assert cosines == sorted(cosines)
    assert cosines[-1] > 0.98


@pytest.mark.fast
def test_constant_frames_equal_a_constant_current():
    net = layer(8)
    frames = jnp.broadcast_to(X, (8, *X.shape[1:]))
    (wanted, (one, _)), (found, (all_frames, _)) = graded(net), graded(net, frames)
    np.testing.assert_array_equal(one, all_frames)
    assert_close(found, wanted, 1e-5)


@pytest.mark.fast
def test_counts_of_events_may_be_integers():
    net = layer(8)
    counts = np.random.default_rng(3).integers(0, 3, (8, BATCH, 6), np.int32)
    found, (outputs, _) = graded(net, counts)
    wanted, (expected, _) = graded(net, counts.astype(np.float32))
    np.testing.assert_array_equal(outputs, expected)
    assert_close(found, wanted, 0)


@pytest.mark.fast
def test_batch_norm_and_dropout_leave_a_constant_current_constant():
    """One mask and one normalisation for all timesteps, also inside the body."""
    norm = nn.BatchNorm(UNITS)
    norm.bias = nnx.Param(jnp.ones(UNITS))
    body = nn.Sequential(own(), linear(UNITS, UNITS, 0), norm, nn.Dropout(0.5), own())
    net = Equilibrium(
        body, timesteps=12, inputs=nn.Sequential(linear(6, UNITS, 1), nn.BatchNorm(UNITS)),
        feedback=nn.Sequential(Spectral(linear(UNITS, UNITS, 2)), nn.Dropout(0.5)),
    )  # fmt: skip
    _, aux = run(net, X, key=jax.random.key(0), taps=("currents",))
    currents = aux.taps["body/lif4"]["currents"]
    dropped = np.asarray(currents == 0)
    # Behind a norm with a bias only a dropped current is exactly 0.
    assert 0.3 < dropped.all(0).mean() < 0.7
    assert (dropped.all(0) == dropped.any(0)).all()
    before = net.initial_state(X.shape[1:]).statistics
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves((before.inputs, before.body)),
            jax.tree.leaves((aux.statistics.inputs, aux.statistics.body)),
            strict=True,
        )
    ]
    assert all(changed)
    assert_close(aux.statistics.info, before.info, 0)


@pytest.mark.fast
def test_the_residual_of_the_solver_is_a_gradient():
    net = layer(8, solver=solvers.published_iter())

    @jax.jit
    def graded_info(net):
        state = net.initial_state(X.shape[1:])

        def loss(info):
            given = state._replace(statistics=state.statistics._replace(info=info))
            return jnp.sum(net(X, given, nn.Call(training=True))[0][0] * G)

        return jax.grad(loss)(state.statistics.info)

    info = graded_info(net)
    assert info.residual > 0.1
    assert info.iterations == 30


@pytest.mark.fast
def test_spikes_of_every_timestep_are_tapped():
    outputs, aux = run(layer(8), X, taps=("spikes", "rates", "operations"))
    spikes = aux.taps["body/lif2"]["spikes"]
    assert spikes.shape == (8, BATCH, UNITS)
    np.testing.assert_allclose(spikes.mean(0), outputs[0], rtol=1e-6)
    np.testing.assert_allclose(aux.taps["body/lif2"]["rates"], spikes.mean(-1))
    assert aux.taps["inputs"]["operations"].dense.shape == (1, BATCH)
    assert aux.taps["body/linear1"]["operations"].dense.shape == (8, BATCH)


@pytest.mark.fast
def test_a_bounded_weight_has_its_norm_at_once():
    """Largest singular value over V: at most .5 (specification, test 5), from the first call on."""
    synapses = (
        nn.Linear(30, 40, use_bias=False, rngs=nnx.Rngs(0)),
        nn.Conv(4, 6, rngs=nnx.Rngs(0)),
        transposed_conv(4, 6, rngs=nnx.Rngs(0)),
    )

    @jax.jit
    def bounded(synapses):
        def one(synapse):
            bounded = Spectral(synapse)
            direction = bounded.initial_state(()).statistics
            gradient = jax.grad(lambda b: b.weight(direction)[0].sum())(bounded)
            return direction, *bounded.weight(direction), gradient.gain[...]

        return list(map(one, synapses))

    for synapse, found in zip(synapses, jax.device_get(bounded(synapses)), strict=True):
        direction, kernel, after, gradient = found
        axis = -2 if hasattr(synapse.function, "rows") else -1
        matrix = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
        norm = np.linalg.norm(matrix, 2)
        assert norm <= 1 + 1e-3
        np.testing.assert_allclose(abs(direction.u @ after.u), 1, rtol=1e-4)
        assert abs(gradient) > 0


@pytest.mark.fast
def test_a_bounded_map_of_images_has_its_norm_at_once():
    """A convolution has a larger norm than its kernel as a matrix."""
    shape, count = (6, 6, 4), 144
    synapses = (
        nn.Conv(4, 4, kernel=5, rngs=nnx.Rngs(0)),
        transposed_conv(4, 3, rngs=nnx.Rngs(1)),
        nn.Linear(count, 30, use_bias=False, rngs=nnx.Rngs(2)),
    )

    @jax.jit
    def norms(synapses):
        def one(synapse, norm, inputs):
            bounded = Spectral(synapse, norm=norm)
            state = bounded.initial_state((2, *inputs.shape[2:]))
            gradient = jax.grad(lambda b: b.weight(state.statistics)[0].sum())(bounded)
            outputs, aux = bounded(inputs, state, nn.Call(training=False))
            rows = outputs.reshape(inputs.shape[1], -1)
            return jnp.linalg.norm(rows, 2), gradient.gain[...], state, aux.statistics

        images = jnp.eye(count).reshape(1, count, *shape)
        flat = (images, images, images.reshape(1, count, count))
        pairs = list(zip(synapses, flat, strict=True))
        return [one(s, "map", x) for s, x in pairs], one(synapses[0], "matrix", images)

    found, as_matrix = jax.device_get(norms(synapses))
    for norm, gradient, before, after in found:
        assert 0.98 < norm < 1.02
        assert abs(gradient) > 0
        np.testing.assert_allclose((before.statistics.v * after.v).sum(), 1, rtol=2e-2)
    assert as_matrix[0] > 1.3
    with pytest.raises(ValueError, match="norm"):
        Spectral(synapses[0], norm="image")


@pytest.mark.fast
def test_the_frobenius_bound_acts_above_it_alone():
    fold = linear(9, 9, 0)
    x = jnp.ones((1, 2, 9))
    norm = float(jnp.linalg.norm(fold.function.kernel[...]))
    plain, _ = fold(x, State(), nn.Call(training=False))
    for bound, factor in ((2 * norm, 1.0), (norm / 2, 0.5)):
        outputs, _ = Frobenius(fold, bound=bound)(x, State(), nn.Call(training=False))
        np.testing.assert_allclose(outputs, factor * plain, rtol=1e-5)


@pytest.mark.fast
def test_an_expanding_feedback_weight_is_refused():
    wide = linear(UNITS, UNITS, 0, scale=9.0)
    with pytest.raises(ValueError, match=r"no contraction.*learning\.Spectral"):
        Equilibrium(own(), timesteps=5, feedback=wide)
    Equilibrium(own(), timesteps=5, feedback=Spectral(wide))
    Equilibrium(own(), timesteps=5, feedback=Frobenius(wide, bound=1.0))
    with pytest.raises(ValueError, match="no contraction"):
        Equilibrium(own(), timesteps=5, feedback=Frobenius(wide, bound=1e3))
    with pytest.raises(ValueError, match="no contraction"):
        Equilibrium(own(), timesteps=5, feedback=Spectral(wide, bound=1e3))


@pytest.mark.fast
@pytest.mark.parametrize(
    "options",
    # One check of the builder for both.
    [{"hidden": (40,)}, pytest.param({"stages": ((40, 3, 1),)}, marks=pytest.mark.slow)],
)
def test_a_feedback_net_without_a_bound_is_refused_where_it_expands(options):
    options |= {"neuron": lif_rate_model(threshold=1.0), "timesteps": 3}
    build = functools.partial(feedback_net, (4, 4, 3), **options)
    with pytest.raises(ValueError, match=r"no contraction.*learning\.Spectral"):
        build(bound=None, rngs=nnx.Rngs(0))
    build(rngs=nnx.Rngs(0))
    small = lambda key, shape, dtype: 0.1 * unit_filters(key, shape, dtype)  # noqa: E731
    build(bound=None, kernel_init=small, rngs=nnx.Rngs(0))


@pytest.mark.fast
def test_parts_that_do_not_fit_are_refused():
    net = layer(8)
    with pytest.raises(ValueError, match=r"3 timesteps for a simulation of 8"):
        run(net, jnp.ones((3, BATCH, 6)))
    with pytest.raises(ValueError, match="RateNeuron"):
        Equilibrium(nn.Sequential(nn.LIF()), timesteps=4)
    with pytest.raises(ValueError, match="one decay"):
        two = nn.Sequential(own(), RateNeuron(lif_rate_model(decay=0.9)))
        Equilibrium(two, timesteps=4)
    with pytest.raises(ValueError, match="inner must be one of"):
        layer(8, inner="all")
    with pytest.raises(ValueError, match="same shape|one shape"):
        Equilibrium(own(), timesteps=4, feedback=linear(6, 5, 0)).initial_state((2, 6))
    with pytest.raises(ValueError, match="put neurons into the body"):
        Equilibrium(own(), timesteps=4, inputs=nn.LIF()).initial_state((2, 6))
    with pytest.raises(memory.StrategyError, match="no inverse over time"):
        nn.with_memory(
            nn.Network(nn.Sequential(net), (6,)), memory.Strategy(time=memory.reversal())
        )
    with pytest.raises(ValueError, match="whole window"):
        nn.Network(nn.Sequential(net), (6,), order="time")


@pytest.mark.fast
def test_spikes_of_any_height_and_a_head_inside_the_body():
    """DSR's neurons, whose outputs are no spikes of 0 and 1, and a body that ends with a map."""
    body = nn.Sequential(
        RateNeuron(dsr_if_model(threshold=2.0), learn=("threshold",)), linear(UNITS, UNITS, 0)
    )
    net = Equilibrium(body, timesteps=6, inputs=linear(6, UNITS, 1, scale=3.0), inner="rates")
    outputs, _ = run(net, X)
    spikes = run(net, X, taps=("spikes",))[1].taps["body/dsr_if0"]["spikes"]
    expected = spikes.mean(0) @ body.layers[1].function.kernel[...]
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5, atol=1e-6)
    grads = gradient(net)
    np.testing.assert_allclose(
        grads.body.layers[1].function.kernel[...], spikes.mean(0).T @ G, rtol=1e-4, atol=1e-5
    )
    assert jnp.abs(grads.body.layers[0].neuron.learned["threshold"][...]) > 0


@pytest.mark.fast
def test_equal_options_give_equal_structures():
    assert nnx.graphdef(layer(8)) == nnx.graphdef(layer(8))
    assert nnx.graphdef(layer(8)) != nnx.graphdef(layer(9))
