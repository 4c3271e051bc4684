"""Advance spatial attention (ASA): one spatial map for important channels, one for the others.

    a, m     = mean and max of x over H, W                                     [T, B, C]
    M        = mixer((a + m) / 2 + alpha a + beta m)          along T          [T, B, C]
    c, t     = is M among the top K_C of its timestep, the top K_T of its channel?
    I        = c xor t                                        1: important     [T, B, C]
    A_1      = sig(conv_1(mean(I x) / share;            max(I x)))     over T, C   [B, H, W]
    A_0      = sig(conv_0(mean((1-I) x) / (1 - share);  max((1-I) x)))             [B, H, W]
    y        = (I A_1 + (1-I) A_0) x

with `K_C = int(share C)`, `K_T = int(share T)`. The layer stands between pooling and neurons and
maps currents to currents; the factors lie in (0, 1), so no current grows or changes its sign. The
maps depend on all timesteps of the window: the layer is not causal and has no streaming form.

Reference: Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks",
ICCV 2023, arXiv:2308.08227. The equations are those of its released code.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import metrics
from snnjax.nn._checks import check_rngs
from snnjax.nn.contract import Aux, Call, State, no_state
from snnjax.nn.ma import check_window, place_map, place_products
from snnjax.nn.synapses import fan_in_uniform
from snnjax.nn.taps import lazy_taps
from snnjax.ops.arguments import as_floating, check_choice, check_counts, check_numbers
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array

__all__ = ["ASA"]

_MODES = ("per_sample", "official_batch_union")
_GATES = ("hard", "straight_through")


class ASA(nnx.Module):
    """Advance spatial attention on currents, `[T, B, H, W, C] -> [T, B, H, W, C]`.

        y = (I A_1 + (1 - I) A_0) x

    The mask I `[T, B, C]` marks important maps, A_1 and A_0 `[B, H, W]` weigh positions; the
    equations of all three stand in the docstring of `snnjax.nn.asa`. The mixer is a matrix `T x T`,
    or with `reduction > 1` two matrices with a relu between them, without bias: `2 + T^2 + 36` or
    `2 + 2 T (T // reduction) + 36` parameters. Of equal entries the one with the lower index ranks
    higher. Of equal maxima the first one in time, then in channels, gets the gradient, as in the
    released code: currents of several timesteps are often equal. The derivative keeps the inputs,
    the mask and two maps.

    The released module has seven defects, treated here as follows:

    1. Its alpha, beta and mixer only rank maps, so they never learn. `gate="hard"` reproduces this:
       their gradient is exactly 0, and the initial ranking stays (scaling the mixer, as decoupled
       weight decay does, changes no rank). Only the 36 weights of the convolutions learn. With
       `gate="straight_through"` all parameters learn.
    2. It mixes the examples of a batch, also in evaluation: each example gets the union of the top
       sets over the batch. `mode="per_sample"` does not; `"official_batch_union"` reproduces it.
    3. It fails for a batch of one. Fixed.
    4. If the two rankings coincide, no map is important and `conv_1` learns nothing from the
       example. Reproduced in both modes, since the mask is the xor. The outputs are finite.
    5. Its means are divided by `share` and `1 - share`, although the fraction of important maps is
       `2 share (1 - share)` for independent rankings, and mostly smaller, since both rank M.
       Reproduced in both modes: the kernels absorb a constant factor.
    6. It has a second, unused module of 39 parameters. Left out, so the released three-layer
       networks count 39 parameters more per convolution.
    7. Two of its networks ignore their option for the share. Fixed.

    "Important" could mean top in both rankings. The released code selects maps that are top in
    exactly one ranking, and so does this layer in both modes.

    Args:
        timesteps: `T`, timesteps of the window.
        reduction: factor by which the hidden layer of the mixer is narrower than `T`; 1 for one
            matrix.
        share: fraction of channels per timestep, and of timesteps per channel, in the top sets.
        mode: `"per_sample"` ranks each example separately; `"official_batch_union"` reproduces the
            released code, whose outputs depend on the other examples of the batch.
        gate: `"hard"`, as published, or `"straight_through"`, an extension of this library: values
            as with `"hard"`, derivative as if c and t were `sig(M - boundary)` and
            `I = c + t - 2 c t`, with the boundary halfway between the last entry of the top set and
            the next one.
        rngs: random streams of the weights.

    Raises:
        ValueError: an unknown mode or gate, or a gate that the mode does not support; `share`
            outside (0, 1), or too small to select a map (on a call); a reduction without a hidden
            unit; another number of timesteps, or inputs without space (on a call).

    Reference:
        Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks", ICCV
        2023, arXiv:2308.08227.
    """

    def __init__(
        self,
        timesteps: int,
        *,
        reduction: int = 1,
        share: float = 0.5,
        mode: str = "per_sample",
        gate: str = "hard",
        rngs: nnx.Rngs,
    ):
        _check(timesteps, reduction, share, mode, gate)
        check_rngs("nn.ASA", rngs)
        self.whole_window, self.share, self.mode, self.gate = timesteps, share, mode, gate
        self.name = "asa"
        self.alpha, self.beta = (nnx.Param(jnp.full((), 0.5, jnp.float32)) for _ in range(2))
        hidden = timesteps // reduction
        # A reduction of 1 is one matrix, as released.
        shapes = [(timesteps, hidden), (hidden, timesteps)][: 1 if reduction == 1 else 2]
        draw = lambda shape: nnx.Param(fan_in_uniform(rngs.params(), shape, jnp.float32))  # noqa: E731
        self.mixer = nnx.List([draw(shape) for shape in shapes])
        self.important, self.remaining = (draw((3, 3, 2, 1)) for _ in range(2))

    initial_state = no_state

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, H, W, C]` to weighted currents.

        Taps: `"mask"`, the important maps, bool `[T, B, C]`; `"attention"`, the factor of each
        current; `"products"`, the multiplications, `2 T C H W` of currents by maps and those of
        maps and mixer, in one row for the window.
        """
        inputs = as_floating("nn.ASA", inputs)
        check_window("nn.ASA", self.whole_window, inputs, space=True)
        important = self._important(inputs)
        kernels = self.important[...], self.remaining[...]
        # Recomputing both keeps the inputs and arrays of a map's size only.
        shares = self.share, 1 - self.share
        maps = jax.checkpoint(functools.partial(_maps, shares))(kernels, inputs, important)
        outputs = jax.checkpoint(_weigh)(inputs, important, maps)
        factor = lambda: jnp.broadcast_to(_factor(important, maps), inputs.shape)  # noqa: E731
        products = lambda: metrics.operations.multiplications(  # noqa: E731
            self._multiplications(inputs.shape), (1, inputs.shape[1])
        )
        mask = lambda: important > 0.5  # noqa: E731
        return outputs, Aux(
            taps=lazy_taps(call.taps, mask=mask, attention=factor, products=products)
        )

    def _multiplications(self, shape: tuple[int, ...]) -> int:
        """Multiplications per example: two per current, those of the maps and of the mixer."""
        timesteps, _, *space, channels = shape
        mixer = sum(weights.shape[0] * weights.shape[1] for weights in self.mixer) * channels
        return 2 * timesteps * channels * math.prod(space) + 2 * place_products(space) + mixer

    def _important(self, inputs: Array) -> Array:
        """Mask I of the important maps, 0 or 1, `[T, B, C]`, in the dtype of the scores."""
        # int() rounds down, as the released code does.
        counts = tuple(int(self.share * inputs.shape[axis]) for axis in (-1, 0))
        if not any(counts):
            raise ValueError(
                f"a share of {self.share} selects none of {inputs.shape[-1]} channels and "
                f"{len(inputs)} timesteps: use a larger share"
            )
        scores = jax.checkpoint(_scores)(self, inputs)
        if self.gate == "hard":
            # A comparison has no gradient; without this the scores' residuals would be kept in
            # vain.
            scores = jax.lax.stop_gradient(scores)
        top = [_top(scores, count, axis) for count, axis in zip(counts, (2, 0), strict=True)]
        if self.mode == "official_batch_union":
            # Defect 2 of the released module, reproduced: the union over the batch.
            top = [jnp.broadcast_to(mask.any(1, keepdims=True), mask.shape) for mask in top]
        # By xor, as in the released code; equal rankings leave no important map (defect 4).
        hard = (top[0] ^ top[1]).astype(scores.dtype)
        if self.gate == "hard":
            return hard
        c, t = (_soft_top(scores, count, axis) for count, axis in zip(counts, (2, 0), strict=True))
        soft = c + t - 2 * c * t
        # The value of `hard` with the derivative of `soft`.
        return hard + (soft - jax.lax.stop_gradient(soft))


