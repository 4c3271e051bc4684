"""`lif_kernel` against `lif_scan`, whatever it is differentiated by and with.

A gradient adds products, and XLA:CPU rounds `a * b + c * d` as it happens to fuse: gradients agree
to the rounding of float32, outputs bit for bit.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.neurons import LIFParams, lif_kernel, lif_scan
from snnjax.neurons.lif import LIFState, lif_state
from snnjax.neurons.lif_kernel import lif_kernel_packed
from snnjax.nn.mixed_precision import mixed_step
from snnjax.typing import bind
from tests.compare import AS_USERS_DO, assert_close, assert_equal
from tests.neurons.test_lif_scan import (
    FLAVOURS,
    ROWS,
    arguments,
    assert_float32_gradients_close,
)

INTERPRETED = {"block": 128, "interpret": True}
# Every flavour and shape of parameters takes minutes to compile.
SOME = (("subtract", "scalar"), ("zero_detached_scaled", "[1, N]"))
SLOW = pytest.mark.slow
RUNS = {"scan": lif_scan, "kernel": bind(lif_kernel, **INTERPRETED), "fallback": lif_kernel}


def loss(name, rows, weights, params, states, xs):
    total, outputs = 0.0, {}
    for row in rows:
        run = RUNS[name]
        made = dict(getattr(run, "options", ())) | FLAVOURS[row[0]]
        run = bind(getattr(run, "function", run), **made)
        outputs[row] = state, spikes = run(params[row], states[row], xs[row])
        total += jnp.sum(spikes * weights[row]) + jnp.sum(jnp.sin(state.v))
    return total, outputs


def differentiate(name, rows, mode, weights, params, states, xs):
    one = functools.partial(loss, name, rows)
    if mode == "jit":
        return jax.grad(one, (1, 2, 3), has_aux=True)(weights, params, states, xs)
    pair = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x + 0.1]), xs)
    over = (None, None, None, 0)
    if mode == "vmap(grad)":
        return jax.vmap(jax.grad(one, (1, 2, 3), has_aux=True), over)(weights, params, states, pair)

    def mean(params, states, pair):
        losses, outputs = jax.vmap(one, over)(weights, params, states, pair)
        return jnp.sum(losses**2), outputs

    return jax.grad(mean, (0, 1, 2), has_aux=True)(params, states, pair)


run = jax.jit(differentiate, static_argnums=(0, 1, 2), compiler_options=AS_USERS_DO)
MODES = ("jit", "vmap(grad)", "grad(vmap)")


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("jit", SOME),
        ("vmap(grad)", SOME[1:]),
        # Batches the two passes that the rows above batch and differentiate.
        pytest.param("grad(vmap)", SOME[:1], marks=SLOW),
        *(pytest.param(mode, tuple(ROWS[i::4]), marks=SLOW) for mode in MODES for i in range(4)),
    ],
)
def test_flavours_equal_the_scan(mode, rows):
    made = [{row: part[row] for row in rows} for part in arguments(jnp.float32)]
    _, outputs = run("scan", rows, mode, *made)
    # The fallback is the scan itself: to see that once is enough.
    for name in ("kernel", "fallback") if mode == "jit" else ("kernel",):
        actual, actual_outputs = run(name, rows, mode, *made)
        assert_equal(actual_outputs, outputs)
        assert_float32_gradients_close(actual, mode, made)
        for row in rows:  # what vanishes would pass unseen
            leaves = jax.tree.leaves([part[row] for part in actual])
            assert all(jnp.max(jnp.abs(leaf)) > 1e-3 for leaf in leaves), row


@SLOW
@pytest.mark.parametrize("mode", MODES)
def test_gradients_agree_in_float64(x64, mode):
    made = arguments(jnp.float64)
    (actual, outputs), (expected, expected_outputs) = (
        run(name, tuple(ROWS), mode, *made) for name in ("kernel", "scan")
    )
    assert_equal(outputs, expected_outputs)
    assert_close(actual, expected, 1e-12)


def few(shape=(3, 2, 3), dtype=jnp.float32, seed=0):
    """Parameters, a state off rest, currents and weights of an output."""
    rng = np.random.default_rng(seed)
    params = LIFParams(jnp.float32(0.8), jnp.asarray(rng.uniform(0.4, 0.9, shape[2:]), jnp.float32))
    state = LIFState(jnp.asarray(rng.normal(0, 0.4, shape[1:]), jnp.float32))
    xs = jnp.asarray(rng.normal(0.5, 0.8, shape), dtype)
    return params, state, xs, jnp.asarray(rng.normal(size=shape), dtype)


def gradients(run, params, state, xs, weights):
    def total(state, xs):
        after, spikes = outputs = run(params, state, xs)
        spikes = spikes[0] if isinstance(spikes, tuple) else spikes
        return jnp.sum((spikes * weights).astype(jnp.float32)) + jnp.sum(after.v**2), outputs

    slopes, outputs = jax.grad(total, (0, 1), has_aux=True)(state, xs)
    return outputs, slopes


evaluate = jax.jit(gradients, static_argnums=0, compiler_options=AS_USERS_DO)


def assert_same(actual, expected):
    """Outputs of `evaluate` bit for bit, gradients to the rounding of their dtype."""
    assert_equal(actual[0], expected[0])
    for got, want in zip(*map(jax.tree.leaves, (actual[1], expected[1])), strict=True):
        assert got.dtype == want.dtype
        assert_close(got, want, max(1e-6, float(jnp.finfo(got.dtype).eps)))


@pytest.mark.fast
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (4, 3, 43), (2, 2, 3, 5, 8)],
    ids=["one", "a part of a block", "images"],
)
def test_any_length_and_any_number_of_neurons(shape):
    made = few(shape)
    assert_same(evaluate(RUNS["kernel"], *made), evaluate(RUNS["scan"], *made))


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(0, 2, 3), (3, 0, 3)])
@pytest.mark.parametrize("name", ["kernel", "fallback"])
def test_no_timestep_or_no_neuron(shape, name):
    made = few(shape)
    assert_same(evaluate(RUNS[name], *made), evaluate(RUNS["scan"], *made))


@pytest.mark.fast
def test_neurons_without_an_axis():
    params, state, xs = LIFParams(0.5, 1.0), LIFState(jnp.float32(0.1)), jnp.ones(5)
    assert_equal(RUNS["kernel"](params, state, xs), lif_scan(params, state, xs))


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("gaussian", "strict") else pytest.param(n, marks=SLOW)
        for n in surrogate.__all__
        if n[0].islower()
    ],
)
def test_any_surrogate(name):
    maker = getattr(surrogate, name)
    spike = maker(surrogate.arctan()) if name == "strict" else maker()
    made = few((3, 2, 3))
    actual, expected = (
        evaluate(bind(f, spike=spike, reset=neurons.reset.zero, **how), *made)
        for f, how in ((lif_kernel, INTERPRETED), (lif_scan, {}))
    )
    assert_same(actual, expected)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("shape", "how"),
    [((3, 2, 4), INTERPRETED), ((4, 3, 43), INTERPRETED), ((4, 3, 43), {})],
    ids=["8 divides", "8 does not", "fallback"],
)
def test_the_bits_are_the_spikes(shape, how):
    params, state, xs, weights = few(shape)
    params = params._replace(threshold=jnp.float32(-0.05))  # neurons that fill up a block fire too
    made = params, state, xs, weights
    ((after, (spikes, bits)), slopes) = evaluate(bind(lif_kernel_packed, **how), *made)
    assert_same(((after, spikes), slopes), evaluate(lif_scan, *made))
    np.testing.assert_array_equal(bits, np.packbits(spikes.reshape(len(xs), -1) != 0, axis=1))
    for t in range(len(xs)):
        np.testing.assert_array_equal(
            memory.packing.unpack(bits[t], shape[1:], jnp.float32), spikes[t]
        )
    if shape == (3, 2, 4):
        np.testing.assert_array_equal(bits.reshape(-1), memory.packing.pack(spikes))
    assert 0 < spikes.mean() < 1


@pytest.mark.parametrize(
    ("dtype", "how"),
    [(jnp.bfloat16, INTERPRETED), (jnp.float16, INTERPRETED), (jnp.bfloat16, {})],
    ids=["bfloat16", "float16", "fallback"],
)
def test_currents_of_two_bytes_are_those_of_a_layer_between_narrow_arrays(dtype, how):
    made = few((4, 3, 43), dtype)
    step, _ = mixed_step(neurons.lif_model(), None, spiking=True)
    expected = evaluate(step.sequence, *made)
    actual = evaluate(bind(lif_kernel, **how), *made)
    assert_same(actual, expected)
    (after, spikes), (_, g_xs) = actual
    assert (after.v.dtype, spikes.dtype, g_xs.dtype) == (jnp.float32, dtype, dtype)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8])
def test_currents_of_integers_are_summed_as_the_scan_sums_them(dtype):
    xs = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 2, 3)), dtype)
    made = LIFParams(0.9, 1.3), lif_state((2, 3)), xs
    with jax.numpy_dtype_promotion("standard"):
        assert_equal(RUNS["kernel"](*made), lif_scan(*made))


@pytest.mark.fast
def test_it_can_be_recomputed_within_a_scan_over_depth():
    params, state, xs, weights = few()

    def total(run, xs):
        def block(x, _):
            return run(params, state, x)[1] * 0.9 + 0.1 * x, None

        deep, _ = jax.lax.scan(jax.checkpoint(block), xs, jnp.arange(3))
        return jnp.sum(deep * weights)

    graded = jax.jit(jax.grad(total, 1), static_argnums=0)
    assert_close(graded(RUNS["kernel"], xs), graded(lif_scan, xs), 1e-6)


@pytest.mark.fast
def test_gradients_of_parameters_are_written_only_where_they_are_asked_for():
    params, state, xs, weights = few()

    def total(params, xs):
        return jnp.sum(RUNS["kernel"](params, state, xs)[1] * weights)

    def results(argnums):
        jaxpr = str(jax.make_jaxpr(jax.grad(total, argnums))(params, xs))
        backward = [line for line in jaxpr.splitlines() if "pallas_call[" in line][-1]
        return backward.split("=")[0].count(":")

    assert results(1) == 2
    assert results((0, 1)) == 4


@pytest.mark.fast
def test_bits_and_spikes_of_one_kernel_serve_a_packed_synapse():
    params, state, xs, _ = few((3, 2, 4))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)), jnp.float32)

    def outputs(weights, xs):
        _, (spikes, bits) = lif_kernel_packed(params, state, xs, **INTERPRETED)
        synapse = jax.checkpoint(lambda w, b, s: memory.packing.unpack_straight_through(b, s) @ w)
        return jnp.sum(jnp.sin(synapse(weights, bits.reshape(-1), spikes)))

    def plain(weights, xs):
        return jnp.sum(jnp.sin(lif_scan(params, state, xs)[1] @ weights))

    actual, expected = (jax.jit(jax.grad(f, (0, 1)))(weights, xs) for f in (outputs, plain))
    assert_close(actual, expected, 1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("how", [INTERPRETED, {}], ids=["kernel", "fallback"])
def test_devices_that_share_a_batch_run_it_by_hand(how):
    mesh = jax.make_mesh(
        (2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
    )
    params, state, xs, weights = few((3, 4, 3))
    there = jax.P(None, "data")

    def mine(state, xs):
        return lif_kernel(params, LIFState(state), xs, **how)[1]

    both = jax.shard_map(
        mine, mesh=mesh, in_specs=(jax.P("data"), there), out_specs=there, check_vma=False
    )

    def total(xs):
        return jnp.sum(both(state.v, xs) * weights)

    actual = jax.jit(jax.grad(total))(xs)
    expected = jax.jit(jax.grad(lambda xs: jnp.sum(lif_scan(params, state, xs)[1] * weights)))(xs)
    assert_close(actual, expected, 1e-6)


@pytest.mark.fast
def test_errors_name_the_cure():
    params, state, xs, _ = few()
    for run in (lif_kernel, lif_kernel_packed):
        with pytest.raises(ValueError, match=r"memory\.store\(lif"):
            run(params, state, xs, reset=neurons.reset.delayed(neurons.reset.subtract))
        with pytest.raises(ValueError, match="power of two.*1024 fits"):
            run(params, state, xs, block=1000)
        with pytest.raises(AssertionError, match="one membrane per current"):
            run(params, lif_state((2, 5)), xs)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda xs: RUNS["kernel"](params, state, xs)[1], (xs,), (xs,))
