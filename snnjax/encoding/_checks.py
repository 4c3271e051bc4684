"""Checks of the arguments of encoders. Values are checked only if they are concrete."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.typing import Array, Key


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


def integer(name: str, value: int) -> int:
    """Converts `value` to an `int` of any sign, or raises a `TypeError` that names the argument."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is a whole number of microseconds, got {value!r}") from None


def generator(rng: np.random.Generator) -> None:
    """Raises a `TypeError` unless `rng` is a generator of NumPy."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng must be a generator, got {type(rng).__name__}: make it with "
            "np.random.default_rng(seed)"
        )


def typed_key(key: Key) -> None:
    """Raises a `TypeError` unless `key` is one typed key."""
    dtype = getattr(key, "dtype", None)
    # A raw uint32 key has shape [2] and no key dtype: it would pass as an array further down.
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape != ():
        raise TypeError(
            f"key must be one typed key, got {key!r}: make it with jax.random.key(seed) "
            f"(not PRNGKey), or take one of jax.random.split(key, n)"
        )


def numbers(name: str, values: jax.typing.ArrayLike) -> Array:
    """Converts `values` to a JAX array without changing one of them.

    Args:
        name: Name of the argument in error messages.
        values: Argument of the caller.

    Returns:
        The values as a JAX array, float64 rounded to float32 unless `jax_enable_x64` is set.

    Raises:
        TypeError: If the values are no real numbers, or a masked array.
        ValueError: If a value does not fit the 32 bits that JAX gives it.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} are a masked array: fill the gaps, values.filled(0)")
    if isinstance(values, jax.Array):
        array: Any = values
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} are rows of different lengths ({error}): pad them") from error
    if not jnp.issubdtype(array.dtype, jnp.number) and array.dtype != bool:
        raise TypeError(
            f"{name} must be numbers, got {array.dtype}: event recordings of different lengths are "
            "encoded one by one (encoding.events), then stacked"
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name} must be real, got {array.dtype}: np.stack([z.real, z.imag], -1)")
    if isinstance(array, jax.Array):
        return array
    # JAX casts to 32 bits: large integers would wrap around, large floats become infinite.
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if narrow != array.dtype and array.size:
        limits = jnp.iinfo(narrow) if jnp.issubdtype(narrow, jnp.integer) else jnp.finfo(narrow)
        beyond = (array < limits.min) | (array > limits.max)  # infinite values stay infinite
        if np.any(beyond & ~np.isinf(array)):
            raise ValueError(
                f"{name} run from {array.min()} to {array.max()}, beyond {narrow}: scale or shift "
                "them, or set jax_enable_x64"
            )
    return jnp.asarray(array)


def concrete(condition: Array) -> bool | None:
    """True or False if all elements are known, None under a jit."""
    try:
        return bool(jnp.all(condition))
    except jax.errors.ConcretizationTypeError:
        return None


def finite(name: str, values: Array) -> None:
    """Raises an error if a concrete value is NaN or infinite; traced values are not checked."""
    if concrete(jnp.isfinite(values)) is False:
        raise ValueError(
            f"{name} must be finite: NaN and infinite values have no code; repair the examples, or "
            "jnp.nan_to_num(x)"
        )


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
    array = numbers(name, values)
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
    # Written so that NaN fails: every comparison with it is False.
    if concrete((values >= 0) & (values <= 1)) is False:
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
        `[n, 4]`, integers.

    Raises:
        TypeError: If events are not integers.
        ValueError: If they are not `[n, 4]`.
    """
    # NumPy drops a mask without a word, and masked events would count.
    if isinstance(events, np.ma.MaskedArray):
        raise TypeError("events are a masked array: select those to keep, events[~mask].data")
    try:
        events = np.asarray(events)
    except ValueError as error:
        raise ValueError(f"events are rows of different lengths ({error})") from error
    if events.ndim != 2 or events.shape[1] != 4:
        raise ValueError(
            f"events must be [n, 4] with the columns t, x, y, polarity, got {list(events.shape)}: "
            "use np.stack([t, x, y, p], axis=1)"
        )
    if not np.issubdtype(events.dtype, np.integer):
        raise TypeError(
            f"events must be integers, t in whole microseconds, got {events.dtype}: those become "
            "events.astype(np.int64), seconds (1e6 * t).astype(np.int64)"
        )
    return events
