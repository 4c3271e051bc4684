"""Multi-dimensional attention: its equation in loops, its counts, the neurons behind it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, nn
from tests.compare import assert_close, assert_equal
from tests.nn.layers import leaves, rngs

T, B, H, W, C = 5, 2, 3, 4, 8
KINDS = ("TA", "CA", "SA", "CSA", "TCA", "TSA", "TCSA")
X = jax.random.normal(jax.random.key(0), (T, B, H, W, C))


def ma(kind, timesteps=T, channels=C, *, time_reduction=2, channel_reduction=4, **options):
    reductions = {"time_reduction": time_reduction, "channel_reduction": channel_reduction}
    return nn.MA(kind, timesteps, channels, **reductions, **options, rngs=rngs())


@functools.partial(jax.jit, static_argnames="taps")
def call(layer, x=X, *, taps=()):
    """Compiled once for equal layers."""
    return layer(x, nn.State(), nn.Call(training=True, taps=taps))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def mlp(weights, pooled):
    first, second = (np.asarray(w[...], np.float64) for w in weights)
    return np.maximum(pooled @ first, 0) @ second


def oracle(layer, x):
    """One example after the other, each factor from what the one before has weighed."""
    y = np.array(x, np.float64)
    for b in range(x.shape[1]):
        one = y[:, b].copy()
        if "T" in layer.kind:
            rows = one.reshape(len(one), -1)
            weights = layer.squeezes["T"]
            f = sigmoid(mlp(weights, rows.mean(1)) + mlp(weights, rows.max(1)))
            one = np.stack([f[t] * one[t] for t in range(len(one))])
        if "C" in layer.kind[:-1]:
            columns = one.reshape(-1, one.shape[-1])
            weights = layer.squeezes["C"]
            one = one * sigmoid(mlp(weights, columns.mean(0)) + mlp(weights, columns.max(0)))
        if "S" in layer.kind:
            two = np.stack([one.mean((0, 3)), one.max((0, 3))], -1)
            padded, z = np.pad(two, ((1, 1), (1, 1), (0, 0))), np.zeros((H, W))
            kernel = np.asarray(layer.place[...], np.float64)[..., 0]
            for i, j in np.ndindex(H, W):
                z[i, j] = np.sum(padded[i : i + 3, j : j + 3] * kernel)
            one = one * sigmoid(z)[None, :, :, None]
        y[:, b] = one
    return np.maximum(y, 0) if layer.relu else y


@pytest.mark.parametrize(("kind", "relu"), [*((kind, True) for kind in KINDS), ("TCSA", False)])
def test_the_layer_in_loops(kind, relu):
    layer = ma(kind, relu=relu)
    outputs, aux = call(layer, taps=("attention",))
    assert_close(outputs, oracle(layer, X), 1e-5)
    factor = aux.taps[""]["attention"]
    assert factor.shape == X.shape
    assert bool(((factor > 0) & (factor < 1)).all())
    np.testing.assert_array_equal(outputs, jnp.maximum(factor * X, 0) if relu else factor * X)


def test_features_are_channels():
    """As behind a fully connected layer: time alone, over the features."""
    flat = X.reshape(T, B, -1)
    assert_close(call(ma("TA", channels=H * W * C), flat)[0], call(ma("TA"))[0].reshape(T, B, -1),
                 1e-6)  # fmt: skip


def size(kind, channels):
    """At T = 60 and the published reductions."""
    layer = jax.eval_shape(lambda: nn.MA(kind, 60, channels, rngs=rngs()))
    return sum(leaf.size for leaf in jax.tree.leaves(layer))


def sizes(kind):
    """Parameters that attention adds to the network of three convolutions and two linear layers."""
    linear = [size("TA", features) for features in (256, 11)] if "T" in kind else []
    return sum([size(kind, channels) for channels in (64, 128, 128)] + linear)


PUBLISHED = {
    "SA": 2_324_119, "TA": 2_331_265, "TSA": 2_331_319, "CA": 2_333_281, "CSA": 2_333_335,
    "TCA": 2_340_481, "TCSA": 2_340_535,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_the_released_networks(kind):
    """DVS128 Gesture, 11 classes, reductions of 5 and 8; 2,324,065 without attention."""
    assert sizes(kind) == PUBLISHED[kind] - 2_324_065


def test_an_example_does_not_see_its_batch_and_every_weight_learns():
    layer = ma("TCSA")
    # One operation after the other: the loops of one program round at their ends otherwise.
    backwards, forwards = (call.__wrapped__(layer, x)[0] for x in (X[:, ::-1], X))
    np.testing.assert_array_equal(backwards, forwards[:, ::-1])
    assert_close(call(layer, X[:, :1])[0], call(layer)[0][:, :1], 1e-6)
    gradient = jax.jit(jax.grad(lambda layer: jnp.sum(jnp.sin(call(layer)[0]))))(layer)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in leaves(gradient))


@pytest.mark.parametrize("kind", ["TA", "CA", "SA"])
def test_it_is_the_named_exception_to_causality(kind):
    """Law 7: an earlier output depends on a later input."""
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(call(ma(kind), x)[0][0] ** 2)))(X)
    assert float(jnp.abs(gradient[1:]).max()) > 0


# Its place in a network.


def body(kind, timesteps=T):
    r = rngs()
    return nn.Sequential(
        *(
            nn.Conv(2, C, rngs=r),
            nn.BatchNorm(C, scale=6.0),
            nn.AvgPool(),
            ma(kind, timesteps),
            nn.MALIF(),
        ),
        *(nn.Flatten(), nn.Linear(4 * C, 3, rngs=r), ma("TA", timesteps, 3)),
    )


FRAMES = 1 + jax.random.normal(jax.random.key(3), (T, B, 4, 4, 2))


@jax.jit
def graded(net, frames):
    def loss(net, frames):
        outputs, aux = net(frames, net.initial_state(B), training=True)
        return jnp.sum(jnp.sin(outputs + jnp.arange(3.0))), (outputs, aux)

    return jax.grad(loss, (0, 1), has_aux=True)(net, frames)


def test_a_strategy_changes_nothing():
    net = nn.Network(body("TCSA"), (4, 4, 2))
    saving = nn.with_memory(net, memory.parse_strategy("depth=recompute(1), pack=True"))
    assert saving.body.joints is not None
    (gradients, seen), (wanted, expected) = graded(saving, FRAMES), graded(net, FRAMES)
    assert_equal((seen[0], seen[1].state), (expected[0], expected[1].state))
    assert_close(jax.tree.leaves(gradients), jax.tree.leaves(wanted), 1e-6)
    assert float(expected[0].sum()) > 0
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(wanted[1]))


def test_residuals_are_the_inputs():
    layer = nn.MA("TCSA", T, 32, rngs=rngs())
    shape = jax.ShapeDtypeStruct((T, B, 16, 16, 32), jnp.float32)
    pulls = jax.eval_shape(lambda *a: jax.vjp(lambda *a: call(*a)[0], *a)[1], layer, shape)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pulls))
    assert 4 * shape.size <= kept < 1.05 * 4 * shape.size


def test_it_is_a_pytree_under_jit_and_vmap():
    one, other = ma("TCSA"), ma("TCSA")
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert_equal(one, other)
    stacked = jnp.stack([X, 2 * X[::-1]])
    mapped = jax.jit(jax.vmap(lambda x: call(one, x)[0]))(stacked)
    assert_close(mapped, jnp.stack([call(one, x)[0] for x in stacked]), 1e-6)
    half, _ = call(one, X.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("kind", ["TA", "CA", "SA"])
def test_it_has_no_streaming_form(kind):
    with pytest.raises(ValueError, match=r'MA needs its whole window of 5 .*order="layer"'):
        nn.Network(body(kind), (4, 4, 2), order="time")
    net = nn.Network(body(kind), (4, 4, 2))
    state = net.initial_state(B)
    with pytest.raises(ValueError, match=r"whole window of 5 timesteps.*got 1.*Streaming"):
        net(FRAMES[:1], state, training=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ma("STA"), "kind must be one of TA"),
        (lambda: ma("TA", time_reduction=6), "choose one from 1 to 5"),
        (lambda: ma("CA", channel_reduction=9), "choose one from 1 to 8"),
        (lambda: ma("CA", channel_reduction=0), "channel_reduction must be at least 1"),
        (lambda: call(ma("CA", channels=4)), "channels=8"),
        (lambda: call(ma("SA"), X[:, :, 0, 0]), "in front of nn.Flatten"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The neurons.

# Constant currents, and h = decay * v after each of six steps, as the released code has them.
TRACES = {
    0.2: (0.06, 0.078, 0.0834, 0.08502, 0.085506, 0.0856518),
    0.3: (0.0,) * 6,
    0.1: (0.03, 0.039, 0.0417, 0.04251, 0.042753, 0.0428259),
    -0.5: (-0.15, -0.195, -0.2085, -0.21255, -0.213765, -0.2141295),
}


@functools.partial(jax.jit, static_argnames="reset_bug")
def traced(current, **options):
    lif = nn.MALIF(**options)
    currents = jnp.full((6, 1), current)
    spikes, aux = lif(
        currents, lif.initial_state((1,)), nn.Call(training=False, taps=("membrane",))
    )
    return 0.3 * aux.taps[""]["membrane"][:, 0], spikes[:, 0]


@pytest.mark.parametrize("current", TRACES)
def test_the_golden_trace(current):
    h, spikes = traced(current)
    np.testing.assert_allclose(h, TRACES[current], atol=5e-8)
    np.testing.assert_array_equal(spikes, float(current == 0.3))


def test_the_reset_bug_leaves_the_threshold_behind():
    """`h = decay * threshold = 0.09` after a spike, in place of 0."""
    h, spikes = traced(0.3, reset_bug=True)
    np.testing.assert_allclose(h, 0.09, atol=1e-8)
    np.testing.assert_array_equal(spikes, 1.0)
    np.testing.assert_array_equal(traced(0.2, reset_bug=True)[0], traced(0.2)[0])


def test_the_surrogate_is_a_rectangle_of_height_two_and_the_reset_is_differentiated():
    lif = nn.MALIF()

    @jax.jit
    @jax.jacobian
    def jacobian(x):
        spikes, aux = lif(jnp.full((1, 1), x), lif.initial_state((1,)), nn.Call(training=False))
        return spikes[0, 0], aux.state.v[0]

    spike, v = jacobian(0.35)
    assert float(spike) == 2.0
    assert float(v) == pytest.approx(-0.35 * 2)  # (1 - s) du - u ds, at s = 1
    assert float(jacobian(0.6)[0]) == 0.0