def _scores(layer: ASA, inputs: Array) -> Array:
    """Scores M, `[T, B, C]`."""
    currents = widen(inputs)
    mean, largest = currents.mean((2, 3)), currents.max((2, 3))
    ranking = (layer.alpha, layer.beta, *layer.mixer)
    alpha, beta, *mixer = (parameter[...].astype(mean.dtype) for parameter in ranking)
    scores = 0.5 * (mean + largest) + alpha * mean + beta * largest
    for number, weights in enumerate(mixer):
        scores = jax.nn.relu(scores) if number else scores
        # Full precision: a rounded score could change the ranking between devices.
        scores = jnp.einsum("tbc,ts->sbc", scores, weights, precision="highest")
    return scores


def _check(timesteps: int, reduction: int, share: float, mode: str, gate: str) -> None:
    check_choice("nn.ASA", choices=_MODES, mode=mode)
    check_choice("nn.ASA", choices=_GATES, gate=gate)
    check_counts("nn.ASA", timesteps=timesteps, reduction=reduction)
    check_numbers("nn.ASA", above=0, below=1, share=share)
    if gate != "hard" and mode != "per_sample":
        raise ValueError(f'the gate {gate!r} has no union over the batch: use mode="per_sample"')
    if reduction > timesteps:
        raise ValueError(
            f"a reduction by {reduction} leaves no hidden unit for {timesteps} timesteps: choose "
            f"one from 1 to {timesteps}"
        )


