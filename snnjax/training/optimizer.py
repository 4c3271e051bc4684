"""Update rules: learning rates, clipping, weight decay.

    g <- g * min(1, clip_norm / |g|)                        (with clip_norm)

    adamw   p <- p - lr(n) (adam(g) + weight_decay p)       (decoupled decay, on kernels only)
    sgd     v <- momentum v + g + weight_decay p            (coupled decay)
            p <- p - lr(n) v
    lamb    u  = adam(g) + weight_decay p                   (decoupled decay, on kernels only)
            p <- p - lr(n) |p| / |u| u                      (norms of each array of parameters)

Bind options of a rule or a schedule: `schedule=functools.partial(training.optimizer.multistep,
milestones=(0.5, 0.75))`.

References: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv:1412.6980;
Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101, and "SGDR:
Stochastic Gradient Descent with Warm Restarts", 2016, arXiv:1608.03983; You et al., "Large Batch
Optimization for Deep Learning: Training BERT in 76 minutes", 2019, arXiv:1904.00962; Brock, De,
Smith, Simonyan, "High-Performance Large-Scale Image Recognition Without Normalization", 2021,
arXiv:2102.06171 (adaptive clipping).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from snnjax.typing import Array, PyTree

__all__ = [
    "adamw",
    "adaptive_clip",
    "decay_mask",
    "lamb",
    "multistep",
    "sgd",
    "warmup_cosine",
    "with_clipping",
]

# Parameters that never decay, by name as well as by shape, since a vector stacked over depth has
# two axes. "learned" holds the parameters of neurons.
_EXEMPT = {"bias", "scale", "learned"}


def warmup_cosine(
    experiment: Any,
    steps: int,
    *,
    start: float = 0.0,
    floor: float = 0.0,
    cooldown_epochs: float = 0.0,
) -> optax.Schedule:
    """Linear warm-up over `warmup_epochs`, then half a cosine of decay, then a constant.

    Args:
        experiment: Experiment with `learning_rate`, `warmup_epochs` and `epochs`.
        steps: Steps of the whole run.
        start: Learning rate at the start of the warm-up.
        floor: Learning rate at the end of the decay.
        cooldown_epochs: Number of last epochs at the floor.

    Returns:
        Function from the step number to the learning rate.

    Raises:
        ValueError: The cool-down leaves no step for a warm-up or a decay.
    """
    peak = experiment.learning_rate
    share = steps / experiment.epochs
    warmup, falling = (
        round(experiment.warmup_epochs * share),
        steps - round(cooldown_epochs * share),
    )
    if max(warmup, falling) < 1:
        raise ValueError(
            f"{cooldown_epochs} epochs of cool-down leave nothing of {experiment.epochs}: more "
            "epochs, or fewer of cool-down"
        )
    # A run of fewer epochs than its warm-up, such as a smoke test, has no decay.
    if warmup >= falling:
        return optax.linear_schedule(start, peak, warmup)
    if warmup == 0:
        return optax.cosine_decay_schedule(peak, falling, alpha=floor / peak)
    return optax.warmup_cosine_decay_schedule(start, peak, warmup, falling, floor)


def multistep(
    experiment: Any, steps: int, *, milestones: Sequence[float] | None = None, factor: float = 0.1
) -> optax.Schedule:
    """Linear warm-up over `warmup_epochs`, then a constant, times a factor at each milestone.

    Args:
        experiment: Experiment with `learning_rate`, `warmup_epochs` and `epochs`.
        steps: Steps of the whole run.
        milestones: Shares of the run after which to multiply, in (0, 1), such as `(0.5, 0.75)`: a
            run of fewer epochs keeps its form. None takes the experiment's own field `milestones`.
        factor: Factor at each milestone.

    Returns:
        Function from the step number to the learning rate.

    Raises:
        ValueError: A milestone is no share of the run.
    """
    shares = tuple(experiment.milestones if milestones is None else milestones)
    if not all(0 < share < 1 for share in shares):
        raise ValueError(
            f"milestones are shares of the run, in (0, 1), got {shares}: divide epochs "
            f"by {experiment.epochs}, the epochs of the run"
        )
    scales: dict[int, float] = {}
    for share in shares:
        # In a run of few steps two milestones may fall on one step.
        step = round(share * steps)
        scales[step] = scales.get(step, 1.0) * factor
    falling = optax.piecewise_constant_schedule(experiment.learning_rate, scales)
    warmup = round(experiment.warmup_epochs * steps / experiment.epochs)
    if not warmup:
        return falling
    rising = optax.linear_schedule(0.0, 1.0, warmup)
    return lambda step: rising(step) * falling(step)


def adamw(experiment: Any, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam with decoupled weight decay of the parameters in `decay_mask`."""
    return optax.adamw(schedule, weight_decay=experiment.weight_decay, mask=decay_mask)


