"""Advance spatial attention: golden values, loops, its invariants, the defects it does not have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.asa import _soft_top
from snnjax.nn.contract import whole_window
from tests.compare import AS_USERS_DO, assert_close, assert_equal
from tests.nn.layers import leaves, rngs

T, B, H, W, C = 5, 3, 4, 3, 6
UNION = "official_batch_union"
X = jax.random.normal(jax.random.key(0), (T, B, H, W, C)) + 0.1
GOLDEN = {  # sum(y), sum|y|, y[0,0,0,0,0], y[1,3,3,2,2], important maps, as [N, T, C, H, W]
    UNION: (1.2750413908305687, 86.48394416907318, 0.4241799994800706, 0.3502916956523286),
    "per_sample": (1.4428559284587021, 82.73804872582787, 0.42669174314976915, 0.3463884354569846),
}
BOTH = ("0010", "1000", "0000", "1101")
MASKS = {
    UNION: (BOTH, BOTH),
    "per_sample": (("0000", "0001", "0000", "1000"), ("0010", "1000", "0000", "0101")),
}


def asa(timesteps=T, **options):
    return nn.ASA(timesteps, **options, rngs=rngs())


@functools.partial(jax.jit, static_argnames="taps")
def call(layer, x=X, *, taps=()):
    """Compiled once for equal layers."""
    return layer(x, nn.State(), nn.Call(training=True, taps=taps))


def with_weights(layer, mixer, important, remaining):
    layer.mixer = nnx.List([nnx.Param(jnp.asarray(m)) for m in mixer])
    layer.important, layer.remaining = (nnx.Param(jnp.asarray(k)) for k in (important, remaining))
    return layer


@pytest.mark.parametrize("mode", GOLDEN)
@pytest.mark.usefixtures("x64")
def test_golden_values(mode):
    """The released module, executed in double precision; per sample, an implementation in NumPy."""
    shape = (2, 4, 4, 3, 3)
    x = np.sin(1.7 * (np.arange(np.prod(shape)) + 1) ** 1.5).reshape(shape)
    # Powers of NumPy differ in the last bit between processors with and without AVX-512: their
    # sines, of arguments up to 8,000, by 1e-12.
    assert x.sum() == pytest.approx(2.5798688502381832, abs=1e-11)
    kernel = (0.1 * (np.arange(18) - 8.5) / 9).reshape(1, 2, 3, 3).transpose(2, 3, 1, 0)
    layer = with_weights(asa(4, mode=mode), [np.eye(4)], kernel, -kernel)
    outputs, aux = call(layer, jnp.asarray(x.transpose(1, 0, 3, 4, 2)), taps=("mask",))
    y = np.asarray(outputs).transpose(1, 0, 4, 2, 3)
    found = (y.sum(), np.abs(y).sum(), y[0, 0, 0, 0, 0], y[1, 3, 3, 2, 2])
    np.testing.assert_allclose(found, GOLDEN[mode], rtol=1e-11, atol=1e-11)
    mask = np.asarray(aux.taps[""]["mask"])
    for example, rows in enumerate(MASKS[mode]):
        assert ["".join(str(int(m)) for m in row) for row in mask[:, example]] == list(rows)


def tops(scores, count):
    """Marks the `count` largest of a list, one after the other."""
    marks = np.zeros(len(scores), bool)
    for _ in range(count):
        marks[max((v, -i) for i, v in enumerate(scores) if not marks[i])[1] * -1] = True
    return marks


def oracle(layer, x, *, union, shares=None):
    """In loops, in float64; `shares` are what the means are divided by."""
    x = np.asarray(x, np.float64)
    share, alpha, beta = layer.share, float(layer.alpha[...]), float(layer.beta[...])
    scores = np.zeros((T, B, C))
    for b, c in np.ndindex(B, C):
        planes = [x[t, b, :, :, c] for t in range(T)]
        row = np.array([0.5 * (p.mean() + p.max()) + alpha * p.mean() + beta * p.max()
                        for p in planes])  # fmt: skip
        for number, m in enumerate(layer.mixer):
            row = (np.maximum(row, 0) if number else row) @ np.asarray(m[...], np.float64)
        scores[:, b, c] = row
    channel, time = np.zeros((T, B, C), bool), np.zeros((T, B, C), bool)
    for b in range(B):
        for t in range(T):
            channel[t, b] = tops(scores[t, b], int(share * C))
        for c in range(C):
            time[:, b, c] = tops(scores[:, b, c], int(share * T))
    if union:
        channel, time = (np.repeat(m.any(1, keepdims=True), B, 1) for m in (channel, time))
    important = channel != time
    shares = shares or (share, 1 - share)
    y = np.zeros_like(x)
    for b in range(B):
        for mine, fraction, k in (
            (important, shares[0], layer.important), (~important, shares[1], layer.remaining),
        ):  # fmt: skip
            maps = x[:, b] * mine[:, b, None, None]
            two = np.stack([maps.mean((0, 3)) / fraction, maps.max((0, 3))], -1)
            padded, z = np.pad(two, ((1, 1), (1, 1), (0, 0))), np.zeros((H, W))
            for i, j in np.ndindex(H, W):
                z[i, j] = np.sum(padded[i : i + 3, j : j + 3] * np.asarray(k[..., 0], np.float64))
            y[:, b] += maps / (1 + np.exp(-z))[None, :, :, None]
    return y, important


# Golden values have both modes at a reduction of 1.
@pytest.mark.parametrize("mode", GOLDEN)
@pytest.mark.parametrize(
    ("reduction", "share"), [pytest.param(1, 0.5, marks=pytest.mark.slow), (2, 0.4)]
)
def test_the_layer_in_loops(mode, reduction, share):
    layer = asa(reduction=reduction, share=share, mode=mode)
    outputs, aux = call(layer, taps=("mask", "attention"))
    expected, important = oracle(layer, X, union=mode == UNION)
    np.testing.assert_array_equal(aux.taps[""]["mask"], important)
    assert_close(outputs, expected, 1e-5)
    np.testing.assert_array_equal(aux.taps[""]["attention"] * X, outputs)


# What it does to currents.


@pytest.mark.parametrize("mode", GOLDEN)
def test_currents_shrink_and_keep_their_sign(mode):
    y, _ = call(asa(mode=mode), 3 * X)
    assert bool(jnp.all(jnp.abs(y) <= jnp.abs(3 * X)))
    np.testing.assert_array_equal(jnp.sign(y), jnp.sign(X))
    np.testing.assert_array_equal(call(asa(mode=mode), 0 * X)[0], 0 * X)


def test_without_weights_every_current_is_halved():
    zeros, layer = jnp.zeros((3, 3, 2, 1)), asa()
    layer = with_weights(layer, [m[...] for m in layer.mixer], zeros, zeros)
    np.testing.assert_array_equal(call(layer)[0], X / 2)


def test_a_step_from_rest_fires_no_neuron_that_it_would_not_have():
    """Of one step only: over time a neuron that has not fired may fire later."""
    lif = nn.MALIF()
    plain, weighed = (
        jnp.concatenate(
            [lif(x[None], lif.initial_state(x.shape), nn.Call(training=False))[0] for x in xs]
        )
        for xs in (X, call(asa())[0])
    )
    assert bool(jnp.all(weighed <= plain))
    assert 0 < float(weighed.sum()) < float(plain.sum())


def test_the_groups_are_a_partition_and_the_channels_have_no_order():
    order = jax.random.permutation(jax.random.key(1), C)
    _, aux = call(asa(), taps=("mask",))
    permuted, seen = call(asa(), X[..., order], taps=("mask",))
    np.testing.assert_array_equal(seen.taps[""]["mask"], aux.taps[""]["mask"][..., order])
    assert_close(permuted, call(asa())[0][..., order], 1e-6)


def test_it_is_the_named_exception_to_causality():
    """Law 7: an earlier output depends on a later input."""
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(call(asa(), x)[0][0] ** 2)))(X)
    assert float(jnp.abs(gradient[1:]).max()) > 0


# The seven defects.


def test_defect_1_the_ranking_does_not_learn():
    """Gradients exactly zero, as published; and scaling the mixer changes no rank."""
    gradient = jax.jit(jax.grad(lambda layer: jnp.sum(jnp.sin(call(layer)[0]))))(asa(reduction=2))
    for leaf in leaves((gradient.alpha, gradient.beta, gradient.mixer)):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
    assert min(np.abs(leaf).min() for leaf in leaves((gradient.important, gradient.remaining))) > 0
    decayed = asa(reduction=2)
    decayed.mixer = jax.tree.map(lambda m: 0.25 * m, decayed.mixer)
    np.testing.assert_array_equal(call(decayed)[0], call(asa(reduction=2))[0])


def test_defect_1_straight_through_lets_all_of_it_learn():
    """The extension has the values of the hard mask, bit for bit."""
    soft = asa(reduction=2, gate="straight_through")
    np.testing.assert_array_equal(call(soft)[0], call(asa(reduction=2))[0])
    gradient = jax.jit(jax.grad(lambda layer: jnp.sum(jnp.sin(call(layer)[0]))))(soft)
    for leaf in leaves(gradient):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


@pytest.mark.parametrize("count", [1, 3])
def test_the_soft_mask_is_centred_on_the_boundary(count):
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 4)), jnp.float32)
    soft = _soft_top(scores, count, 0)
    np.testing.assert_array_equal((soft > 0.5).sum(0), jnp.full((2, 4), count))
    loss = lambda s: jnp.sum(_soft_top(s, count, 0) * jnp.cos(scores))  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(scores)
    np.testing.assert_allclose(gradient.sum(0), 0.0, atol=1e-6)  # a shift of all changes nothing
    assert float(jnp.abs(gradient).max()) > 0.01


def test_defect_2_an_example_does_not_see_its_batch():
    whole = call(asa())[0]
    alone = jnp.concatenate([call(asa(), X[:, b : b + 1])[0] for b in range(B)], axis=1)
    assert_close(whole, alone, 1e-6)
    order = jnp.array([2, 0, 1])
    np.testing.assert_array_equal(call(asa(), X[:, order])[0], whole[:, order])


def test_defect_2_in_the_official_mode_it_does():
    whole, part = (call(asa(mode=UNION), x)[0] for x in (X, X[:, :2]))
    assert float(jnp.abs(whole[:, :2] - part).max()) > 0.01


@pytest.mark.parametrize("mode", GOLDEN)
def test_defect_3_a_batch_of_one(mode):
    one = X[:, :1]
    np.testing.assert_array_equal(call(asa(mode=mode), one)[0], call(asa(), one)[0])


@pytest.mark.parametrize("mode", GOLDEN)
def test_defect_4_rankings_that_coincide_leave_nothing_important(mode):
    """So it is with the xor; outputs and gradients stay finite, and `conv_1` learns nothing."""
    x = jnp.eye(4)[:, None, None, None] * jnp.ones((4, 2, 3, 3, 4))
    layer = asa(4, share=0.25, mode=mode)
    layer.mixer = nnx.List([nnx.Param(jnp.eye(4))])
    outputs, aux = call(layer, x, taps=("mask",))
    assert not aux.taps[""]["mask"].any()
    assert 0 < float(outputs.max()) < 1
    gradient = jax.jit(jax.grad(lambda layer: jnp.sum(call(layer, x)[0] ** 2)))(layer)
    assert all(np.isfinite(leaf).all() for leaf in leaves(gradient))
    np.testing.assert_array_equal(gradient.important[...], 0.0)
    assert float(jnp.abs(gradient.remaining[...]).max()) > 0


def test_defect_5_the_kernels_absorb_what_the_means_are_divided_by():
    """Divided by the share of independent rankings it is the same function of other kernels."""
    layer, scaled = (asa(share=0.4) for _ in range(2))
    shares = (2 * 0.4 * 0.6, 1 - 2 * 0.4 * 0.6)
    expected, important = oracle(layer, X, union=False, shares=shares)
    assert important.mean() < 0.4  # the two rank the same scores: they are not independent
    ratios = (jnp.asarray([0.4 / shares[0], 1.0]), jnp.asarray([0.6 / shares[1], 1.0]))
    kernels = [
        k[...] * r[:, None] for k, r in zip((layer.important, layer.remaining), ratios, strict=True)
    ]
    scaled = with_weights(scaled, [m[...] for m in layer.mixer], *kernels)
    assert_close(call(scaled)[0], expected, 1e-5)
    assert float(jnp.abs(call(layer)[0] - expected).max()) > 1e-3


@pytest.mark.parametrize(
    ("timesteps", "reduction", "expected"),
    [(60, 4, 1_838), (60, 8, 878), (20, 1, 438), (36, 1, 1_334), (1, 1, 39)],
)
def test_defect_6_no_dead_parameters(timesteps, reduction, expected):
    """1,838 at T = 60 and r = 4 as published, without the 39 of a second module of T = 1."""
    sizes = [leaf.size for leaf in jax.tree.leaves(asa(timesteps, reduction=reduction))]
    assert sum(sizes) == expected
    assert sizes.count(18) == 2


def test_defect_7_the_share_is_heard():
    counts = [int(call(asa(share=s), taps=("mask",))[1].taps[""]["mask"].sum()) for s in (0.2, 0.5)]
    assert counts[0] < counts[1]


# Its place in a network.


def body(layer):
    r = rngs()
    return nn.Sequential(
        *(nn.Conv(2, 3, rngs=r), nn.BatchNorm(3), nn.AvgPool(), layer, nn.MALIF()),
        *(nn.Flatten(), nn.Linear(27, 2, rngs=r)),
    )


def network(**options):
    return nn.Network(body(asa(**options)), (6, 6, 2))


FRAMES = 1 + jax.random.normal(jax.random.key(3), (T, 2, 6, 6, 2))


@functools.partial(jax.jit, compiler_options=AS_USERS_DO)
def graded(net, frames):
    def loss(net, frames):
        outputs, aux = net(frames, net.initial_state(frames.shape[1]), training=True)
        return jnp.sum(jnp.sin(outputs)), (outputs, aux)

    return jax.grad(loss, (0, 1), has_aux=True)(net, frames)


@functools.cache
def as_written():
    return graded(network(gate="straight_through"), FRAMES)


@pytest.mark.slow  # two networks under full optimization; test_ma.py has an attention like it
@pytest.mark.parametrize(
    "text",
    [
        "depth=recompute(1), pack=True",
        "depth=recompute(sqrt), pack=bfloat16",
        "time=recompute(2), depth=recompute(2)",
    ],
)
def test_a_strategy_changes_nothing(text):
    """Rankings are computed again from the same bits, so outputs and spikes are equal."""
    net = nn.with_memory(network(gate="straight_through"), memory.parse_strategy(text))
    gradients, seen = graded(net, FRAMES)
    wanted, expected = as_written()
    assert_equal((seen[0], seen[1].state), (expected[0], expected[1].state))
    bound = 2.0**-8 if "bfloat16" in text else 1e-6
    assert_close(jax.tree.leaves(gradients), jax.tree.leaves(wanted), bound)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(wanted[1]))


def test_its_outputs_are_currents_and_no_spikes():
    layers = (nn.LIF(), asa(), nn.Conv(2, 2, rngs=rngs()))
    net = nn.Network(nn.Sequential(*layers), (6, 6, 2))
    packed = nn.with_memory(net, memory.Strategy(pack="bfloat16"))
    assert packed.body.layers[2].pack == "bfloat16"


@pytest.mark.parametrize("gate", ["hard", "straight_through"])
def test_residuals_are_the_inputs(gate):
    shape = jax.ShapeDtypeStruct((T, B, 16, 16, 32), jnp.float32)
    pulls = jax.eval_shape(lambda layer, x: jax.vjp(lambda *a: call(*a)[0], layer, x)[1],
                           asa(gate=gate), shape)  # fmt: skip
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pulls))
    assert 4 * shape.size <= kept < 1.05 * 4 * shape.size


def test_it_is_a_pytree_under_jit_and_vmap():
    one, other = asa(reduction=2), asa(reduction=2)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert_equal(one, other)
    stacked = jnp.stack([X, 2 * X[::-1]])
    mapped = jax.jit(jax.vmap(lambda x: call(one, x)[0]))(stacked)
    assert_close(mapped, jnp.stack([call(one, x)[0] for x in stacked]), 1e-6)
    half, _ = call(one, X.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert_close(half.astype(jnp.float32), call(one, X.astype(jnp.bfloat16).astype("float32"))[0],
                 2.0**-7)  # fmt: skip


def test_it_is_stacked_and_seen():
    """One timestep's shape goes through it, though it takes no single timestep."""
    block = lambda r: nn.Sequential(nn.Conv(2, 2, rngs=r), nn.ASA(T, rngs=r), nn.LIF())  # noqa: E731
    net = nn.Network(nn.Sequential(nn.Stacked(block, 2, rngs=rngs())), (6, 6, 2))
    assert whole_window(net.body) == T
    run = lambda net, x: net(x, net.initial_state(2), training=False, taps=("mask", "attention"))  # noqa: E731
    _, aux = jax.eval_shape(run, net, FRAMES)
    assert set(aux.taps) == {"stack0/block0/asa1", "stack0/block1/asa1"}
    for seen in aux.taps.values():
        assert (seen["mask"].shape, seen["mask"].dtype) == ((T, 2, 2), jnp.bool_)
        assert seen["attention"].shape == FRAMES.shape


