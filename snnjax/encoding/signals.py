"""What already has a time axis: windows and frames turned time-major, and level crossings.

    series   [B, T, C]       -> [T, B, C]
    frames   [B, T, H, W, C] -> [T, B, H, W, C]
    delta    [T, B, ..., C]  -> [T, B, ..., 2 C]     a spike per threshold passed, up and down apart

Loaders batch whole recordings, so their arrays come batch-major; inside the library time is first.
`series` and `frames` are their own inverse, so an array must go through the door once: the shape
cannot tell.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.encoding import checks
from snnjax.typing import Array


def series(windows: jax.typing.ArrayLike) -> Array:
    """Turns batch-major windows of a series time-major.

        y[t, b, c] = x[b, t, c]

    Args:
        windows: `[B, T, C]`, any dtype.

    Returns:
        `[T, B, C]`, the same values.

    Raises:
        ValueError: If `windows` does not have three axes.
    """
    return _time_major(windows, 3, "windows", "[B, T, C]", "a single channel is windows[..., None]")


def frames(batch: jax.typing.ArrayLike) -> Array:
    """Turns a batch of frame sequences, as loaders deliver them, time-major.

        y[t, b] = x[b, t]

    Args:
        batch: `[B, T, H, W, C]`, any dtype; event frames have C = 2 polarities.

    Returns:
        `[T, B, H, W, C]`, the same values.

    Raises:
        ValueError: If `batch` does not have five axes.
    """
    return _time_major(
        batch, 5, "batch", "[B, T, H, W, C]", "still images take direct(images, timesteps=T)"
    )


def delta(
    signal: jax.typing.ArrayLike,
    *,
    threshold: float | jax.typing.ArrayLike,
    limit: int = 1,
) -> Array:
    """Level-crossing code (send on delta): a spike for each threshold the signal has moved.

    A reference level follows the signal in steps of `threshold`, starting at x[0]:

        n[t] = clip(trunc((x[t] - r[t-1]) / threshold), -limit, limit),  r[0] = x[0]
        r[t] = r[t-1] + threshold n[t]
        up[t] = max(n[t], 0),  down[t] = max(-n[t], 0)

    So r is what a receiver rebuilds, `x[0] + threshold * cumsum(up - down)`, and
    |x[t] - r[t]| < threshold as long as the signal moves at most `limit * threshold` per
    timestep; a faster one is caught up with later. Timestep 0 is silent, and nothing depends on
    what comes after it.

    Args:
        signal: `[T, B, ..., C]`, floating, time-major (batch-major windows go through `series`).
        threshold: Distance of two levels in the unit of the signal, above 0; a number, or an
            array that broadcasts to `[B, ..., C]`, e.g. `[C]`.
        limit: Most spikes per channel and timestep. 1 keeps the spikes binary; above 1 they are
            counts.

    Returns:
        Spikes `[T, B, ..., 2 C]`, the dtype of `signal`: the C rising channels, then the C
        falling ones. No gradient flows to the signal.

    Raises:
        TypeError: If `signal` is not floating point.
        ValueError: If `signal` has fewer than three axes, or `threshold` or `limit` is not above 0.

    Reference:
        M. Miskowicz, "Send-On-Delta Concept: An Event-Based Data Reporting Strategy", Sensors 6,
        2006.

    Example:
        >>> delta(jnp.array([0.0, 1.0, 2.0, 1.0]).reshape(4, 1, 1), threshold=1.0)[:, 0]
        Array([[0., 0.],
               [1., 0.],
               [1., 0.],
               [0., 1.]], dtype=float32)
    """
    signal = checks.floating("signal", signal, cure="signal.astype('float32')")
    if signal.ndim < 3 or signal.shape[0] < 1:
        raise ValueError(
            f"signal must be time-major [T, B, ..., C] with T >= 1, got {list(signal.shape)}: a "
            f"batch of one is signal[:, None, :], a single channel is signal[..., None]"
        )
    limit = checks.positive_integer("limit", limit)
    step = _positive_step(threshold, signal)

    def cross(level: Array, x: Array) -> tuple[Array, Array]:
        # The level is counted, not summed: rounding does not grow with the length.
        moved = jnp.trunc((x - (signal[0] + step * level)) / step)
        moved = jnp.clip(moved, -limit, limit)
        return level + moved, moved

    _, moves = jax.lax.scan(cross, jnp.zeros_like(signal[0]), signal)
    return jnp.concatenate([jnp.maximum(moves, 0), jnp.maximum(-moves, 0)], axis=-1)


def _positive_step(threshold: float | jax.typing.ArrayLike, signal: Array) -> Array:
    step = jnp.asarray(threshold).astype(signal.dtype)
    try:
        positive = bool(jnp.all(step > 0))
    except jax.errors.ConcretizationTypeError:
        positive = True
    if not positive:
        raise ValueError(f"threshold must be above 0, got {threshold}: it is a distance of levels")
    return step


def _time_major(
    array: jax.typing.ArrayLike, rank: int, name: str, letters: str, cure: str
) -> Array:
    array = jnp.asarray(array)
    if array.ndim != rank:
        raise ValueError(f"{name} must be {letters}, got {list(array.shape)}: {cure}")
    return jnp.swapaxes(array, 0, 1)
