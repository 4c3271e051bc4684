"""The integrate-and-fire neuron without a leak (IF): the LIF with decay 1.

    h[t] = v[t-1] + x[t],   s[t] = [h[t] >= threshold],   v[t] = h[t] - s[t] * threshold

Without a leak nothing is forgotten and, with reset by subtraction, rounding errors do not grow when
the step is undone: the one membrane that can be reversed over many steps.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from snnjax.neurons.lif import LIFParams, LIFState, lif, lif_scan, lif_state
from snnjax.neurons.lif_kernel import lif_kernel
from snnjax.neurons.reset import Reset, subtract
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = [
    "IFParams",
    "IFState",
    "integrate_fire",
    "integrate_fire_kernel",
    "integrate_fire_scan",
    "integrate_fire_state",
]

IFState = LIFState
integrate_fire_state = lif_state


class IFParams(NamedTuple):
    """Parameters of `integrate_fire`.

    Attributes:
        threshold: membrane potential at which the neuron fires.
    """

    threshold: Array


def integrate_fire(
    params: IFParams,
    state: IFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
) -> tuple[IFState, Array]:
    """One timestep of integrate-and-fire neurons; arguments and results as for `lif`."""
    return lif(_without_leak(params, current), state, current, spike=spike, reset=reset)


def integrate_fire_scan(
    params: IFParams,
    state: IFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
) -> tuple[IFState, Array]:
    """A whole sequence `[T, B, ...]`, keeping only the pre-reset membrane; see `lif_scan`."""
    return lif_scan(_without_leak(params, xs), state, xs, spike=spike, reset=reset)


def integrate_fire_kernel(
    params: IFParams,
    state: IFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    block: int = 1024,
    interpret: bool = False,
) -> tuple[IFState, Array]:
    """A whole sequence `[T, B, ...]` in one kernel, unmeasured on hardware; see `lif_kernel`."""
    return lif_kernel(
        _without_leak(params, xs), state, xs,
        spike=spike, reset=reset, block=block, interpret=interpret,
    )  # fmt: skip


def _without_leak(params: IFParams, current: Array) -> LIFParams:
    return LIFParams(jnp.ones((), current.dtype), params.threshold)
