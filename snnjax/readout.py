"""Readout: outputs `[T, B, K]` to logits `[B, K]`, the only step that removes the time axis.

    rate            mean over t of o[t]
    weighted_rate   sum over t of w[t] o[t] / sum of w
    total           sum over t of o[t]
    max_membrane    max over t of o[t]
    last            o[T-1]

Outputs are spikes, or membrane potentials of neurons that never fire. Only `weighted_rate` and
`last` depend on the order of the timesteps. Axes between batch and class are kept.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.typing import Array


def rate(outputs: Array) -> Array:
    """Mean over time: the firing rate of spikes, or the mean membrane potential.

        y = 1/T sum_t o[t]

    Args:
        outputs: `[T, B, K]`, floating.

    Returns:
        `[B, K]`, spikes per timestep, or the unit of the membrane potential.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.
    """
    return jnp.mean(_time_major(outputs), axis=0)


def weighted_rate(outputs: Array, weights: jax.typing.ArrayLike) -> Array:
    """Weighted mean over time, with one weight per timestep; equal weights give `rate`.

        y = sum_t w[t] o[t] / sum_t w[t]

    Weights can favour late timesteps (`w[t] = t + 1`), exclude the first ones (a burn-in), or be
    learned (as a softmax, so that they sum to 1).

    Args:
        outputs: `[T, B, K]`, floating.
        weights: `[T]`, floating, not negative, with a sum above 0.

    Returns:
        `[B, K]`, in the unit of `outputs`.

    Raises:
        TypeError: If `outputs` or `weights` are not floating point.
        ValueError: If `outputs` have fewer than three axes, there is not one weight per timestep,
            or concrete weights are negative or all 0.
    """
    outputs = _time_major(outputs)
    weights = jnp.asarray(weights)
    if weights.shape != outputs.shape[:1]:
        raise ValueError(
            f"weights must be one number per timestep, [{outputs.shape[0]}], got "
            f"{list(weights.shape)}"
        )
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        raise TypeError(f"weights must be floating point, got {weights.dtype}: use .astype")
    try:
        valid = bool(jnp.all(weights >= 0) & (jnp.sum(weights) > 0))
    except jax.errors.ConcretizationTypeError:
        valid = True  # traced weights cannot be checked
    if not valid:
        raise ValueError(f"weights must not be negative nor all 0, got {weights}: jax.nn.softmax")
    # Normalised in the dtype of the weights, so that 16-bit outputs do not round the shares twice.
    shares = (weights / jnp.sum(weights)).astype(outputs.dtype)
    return jnp.sum(outputs * shares.reshape(-1, *[1] * (outputs.ndim - 1)), axis=0)


def total(outputs: Array) -> Array:
    """Sum over time: spike counts.

        y = sum_t o[t]

    As logits of a cross entropy it is `rate` at a temperature of 1/T: sharper, and dependent on the
    number of timesteps.

    Args:
        outputs: `[T, B, K]`, floating.

    Returns:
        `[B, K]`, spikes.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.
    """
    return jnp.sum(_time_major(outputs), axis=0)


def max_membrane(outputs: Array) -> Array:
    """Largest membrane potential over time, for output neurons that integrate and never fire.

        y = max_t v[t]

    The gradient flows only to the timestep of the maximum; equal maxima, as of spikes, share it.

    Args:
        outputs: `[T, B, K]`, floating, membrane potentials.

    Returns:
        `[B, K]`, in the unit of the membrane potential.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.

    Reference:
        B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg Spiking Data Sets for the
        Systematic Evaluation of Spiking Neural Networks", 2019, arXiv:1910.07407.
    """
    return jnp.max(_time_major(outputs), axis=0)


def last(outputs: Array) -> Array:
    """Last timestep, for membranes that integrate the whole window.

        y = o[T-1]

    Args:
        outputs: `[T, B, K]`, floating.

    Returns:
        `[B, K]`, in the unit of `outputs`.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.
    """
    return _time_major(outputs)[-1]


def _time_major(outputs: Array) -> Array:
    outputs = jnp.asarray(outputs)
    if outputs.ndim < 3 or outputs.shape[0] < 1:
        raise ValueError(
            f"outputs must be [T, B, K] with T >= 1, got {list(outputs.shape)}: a readout comes "
            f"once, after the network; a single timestep is outputs[None]"
        )
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise TypeError(
            f"outputs must be floating point, got {outputs.dtype}: use outputs.astype('float32')"
        )
    return outputs
