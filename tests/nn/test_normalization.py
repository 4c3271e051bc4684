"""Batch normalisation against NumPy, over a window, a step and nothing; flax's group and layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from tests.compare import assert_close
from tests.nn.layers import FLAT, SPACE, call, rngs, run, sequence

MOMENTUM, EPSILON, GAIN = 0.8, 1e-3, 0.7
MEAN, VAR = np.array([0.3, -0.2]), np.array([1.5, 0.6])


def oracle(x, over, scale, bias):
    """Outputs and moved statistics in float64; each row of `rows` is normalised by itself."""
    x = np.asarray(x, np.float64)
    if over == "frozen":
        mean, var, moved = MEAN, VAR, (MEAN, VAR)
    else:
        axes = (0, 1, 2, 3) if over == "window" else (1, 2, 3)
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        rows = [s.reshape(-1, x.shape[-1]).mean(0) for s in (mean, var)]
        pairs = zip((MEAN, VAR), rows, strict=True)
        moved = tuple(MOMENTUM * old + (1 - MOMENTUM) * new for old, new in pairs)
    return GAIN * scale * (x - mean) / np.sqrt(var + EPSILON) + bias, moved


def batchnorm(over, **options):
    layer = nn.BatchNorm(2, over=over, momentum=MOMENTUM, epsilon=EPSILON, gain=GAIN, **options)
    layer.scale = nnx.Param(jnp.array([1.3, 0.4], jnp.float32))
    layer.bias = nnx.Param(jnp.array([0.1, -0.5], jnp.float32))
    running = nn.contract.Statistics(jnp.asarray(MEAN, jnp.float32), jnp.asarray(VAR, jnp.float32))
    return layer, nn.State((), running)


@pytest.mark.fast
@pytest.mark.parametrize("over", ["window", "step", "frozen"])
def test_outputs_and_statistics_are_those_of_the_formula(over):
    layer, state = batchnorm(over)
    inputs = sequence(SPACE) + 0.5
    outputs, aux = layer(inputs, state, nn.Call(training=True))
    expected, moved = oracle(inputs, over, layer.scale[...], layer.bias[...])
    assert_close(outputs, expected, 1e-5)
    assert_close(tuple(aux.statistics), moved, 1e-5)


@pytest.mark.parametrize("over", ["window", "step", "frozen"])
def test_evaluation_uses_the_running_statistics_and_hands_them_on(over):
    layer, state = batchnorm(over)
    inputs = sequence(SPACE)
    outputs, aux = layer(inputs, state, nn.Call(training=False))
    expected, _ = oracle(inputs, "frozen", layer.scale[...], layer.bias[...])
    assert_close(outputs, expected, 1e-5)
    assert aux.statistics is state.statistics


def test_over_steps_is_over_the_window_of_each_step():
    inputs = sequence(SPACE)
    together, _ = call(nn.BatchNorm(2, over="step"), inputs, training=True)
    alone = [call(nn.BatchNorm(2), x[None], training=True)[0] for x in inputs]
    np.testing.assert_array_equal(together, jnp.concatenate(alone))


def test_the_gain_puts_the_spread_at_alpha_times_the_threshold():
    """TdBN: outputs have mean 0 and variance (alpha * threshold)^2."""
    outputs, _ = call(nn.BatchNorm(6, gain=0.5 * 3.0), 4 * sequence(FLAT) + 2, training=True)
    np.testing.assert_allclose(outputs.mean((0, 1)), 0.0, atol=1e-5)
    np.testing.assert_allclose(outputs.std((0, 1)), 1.5, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_half_precision_is_normalised_in_float32(training):
    layer, state = batchnorm("window")
    inputs = sequence(SPACE).astype(jnp.bfloat16)
    outputs, aux = layer(inputs, state, nn.Call(training=training))
    wide, moved = layer(inputs.astype(jnp.float32), state, nn.Call(training=training))
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_array_equal(outputs, wide.astype(jnp.bfloat16))
    assert all(leaf.dtype == jnp.float32 for leaf in aux.statistics)
    assert_close(aux.statistics, moved.statistics, 1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("over", ["window", "step"])
def test_the_gradient_is_that_of_the_formula(over):
    layer, state = batchnorm(over)
    x, weights = sequence(SPACE) + 1, sequence(SPACE, seed=1)
    axes = (0, 1, 2, 3) if over == "window" else (1, 2, 3)

    def formula(layer, x):
        centred = x - x.mean(axes, keepdims=True)
        spread = jnp.sqrt(jnp.square(centred).mean(axes, keepdims=True) + EPSILON)
        return GAIN * layer.scale[...] * centred / spread + layer.bias[...]

    def gradient(function):
        return jax.grad(lambda *a: jnp.sum(jnp.sin(function(*a)) * weights), (0, 1))(layer, x)

    found = gradient(lambda layer, x: layer(x, state, nn.Call(training=True))[0])
    assert_close(found, gradient(formula), 2e-6)


def test_statistics_are_no_way_round_for_the_gradient():
    layer, state = batchnorm("window")
    moved = lambda x: sum(s.sum() for s in layer(x, state, nn.Call(training=True))[1].statistics)  # noqa: E731
    np.testing.assert_array_equal(jax.grad(moved)(sequence(SPACE)), 0.0)


def test_a_scale_of_zero_starts_a_residual_branch_as_the_identity():
    inputs = sequence(SPACE)
    layer = nn.Residual(nn.Sequential(nn.Conv(2, 2, rngs=rngs()), nn.BatchNorm(2, scale=0.0)))
    np.testing.assert_array_equal(call(layer, inputs, training=True)[0], inputs)


def test_statistics_move_once_per_call_however_often_a_block_is_replayed():
    """Law 3: the first block sees the inputs, so its statistics follow from one update."""

    def stack(scan):
        return nn.Stacked(lambda r: nn.BatchNorm(2, momentum=0.75), 3, rngs=rngs(), scan=scan)

    inputs = sequence(SPACE) + 1
    results = [
        run(stack(scan), inputs, training=True) for scan in (memory.store, memory.recompute(2))
    ]
    for result in results:
        mean, var = result.aux.statistics
        np.testing.assert_allclose(mean[0], 0.25 * inputs.mean((0, 1, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(var[0], 0.75 + 0.25 * inputs.var((0, 1, 2, 3)), rtol=1e-5)
    assert_close(results[1].aux.statistics, results[0].aux.statistics, 1e-6)


def test_an_unknown_window_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="window, step, frozen"):
        nn.BatchNorm(2, over="batch")


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_group_and_layer_norm_are_flax_s_at_every_timestep(kind):
    inputs = sequence((2, 3, 3, 4)) + 1
    if kind == "group":
        layer = nn.GroupNorm(4, 2, rngs=rngs())
        peer = nnx.GroupNorm(4, num_groups=2, epsilon=1e-5, rngs=rngs())
    else:
        layer = nn.LayerNorm(4, rngs=rngs())
        peer = nnx.LayerNorm(4, epsilon=1e-5, rngs=rngs())
    expected = jnp.stack([peer(x) for x in inputs])
    for training in (True, False):
        assert_close(call(layer, inputs, training=training)[0], expected, 1e-5)


LARGE = {
    "layer": (lambda: nn.LayerNorm(4, rngs=rngs()), lambda x: (x, (-1,))),
    "group": (
        lambda: nn.GroupNorm(4, 2, rngs=rngs()),
        lambda x: (x.reshape(*x.shape[:-1], 2, 2), (2, 3, 5)),
    ),
    "one group": (
        lambda: nn.GroupNorm(4, 1, rngs=rngs()),
        lambda x: (x[..., None, :], (2, 3, 5)),
    ),
    "batch": (lambda: nn.BatchNorm(4), lambda x: (x, (0, 1, 2, 3))),
    "batch, step": (lambda: nn.BatchNorm(4, over="step"), lambda x: (x, (1, 2, 3))),
    "batch, ghost": (
        lambda: nn.BatchNorm(4, groups=2),
        lambda x: (x.reshape(x.shape[0], 2, -1, *x.shape[2:]), (0, 2, 3, 4)),
    ),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("mean", "deviation"), [(1000.0, 0.01), (-3e4, 1.0), (1e6, 5.0), (0, 1.0)])
@pytest.mark.parametrize("name", LARGE)
def test_every_norm_is_right_at_a_large_mean(name, mean, deviation, dtype):
    make, rows = LARGE[name]
    if dtype == jnp.float64 and name.startswith("batch"):
        dtype = jnp.float32  # its statistics are float32
    with jax.enable_x64(dtype == jnp.float64):
        shift = deviation * np.random.default_rng(0).normal(size=(3, 4, 5, 5, 4))
        # The exact result is that of the rounded inputs.
        inputs = jnp.asarray(mean + shift, dtype)
        outputs, _ = call(make(), inputs, training=True)
        x, axes = rows(np.asarray(inputs, np.float64))
        exact = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        # The mean of a batch norm is rounded to float32, once.
        rounded = 2.0**-23 * abs(mean) / deviation if name.startswith("batch") else 0.0
        assert_close(outputs, exact.reshape(inputs.shape), 2e-6 + rounded)


def test_another_number_of_channels_is_refused():
    layer = nn.BatchNorm(3)
    with pytest.raises(ValueError, match=r"\[T, B, ..., 3\].*nn.BatchNorm\(4\)"):
        layer(jnp.zeros((2, 2, 4)), layer.initial_state((2, 4)), nn.Call(training=True))


def test_statistics_move_once_per_timestep_on_request():
    """As a norm of PyTorch that the released EfficientLIF-Net calls at each of T timesteps."""
    layer = nn.BatchNorm(2, over="step", update="step", unbiased=True)
    state, inputs = layer.initial_state(SPACE), sequence(SPACE) + 1
    _, aux = layer(inputs, state, nn.Call(training=True))
    mean, var = np.zeros(2), np.ones(2)
    for x in np.asarray(inputs, np.float64):
        rows = x.reshape(-1, 2)
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        var = 0.9 * var + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(aux.statistics.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(aux.statistics.var, var, rtol=1e-5)
    # One call moves them by a tenth, five by 1 - 0.9^5.
    _, once = nn.BatchNorm(2, over="step")(inputs, state, nn.Call(training=True))
    assert np.all(np.abs(aux.statistics.mean) > 2 * np.abs(once.statistics.mean))


@pytest.mark.parametrize("update", ["call", "step"])
def test_timesteps_one_by_one_move_statistics_as_the_sequence_does(update):
    """Layers with a shared membrane and networks in time order see one timestep at a time."""
    norm = nn.BatchNorm(2, over="step", update=update)
    state, inputs = norm.initial_state(SPACE), sequence(SPACE) + 1
    _, expected = norm(inputs, state, nn.Call(training=True))
    shared = nn.Shared([norm], nn.LIF())
    _, aux = shared(inputs, shared.initial_state(SPACE), nn.Call(training=True))
    assert_close(aux.statistics[0], expected.statistics, 1e-6)
    net = nn.Network(nn.Sequential(norm), SPACE[1:], order="time")
    _, aux = net(inputs, net.initial_state(SPACE[0]), training=True)
    assert_close(aux.statistics[0], expected.statistics, 1e-6)


def test_options_of_the_running_statistics_are_checked():
    with pytest.raises(ValueError, match="over='step'"):
        nn.BatchNorm(2, update="step")
    with pytest.raises(ValueError, match="update must be"):
        nn.BatchNorm(2, over="step", update="epoch")
    layer = nn.BatchNorm(6, unbiased=True)
    with pytest.raises(ValueError, match="one element per channel"):
        layer(jnp.ones((1, 1, 6)), layer.initial_state((1, 6)), nn.Call(training=True))
