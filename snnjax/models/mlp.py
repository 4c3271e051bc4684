"""Multilayer perceptron of spiking neurons.

flatten - [linear - neuron] * hidden layers - linear
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import finish

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
    """Fully connected network, `[T, B, *input_shape] -> [T, B, classes]`.

        flatten - [linear - neuron] * hidden layers - linear

    Args:
        input_shape: shape of one frame of one example.
        hidden: neurons per hidden layer.
        classes: number of outputs.
        rngs: random streams of the parameters.
        neuron: `() -> layer` of neurons, such as `functools.partial(nn.LIF, decay=0.9)`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth `store` or `recompute`, with cuts at synapses.
    """
    width = 1
    for size in input_shape:
        width *= size
    # Frames of any rank become vectors.
    layers: list = [nn.Flatten()]
    for size in hidden:
        layers += [nn.Linear(width, size, rngs=rngs), neuron()]
        width = size
    # The outputs are currents without neurons: a readout reduces them over time.
    layers.append(nn.Linear(width, classes, rngs=rngs))
    return finish(layers, input_shape, order, memory)
