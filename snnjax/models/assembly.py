"""What every model of the zoo does alike: finishing a body off, and placing the strategies.

A strategy over time goes to the neurons in `order="layer"` and to the whole network in
`order="time"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import nn
from snnjax.typing import Scan

__all__ = ["conv_norm", "finish", "placed"]


def placed(
    neuron: Callable[..., nn.Neuron], order: str, time_scan: Scan | None
) -> Callable[[], nn.Neuron]:
    """The maker of neurons, with the strategy over time where it belongs."""
    scan = time_scan if order == "layer" else None
    return lambda: neuron(scan=scan)


def finish(
    layers: list[Any], input_shape: tuple[int, ...], order: str, time_scan: Scan | None
) -> nn.Network:
    """A network of these layers one after the other."""
    body = nn.Sequential(*layers)
    scan = time_scan if order == "time" else None
    return nn.Network(body, input_shape, order=order, time_scan=scan)


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
