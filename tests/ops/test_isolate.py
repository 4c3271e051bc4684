"""A computation by itself has the values and derivatives of the call, and its memory is its own."""

import jax
import jax.numpy as jnp
import pytest

from snnjax.ops.isolate import isolate, one_trip
from tests.compare import assert_close, assert_equal

X, W = jnp.arange(3.0), jnp.array([0.5, -1.0, 2.0])


def move(carry, weights, key):
    values, count = carry
    return jnp.sin(values) * weights + jax.random.normal(key, values.shape), count + 1


def applied(call):
    return lambda x, w: call(move, (x, 2), w, jax.random.key(0))


def plain(function, *args):
    return function(*args)


@pytest.mark.fast
@pytest.mark.parametrize("call", [isolate, one_trip])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["eager", "jit", "vmap"])
def test_it_is_the_call(call, wrap):
    x, w = (jnp.stack([a, a + 1]) for a in (X, W))
    assert_close(wrap(applied(call))(x, w), wrap(applied(plain))(x, w), 1e-6)


@pytest.mark.fast
def test_derivatives_of_any_order_and_mode():
    """A loop of unknown length has no reverse mode: the derivative must be that of the call."""

    def results(call):
        def total(x, w):
            return applied(call)(x, w)[0].sum()

        return (
            jax.grad(total, (0, 1))(X, W),
            jax.jvp(total, (X, W), (W, X)),
            jax.hessian(total, 1)(X, W),
            jax.grad(lambda x: jax.grad(total)(x, W).sum())(X),
        )

    assert_close(results(isolate), results(plain), 1e-6)


@pytest.mark.fast
def test_other_devices_get_the_call():
    def text(platform):
        exported = jax.export.export(jax.jit(applied(isolate)), platforms=[platform])(X, W)
        return exported.mlir_module()

    assert "while" in text("cpu")
    assert text("cuda").count("while") == 0


def working_set(call):
    """Two steps that need three large copies each, one after the other."""

    def step(carry, weights):
        x, w = carry
        # Copies that do not depend on the step before: the scheduler would make them at once.
        spread = [jnp.cumsum(jnp.roll(weights, i, 0), 0) for i in range(1, 4)]
        return x + sum(jnp.tanh(s @ x) for s in spread), w

    def both(x, w, v):
        x, _ = call(step, (x, x), w)
        return call(step, (x, x), v)[0]

    square = jax.ShapeDtypeStruct((128, 128), jnp.float32)
    return jax.jit(both).lower(square, square, square).compile()


def test_the_loop_is_still_there():
    """A compiler that sees the one trip would write the body out, and schedule it as it likes."""
    compiled = working_set(isolate)
    assert compiled.as_text().count(" while(") >= 2
    ours, theirs = (c.memory_analysis().temp_size_in_bytes for c in (compiled, working_set(plain)))
    assert ours < theirs


def test_the_carry_is_updated_in_place():
    def double(carry):
        return jax.tree.map(lambda leaf: 2 * leaf, carry)

    x = jnp.ones((64, 64))
    assert_equal(isolate(double, (x, 1)), (2 * x, jnp.asarray(2)))
    donated = jax.jit(lambda x: isolate(double, x), donate_argnums=0).lower(x).compile()
    assert donated.memory_analysis().temp_size_in_bytes < x.nbytes
