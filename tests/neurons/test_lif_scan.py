"""`lif_scan` against `memory.store(lif)`: bit-equal outputs, the same gradients, fewer bytes.

The rows run side by side in one compiled program per scan, each with parameters of its own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.neurons import LIFParams, lif, lif_scan
from snnjax.neurons.decay import sum_to
from snnjax.neurons.lif import LIFState, lif_state
from snnjax.typing import bind
from tests.compare import AS_USERS_DO, assert_close, assert_equal, largest_error

T, B, N = 7, 2, 3
FLAVOURS = {
    f"{name}{'_detached' if detach else ''}{'_scaled' if scale else ''}": {
        "reset": neurons.reset.detached(reset) if detach else reset,
        "scale_input": scale,
    }
    for name, reset in (("subtract", neurons.reset.subtract), ("zero", neurons.reset.zero))
    for detach in (False, True)
    for scale in (False, True)
}
FLAVOURS |= {
    "to": {"reset": neurons.reset.to(-0.3)},
    "to_detached_scaled": {
        "reset": neurons.reset.detached(neurons.reset.to(0.2)),
        "scale_input": True,
    },
    "none": {"reset": neurons.reset.none},
    "strict": {"spike": surrogate.strict(surrogate.sigmoid()), "reset": neurons.reset.zero},
}
SHAPES = {"scalar": (), "[N]": (N,), "[1, N]": (1, N)}
# Every flavour with a parameter per neuron, and the other shapes where the reset reads them.
ROWS = [(name, "[N]") for name in FLAVOURS]
ROWS += [(n, s) for n in ("subtract", "zero_detached_scaled") for s in ("scalar", "[1, N]")]
# Each pair of options and each shape once; every row takes twice as long to compile.
PAIRS = ("subtract_detached_scaled", "zero_detached", "zero_scaled")
PAIRS = [(name, "[N]") for name in (*PAIRS, "to_detached_scaled", "none", "strict")]
PAIRS += [("subtract", "scalar"), ("zero_detached_scaled", "[1, N]")]
# A reset that reads a parameter and one that does not: enough for transformations and dtypes.
FEW = [("subtract", "scalar"), ("zero_scaled", "[N]")]


def arguments(dtype, timesteps=T, rows=ROWS):
    rng = np.random.default_rng(7)
    params, states, xs, weights = {}, {}, {}, {}
    for row in rows:
        shape = SHAPES[row[1]]
        params[row] = LIFParams(
            jnp.asarray(rng.uniform(0.4, 0.95, shape), dtype),
            jnp.asarray(rng.uniform(0.4, 0.9, shape), dtype),
        )
        states[row] = LIFState(jnp.asarray(rng.normal(0, 0.4, (B, N)), dtype))
        xs[row] = jnp.asarray(rng.normal(0.5, 0.8, (timesteps, B, N)), dtype)
        weights[row] = jnp.asarray(rng.normal(size=(timesteps, B, N)), dtype)
    return weights, params, states, xs


def loss(sequence, weights, params, states, xs):
    total, outputs = 0.0, {}
    for row in xs:
        options = FLAVOURS[row[0]]
        if sequence:
            run = bind(lif_scan, **options)
        else:
            run = functools.partial(memory.store, bind(lif, **options))
        outputs[row] = state, spikes = run(params[row], states[row], xs[row])
        total += jnp.sum(spikes * weights[row]) + jnp.sum(jnp.sin(state.v))
    return total, outputs


def differentiate(mode, sequence, weights, params, states, xs):
    one = functools.partial(loss, sequence)
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


run = jax.jit(differentiate, static_argnums=(0, 1), compiler_options=AS_USERS_DO)
quick = jax.jit(differentiate, static_argnums=(0, 1))  # for values that no bits depend on


def assert_gradients_close(actual, expected, bound):
    for kind, got, want in zip(("params", "state", "xs"), actual, expected, strict=True):
        for row in want:
            error = largest_error(got[row], want[row])
            assert error <= bound, f"{row}: gradient of {kind} is off by {error}"


def assert_float32_gradients_close(actual, mode, arguments, bound=1e-6):
    """Against `store` in float64; a parameter's is a sum, whose terms may cancel: against those."""
    weights, params, states, xs = arguments
    # Batched gradients have an axis of their own in front, which no broadcast added.
    batched = int(mode == "vmap(grad)")
    own = {row: LIFParams(*(jnp.broadcast_to(p, (B, N)) for p in params[row])) for row in params}
    with jax.enable_x64(True):
        made = jax.tree.map(lambda a: a.astype(jnp.float64), (weights, own, states, xs))
        exact = quick(mode, False, *made)[0]
        for row in params:
            assert_close(
                [part[row] for part in actual[1:]], [part[row] for part in exact[1:]], bound
            )
            for got, each in zip(actual[0][row], exact[0][row], strict=True):
                total = functools.partial(sum_to, shape=got.shape[batched:])
                total = jax.vmap(total) if batched else total
                want, scale = total(each), np.max(total(jnp.abs(each)))
                error = np.max(np.abs(np.asarray(got, np.float64) - want)) / scale
                assert error <= bound, f"{row}: {error} of the terms of the sum"


