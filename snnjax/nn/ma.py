"""Multi-dimensional attention (MA): weights of currents by timestep, channel and position.

    y = x * f_T             f_T = sig(mlp(mean x) + mlp(max x))     over C, H, W: [T, B, 1, 1, 1]
    y = y * f_C             f_C = sig(mlp(mean y) + mlp(max y))     over T, H, W: [1, B, 1, 1, C]
    y = y * f_S             f_S = sig(conv3x3(mean y, max y))       over T, C:    [1, B, H, W, 1]
    y = relu(y)             mlp(a) = relu(a W) W',  without bias

Factors apply in this order, each computed from the result of the previous one; `kind` selects them.
The layer stands between pooling and neurons and maps currents to currents. Every factor depends on
all timesteps of the window: the layer is not causal and has no streaming form.

References: Yao, Zhao, Zhang, Hu, Deng, Tian, Xu, Li, "Attention Spiking Neural Networks", 2023,
arXiv:2209.13929; temporal attention alone: Yao, Gao, Zhao, Wang, Lin, Yang, Li, "Temporal-wise
Attention Spiking Neural Networks for Event Streams Classification", 2021, arXiv:2107.11711.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import metrics, neurons, surrogate
from snnjax.metrics.operations import dense_operations
from snnjax.nn._checks import check_rngs
from snnjax.nn.contract import Aux, Call, State, no_state
from snnjax.nn.neuron import Neuron
from snnjax.nn.neuron_models import LIF
from snnjax.nn.synapses import fan_in_uniform
from snnjax.nn.taps import lazy_taps
from snnjax.ops.arguments import as_floating, check_choice, check_counts, check_flags
from snnjax.ops.convolution import convolution
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array, Scan

__all__ = [
    "MA",
    "MALIF",
    "check_window",
    "place_map",
    "place_products",
]

# The A stands for attention: `kind[:-1]` lists the axes.
_KINDS = ("TA", "CA", "SA", "CSA", "TCA", "TSA", "TCSA")


class MA(nnx.Module):
    """Multi-dimensional attention on currents, `[T, B, H, W, C] -> [T, B, H, W, C]`.

        y = relu(x * f_T * f_C * f_S)           factors of `kind`, in this order

        f_T = sig(mlp(mean) + mlp(max))         mean and maximum over C, H, W
        f_C = sig(mlp(mean) + mlp(max))         over T, H, W, of x * f_T
        f_S = sig(conv3x3(mean, max))           over T, C, of x * f_T * f_C

    Parameters: `2 T (T // time_reduction)` for T, `2 C (C // channel_reduction)` for C, 18 for S.
    Without S the inputs may also be `[T, B, F]`, with features as channels. Equal maxima share the
    gradient. The derivative keeps the inputs.

    The released networks also apply `"TA"` after their fully connected layers. Our source does not
    say if a relu follows there; this layer applies it, and `relu=False` omits it.

    Args:
        kind: one of TA, CA, SA, CSA, TCA, TSA, TCSA.
        timesteps: `T`, timesteps of the window, on which every factor depends.
        channels: `C`.
        time_reduction: factor by which the hidden layer over T is narrower than T.
        channel_reduction: factor by which the hidden layer over C is narrower than C.
        relu: apply a relu to the result, as published.
        rngs: random streams of the weights.

    Raises:
        ValueError: an unknown kind; a reduction without a hidden unit; another number of timesteps
            or channels, or S without space (on a call).

    Reference:
        Yao, Zhao, Zhang, Hu, Deng, Tian, Xu, Li, "Attention Spiking Neural Networks", 2023,
        arXiv:2209.13929.
    """

    def __init__(
        self,
        kind: str,
        timesteps: int,
        channels: int,
        *,
        time_reduction: int = 5,
        channel_reduction: int = 8,
        relu: bool = True,
        rngs: nnx.Rngs,
    ):
        check_choice("nn.MA", choices=_KINDS, kind=kind)
        check_counts("nn.MA", timesteps=timesteps, channels=channels)
        check_counts("nn.MA", time_reduction=time_reduction, channel_reduction=channel_reduction)
        check_flags("nn.MA", relu=relu)
        check_rngs("nn.MA", rngs)
        self.whole_window, self.channels, self.relu = timesteps, channels, relu
        self.kind, self.name = kind, "ma"
        widths = {"T": (timesteps, time_reduction), "C": (channels, channel_reduction)}
        self.squeezes = nnx.Dict(
            {axis: _squeeze(*widths[axis], rngs) for axis in widths if axis in kind[:-1]}
        )
        place = fan_in_uniform(rngs.params(), (3, 3, 2, 1), jnp.float32) if "S" in kind else None
        self.place = None if place is None else nnx.Param(place)

    initial_state = no_state

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, H, W, C]` to weighted currents.

        Taps: `"attention"`, the product of the factors, in the shape of the inputs; `"products"`,
        the multiplications, one per current and factor and those of the factors themselves.
        """
        inputs = as_floating("nn.MA", inputs)
        # T is in the shape of the weights, so another window cannot work.
        check_window(f"nn.MA({self.kind!r})", self.whole_window, inputs, space="S" in self.kind)
        if inputs.shape[-1] != self.channels:
            raise ValueError(
                f"this layer has {self.channels} channels and got {list(inputs.shape)}: give "
                f"nn.MA channels={inputs.shape[-1]}"
            )
        # Recomputed: the factors are cheap, and their intermediates are as large as the inputs.
        outputs, factor = jax.checkpoint(_weigh)(self, inputs)
        full_factor = lambda: jnp.broadcast_to(factor, inputs.shape)  # noqa: E731
        # In one row, because the factors belong to the window and to no single timestep.
        products = lambda: metrics.operations.multiplications(  # noqa: E731
            self._multiplications(inputs.shape), (1, inputs.shape[1])
        )
        return outputs, Aux(taps=lazy_taps(call.taps, attention=full_factor, products=products))

    def _multiplications(self, shape: tuple[int, ...]) -> int:
        """Multiplications per example: one per current and factor, and those of the factors."""
        timesteps, _, *space, channels = shape
        weighed = (len(self.kind) - 1) * timesteps * channels * math.prod(space)
        # Mean and maximum each pass both matrices.
        squeezed = 2 * sum(w.size for pair in self.squeezes.values() for w in pair)
        return weighed + squeezed + (0 if self.place is None else place_products(space))


