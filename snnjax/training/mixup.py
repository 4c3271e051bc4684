"""Mixup: training on blends of two examples, with the blend of their losses.

    x <- lam x + (1 - lam) reversed(x),      lam ~ Beta(mixup, mixup), one per batch
    L  = lam L(target) + (1 - lam) L(reversed(target))

`reversed` is the batch back to front. For class labels the loss is the cross entropy of the mixed
targets, in which it is linear. Frames are mixed, after `encode`: where the code is linear (direct
coding, standardising, event counts) this equals mixing images; where it draws spikes, the spikes
are mixed. Mixing precedes the network, so every memory strategy sees the same mixture.

Reference: H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk
Minimization", 2017, arXiv:1710.09412.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.typing import Array, Key

__all__ = ["blend_frames", "blend_losses", "draw_share"]


def draw_share(key: Key, experiment: Experiment, step: Array, steps: int) -> Array:
    """Draws lam, each example's own share of its blend: a scalar in [0, 1]; 1 without blending.

    Args:
        key: Key of the step.
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


def blend_frames(frames: Array, lam: Array) -> Array:
    """Blends `lam x + (1 - lam) reversed(x)` over the batch, axis 1.

    Args:
        frames: `[T, B, ...]`, floating.
        lam: From `draw_share`.

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


def blend_losses(lam: Array, own: Array, partners: Array) -> Array:
    """Blends the losses `[B]` of the targets and of those reversed: `lam own + (1 - lam) partners`.

    Args:
        lam: From `draw_share`.
        own: Losses of each example's own target.
        partners: Losses of the targets of the examples blended in.
    """
    lam = lam.astype(own.dtype)
    return lam * own + (1 - lam) * partners
