"""Initializers compiled fast draw the bits of Flax's, compiled as users compile them."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from snnjax import nn
from snnjax.nn.initialization import compile_fast, he_normal
from snnjax.nn.ma import fan_in_uniform
from tests.compare import AS_USERS_DO, assert_equal

PEERS = {
    "he_normal": (he_normal, nnx.initializers.he_normal()),
    "fan_in_uniform": (
        fan_in_uniform,
        nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    ),
}
SHAPE, KEY = (3, 3, 2, 7), jax.random.key(3)


@pytest.mark.parametrize("name", PEERS)
def test_the_bits_are_those_of_full_optimization(name):
    ours, peer = PEERS[name]
    draw, keys = lambda key: peer(key, SHAPE, jnp.float32), jax.random.split(KEY, 3)
    compiled = jax.jit(draw, compiler_options=AS_USERS_DO)
    assert_equal(ours(KEY, SHAPE, jnp.float32), compiled(KEY))
    stacked = jax.vmap(lambda key: ours(key, SHAPE, jnp.float32))(keys)
    assert_equal(stacked, jnp.stack([compiled(key) for key in keys]))


@pytest.mark.fast
def test_a_shape_is_compiled_once_with_the_options_of_a_cpu(monkeypatch):
    options, traces = [], []

    def initializer(key, shape, dtype):
        traces.append(shape)
        return jax.random.normal(key, shape, dtype)

    jit = jax.jit
    monkeypatch.setattr(jax, "jit", lambda f, **how: options.append(how) or jit(f, **how))
    draw = compile_fast(initializer)
    assert options[0]["compiler_options"] == {"xla_backend_optimization_level": 1}
    first, second = (draw(jax.random.key(i), (2, 3), jnp.float32) for i in range(2))
    assert traces == [(2, 3)] and (first != second).any()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    draw(KEY, (2, 3), jnp.float32)
    assert traces == [(2, 3), (2, 3)]


@pytest.mark.fast
def test_a_network_is_also_made_inside_a_jit():
    """Compiler options are for the outermost `jax.jit`: inside one, the initializer is traced."""

    def kernel(key):
        return nn.Conv(2, 4, rngs=nnx.Rngs(key)).function.kernel[...]

    assert jax.eval_shape(kernel, KEY).shape == (3, 3, 2, 4)
    plain = lambda key: nnx.initializers.he_normal()(  # noqa: E731
        nnx.Rngs(key).params(), (3, 3, 2, 4), jnp.float32
    )
    assert_equal(jax.jit(kernel)(KEY), jax.jit(plain)(KEY))
    assert_equal(
        jax.jit(jax.vmap(kernel))(jax.random.split(KEY, 2)),
        jax.jit(jax.vmap(plain))(jax.random.split(KEY, 2)),
    )


@pytest.mark.fast
def test_an_error_of_the_initializer_is_its_own():
    def refuse(key, shape, dtype):
        raise ValueError("no draw for this shape")

    with pytest.raises(ValueError, match="no draw for this shape"):
        compile_fast(refuse)(KEY, (2,), jnp.float32)
