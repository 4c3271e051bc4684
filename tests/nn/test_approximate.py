"""Approximate strategies of whole networks: equal to loops over the papers' equations in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn, readout
from snnjax.memory import Strategy
from tests.compare import assert_close, assert_equal
from tests.nn import networks

T, B = 5, 3
OTTT, EPROP = Strategy(time=memory.ottt()), Strategy(time=memory.eprop())


def network(recurrent, **options):
    """Two layers of neurons with different decays; the first may have feedback."""
    rngs = nnx.Rngs(0)
    first = nn.LIF(decay=0.8, threshold=0.5)
    body = nn.Sequential(
        nn.Linear(4, 6, rngs=rngs),
        nn.Recurrent(first, 6, rngs=rngs) if recurrent else first,
        nn.Linear(6, 5, rngs=rngs),
        nn.LIF(decay=0.6, threshold=0.5),
        nn.Linear(5, 2, rngs=rngs),
    )
    return nn.Network(body, (4,), **options)


def inputs(dtype=jnp.float64):
    return 2 * jax.random.normal(jax.random.key(1), (T, B, 4), dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(graphdef, read, params, constants, frames, state):
    """Gradient of half the square of what `read` makes of the outputs, and the call's results."""

    def loss(params):
        net = nn.merge(graphdef, params, constants)
        outputs, aux = net(frames, state, training=True, key=jax.random.key(2))
        return 0.5 * jnp.sum(read(outputs) ** 2), (outputs, aux.state)

    return jax.grad(loss, has_aux=True)(params)


def gradient(net, frames, *, read=lambda outputs: outputs, state=None):
    graphdef, *trees = nn.split(net)
    trees = jax.tree.map(lambda leaf: leaf.astype(frames.dtype), trees)
    state = net.initial_state(frames.shape[1]) if state is None else state
    return run(graphdef, read, *trees, frames, state)


def plain(found):
    """Gradients by (layer, array) as NumPy arrays."""
    flat = nnx.to_flat_state(found)
    return {(path[2], path[-1]): np.asarray(leaf[...]) for path, leaf in flat}


def slope(u):
    return 1 / (1 + (np.pi * u) ** 2)


def weights_of(net):
    own = {name: value.astype(np.float64) for name, value in plain(nn.split(net)[1]).items()}
    return [own[layer, "kernel"] for layer in (0, 2, 4)], own.get((1, "weights"))


def simulate(net, frames):
    """Potentials, spikes in and out of each layer, and outputs, step by step."""
    (w1, w2, w3), back = weights_of(net)
    v, u, z = np.zeros((B, 6)), np.zeros((B, 5)), np.zeros((B, 6))
    rows = []
    for x in np.asarray(frames):
        before = z
        h = 0.8 * v + x @ w1 + (0 if back is None else z @ back)
        z = (h >= 0.5) * 1.0
        v = h - 0.5 * z
        g = 0.6 * u + z @ w2
        s = (g >= 0.5) * 1.0
        u = g - 0.5 * s
        rows.append((x, before, h, z, g, s, s @ w3))
    assert 0 < np.mean([row[3] for row in rows]) < 1
    return rows


@pytest.mark.parametrize("order", ["time", "layer"])
def test_ottt_is_the_product_of_spatial_gradients_and_traces(x64, order):
    net = nn.with_memory(network(False, order=order), OTTT)
    (_, w2, w3), _ = weights_of(net)
    expected = {(n, "kernel"): 0.0 for n in (0, 2, 4)} | {(n, "bias"): 0.0 for n in (0, 2, 4)}
    traced, fired = np.zeros((B, 4)), np.zeros((B, 6))
    for x, _, h, z, g, s, y in simulate(net, inputs()):
        traced, fired = 0.8 * traced + x, 0.6 * fired + z
        above = (y @ w3.T) * slope(g - 0.5)
        below = (above @ w2.T) * slope(h - 0.5)
        # The readout has no memory, and biases learn through space, as in the released code.
        for n, trace, delta in ((0, traced, below), (2, fired, above), (4, s, y)):
            expected[n, "kernel"] = expected[n, "kernel"] + trace.T @ delta
            expected[n, "bias"] = expected[n, "bias"] + delta.sum(0)
    found, (outputs, _) = gradient(net, inputs())
    np.testing.assert_array_equal(outputs[-1], y)
    assert_close(plain(found), expected, 1e-12)


