"""Neurons whose firing rate is a known function of their mean current.

    rate = clamp(mean current / amount, 0, 1)          weighted means of `learning.rates`

holds in the limit of many timesteps for neurons that subtract `amount` at a spike, whatever the
order of the currents: the sum of the dynamics over time leaves the last membrane potential alone,
which is bounded. A `RateModel` is a `neurons.Model` with this function.

    lif_rate_model        spikes 0 and 1, threshold and subtracted amount apart (IDE, SPIDE)
    dsr_if_model          spikes of height V, a learned threshold (DSR)
    dsr_lif_model         the same with a leak

References: Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit
Differentiation on the Equilibrium State", 2021, arXiv:2109.14247; Meng, Xiao, Yan, Wang, Lin, Luo,
"Training High-Performance Low-Latency Spiking Neural Networks by Differentiation on Spike
Representation", 2022, arXiv:2205.00459.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax import neurons
from snnjax.learning.rates import clamp
from snnjax.surrogate import Surrogate, straight_through
from snnjax.typing import Array, bind

__all__ = ["DSRParams", "RateModel", "dsr_if_model", "dsr_lif_model", "lif_rate_model"]


@dataclasses.dataclass(frozen=True)
class RateModel:
    """A neuron model and the rate that its mean current leads to.

    Attributes:
        model: step, parameters and resting state. Its spike function matters only where the
            derivative is that of backpropagation through time.
        rate: `(params, current, simulated) -> rate`, differentiable; the current is a weighted mean
            over time, `simulated` the rate of the simulation, or None where there is none.
        decay: weight of a timestep in the means, relative to the next one.
        uniform_gradient: passes one gradient to the currents of all timesteps, as the released code
            of DSR does, in place of the weights of the mean.
    """

    model: neurons.Model
    rate: Callable[..., Array]
    decay: float = 1.0
    uniform_gradient: bool = False


def lif_rate_model(
    *,
    threshold: float = 2.0,
    amount: float | None = None,
    decay: float = 1.0,
    strict: bool = False,
) -> RateModel:
    """Rate model of leaky or, with decay 1, plain integrate-and-fire neurons.

        h[t] = decay * v[t-1] + x[t],   s[t] = [h[t] >= threshold],   v[t] = h[t] - amount * s[t]
        rate = clamp(mean of x / amount, 0, 1)

    The error of the rate is `mean of x / amount - rate`, at most 1 / T without a leak. A leak
    leaves an error of the order `1 - decay` at any T.

    Args:
        threshold: membrane potential at which a neuron fires.
        amount: subtracted at a spike; None is the threshold, which rounds rates down. Twice the
            threshold (a resting potential of `-threshold`) rounds them to the nearest, as in SPIDE.
        decay: fraction of the membrane potential kept per timestep.
        strict: derivative where the simulated rate lies inside (0, 1), as in SPIDE, instead of
            where the current does, bounds included, as in IDE.
    """
    subtracted = threshold if amount is None else amount
    if not (threshold > 0 and subtracted > 0 and 0 < decay <= 1):
        raise ValueError(
            "rates need threshold > 0, amount > 0 and decay in (0, 1], got "
            f"{threshold}, {subtracted} and {decay}"
        )
    reset = neurons.reset.Reset(_subtract_amount, value=float(subtracted))
    model = neurons.lif_model(
        decay=decay,
        threshold=threshold,
        # Slope 1 / amount over all potentials that a rate between 0 and 1 visits: backpropagation
        # through time then approaches the derivative of the rate.
        spike=Surrogate(_window, (float(subtracted),)),
        reset=neurons.reset.subtract if subtracted == threshold else reset,
    )
    return RateModel(model, bind(_clamped, amount=float(subtracted), strict=strict), decay)


class DSRParams(NamedTuple):
    """Parameters of the neurons of DSR.

    Attributes:
        threshold: V, height of a spike, largest rate, and potential subtracted at a spike.
    """

    threshold: Array | float


def dsr_if_model(
    *,
    threshold: Array | float = 6.0,
    fire_at: float = 0.5,
    minimum: float = 0.01,
    threshold_gradient: float = 1.0,
) -> RateModel:
    """Rate model of the integrate-and-fire neurons of DSR.

        h[t] = v[t-1] + x[t],   s[t] = V [h[t] >= a V],   v[t] = h[t] - s[t]
        rate = clamp(mean of x, 0, V)

    Args:
        threshold: V, learned with `learn=("threshold",)`.
        fire_at: a, the share of V at which a neuron fires; 1 rounds rates down, 0.5 to the nearest.
        minimum: lower bound of V.
        threshold_gradient: factor of the gradient of V.
    """
    options = {"decay": 1.0, "fire_at": fire_at, "minimum": minimum, "gain": 1.0}
    _check_dsr(fire_at, minimum)
    model = neurons.Model(
        bind(_dsr_step, **options), DSRParams(threshold), neurons.lif_model().initial_state,
        spiking=False, name="dsr_if",
    )  # fmt: skip
    rate = bind(
        _dsr_rate, gain=1.0, slope=1.0, minimum=minimum, threshold_gradient=threshold_gradient,
        strict=False,
    )  # fmt: skip
    return RateModel(model, rate)


def dsr_lif_model(
    *,
    threshold: Array | float = 0.3,
    fire_at: float = 0.3,
    minimum: float = 5e-4,
    tau: float = 1.0,
    dt: float = 0.05,
    threshold_gradient: float | None = None,
    uniform_gradient: bool = True,
) -> RateModel:
    """Rate model of the leaky integrate-and-fire neurons of DSR.

        h[t] = b v[t-1] + (1 - b) x[t],   s[t] = V [h[t] >= a V],   v[t] = h[t] - s[t]
        outputs s[t] / dt,   rate = clamp(mean of x / tau, 0, V / dt),   b = exp(-dt / tau)

    The gain 1 / tau is that of the paper; the exact one is `(1 - b) / dt`, 2.5 % less at the
    defaults, a part of the error that does not fall with the number of timesteps.

    Args:
        threshold: V, learned with `learn=("threshold",)`.
        fire_at: a, the share of V at which a neuron fires.
        minimum: lower bound of V.
        tau: time constant of the membrane, in the unit of `dt`.
        dt: length of a timestep.
        threshold_gradient: factor of the gradient of V. None is `dt^2`, that of the released code,
            whose gradient is dt where the chain rule gives 1 / dt: exact gradients drive V to 0
            within epochs.
        uniform_gradient: the convention of the released code: the gradient of the mean current goes
            in equal parts to all timesteps. False takes the weights of the mean itself.
    """
    _check_dsr(fire_at, minimum)
    if not (tau > 0 and dt > 0):
        raise ValueError(f"tau and dt are positive times, got {tau} and {dt}")
    decay = math.exp(-dt / tau)
    options = {"decay": decay, "fire_at": fire_at, "minimum": minimum, "gain": 1 / dt}
    model = neurons.Model(
        bind(_dsr_step, **options), DSRParams(threshold), neurons.lif_model().initial_state,
        spiking=False, name="dsr_lif",
    )  # fmt: skip
    factor = dt**2 if threshold_gradient is None else threshold_gradient
    rate = bind(
        _dsr_rate, gain=1 / dt, slope=1 / tau, minimum=minimum, threshold_gradient=factor,
        strict=True,
    )  # fmt: skip
    return RateModel(model, rate, decay, uniform_gradient)


def _check_dsr(fire_at: float, minimum: float) -> None:
    if not (0 < fire_at <= 1 and minimum > 0):
        raise ValueError(
            f"fire_at lies in (0, 1] and minimum is positive, got {fire_at} and {minimum}"
        )


def _subtract_amount(h, spikes, threshold, value):
    del threshold
    return h - spikes * value


def _window(u, amount):
    return jnp.where(jnp.abs(u) <= amount, 1 / amount, 0.0)


def _clamped(params, current, simulated, *, amount, strict):
    del params
    z = current / amount
    if not strict:
        return clamp(z, 0, 1)
    rate = z if simulated is None else simulated
    fixed = jax.lax.stop_gradient(jnp.clip(z, 0, 1))
    return jnp.where((rate > 0) & (rate < 1), z, fixed)


def _bounded_threshold(threshold: Any, minimum: float, dtype: Any) -> Array:
    threshold = jnp.asarray(threshold, dtype)
    # The gradient passes below the bound: a threshold there would otherwise never return.
    return threshold + jax.lax.stop_gradient(jnp.maximum(threshold, minimum) - threshold)


def _dsr_step(params, state, current, *, decay, fire_at, minimum, gain):
    threshold = _bounded_threshold(params.threshold, minimum, current.dtype)
    h = decay * state.v + ((1 - decay) if decay < 1 else 1) * current
    # In units of V, so that the spike function needs no learned width.
    fired = straight_through(low=-1.0, high=1.0)((h - fire_at * threshold) / threshold)
    spikes = threshold * fired
    return state._replace(v=h - spikes), spikes * gain


def _dsr_rate(params, current, simulated, *, gain, slope, minimum, threshold_gradient, strict):
    del simulated
    threshold = _bounded_threshold(params.threshold, minimum, current.dtype)
    fixed = jax.lax.stop_gradient(threshold)
    threshold = fixed + threshold_gradient * (threshold - fixed)
    return clamp(slope * current, 0, gain * threshold, strict=strict)
