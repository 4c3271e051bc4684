"""Comparison of two results: bit for bit, or relative to the largest entry."""

import os

import chex
import jax
import numpy as np

_DEFAULTS = {
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}
# Options of `jax.jit` where programs are compared bit for bit: which products LLVM fuses with a
# sum, and with them the last bit, depends on how far it optimises. They undo what `conftest.py`
# sets, and nothing else: another release of XLA may not know them.
AS_USERS_DO = {
    name: value for name, value in _DEFAULTS.items() if name in os.environ.get("XLA_FLAGS", "")
}


def largest_error(actual, expected) -> float:
    """The largest difference of two trees, each leaf relative to the largest entry of `expected`.

    A leaf that is zero everywhere must be zero everywhere.
    """
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    errors = [0.0]
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, (a.shape, b.shape)
        if b.size:
            scale = np.max(np.abs(b))
            errors.append(float(np.max(np.abs(a - b)) / (scale if scale > 0 else 1.0)))
    return max(errors)


def assert_close(actual, expected, bound: float) -> None:
    error = largest_error(actual, expected)
    assert error <= bound, f"error {error:.3g} of the largest entry, allowed {bound:.3g}"


def assert_equal(actual, expected) -> None:
    """Equal structure, dtypes and bits."""
    chex.assert_trees_all_equal_structs(actual, expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