def test_it_has_no_streaming_form():
    with pytest.raises(ValueError, match=r'ASA.*window of 5 .*use order="layer"'):
        nn.Network(body(asa()), (6, 6, 2), order="time")
    net = network()
    state = net.initial_state(2)
    with pytest.raises(ValueError, match=r"whole window of 5 timesteps.*got 1.*Streaming"):
        net(FRAMES[:1], state, training=False)
    r = rngs()
    shared = nn.Shared(
        [nn.Conv(2, 2, rngs=r), nn.Sequential(nn.Conv(2, 2, rngs=r), asa())], nn.LIF()
    )
    with pytest.raises(ValueError, match=r"got 1.*nn.Shared"):
        shared(FRAMES, shared.initial_state((2, 6, 6, 2)), nn.Call(training=False))
    assert nn.Network(body(asa(1)), (6, 6, 2), order="time").order == "time"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: asa(mode="batch"), "mode must be one of per_sample"),
        (lambda: asa(gate="soft"), "gate must be one of hard"),
        (lambda: asa(gate="straight_through", mode=UNION), 'use mode="per_sample"'),
        (lambda: asa(share=1.0), r"share must lie in \(0, 1\)"),
        (lambda: asa(reduction=6), "choose one from 1 to 5"),
        (lambda: call(asa(share=0.1)), "use a larger share"),
        (lambda: call(asa(4)), "window of 4 timesteps"),
        (lambda: call(asa(), X[:, :, 0, 0]), "in front of nn.Flatten"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()
