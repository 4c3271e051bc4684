"""Checks of the options of layers and losses: a wrong value is refused where it is written.

Every function raises with the owner of the option, the admitted values, and the value given. Traced
values are unknown and pass.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from snnjax.typing import Array

__all__ = [
    "as_floating",
    "check_choice",
    "check_counts",
    "check_flags",
    "check_numbers",
    "is_traced",
    "shorten",
]


def check_counts(owner: str, *, least: int = 1, **values: Any) -> None:
    """Refuses anything but integers of at least `least`; also in tuples, one per axis.

    Args:
        owner: Name of the layer or function, such as `nn.Linear`.
        least: Lowest admitted value.
        **values: Options by name.

    Raises:
        TypeError: A value is no integer.
        ValueError: A value is too small, or a tuple is empty.
    """
    for name, value in values.items():
        counts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not len(counts):
            raise ValueError(f"{owner}: {name} must be one integer per axis, got {shorten(value)}")
        for count in counts:
            # A bool is an integer in Python, and a mistake here.
            if isinstance(count, bool) or not isinstance(count, numbers.Integral):
                raise TypeError(
                    f"{owner}: {name} must be an integer of at least {least}, got {shorten(value)}"
                )
            if count < least:
                raise ValueError(f"{owner}: {name} must be at least {least}, got {shorten(value)}")


def check_numbers(
    owner: str,
    *,
    least: float = -np.inf,
    above: float = -np.inf,
    most: float = np.inf,
    below: float = np.inf,
    usual: float | None = None,
    **values: Any,
) -> None:
    """Refuses numbers outside an interval, NaN and infinities; also among the entries of arrays.

    Args:
        owner: Name of the layer or function, such as `nn.Dropout`.
        least: Lowest admitted value.
        above: Value that must be exceeded.
        most: Highest admitted value.
        below: Value that must not be reached.
        usual: Usual value, for the message; None without one.
        **values: Options by name.

    Raises:
        TypeError: A value is no number.
        ValueError: A value is outside the interval.
    """
    for name, value in values.items():
        if is_traced(value):
            continue
        interval = _interval(least, above, most, below)
        lie = f"lie{interval}" if interval.startswith(" in") else f"be{interval or ' finite'}"
        cure = "" if usual is None else f": {usual:g} is usual"
        array = value if isinstance(value, jax.Array | np.ndarray) else None
        if array is None and (isinstance(value, bool) or not isinstance(value, numbers.Real)):
            raise TypeError(f"{owner}: {name} must be a number{interval}, got {shorten(value)}")
        entries = np.asarray(value, np.float64)
        inside = (entries >= least) & (entries <= most) & (entries > above) & (entries < below)
        # Written so that NaN fails: every comparison with it is False.
        if not bool(np.all(inside & np.isfinite(entries))):
            raise ValueError(f"{owner}: {name} must {lie}, got {shorten(value)}{cure}")


def check_choice(owner: str, *, choices: Collection[Any], **values: Any) -> None:
    """Refuses values that are not among the choices.

    Args:
        owner: Name of the layer or function.
        choices: Admitted values.
        **values: Options by name.

    Raises:
        ValueError: A value is another one.
    """
    for name, value in values.items():
        # An unhashable or array value is no choice, and must not fail in the comparison.
        if not isinstance(value, str | int | type(None)) or value not in choices:
            listed = ", ".join(map(str, choices))
            raise ValueError(f"{owner}: {name} must be one of {listed}, got {shorten(value)}")


def check_flags(owner: str, **values: Any) -> None:
    """Refuses anything but True and False, such as the text "false".

    Raises:
        TypeError: A value is no bool.
    """
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{owner}: {name} must be True or False, got {shorten(value)}")


def is_traced(value: Any) -> bool:
    """True if a value is unknown, since a function of it is being traced."""
    return isinstance(value, Tracer)


def shorten(value: Any) -> str:
    """Text of a value for a message; the type where the text is long, such as that of a module."""
    text = repr(value)
    return (
        text
        if len(text) <= 80 and "\n" not in text
        else f"an object of type {type(value).__name__}"
    )


def as_floating(owner: str, inputs: Any) -> Array:
    """Inputs as floating point: spikes given as booleans, or as integers 0 and 1, are cast.

    Args:
        owner: Name of the layer or function.
        inputs: Array of any dtype.

    Raises:
        TypeError: Inputs that are no array of numbers, or integers other than 0 and 1.
    """
    if not isinstance(inputs, jax.Array | np.ndarray):
        raise TypeError(
            f"{owner} takes an array, got {type(inputs).__name__}: jnp.asarray(inputs, jnp.float32)"
        )
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        return jnp.asarray(inputs)
    if inputs.dtype == bool:
        return jnp.asarray(inputs, jnp.float32)
    spikes = (
        jnp.issubdtype(inputs.dtype, jnp.integer)
        and not is_traced(inputs)
        and bool(((inputs == 0) | (inputs == 1)).all())
    )
    if not spikes:
        raise TypeError(
            f"{owner} takes floating-point inputs, got {inputs.dtype}: data.rescale makes images "
            "of uint8 numbers between 0 and 1; counts and spikes become inputs.astype('float32')"
        )
    return jnp.asarray(inputs, jnp.float32)


def _interval(least: float, above: float, most: float, below: float) -> str:
    """The interval in words, such as " in (0, 1]"."""
    low, high = max(least, above), min(most, below)
    if np.isinf(low) and np.isinf(high):
        return ""
    if np.isinf(high):
        return f" above {low:g}" if above >= least else f" of at least {low:g}"
    if np.isinf(low):
        return f" below {high:g}" if below <= most else f" of at most {high:g}"
    return f" in {'(' if above >= least else '['}{low:g}, {high:g}{')' if below <= most else ']'}"
