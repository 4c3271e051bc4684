"""Decay per timestep of a time constant, and the gradient of a broadcast parameter.

    tau dv/dt = -v + x     over one timestep dt     v <- decay * v + ...

Two discretisations are in use: the exact solution for a constant input, `exp(-dt / tau)`, and the
forward Euler step, `1 - dt / tau` (spikingjelly, norse and most papers on deep spiking nets; with
dt = 1 their `tau = 2` is `decay = 0.5`).
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["euler_decay", "exponential_decay", "sum_to"]


def exponential_decay(tau: float, *, dt: float = 1.0) -> float:
    """The exact decay per timestep, `exp(-dt / tau)`, in (0, 1).

    Args:
        tau: time constant, in the unit of `dt`; `math.inf` gives 1 (no leak).
        dt: length of one timestep, in any unit of time.

    Raises:
        ValueError: `tau` or `dt` is not positive.
    """
    _check(tau, dt)
    return math.exp(-dt / tau)


def euler_decay(tau: float, *, dt: float = 1.0) -> float:
    """The forward Euler decay per timestep, `1 - dt / tau`.

    Args:
        tau: time constant, in the unit of `dt`; `math.inf` gives 1 (no leak).
        dt: length of one timestep; must not exceed `tau`, or the membrane would alternate in sign.

    Raises:
        ValueError: `tau` or `dt` is not positive, or `dt > tau`.
    """
    _check(tau, dt)
    if dt > tau:
        raise ValueError(
            f"the Euler step 1 - dt/tau is negative for tau={tau}, dt={dt}: use a smaller dt, or "
            "exponential_decay, which is stable for every dt"
        )
    return 1.0 - dt / tau


def _check(tau: float, dt: float) -> None:
    for name, value in (("tau", tau), ("dt", dt)):
        # Negated, so that NaN is refused too.
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")


def sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Sums a broadcast array over its broadcast axes, to `shape`: the gradient of a broadcast."""
    extra = array.ndim - len(shape)
    # Leading axes that broadcasting added, and axes of length 1 that it stretched.
    axes = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and array.shape[extra + i] != 1
    )
    return jnp.sum(array, axes).reshape(shape)
