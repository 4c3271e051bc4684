"""Learned delays: the equation, exact gradients, streams, strategies, kernels that narrow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.delays import lag_weights, sum_over_lags
from tests.compare import assert_close
from tests.nn.layers import call, leaves, rngs, run

T, B, D = 9, 2, 5
INPUTS, OUTPUTS = 3, 4
X = jax.random.normal(jax.random.key(0), (T, B, INPUTS))
LAYERS = {
    "delay": lambda **options: nn.Delay(INPUTS, longest=D, rngs=rngs(), **options),
    "delayed_linear": lambda **options: nn.DelayedLinear(
        INPUTS, OUTPUTS, longest=D, rngs=rngs(), **options
    ),
}
KINDS = [(name, width) for name in LAYERS for width in (None, 1.5)]
EVERY = pytest.mark.parametrize(("name", "width"), KINDS)


@pytest.mark.fast
@pytest.mark.parametrize("longest", [D, 1])
def test_the_equation(longest):
    """Interpolation between two timesteps, in loops; the longest delay included."""
    draws = np.random.default_rng(0).uniform(0, longest, (INPUTS, OUTPUTS)).astype(np.float32)
    draws[0, :2] = 0, longest
    layer = nn.DelayedLinear(
        INPUTS, OUTPUTS, longest=longest, delays=jnp.asarray(draws), rngs=rngs()
    )
    weights, x = np.asarray(layer.kernel[...]), np.asarray(X)
    expected = np.zeros((T, B, OUTPUTS))
    for t in range(T):
        for i in range(INPUTS):
            for o in range(OUTPUTS):
                n = int(draws[i, o])
                f = draws[i, o] - n
                for lag, share in ((n, 1 - f), (n + 1, f)):
                    if t - lag >= 0:
                        expected[t, :, o] += weights[i, o] * share * x[t - lag, :, i]
    np.testing.assert_allclose(call(layer, X)[0], expected, rtol=1e-4, atol=1e-5)
    channel = nn.Delay(INPUTS, longest=longest, delays=jnp.asarray(draws[:, 2]))
    shared = nn.DelayedLinear(
        INPUTS, INPUTS, longest=longest, use_bias=False, rngs=rngs(),
        delays=jnp.broadcast_to(jnp.asarray(draws[:, 2:3]), (INPUTS, INPUTS)),
        kernel_init=lambda *_: jnp.eye(INPUTS),
    )  # fmt: skip
    np.testing.assert_allclose(call(channel, X)[0], call(shared, X)[0], atol=1e-6)


@pytest.mark.fast
def test_without_a_delay_it_is_the_synapse():
    linear = nn.Linear(INPUTS, OUTPUTS, rngs=rngs())
    layer = nn.DelayedLinear(INPUTS, OUTPUTS, longest=D, delays=0.0, rngs=rngs())
    np.testing.assert_array_equal(layer.kernel[...], linear.function.kernel[...])
    np.testing.assert_allclose(call(layer, X)[0], call(linear, X)[0], atol=1e-6)


@pytest.mark.fast
@EVERY
def test_gradients_are_those_of_finite_differences(x64, name, width):
    """Of every delay and weight, and of the inputs, in float64."""
    layer = LAYERS[name](width=width)
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    x = jnp.asarray(X, jnp.float64)

    @jax.jit
    def total(params, x):
        outputs, _ = call(nnx.merge(graphdef, params, rest), x)
        return jnp.sum(outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape))

    gradients = jax.grad(total, (0, 1))(params, x)
    flat, unravel = jax.flatten_util.ravel_pytree((params, x))
    step = 1e-6
    rows = flat + step * jnp.concatenate([jnp.eye(len(flat)), -jnp.eye(len(flat))])
    values = jax.lax.map(lambda row: total(*unravel(row)), rows)
    differences = (values[: len(flat)] - values[len(flat) :]) / (2 * step)
    found = jax.flatten_util.ravel_pytree(gradients)[0]
    np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-8)
    assert all(np.abs(leaf).max() > 0 for leaf in leaves(gradients[0]) if leaf.ndim)


@pytest.mark.fast
def test_channels_apart_are_the_grouped_convolution_in_less_memory(x64):
    """Values and gradients in float64, and bytes of the backward pass."""
    keys = iter(jax.random.split(jax.random.key(1), 3))
    xs, weights, seen = (
        jax.random.normal(next(keys), shape, jnp.float64)
        for shape in ((T + D, 8, 12), (D + 1, 1, 12), (T, 8, 12))
    )
    grouped = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1,), padding="VALID",
        dimension_numbers=("WNC", "WIO", "WNC"), feature_group_count=12,
    )  # fmt: skip
    found = []
    for form in (sum_over_lags, lambda xs, weights: grouped(xs, weights[::-1])):
        total = lambda xs, weights, form=form: jnp.sum(form(xs, weights) * seen)  # noqa: E731
        program = jax.jit(lambda *args, f=form, t=total: (f(*args), jax.grad(t, (0, 1))(*args)))
        compiled = program.lower(xs, weights).compile()
        found.append((compiled(xs, weights), compiled.memory_analysis().temp_size_in_bytes))
    (ours, ours_bytes), (wanted, wanted_bytes) = found
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-12), ours, wanted)
    assert ours_bytes <= wanted_bytes


@pytest.mark.fast
@EVERY
def test_a_stream_equals_the_window(name, width):
    layer = LAYERS[name](width=width)
    whole, last = call(layer, X)
    state, parts = layer.initial_state((B, INPUTS)), []
    for part in (X[:1], X[1:2], X[2:]):
        outputs, aux = layer(part, state, nn.Call(training=False))
        state = state.after(aux)
        parts.append(outputs)
    np.testing.assert_allclose(jnp.concatenate(parts), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(aux.state.inputs, last.state.inputs)
    np.testing.assert_array_equal(last.state.inputs, X[-D:])


@pytest.mark.fast
@EVERY
def test_outputs_do_not_depend_on_later_inputs(name, width):
    result = run(LAYERS[name](width=width), X, until=4)
    _, to_inputs = result.gradients
    assert np.abs(to_inputs[:4]).max() > 0 and np.all(to_inputs[4:] == 0)


def network(**options):
    r = nnx.Rngs(2)
    body = nn.Sequential(
        nn.DelayedLinear(INPUTS, 6, longest=3, kernel_init=nnx.initializers.normal(1.0), rngs=r),
        nn.LIF(decay=0.9),
        nn.Delay(6, longest=4, width=1.0, rngs=r),
        nn.Linear(6, 5, kernel_init=nnx.initializers.normal(1.0), rngs=r),
        nn.LIF(decay=0.9),
        nn.DelayedLinear(5, 2, longest=3, rngs=r),
    )
    return nn.Network(body, (INPUTS,), **options)


@jax.jit
def graded(net, state):
    def total(net):
        outputs, aux = net(X, state, training=True)
        return jnp.sum(outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)), outputs

    return jax.grad(total, has_aux=True)(net)


plain = functools.cache(lambda: graded(network(), network().initial_state(B)))
STRATEGIES = {
    "recompute": ("layer", memory.Strategy(time=memory.recompute(4))),
    "reversal": ("layer", memory.Strategy(time=memory.reversal())),
    "depth": ("layer", memory.Strategy(depth=memory.recompute(1), pack=True)),
    "time order": ("time", memory.Strategy(time=memory.store)),
    "time order, recompute": ("time", memory.Strategy(time=memory.recompute(4))),
    "time order, segments": (
        "time",
        memory.Strategy(time=memory.recompute(4, inner=memory.sequence)),
    ),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_strategy_changes_outputs_or_gradients(name):
    order, strategy = STRATEGIES[name]
    net = nn.with_memory(network(order=order), strategy)
    gradients, outputs = graded(net, net.initial_state(B))
    expected, wanted = plain()
    np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-5)
    for got, want in zip(leaves(gradients), leaves(expected), strict=True):
        if want.ndim:  # the width is a constant
            assert np.abs(want).max() > 0
            np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.fast
def test_a_narrow_kernel_is_the_interpolation_and_a_wide_one_sees_all_lags(x64):
    delays = jnp.asarray([0.0, 1.0, 3.0, 5.0])
    linear = lag_weights(delays, longest=D)
    np.testing.assert_array_equal(linear, jax.nn.one_hot(delays.astype(int), D + 1, axis=0))
    narrow = lag_weights(delays, longest=D, width=jnp.float64(0.05))
    np.testing.assert_allclose(narrow, linear, atol=1e-12)
    wide = lag_weights(delays, longest=D, width=jnp.float64(1e4))
    np.testing.assert_allclose(wide, 1 / (D + 1), atol=1e-6)


@pytest.mark.fast
def test_the_width_follows_a_schedule_without_retracing():
    layers = nn.Sequential(LAYERS["delay"](width=2.0), LAYERS["delayed_linear"]())
    traces = []

    @jax.jit
    def outputs(layers, width):
        traces.append(width)
        changed = nn.with_delay_width(layers, width)
        return call(changed, X)[0]

    found = [outputs(layers, width) for width in (2.0, 0.5)]
    assert len(traces) == 1 and float(jnp.abs(found[0] - found[1]).max()) > 1e-3
    np.testing.assert_allclose(found[0], call(layers, X)[0], rtol=1e-6)
    assert nn.with_delay_width(layers, 0.5).layers[1].width is None


@pytest.mark.fast
def test_delays_beyond_the_window_count_as_its_ends_and_can_return():
    delays = jnp.asarray([-0.5, 5.5])
    np.testing.assert_array_equal(
        lag_weights(delays, longest=D), lag_weights(jnp.asarray([0.0, 5.0]), longest=D)
    )
    slope = jax.jacrev(lambda d: lag_weights(d, longest=D))(delays)
    np.testing.assert_array_equal(slope[:, 0, 0], [-1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(slope[:, 1, 1], [0, 0, 0, 0, -1, 1])


@pytest.mark.fast
def test_operations_are_those_of_the_lags_in_use():
    spikes = (X > 0.5).astype(jnp.float32)
    layer = LAYERS["delayed_linear"](delays=1.5)
    _, aux = call(layer, spikes, taps=("operations",))
    active = np.asarray(spikes.sum(-1))
    np.testing.assert_array_equal(aux.taps[""]["operations"].effective, 2 * OUTPUTS * active)
    _, aux = call(LAYERS["delay"](delays=2.0), spikes, taps=("operations",))
    np.testing.assert_array_equal(aux.taps[""]["operations"].effective, active)


@pytest.mark.fast
def test_narrow_inputs_keep_their_dtype():
    for make in LAYERS.values():
        outputs, aux = call(make(), X.astype(jnp.bfloat16))
        assert outputs.dtype == jnp.bfloat16 and aux.state.inputs.dtype == jnp.float32
        assert_close(outputs.astype(jnp.float32), call(make(), X)[0], 2e-2)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Delay(3, longest=4, delays=4.5), "beyond the window of 4 timesteps.*longest="),
        (lambda: nn.Delay(3, longest=4, delays=jnp.asarray([0, -1.0, 2])), "beyond the window"),
        (lambda: nn.DelayedLinear(3, 2, longest=0, rngs=rngs()), "longest must be at least 1"),
        (lambda: nn.Delay(3, longest=4, delays=1.0, width=0.0), "width must be above 0"),
        (lambda: call(nn.Delay(2, longest=4, delays=1.0), X), "make it for 3 features"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()
