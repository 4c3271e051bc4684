"""Weights as plasticity touches them: rows when an input fires, columns when a neuron learns.

    drive[j] = sum over k of w[active[k], j]           read: the rows of the inputs that fire
    w[:, j] <- f(w[:, j])      for the neurons j that learn

Both are sparse where spikes are: a step without a postsynaptic spike changes no column, and pays
for none. Weights are `[n, N]` for n inputs and N neurons, in float32 or as the integer codes of a
fixed-point format (`snnjax.quantization.QFormat`), which are decoded where they are read and
rounded again where they are written: memory holds the codes only.
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
    "decode",
    "drive",
    "encode",
    "update_columns",
    "update_rows",
    "weights_touched",
]


class Format(Protocol):
    """Fixed point: what `snnjax.quantization.QFormat` offers."""

    def to_integers(self, values: Array, *, key: Key | None = None) -> Array:
        """Integer codes of the nearest numbers of the format, in its rounding."""
        ...

    def from_integers(self, codes: Array) -> Array:
        """The numbers that codes stand for."""
        ...


def decode(weights: Array, form: Format | None) -> Array:
    """Stored weights as float32."""
    return weights if form is None else form.from_integers(weights)


def encode(weights: Array, form: Format | None, key: Key) -> Array:
    """Float32 weights as they are stored."""
    return weights if form is None else form.to_integers(weights, key=key)


def drive(weights: Array, active: Array, *, form: Format | None = None, few: int = 24) -> Array:
    """What the inputs that fire give every neuron, `[N]`.

    Args:
        weights: `[n, N]`, as stored.
        active: `[slots]`, indices of inputs, padded with `n` behind them.
        form: The fixed-point format of `weights`; None is float32.
        few: Timesteps with at most so many spikes read no more rows than that.
    """

    def rows_of(some):
        rows = weights.at[some].get(mode="fill", fill_value=0)
        return decode(rows, form).sum(0)

    if active.size <= few:
        return rows_of(active)
    full = active[few] < weights.shape[0]
    return lax.cond(full, rows_of, lambda some: rows_of(some[:few]), active)


def update_rows(
    weights: Array,
    active: Array,
    change: Callable[[Array], Array],
    *,
    form: Format | None = None,
    key: Key | None = None,
) -> Array:
    """Applies `change` to the rows `[slots, N]` of the inputs that fire; padding changes nothing.

    An input that is listed twice changes once.
    """
    rows = decode(weights.at[active].get(mode="fill", fill_value=0), form)
    changed = change(rows)
    stored = changed if form is None else form.to_integers(changed, key=key)
    return weights.at[active].set(stored, mode="drop")


def update_columns(
    weights: Array,
    which: Array,
    change: Callable[[Array, Array], Array],
    *,
    form: Format | None = None,
    key: Key | None = None,
) -> Array:
    """Applies `change` to the columns of some neurons, one after the other; none costs nothing.

    Args:
        weights: `[n, N]`, as stored.
        which: bool, `[N]`, the neurons.
        change: `(column [n], j) -> column`, in float32.
        form: The fixed-point format of `weights`; None is float32.
        key: For a format that rounds stochastically.
    """
    inputs = weights.shape[0]

    def one(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        weights, left = carry
        j = jnp.argmax(left)
        column = lax.dynamic_slice(weights, (0, j), (inputs, 1))
        changed = change(decode(column[:, 0], form), j)
        if form is not None:
            mine = None if key is None else jax.random.fold_in(key, j)
            changed = form.to_integers(changed, key=mine)
        weights = lax.dynamic_update_slice(weights, changed[:, None], (0, j))
        return weights, left.at[j].set(False)

    def any_left(carry: tuple[Any, Array]) -> Array:
        return carry[1].any()

    return lax.while_loop(any_left, one, (weights, which))[0]


def weights_touched(weights: Array, active: Array | None, which: Array) -> Array:
    """How many weights were updated: rows of the inputs that fire, columns of some neurons."""
    inputs, neurons = weights.shape
    columns = inputs * which.sum().astype(jnp.float32)
    if active is None:
        return columns
    return columns + neurons * (active < inputs).sum().astype(jnp.float32)
