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
from tests.compare import assert_close

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


def run(net, x, *, training=True, **options):
    return net(x, net.initial_state(x.shape[1:]), nn.Call(training=training, **options))


def gradient(net, x=X):
    return jax.jit(jax.grad(lambda net, x: jnp.sum(run(net, x)[0][0] * G)))(net, x)


@pytest.mark.fast
@pytest.mark.parametrize("depth", [1, 2, 3])
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

    expected = jax.grad(clamp_network)(net, X)
    assert_close(gradient(net).body, expected.body, 1e-6)
    assert_close(gradient(net).inputs, expected.inputs, 1e-6)
    zero = layer(depth=depth)
    zero.feedback.gain = nnx.Param(jnp.zeros(()))
    assert_close(gradient(zero).body, expected.body, 1e-6)
    assert_close(gradient(zero).inputs, expected.inputs, 1e-6)


@pytest.mark.fast
def test_solving_for_all_layers_equals_eliminating_the_inner_ones():
    """At many timesteps the simulated inner rates are those of the map."""
    solver = solvers.neumann(iterations=200)
    grads = [gradient(layer(3000, inner=inner, solver=solver)) for inner in ("map", "rates")]
    for a, b in zip(*(jax.tree.leaves(g) for g in grads), strict=True):
        scale = float(jnp.abs(b).max())
        assert float(jnp.abs(a - b).max()) <= 0.02 * scale


def rules(timesteps, scan=None):
    """IDE, SPIDE, and DSR without feedback; under a scan their backpropagation through time."""
    nets = {
        "IDE": layer(timesteps),
        "SPIDE": layer(timesteps, inner="rates", solver=solvers.spiking_ternary(timesteps=20)),
        "DSR": layer(timesteps, inner="rates", feedback=False),
    }
    if scan is None:
        return nets
    request = nn.contract.MemoryRequest(memory.Strategy(time=scan))
    return {name: net.with_memory(request).layer for name, net in nets.items()}


def temp_bytes(net, x=X):
    return memory.measure(
        jax.jit(jax.grad(lambda net, x: jnp.sum(run(net, x)[0][0] * G))), net, x
    ).temp_bytes


@pytest.mark.parametrize("name", ["IDE", "SPIDE", "DSR"])
def test_bytes_of_a_gradient_are_constant_in_time(name):
    """T = 4, 16, 64, 256; those of backpropagation through time grow."""
    timesteps = (4, 16, 64, 256)
    assert len({temp_bytes(rules(T)[name]) for T in timesteps}) == 1
    through_time = [temp_bytes(rules(T, memory.store)[name]) for T in timesteps]
    assert through_time == sorted(set(through_time))
    assert through_time[-1] > 3 * temp_bytes(rules(4)[name])


@pytest.mark.fast
@pytest.mark.parametrize("name", ["IDE", "SPIDE", "DSR"])
@pytest.mark.parametrize("scan", [memory.store, memory.recompute(3)], ids=["store", "recompute"])
def test_a_strategy_over_time_changes_the_gradient_and_no_value(name, scan):
    net, exact = rules(8)[name], rules(8, scan)[name]
    assert exact.exact and not net.exact
    (outputs, aux), (other, other_aux) = run(net, X), run(exact, X)
    np.testing.assert_array_equal(outputs, other)
    for a, b in zip(jax.tree.leaves(aux.state), jax.tree.leaves(other_aux.state), strict=True):
        np.testing.assert_array_equal(a, b)
    grads = (gradient(n) for n in (exact, rules(8, memory.store)[name]))
    assert_close(*map(jax.tree.leaves, grads), 1e-5)


def agreement(actual, expected):
    a, b = (jnp.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (actual, expected))
    return float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))


@pytest.mark.fast
def test_the_gradient_approaches_that_of_backpropagation_through_time():
    """Cosine over all weights at T = 5, 20, 100."""
    cosines = []
    for timesteps in (5, 20, 100):
        nets = (rules(timesteps, scan)["IDE"] for scan in (None, memory.store))
        cosines.append(agreement(*map(gradient, nets)))
    assert cosines == sorted(cosines)
    assert cosines[-1] > 0.98


@pytest.mark.fast
def test_constant_frames_equal_a_constant_current():
    net = layer(8)
    frames = jnp.broadcast_to(X, (8, *X.shape[1:]))
    (one, _), (all_frames, _) = run(net, X), run(net, frames)
    np.testing.assert_array_equal(one, all_frames)
    assert_close(gradient(net, frames), gradient(net), 1e-5)


@pytest.mark.fast
def test_counts_of_events_may_be_integers():
    net = layer(8)
    counts = jax.random.randint(jax.random.key(3), (8, BATCH, 6), 0, 3)
    np.testing.assert_array_equal(run(net, counts)[0], run(net, counts.astype(jnp.float32))[0])
    assert_close(gradient(net, counts), gradient(net, counts.astype(jnp.float32)), 0)


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
    state = net.initial_state(X.shape[1:])

    def loss(info):
        given = state._replace(statistics=state.statistics._replace(info=info))
        return jnp.sum(net(X, given, nn.Call(training=True))[0][0] * G)

    info = jax.grad(loss)(state.statistics.info)
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
    for synapse in (
        nn.Linear(30, 40, use_bias=False, rngs=nnx.Rngs(0)),
        nn.Conv(4, 6, rngs=nnx.Rngs(0)),
        transposed_conv(4, 6, rngs=nnx.Rngs(0)),
    ):
        bounded = Spectral(synapse)
        direction = bounded.initial_state(()).statistics
        kernel, after = bounded.weight(direction)
        axis = -2 if hasattr(synapse.function, "rows") else -1
        matrix = np.moveaxis(np.asarray(kernel), axis, 0).reshape(kernel.shape[axis], -1)
        norm = np.linalg.norm(matrix, 2)
        assert norm <= 1 + 1e-3
        np.testing.assert_allclose(abs(direction.u @ after.u), 1, rtol=1e-4)
        gradient = jax.grad(lambda b, d=direction: b.weight(d)[0].sum())(bounded)
        assert abs(gradient.gain[...]) > 0


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
@pytest.mark.parametrize("options", [{"hidden": (40,)}, {"stages": ((40, 3, 1),)}])
def test_a_feedback_net_without_a_bound_is_refused_where_it_expands(options):
    options |= {"neuron": lif_rate_model(threshold=1.0), "timesteps": 3}
    build = functools.partial(feedback_net, (4, 4, 3), **options)
    with pytest.raises(ValueError, match=r"no contraction.*learning\.Spectral"):
        build(bound=None, rngs=nnx.Rngs(0))
    build(rngs=nnx.Rngs(0))
    small = lambda key, shape, dtype: 0.1 * unit_filters(key, shape, dtype)  # noqa: E731
    build(bound=None, kernel_init=small, rngs=nnx.Rngs(0))


@pytest.mark.fast
def test_what_does_not_fit_is_refused():
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
