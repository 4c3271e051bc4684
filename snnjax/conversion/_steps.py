"""Steps of a source network, joined where two are one linear map, and their layers.

    x W, then a x + b       kernel a W, bias b            a, b per channel: bias and batch norm
    a x + b, then x W       kernel a W, bias b W          behind padding by zeros only for b = 0
    a x + b, then a mean    the mean first                so that a x + b reaches the next kernel

Kernels and biases are joined in float64 on the host. An affine map that meets no kernel becomes
a `Scale`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import nn
from snnjax.conversion.activations import ReLU, ThresholdReLU
from snnjax.conversion.folding import Scale

__all__ = ["Affine", "Branches", "Clip", "Flatten", "Pad", "Pool", "SpaceMean", "Step", "Weights"]
__all__ += ["build", "join"]

Pairs: TypeAlias = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """A linear map with kernel `[inputs, outputs]`, or a convolution with one `[*size, C / G, D]`.

    Attributes:
        kernel: float64 kernel.
        bias: bias per output, `[D]`.
        strides: stride per spatial axis; `()` without space.
        padding: pairs `(before, after)` per spatial axis.
        groups: number of channel groups, G.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, ...] = ()
    padding: Pairs = ()
    groups: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """Map of every channel, `scale x + shift`, with vectors `[C]`."""

    scale: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Mean over windows of `channels` channels, in which padding counts as zeros."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pairs
    channels: int


@dataclasses.dataclass(frozen=True, eq=False)
class Pad:
    """Zeros around space."""

    padding: Pairs


@dataclasses.dataclass(frozen=True, eq=False)
class SpaceMean:
    """Mean over all of space."""


@dataclasses.dataclass(frozen=True, eq=False)
class Flatten:
    """`[H, W, C]` as `[H W C]`; `positions` is `H W`."""

    positions: int


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """Activation `clip(x, low, high)`, ReLU for `(0, inf)`, behind the parameter of a name."""

    low: float
    high: float
    behind: str


@dataclasses.dataclass(frozen=True, eq=False)
class Branches:
    """Sum of two paths, each a list of joined steps; an empty one is the identity."""

    branch: list[Step]
    shortcut: list[Step]


Step: TypeAlias = Weights | Affine | Pool | Pad | SpaceMean | Flatten | Clip | Branches


def join(steps: Iterable[Step], *, tolerance: float) -> list[Step]:
    """The steps with neighbours of one linear map in one step.

    Args:
        steps: steps in order.
        tolerance: affine maps so near to the identity vanish: a sum times `1 / n` is a mean.
    """
    done: list[Step] = []
    for step in steps:
        _append(done, step, tolerance)
    return done


def _append(done: list[Step], step: Step, tolerance: float) -> None:
    """Appends a step, joined with the last one if possible."""
    match done[-1] if done else None, step:
        case _, Affine(scale, shift) if not shift.any() and np.allclose(scale, 1, 0, tolerance):
            return
        case Affine() as last, Affine(scale, shift):
            joined = Affine(last.scale * scale, last.shift * scale + shift)
            replacement: list[Step] = [joined]
        case Weights() as last, Affine(scale, shift):
            replacement = [
                dataclasses.replace(
                    last, kernel=last.kernel * scale, bias=last.bias * scale + shift
                )
            ]
        case Affine() as last, Weights() if _commutes(last, step.padding):
            replacement = [_with_affine_inputs(last, step)]
        case Affine() as last, Pool() if _commutes(last, step.padding):
            replacement = [step, last]
        case Affine() as last, SpaceMean():
            replacement = [step, last]
        case Affine() as last, Flatten(positions):
            # Channels are the last axis, so their vector repeats at every position.
            scale, shift = (np.tile(vector, positions) for vector in (last.scale, last.shift))
            replacement = [step, Affine(scale, shift)]
        case Pad() as last, Weights() | Pool() if step.padding:
            pairs = zip(last.padding, step.padding, strict=True)
            total = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
            replacement = [dataclasses.replace(step, padding=total)]
        case _:
            done.append(step)
            return
    done.pop()
    for part in replacement:
        _append(done, part, tolerance)


