"""SEW-ResNet: residual blocks that join spikes with spikes, element by element.

    o = neuron(norm(conv3x3(neuron(norm(conv3x3(x))))))
    d = x,  or neuron(norm(conv1x1(x))) where stride or width changes
    y = g(o, d):    "add"  o + d        "and"  o d        "iand"  d (1 - o)

    net     conv7x7 stride 2 - norm - neuron - max pool 3x3 - four stages - mean over space - linear

No neuron follows the join. Sums are integers, at most one more than the blocks of the stage; the
other two keep the stream binary. Equal blocks of a stage are stacked and scanned over depth.

Reference: Fang, Yu, Chen, Huang, Masquelier, Tian, "Deep Residual Learning in Spiking Neural
Networks", 2021, arXiv:2102.04159.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from flax import nnx

from snnjax import nn
from snnjax.memory import Strategy
from snnjax.models._assembly import conv_norm, finish, residual_stages
from snnjax.models.ms_resnet import BLOCKS
from snnjax.models.rev_resnet import integrate_and_fire
from snnjax.ops.arguments import check_choice
from snnjax.typing import Array

__all__ = ["JOINS", "sew_resnet"]


class And(nn.Residual):
    """Spikes of branch and shortcut, `o d`."""

    keeps_spikes: ClassVar[bool] = True

    def join(self, shortcut: Array, branch: Array) -> Array:
        """Spikes that both have."""
        return shortcut * branch


class AndNot(nn.Residual):
    """Spikes of the shortcut without those of the branch, `d (1 - o)`."""

    keeps_spikes: ClassVar[bool] = True

    def join(self, shortcut: Array, branch: Array) -> Array:
        """Spikes of the shortcut that the branch has not."""
        return shortcut * (1 - branch)


JOINS: dict[str, type[nn.Residual]] = {"add": nn.Residual, "and": And, "iand": AndNot}
"""Name of the function g to the layer that computes it."""


def sew_resnet(
    *,
    depth: int = 18,
    classes: int = 1000,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    rngs: nnx.Rngs,
    join: str = "add",
    widths: Sequence[int] = (64, 128, 256, 512),
    blocks: Sequence[int] | None = None,
    neuron: Callable[..., nn.Neuron] = integrate_and_fire,
    norm: Callable[[int], Any] = nn.BatchNorm,
    static: bool = True,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """SEW-ResNet with basic blocks, `[T, B, H, W, C] -> [T, B, classes]`.

        y = g(neuron(norm(conv3x3(neuron(norm(conv3x3(x)))))), shortcut(x))        one block

    Parameters for 1000 classes: 11,689,512 (depth 18), 21,797,672 (34), as those of a ResNet.

    Args:
        depth: 18 or 34; selects the blocks per stage.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; the stem divides H and W by 4, each stage after the
            first by 2.
        rngs: random streams of the parameters.
        join: `"add"`, as all published ImageNet runs, `"and"` or `"iand"`.
        widths: channels per stage.
        blocks: blocks per stage; None for those of `depth`.
        neuron: `() -> layer` of neurons, also those of a shortcut that changes the shape.
        norm: `(channels) -> layer`, a normalisation; `order="time"` needs
            `functools.partial(nn.BatchNorm, over="step")`, or one without batch statistics.
        static: compute the first convolution once, for frames that are equal at all timesteps
            (`encoding.direct`), as released; later frames are ignored. False for event frames.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth it scans the stacked blocks and cuts the layers between them.

    Raises:
        ValueError: an unknown depth or join; different numbers of blocks and widths, or a stage
            without blocks.

    Reference:
        Fang, Yu, Chen, Huang, Masquelier, Tian, "Deep Residual Learning in Spiking Neural
        Networks", 2021, arXiv:2102.04159.
    """
    check_choice("models.sew_resnet", choices=tuple(JOINS), join=join)
    if blocks is None and depth not in (18, 34):
        raise ValueError(f"sew_resnet knows depths 18 and 34, not {depth}: give blocks=")
    counts: Sequence[int] = blocks or BLOCKS[depth]

    def block(rngs: nnx.Rngs, inputs: int, outputs: int, strides: int) -> nn.Residual:
        first = conv_norm(inputs, outputs, 3, norm, strides=strides, rngs=rngs)
        second = conv_norm(outputs, outputs, 3, norm, rngs=rngs)
        branch = nn.Sequential(*first, neuron(), *second, neuron())
        if strides == 1 and inputs == outputs:
            return JOINS[join](branch)
        change = conv_norm(inputs, outputs, 1, norm, strides=strides, rngs=rngs)
        return JOINS[join](branch, shortcut=nn.Sequential(*change, neuron()))

    stem = conv_norm(input_shape[2], widths[0], 7, norm, strides=2, rngs=rngs)
    layers: list = [nn.StaticInput(nn.Sequential(*stem))] if static else [*stem]
    layers += [neuron(), nn.MaxPool(window=3, strides=2, padding=1)]
    layers += residual_stages(widths, counts, block, rngs=rngs)
    layers += [nn.GlobalAvgPool(), nn.Linear(widths[-1], classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)