def test_eprop_filters_its_eligibilities_by_a_leaky_readout(x64):
    """One trace and one eligibility per synapse and example, as in the paper's equations."""
    net, kappa = nn.with_memory(network(True, order="time"), EPROP), 0.7
    (_, w2, w3), _ = weights_of(net)
    rows = simulate(net, inputs())
    shapes = {(0, "kernel"): (4, 6), (1, "weights"): (6, 6), (2, "kernel"): (6, 5)}
    vectors = {name: np.zeros((B, *shape)) for name, shape in shapes.items()}
    expected = {name: np.zeros(shape) for name, shape in shapes.items()}
    # E = sum over t of y[t]^2 / 2, with the leaky readout y[t] = kappa y[t-1] + outputs[t]. Its
    # error reaches back through the readout, and meets the spikes of each timestep in space.
    signal, level, errors = np.zeros((B, 2)), np.zeros((B, 2)), []
    for *_, y in rows:
        level = kappa * level + y
        errors.append(level)
    signals = []
    for error in reversed(errors):
        signal = kappa * signal + error
        signals.insert(0, signal)
    for (x, before, h, z, g, _, _), error in zip(rows, signals, strict=True):
        above = (error @ w3.T) * slope(g - 0.5)
        below = (above @ w2.T) * slope(h - 0.5)
        spikes = {(0, "kernel"): (x, 0.8), (1, "weights"): (before, 0.8), (2, "kernel"): (z, 0.6)}
        for name, (source, decay) in spikes.items():
            vectors[name] = decay * vectors[name] + source[:, :, None]
            learning = above if name[0] == 2 else below
            expected[name] += np.einsum("bij,bj->ij", vectors[name], learning)

    found = plain(gradient(net, inputs(), read=leaky)[0])
    assert_close({name: found[name] for name in expected}, expected, 1e-12)


def leaky(outputs):
    """`y[t] = 0.7 y[t-1] + outputs[t]`, outside the network."""
    powers = 0.7 ** jnp.arange(T, dtype=outputs.dtype)
    rows = [jnp.tensordot(powers[: t + 1][::-1], outputs[: t + 1], 1) for t in range(T)]
    return jnp.stack(rows)


@pytest.mark.parametrize("strategy", [EPROP, Strategy(time=memory.sltt())], ids=str)
def test_with_a_single_timestep_nothing_is_cut(x64, strategy):
    net = network(True, order="time")
    one = inputs()[:1]
    found, values = gradient(nn.with_memory(net, strategy), one)
    expected, same = gradient(net, one)
    assert_equal(values[0], same[0])
    assert_close(plain(found), plain(expected), 1e-12)


def test_values_are_those_of_store_and_traces_are_carried():
    """The windows of one timestep of OTTT_O: with constant weights they add up to OTTT_A."""
    net, frames = network(False, order="time"), inputs(jnp.float32)
    traced = nn.with_memory(net, OTTT)
    whole, (outputs, after) = gradient(traced, frames)
    assert_equal(outputs, gradient(net, frames)[1][0])
    state, total = traced.initial_state(B), None
    for frame in frames:
        found, (_, own) = gradient(traced, frame[None], state=state)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        state = state._replace(neurons=own)
    assert_close(state.neurons, after, 1e-6)
    assert_close(plain(total), plain(whole), 1e-5)


@pytest.mark.parametrize("collect", ["mean", pytest.param("last", marks=pytest.mark.slow)])
def test_collected_outputs_have_the_gradient_of_all_outputs(collect):
    frames = inputs(jnp.float32)
    read = {"mean": mean, "last": last}[collect]
    # `skip` has another carry: its activity counts spikes.
    for scan in (memory.sltt(), memory.skip(3, 2)):
        expected, _ = gradient(
            nn.with_memory(network(False, order="time"), Strategy(time=scan)), frames, read=read
        )
        net = network(False, order="time", collect=collect, time_scan=scan)
        assert_close(plain(gradient(net, frames)[0]), plain(expected), 1e-5)