def _commutes(affine: Affine, padding: Pairs) -> bool:
    # The shift would otherwise also move the zeros of the padding.
    return not affine.shift.any() or not any(map(any, padding))


def _with_affine_inputs(affine: Affine, weights: Weights) -> Weights:
    """The weights of `scale x + shift` as weights of x."""
    *size, inputs, outputs = weights.kernel.shape
    # Output d reads the channels of group d // (D / G).
    group = np.arange(outputs) // (outputs // weights.groups)
    scale, shift = (
        v.reshape(weights.groups, inputs)[group].T for v in (affine.scale, affine.shift)
    )
    moved = (weights.kernel * shift).sum(tuple(range(len(size) + 1)))
    return dataclasses.replace(weights, kernel=weights.kernel * scale, bias=weights.bias + moved)


def build(steps: Sequence[Step], dtype: Any) -> nn.Sequential:
    """The layers of joined steps.

    Args:
        steps: from `join`.
        dtype: dtype of the parameters.

    Raises:
        ValueError: a step without a layer.
    """
    return nn.Sequential(*(_layer(step, dtype) for step in steps))


def _layer(step: Step, dtype: Any) -> Any:
    match step:
        case Weights():
            return _synapse(step, dtype)
        case Affine(scale, shift):
            return Scale(jnp.asarray(scale, dtype), bias=jnp.asarray(shift, dtype))
        case Pool():
            return _pool(step, dtype)
        case SpaceMean():
            return nn.GlobalAvgPool()
        case Flatten():
            return nn.Flatten()
        case Clip(0, high) if high > 0:
            return ReLU() if math.isinf(high) else ThresholdReLU(threshold=high)
        case Branches(branch, shortcut):
            # The identity needs no layers, which tells a conversion that it passes spikes.
            other = build(shortcut, dtype) if shortcut else None
            return nn.Residual(build(branch, dtype), shortcut=other)
        case Clip(low, high, behind):
            raise ValueError(
                f"an activation clipped to [{low:g}, {high:g}] (behind {behind or 'the inputs'}) "
                "does not convert, since rates start at 0: use jax.nn.relu or jnp.clip(x, 0, c), "
                "and train again"
            )
        case _:
            raise ValueError(
                "padding before anything but a convolution or an average pooling does not convert: "
                "give the padding to the layer itself"
            )


def _pool(pool: Pool, dtype: Any) -> Any:
    """`nn.AvgPool`, or a depthwise convolution for a series and for windows that are not square."""
    (side, *sides), (step, *steps) = pool.window, pool.strides
    fits = all(0 <= n < side for pair in pool.padding for n in pair)
    if sides == [side] and steps == [step] and fits:
        return nn.AvgPool(window=side, strides=step, padding=pool.padding)
    kernel = np.full((*pool.window, 1, pool.channels), 1 / math.prod(pool.window))
    shift, groups = np.zeros(pool.channels), pool.channels
    return _synapse(Weights(kernel, shift, pool.strides, pool.padding, groups), dtype)


def _synapse(weights: Weights, dtype: Any) -> nn.synapses.Fold:
    *size, inputs, outputs = weights.kernel.shape
    # Zeros: the kernel is replaced at once, and a draw would compile for every shape.
    options: dict[str, Any] = {"rngs": nnx.Rngs(0), "kernel_init": nnx.initializers.zeros}
    options["use_bias"] = bool(weights.bias.any())
    if size:
        layer = nn.Conv(
            inputs * weights.groups,
            outputs,
            kernel=tuple(size),
            strides=weights.strides,
            padding=weights.padding,
            groups=weights.groups,
            **options,
        )
    else:
        layer = nn.Linear(inputs, outputs, **options)
    changed = {"kernel": nnx.Param(jnp.asarray(weights.kernel, dtype))}
    if options["use_bias"]:
        changed["bias"] = nnx.Param(jnp.asarray(weights.bias, dtype))
    return nn.replace(layer, function=nn.replace(layer.function, **changed))
