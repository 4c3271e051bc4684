"""The parametric leaky integrate-and-fire neuron (PLIF): a LIF that learns its decay.

    decay = 1 - sigmoid(w)           so that 1 / tau = sigmoid(w), whatever w
    h[t]  = decay * v[t-1] + (1 - decay) * x[t]      (`scale_input=False` drops the factor)

Reference: Fang, Yu, Chen, Masquelier, Huang, Tian, "Incorporating Learnable Membrane Time Constant
to Enhance Learning of Spiking Neural Networks", 2021, arXiv:2007.05785.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax

from snnjax.neurons.lif import LIFParams, LIFState, lif, lif_scan, lif_state
from snnjax.neurons.lif_kernel import lif_kernel
from snnjax.neurons.reset import Reset, subtract
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = [
    "PLIFParams",
    "PLIFState",
    "plif",
    "plif_decay",
    "plif_kernel",
    "plif_scan",
    "plif_state",
    "plif_weight",
]

PLIFState = LIFState
plif_state = lif_state


class PLIFParams(NamedTuple):
    """Parameters of `plif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        w: logit of the leak; `1 / tau = sigmoid(w)`. See `plif_weight`.
        threshold: membrane potential at which the neuron fires.
    """

    w: Array
    threshold: Array


def plif_weight(decay: float) -> float:
    """The weight `w` that starts a PLIF at `decay`: `log((1 - decay) / decay)`.

    Raises:
        ValueError: `decay` is not inside (0, 1).
    """
    if not 0 < decay < 1:
        raise ValueError(f"a learned decay starts inside (0, 1), got {decay}")
    return math.log((1 - decay) / decay)


def plif_decay(w: Array) -> Array:
    """The decay that a weight stands for, `1 - sigmoid(w)`: undoes `plif_weight`."""
    return 1 - jax.nn.sigmoid(w)


def plif(
    params: PLIFParams,
    state: PLIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = True,
) -> tuple[PLIFState, Array]:
    """One timestep of parametric LIF neurons; arguments and results as for `lif`."""
    return lif(
        _with_decay(params), state, current, spike=spike, reset=reset, scale_input=scale_input
    )


def plif_scan(
    params: PLIFParams,
    state: PLIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = True,
) -> tuple[PLIFState, Array]:
    """A whole sequence `[T, B, ...]`, keeping only the pre-reset membrane; see `lif_scan`."""
    return lif_scan(
        _with_decay(params), state, xs, spike=spike, reset=reset, scale_input=scale_input
    )


def plif_kernel(
    params: PLIFParams,
    state: PLIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = True,
    block: int = 1024,
    interpret: bool = False,
) -> tuple[PLIFState, Array]:
    """A whole sequence `[T, B, ...]` in one kernel, unmeasured on hardware; see `lif_kernel`."""
    return lif_kernel(
        _with_decay(params), state, xs, spike=spike, reset=reset, scale_input=scale_input,
        block=block, interpret=interpret,
    )  # fmt: skip


def _with_decay(params: PLIFParams) -> LIFParams:
    return LIFParams(plif_decay(params.w), params.threshold)
