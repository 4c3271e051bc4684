"""Mixup: training on blends of two examples, with the blend of their losses.

    x <- lam x + (1 - lam) reversed(x),      lam ~ Beta(mixup, mixup), one per batch
    L  = lam L(label) + (1 - lam) L(reversed(label))

`reversed` is the batch back to front. The loss is the cross entropy with mixed targets, which is
linear in them. Frames are mixed, after `encode`: where coding is linear, as direct coding,
standardising and event counts are, that is the same as mixing images; of a code that draws spikes
it mixes the spikes. It happens before the network, so that every memory strategy sees one mixture.

Reference: H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk
Minimization", 2017, arXiv:1710.09412.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.typing import Array, Key

__all__ = ["blend", "mix", "share"]


def share(key: Key, experiment: Experiment, step: Array, steps: int) -> Array:
    """How much of each example is itself: lam, a scalar in [0, 1]; 1 where nothing is mixed.

    Args:
        key: Of this step.
        experiment: Its `mixup`, `mixup_probability`, `mixup_epochs` and `epochs` are used.
        step: Updates done, int32.
        steps: Steps of the whole run.
    """
    draw, toss = jax.random.split(key)
    alpha = experiment.mixup
    mixing = jax.random.bernoulli(toss, experiment.mixup_probability)
    if experiment.mixup_epochs is not None:
        mixing &= step < round(experiment.mixup_epochs / experiment.epochs * steps)
    return jnp.where(mixing, jax.random.beta(draw, alpha, alpha, dtype=jnp.float32), 1.0)


def mix(frames: Array, lam: Array) -> Array:
    """`lam x + (1 - lam) reversed(x)` over the batch, axis 1.

    Args:
        frames: `[T, B, ...]`, floating.
        lam: From `share`.

    Raises:
        ExperimentError: The frames are not floating.
    """
    if not jnp.issubdtype(frames.dtype, jnp.floating):
        raise ExperimentError(
            f"mixup blends frames, and these are {frames.dtype}: let encode return "
            "frames.astype('float32'), or set mixup to 0"
        )
    lam = lam.astype(frames.dtype)
    return lam * frames + (1 - lam) * frames[:, ::-1]


def blend(lam: Array, own: Array, others: Array) -> Array:
    """`lam own + (1 - lam) others`, losses `[B]` of the labels and of those reversed."""
    lam = lam.astype(own.dtype)
    return lam * own + (1 - lam) * others