def MALIF(
    *,
    decay: float = 0.3,
    threshold: float = 0.3,
    width: float = 0.5,
    reset_bug: bool = False,
    scan: Scan | None = None,
) -> Neuron:
    """The LIF neurons of MA-SNN and ASA-SNN.

        u[t] = h[t-1] + x[t],   s[t] = [u[t] >= threshold],   h[t] = decay * (1 - s[t]) * u[t]

    Currents x `[T, B, ...]`, spikes s `[T, B, ...]`. The hard reset to 0 is differentiated; the
    surrogate derivative is a rectangle. The layer is `nn.LIF(decay, threshold,
    reset=neurons.reset.zero)`, whose membrane after the reset is `h / decay`.

    Args:
        decay: fraction of the membrane kept per timestep, alpha in the papers.
        threshold: membrane potential at which a neuron fires, V_th in the papers.
        width: width of the rectangle around the threshold; 0.5 is `lens = 0.25` of the code.
        reset_bug: leave `h = decay * threshold` after a spike, an error of the released MA-SNN that
            the code of ASA-SNN corrects.
        scan: memory strategy over time.

    Reference:
        Yao, Zhao, Zhang, Hu, Deng, Tian, Xu, Li, "Attention Spiking Neural Networks", 2023,
        arXiv:2209.13929.
    """
    # `neurons.reset` acts before the decay, so this leaves decay * threshold.
    reset = neurons.reset.to(threshold) if reset_bug else neurons.reset.zero
    spike = surrogate.rectangular(width=width)
    return LIF(decay=decay, threshold=threshold, spike=spike, reset=reset, scan=scan)