MODES = ("jit", "vmap(grad)", "grad(vmap)")
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        pytest.param("jit", PAIRS, id="jit, pairs of options"),
        *(pytest.param(mode, FEW, id=f"{mode}, few rows") for mode in MODES[1:]),
        *(pytest.param(mode, ROWS, id=f"{mode}, every row", marks=SLOW) for mode in MODES),
    ],
)
def test_outputs_bit_for_bit_and_gradients_in_float64(x64, mode, rows):
    made = arguments(jnp.float64, rows=rows)
    (actual, outputs), (expected, expected_outputs) = (run(mode, w, *made) for w in (True, False))
    assert_equal(outputs, expected_outputs)
    assert_gradients_close(actual, expected, 1e-12)
    # A gradient that vanishes would pass unseen.
    for row in rows:
        leaves = jax.tree.leaves([part[row] for part in expected])
        assert all(jnp.max(jnp.abs(leaf)) > 1e-3 for leaf in leaves), row


# Under vmap in the slow lane: the test above transforms the same rule.
@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        *(pytest.param(mode, ROWS, id=f"{mode}, every row", marks=SLOW) for mode in MODES),
        pytest.param("jit", FEW, id="jit, few rows"),
    ],
)
def test_one_timestep_which_is_undone_by_itself(x64, mode, rows):
    made = arguments(jnp.float64, 1, rows)
    (actual, outputs), (expected, expected_outputs) = (run(mode, w, *made) for w in (True, False))
    assert_equal(outputs, expected_outputs)
    assert_gradients_close(actual, expected, 1e-12)
    assert all(jnp.max(jnp.abs(actual[2][row])) > 1e-3 for row in rows)


@pytest.mark.fast
@pytest.mark.parametrize(
    "rows", [FEW, pytest.param(ROWS, marks=SLOW)], ids=["few rows", "every row"]
)
def test_gradients_in_float32_are_those_of_float64(rows):
    made = arguments(jnp.float32, rows=rows)
    actual, outputs = run("jit", True, *made)
    assert_equal(outputs, run("jit", False, *made)[1])
    assert_float32_gradients_close(actual, "jit", made)


@pytest.mark.fast
def test_parameters_may_be_plain_numbers():
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, N)), jnp.float32)
    rest = lif_state((B, N))
    arrays = lif_scan(LIFParams(jnp.float32(0.5), jnp.float32(1.0)), rest, xs)
    assert_equal(lif_scan(LIFParams(0.5, 1.0), rest, xs), arrays)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bfloat16])
def test_currents_of_another_dtype_are_summed_as_store_sums_them(dtype):
    xs = jnp.asarray(np.random.default_rng(0).integers(0, 2, (T, B, N)), dtype)
    rest, params = lif_state((B, N)), LIFParams(jnp.float32(0.9), jnp.float32(1.3))

    def total(run):
        return lambda xs: jnp.sum(run(params, rest, xs)[1] * jnp.arange(1.0, T + 1)[:, None, None])

    stored = functools.partial(memory.store, lif)
    with jax.numpy_dtype_promotion("standard"):
        assert_equal(lif_scan(params, rest, xs), stored(params, rest, xs))
        if jnp.issubdtype(dtype, jnp.floating):
            gradients = [jax.jit(jax.grad(total(run)))(xs) for run in (lif_scan, stored)]
            assert gradients[0].dtype == dtype
            assert largest_error(gradients[0], gradients[1]) < 0.02


@pytest.mark.fast
def test_a_delayed_reset_is_refused_and_the_cure_named():
    with pytest.raises(ValueError, match=r"memory\.store\(lif"):
        lif_scan(
            LIFParams(0.5, 1.0),
            lif_state((B, N)),
            jnp.ones((T, B, N)),
            reset=neurons.reset.delayed(neurons.reset.subtract),
        )


@pytest.mark.fast
def test_forward_mode_is_refused():
    def total(xs):
        return jnp.sum(lif_scan(LIFParams(0.5, 1.0), lif_state((B, N)), xs)[1])

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(total, (jnp.ones((T, B, N)),), (jnp.ones((T, B, N)),))


# What store keeps of a step, in membranes; lif_scan always keeps one.
KEPT_BY_STORE = {
    ("subtract", "inputs"): 1,
    ("zero_detached", "inputs"): 2,
    ("zero", "inputs"): 3,
    ("subtract", "params"): 3,
    ("zero", "params"): 4,
}


@pytest.mark.parametrize(("flavour", "differentiated"), KEPT_BY_STORE)
def test_bytes_of_the_compiled_gradient_are_those_documented(flavour, differentiated):
    shape = (256, 4, 128)
    options = FLAVOURS[flavour]
    sequence = jax.ShapeDtypeStruct(shape, jnp.float32)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)

    def membranes(run):
        def total(xs, params, weights):
            return jnp.sum(run(params, LIFState(jnp.zeros(shape[1:])), xs)[1] * weights)

        gradient = jax.grad(total, (0, 1) if differentiated == "params" else 0)
        lowered = jax.jit(gradient).lower(sequence, LIFParams(scalar, scalar), sequence)
        temp = lowered.compile().memory_analysis().temp_size_in_bytes
        return temp / (4 * np.prod(shape))

    stored = functools.partial(memory.store, bind(lif, **options))
    assert membranes(bind(lif_scan, **options)) == pytest.approx(1, abs=0.1)
    assert membranes(stored) == pytest.approx(KEPT_BY_STORE[flavour, differentiated], abs=0.1)


def test_membranes_of_another_shape_are_refused():
    params = neurons.LIFParams(jnp.asarray(0.5), jnp.asarray(1.0))
    with pytest.raises(AssertionError, match="one membrane per current"):
        neurons.lif_scan(params, lif_state((2, 3)), jnp.zeros((4, 2, 5)))
