"""EfficientLIF-Net: VGG, ResNet and sensor networks whose layers share membranes.

    charge   h[k] = decay * v[k-1] + (1 - decay) * x[k]     k counts the calls of one membrane
    fire     s[k] = [h[k] >= 1]          reset   v[k] = h[k] - s[k], detached

    sharing="none"      one membrane per layer
    sharing="channel"   `groups` channel groups of a layer share a membrane of C / groups channels
    sharing="layer"     the layers of a stage, equal in shape, share a membrane
    sharing="both"      the channel groups of all layers of a stage share a membrane

Sharing changes neither number nor shape of the parameters, nor widths and reset. It changes the
function: a membrane decays once per call, K G times per timestep if K layers and G groups share it.

**Inference** holds the membranes of one timestep (`jax.eval_shape` of `initial_state`). Per image
of 32x32, in elements of 4 bytes, G = 2:

    sharing    VGG16     ratio    ResNet19   ratio
    none       407,552   1        753,664    1
    channel    203,776   2        376,832    2
    layer      190,464   2.14     237,568    3.17
    both        95,232   4.28     118,784    6.34

**Training** with `memory.store` keeps one membrane per layer and timestep, and the one before the
first timestep (`neurons.lif_scan`), shared or not. A shared network keeps one membrane per group if
the others are recomputed, exactly, for one more forward pass: `time=memory.recompute(T)`, or
`depth=memory.recompute(1), pack=True`. Without a leak (`neuron=nn.IF`), `time=memory.reversal()`
inverts the steps instead, see `nn.Shared`. For VGG16 with "both" at T = 5 the membrane bytes then
shrink by a factor of 21.4 = 4.28 T relative to the unshared network under `memory.store`, or 25.7 =
4.28 (T + 1) including the membranes before the first timestep. Only the factor 4.28 is due to
sharing: an unshared network under recomputation keeps one membrane per layer. These numbers count
membranes among the residuals of `jax.vjp`; they exclude spikes, currents, weights and the working
set of the recomputed stage. Complete gradient of VGG16 at T = 5 (XLA temporaries in MB per image,
slope of batch 16 to 32, float32, memory-optimised scheduler, jax 0.10.2 on a CPU): "none" 24.6 with
store, 19.6 with depth and pack; "both" 16.0 with `time=recompute(T)`, 8.9 with `inner=recompute(1)`
in it, 7.2 reversed without a leak.

The abstract of the paper claims up to about 4.3 times less LIF memory forward and 21.9 times
backward. Its released code is a plain autograd loop; that the second figure is T times the first is
OUR INFERENCE. As in that code, the surrogate is `arctan(alpha=2)` and the reset is detached.

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
from snnjax.models._assembly import finish
from snnjax.models._shared_stages import first_stage_unshared, resnet_layers, vgg_layers
from snnjax.models._shared_stages import sharing as shared_by

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
# The released code gives its unshared networks other widths, see `efficient_lif_compat`.
_WIDE_VGG16 = ((128, 128), (256, 256), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_NARROW_RESNET19 = ((128, 3), (256, 3), (512, 2))

# A shared membrane advances through the layers of one timestep before the next: a norm cannot wait
# for the statistics of the whole window.
_per_step = functools.partial(nn.BatchNorm, over="step")
# The released code calls its norms once per timestep, which moves their statistics T times.
_as_released = functools.partial(nn.BatchNorm, over="step", update="step", unbiased=True)
# Resets are detached, as in the released code. Only `efficient_lif_compat` uses the hard one.
_soft, _hard = (
    functools.partial(nn.LIF, decay=0.25, scale_input=True, reset=neurons.reset.detached(reset))
    for reset in (neurons.reset.subtract, neurons.reset.zero)
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
    """VGG with shared membranes, `[T, B, H, W, C] -> [T, B, classes]`.

        [conv3x3 - norm - neuron] * per stage, max pool between stages - mean over space - linear

    14,910,346 parameters with the default widths for 10 classes, for every `sharing`.

    Args:
        sharing: `"none"`, or the parts that share a membrane: the channel groups of a layer
            (`"channel"`), the layers of a stage (`"layer"`), or both (`"both"`).
        groups: channel groups per layer for `"channel"` and `"both"`; must divide every width.
        stages: channels of each convolution, by stage; `"layer"` needs equal widths within a stage.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame; H and W are halved between stages.
        rngs: random streams of the parameters.
        neuron: `() -> layer`, the neurons of one membrane.
        norm: `(channels) -> layer`, a normalisation without batch statistics over the window.
        static: compute the first convolution and norm once, for frames that are equal at all
            timesteps (`encoding.direct`); False for event frames.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: memory strategy of the gradient; in `order="layer"` it acts over time on each
            membrane separately. Over depth it cuts the layers at synapses and around shared stages.

    Raises:
        ValueError: an unknown `sharing`; widths that `groups` does not divide, or different widths
            within a shared stage (on `initial_state`); more stages than the image can be halved.

    Reference:
        Kim, Li, Moitra, Yin, Panda, "Sharing Leaky-Integrate-and-Fire Neurons for Memory-Efficient
        Spiking Neural Networks", 2023, arXiv:2305.18360.
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
    """ResNet with shared membranes, `[T, B, H, W, C] -> [T, B, classes]`.

        conv3x3 - norm - neuron - stages of blocks - mean over space - linear
        block   y = neuron(shortcut(x) + norm(conv3x3(neuron(norm(conv3x3(x))))))

    Each stage starts with stride 2; the shortcut is the identity, or conv1x1 - norm if a block
    changes the shape. The stem has its own membrane. 26,108,042 parameters with the default widths
    ("ResNet19") for 10 classes, for every `sharing`.

    Args:
        sharing: as for `efficient_lif_vgg`.
        groups: as for `efficient_lif_vgg`.
        stages: width and number of blocks of each stage.
        stem: channels of the first convolution.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: random streams of the parameters.
        neuron: as for `efficient_lif_vgg`.
        norm: as for `efficient_lif_vgg`.
        static: as for `efficient_lif_vgg`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: as for `efficient_lif_vgg`.

    Raises:
        ValueError: an unknown `sharing`; widths that `groups` does not divide (on
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
    """Network for windows of sensor data, `[T, B, channels] -> [T, B, classes]`.

        [linear - norm - neuron] * depth - linear

    The paper does not specify its networks for human activity recognition; this one is OURS.

    Args:
        input_shape: `(channels,)` of one timestep; consecutive samples may be concatenated.
        sharing: as for `efficient_lif_vgg`; all hidden layers are one stage.
        groups: as for `efficient_lif_vgg`.
        hidden: neurons per hidden layer.
        depth: number of hidden layers.
        classes: number of outputs.
        dropout: dropout rate behind each hidden layer.
        rngs: random streams of the parameters.
        neuron: as for `efficient_lif_vgg`. Memory over long windows needs a decay near 1, since a
            shared membrane decays `depth * groups` times per timestep.
        norm: as for `efficient_lif_vgg`.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: as for `efficient_lif_vgg`.

    Raises:
        ValueError: an unknown `sharing`; `groups` does not divide `hidden` (on `initial_state`); no
            hidden layer.
    """
    if depth < 1:
        raise ValueError(f"there is at least one hidden layer, got depth={depth}")
    (features,), parts = input_shape, []
    for number in range(depth):
        # Inputs of the network are not dropped.
        front = [nn.Dropout(dropout)] if number and dropout else []
        # The norm behind it has a bias.
        linear = nn.Linear(features, hidden, use_bias=False, rngs=rngs)
        parts.append((*front, linear, norm(hidden)))
        features = hidden
    # All hidden layers have one width, so they form one stage and can share one membrane.
    layers = shared_by(sharing, groups, neuron)(0, parts, ())
    layers += [nn.Dropout(dropout), nn.Linear(hidden, classes, rngs=rngs)]
    return finish(layers, input_shape, order, memory)


def efficient_lif_compat(
    architecture: str,
    *,
    variant: str = "both",
    groups: int = 2,
    stages: Sequence[Any] | None = None,
    stem: int = 128,
    classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    rngs: nnx.Rngs,
    norm: Callable[[int], Any] = _as_released,
    order: str = "layer",
    memory: Strategy | None = None,
) -> nn.Network:
    """The networks of the released code, with their differences in widths and reset.

    Use them to reproduce published numbers. Comparisons between variants mix the effect of sharing
    with those of widths and reset:

        vgg16      "none": widths 128, 128, 256, 256, 256..., hard reset; others: layers 3 and 4 are
                   128 wide, soft reset, and layers 1 and 2 have separate membranes; in "layer" the
                   second layer has a hard reset
        resnet19   "none": stages 128, 256, 512, hard reset; others: 256, 512, 512, soft reset

    The norms are those of the released code, too: their running statistics move at each of the T
    timesteps, by `1 - 0.9^T` of the distance in all, and with the unbiased variance. Those of
    `efficient_lif_vgg` and `efficient_lif_resnet` move once, by 0.1.

    Args:
        architecture: `"vgg16"` or `"resnet19"`.
        variant: `"none"`, `"channel"`, `"layer"` or `"both"`.
        groups: channel groups of `"channel"`; `"both"` has 2.
        stages: widths as in `efficient_lif_vgg`, or widths and blocks as in `efficient_lif_resnet`;
            None for the published ones.
        stem: channels of the first convolution of `"resnet19"`.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        rngs: random streams of the parameters.
        norm: as for `efficient_lif_vgg`; the default moves its statistics as the released code.
        order: `"layer"` or `"time"`, see `nn.Network`.
        memory: as for `efficient_lif_vgg`.

    Raises:
        ValueError: an unknown architecture or variant, or `"both"` with other than 2 groups.
    """
    if architecture not in ("vgg16", "resnet19"):
        raise ValueError(f"architecture must be 'vgg16' or 'resnet19', got {architecture!r}")
    if variant == "both" and groups != 2:
        raise ValueError(
            "the released code fixes groups=2 for 'both': use efficient_lif_vgg(groups=)"
        )
    plain = variant == "none"
    share = shared_by(variant, groups, _hard if plain else _soft)
    common = (input_shape, norm, True)
    if architecture == "resnet19":
        blocks = stages or (_NARROW_RESNET19 if plain else EFFICIENT_RESNET19)
        layers = resnet_layers(blocks, stem, *common, share, classes, rngs)
    else:
        if variant in ("layer", "both"):
            # Reproduces the released code: its second layer has its own membrane, and in one
            # variant another reset.
            second = shared_by(variant, groups, _hard if variant == "layer" else _soft)
            share = functools.partial(first_stage_unshared, share, second)
        widths = stages or (_WIDE_VGG16 if plain else EFFICIENT_VGG16)
        layers = vgg_layers(widths, *common, share, classes, rngs)
    return finish(layers, input_shape, order, memory)
