"""Packed residuals: one bit per spike, the gradient bit for bit, under every strategy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import memory, neurons, nn, surrogate
from snnjax.nn.pooling import max_pool
from snnjax.ops.convolution import convolution as convolve
from tests.compare import AS_USERS_DO, assert_close, assert_equal, largest_error


@pytest.mark.fast
@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_packing_and_back_is_the_identity(shape, seed):
    spikes = jnp.asarray(np.random.default_rng(seed).random(shape) < 0.4, jnp.float32)

    @jax.jit
    def there_and_back(spikes):
        bits = memory.packing.pack(spikes)
        return bits, memory.packing.unpack(bits, spikes.shape, spikes.dtype)

    bits, again = there_and_back(spikes)
    assert bits.dtype == jnp.uint8 and bits.size == -(-spikes.size // 8)
    np.testing.assert_array_equal(again, spikes)


def spikes_of(shape, seed=0):
    return jax.random.bernoulli(jax.random.key(seed), 0.3, shape).astype(jnp.float32)


def linear(params, x):
    return x @ params["w"] + params["b"]


def convolution(kernel, x):
    return convolve(x, kernel, strides=2)


def attention(weights, x):
    q, k = x @ weights[0], x @ weights[1]
    return (q @ k.swapaxes(-1, -2)) @ x


def pooling(params, x):
    del params
    return max_pool(x, window=2, strides=2)


def normal(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


FUNCTIONS = {
    "linear": (linear, {"w": normal(6, 4), "b": normal(4)}, (3, 6)),
    "convolution": (convolution, normal(3, 3, 2, 4), (2, 6, 6, 2)),
    "attention": (attention, normal(2, 5, 5), (2, 7, 5)),
    "pooling": (pooling, (), (2, 4, 4, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "scan", [memory.store, memory.recompute(every=2)], ids=["store", "recompute"]
)
def test_gradients_are_those_of_the_function(name, scan):
    function, params, shape = FUNCTIONS[name]
    xs = spikes_of((5, *shape))

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(function, params, xs):
        def step(params, total, x):
            return total + jnp.sum(jnp.sin(function(params, x))), ()

        return jax.grad(lambda p, x: scan(step, p, jnp.zeros(()), x)[0], (0, 1))(params, xs)

    assert_equal(
        gradient(memory.packing.packed(function), params, xs), gradient(function, params, xs)
    )


def kept_spike_bytes(net, inputs, state):
    """Bytes of spike trains that the backward pass keeps: as bits, and as floats of 0 and 1."""
    pull = jax.jit(lambda net: jax.vjp(lambda n: n(inputs, state, training=True)[0], net)[1])(net)
    leaves = [leaf for leaf in jax.tree.leaves(pull) if hasattr(leaf, "dtype")]
    # Thresholds are scalars, and membranes at rest all zero; spikes are neither.
    leaves = [x for x in leaves if x.ndim]
    arrays = {id(x): np.asarray(x) for x in leaves}
    binary = [x for x in leaves if np.isin(arrays[id(x)], (0, 1)).all() and arrays[id(x)].any()]
    bits = [x for x in leaves if x.dtype == jnp.uint8]
    return sum(x.nbytes for x in bits), sum(x.nbytes for x in binary if x.dtype == jnp.float32)


def spiking_conv_net(pack):
    rngs = nnx.Rngs(0)
    layers = [nn.Conv(2, 8, rngs=rngs), nn.IF()]
    for _ in range(4):
        layers += [nn.Conv(8, 8, rngs=rngs, pack=pack), nn.IF(reset=neurons.reset.zero)]
    return nn.Network(nn.Sequential(*layers), (8, 8, 2))


def test_kept_spikes_of_a_net_of_four_layers_fall_32_times():
    inputs = 3 * jax.random.normal(jax.random.key(1), (4, 2, 8, 8, 2))
    plain, packed = spiking_conv_net(False), spiking_conv_net(True)
    state = plain.initial_state(2)
    bits, floats = kept_spike_bytes(packed, inputs, state)
    none, spikes = kept_spike_bytes(plain, inputs, state)
    assert none == 0 and floats == 0
    assert spikes == 4 * (4 * 2 * 8 * 8 * 8) * 4
    assert spikes == 32 * bits

    @functools.partial(jax.jit, compiler_options=AS_USERS_DO)
    def gradient(net):
        return jax.grad(lambda net: jnp.sum(net(inputs, state, training=True)[0] * inputs.sum()))(
            net
        )

    got, want = (jax.tree.leaves(gradient(net)) for net in (packed, plain))
    assert_equal(got, want)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in got)


# Real-valued inputs, narrowed.

SHRINKS = {"bfloat16": 2, "int8": 4}
LINEAR_MAPS = ("linear", "convolution")


@functools.partial(jax.jit, static_argnums=0)
def pulled(function, params, x, g):
    """Outputs, and the gradients of params and inputs that a cotangent `g` makes."""
    y, pull = jax.vjp(function, params, x)
    return y, pull(g)


def narrow_case(name, seed, exponent=0, share=1.0):
    """Inputs of some magnitude, a share of them not zero, and a cotangent of the outputs."""
    function, params, shape = FUNCTIONS[name]
    rng = np.random.default_rng(seed)
    x = np.float32(rng.normal(size=shape) * 2.0**exponent * (rng.random(shape) < share))
    y = jax.eval_shape(function, params, x)
    return function, params, x, np.float32(rng.normal(size=y.shape))


def rounding(storage, x):
    """The largest error that a storage may make of each element."""
    return np.abs(x) / 2**8 if storage == "bfloat16" else np.full_like(x, np.abs(x).max() / 254)


@pytest.mark.parametrize("storage", SHRINKS)
@pytest.mark.parametrize("name", LINEAR_MAPS)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(-30, 30), st.sampled_from([0.0, 0.3, 1.0]))
def test_narrow_inputs_err_by_no_more_than_stated(name, storage, seed, exponent, share):
    """A weight's gradient is a sum of inputs times cotangents, so its error is at most the same sum
    of the inputs' errors and the cotangents' magnitudes: the gradient itself, taken of those. The
    sums themselves round, by a last bit per term at most.
    """
    function, params, x, g = narrow_case(name, seed, exponent, share)
    y, (of_params, of_x) = pulled(memory.packing.packed(function, storage=storage), params, x, g)
    want_y, (want_params, want_x) = pulled(function, params, x, g)
    assert_equal((y, of_x), (want_y, want_x))
    bounds = pulled(function, params, rounding(storage, x), np.abs(g))[1][0]
    terms = pulled(function, params, np.abs(x), np.abs(g))[1][0]
    last_bits = 2 * g.size * np.finfo(np.float32).eps
    leaves = map(jax.tree.leaves, (of_params, want_params, bounds, terms))
    for got, want, bound, sums in zip(*leaves, strict=True):
        assert np.all(np.abs(got - want) <= (1 + last_bits) * bound + last_bits * sums)


@pytest.mark.fast
@pytest.mark.parametrize("storage", SHRINKS)
def test_the_derivative_is_that_at_the_rounded_inputs(storage):
    """Whatever the function; and the inputs are rounded indeed."""
    function, params, x, g = narrow_case("attention", 0)
    y, got = pulled(memory.packing.packed(function, storage=storage), params, x, g)
    plain_y, plain = pulled(function, params, x, g)
    scale = np.abs(x).max() / np.float32(127)
    rounded = x.astype(jnp.bfloat16) if storage == "bfloat16" else np.round(x / scale) * scale
    assert_equal(y, plain_y)
    assert_close(got, pulled(function, params, np.float32(rounded), g)[1], 1e-6)
    assert largest_error(got, plain) > 1e-4


@pytest.mark.fast
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("storage", SHRINKS)
def test_values_that_are_not_finite_stay_so(storage, bad):
    """A loop that watches its gradients for it must see it."""
    function, params, x, g = narrow_case("linear", 0)
    x[1, 2] = bad
    of_params = pulled(memory.packing.packed(function, storage=storage), params, x, g)[1][0]
    assert not np.isfinite(of_params["w"]).all()


def kept_inputs(function, params, x):
    """Bytes that a derivative keeps besides the parameters."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(function, *a)[1], params, x))
    parameters = [leaf.shape for leaf in jax.tree.leaves(params)]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if leaf.shape not in parameters)


