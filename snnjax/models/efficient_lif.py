"""EfficientLIF-Net: VGG, ResNet and windows of sensor data whose layers share one membrane.

    charge   h[k] = decay * v[k-1] + (1 - decay) * x[k]     k counts the calls of one membrane
    fire     s[k] = [h[k] >= 1]          reset   v[k] = h[k] - s[k], detached

    sharing="none"      a membrane per layer
    sharing="channel"   `groups` channel groups of a layer write one membrane of C / groups channels
    sharing="layer"     the layers of a stage, equal in shape, write one membrane
    sharing="both"      the channel groups of all layers of a stage do

One network with one set of widths and one reset: sharing changes neither the number nor the shape
of its parameters. It changes what the network computes: a membrane forgets once per call, K G times
per timestep where K layers and G groups share it.

**Inference** holds one timestep's membranes, what `jax.eval_shape` of `initial_state` shows. Per
image of 32x32, in elements of 4 bytes, G = 2:

    sharing    VGG16     ratio    ResNet19   ratio
    none       407,552   1        753,664    1
    channel    203,776   2        376,832    2
    layer      190,464   2.14     237,568    3.17
    both        95,232   4.28     118,784    6.34

**Training** keeps what the backward pass needs. Of membranes that is with `memory.store` one per
layer and timestep, and the one before the first (`neurons.lif_scan`), shared or not. For a shared
net to keep one per group, the rest is computed again, exactly, for one more forward pass:
`time=memory.recompute(T)`, or `depth=memory.recompute(1), pack=True`; without a leak
(`neuron=nn.IF`) `time=memory.reversal()` walks back instead, see `nn.Shared`. VGG16 with
"both" at T = 5 then keeps 21.4 = 4.28 T times less of membranes than the unshared net under
`memory.store`, 25.7 = 4.28 (T + 1) times with those before the first timestep. Only the 4.28 is
sharing's own: an unshared net that computes again keeps one membrane per layer. These numbers count
membranes among the residuals of `jax.vjp`, not spikes, currents or weights, nor the working set of
the stage that is being computed again. All of a gradient, VGG16 at T = 5 (XLA's temporaries in MB
per image, slope of batch 16 to 32, float32, memory-optimised scheduler, jax 0.10.2 on a CPU):
"none" 24.6 with store, 19.6 with depth and pack; "both" 16.0 with `time=recompute(T)`, 8.9
with `inner=recompute(1)` in it, 7.2 reversed without a leak.

The paper's abstract claims up to about 4.3 times less LIF memory forward and 21.9 times backward.
Its released code holds a plain autograd loop; that the second figure is T times the first is OUR
INFERENCE. The surrogate is `arctan(alpha=2)`, the reset detached, as in that code.

Reference: Kim, Li, Moitra, Yin, Panda, "Sharing Leaky-Integrate-and-Fire Neurons for
Memory-Efficient Spiking Neural Networks", 2023, arXiv:2305.18360.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import neurons, nn
from snnjax.memory import Strategy
from snnjax.models.assembly import finish
from snnjax.models.shared_stages import first_stage_unshared, resnet_layers, vgg_layers
from snnjax.models.shared_stages import sharing as shared_by

__all__ = [
    "EFFICIENT_RESNET19",
    "EFFICIENT_VGG16",
    "efficient_lif_compat",
    "efficient_lif_har",
    "efficient_lif_resnet",
    "efficient_lif_vgg",
]

EFFICIENT_VGG16 = ((128, 128), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
EFFICIENT_RESNET19 = ((256, 3), (512, 3), (512, 2))  # width and blocks of each stage
_WIDE_VGG16 = ((128, 128), (256, 256), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_NARROW_RESNET19 = ((128, 3), (256, 3), (512, 2))

_per_step = functools.partial(nn.BatchNorm, over="step")
_soft, _hard = (
    functools.partial(nn.LIF, decay=0.25, scale_input=True, reset=neurons.detached(reset))
    for reset in (neurons.subtract, neurons.zero)
)


def efficient_lif_vgg(
    *,
    sharing: str = "both",
    groups: int = 2,
    stages: Sequence[Sequence[int]] = EFFICIENT_VGG16,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    neuron: Callable[..., nn.Neuron] = _soft,
    norm: Callable[[int], Any] = _per_step,
    static: bool = True,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """A VGG with shared membranes, `[T, B, H, W, C] -> [T, B, classes]`.

        [conv3x3 - norm - neuron] * per stage, max pool between stages - mean over space - linear

    With the default widths 14,910,346 parameters for 10 classes, whatever is shared.

    Args:
        sharing: `"none"`, `"channel"`, `"layer"` or `"both"`, see above.
        groups: channel groups per layer, of `"channel"` and `"both"`; must divide every width.
        stages: channels of each convolution, by stage; `"layer"` needs equal ones within a stage.
        classes: outputs.
        input_shape: `(H, W, C)` of one frame; H and W are halved between stages.
        rngs: for the weights.
        neuron: makes the neurons of one membrane; called as `neuron()`.
        norm: makes a normalisation for so many channels; without batch statistics over the window.
        static: compute the first convolution and norm once, for frames that are all the same
            (`encoding.direct`); False for frames of events.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: strategy of the backward pass; in `order="layer"` each membrane takes the one over
            time by itself. Over depth the layers are cut at synapses and around shared stages.

    Raises:
        ValueError: an unknown `sharing`; widths that are no multiples of `groups`, or differ within
            a stage that is shared (on `initial_state`); the stages shrink the image to nothing.
    """
    share = shared_by(sharing, groups, neuron)
    layers = vgg_layers(stages, input_shape, norm, static, share, classes, rngs)
    return finish(layers, input_shape, order, memory)


def efficient_lif_resnet(
    *,
    sharing: str = "both",
    groups: int = 2,
    stages: Sequence[tuple[int, int]] = EFFICIENT_RESNET19,
    stem: int = 128,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    neuron: Callable[..., nn.Neuron] = _soft,
    norm: Callable[[int], Any] = _per_step,
    static: bool = True,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """A ResNet with shared membranes, `[T, B, H, W, C] -> [T, B, classes]`.

        conv3x3 - norm - neuron - stages of blocks - mean over space - linear
        block   y = neuron(shortcut(x) + norm(conv3x3(neuron(norm(conv3x3(x))))))

    Each stage starts with stride 2; the shortcut is the identity, or conv1x1 - norm where a block
    changes the shape. The stem's membrane is never shared with a stage's. With the default widths
    ("ResNet19") 26,108,042 parameters for 10 classes, whatever is shared.

    Args:
        sharing: as for `efficient_lif_vgg`.
        groups: as for `efficient_lif_vgg`.
        stages: width and number of blocks of each stage.
        stem: channels of the first convolution.
        classes: outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: for the weights.
        neuron: as for `efficient_lif_vgg`.
        norm: as for `efficient_lif_vgg`.
        static: as for `efficient_lif_vgg`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: as for `efficient_lif_vgg`.

    Raises:
        ValueError: an unknown `sharing`; widths that are no multiples of `groups` (on
            `initial_state`).
    """
    share = shared_by(sharing, groups, neuron)
    layers = resnet_layers(stages, stem, input_shape, norm, static, share, classes, rngs)
    return finish(layers, input_shape, order, memory)


def efficient_lif_har(
    input_shape: tuple[int],
    *,
    sharing: str = "both",
    groups: int = 2,
    hidden: int = 256,
    depth: int = 2,
    classes: int = 6,
    dropout: float = 0.0,
    rngs: nnx.Rngs,
    neuron: Callable[..., nn.Neuron] = _soft,
    norm: Callable[[int], Any] = _per_step,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """A network for windows of sensor data, `[T, B, channels] -> [T, B, classes]`.

        [linear - norm - neuron] * depth - linear

    The paper's networks for human activity recognition could not be read: this one is OURS.

    Args:
        input_shape: `(channels,)` of one timestep; consecutive samples may stand side by side.
        sharing: as for `efficient_lif_vgg`; all hidden layers are one stage.
        groups: as for `efficient_lif_vgg`.
        hidden: neurons per hidden layer.
        depth: hidden layers.
        classes: outputs.
        dropout: rate behind each hidden layer.
        rngs: for the weights.
        neuron: as for `efficient_lif_vgg`. Windows are long: a membrane that is to remember over
            them needs a decay near 1, since it forgets `depth * groups` times per timestep.
        norm: as for `efficient_lif_vgg`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: as for `efficient_lif_vgg`.

    Raises:
        ValueError: an unknown `sharing`; `hidden` is no multiple of `groups` (on `initial_state`);
            there is no hidden layer.
    """
    if depth < 1:
        raise ValueError(f"there is at least one hidden layer, got depth={depth}")
    (features,), parts = input_shape, []
    for number in range(depth):
        front = [nn.Dropout(dropout)] if number and dropout else []
        linear = nn.Linear(features, hidden, use_bias=False, rngs=rngs)
        parts.append((*front, linear, norm(hidden)))
        features = hidden
    layers = shared_by(sharing, groups, neuron)(0, parts, ())
    layers += [nn.Dropout(dropout), nn.Linear(hidden, classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)


def efficient_lif_compat(
    architecture: str,
    *,
    variant: str = "both",
    groups: int = 2,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """The networks of the released code, one by one, with what differs between them.

    For repeating its numbers; comparing them mixes sharing with widths and reset:

        vgg16      "none": widths 128, 128, 256, 256, 256..., hard reset; others: layers 3 and 4 are
                   128 wide, soft reset, and layers 1 and 2 do not share though they could; in
                   "layer" the second layer resets hard
        resnet19   "none": stages 128, 256, 512, hard reset; others: 256, 512, 512, soft reset

    Args:
        architecture: `"vgg16"` or `"resnet19"`.
        variant: `"none"`, `"channel"`, `"layer"` or `"both"`.
        groups: of `"channel"`; that of `"both"` is fixed to 2.
        classes: outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: for the weights.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: as for `efficient_lif_vgg`.

    Raises:
        ValueError: an unknown architecture or variant, or `"both"` with other than 2 groups.
    """
    if architecture not in ("vgg16", "resnet19"):
        raise ValueError(f"architecture must be 'vgg16' or 'resnet19', got {architecture!r}")
    if variant == "both" and groups != 2:
        raise ValueError(
            "the released code fixes groups to 2 there: use efficient_lif_vgg(groups=)"
        )
    plain = variant == "none"
    share = shared_by(variant, groups, _hard if plain else _soft)
    common = (input_shape, _per_step, True)
    if architecture == "resnet19":
        stages = _NARROW_RESNET19 if plain else EFFICIENT_RESNET19
        layers = resnet_layers(stages, 128, *common, share, classes, rngs)
    else:
        if variant in ("layer", "both"):
            second = shared_by(variant, groups, _hard if variant == "layer" else _soft)
            share = functools.partial(first_stage_unshared, share, second)
        stages = _WIDE_VGG16 if plain else EFFICIENT_VGG16
        layers = vgg_layers(stages, *common, share, classes, rngs)
    return finish(layers, input_shape, order, memory)
