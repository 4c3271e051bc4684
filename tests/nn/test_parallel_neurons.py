"""Layers that have a whole window at once, and causal ones beside them: the laws of every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, neurons, nn
from tests.compare import assert_close
from tests.nn.layers import B, T, call, leaves, rngs, run, sequence, weighted

N = 6
LAYERS = {
    "psn": lambda: nn.PSN(T, rngs=rngs()),
    "masked_psn": lambda: nn.PSN(T, order=2, rngs=rngs()),
    "sliding_psn": lambda: nn.SlidingPSN(order=3),
    "reset_free_lif": lambda: nn.ResetFreeLIF(learn=("decay", "threshold")),
}
WHOLE = ("psn", "masked_psn")
X = 2 * sequence((B, N))


@pytest.mark.fast
@pytest.mark.parametrize("name", LAYERS)
def test_the_laws_of_a_layer(name):
    """Spikes; state in and out; one trace; nothing written; gradients to all that learns; taps."""
    layer, other = LAYERS[name](), LAYERS[name]()
    assert jax.tree.structure(layer) == jax.tree.structure(other)
    before, state = leaves(layer), layer.initial_state((B, N))
    result = run(layer, X, until=2)
    assert set(np.unique(result.outputs)) == {0.0, 1.0} and result.outputs.shape == X.shape
    assert jax.tree.structure(result.aux.state) == jax.tree.structure(state.neurons)
    assert result.aux.taps == {} and layer.spiking
    to_layer, to_inputs = result.gradients
    learned = jax.tree.leaves(nnx.state(to_layer, nnx.Param))
    assert learned and all(np.abs(leaf).max() > 0 for leaf in learned)
    # Law 7: what fires before t = 2 knows nothing of later currents, but for the plain PSN.
    assert np.abs(to_inputs[:2]).max() > 0
    assert (np.abs(to_inputs[2:]).max() > 0) == (name == "psn")
    for new, old in zip(leaves(layer), before, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.fast
@pytest.mark.parametrize("name", LAYERS)
def test_taps_and_narrow_currents(name):
    layer = LAYERS[name]()
    kinds = ("spikes", "membrane", "currents", "threshold", "rates")
    spikes, aux = jax.jit(lambda x: call(layer, x, taps=kinds))(X)
    seen = aux.taps[""]
    assert set(seen) == {*kinds, "analog"}
    np.testing.assert_array_equal(seen["spikes"], spikes)
    np.testing.assert_array_equal(seen["membrane"] >= seen["threshold"], spikes == 1)
    np.testing.assert_array_equal(seen["currents"], X)
    # Of two bytes: spikes of that dtype, membranes and their sums in float32.
    short = X.astype(jnp.bfloat16)
    found, after = jax.jit(lambda x: call(layer, x))(short)
    assert found.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after.state))
    expected = jax.jit(lambda x: call(layer, x)[0])(short.astype(jnp.float32))
    np.testing.assert_array_equal(found.astype(jnp.float32), expected)


@pytest.mark.fast
def test_initial_values_are_those_of_the_docstrings():
    psn, masked, sliding = (LAYERS[name]() for name in ("psn", "masked_psn", "sliding_psn"))
    assert np.abs(psn.weights[...]).max() <= 1 / np.sqrt(T)
    np.testing.assert_array_equal(psn.threshold[...], np.ones(T))
    np.testing.assert_array_equal(psn.weights[...], masked.weights[...])
    np.testing.assert_array_equal(sliding.neuron.params().weights, [0.25, 0.5, 1.0])
    sizes = [sum(leaf.size for leaf in leaves(nnx.state(m, nnx.Param))) for m in (psn, sliding)]
    assert sizes == [T * T + T, 4]


def networks(*neurons_of, **options):
    """Two synapses with a layer of neurons after each."""
    options_of = {"rngs": rngs(), "kernel_init": nnx.initializers.normal(1.0)}  # so that all fire
    first, second = (make() for make in neurons_of)
    body = (nn.Linear(N, 8, **options_of), first, nn.Linear(8, 3, **options_of), second)
    return nn.Network(nn.Sequential(*body), (N,), **options)


@pytest.mark.fast
@pytest.mark.parametrize("name", LAYERS)
def test_strategies_refuse_what_scans_nothing_and_pack_the_spikes(name):
    network = networks(LAYERS[name], nn.LIF)
    packed = nn.with_memory(network, memory.Strategy(pack=True))
    assert packed.body.layers[2].pack == "spikes" and packed.body.layers[0].pack is None
    steps = memory.Strategy(time=memory.recompute(2))
    if name == "sliding_psn":
        placed = nn.with_memory(network, steps).body.layers[1]
        assert placed.neuron.scan == memory.recompute(2)
        with pytest.raises(memory.StrategyError, match="offer no inverse.*recompute"):
            nn.with_memory(network, memory.Strategy(time=memory.reversal()))
        return
    with pytest.raises(memory.StrategyError, match="leave time out, or use nn\\.(SlidingPSN|LIF)"):
        nn.with_memory(network, steps)


@jax.jit
def graded(network, inputs):
    """Outputs, and the gradient of a weighted sum of them."""

    def loss(network, inputs):
        outputs, _ = network(inputs, network.initial_state(B), training=True)
        return weighted(outputs), outputs

    gradient, outputs = jax.grad(loss, has_aux=True)(network, inputs)
    return outputs, gradient


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("psn", memory.Strategy(depth=memory.recompute(1), pack=True)),
        ("reset_free_lif", memory.Strategy(depth=memory.recompute(1), pack=True)),
        ("sliding_psn", memory.Strategy(time=memory.recompute(2), pack=True)),
    ],
)
def test_strategies_change_nothing(name, strategy):
    """Spikes are packed, a block is computed again; the sliding one is scanned step by step."""
    network = networks(LAYERS[name], LAYERS["sliding_psn"])
    outputs, gradient = graded(network, X)
    assert 0 < outputs.sum() < outputs.size
    found, found_gradient = graded(nn.with_memory(network, strategy), X)
    np.testing.assert_array_equal(found, outputs)
    assert_close(leaves(found_gradient), leaves(gradient), 1e-6)


@pytest.mark.fast
def test_a_stream_is_the_window():
    """`order="time"`, which carries the last currents and the membrane; whole windows refuse it."""
    network = networks(LAYERS["sliding_psn"], LAYERS["reset_free_lif"])
    streaming = networks(LAYERS["sliding_psn"], LAYERS["reset_free_lif"], order="time")
    x = jnp.round(X * 8) / 8
    outputs, streamed = (
        jax.jit(lambda n: n(x, n.initial_state(B), training=False)[0])(n)
        for n in (network, streaming)
    )
    np.testing.assert_array_equal(streamed, outputs)
    assert 0 < outputs.sum() < outputs.size
    for name in WHOLE:
        with pytest.raises(ValueError, match=f"whole window of {T} timesteps"):
            networks(LAYERS[name], nn.LIF, order="time")


@pytest.mark.fast
def test_masking_is_an_argument_that_traces_nothing_again():
    plain, masked = nn.PSN(T, rngs=rngs()), nn.PSN(T, order=2, masking=0.0, rngs=rngs())
    traces = []

    @jax.jit
    def spikes(layer):
        traces.append(1)
        return call(layer, X)[0]

    np.testing.assert_array_equal(spikes(masked), call(plain, X)[0])
    network = nn.Network(nn.Sequential(masked, nn.LIF()), (N,))
    causal = nn.with_masking(network, 1.0).body.layers[0]
    band = neurons.psn.masked_weights(plain.weights[...], order=2)
    np.testing.assert_array_equal(causal.params().weights, band)
    assert float(masked.masking[...]) == 0.0 and causal.weights is masked.weights
    assert not np.array_equal(spikes(causal), spikes(masked)) and len(traces) == 1
    gradient = jax.grad(lambda layer: jnp.sum(call(layer, X)[0]))(nn.with_masking(masked, 0.5))
    assert float(gradient.masking[...]) == 0.0
    stacked = nn.Stacked(lambda r: nn.PSN(T, order=2, rngs=r), 2, rngs=rngs())
    np.testing.assert_array_equal(nn.with_masking(stacked, 0.5).blocks.masking[...], [0.5, 0.5])


@pytest.mark.fast
@pytest.mark.parametrize("name", ["psn", "masked_psn", "sliding_psn"])
def test_products_over_time_are_counted(name):
    layer = LAYERS[name]()
    x = jnp.where(jnp.abs(X) > 1, X, 0).at[0, 0].set(1.0)
    _, aux = call(layer, x, taps=("products",))
    found = aux.taps[""]["products"]
    active = np.asarray((x != 0).sum(-1))
    used = {"psn": lambda t: range(T), "masked_psn": lambda t: range(max(t - 1, 0), t + 1)}
    used["sliding_psn"] = lambda t: range(max(t - 2, 0), t + 1)
    effective = np.stack([active[list(used[name](t))].sum(0) for t in range(T)])
    np.testing.assert_array_equal(found.effective, effective)
    assert np.all(np.asarray(found.dense) == (3 if name == "sliding_psn" else T) * N)
    # Of the first example the first currents are all 1: products with nothing else only add.
    assert bool(found.binary[0, 0]) == (name != "psn" and name != "masked_psn")
    assert not np.asarray(found.binary)[1:].any()


@pytest.mark.fast
def test_misfits_are_refused():
    with pytest.raises(ValueError, match="whole window of 4 timesteps at once and got 3.*Sliding"):
        call(LAYERS["psn"](), X[:3])
    with pytest.raises(ValueError, match="timesteps must be at least 1, got 0"):
        nn.PSN(0, rngs=rngs())
    with pytest.raises(ValueError, match="weighs 1 to 4 of its 4 timesteps, got order=5"):
        nn.PSN(T, order=5, rngs=rngs())
    with pytest.raises(ValueError, match="masking must lie in.*got 1.5"):
        nn.PSN(T, order=2, masking=1.5, rngs=rngs())
    with pytest.raises(ValueError, match="masking must lie in"):
        nn.with_masking(LAYERS["masked_psn"](), -0.1)
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        nn.SlidingPSN(order=0)
