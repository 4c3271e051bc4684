"""Delays as weights of past timesteps, and sums over them.

    y[t] = sum over k = 0..D of w_k x[t-k]

    linear      w_n = 1 - f, w_(n+1) = f            n = floor(d), f = d - n: interpolation
    Gaussian    w_k ~ exp(-(k - d)^2 / (2 width^2)), normalised over the D + 1 lags

A delay d is a real number of timesteps, so it has a derivative: that of the line between two
neighbouring timesteps, or of the Gaussian, which sees further while it is wide.

Reference: Hammouamri, Khalfaoui-Hassani, Masquelier, "Learning Delays in Spiking Neural Networks
using Dilated Convolutions with Learnable Spacings", ICLR 2024, arXiv:2306.17670.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import Array

__all__ = ["lag_weights", "sum_over_lags"]


def lag_weights(delays: Array, *, longest: int, width: Array | None = None) -> Array:
    """Weights of the lags 0 to `longest` for each delay, `[D + 1, *delays.shape]`.

    The weights of a delay sum to 1. Delays outside of [0, longest] count as the nearest end, with
    the derivative that holds there, so that training can bring them back.

    Args:
        delays: any shape, in timesteps.
        longest: D, at least 1.
        width: standard deviation of a Gaussian kernel in timesteps, a positive scalar; None
            interpolates linearly, with the derivative to the right of an integer delay.
    """
    # The value is clipped and the derivative is not: a clipped delay would never move again.
    d = delays + lax.stop_gradient(jnp.clip(delays, 0, longest) - delays)
    lags = jnp.arange(longest + 1, dtype=d.dtype).reshape(-1, *(1,) * d.ndim)
    if width is not None:
        # The softmax normalises: no underflow leaves a narrow kernel without weights.
        return jax.nn.softmax(-jnp.square((lags - d) / width.astype(d.dtype)) / 2, axis=0)
    # At the last lag the left neighbour holds, since the right one is outside.
    before = jnp.minimum(jnp.floor(lax.stop_gradient(d)), longest - 1)
    share = d - before
    return jnp.where(lags == before, 1 - share, 0) + jnp.where(lags == before + 1, share, 0)


def sum_over_lags(xs: Array, weights: Array) -> Array:
    """Causal sums over past timesteps, `y[t] = sum over k of x[t-k] w[k]`.

    Args:
        xs: the D timesteps before the first one, then T, `[D + T, N, I]`.
        weights: `[D + 1, I, O]`, or `[D + 1, 1, I]` for channels apart.

    Returns:
        `[T, N, O]`, in the dtype of `xs`.
    """
    groups = xs.shape[-1] // weights.shape[1]
    return lax.conv_general_dilated(
        xs,
        # A convolution in XLA is a correlation: the oldest timestep first.
        weights[::-1].astype(xs.dtype),
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("WNC", "WIO", "WNC"),
        feature_group_count=groups,
    )
