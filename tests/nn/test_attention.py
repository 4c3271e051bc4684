"""Spiking self-attention: its equation in loops, its symmetries, what it keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, nn, surrogate
from snnjax.nn.attention import Attention, ChannelMask, attend
from tests.compare import assert_equal
from tests.nn.layers import call, rngs, run

T, B, N, D, HEADS, GAIN = 3, 2, 6, 8, 2, 4.0
hard = functools.partial(
    nn.LIF,
    scale_input=True,
    reset=neurons.reset.detached(neurons.reset.zero),
    spike=surrogate.sigmoid(alpha=4.0),
)
X = 4 * jax.random.normal(jax.random.key(0), (T, B, N, D))


norm = functools.partial(nn.BatchNorm, gain=GAIN)


def layer(norm=norm, scale=1.0):
    """Few tokens: with the papers' scale of 0.125 their product would reach no threshold."""
    return nn.SpikingSelfAttention(D, HEADS, rngs=rngs(), neuron=hard, norm=norm, scale=scale)


def spikes(shape, *, seed=0):
    return jax.random.bernoulli(jax.random.key(seed), 0.4, shape).astype(jnp.float32)


def product(q, k, v, scale):
    """`scale * (q k^T) v` of one head, `[N, d]`, in loops."""
    outputs = np.zeros_like(v)
    for i in range(len(q)):
        for j in range(len(k)):
            outputs[i] += np.dot(q[i], k[j]) * v[j]
    return scale * outputs


@pytest.mark.fast
@pytest.mark.parametrize(("tokens", "size"), [(6, 4), (4, 4), (3, 5)])
def test_the_product_in_loops(tokens, size):
    """Whole numbers: bit-equal to the loops whichever brackets are computed."""
    q, k, v = (spikes((2, tokens, HEADS, size), seed=seed) for seed in range(3))
    outputs = attend(q, k, v, scale=0.125)
    for image in range(2):
        for head in range(HEADS):
            one = (np.asarray(a[image, :, head]) for a in (q, k, v))
            np.testing.assert_array_equal(outputs[image, :, head], product(*one, 0.125))


@pytest.mark.fast
@pytest.mark.parametrize(("tokens", "size"), [(6, 4), (3, 5)])
def test_the_smaller_inner_matrix_is_computed(tokens, size):
    shape = jax.ShapeDtypeStruct((2, tokens, HEADS, size), jnp.float32)
    inner = jax.make_jaxpr(attend)(shape, shape, shape).eqns[0].outvars[0].aval
    assert inner.size == 2 * HEADS * min(tokens, size) ** 2


def lif_in_numpy(currents, threshold):
    """`h = (v + x) / 2`, fire at the threshold, v = 0 after a spike; how close h came to it."""
    v, seen, gap = np.zeros_like(currents[0]), [], np.inf
    for current in currents:
        h = 0.5 * v + 0.5 * current
        gap = min(gap, np.abs(h - threshold).min())
        seen.append((h >= threshold).astype(h.dtype))
        v = h * (1 - seen[-1])
    return np.stack(seen), gap


def norm_in_numpy(x):
    axes = tuple(range(x.ndim - 1))
    return GAIN * (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)


def test_the_layer_in_loops():
    """q, k and v from three separate maps; no membrane so close to a threshold as to round over."""
    ours = layer()
    outputs = run(ours, X, training=True).outputs
    three, last = (np.asarray(ours.layers[i].function.kernel[...], np.float64) for i in (1, 6))
    s, gap = lif_in_numpy(np.asarray(X, np.float64), 1.0)
    gaps, qkv = [gap], []
    for part in np.split(three, 3, axis=1):
        got, gap = lif_in_numpy(norm_in_numpy(s @ part), 1.0)
        gaps.append(gap)
        qkv.append(got)
    mixed, size = np.zeros((T, B, N, D)), D // HEADS
    for t, b, head in np.ndindex(T, B, HEADS):
        own = slice(head * size, (head + 1) * size)
        mixed[t, b, :, own] = product(*(part[t, b, :, own] for part in qkv), 1.0)
    got, gap = lif_in_numpy(mixed, 0.5)  # exact in both: a membrane may lie on the threshold
    assert min(gaps) > 1e-5
    assert got.any()
    np.testing.assert_allclose(outputs, norm_in_numpy(got @ last), rtol=1e-4, atol=1e-5)


def test_tokens_have_no_order():
    """Permuted tokens give permuted outputs, bit for bit, with fixed statistics."""
    order = jax.random.permutation(jax.random.key(3), N)
    ours = layer()
    got, want = run(ours, X[:, :, order]).outputs, run(ours, X).outputs[:, :, order]
    assert float(jnp.abs(want).max()) > 0
    np.testing.assert_array_equal(got, want)


@pytest.mark.fast
def test_scale_and_threshold_are_the_papers():
    ours = nn.SpikingSelfAttention(D, HEADS, rngs=rngs())
    assert ours.layers[4].scale == 0.125
    assert ours.layers[5].model.params.threshold == 0.5
    assert [leaf.size for leaf in jax.tree.leaves(ours.layers[1])] == [3 * D * D]


@pytest.mark.fast
def test_heads_do_not_mix():
    q, k, v = (spikes((1, N, HEADS, 4), seed=seed) for seed in range(3))
    other = attend(q, k, v.at[:, :, 1].set(1 - v[:, :, 1]))
    np.testing.assert_array_equal(other[:, :, 0], attend(q, k, v)[:, :, 0])
    assert not np.array_equal(other[:, :, 1], attend(q, k, v)[:, :, 1])


