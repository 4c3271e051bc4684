"""Encoders of constant numbers: direct, rate, latency and population codes.

direct      x[t] = x                                    constant current; the first layer spikes
poisson     P(s[t] = 1) = x                             the mean over time is the value
latency     s[t] = 1 at t = t(x) only                   larger values fire earlier
population  a[i] = exp(-(x - mu[i])^2 / (2 sigma^2))    one number to n; then one of the above
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from snnjax.encoding import _checks as checks
from snnjax.typing import Array, Key


def direct(inputs: jax.typing.ArrayLike, *, timesteps: int) -> Array:
    """Repeats the input at every timestep; the neurons of the first layer turn it into spikes.

        x[t] = x,  t = 0 ... T-1

    The result is a broadcast: under jit XLA need not materialise the T copies.

    Args:
        inputs: `[B, ...]`, any dtype.
        timesteps: T, at least 1.

    Returns:
        `[T, B, ...]`, dtype of `inputs`.

    Raises:
        TypeError: If `inputs` are no numbers.
        ValueError: If `timesteps` is below 1, `inputs` has no batch axis, or a value does not fit
            32 bits.

    Reference:
        N. Rathi, K. Roy, "DIET-SNN: Direct Input Encoding With Leakage and Threshold Optimization
        in Deep Spiking Neural Networks", 2020, arXiv:2008.03658.
    """
    array = _batched(checks.numbers("inputs", inputs))
    timesteps = checks.positive_integer("timesteps", timesteps)
    return jnp.broadcast_to(array, (timesteps, *array.shape))


def poisson(key: Key, rates: jax.typing.ArrayLike, *, timesteps: int) -> Array:
    """Rate code: an independent Bernoulli draw per element and timestep.

        P(s[t] = 1) = rate,  E[mean over t] = rate,  Var[mean over t] = rate (1 - rate) / T

    Timestep t draws from `fold_in(key, t)`: the first timesteps of a longer window are those of a
    shorter one. No gradient flows to the rates.

    Args:
        key: A typed key, `jax.random.key(seed)`; use a new one for every batch.
        rates: `[B, ...]`, floating, spikes per timestep, in [0, 1].
        timesteps: T, at least 1.

    Returns:
        Spikes `[T, B, ...]`, 0 or 1, dtype of `rates`.

    Raises:
        TypeError: If `key` is not one typed key, or `rates` are not floating point.
        ValueError: If a concrete rate is outside [0, 1], or `timesteps` is below 1.

    Example:
        >>> spikes = poisson(jax.random.key(0), images, timesteps=32)   # [B, 28, 28, 1] in [0, 1]
        >>> spikes.shape
        (32, 8, 28, 28, 1)
    """
    checks.typed_key(key)
    rates = _batched(checks.floating("rates", rates, cure="images.astype('float32') / 255"))
    checks.unit_interval("rates", rates)
    timesteps = checks.positive_integer("timesteps", timesteps)

    def draw(t: Array) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(key, t), rates).astype(rates.dtype)

    # A key per timestep, not one for the window: a longer window then repeats a shorter one.
    return jax.vmap(draw)(jnp.arange(timesteps))


def latency(
    inputs: jax.typing.ArrayLike,
    *,
    timesteps: int,
    threshold: float = 0.0,
    tau: float | None = None,
) -> Array:
    """Time-to-first-spike code: every input above the threshold fires once, larger ones earlier.

        linear (tau=None)   t(x) = round((T - 1) (1 - x) / (1 - threshold))
        logarithmic         t(x) = round(-tau ln(1 - threshold / x)), at most T - 1

    The logarithmic form is the time at which a leaky membrane with time constant `tau`, charged
    from rest by the constant input x, reaches `threshold`. Inputs at or below the threshold never
    fire. Rounding to timesteps preserves order: inputs closer than one timestep share it.

    Args:
        inputs: `[B, ...]`, floating, in [0, 1].
        timesteps: T, at least 1.
        threshold: Largest value that does not fire, in [0, 1); in (0, 1) for the logarithmic form,
            e.g. 0.01.
        tau: Membrane time constant in timesteps, above 0; None selects the linear form. With
            `tau = (T - 1) / ln(1 / d)` an input `threshold / (1 - d)` fires in the last timestep.

    Returns:
        Spikes `[T, B, ...]`, 0 or 1, dtype of `inputs`. No gradient flows to the inputs.

    Raises:
        TypeError: If `inputs` are not floating point.
        ValueError: If a concrete input is outside [0, 1], or `timesteps`, `threshold` or `tau` is
            outside its range.

    Reference:
        S. Thorpe, A. Delorme, R. Van Rullen, "Spike-based strategies for rapid processing",
        Neural Networks 14, 2001.

    Example:
        >>> latency(jnp.array([[1.0, 0.5, 0.0]]), timesteps=3)[:, 0]
        Array([[1., 0., 0.],
               [0., 1., 0.],
               [0., 0., 0.]], dtype=float32)
    """
    inputs = _batched(checks.floating("inputs", inputs, cure="images.astype('float32') / 255"))
    checks.unit_interval("inputs", inputs)
    timesteps = checks.positive_integer("timesteps", timesteps)
    if not 0.0 <= threshold < 1.0:
        raise ValueError(f"threshold must lie in [0, 1), got {threshold}: inputs end at 1")

    fires = inputs > threshold
    if tau is None:
        times = (timesteps - 1) * (1 - inputs) / (1 - threshold)
    else:
        # Only the logarithmic form has a time constant, so it is checked here.
        if not 0.0 < tau < math.inf:
            raise ValueError(f"tau is a time constant in timesteps, got {tau}: give tau > 0")
        if threshold == 0.0:
            raise ValueError(
                "the logarithmic form needs a threshold above 0 (with 0 every input fires at "
                "once): give threshold=0.01, or leave tau out for the linear form"
            )
        # Inputs that never fire have no logarithm: 1 stands in and is masked below. Every
        # operation is monotone in the input, so rounding cannot swap two neighbours.
        times = -float(tau) * jnp.log1p(-(threshold / jnp.where(fires, inputs, 1)))
    times = jnp.clip(jnp.round(times), 0, timesteps - 1).astype(jnp.int32)
    # A comparison with the clock instead of one_hot: the result is time-major without a transpose.
    clock = jnp.arange(timesteps, dtype=jnp.int32).reshape(-1, *[1] * inputs.ndim)
    return ((clock == times) & fires).astype(inputs.dtype)


def population(
    values: jax.typing.ArrayLike,
    *,
    neurons: int,
    low: float = 0.0,
    high: float = 1.0,
    beta: float = 1.5,
) -> Array:
    """Gaussian receptive fields: each number becomes the activations of n overlapping neurons.

        a[i]  = exp(-(x - mu[i])^2 / (2 sigma^2)),  i = 0 ... n-1
        mu[i] = low + (2 i - 1) / 2 * (high - low) / (n - 2)
        sigma = (high - low) / (beta (n - 2))

    Neighbouring centres are `(high - low) / (n - 2)` apart, and the outermost two lie half of that
    outside the range. The activations have no time axis: encode them with `latency`, `poisson` or
    `direct`.

    Args:
        values: `[B, ...]`, floating, in [low, high].
        neurons: n, receptive fields per value, at least 3.
        low: Lower end of the range of the values.
        high: Upper end of the range, above `low`.
        beta: Sharpness: distance of two centres in units of sigma, above 0; 1 to 2 is usual.

    Returns:
        Activations `[B, ..., n]` in [0, 1], dtype of `values`; differentiable.

    Raises:
        TypeError: If `values` are not floating point.
        ValueError: If a concrete value is outside the centres, `neurons` is below 3, `high` is not
            above `low`, or `beta` is not above 0.

    Reference:
        S. M. Bohte, J. N. Kok, H. La Poutre, "Error-backpropagation in temporally encoded networks
        of spiking neurons", Neurocomputing 48, 2002.

    Example:
        >>> activations = population(features, neurons=8)            # [B, F] -> [B, F, 8]
        >>> spikes = latency(activations, timesteps=16, threshold=0.1)   # [16, B, F, 8]
    """
    values = _batched(checks.floating("values", values, cure="values.astype('float32')"))
    neurons = checks.positive_integer("neurons", neurons)
    if neurons < 3:
        raise ValueError(f"receptive fields overlap from 3 neurons on, got {neurons}")
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"high must be above low, got low={low}, high={high}: swap them")
    if not 0.0 < beta < math.inf:
        raise ValueError(f"beta must be above 0, got {beta}: 1.5 is usual")
    # n - 2 intervals span the range; the outermost two centres lie half an interval outside it.
    spacing = (high - low) / (neurons - 2)
    # Far outside them no field is active, and the value would leave no trace. A little more than
    # half: a centre is rounded to the dtype of the values.
    margin = 0.51 * spacing
    if checks.concrete((values >= low - margin) & (values <= high + margin)) is False:
        raise ValueError(
            f"values must lie in [low, high] = [{low}, {high}], got values from "
            f"{float(values.min()):g} to {float(values.max()):g}: give their range as low and high"
        )
    centres = low + spacing * (jnp.arange(neurons, dtype=values.dtype) - 0.5)
    distance = (values[..., None] - centres) * (beta / spacing)
    return jnp.exp(-0.5 * distance * distance)


def _batched(array: Array) -> Array:
    if array.ndim == 0:
        raise ValueError("a single number has no batch axis: give [B, ...], e.g. x[None]")
    return array