def mean(outputs):
    return readout.rate(outputs)


def last(outputs):
    return readout.last(outputs)


def test_bytes_of_traces_do_not_grow_with_time():
    def temp_bytes(strategy, timesteps):
        net = nn.with_memory(network(True, order="time", collect="mean"), strategy)
        graphdef, params, constants = nn.split(net)
        frames = jax.ShapeDtypeStruct((timesteps, B, 4), jnp.float32)
        arguments = (graphdef, mean, params, constants, frames, net.initial_state(B))
        return memory.measure(run, *arguments).temp_bytes

    short, long = (temp_bytes(EPROP, t) for t in (16, 4096))
    assert long <= short + 64
    assert temp_bytes(Strategy(time=memory.store), 4096) > 100 * long


@pytest.mark.slow  # compiles for three devices, one, and a part
def test_devices_and_parts_of_a_batch_add_up(x64):
    net, frames = nn.with_memory(network(True, order="time"), EPROP), inputs()
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:B]), ("batch",))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "batch"))
    expected, _ = gradient(net, frames)
    found, (outputs, _) = gradient(net, jax.device_put(frames, layout))
    assert len(outputs.sharding.device_set) == B
    assert_close(plain(found), plain(expected), 1e-12)
    one = lambda number, part: (gradient(net, part)[0], ())  # noqa: E731
    parts, _ = memory.accumulate(one, B, (frames,), axes=(1,))
    assert_close(plain(parts), plain(expected), 1e-12)


REFUSED = {
    "ottt with feedback": (lambda: network(True), OTTT, "no rule for feedback: use memory.eprop"),
    "a learned decay": (lambda: one_layer(nn.LIF(learn=("decay",))), OTTT, "of lif is learned"),
    "two traces": (lambda: one_layer(nn.ALIF()), EPROP, "alif has other dynamics"),
    "shared membranes": (lambda: shared(), OTTT, "traces of every synapse, and"),
    "another state over time": (
        lambda: one_layer(nn.SigmaDelta()), OTTT, "nn.SigmaDelta .* has a state of its own",
    ),
    "packed spikes": (
        lambda: network(False), Strategy(time=memory.ottt(), pack=True), "no layer .* uses pack",
    ),
}  # fmt: skip


def one_layer(neuron):
    return nn.Network(nn.Sequential(nn.Linear(4, 3, rngs=nnx.Rngs(0)), neuron), (4,), order="time")


def shared():
    rngs = nnx.Rngs(0)
    layer = nn.Shared([nn.Linear(4, 4, rngs=rngs) for _ in range(2)], nn.LIF())
    return nn.Network(layer, (4,))


@pytest.mark.parametrize(("make", "strategy", "says"), REFUSED.values(), ids=REFUSED)
def test_networks_without_a_rule_are_refused_by_name(make, strategy, says):
    with pytest.raises(memory.StrategyError, match=says):
        nn.with_memory(make(), strategy)


def test_a_single_layer_refuses_a_rule_of_networks():
    with pytest.raises(ValueError, match="concerns all synapses of a network"):
        nn.LIF(scan=memory.ottt())


def test_a_network_tells_that_its_gradient_is_another_one():
    net = networks.recurrent(order="time")
    assert nn.contract.is_exact(net)
    assert not nn.contract.is_exact(nn.with_memory(net, EPROP))
    assert not nn.contract.is_exact(nn.with_memory(networks.vgg(), Strategy(time=memory.sltt())))


def test_approximate_candidates_come_only_when_asked_for():
    net = network(True, order="time")
    assert all(strategy.exact for strategy in nn.candidates(net))
    added = [s for s in nn.candidates(net, approximate=True) if not s.exact]
    # OTTT has no rule for the feedback.
    assert [str(s) for s in added] == ["time=truncated(8)", "time=eprop", "time=sltt"]
    assert all(s.exact for s in nn.candidates(network(True), approximate=True))
