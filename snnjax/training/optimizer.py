"""How gradients become updates: learning rates, clipping, decoupled weight decay.

    g <- g * min(1, clip_norm / |g|)                        (where clip_norm is given)
    p <- p - lr(n) (adam(g) + weight_decay p)               (the decay on kernels only)

References: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980;
Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101, and "SGDR:
Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983.
"""

from __future__ import annotations

from typing import Any

import jax
import optax

from snnjax.typing import PyTree

__all__ = ["adamw", "clipped", "decayed", "warmup_cosine"]

# Names of parameters that are not decayed whatever their rank: stacked over depth, a vector has
# two axes. "learned" holds the parameters of neurons.
_EXEMPT = {"bias", "scale", "learned"}


def warmup_cosine(experiment: Any, steps: int) -> optax.Schedule:
    """Rises linearly over `warmup_epochs`, then falls to 0 as half a cosine.

    Args:
        experiment: Its `learning_rate`, `warmup_epochs` and `epochs` are used.
        steps: Steps of the whole run.

    Returns:
        Step number to learning rate.
    """
    peak = experiment.learning_rate
    warmup = round(experiment.warmup_epochs / experiment.epochs * steps)
    if warmup == 0:
        return optax.cosine_decay_schedule(peak, steps)
    if warmup >= steps:
        return optax.linear_schedule(0.0, peak, warmup)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps)


def adamw(experiment: Any, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam with decoupled weight decay of what `decayed` marks; without decay it is Adam."""
    return optax.adamw(schedule, weight_decay=experiment.weight_decay, mask=decayed)


def clipped(rule: optax.GradientTransformation, norm: float | None):
    """The rule behind a bound on the gradient's global norm; the state is the same without one."""
    clip = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    return optax.chain(clip, rule)


def decayed(params: PyTree) -> PyTree:
    """Which parameters weight decay pulls on: those with two axes or more, kernels.

    Biases, scales of normalisations and parameters of neurons set an operating point and are left
    alone, by name too, since a stack over depth gives them a second axis.

    Args:
        params: Parameters, as `nnx.split(network, nnx.Param, ...)` gives them.

    Returns:
        A bool in place of every array.
    """

    def kernel(path, leaf) -> bool:
        names = {str(getattr(entry, "key", getattr(entry, "name", ""))) for entry in path}
        return leaf.ndim >= 2 and not names & _EXEMPT

    return jax.tree_util.tree_map_with_path(kernel, params)
