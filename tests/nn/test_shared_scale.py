"""Layers on a shared scale: integers from end to end, learning, strategies, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from snnjax import losses, memory, nn, readout
from snnjax.nn.contract import output_shape
from snnjax.quantization.shared_scale_lif import integer_lif
from tests.compare import assert_close, assert_equal
from tests.nn.layers import call, run

T, B = 5, 2
SPIKES = (jax.random.uniform(jax.random.key(0), (T, B, 6, 6, 3)) < 0.4).astype(jnp.float32)


def conv(bits=4, **options):
    return nn.SharedScale(nn.Conv(3, 4, rngs=nnx.Rngs(0)), bits=bits, **options)


def linear(**options):
    return nn.SharedScale(nn.Linear(6, 4, use_bias=False, rngs=nnx.Rngs(0)), **options)


@pytest.mark.parametrize("bits", [2, 8])
def test_a_convolution_in_integers_gives_the_same_spikes(bits):
    """int8 kernel from its packed codes, int32 sums, shifts and comparisons: no float anywhere."""
    layer = conv(bits, threshold=0.1)
    outputs, aux = call(layer, SPIKES)
    packed = jax.jit(lambda layer: layer.packed_codes())(layer)
    assert packed.nbytes == -(-bits * 3 * 3 * 3 * 4 // 8)
    kernel, form = packed.codes(), layer.integer_params()
    assert kernel.dtype == jnp.int8
    convolve = functools.partial(
        lax.conv_general_dilated, window_strides=(1, 1), padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip

    @jax.jit
    def integers(spikes, kernel, form):
        flat = spikes.reshape(-1, *spikes.shape[2:]).astype(jnp.int32)
        whole = convolve(flat, kernel.astype(jnp.int32))
        whole = whole.reshape(*spikes.shape[:2], *whole.shape[1:])
        return lax.scan(lambda v, x: integer_lif(form, v, x), jnp.zeros_like(whole[0]), whole)

    after, spikes = integers(SPIKES, kernel, form)
    assert 0.05 < outputs.mean() < 0.95
    np.testing.assert_array_equal(spikes, outputs)
    np.testing.assert_array_equal(after, aux.state[1].v)


def test_currents_are_whole_numbers_and_so_are_membranes():
    layer = conv(threshold=0.3)
    _, aux = call(layer, SPIKES, taps=("currents", "membrane", "operations"))
    (synapse,), (lif,) = (
        [seen for name, seen in aux.taps.items() if part in name] for part in ("synapse", "lif")
    )
    for kind, most in (("currents", 7 * 27), ("membrane", 7)):
        values = np.asarray(lif[kind])
        np.testing.assert_array_equal(values, np.round(values))
        assert 1 < np.abs(values).max() <= most
    assert synapse["operations"].effective.shape == (T, B)


def test_the_contract_of_a_layer():
    layer, other = conv(), conv()
    shape = SPIKES.shape[1:]
    assert_equal(layer, other)
    assert jax.tree.structure(layer) == jax.tree.structure(other)
    state = layer.initial_state(shape)
    outputs, aux = jax.jit(lambda layer: layer(SPIKES, state, nn.Call(training=True)))(layer)
    assert outputs.shape[1:] == output_shape(layer, state, shape)
    assert jax.tree.structure(state.after(aux)) == jax.tree.structure(state)
    first, middle = call(layer, SPIKES[:2])
    between = state.after(middle)
    second, _ = jax.jit(lambda layer: layer(SPIKES[2:], between, nn.Call(training=False)))(layer)
    np.testing.assert_array_equal(jnp.concatenate([first, second]), outputs)
    result = run(layer, SPIKES, until=2)
    to_layer, to_inputs = result.gradients
    assert jnp.abs(to_layer.beta[...]) > 0
    np.testing.assert_array_equal(to_inputs[2:], 0)
    assert jnp.abs(to_inputs[:2]).max() > 0


def test_the_sign_of_beta_does_not_matter():
    layer, other = conv(), conv()
    other.beta = nnx.Param(-layer.beta[...])
    assert_equal(call(layer, SPIKES)[0], call(other, SPIKES)[0])


def test_strategies():
    layer, spikes = linear(threshold=0.2), SPIKES[:, :, 0, :, 0]
    network = nn.Network(nn.Sequential(layer, nn.Flatten()), (6,))
    strategy = memory.Strategy(time=memory.recompute(2), pack=False)
    again = nn.with_memory(network, strategy).body.layers[0]
    assert again.scan == memory.recompute(2)
    expected, result = run(layer, spikes), run(again, spikes)
    assert_equal(result.outputs, expected.outputs)
    assert_close(jax.tree.leaves(result.gradients), jax.tree.leaves(expected.gradients), 1e-6)
    placed = layer.with_memory(nn.contract.MemoryRequest(memory.Strategy(pack=True), spiking=True))
    assert placed.spiking and placed.layer.synapse.pack == "spikes" and placed.taken == {"pack"}
    assert_equal(run(placed.layer, spikes).outputs, expected.outputs)
    with pytest.raises(ValueError, match="no inverse"):
        nn.with_memory(network, memory.Strategy(time=memory.reversal()))


def test_refusals_name_the_cure():
    with pytest.raises(ValueError, match="use_bias=False"):
        nn.SharedScale(nn.Linear(3, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="bits must be at least 2"):
        conv(bits=1)
    with pytest.raises(ValueError, match="no shift"):
        linear(decay=0.9).integer_params()


def test_a_network_of_two_bits_learns():
    """Comparison of two firing rates: a task that an untrained network does not solve."""
    rngs = nnx.Rngs(1)
    layers = [
        nn.SharedScale(nn.Linear(12, 32, use_bias=False, rngs=rngs), bits=2, threshold=0.3),
        nn.Linear(32, 2, rngs=rngs),
    ]
    network = nn.Network(nn.Sequential(*layers), (12,))
    rates = jax.random.uniform(jax.random.key(2), (256, 12), maxval=0.8)
    inputs = (jax.random.uniform(jax.random.key(3), (8, 256, 12)) < rates).astype(jnp.float32)
    labels = (inputs[..., :6].sum((0, 2)) > inputs[..., 6:].sum((0, 2))).astype(jnp.int32)

    def loss(network):
        outputs, _ = network(inputs, network.initial_state(256), training=True)
        logits = readout.rate(outputs)
        accuracy = (logits.argmax(-1) == labels).mean()
        return losses.cross_entropy(logits, labels).mean(), accuracy

    @jax.jit
    def train(network):
        def step(network, _):
            slope, accuracy = jax.grad(loss, has_aux=True)(network)
            return jax.tree.map(lambda w, g: w - 0.3 * g, network, slope), accuracy

        return lax.scan(step, network, length=200)

    after, accuracy = train(network)
    assert accuracy[0] < 0.75 and accuracy[-1] > 0.9
    assert set(np.unique(after.body.layers[0].codes())) == {-1, 0, 1}
    assert after.body.layers[0].beta[...] != network.body.layers[0].beta[...]