@pytest.mark.fast
@pytest.mark.parametrize("name", LINEAR_MAPS)
def test_kept_values_are_as_narrow_as_stated(name):
    function, params, shape = FUNCTIONS[name]
    x = jax.ShapeDtypeStruct((64, *shape[1:]), jnp.float32)
    plain = kept_inputs(function, params, x)
    assert plain == x.size * 4
    for storage, times in SHRINKS.items():
        scale = 4 if storage == "int8" else 0
        narrow = kept_inputs(memory.packing.packed(function, storage=storage), params, x)
        assert times * (narrow - scale) == plain
    # One byte says that all of them are 0 or 1.
    assert 32 * (kept_inputs(memory.packing.packed(function), params, x) - 1) == plain


@pytest.mark.fast
@pytest.mark.parametrize("storage", ["float8", "", None, True, "Spikes"])
def test_an_unknown_storage_is_refused(storage):
    with pytest.raises(ValueError, match="spikes, bfloat16, int8"):
        memory.packing.packed(linear, storage=storage)
    if isinstance(storage, str) and storage:
        with pytest.raises(ValueError, match="spikes, bfloat16, int8"):
            nn.Linear(2, 3, pack=storage, rngs=nnx.Rngs(0))


# Spikes unpacked inside a replay.


@pytest.mark.fast
@pytest.mark.parametrize("scanned", [False, True])
def test_unpacked_inside_a_checkpoint_keeps_bits_alone(scanned):
    weights, spikes = normal(6, 6), spikes_of((5, 7, 6))

    def replayed(weights, bits, x):
        return jnp.sum(jnp.tanh(memory.packing.unpack_straight_through(bits, x) @ weights))

    def packing(weights, x):
        return jax.checkpoint(replayed)(weights, memory.packing.pack(x), x)

    def total(one, weights, x):
        if scanned:
            return jax.lax.scan(lambda t, x: (t + one(weights, x), ()), jnp.zeros(()), x)[0]
        return one(weights, x)

    def plain(weights, x):
        return jax.checkpoint(lambda w, x: jnp.sum(jnp.tanh(x @ w)))(weights, x)

    def kept(one):
        run = lambda w, x: jax.vjp(functools.partial(total, one), w, x)[1]  # noqa: E731
        leaves = jax.tree.leaves(jax.eval_shape(run, weights, spikes))
        return sorted((str(leaf.dtype), leaf.size) for leaf in leaves if leaf.shape != (6, 6))

    bits = 5 * -(-7 * 6 // 8) if scanned else -(-5 * 7 * 6 // 8)
    assert kept(packing) == [("uint8", bits)]
    assert kept(plain) == [("float32", spikes.size)]
    gradients = [
        jax.jit(jax.grad(functools.partial(total, one), (0, 1)))(weights, spikes)
        for one in (packing, plain)
    ]
    assert_equal(*gradients)


# Inputs that are not 0 or 1, and second derivatives.


def real_inputs(jit, function, params, x):
    """Gradients of a function of packed inputs."""
    gradient = jax.grad(lambda params, x: jnp.sum(jnp.sin(function(params, x))), (0, 1))
    return (jax.jit(gradient) if jit else gradient)(params, x)


@pytest.mark.fast
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("wrong", [2.0, 0.5, -1.0, np.nan, np.inf])
def test_other_inputs_than_spikes_never_give_a_wrong_gradient(name, wrong):
    function, params, shape = FUNCTIONS[name]
    packed = memory.packing.packed(function)
    x = spikes_of(shape).at[(0,) * len(shape)].set(wrong)
    with pytest.raises(ValueError, match="not all 0 or 1.*pack=False"):
        real_inputs(False, packed, params, x)
    g_params, g_inputs = real_inputs(True, packed, params, x)
    leaves = jax.tree.leaves(g_params) or [g_inputs]
    assert any(jnp.isnan(leaf).any() for leaf in leaves)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8])
