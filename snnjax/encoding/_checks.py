"""Checks of the arguments of encoders. Values are checked only if they are concrete."""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.typing import Array


def positive_integer(name: str, value: int) -> int:
    """Converts `value` to an `int` of at least 1.

    Args:
        name: Name of the argument in error messages.
        value: Argument of the caller.

    Returns:
        The same number as a Python integer.

    Raises:
        TypeError: If it is not a whole number, or is traced by a jit.
        ValueError: If it is below 1.
    """
    try:
        # bool is an integer to Python, but timesteps=True is a mistake.
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        raise TypeError(
            f"{name} is a whole number and part of a shape, got {value!r}: give a Python int "
            f"(under jax.jit name it in static_argnames)"
        ) from None
    if number < 1:
        raise ValueError(f"{name} counts from 1, got {number}: give at least {name}=1")
    return number


def floating(name: str, values: jax.typing.ArrayLike, *, cure: str) -> Array:
    """Converts `values` to a floating-point array.

    Args:
        name: Name of the argument in error messages.
        values: Argument of the caller.
        cure: Code for the error message that converts the argument.

    Returns:
        The values as a JAX array.

    Raises:
        TypeError: If the values are integers, booleans or keys.
    """
    # Not cast silently: pixels in 0..255 must be rescaled, which a cast would hide.
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got {array.dtype}: write {cure}")
    return array


def unit_interval(name: str, values: Array) -> None:
    """Raises an error if concrete values lie outside [0, 1]; traced values are not checked.

    Args:
        name: Name of the argument in error messages.
        values: `[...]`, floating.

    Raises:
        ValueError: If a value lies outside, or is NaN.
    """
    try:
        # Written so that NaN fails: every comparison with it is False.
        inside = bool(jnp.all((values >= 0) & (values <= 1)))
    except jax.errors.ConcretizationTypeError:
        return
    if not inside:
        raise ValueError(
            f"{name} must lie in [0, 1], got values from {float(values.min()):g} to "
            f"{float(values.max()):g}: rescale them, e.g. (x - x.min()) / (x.max() - x.min()), "
            f"or jnp.clip(x, 0, 1)"
        )


def recording(events: np.ndarray) -> np.ndarray:
    """Converts events to a NumPy array of four columns.

    Args:
        events: Argument of the caller.

    Returns:
        `[n, 4]`.

    Raises:
        ValueError: If it is not `[n, 4]`.
    """
    events = np.asarray(events)
    if events.ndim != 2 or events.shape[1] != 4:
        raise ValueError(
            f"events must be [n, 4] with the columns t, x, y, polarity, got {list(events.shape)}: "
            "use np.stack([t, x, y, p], axis=1)"
        )
    return events
