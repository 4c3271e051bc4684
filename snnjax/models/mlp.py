"""A multilayer perceptron of spiking neurons.

flatten - [linear - neuron] * hidden layers - linear
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flax import nnx

from snnjax import memory, nn
from snnjax.models.assembly import finish
from snnjax.typing import Scan

__all__ = ["mlp"]


def mlp(
    input_shape: tuple[int, ...],
    *,
    hidden: Sequence[int] = (128,),
    classes: int = 10,
    rngs: nnx.Rngs,
    neuron: Callable[..., nn.Neuron] = nn.LIF,
    order: str = "layer",
    time_scan: Scan | None = None,
    depth_scan: Scan | None = None,
    pack: bool | memory.Storage = False,
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
        time_scan: the memory strategy over time; None is the neuron's own.
        depth_scan: the memory strategy over the layers, cut at synapses; store or recompute.
        pack: keep spikes at one bit each, see `memory.Strategy`.
    """
    width = 1
    for size in input_shape:
        width *= size
    layers: list = [nn.Flatten()]
    for size in hidden:
        layers += [nn.Linear(width, size, rngs=rngs), neuron()]
        width = size
    layers.append(nn.Linear(width, classes, rngs=rngs))
    return finish(layers, input_shape, order, time_scan=time_scan, depth_scan=depth_scan, pack=pack)
