"""Readout: outputs `[T, B, K]` to logits `[B, K]`, the only step that removes the time axis.

    rate            mean over t of o[t]
    weighted_rate   sum over t of w[t] o[t] / sum of w
    decayed_rate    the same with w[t] = decay^(T-1-t)
    total           sum over t of o[t]
    max_membrane    max over t of o[t]
    last            o[T-1]

Outputs are spikes, or membrane potentials of neurons that never fire. Only `weighted_rate`,
`decayed_rate` and `last` depend on the order of the timesteps. Axes between batch and class are
kept. With `lengths` every readout ignores the padding of shorter sequences.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.ops.padding import mask, match_axes, time_mean, valid_sum
from snnjax.typing import Array


def rate(outputs: Array, *, lengths: Array | None = None) -> Array:
    """Mean over time: the firing rate of spikes, or the mean membrane potential.

        y = 1/T sum_t o[t]

    Args:
        outputs: `[T, B, K]`, floating.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B, K]`, spikes per timestep, or the unit of the membrane potential.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.
    """
    return time_mean(_time_major(outputs), lengths)


def weighted_rate(
    outputs: Array, weights: jax.typing.ArrayLike, *, lengths: Array | None = None
) -> Array:
    """Weighted mean over time, with one weight per timestep; equal weights give `rate`.

        y = sum_t w[t] o[t] / sum_t w[t]

    Weights can favour late timesteps (`w[t] = t + 1`), exclude the first ones (a burn-in), or be
    learned (as a softmax, so that they sum to 1).

    Args:
        outputs: `[T, B, K]`, floating.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.
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
    if lengths is not None:
        return _weighted_mean(outputs, weights[:, None], lengths)
    # Normalised in the dtype of the weights, so that 16-bit outputs do not round the shares twice.
    shares = (weights / jnp.sum(weights)).astype(outputs.dtype)
    return jnp.sum(outputs * shares.reshape(-1, *[1] * (outputs.ndim - 1)), axis=0)


def decayed_rate(outputs: Array, *, decay: float, lengths: Array | None = None) -> Array:
    """Mean over time with the weights that a leaky membrane gives its inputs; late ones weigh most.

        y = sum_t decay^(T-1-t) o[t] / sum_t decay^(T-1-t)

    It is the rate of leaky neurons in their equation of rates (`learning.rates.mean`): bind the
    decay of the neurons, `functools.partial(readout.decayed_rate, decay=0.95)`.

    Args:
        outputs: `[T, B, K]`, floating.
        decay: Fraction of the membrane potential kept per timestep, in (0, 1]; 1 gives `rate`.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B, K]`, in the unit of `outputs`.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or `decay` is outside (0, 1].
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must lie in (0, 1], 1 for neurons without a leak, got {decay}")
    outputs = _time_major(outputs)
    # Relative to the last timestep: the largest weight is 1 at any T.
    if lengths is not None:
        mask(lengths, len(outputs))  # checks the lengths
        # To its own last timestep: behind long padding all weights would underflow to 0.
        steps = jnp.maximum(lengths - 1 - jnp.arange(len(outputs))[:, None], 0)
        return _weighted_mean(outputs, decay ** steps.astype(jnp.float32), lengths)
    weights = decay ** jnp.arange(len(outputs) - 1, -1, -1, dtype=jnp.float32)
    return weighted_rate(outputs, weights)


def total(outputs: Array, *, lengths: Array | None = None) -> Array:
    """Sum over time: spike counts.

        y = sum_t o[t]

    As logits of a cross entropy it is `rate` at a temperature of 1/T: sharper, and dependent on the
    number of timesteps.

    Args:
        outputs: `[T, B, K]`, floating.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B, K]`, spikes.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.
    """
    outputs = _time_major(outputs)
    return jnp.sum(outputs, axis=0) if lengths is None else valid_sum(outputs, lengths)


def max_membrane(outputs: Array, *, lengths: Array | None = None) -> Array:
    """Largest membrane potential over time, for output neurons that integrate and never fire.

        y = max_t v[t]

    The gradient flows only to the timestep of the maximum; equal maxima, as of spikes, share it.

    Args:
        outputs: `[T, B, K]`, floating, membrane potentials.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B, K]`, in the unit of the membrane potential.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.

    Reference:
        B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg Spiking Data Sets for the
        Systematic Evaluation of Spiking Neural Networks", 2019, arXiv:1910.07407.
    """
    outputs = _time_major(outputs)
    if lengths is not None:
        # -inf is never the maximum, because a sequence has at least one valid timestep.
        outputs = jnp.where(match_axes(mask(lengths, len(outputs)), outputs), outputs, -jnp.inf)
    return jnp.max(outputs, axis=0)


def last(outputs: Array, *, lengths: Array | None = None) -> Array:
    """Last timestep, for membranes that integrate the whole window.

        y = o[T-1]

    Args:
        outputs: `[T, B, K]`, floating.
        lengths: `[B]` integers, valid timesteps of padded sequences; None is all T.

    Returns:
        `[B, K]`, in the unit of `outputs`.

    Raises:
        TypeError: If `outputs` are not floating point.
        ValueError: If `outputs` have fewer than three axes, or no timestep.
    """
    outputs = _time_major(outputs)
    if lengths is None:
        return outputs[-1]
    mask(lengths, len(outputs))  # checks the lengths
    # Every sequence has a last timestep of its own.
    return outputs[lengths - 1, jnp.arange(outputs.shape[1])]


def _weighted_mean(outputs: Array, weights: Array, lengths: Array) -> Array:
    """Weighted mean over the valid timesteps, by weights `[T, B]` or `[T, 1]`."""
    weights = weights.astype(outputs.dtype)
    # Each sequence is divided by the sum of its own valid weights.
    sums = valid_sum(jnp.broadcast_to(weights, outputs.shape[:2]), lengths)
    sums = sums.reshape(-1, *[1] * (outputs.ndim - 2))
    return valid_sum(outputs * match_axes(weights, outputs), lengths) / sums


def _time_major(outputs: Array) -> Array:
    outputs = jnp.asarray(outputs)
    # A single timestep `[B, K]` is refused: its batch axis would be taken for time.
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