def sgd(
    experiment: Any,
    schedule: optax.Schedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    decays: Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum and coupled weight decay.

    The decay is added to the gradient before the momentum: an L2 penalty, `weight_decay |p|^2 / 2`,
    as in PyTorch's SGD, for which most recipes are tuned. `adamw` decouples it.

    Args:
        experiment: Experiment with `weight_decay`.
        schedule: Function from the step number to the learning rate.
        momentum: Factor of the previous update.
        nesterov: Uses Nesterov's look-ahead.
        decays: Mask of the decayed parameters, a bool per array; None is `decay_mask`, kernels
            only. Use `lambda params: True` for recipes that decay all parameters.
    """
    mask = decay_mask if decays is None else decays
    return optax.chain(
        optax.add_decayed_weights(experiment.weight_decay, mask),
        optax.sgd(schedule, momentum, nesterov),
    )


def lamb(experiment: Any, schedule: optax.Schedule) -> optax.GradientTransformation:
    """LAMB: Adam updates scaled to the norm of the parameters, array by array.

    Weight decay is decoupled and applies to `decay_mask`. A stack over depth or over columns counts
    as one array.
    """
    return optax.lamb(schedule, weight_decay=experiment.weight_decay, mask=decay_mask)


def adaptive_clip(clipping: float, *, least: float = 1e-3) -> optax.GradientTransformation:
    """Bounds the gradient norm of each unit by a multiple of its parameter norm.

        g <- g * min(1, clipping max(|p|, least) / |g|)

    A unit is the fan-in of one output: norms are over all axes but the last, and over all of a
    vector. A stack over depth or over columns counts as one layer.

    Args:
        clipping: Largest ratio `|g| / |p|`; 0.01 to 0.16 in the paper.
        least: Lower bound of `|p|`, so that parameters at zero can change.

    Returns:
        A transformation to chain before an update rule: `optax.chain(adaptive_clip(0.02),
        lamb(...))`.
    """

    def clip(gradient: Array, parameter: Array) -> Array:
        most = clipping * jnp.maximum(_unit_norm(parameter), least)
        norm = _unit_norm(gradient)
        # The inner maximum keeps the unused branch of a zero gradient from dividing by zero.
        return jnp.where(norm > most, gradient * (most / jnp.maximum(norm, most)), gradient)

    return optax.stateless(lambda gradients, params: jax.tree.map(clip, gradients, params))


def with_clipping(rule: optax.GradientTransformation, norm: float | None):
    """Update rule after clipping by the global norm."""
    # The identity, so that the state has one form and a resumed run may turn clipping on or off.
    clip = optax.identity() if norm is None else optax.clip_by_global_norm(norm)
    # Clipped first: the rule's moments see bounded gradients only.
    return optax.chain(clip, rule)


def decay_mask(params: PyTree) -> PyTree:
    """Mask of the parameters under weight decay: kernels, arrays of two axes or more.

    Biases, norm scales and neuron parameters set an operating point and do not decay.

    Args:
        params: Parameters, from `nn.split(network)`.

    Returns:
        A tree of bools in place of the arrays.
    """

    def kernel(path, leaf) -> bool:
        names = {str(getattr(entry, "key", getattr(entry, "name", ""))) for entry in path}
        return leaf.ndim >= 2 and not names & _EXEMPT

    return jax.tree_util.tree_map_with_path(kernel, params)


def _unit_norm(x: Array) -> Array:
    axes = tuple(range(max(x.ndim - 1, 1))) if x.ndim else None
    return jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True))
