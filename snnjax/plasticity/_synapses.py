"""Sparse access to plastic weights: rows of the firing inputs, columns of the learning neurons.

    drive[j] = sum over k of w[active[k], j]           reads the rows of the firing inputs
    w[:, j] <- f(w[:, j])                              writes the columns of the learning neurons j

The cost follows the spikes: a timestep without a postsynaptic spike writes no column. Weights are
`[n, N]` for n inputs and N neurons, in float32 or as integer codes of a fixed-point format
(`snnjax.quantization.QFormat`). Codes are decoded where they are read and rounded where they are
written: memory holds only the codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import Array, Key

__all__ = [
    "Format",
    "count_updates",
    "decode",
    "drive",
    "encode",
    "update_columns",
    "update_rows",
]


class Format(Protocol):
    """Protocol of a fixed-point format, as `snnjax.quantization.QFormat` implements it."""

    def to_integers(self, values: Array, *, key: Key | None = None) -> Array:
        """Rounds values to integer codes; `key` serves stochastic rounding."""
        ...

    def from_integers(self, codes: Array) -> Array:
        """Values of the codes, float32."""
        ...


def decode(weights: Array, form: Format | None) -> Array:
    """Decodes stored weights to float32."""
    return weights if form is None else form.from_integers(weights)


def encode(weights: Array, form: Format | None, key: Key) -> Array:
    """Encodes float32 weights in the storage format; None stores float32."""
    return weights if form is None else form.to_integers(weights, key=key)


def drive(
    weights: Array, active: Array, *, form: Format | None = None, short_list: int = 24
) -> Array:
    """Sums the weights of the firing inputs onto every neuron, `[N]`.

    Args:
        weights: Weights `[n, N]`, as stored.
        active: Indices of the firing inputs, `[slots]`, padded with n at the end.
        form: Fixed-point format of `weights`; None is float32.
        short_list: Number of slots to which a list is cut where all its spikes fit.

    Returns:
        The input of every neuron, `[N]`, float32.
    """

    def row_sum(indices):
        # Padding is out of bounds and reads zeros.
        rows = weights.at[indices].get(mode="fill", fill_value=0)
        return decode(rows, form).sum(0)

    if active.size <= short_list:
        return row_sum(active)
    # The slots are sized for the brightest timestep of the brightest example; most lists are far
    # shorter, and reading the rows of their padding would dominate the time.
    overfull = active[short_list] < weights.shape[0]
    return lax.cond(overfull, row_sum, lambda indices: row_sum(indices[:short_list]), active)


def update_rows(
    weights: Array,
    active: Array,
    change: Callable[[Array], Array],
    *,
    form: Format | None = None,
    key: Key | None = None,
) -> Array:
    """Applies `change` to the rows of the firing inputs.

    Args:
        weights: Weights `[n, N]`, as stored.
        active: Indices of the firing inputs, `[slots]`, padded with n. An input that is listed
            twice changes once.
        change: Update `rows [slots, N] -> rows`, in float32.
        form: Fixed-point format of `weights`; None is float32.
        key: Random key of a format that rounds stochastically.

    Returns:
        The new weights, as stored.
    """
    rows = decode(weights.at[active].get(mode="fill", fill_value=0), form)
    changed = change(rows)
    stored = changed if form is None else form.to_integers(changed, key=key)
    # `set`, not `add`: duplicates write the same value, and padding is dropped out of bounds.
    return weights.at[active].set(stored, mode="drop")


def update_columns(
    weights: Array,
    mask: Array,
    change: Callable[[Array, Array], Array],
    *,
    form: Format | None = None,
    key: Key | None = None,
) -> Array:
    """Applies `change` to the columns of the masked neurons, one after the other.

    Args:
        weights: Weights `[n, N]`, as stored.
        mask: Neurons to update, bool, `[N]`; an empty mask costs nothing.
        change: Update `(column [n], j) -> column` of neuron j, in float32.
        form: Fixed-point format of `weights`; None is float32.
        key: Random key of a format that rounds stochastically.

    Returns:
        The new weights, as stored.
    """
    inputs = weights.shape[0]

    # A loop with as many trips as spikes: a dense update would touch all weights at each timestep,
    # and most timesteps have no postsynaptic spike.
    def update_one(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        weights, pending = carry
        j = jnp.argmax(pending)
        column = lax.dynamic_slice(weights, (0, j), (inputs, 1))
        changed = change(decode(column[:, 0], form), j)
        if form is not None:
            # A key per column: the same noise in all columns would correlate the neurons.
            column_key = None if key is None else jax.random.fold_in(key, j)
            changed = form.to_integers(changed, key=column_key)
        weights = lax.dynamic_update_slice(weights, changed[:, None], (0, j))
        return weights, pending.at[j].set(False)

    def any_pending(carry: tuple[Any, Array]) -> Array:
        return carry[1].any()

    return lax.while_loop(any_pending, update_one, (weights, mask))[0]


def count_updates(weights: Array, active: Array | None, mask: Array) -> Array:
    """Number of weights in the rows of the firing inputs and the columns of the masked neurons.

    Args:
        weights: Weights `[n, N]`.
        active: Indices of the firing inputs, padded with n; None updates no rows.
        mask: Updated neurons, bool, `[N]`.

    Returns:
        The count, a float32 scalar. A weight in both a row and a column counts twice.
    """
    inputs, neurons = weights.shape
    # float32, like the running sum of updates that it enters.
    columns = inputs * mask.sum().astype(jnp.float32)
    if active is None:
        return columns
    return columns + neurons * (active < inputs).sum().astype(jnp.float32)
