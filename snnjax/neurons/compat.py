"""Neurons of other libraries, as models of this one.

Libraries disagree on whether the input is scaled, where the reset acts, whether it is
differentiated, and whether a membrane exactly at its threshold fires. Each function takes the
arguments of the library's neuron, with its names and defaults, and returns the `neurons.Model` of
equal spikes and gradients:

    library and neuron       charge          fires   reset acts      gradient of the reset
    spikingjelly LIFNode     (x - v) / tau   >=      same step       full, unless detach_reset
    snntorch Leaky           beta v + x      >       next step       detached
    norse lif_box            (x - v) / tau   >       same step       full
    spyx LIF                 beta v + x      >       next step       full; output one step late

A resting potential other than zero (spikingjelly's `v_reset`, norse's `v_leak`) shifts the
membrane: theirs = ours + `Model.rest`, and the threshold is shifted likewise.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from snnjax import surrogate
from snnjax.neurons.cuba_lif import cuba_lif_model
from snnjax.neurons.decay import euler_decay
from snnjax.neurons.integrate_fire import integrate_fire_model
from snnjax.neurons.lif import LIFParams, LIFState, lif_model, lif_state
from snnjax.neurons.model import Model
from snnjax.neurons.plif import plif_model
from snnjax.neurons.reset import Reset, delayed, detached, none, subtract, to, zero
from snnjax.surrogate import Surrogate
from snnjax.typing import Array, bind

__all__ = [
    "norse_lif_box",
    "snntorch_leaky",
    "snntorch_synaptic",
    "spikingjelly_if",
    "spikingjelly_lif",
    "spikingjelly_plif",
    "spyx_lif",
]

# Default surrogates: spikingjelly's `Sigmoid(alpha=4)`, snntorch's `surrogate.atan(alpha=2)`, the
# derivative of norse's method "super", and spyx's `axn.superspike(k=25)`.
_SIGMOID = surrogate.sigmoid(alpha=4.0)
_ARCTAN = surrogate.arctan(alpha=2.0)
_SUPER = surrogate.fast_sigmoid(alpha=1.0)
_SUPERSPIKE = surrogate.fast_sigmoid(alpha=25.0)
_MECHANISMS = {"subtract": subtract, "zero": zero, "none": none}  # of snntorch


def spikingjelly_lif(
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    spike: Surrogate = _SIGMOID,
    dtype=jnp.float32,
) -> Model:
    """Model of `spikingjelly.activation_based.neuron.LIFNode`.

    Theirs, with `r = v_reset` (0 if None): `h = v + (x - (v - r)) / tau` with `decay_input`, else
    `h = v - (v - r) / tau + x`; fires at `h >= v_threshold`; resets to `r`, or subtracts the
    threshold if `v_reset` is None. Ours: `lif` with `decay = 1 - 1/tau`, `scale_input =
    decay_input`, membrane minus `r`, reset `zero` (`subtract` if None). The input needs no shift:
    `h - r = decay (v - r) + x`.

    Args:
        tau: membrane time constant, in timesteps, at least 1.
        decay_input: divide the input by `tau`.
        v_threshold: threshold, in units of their membrane potential.
        v_reset: membrane potential after a spike and at rest; None subtracts the threshold.
        detach_reset: block the gradient through the spike in the reset.
        spike: surrogate; their default is `Sigmoid(alpha=4)`, their `ATan()` is `arctan()`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: `tau < 1`.
    """
    decay = jnp.asarray(euler_decay(tau), dtype)
    options = _fire_options(v_threshold, v_reset, detach_reset, spike, dtype)
    return _with_rest(v_reset, lif_model(decay=decay, scale_input=decay_input, **options))


def spikingjelly_plif(
    *,
    init_tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    spike: Surrogate = _SIGMOID,
    dtype=jnp.float32,
) -> Model:
    """Model of `spikingjelly.activation_based.neuron.ParametricLIFNode`.

    A `LIFNode` with a learned time constant. `1 / tau = sigmoid(w)` in both, so their parameter `w`
    is our `PLIFParams.w`.

    Args:
        init_tau: membrane time constant at the start of training, in timesteps, above 1.
        decay_input: as for `spikingjelly_lif`.
        v_threshold: as for `spikingjelly_lif`.
        v_reset: as for `spikingjelly_lif`.
        detach_reset: as for `spikingjelly_lif`.
        spike: as for `spikingjelly_lif`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: `init_tau <= 1`.
    """
    options = _fire_options(v_threshold, v_reset, detach_reset, spike, dtype)
    model = plif_model(decay=euler_decay(init_tau), scale_input=decay_input, **options)
    # `plif_model` returns w as a Python number, without a dtype.
    params = model.params._replace(w=jnp.asarray(model.params.w, dtype))
    return _with_rest(v_reset, dataclasses.replace(model, params=params))


def spikingjelly_if(
    *,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    spike: Surrogate = _SIGMOID,
    dtype=jnp.float32,
) -> Model:
    """Model of `spikingjelly.activation_based.neuron.IFNode`.

    `h = v + x`; fires and resets as `LIFNode`. Arguments as for `spikingjelly_lif`.
    """
    options = _fire_options(v_threshold, v_reset, detach_reset, spike, dtype)
    return _with_rest(v_reset, integrate_fire_model(**options))


def _fire_options(
    v_threshold: float, v_reset: float | None, detach_reset: bool, spike: Surrogate, dtype: Any
) -> dict[str, Any]:
    reset = subtract if v_reset is None else zero
    return {
        # Our membrane is theirs minus the resting potential, and so is the threshold.
        "threshold": jnp.asarray(v_threshold - _rest(v_reset), dtype),
        "reset": detached(reset) if detach_reset else reset,
        "spike": spike,
    }


def _rest(v_reset: float | None) -> float:
    return 0.0 if v_reset is None else float(v_reset)


def _with_rest(v_reset: float | None, model: Model) -> Model:
    return dataclasses.replace(model, rest=_rest(v_reset))


def snntorch_leaky(
    beta: float,
    *,
    threshold: float = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike: Surrogate = _ARCTAN,
    dtype=jnp.float32,
) -> Model:
    """Model of `snntorch.Leaky`.

    Theirs: `mem = beta * mem + x - rst * threshold` with `rst = [mem > threshold]` of the previous
    step, never differentiated ("zero": `beta * (1 - rst) * mem + x`); fires at `mem > threshold`.
    Ours: `lif` with `delayed(detached(rule))`, whose state is the membrane before the reset. With
    `reset_delay=False` theirs resets in the same step and differentiates the reset; ours is then
    the plain rule. It is exact for "zero" and "none", and for "subtract" as long as every membrane
    charges below twice the threshold: above it their reset leaves the membrane over the threshold,
    and they subtract once more before the next spike.

    Args:
        beta: decay per timestep, clipped to [0, 1] as theirs is.
        threshold: membrane potential; fires strictly above it.
        reset_mechanism: "subtract", "zero" or "none".
        reset_delay: reset at the next step.
        spike: surrogate, made strict here; their default is `surrogate.atan(alpha=2)`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: an unknown `reset_mechanism`.
    """
    return lif_model(
        decay=_clip(beta, dtype),
        threshold=jnp.asarray(threshold, dtype),
        # Theirs fires strictly above the threshold, ours at it.
        spike=surrogate.strict(spike),
        reset=_reset(reset_mechanism, reset_delay),
    )


def snntorch_synaptic(
    alpha: float,
    beta: float,
    *,
    threshold: float = 1.0,
    reset_mechanism: str = "subtract",
    reset_delay: bool = True,
    spike: Surrogate = _ARCTAN,
    dtype=jnp.float32,
) -> Model:
    """Model of `snntorch.Synaptic`: `syn = alpha * syn + x` charges a `Leaky`; our `cuba_lif`.

    Args:
        alpha: decay of the synaptic current per timestep, our `synaptic_decay`, clipped to [0, 1].
        beta: decay of the membrane per timestep, our `decay`, clipped to [0, 1].
        threshold: as for `snntorch_leaky`.
        reset_mechanism: as for `snntorch_leaky`.
        reset_delay: as for `snntorch_leaky`.
        spike: as for `snntorch_leaky`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: an unknown `reset_mechanism`.
    """
    return cuba_lif_model(
        decay=_clip(beta, dtype),
        synaptic_decay=_clip(alpha, dtype),
        threshold=jnp.asarray(threshold, dtype),
        # As in `snntorch_leaky`: theirs fires strictly above the threshold.
        spike=surrogate.strict(spike),
        reset=_reset(reset_mechanism, reset_delay),
    )


def _clip(decay: float, dtype):
    return jnp.asarray(min(max(decay, 0.0), 1.0), dtype)


def _reset(mechanism: str, delay: bool) -> Reset:
    if mechanism not in _MECHANISMS:
        raise ValueError(
            f"reset_mechanism must be one of {', '.join(_MECHANISMS)}, got {mechanism!r}"
        )
    reset = _MECHANISMS[mechanism]
    # They detach the delayed reset only.
    return delayed(detached(reset)) if delay else reset


def norse_lif_box(
    *,
    tau_mem_inv: float = 100.0,
    v_leak: float = 0.0,
    v_th: float = 1.0,
    v_reset: float = 0.0,
    dt: float = 0.001,
    spike: Surrogate = _SUPER,
    dtype=jnp.float32,
) -> Model:
    """Model of `norse.torch.functional.lif_box.lif_box_feed_forward_step` with `LIFBoxParameters`.

    Theirs: `h = v + dt * tau_mem_inv * (x + v_leak - v)`, fires at `h > v_th`, differentiable hard
    reset to `v_reset`. Ours: `lif` with `decay = 1 - dt * tau_mem_inv`, `scale_input`, membrane
    minus `v_leak`, reset `to(v_reset - v_leak)`. The resting state is their `v = v_leak`.

    Args:
        tau_mem_inv: inverse time constant, in the inverse unit of `dt`.
        v_leak: resting potential.
        v_th: threshold; fires strictly above it.
        v_reset: membrane potential after a spike.
        dt: length of a timestep.
        spike: surrogate, made strict here. The default is their method "super", whose derivative
            in 1.1.0 is `1 / (1 + |u|)^2` for every `alpha`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: `dt * tau_mem_inv` is above 1 or not positive.
    """
    model = lif_model(
        decay=jnp.asarray(euler_decay(1 / tau_mem_inv, dt=dt), dtype),
        threshold=jnp.asarray(v_th - v_leak, dtype),
        # norse fires above the threshold, our surrogates fire at it as well.
        spike=surrogate.strict(spike),
        reset=to(v_reset - v_leak),
        scale_input=True,
    )
    return dataclasses.replace(model, rest=v_leak)


def spyx_lif(
    beta: float,
    *,
    threshold: float = 1.0,
    spike: Surrogate = _SUPERSPIKE,
    dtype=jnp.float32,
) -> Model:
    """Model of `spyx.nn.LIF`, which reads spikes from the membrane *before* the input arrives.

    Theirs: `s = [V > threshold]` of the previous step, then `V = beta * V + x - s * threshold`,
    differentiated through `s`. The spike trains are those of `bind(lif, spike=strict(spike),
    reset=delayed(subtract))` one step late: the first output belongs to the initial state, and the
    spikes of the last membrane are never returned. Train with `lif` and that reset; use this model
    to reproduce outputs of spyx.

    Args:
        beta: decay per timestep, clipped to [0, 1] as theirs is.
        threshold: membrane potential; fires strictly above it.
        spike: surrogate, made strict here; their default is `axn.superspike(k=25)`. Their
            `axn.arctan(k)` is our `arctan(alpha=2 * k)` divided by `pi * k`.
        dtype: dtype of the parameters.
    """
    decay = _clip(beta, dtype)
    return Model(
        bind(_late_lif, spike=surrogate.strict(spike)),
        LIFParams(decay, jnp.asarray(threshold, dtype)),
        lif_state,
        name="lif",
    )


def _late_lif(params: LIFParams, state: LIFState, current: Array, *, spike: Surrogate):
    # The membrane before the input: `lif` would fire after the charge.
    spikes = spike(state.v - params.threshold)
    v = subtract(params.decay * state.v, spikes, params.threshold) + current
    return LIFState(v), spikes