def test_integers_may_be_counts(dtype):
    packed = memory.packing.packed(lambda w, x: x.astype(jnp.float32) @ w)
    x = jnp.ones((3, 6), dtype)
    with pytest.raises(TypeError, match="may hold counts: cast spikes"):
        jax.eval_shape(jax.grad(lambda w: jnp.sum(packed(w, x))), normal(6, 4))


@pytest.mark.fast
@pytest.mark.parametrize("spikes", [False, True])
def test_a_replay_of_other_inputs_than_spikes_has_no_gradient(spikes):
    weights, x = normal(6, 4), spikes_of((3, 6)).at[0, 0].set(2.0)
    replay = memory.replay(lambda w, x: (jnp.tanh(x @ w), ()), spikes=spikes)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(replay(w, x)[0])))(weights)
    assert bool(jnp.isnan(gradient).any()) == spikes


@pytest.mark.parametrize("storage", ["spikes", "int8"])
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("scanned", [False, True])
def test_packed_spikes_have_no_second_derivative(storage, outer, scanned):
    function = memory.packing.packed(linear, storage=storage)
    _, params, shape = FUNCTIONS["linear"]
    x = spikes_of((2, *shape))

    def total(scale):
        # Spikes that depend on what is differentiated.
        inputs = surrogate.arctan()(scale * x - 0.5)
        if scanned:
            step = lambda c, x: (c, function(params, x))  # noqa: E731
            return jnp.sum(jnp.sin(jax.lax.scan(step, (), inputs)[1]))
        return jnp.sum(jnp.sin(function(params, inputs.reshape(-1, shape[-1]))))

    assert jnp.isfinite(jax.jit(jax.grad(total))(1.0))
    with pytest.raises(TypeError, match="packed inputs have no second derivative.*pack=False"):
        jax.eval_shape(outer(jax.grad(total)), 1.0)