def _top(scores: Array, count: int, axis: int) -> Array:
    """Mask of the `count` largest entries along an axis; of equal entries, the first ones."""
    # The argsort of an order gives ranks; stable sorting decides ties by index.
    order = jnp.argsort(-scores, axis, stable=True)
    return jnp.argsort(order, axis) < count


def _soft_top(scores: Array, count: int, axis: int) -> Array:
    """Smooth mask in (0, 1) of the `count` largest entries, invariant to a shift of all scores."""
    if count == 0:
        return jnp.zeros_like(scores)
    # The boundary must lie strictly between the last selected score and the next one.
    falling = -jnp.sort(-scores, axis)
    inner, outer = (jax.lax.slice_in_dim(falling, i, i + 1, axis=axis) for i in (count - 1, count))
    return jax.nn.sigmoid(scores - 0.5 * (inner + outer))


def _maps(shares, kernels, inputs: Array, important: Array) -> tuple[Array, Array]:
    """Spatial maps A_1 and A_0, `[B, H, W]`."""
    currents, maps = widen(inputs), []
    for group, share, kernel in zip((important, 1 - important), shares, kernels, strict=True):
        chosen = currents * group[:, :, None, None]
        # Divided by the nominal share, as released; the true fraction is mostly smaller (defect 5).
        mean, largest = chosen.mean((0, 4)) / share, _first_max(chosen)
        maps.append(place_map(mean, largest, kernel))
    return maps[0], maps[1]


def _first_max(currents: Array) -> Array:
    """Maximum over T and C, `[T, B, H, W, C] -> [B, H, W]`; the first of equal ones is selected."""
    rows = currents.max(-1, keepdims=True)
    # `jnp.max` would share the gradient between equal maxima.
    winner = jax.nn.one_hot(currents.argmax(-1), currents.shape[-1], dtype=bool)
    winner &= jnp.arange(len(rows))[:, None, None, None, None] == rows.argmax(0, keepdims=True)
    return jnp.where(winner, currents, 0).sum((0, -1))


def _factor(important: Array, maps: tuple[Array, Array]) -> Array:
    one, zero = (m[None, ..., None] for m in maps)
    chosen = important[:, :, None, None]
    return chosen * one + (1 - chosen) * zero


def _weigh(inputs: Array, important: Array, maps: tuple[Array, Array]) -> Array:
    return narrow(widen(inputs) * _factor(important, maps), inputs.dtype)
