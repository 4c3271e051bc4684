"""Arrays that have a time axis: windows and frames turned time-major, and level-crossing spikes.

    series   [B, T, C]       -> [T, B, C]
    frames   [B, T, H, W, C] -> [T, B, H, W, C]
    delta    [T, B, ..., C]  -> [T, B, ..., 2 C]     one spike per level crossed, up and down apart

Loaders batch whole recordings, so their arrays are batch-major; everywhere else in the library time
is first. `series` and `frames` are their own inverse: apply them exactly once, since the shape
cannot reveal a second time.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.encoding import _checks as checks
from snnjax.typing import Array


def series(windows: jax.typing.ArrayLike) -> Array:
    """Turns batch-major windows of a series time-major.

        y[t, b, c] = x[b, t, c]

    Args:
        windows: `[B, T, C]`, any dtype.

    Returns:
        `[T, B, C]`, the same values.

    Raises:
        TypeError: If `windows` are no numbers.
        ValueError: If `windows` does not have three axes, or a value does not fit 32 bits.
    """
    cures = {
        2: "a single channel is windows[..., None], a batch of one windows[None]",
        4: "still images take encoding.direct(images, timesteps=T), the frames of one recording "
        "encoding.frames(frames[None])",
        5: "event frames [B, T, H, W, C] take encoding.frames",
    }
    return _time_major(windows, 3, "windows", "[B, T, C]", cures)


def frames(batch: jax.typing.ArrayLike) -> Array:
    """Turns a batch of frame sequences from a loader time-major.

        y[t, b] = x[b, t]

    Args:
        batch: `[B, T, H, W, C]`, any dtype; event frames have C = 2 polarities.

    Returns:
        `[T, B, H, W, C]`, the same values.

    Raises:
        TypeError: If `batch` is none of numbers.
        ValueError: If `batch` does not have five axes, or a value does not fit 32 bits.
    """
    cures = {
        2: "still images take encoding.direct(images, timesteps=T)",
        3: "windows of a series [B, T, C] take encoding.series",
        4: "still images take encoding.direct(images, timesteps=T), one recording is batch[None], "
        "and a single channel batch[..., None]",
    }
    return _time_major(batch, 5, "batch", "[B, T, H, W, C]", cures)


def delta(
    signal: jax.typing.ArrayLike,
    *,
    threshold: float | jax.typing.ArrayLike,
    limit: int = 1,
) -> Array:
    """Level-crossing code (send on delta): one spike per level the signal has crossed.

    A reference level follows the signal in steps of `threshold`, starting at x[0]:

        n[t] = clip(trunc((x[t] - r[t-1]) / threshold), -limit, limit),  r[0] = x[0]
        r[t] = r[t-1] + threshold n[t]
        up[t] = max(n[t], 0),  down[t] = max(-n[t], 0)

    A receiver reconstructs r as `x[0] + threshold * cumsum(up - down)`, and |x[t] - r[t]| <
    threshold as long as the signal moves at most `limit * threshold` per timestep; after a faster
    move the level catches up over the next timesteps. Timestep 0 has no spikes, and the code is
    causal.

    Args:
        signal: `[T, B, ..., C]`, floating, time-major (batch-major windows go through `series`).
        threshold: Distance between levels in the unit of the signal, above 0; a number, or an
            array that broadcasts to `[B, ..., C]`, e.g. `[C]`.
        limit: Largest number of spikes per channel and timestep. 1 keeps spikes binary; above 1
            they are counts.

    Returns:
        Spikes `[T, B, ..., 2 C]`, dtype of `signal`: the C rising channels, then the C falling
        ones. No gradient flows to the signal.

    Raises:
        TypeError: If `signal` is not floating point.
        ValueError: If a concrete `signal` is not finite, it has fewer than three axes, or
            `threshold` or `limit` is not above 0.

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
    checks.finite("signal", signal)
    limit = checks.positive_integer("limit", limit)
    # Checked before the scan, inside which every value is traced.
    step = _positive_step(threshold, signal)

    def cross(level: Array, x: Array) -> tuple[Array, Array]:
        # The carry counts levels instead of summing steps: rounding does not grow with T.
        crossed = jnp.trunc((x - (signal[0] + step * level)) / step)
        crossed = jnp.clip(crossed, -float(limit), float(limit))
        return level + crossed, crossed

    _, moves = jax.lax.scan(cross, jnp.zeros_like(signal[0]), signal)
    # Two channels instead of a sign: spikes are never negative.
    return jnp.concatenate([jnp.maximum(moves, 0), jnp.maximum(-moves, 0)], axis=-1)


def _positive_step(threshold: float | jax.typing.ArrayLike, signal: Array) -> Array:
    step = checks.numbers("threshold", threshold).astype(signal.dtype)
    if step.ndim >= signal.ndim or any(
        n not in (1, m) for n, m in zip(step.shape[::-1], signal.shape[::-1], strict=False)
    ):
        raise ValueError(
            f"threshold {list(step.shape)} must broadcast to [B, ..., C] = "
            f"{list(signal.shape[1:])}: give a number, or one per channel, [C]"
        )
    # An infinite distance would be crossed by no signal. A traced threshold cannot be checked.
    if checks.concrete((step > 0) & jnp.isfinite(step)) is False:
        raise ValueError(f"threshold must be above 0, got {threshold}: it is a distance of levels")
    return step


def _time_major(
    array: jax.typing.ArrayLike, rank: int, name: str, letters: str, cures: dict[int, str]
) -> Array:
    array = checks.numbers(name, array)
    if array.ndim != rank:
        cure = cures.get(array.ndim, cures[min(cures)])
        raise ValueError(f"{name} must be {letters}, got {list(array.shape)}: {cure}")
    return jnp.swapaxes(array, 0, 1)
