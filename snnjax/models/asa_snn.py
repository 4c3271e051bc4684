"""Networks for event frames with attention on their currents: ASA-SNN, and MA-SNN before it.

    asa_snn         [conv3x3 - norm - average pool - attention - neuron] * 3
                    - linear - neuron - linear - neuron
    asa_snn_five    [conv3x3 - norm - attention - neuron - pool] * 5
                    - linear - neuron - linear - neuron - voting

Inputs are event counts `[T, B, H, W, 2]`, outputs are spikes. `readout.rate` of the outputs gives
the scores, trained by the squared difference to the one-hot label. Attention needs all timesteps at
once, so these networks have no `order="time"`.

References: Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks",
ICCV 2023, arXiv:2308.08227; Yao, Zhao, Zhang, Hu, Deng, Tian, Xu, Li, "Attention Spiking Neural
Networks", 2023, arXiv:2209.13929. Layers, counts and rules are those of their released code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import neurons, nn, surrogate
from snnjax.memory import Strategy
from snnjax.models._assembly import finish
from snnjax.typing import Array, bind

__all__ = ["asa_attention", "asa_snn", "asa_snn_five", "voting"]

Attention = Callable[..., Any]

# Neurons of the published network B: one learned decay per layer, reset to 0.
_PLIF = functools.partial(
    nn.PLIF, decay=0.5, reset=neurons.reset.zero, spike=surrogate.arctan(alpha=2.0)
)


def asa_attention(timesteps: int, channels: int, *, rngs: nnx.Rngs, **options: Any) -> nn.ASA:
    """`nn.ASA` in the signature of the `attention` option; `functools.partial` sets its options."""
    # ASA ranks channels but has no weights per channel.
    del channels
    return nn.ASA(timesteps, **options, rngs=rngs)


# The published parameter count of network A is that of this reduction.
_FOURTH = functools.partial(asa_attention, reduction=4)


def asa_snn(
    *,
    timesteps: int = 60,
    classes: int = 11,
    input_shape: tuple[int, int, int] = (32, 32, 2),
    channels: Sequence[int] = (64, 128, 128),
    pools: Sequence[int] = (1, 2, 2),
    hidden: int = 256,
    attention: Attention | None = _FOURTH,
    linear_attention: Attention | None = None,
    linear_norm: Callable[[int], Any] | None = None,
    dropout: Sequence[float] = (0.0, 0.0, 0.1, 0.1, 0.1),
    neuron: Callable[..., nn.Neuron] = nn.MALIF,
    norm: Callable[[int], Any] = nn.BatchNorm,
    rngs: nnx.Rngs,
    memory: Strategy | None = None,
) -> nn.Network:
    """Network of three convolutions, `[T, B, H, W, 2] -> [T, B, classes]`; outputs are spikes.

        [conv3x3 - norm - average pool - attention - neuron] * 3
        - linear - neuron - linear - neuron

    Published networks and their numbers of parameters:

        A    the defaults: 2,329,045 (2,323,531 without attention);
             classes=20: 2,331,358 (2,325,844)
        D    channels=(32, 32, 32), classes=20, dropout=(0, 0, 0.5, 0.5, 0.5) and an attention with
             reduction=8: 551,614 (548,980)
        MA   linear_norm=nn.BatchNorm, attention=functools.partial(nn.MA, "TCSA"),
             linear_attention=functools.partial(nn.MA, "TA"): 2,340,535 (2,324,065)

    The released ASA networks count 117 unused parameters more, 39 per convolution, see `nn.ASA`.
    Initial weights are those of PyTorch; biases start at 0.

    Args:
        timesteps: `T` of the window.
        classes: number of outputs.
        input_shape: `(H, W, C)` of one frame.
        channels: channels of each convolution.
        pools: window of the average pool behind each convolution; 1 for no pool.
        hidden: neurons of the first linear layer.
        attention: `(timesteps, channels, *, rngs) -> layer` between pool and neurons; None for no
            attention.
        linear_attention: `(timesteps, features, *, rngs) -> layer` behind the linear layers, or
            None.
        linear_norm: `(features) -> layer`, a normalisation behind the linear layers, or None.
        dropout: rate per layer, convolutions first. Each layer has two dropouts: on its inputs with
            a new mask per timestep, and on its spikes with one mask for all timesteps. The latter
            includes the outputs of the network, which are 0 or `1 / (1 - rate)` in training.
        neuron: `() -> layer` of neurons.
        norm: `(channels) -> layer`, a normalisation.
        rngs: random streams of the parameters.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth `store` or `recompute`, with cuts at synapses.

    Raises:
        ValueError: channels, pools and dropout of different lengths; pools that leave no pixel;
            inputs with other than `timesteps` timesteps (on a call).
    """
    _check(channels, pools, dropout)
    (height, width, depth), layers, rates = input_shape, [], list(dropout)
    for size, window in zip(channels, pools, strict=True):
        # A bias in front of a norm, as in the released networks, whose counts include it.
        conv = nn.Conv(
            depth, size, use_bias=True, kernel_init=nn.synapses.fan_in_uniform, rngs=rngs
        )
        # A pool of one pixel would only cost time.
        pool = [nn.AvgPool(window=window)] if window > 1 else []
        current = [conv, norm(size), *pool, *_attention_layers(attention, timesteps, size, rngs)]
        layers += _with_dropout(rates.pop(0), current, neuron())
        # Pools round down, as nn.AvgPool does without padding.
        height, width, depth = height // window, width // window, size
    features = _features(height, width, depth, input_shape)
    # From here on the features of a timestep are one axis, and attention sees them as channels.
    layers.append(nn.Flatten())
    for size in (hidden, classes):
        current = [_linear(features, size, rngs)]
        current += [] if linear_norm is None else [linear_norm(size)]
        current += _attention_layers(linear_attention, timesteps, size, rngs)
        layers += _with_dropout(rates.pop(0), current, neuron())
        features = size
    # Attention needs all timesteps at once, which excludes the order by timesteps.
    return finish(layers, input_shape, "layer", memory)


def asa_snn_five(
    *,
    timesteps: int = 20,
    classes: int = 11,
    votes: int = 10,
    input_shape: tuple[int, int, int] = (128, 128, 2),
    channels: Sequence[int] = (128, 128, 128, 128, 128),
    hidden: int = 512,
    attention: Attention | None = asa_attention,
    pool: Callable[[], Any] = nn.MaxPool,
    last_pool: Callable[[], Any] = nn.MaxPool,
    neuron: Callable[..., nn.Neuron] = _PLIF,
    norm: Callable[[int], Any] = nn.BatchNorm,
    rngs: nnx.Rngs,
    memory: Strategy | None = None,
) -> nn.Network:
    """Network of five convolutions, `[T, B, H, W, 2] -> [T, B, classes]`; outputs are mean votes.

        [conv3x3 - norm - attention - neuron - pool] * 5
        - linear - neuron - linear - neuron - voting

    Published networks and their numbers of parameters:

        B    the defaults: 1,701,123 (1,698,933 without attention); timesteps=36, classes=10,
             input_shape=(173, 130, 2): 1,962,617
        C    channels=(64, 128, 128, 128, 128), pool=nn.AvgPool, neuron=functools.partial(nn.LIF,
             decay=0.5, scale_input=True, reset=neurons.reset.zero); its last pool is a maximum, as
             that of B

    The recipes of B name an attention with `reduction=4`, but both published counts match
    `reduction=1`, the default here. The neurons learn one decay per layer and reset to 0. Our
    source gives no dropout for B and C, so there is none.

    Args:
        timesteps: `T` of the window.
        classes: number of outputs.
        votes: neurons per class in the last layer; their mean is the output.
        input_shape: `(H, W, C)` of one frame; a pool behind each convolution halves H and W.
        channels: channels of each convolution.
        hidden: neurons of the first linear layer.
        attention: `(timesteps, channels, *, rngs) -> layer` in front of the neurons; None for no
            attention.
        pool: `() -> layer`, a pool that halves H and W; one stands behind each convolution but the
            last.
        last_pool: the same behind the last convolution, a maximum in both released networks.
        neuron: `() -> layer` of neurons.
        norm: `(channels) -> layer`, a normalisation.
        rngs: random streams of the parameters.
        memory: memory strategy of the gradient; None for the neurons' own derivative over time.
            Over depth `store` or `recompute`, with cuts at synapses.

    Raises:
        ValueError: pools that leave no pixel; inputs with other than `timesteps` timesteps (on a
            call).
    """
    (height, width, depth), layers = input_shape, []
    for number, size in enumerate(channels, 1):
        conv = nn.Conv(depth, size, kernel_init=nn.synapses.fan_in_uniform, rngs=rngs)
        layers += [
            conv,
            norm(size),
            *_attention_layers(attention, timesteps, size, rngs),
            neuron(),
            last_pool() if number == len(channels) else pool(),
        ]
        # Every stage has a pool of 2, which rounds down.
        height, width, depth = height // 2, width // 2, size
    features = _features(height, width, depth, input_shape)
    layers += [nn.Flatten(), _linear(features, hidden, rngs), neuron()]
    layers += [_linear(hidden, classes * votes, rngs), neuron(), voting(votes)]
    return finish(layers, input_shape, "layer", memory)


def voting(votes: int) -> nn.Fold:
    """Mean of every `votes` neighbouring neurons, `[T, B, K votes] -> [T, B, K]`."""
    return nn.Fold(bind(_vote, votes=votes), name="voting")


def _vote(inputs: Array, *, votes: int) -> Array:
    return inputs.reshape(*inputs.shape[:-1], -1, votes).mean(-1)


def _with_dropout(rate: float, current: list[Any], neuron: nn.Neuron) -> list[Any]:
    """Layers of one stage between two dropouts, of inputs and of spikes; rate 0 adds none."""
    if rate == 0:
        return [*current, neuron]
    # Two kinds of masks, as in the released code: new ones per timestep on inputs, one for all
    # timesteps on spikes.
    return [nn.Dropout(rate, each_step=True), *current, neuron, nn.Dropout(rate)]


def _attention_layers(
    attention: Attention | None, timesteps: int, size: int, rngs: nnx.Rngs
) -> list[Any]:
    return [] if attention is None else [attention(timesteps, size, rngs=rngs)]


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nn.Fold:
    return nn.Linear(inputs, outputs, kernel_init=nn.synapses.fan_in_uniform, rngs=rngs)


def _features(height: int, width: int, depth: int, shape: tuple[int, ...]) -> int:
    if not height or not width:
        raise ValueError(f"the pools shrink {shape[:2]} to nothing: use fewer or smaller pools")
    return height * width * depth


def _check(channels: Sequence[int], pools: Sequence[int], dropout: Sequence[float]) -> None:
    if len(pools) != len(channels) or len(dropout) != len(channels) + 2:
        raise ValueError(
            f"{len(channels)} convolutions need as many pools and two more dropout rates (linear "
            f"layers have them too), got {len(pools)} and {len(dropout)}"
        )
