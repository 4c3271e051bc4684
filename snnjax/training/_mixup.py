"""Mixup: training on blends of two examples and of their losses.

    x <- lam x + (1 - lam) reversed(x),      lam ~ Beta(mixup, mixup), one per batch
    L  = lam L(target) + (1 - lam) L(reversed(target))

`reversed` is the batch in reverse order. For class labels the blended loss is the cross entropy of
the blended targets, in which cross entropy is linear. Frames are blended after `encode`: for linear
codes (direct coding, standardisation, event counts) this equals blending images; random spike codes
blend the spikes. Blending precedes the network, so it is the same under every memory strategy.

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
    """Draws lam, the share of the first example in each blend, a scalar in [0, 1].

    It is 1 for batches without blending.

    Args:
        key: Key of the step.
        experiment: Experiment with `mixup`, `mixup_probability`, `mixup_epochs` and `epochs`.
        step: Number of updates so far, int32.
        steps: Steps of the whole run.
    """
    draw, toss = jax.random.split(key)
    alpha = experiment.mixup
    mixing = jax.random.bernoulli(toss, experiment.mixup_probability)
    if experiment.mixup_epochs is not None:
        mixing &= step < round(experiment.mixup_epochs / experiment.epochs * steps)
    # float32 by name: the default would follow `jax_enable_x64`.
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
    # Reversal instead of a permutation: XLA reads the batch backwards, without a gather.
    return lam * frames + (1 - lam) * frames[:, ::-1]


def blend_losses(lam: Array, own: Array, partners: Array) -> Array:
    """Blends losses `[B]` of the targets and of the reversed targets.

        lam own + (1 - lam) partners

    Args:
        lam: From `draw_share`.
        own: Losses for each example's own target.
        partners: Losses for the target of the other example in each blend.
    """
    lam = lam.astype(own.dtype)
    return lam * own + (1 - lam) * partners
