"""Feedback networks trained at the equilibrium of their firing rates: IDE and SPIDE.

    a_1 = neurons(map_1 x + feedback a_n),   a_i = neurons(map_i a_{i-1}),   outputs linear in a_n

References: Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit
Differentiation on the Equilibrium State", 2021, arXiv:2109.14247; Xiao, Meng, Zhang, Wang, Lin,
"SPIDE: A Purely Spike-based Method for Training Feedback Spiking Neural Networks", 2023,
arXiv:2302.00232.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import learning, nn
from snnjax.memory import Strategy
from snnjax.models._assembly import finish

__all__ = ["ALEXNET_F", "CIFARNET_F", "CONVNET_F", "feedback_net"]

ALEXNET_F = ((96, 3, 2), (256, 3, 1), (384, 3, 2), (384, 3, 1), (256, 3, 1))
CIFARNET_F = ((128, 3, 2), (256, 3, 1), (512, 3, 2), (1024, 3, 1), (512, 3, 1))
# Of SPIDE on MNIST.
CONVNET_F = ((64, 5, 2), (64, 5, 2), (64, 5, 1))


def feedback_net(
    input_shape: tuple[int, ...],
    *,
    stages: Sequence[tuple[int, int, int]] = (),
    hidden: Sequence[int] = (),
    classes: int = 10,
    timesteps: int = 30,
    rngs: nnx.Rngs,
    neuron: learning.RateModel | None = None,
    norm: Callable[[int], Any] | None = nn.BatchNorm,
    dropout: float = 0.2,
    feedback: bool = True,
    feedback_kernel: int = 3,
    bound: Callable[[Any], Any] | None = learning.Spectral,
    inner: str = "map",
    solver: Any = None,
    at_map: bool | None = None,
    kernel_init: Callable[..., Any] = learning.unit_filters,
    feedback_init: Callable[..., Any] | None = None,
    memory: Strategy | None = None,
) -> nn.Network:
    """Layers of convolutions or linear maps, with feedback from the last to the first.

    Frames are `[1, B, *input_shape]`, a constant input, or `[T, B, *input_shape]`. The outputs
    `[1, B, classes]` classify the mean firing rates of the last layer.

    Args:
        input_shape: shape of one frame of one example.
        stages: channels, kernel and stride per convolution, such as `((64, 5, 2),)` for
            64C5s (F64C5), `ALEXNET_F` or `CIFARNET_F`.
        hidden: neurons per fully connected layer, instead of stages.
        classes: number of outputs.
        timesteps: T.
        rngs: random streams of the parameters.
        neuron: rate model; None is `learning.lif_rate_model()`, threshold 2 without a leak.
        norm: `(channels) -> layer` behind every map but the feedback; None for none (SPIDE).
        dropout: rate of the outputs of all maps; one mask for all timesteps.
        feedback: False for none; the network is then a feed-forward one.
        feedback_kernel: kernel size of the feedback between convolutions.
        bound: `(synapse) -> layer` that bounds the feedback weight, `learning.Spectral` or
            `learning.Frobenius`; None leaves it free.
        inner: see `learning.Equilibrium`: `"map"` is IDE, `"rates"` SPIDE with
            `solver=learning.solvers.spiking_ternary()`.
        solver: solver of the gradient, see `learning.solvers`; None is the Neumann series.
        at_map: see `learning.Equilibrium`; None is True for several layers, as in the released
            code of IDE.
        kernel_init: `(key, shape, dtype) -> kernel` of all maps but the classifier.
        feedback_init: the same of the feedback; None is `kernel_init`.
        memory: memory strategy; over time it replaces the gradient by backpropagation through time.

    Raises:
        ValueError: both or none of `stages` and `hidden`.
    """
    if bool(stages) == bool(hidden):
        raise ValueError("give stages, a network of convolutions, or hidden, a dense one")
    model = learning.lif_rate_model() if neuron is None else neuron
    inits = kernel_init, kernel_init if feedback_init is None else feedback_init
    make = _Maps(norm, dropout, bound, *inits, rngs)
    if stages:
        depth, size, maps = input_shape[-1], input_shape[:-1], []
        for channels, kernel, stride in stages:
            maps.append(make.conv(depth, channels, kernel, stride))
            depth, size = channels, tuple(math.ceil(n / stride) for n in size)
        stride = math.prod(stage[2] for stage in stages[1:])
        back = make.conv_feedback(depth, stages[0][0], feedback_kernel, stride)
        features = depth * math.prod(size)
    else:
        widths = (math.prod(input_shape), *hidden)
        pairs = zip(widths, hidden, strict=False)
        maps = [make.linear(a, b, flatten=not i) for i, (a, b) in enumerate(pairs)]
        back, features = make.linear_feedback(hidden[-1], hidden[0]), hidden[-1]
    body: list[Any] = [learning.RateNeuron(model)]
    for part in maps[1:]:
        body += [part, learning.RateNeuron(model)]
    equilibrium = learning.Equilibrium(
        nn.Sequential(*body),
        timesteps=timesteps,
        inputs=maps[0],
        feedback=back if feedback else None,
        inner=inner,
        solver=solver,
        at_map=len(maps) > 1 and inner == "map" if at_map is None else at_map,
    )
    layers = [equilibrium, nn.Flatten(), nn.Linear(features, classes, rngs=rngs)]
    return finish(layers, tuple(input_shape), "layer", memory)


class _Maps:
    """Maker of the maps of a network, each with its normalisation and dropout."""

    def __init__(self, norm, dropout, bound, kernel_init, feedback_init, rngs):
        self.norm, self.dropout, self.bound = norm, dropout, bound
        self.options = {"kernel_init": kernel_init, "rngs": rngs}
        self.feedback = {"kernel_init": feedback_init, "rngs": rngs}

    def linear(self, inputs, outputs, *, flatten):
        start = [nn.Flatten()] if flatten else []
        return self._finish([*start, nn.Linear(inputs, outputs, **self.options)], outputs)

    def conv(self, inputs, outputs, kernel, stride):
        conv = nn.Conv(
            inputs, outputs, kernel=kernel, strides=stride, padding=kernel // 2, use_bias=True,
            **self.options,
        )  # fmt: skip
        return self._finish([conv], outputs)

    def linear_feedback(self, inputs, outputs):
        return self._finish_feedback(nn.Linear(inputs, outputs, use_bias=False, **self.feedback))

    def conv_feedback(self, inputs, outputs, kernel, stride):
        if stride == 1:
            return self._finish_feedback(nn.Conv(inputs, outputs, kernel=kernel, **self.feedback))
        transposed = learning.transposed_conv(
            inputs, outputs, kernel=kernel, strides=stride, **self.feedback
        )
        return self._finish_feedback(transposed)

    def _finish(self, layers, channels):
        norm = [] if self.norm is None else [self.norm(channels)]
        return nn.Sequential(*layers, *norm, *self._dropout())

    def _finish_feedback(self, synapse):
        bounded = synapse if self.bound is None else self.bound(synapse)
        return nn.Sequential(bounded, *self._dropout())

    def _dropout(self):
        return [nn.Dropout(self.dropout)] if self.dropout else []
