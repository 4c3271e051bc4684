"""Parts shared by the models of the zoo: convolution with norm, event stem, assembly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy

__all__ = ["conv_norm", "event_stem", "finish"]


def finish(
    layers: list[Any],
    input_shape: tuple[int, ...],
    order: str,
    memory: Strategy | None,
) -> nn.Network:
    """The layers as one network under a memory strategy; None leaves them as written."""
    network = nn.Network(nn.Sequential(*layers), input_shape, order=order)
    return network if memory is None else nn.with_memory(network, memory)


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    norm: Callable[[int], Any],
    *,
    rngs: nnx.Rngs,
    strides: int = 1,
) -> tuple[Any, Any]:
    """A convolution without bias and its normalisation."""
    return nn.Conv(inputs, outputs, kernel=kernel, strides=strides, rngs=rngs), norm(outputs)


def event_stem(
    inputs: int,
    outputs: int,
    kernel: int,
    norm: Callable[[int], Any],
    *,
    rngs: nnx.Rngs,
    pool: Callable[..., Any] = nn.AvgPool,
) -> tuple[Any, ...]:
    """`conv_norm` with stride 2 and a pool 3x3 with stride 2: a quarter of H and W."""
    first = conv_norm(inputs, outputs, kernel, norm, rngs=rngs, strides=2)
    return *first, pool(window=3, strides=2, padding=1)