def check_window(name: str, timesteps: int, inputs: Array, *, space: bool) -> None:
    """Checks the inputs of a layer that needs its whole window.

    Args:
        name: name of the layer in the message.
        timesteps: `T` of the layer.
        inputs: inputs of the call.
        space: True if the layer needs `[T, B, H, W, C]`.

    Raises:
        ValueError: another number of timesteps, or inputs of another rank.
    """
    if len(inputs) != timesteps:
        raise ValueError(
            f"{name} needs its whole window of {timesteps} timesteps at once and got "
            f'{len(inputs)}: give it a window of that length, in order="layer". Streaming, '
            'order="time" and nn.Shared run timesteps one by one and cannot contain this layer'
        )
    if inputs.ndim < 3 or (space and inputs.ndim != 5):
        raise ValueError(
            f"{name} takes currents {'[T, B, H, W, C]' if space else '[T, B, ..., C]'}, got "
            f"{list(inputs.shape)}: put it in front of nn.Flatten"
        )


def place_map(mean: Array, largest: Array, kernel: Array) -> Array:
    """`sig(conv3x3(mean, largest))` of two maps `[B, H, W]`."""
    both = jnp.stack([mean, largest], axis=-1)
    return jax.nn.sigmoid(convolution(both, kernel.astype(both.dtype))[..., 0])


def place_products(space: Sequence[int]) -> int:
    """Multiplications of `place_map` for one example; `space` is `(H, W)`."""
    return dense_operations((3, 3, 2, 1), size=space, strides=(1, 1), padding=((1, 1), (1, 1)))


def _squeeze(size: int, reduction: int, rngs: nnx.Rngs) -> nnx.List:
    """Weights of an MLP `size -> size // reduction -> size` without biases."""
    # Integer division as in the released code, which decides the parameter counts.
    hidden = size // reduction
    if not hidden:
        raise ValueError(
            f"a reduction by {reduction} leaves no hidden unit for {size}: choose one from 1 to "
            f"{size}"
        )
    shapes = ((size, hidden), (hidden, size))
    draws = [fan_in_uniform(rngs.params(), shape, jnp.float32) for shape in shapes]
    return nnx.List([nnx.Param(draw) for draw in draws])


def _weigh(layer: MA, inputs: Array) -> tuple[Array, Array]:
    """Weighted currents, and the product of all factors."""
    # A mean over a window loses small terms in half precision.
    currents = widen(inputs)
    last, factor = inputs.ndim - 1, jnp.ones((1,) * inputs.ndim, currents.dtype)
    axes = {"T": tuple(range(2, inputs.ndim)), "C": (0, *range(2, last)), "S": (0, last)}
    for axis in layer.kind[:-1]:
        means, maxima = (
            f(currents * factor, axes[axis], keepdims=True) for f in (jnp.mean, jnp.max)
        )
        if axis == "S":
            kernel = layer.place[...]  # type: ignore[index]
            own = place_map(means[0, ..., 0], maxima[0, ..., 0], kernel)[None, ..., None]
        else:
            weights, along = layer.squeezes[axis], 0 if axis == "T" else last
            own = jax.nn.sigmoid(_mlp(weights, means, along) + _mlp(weights, maxima, along))
        # Later factors see currents weighted by the earlier ones.
        factor = factor * own
    # Rounded once, after all factors.
    outputs = narrow(currents * factor, inputs.dtype)
    return (jax.nn.relu(outputs) if layer.relu else outputs), factor


def _mlp(weights: Any, pooled: Array, axis: int) -> Array:
    first, second = (w[...].astype(pooled.dtype) for w in weights)
    along = jnp.moveaxis(pooled, axis, -1)
    hidden = jax.nn.relu(jnp.matmul(along, first, precision="highest"))
    return jnp.moveaxis(jnp.matmul(hidden, second, precision="highest"), -1, axis)
