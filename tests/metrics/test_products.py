"""Attention products: agreement with a NumPy loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import metrics


def one_by_one(q, k, v):
    """Counts products of two nonzero factors, for one head with arrays `[N, d]`."""
    tokens, size = q.shape
    inner, left = (k.T @ v, q) if size <= tokens else (q @ k.T, None)
    first = sum(
        int(a * b != 0)
        for n in range(tokens)
        for i in range(size)
        for j in range(size if left is not None else tokens)
        for a, b in [(k[n, i], v[n, j]) if left is not None else (q[n, i], k[j, i])]
    )
    left, right = (q, inner) if left is not None else (inner, v)
    second = sum(
        int(left[i, j] * right[j, n] != 0)
        for i in range(left.shape[0])
        for j in range(left.shape[1])
        for n in range(right.shape[1])
    )
    return first + second


@pytest.mark.parametrize(("tokens", "size"), [(5, 3), (3, 5), (4, 4)])
def test_attention_products_are_those_one_by_one(tokens, size):
    drawn = np.random.default_rng(tokens).random((3, 2, 2, tokens, 2, size)) < 0.5
    q, k, v = drawn.astype(np.float32)
    found = jax.jit(metrics.operations.attention_products)(q, k, v)
    for t, b in np.ndindex(2, 2):
        heads = [[np.asarray(a[t, b, :, h]) for a in (q, k, v)] for h in range(2)]
        assert int(found.effective[t, b]) == sum(one_by_one(*head) for head in heads)
    assert np.all(np.asarray(found.dense) == 2 * 2 * tokens * size * min(tokens, size))
    assert found.binary.all()
    assert np.all(np.asarray(found.effective) < np.asarray(found.dense))
    full = jax.jit(metrics.operations.attention_products)(*[np.ones_like(q)] * 3)
    np.testing.assert_array_equal(full.effective, full.dense)


def test_real_factors_are_multiplications():
    q = jnp.ones((1, 2, 4, 1, 2)).at[0, 1, 0, 0, 0].set(0.5)
    np.testing.assert_array_equal(
        metrics.operations.attention_products(q, q, q).binary, [[True, False]]
    )


def test_multiplications_do_not_depend_on_values():
    found = metrics.operations.multiplications(7, (1, 3))
    np.testing.assert_array_equal(found.effective, [[7, 7, 7]])
    np.testing.assert_array_equal(found.dense, found.effective)
    assert not found.binary.any()
