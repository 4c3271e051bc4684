"""A multilayer perceptron of spiking neurons.

flatten - [linear - neuron] * hidden layers - linear
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models.assembly import finish

__all__ = ["mlp"]


def mlp(
    input_shape: tuple[int, ...],
    *,
    hidden: Sequence[int] = (128,),
    classes: int = 10,
    rngs: nnx.Rngs,
    neuron: Callable[..., nn.Neuron] = nn.LIF,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """A fully connected network, `[T, B, *input_shape] -> [T, B, classes]`.

    Args:
        input_shape: shape of one frame of one example.
        hidden: neurons per hidden layer.
        classes: outputs.
        rngs: for the weights.
        neuron: makes a layer of neurons; called as `neuron()`.
            `functools.partial(nn.LIF, decay=0.9)` fills in its options.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: strategy of the backward pass; None is the neurons' own derivative over time. Over
            depth the layers are cut at synapses, so it takes `store` and `recompute`.
    """
    width = 1
    for size in input_shape:
        width *= size
    layers: list = [nn.Flatten()]
    for size in hidden:
        layers += [nn.Linear(width, size, rngs=rngs), neuron()]
        width = size
    layers.append(nn.Linear(width, classes, rngs=rngs))
    return finish(layers, input_shape, order, memory)
