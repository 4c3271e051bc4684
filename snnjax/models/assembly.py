"""What every model of the zoo does alike: convolutions with their norm, and the finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import memory, nn
from snnjax.typing import Scan

__all__ = ["conv_norm", "event_stem", "finish"]


def finish(
    layers: list[Any],
    input_shape: tuple[int, ...],
    order: str,
    *,
    time_scan: Scan | None,
    depth_scan: Scan | None,
    pack: bool | memory.Storage,
) -> nn.Network:
    """A network of these layers one after the other, with its memory strategy in place."""
    network = nn.Network(nn.Sequential(*layers), input_shape, order=order)
    return nn.with_memory(network, memory.Strategy(time_scan, depth_scan, pack))


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
