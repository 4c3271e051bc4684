"""Neurons of spikingjelly (`spikingjelly.activation_based.neuron`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from snnjax import surrogate
from snnjax.neurons.decay import euler_decay
from snnjax.neurons.integrate_fire import integrate_fire_model
from snnjax.neurons.lif import lif_model
from snnjax.neurons.model import Model
from snnjax.neurons.plif import plif_model
from snnjax.neurons.reset import detached, subtract, zero
from snnjax.surrogate import Surrogate

__all__ = ["spikingjelly_if", "spikingjelly_lif", "spikingjelly_plif"]

# Their default surrogate, `Sigmoid(alpha=4)`.
_SIGMOID = surrogate.sigmoid(alpha=4.0)


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
