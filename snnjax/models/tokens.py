"""Parts common to the spiking transformers: tokenizer, MLP, neuron.

    tokenizer   conv3x3 - norm, then four times: neuron - (max pool) - conv3x3 - norm; each pixel of
                the last map is a token
    MLP         neuron - linear(D, 4 D) - norm - neuron - linear(4 D, D) - norm

The widths of the tokenizer are D/8, D/4, D/2, D, D. Linear maps of tokens replace the 1x1
convolutions of the papers. Outputs of the tokenizer and of all branches are currents; of spikes in
Spikformer, whose neurons stand behind the norms. A shortcut around the last convolution adds a
position to each token.

References: Zhou, Yu, Zhou, Ma, Zhang, Zhou, Tian, "Spikingformer: Spike-driven Residual Learning
for Transformer-based Spiking Neural Network", 2023, arXiv:2304.11954; as used by Zhang and Zhang,
"Memory-Efficient Reversible Spiking Neural Networks", 2024, arXiv:2312.07922.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import nnx

from snnjax import nn, surrogate
from snnjax.models._assembly import conv_norm
from snnjax.neurons import reset
from snnjax.typing import Array

__all__ = ["mlp_branch", "tau_lif", "tokenizer"]

_STAGES = 5
# One object for every layer: modules compare static attributes by ==.
_HARD = reset.detached(reset.zero)


def tau_lif(*, tau: float = 2.0, threshold: float = 1.0) -> nn.Neuron:
    """LIF neurons of the papers, with a detached hard reset and a sigmoid surrogate.

        h[t] = v[t-1] + (x[t] - v[t-1]) / tau
        s[t] = [h[t] >= threshold],   v[t] = (1 - s[t]) h[t]

    The decay is `1 - 1 / tau`, the surrogate `sigmoid(alpha=4)`; s in the reset has no gradient.

    Args:
        tau: time constant in timesteps, above 1; 2 for images, 1.5 for event frames.
        threshold: membrane potential at which a neuron fires.

    Raises:
        ValueError: `tau` is not above 1.
    """
    # At tau = 1 the decay is 0: a neuron would keep nothing.
    if tau <= 1:
        raise ValueError(f"tau, the time constant in timesteps, must be above 1, got {tau}")
    return nn.LIF(
        decay=1 - 1 / tau,
        threshold=threshold,
        spike=surrogate.sigmoid(alpha=4.0),
        reset=_HARD,
        scale_input=True,
    )


def tokenizer(
    input_shape: tuple[int, int, int],
    width: int,
    *,
    pools: int,
    neuron: Callable[..., nn.Neuron],
    norm: Callable[[int], Any],
    rngs: nnx.Rngs,
    shortcut: str | None = None,
    static: bool = False,
) -> list[Any]:
    """Layers that map images to tokens, `[T, B, H, W, C] -> [T, B, N, width]`.

    Args:
        input_shape: `(H, W, C)` of one frame.
        width: `D`, channels of a token; divisible by 8.
        pools: number of the last convolutions with a max pool in front (3x3, stride 2, padding 1),
            which halves H and W: 2 for 32x32, 4 for 128x128, both giving 8x8 tokens.
        neuron: `() -> layer` of neurons.
        norm: `(channels) -> layer`, a normalisation.
        rngs: random streams of the kernels.
        shortcut: stream around the last convolution, `p` the map in front of it: None for none;
            `"spikes"`, `x = p + neuron(norm(conv(p)))` with p spikes (Spikformer); `"currents"`,
            `x = p + norm(conv(neuron(p)))` with p pooled currents (Spike-driven Transformer).
        static: compute the first convolution once, for frames that are equal at all timesteps.

    Raises:
        ValueError: `width` is not divisible by 8; more pools than convolutions to pool.
    """
    # The first convolution has D / 8 channels.
    if width % 8 or width < 8:
        raise ValueError(f"the tokenizer needs a width divisible by 8, got {width}")
    # The first convolution reads the image, in front of which no pool stands.
    if not 0 <= pools < _STAGES:
        raise ValueError(f"a tokenizer has 0 to {_STAGES - 1} pools, not {pools}")
    pool = nn.MaxPool(window=3, strides=2, padding=1)
    layers, channels = [], input_shape[2]
    # Divisors of D: the widths are D/8, D/4, D/2, D, and D once more.
    for stage, share in enumerate((8, 4, 2, 1)):
        # The first convolution gets the image itself.
        layers += [neuron()] if stage else []
        layers += [pool] if stage >= _STAGES - pools else []
        part = conv_norm(channels, width // share, 3, norm, rngs=rngs)
        layers += part if stage or not static else [nn.StaticInput(nn.Sequential(*part))]
        channels = width // share
    last = conv_norm(width, width, 3, norm, rngs=rngs)
    front = [pool] if pools else []
    if shortcut == "currents":
        # The maximum of currents: neurons follow it inside the branch only.
        layers += [*front, nn.Residual(nn.Sequential(neuron(), *last))]
    elif shortcut == "spikes":
        layers += [neuron(), *front, nn.Residual(nn.Sequential(*last, neuron()))]
    else:
        layers += [neuron(), *front, *last]
    return [*layers, nn.Fold(as_tokens, name="tokens")]


def mlp_branch(
    width: int,
    *,
    expansion: int,
    neuron: Callable[..., nn.Neuron],
    norm: Callable[[int], Any],
    rngs: nnx.Rngs,
    spikes_out: bool = False,
) -> nn.Sequential:
    """MLP of a block, `[T, B, N, width] -> [T, B, N, width]`.

        neuron - linear - norm - neuron - linear - norm

    Args:
        width: `D`, channels of a token.
        expansion: hidden width as a multiple of D.
        neuron: `() -> layer` of neurons.
        norm: `(channels) -> layer`, a normalisation.
        rngs: random streams of the weights.
        spikes_out: no neurons in front, but behind the last norm, as in Spikformer.
    """
    inside = expansion * width
    layers: list[Any] = []
    for a, b in ((width, inside), (inside, width)):
        linear = nn.Linear(a, b, kernel_init=nn.synapses.he_normal, rngs=rngs)
        layers += [neuron(), linear, norm(b)]
    # The same layers from another place of the loop over blocks.
    return nn.Sequential(*layers[1:], neuron()) if spikes_out else nn.Sequential(*layers)


def as_tokens(images: Array) -> Array:
    """Pixels as tokens, `[N, H, W, C] -> [N, H W, C]`."""
    return images.reshape(images.shape[0], -1, images.shape[-1])
