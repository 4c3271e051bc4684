"""The coupled LIF node: two groups of membranes, each of which also holds a share of the other's.

The groups are the halves of the channel axis, `x = [x1, x2]` and `v = [v1, v2]`. First group 1
charges and fires and adds a share of group 2, then the roles change:

    m1 = decay * v1 + (1 - decay) * x1      s1 = [m1 >= threshold]
    y1 = s1 + beta * x2                     w1 = (1 - s1) * m1 + alpha * v2
    m2 = decay * w1 + (1 - decay) * y1      s2 = [m2 >= threshold]
    y2 = s2 + beta * x1                     w2 = (1 - s2) * m2 + alpha * v1

The new membranes are `[w1, w2]` and the outputs `[y1, y2]`: **real-valued, not spikes**. No
gradient passes through the spikes in the reset. Although the reset is hard, the node has an
inverse, which recovers even its inputs:

    m2 from (y1, w1)        x1 = (y2 - s2) / beta       v1 = (w2 - (1 - s2) * m2) / alpha
    m1 from (x1, v1)        x2 = (y1 - s1) / beta       v2 = (w1 - (1 - s1) * m1) / alpha

This is OUR RECONSTRUCTION of a node without published code; it agrees with the paper's text and may
differ from the authors' node. Their claim of 58.65 times less memory than a usual spiking node is
not reproduced here. The membranes stay bounded if `decay + alpha < 1`.

Reference: after Lei et al., "Towards Zero Memory Footprint Spiking Neural Network Training", 2023,
arXiv:2308.08649.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.neurons._inverses import (
    inverse_or_refusal,
    is_accurate,
    largest,
    reciprocal,
    smallest,
    undoable_steps,
)
from snnjax.neurons.lif import charge
from snnjax.neurons.model import Model, Parameter, Sequence, check_options
from snnjax.neurons.reset import detached, zero
from snnjax.ops.derivative import with_derivative
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = [
    "CoupledLIFInverse",
    "CoupledLIFParams",
    "CoupledLIFState",
    "advance",
    "coupled_lif",
    "coupled_lif_inverse",
    "coupled_lif_model",
    "coupled_lif_state",
    "halves",
    "undo",
]


class CoupledLIFParams(NamedTuple):
    """Parameters of `coupled_lif`, each a scalar or broadcastable against half of one timestep.

    Attributes:
        decay: fraction of the membrane potential kept per timestep, `1 - 1 / tau`, in (0, 1).
        threshold: membrane potential at which a neuron fires.
        alpha: share of one group's membrane potential added to the other's; positive.
        beta: share of one group's input added to the other's output; positive.
    """

    decay: Parameter
    threshold: Parameter
    alpha: Parameter
    beta: Parameter


class CoupledLIFState(NamedTuple):
    """State of `coupled_lif`: membrane potentials of the two groups, each `[B, ..., C/2]`."""

    v1: Array
    v2: Array


def coupled_lif_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> CoupledLIFState:
    """The state at rest, `v1 = v2 = 0`, for one timestep of currents of shape `(B, ..., C)`.

    Raises:
        ValueError: the number of channels is odd.
    """
    half = (*shape[:-1], _half(shape[-1]))
    return CoupledLIFState(jnp.zeros(half, dtype), jnp.zeros(half, dtype))


def coupled_lif(
    params: CoupledLIFParams,
    state: CoupledLIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
) -> tuple[CoupledLIFState, Array]:
    """One timestep of coupled LIF neurons.

        m1 = decay * v1 + (1 - decay) * x1      s1 = [m1 >= threshold]
        y1 = s1 + beta * x2                     w1 = (1 - s1) * m1 + alpha * v2
        m2 = decay * w1 + (1 - decay) * y1      s2 = [m2 >= threshold]
        y2 = s2 + beta * x1                     w2 = (1 - s2) * m2 + alpha * v1

    Args:
        params: decay (fraction kept per timestep), threshold (membrane potential) and couplings.
        state: membrane potentials after the last step, each `[B, ..., C/2]`.
        current: input current of both groups `[x1, x2]`, `[B, ..., C]`, C even, in units of the
            membrane potential per timestep.
        spike: spike function and its surrogate derivative.

    Returns:
        The new state `[w1, w2]` and the outputs `[y1, y2]`, `[B, ..., C]`, real-valued.

    Raises:
        ValueError: the number of channels is odd.
    """
    return advance(spike, params, state, current)[:2]


def coupled_lif_inverse(
    *, decay: float, alpha: float, tolerance: float = 1e-2
) -> CoupledLIFInverse:
    """Makes the inverse of `coupled_lif` for known inputs, for as many steps as float32 allows.

    The errors e of the membranes after a step bound those before it by

        e1' = (e2 + decay * e1) / alpha             e2' = (e1 + decay * e1') / alpha

    with equality if no neuron fires: a factor of 4 per step at `decay = alpha = 0.5` (8 steps), of
    1.62 at `alpha = 1` (23 steps, but the membranes themselves then grow). A smaller `alpha` and a
    larger `decay` amplify errors.

    Args:
        decay: largest decay of the parameters.
        alpha: smallest alpha of the parameters.
        tolerance: largest error of the membranes, as a share of their largest magnitude.

    Returns:
        The inverse, for `memory.reverse(inverse, refresh=inverse.steps)`.

    Raises:
        ValueError: `decay` is outside [0, 1], `alpha` is not positive or so small that not even one
            step can be undone.
    """
    if not (0 <= decay <= 1 and alpha > 0):
        raise ValueError(
            f"a coupled LIF is undone with decay in [0, 1] and alpha > 0, got {decay} and {alpha}"
        )
    return CoupledLIFInverse(undoable_steps(_growth(decay, 1 / alpha), tolerance), tolerance)


def _growth(decay: Any, gain: Any) -> list[list[Any]]:
    """Rows e1' and e2' of `coupled_lif_inverse` in terms of e1 and e2; the gain is `1 / alpha`."""
    first = [decay * gain, gain]
    return [first, [(1 + decay * first[0]) * gain, decay * first[1] * gain]]


@dataclasses.dataclass(frozen=True)
class CoupledLIFInverse:
    """The inverse of `coupled_lif`; made by `coupled_lif_inverse`.

    The outputs determine the spikes, exactly while `|beta * x| < 2^22` in float32.

    Attributes:
        steps: number of steps it can undo in a row; None is any number.
        tolerance: largest error of the membranes, as a share of their largest magnitude.
        fixed: parameters whose values bound `steps`.
    """

    steps: int | None
    tolerance: float = 1e-2
    fixed: tuple[str, ...] = ("decay", "alpha")

    def __call__(
        self, params: CoupledLIFParams, after: CoupledLIFState, current: Array, outputs: Array
    ) -> CoupledLIFState:
        """The state before a step, each `[B, ..., C/2]`."""
        (x1, x2), (y1, _) = halves(current), halves(outputs)
        # Without the other group's input the output is the spike, 0 or 1.
        carried = jnp.concatenate([params.beta * x2, params.beta * x1], -1)
        spikes = outputs - carried
        # The sign alone has no derivative, which a second derivative of the scan needs.
        spikes = with_derivative((spikes > 0.5).astype(outputs.dtype), spikes)
        return undo(params, after, y1, x1, spikes)[0]

    def check(self, params: CoupledLIFParams, state: CoupledLIFState, steps: int) -> Any:
        """True if these parameters and this state allow to undo so many steps in a row."""
        decay = largest(params.decay)
        if decay is None:
            decay = jnp.max(jax.lax.stop_gradient(jnp.asarray(params.decay)))
        growth = _growth(decay, reciprocal(params.alpha))
        return is_accurate(growth, state, steps, tolerance=self.tolerance)


def advance(
    spike: Surrogate, params: CoupledLIFParams, state: CoupledLIFState, current: Array
) -> tuple[CoupledLIFState, Array, Array]:
    """One timestep of `coupled_lif`: new state, outputs and spikes `[s1, s2]`, `[B, ..., C]`."""
    (x1, x2), (v1, v2) = halves(current), state
    w1, y1, s1 = _drive(spike, params, x1, v1, x2, v2)
    # After the first: group 2 is driven by the new output and membrane of group 1.
    w2, y2, s2 = _drive(spike, params, y1, w1, x1, v1)
    return CoupledLIFState(w1, w2), jnp.concatenate([y1, y2], -1), jnp.concatenate([s1, s2], -1)


def undo(
    params: CoupledLIFParams, after: CoupledLIFState, y1: Array, x1: Array, spikes: Array
) -> tuple[CoupledLIFState, Array, Array]:
    """The state before a step, and the membranes `m1`, `m2` before its reset."""
    # Charge and reset are the step's own expressions: the membranes of the last kept step are
    # reproduced bit for bit, and steps further back propagate only the errors of `after`.
    (w1, w2), (s1, s2) = after, halves(spikes)
    # In reverse order: `m1` needs `v1`, which follows from `m2`.
    m2 = charge(params.decay, w1, y1, scale_input=True)
    v1 = (w2 - _RESET(m2, s2, params.threshold)) / params.alpha
    m1 = charge(params.decay, v1, x1, scale_input=True)
    v2 = (w1 - _RESET(m1, s1, params.threshold)) / params.alpha
    return CoupledLIFState(v1, v2), m1, m2


def halves(array: Array) -> tuple[Array, Array]:
    """The two groups of the channel axis, `[..., C] -> [..., C/2], [..., C/2]`.

    Raises:
        ValueError: C is odd.
    """
    half = _half(array.shape[-1])
    return array[..., :half], array[..., half:]


# Detached: the hand-written derivative of `coupled_lif_scan` has no term through these spikes.
_RESET = detached(zero)


def _drive(spike, params, x, v, carried_x, carried_v):
    """Charges and fires one group, and adds a share of the other."""
    m = charge(params.decay, v, x, scale_input=True)
    s = spike(m - params.threshold)
    w = _RESET(m, s, params.threshold) + params.alpha * carried_v
    return w, s + params.beta * carried_x, s


def _half(channels: int) -> int:
    if channels % 2:
        raise ValueError(
            f"a coupled LIF has two groups of channels and {channels} cannot be halved: give the "
            "layer before it an even number"
        )
    return channels // 2


def coupled_lif_model(
    *,
    decay: Parameter = 0.5,
    threshold: Parameter = 1.0,
    alpha: Parameter = 0.5,
    beta: Parameter = 0.5,
    spike: Surrogate = arctan(),
    sequence: Sequence | None = None,
) -> Model:
    """Model of coupled LIF neurons: pairs with an inverse in spite of their hard reset.

        m1 = decay * v1 + (1 - decay) * x1      s1 = [m1 >= threshold]
        y1 = s1 + beta * x2                     w1 = (1 - s1) * m1 + alpha * v2
        m2 = decay * w1 + (1 - decay) * y1      s2 = [m2 >= threshold]
        y2 = s2 + beta * x1                     w2 = (1 - s2) * m2 + alpha * v1

    Currents [x1, x2] `[T, B, ..., C]`, C even, in units of the membrane potential per timestep;
    outputs [y1, y2] `[T, B, ..., C]`, real-valued, not spikes. Parameters are numbers or arrays
    that broadcast against half of one timestep.

    Args:
        decay: fraction of the membrane potential kept per timestep, in (0, 1).
        threshold: membrane potential at which a neuron fires.
        alpha: share of one group's membrane potential added to the other's; positive.
        beta: share of one group's input added to the other's output; positive.
        spike: spike function and its surrogate derivative.
        sequence: whole-sequence function, such as `neurons.coupled_lif_scan`; None scans the step.

    Reference:
        A reconstruction, after Lei et al., "Towards Zero Memory Footprint Spiking Neural Network
        Training", 2023, arXiv:2308.08649.
    """
    check_options(
        "coupled_lif_model", spike=spike, decay=decay, threshold=threshold, alpha=alpha, beta=beta
    )
    # Errors grow with the decay and with 1 / alpha.
    options: dict[str, Any] = {"decay": largest(decay), "alpha": smallest(alpha)}
    return Model(
        bind(coupled_lif, spike=spike),
        CoupledLIFParams(decay, threshold, alpha, beta),
        coupled_lif_state,
        sequence and bind(sequence, spike=spike),
        inverse_or_refusal(coupled_lif_inverse, **options),
        spiking=False,
        name="coupledlif",
    )