def test_a_timestep_attends_to_itself():
    ours = layer()
    changed = X.at[-1].multiply(-1.0)
    np.testing.assert_array_equal(run(ours, changed).outputs[:-1], run(ours, X).outputs[:-1])


# What is kept.


def network(order="layer"):
    per_step = functools.partial(norm, over="step")
    return nn.Network(nn.Sequential(layer(per_step)), (N, D), order=order)


def packed(text, **options):
    return nn.with_memory(network(**options), memory.parse_strategy(text))


@pytest.mark.fast
def test_every_spike_in_it_is_kept_as_a_bit():
    inside = packed("pack=True").body.layers[0].layers
    _, three, _, _, attention, _, last, _ = inside
    assert (three.pack, attention.pack, last.pack) == ("spikes", True, "spikes")
    assert not network().body.layers[0].layers[4].pack


@jax.jit
def graded(net, x):
    def loss(net, x):
        outputs, aux = net(x, net.initial_state(B), training=True)
        return jnp.mean(jnp.sin(outputs)), (outputs, aux)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(net, x)


@pytest.mark.parametrize("order", ["layer", pytest.param("time", marks=pytest.mark.slow)])
def test_packing_changes_no_bit(order):
    got, want = graded(packed("pack=True", order=order), X), graded(network(order), X)
    assert_equal(jax.tree.leaves(got), jax.tree.leaves(want))


@pytest.mark.fast
def test_residuals_of_the_product():
    """One bit of q, k and v each; unpacked four bytes each, and the inner product."""

    def kept(attention):
        inputs = jax.ShapeDtypeStruct((T, B, N, 3 * D), jnp.float32)
        call = lambda x: attention(x, nn.State(), nn.Call(training=True))[0]  # noqa: E731
        pulls = jax.eval_shape(lambda x: jax.vjp(call, x)[1], inputs)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pulls))

    elements = T * B * N * 3 * D
    # One byte more: whether all inputs are 0 or 1.
    assert kept(Attention(HEADS, pack=True)) == elements // 8 + 1
    assert kept(Attention(HEADS)) >= 4 * elements


@pytest.mark.fast
def test_real_values_are_not_packed():
    strategy = memory.Strategy(pack=True)
    placed = Attention(HEADS).with_memory(nn.contract.MemoryRequest(strategy))
    assert not placed.layer.pack and not placed.spiking and not placed.taken
    placed = Attention(HEADS).with_memory(nn.contract.MemoryRequest(strategy, spiking=True))
    assert placed.layer.pack and placed.taken == {"pack"}


@pytest.mark.fast
def test_counts_beyond_bfloat16_are_counted():
    ones = jnp.ones((1, 1, 300, 3), jnp.bfloat16)
    outputs, _ = Attention(1, scale=2.0**-8)(ones, nn.State(), nn.Call(training=False))
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_array_equal(outputs.astype(jnp.float32), jnp.full((1, 1, 300, 1), 300 / 256))


def test_the_mask_in_loops():
    """A channel passes q where enough tokens have both k and v; ties with the threshold fire."""
    qkv = spikes((T, B, N, 3 * D)).at[:, :, :, D : D + 2].set(0)  # two channels without keys
    plain, bits = (ChannelMask(hard(threshold=0.5), pack=pack) for pack in (False, True))
    found = run(plain, qkv)
    q, k, v = np.split(np.asarray(qkv), 3, axis=-1)
    mask, _ = lif_in_numpy((k * v).sum(2), 0.5)
    assert mask.any() and not mask[..., :2].any()
    np.testing.assert_array_equal(found.outputs, q * mask[:, :, None])
    # One token with both is a potential of exactly 0.5.
    assert mask[0][(k * v)[0].sum(1) == 1].all() and ((k * v)[0].sum(1) == 1).any()
    packed = run(bits, qkv)
    assert_equal((packed.outputs, packed.gradients[1]), (found.outputs, found.gradients[1]))
    assert np.abs(found.gradients[1]).max() > 0
    taps = jax.jit(lambda x: call(plain, x, taps=("spikes", "products"))[1].taps[""])(qkv)
    np.testing.assert_array_equal(taps["spikes"], mask)
    products = taps["products"]
    expected = ((k * v).sum((2, 3)) + (q * mask[:, :, None]).sum((2, 3))).astype(int)
    np.testing.assert_array_equal(products.effective, expected)
    assert (products.dense == 2 * N * D).all() and products.binary.all()


@pytest.mark.fast
def test_the_order_of_the_layers():
    """Neurons in front of the synapses, or behind the norms."""
    kinds = lambda layer: [part.name for part in layer.layers]  # noqa: E731
    front = ["lif", "linear", "batchnorm", "lif", "attention", "lif", "linear", "batchnorm"]
    assert kinds(nn.SpikingSelfAttention(D, HEADS, rngs=rngs())) == front
    behind = nn.SpikingSelfAttention(D, HEADS, use_bias=True, spikes_out=True, rngs=rngs())
    assert kinds(behind) == [*front[1:], "lif"]
    assert behind.layers[0].function.bias.shape == (3 * D,)
    masked = nn.SpikeDrivenAttention(D, rngs=rngs())
    assert kinds(masked) == [*front[:4], "channelmask", *front[6:]]
    assert masked.layers[4].neuron.model.params.threshold == 0.5


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChannelMask(nn.LIF()).initial_state((B, N, 8)), "side by side"),
        (lambda: nn.SpikingSelfAttention(8, 3, rngs=rngs()), "choose a divisor"),
        (lambda: nn.SpikingSelfAttention(8, 0, rngs=rngs()), "heads must be at least 1"),
        (lambda: Attention(2).initial_state((B, N, 8)), "side by side"),
        (lambda: Attention(2).initial_state((B, 4, 4, 12)), "side by side"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()
