"""The neurons of other libraries, as options of ours.

Same name, different equations: libraries disagree on whether the input is scaled, where the reset
acts, whether it is differentiated, and whether a membrane exactly at its threshold fires. Each
function takes a peer's own arguments, under the peer's names and with its defaults, and returns the
neuron of this library that equals it, spikes and gradients:

    peer and neuron          charge          fires   reset acts      gradient of the reset
    spikingjelly LIFNode     (x - v) / tau   >=      same step       full, unless detach_reset
    snntorch Leaky           beta v + x      >       next step       detached
    norse lif_box            (x - v) / tau   >       same step       full
    spyx LIF                 beta v + x      >       next step       full; output one step late

A resting potential other than zero (spikingjelly's `v_reset`, norse's `v_leak`) is a shift of the
membrane: ours is theirs minus `rest`, and the threshold is shifted likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from snnjax import surrogate
from snnjax.neurons.cuba_lif import CubaLIFParams, cuba_lif, cuba_lif_state
from snnjax.neurons.decay import euler_decay
from snnjax.neurons.integrate_fire import IFParams, integrate_fire, integrate_fire_scan
from snnjax.neurons.lif import LIFParams, LIFState, lif, lif_scan, lif_state
from snnjax.neurons.plif import PLIFParams, plif, plif_scan, plif_weight
from snnjax.neurons.reset import Reset, delayed, detached, none, subtract, to, zero
from snnjax.surrogate import Surrogate
from snnjax.typing import Array, Step, bind

__all__ = [
    "Convention",
    "norse_lif_box",
    "snntorch_leaky",
    "snntorch_synaptic",
    "spikingjelly_if",
    "spikingjelly_lif",
    "spikingjelly_plif",
    "spyx_lif",
]

_SPIKINGJELLY = surrogate.sigmoid(alpha=4.0)
_SNNTORCH = surrogate.arctan(alpha=2.0)
_NORSE = surrogate.fast_sigmoid(alpha=1.0)
_SPYX = surrogate.fast_sigmoid(alpha=25.0)
_MECHANISMS = {"subtract": subtract, "zero": zero, "none": none}


class Convention(NamedTuple):
    """A peer's neuron in our terms.

    Attributes:
        step: the neuron, options filled in; equal arguments give equal steps.
        params: its parameters, scalars.
        initial_state: `(shape, *, dtype) -> state`, the peer's state before the first step.
        rest: offset of the membrane, theirs = ours + `rest`.
        whole: the whole-sequence function with a hand-written derivative, where there is one.

    Example:
        neuron = spikingjelly_lif(tau=2.0, detach_reset=True)
        state = neuron.initial_state((B, N))
        state, spikes = memory.store(neuron.step, neuron.params, state, currents)
        layer = nn.Neuron(neuron.step, neuron.initial_state, neuron.params, whole=neuron.whole)
    """

    step: Step
    params: Any
    initial_state: Callable[..., Any]
    rest: float
    whole: Callable[..., Any] | None = None


def spikingjelly_lif(
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    spike: Surrogate = _SPIKINGJELLY,
    dtype=jnp.float32,
) -> Convention:
    """`spikingjelly.activation_based.neuron.LIFNode`.

    Theirs, with `r = v_reset` (0 if None): `h = v + (x - (v - r)) / tau` with `decay_input`, else
    `h = v - (v - r) / tau + x`; fires at `h >= v_threshold`; back to `r`, or minus the threshold if
    `v_reset` is None. Ours: `decay = 1 - 1/tau`, `scale_input = decay_input`, membrane minus `r`,
    reset `zero` (`subtract` if None). `h - r = decay (v - r) + x`: the input needs no shift.

    Args:
        tau: their membrane time constant, in steps, at least 1.
        decay_input: whether the input is divided by `tau`.
        v_threshold: threshold, in their unit.
        v_reset: where a spike resets to and where the membrane rests; None subtracts instead.
        detach_reset: no gradient through the spike in the reset.
        spike: surrogate; their default is `Sigmoid(alpha=4)`, their `ATan()` is `arctan()`.
        dtype: of the parameters.

    Raises:
        ValueError: `tau < 1`.
    """
    rest, reset = _rest_and_reset(v_reset, detach_reset)
    params = LIFParams(*_arrays(dtype, euler_decay(tau), v_threshold - rest))
    return _lif(params, rest, spike=spike, reset=reset, scale_input=decay_input)


def spikingjelly_plif(
    *,
    init_tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    spike: Surrogate = _SPIKINGJELLY,
    dtype=jnp.float32,
) -> Convention:
    """`spikingjelly.activation_based.neuron.ParametricLIFNode`: `LIFNode` with a learned `tau`.

    `1 / tau = sigmoid(w)` in both, so their parameter `w` is our `PLIFParams.w`.

    Learning starts from `init_tau`; the other arguments are those of `spikingjelly_lif`.

    Raises:
        ValueError: `init_tau <= 1`.
    """
    rest, reset = _rest_and_reset(v_reset, detach_reset)
    options = {"spike": spike, "reset": reset, "scale_input": decay_input}
    w = plif_weight(euler_decay(init_tau))
    params = PLIFParams(*_arrays(dtype, w, v_threshold - rest))
    return Convention(bind(plif, **options), params, lif_state, rest, bind(plif_scan, **options))


def spikingjelly_if(
    *,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    spike: Surrogate = _SPIKINGJELLY,
    dtype=jnp.float32,
) -> Convention:
    """`spikingjelly.activation_based.neuron.IFNode`: `h = v + x`, fired and reset as `LIFNode`."""
    rest, reset = _rest_and_reset(v_reset, detach_reset)
    step = bind(integrate_fire, spike=spike, reset=reset)
    whole = bind(integrate_fire_scan, spike=spike, reset=reset)
    params = IFParams(*_arrays(dtype, v_threshold - rest))
    return Convention(step, params, lif_state, rest, whole)


def snntorch_leaky(
    beta: float,
    *,
    threshold: float = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike: Surrogate = _SNNTORCH,
    dtype=jnp.float32,
) -> Convention:
    """`snntorch.Leaky`.

    Theirs: `mem = beta * mem + x - rst * threshold` with `rst = [mem > threshold]` of the previous
    step, never differentiated ("zero": `beta * (1 - rst) * mem + x`); fires at `mem > threshold`.
    Ours: `delayed(detached(rule))`, and the membrane returned is the one before the reset. With
    `reset_delay=False` theirs resets in the same step and differentiates it: ours is the plain
    rule. That is exact for "zero" and "none"; for "subtract" as long as no membrane is left above
    the threshold by its own reset (it charges below twice the threshold): theirs then judges the
    next spike after subtracting once more.

    Args:
        beta: decay, clipped to [0, 1] as theirs is.
        threshold: fires strictly above it.
        reset_mechanism: "subtract", "zero" or "none".
        reset_delay: whether the reset acts at the next step.
        spike: surrogate, made strict here; their default is `surrogate.atan(alpha=2)`.
        dtype: of the parameters.

    Raises:
        ValueError: an unknown `reset_mechanism`.
    """
    reset = _snntorch_reset(reset_mechanism, reset_delay)
    params = LIFParams(*_arrays(dtype, min(max(beta, 0.0), 1.0), threshold))
    return _lif(params, 0.0, spike=surrogate.strict(spike), reset=reset)


def snntorch_synaptic(
    alpha: float,
    beta: float,
    *,
    threshold: float = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike: Surrogate = _SNNTORCH,
    dtype=jnp.float32,
) -> Convention:
    """`snntorch.Synaptic`: `syn = alpha * syn + x` charges a `Leaky`; our `cuba_lif`.

    `alpha` is our `synaptic_decay`, `beta` our `decay`; reset, firing and errors as for
    `snntorch_leaky`.
    """
    reset = _snntorch_reset(reset_mechanism, reset_delay)
    step = bind(cuba_lif, spike=surrogate.strict(spike), reset=reset)
    decay, synaptic_decay = (min(max(d, 0.0), 1.0) for d in (beta, alpha))
    params = CubaLIFParams(*_arrays(dtype, decay, synaptic_decay, threshold))
    return Convention(step, params, cuba_lif_state, 0.0)


def norse_lif_box(
    *,
    tau_mem_inv: float = 100.0,
    v_leak: float = 0.0,
    v_th: float = 1.0,
    v_reset: float = 0.0,
    dt: float = 0.001,
    spike: Surrogate = _NORSE,
    dtype=jnp.float32,
) -> Convention:
    """`norse.torch.functional.lif_box.lif_box_feed_forward_step` with `LIFBoxParameters`.

    Theirs: `h = v + dt * tau_mem_inv * (x + v_leak - v)`, fires at `h > v_th`, hard reset to
    `v_reset`, differentiated. Ours: `decay = 1 - dt * tau_mem_inv`, `scale_input`, membrane minus
    `v_leak`, reset `to(v_reset - v_leak)`. The initial state is their `v = v_leak`.

    Args:
        tau_mem_inv: inverse time constant, in the inverse unit of `dt`.
        v_leak: resting potential.
        v_th: threshold; fires strictly above it.
        v_reset: membrane after a spike.
        dt: length of a step.
        spike: surrogate, made strict here. The default is their method "super", whose derivative
            in 1.1.0 is `1 / (1 + |u|)^2` whatever its `alpha`.
        dtype: of the parameters.

    Raises:
        ValueError: `dt * tau_mem_inv` is above 1 or not positive.
    """
    reset = to(v_reset - v_leak)
    params = LIFParams(*_arrays(dtype, euler_decay(1 / tau_mem_inv, dt=dt), v_th - v_leak))
    return _lif(params, v_leak, spike=surrogate.strict(spike), reset=reset, scale_input=True)


def spyx_lif(
    beta: float, *, threshold: float = 1.0, spike: Surrogate = _SPYX, dtype=jnp.float32
) -> Convention:
    """`spyx.nn.LIF`: spikes are read from the membrane *before* the input arrives.

    Theirs: `s = [V > threshold]` of the previous step, then `V = beta * V + x - s * threshold`,
    differentiated through `s`. The trains are those of `bind(lif, spike=strict(spike),
    reset=delayed(subtract))` one step late: the first output is that of the initial state and the
    last membrane's spikes are never seen. `lif` with that reset is what to train with; this step
    is for equal outputs.

    Args:
        beta: decay, clipped to [0, 1] as theirs is.
        threshold: fires strictly above it.
        spike: surrogate, made strict here; their default is `axn.superspike(k=25)`. Their
            `axn.arctan(k)` is our `arctan(alpha=2 * k)` divided by `pi * k`.
        dtype: of the parameters.
    """
    step = bind(_late_lif, spike=surrogate.strict(spike))
    params = LIFParams(*_arrays(dtype, min(max(beta, 0.0), 1.0), threshold))
    return Convention(step, params, lif_state, 0.0)


def _lif(params: LIFParams, rest: float, *, reset: Reset, **options: Any) -> Convention:
    whole = None if reset.delay else bind(lif_scan, reset=reset, **options)
    return Convention(bind(lif, reset=reset, **options), params, lif_state, rest, whole)


def _late_lif(params: LIFParams, state: LIFState, current: Array, *, spike: Surrogate):
    spikes = spike(state.v - params.threshold)
    v = subtract(params.decay * state.v, spikes, params.threshold) + current
    return LIFState(v), spikes


def _rest_and_reset(v_reset: float | None, detach: bool) -> tuple[float, Reset]:
    rest, reset = (0.0, subtract) if v_reset is None else (float(v_reset), zero)
    return rest, detached(reset) if detach else reset


def _snntorch_reset(mechanism: str, delay: bool) -> Reset:
    if mechanism not in _MECHANISMS:
        raise ValueError(
            f"reset_mechanism must be one of {', '.join(_MECHANISMS)}, got {mechanism!r}"
        )
    reset = _MECHANISMS[mechanism]
    return delayed(detached(reset)) if delay else reset


def _arrays(dtype, *values: float) -> tuple[Array, ...]:
    return tuple(jnp.asarray(value, dtype) for value in values)
