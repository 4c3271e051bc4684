"""Advance spatial attention (ASA): one spatial map for what matters, another one for the rest.

    a, m     = mean and max of x over H, W                                     [T, B, C]
    M        = mixer((a + m) / 2 + alpha a + beta m)          along T          [T, B, C]
    c, t     = is M among the top K_C of its timestep, the top K_T of its channel?
    I        = c xor t                                        1: important     [T, B, C]
    A_1      = sig(conv_1(mean(I x) / share;            max(I x)))     over T, C   [B, H, W]
    A_0      = sig(conv_0(mean((1-I) x) / (1 - share);  max((1-I) x)))             [B, H, W]
    y        = (I A_1 + (1-I) A_0) x

with `K_C = int(share C)`, `K_T = int(share T)`. The place of it is between pooling and neurons:
currents come in and currents go out, none larger than it was and none of another sign. The module
looks at all timesteps of its window, and one map serves all of them: it is the exception to
causality that the laws name, and has no streaming form.

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
from snnjax.nn.contract import Aux, Call, State
from snnjax.nn.ma import check_window, fan_in_uniform, place_map, place_products
from snnjax.nn.taps import lazy_taps
from snnjax.ops.rounding import narrow, widen
from snnjax.typing import Array

__all__ = ["ASA"]

_MODES = ("per_sample", "official_batch_union")
_GATES = ("hard", "straight_through")


class ASA(nnx.Module):
    """Advance spatial attention on currents, `[T, B, H, W, C]` to the same shape.

    The mixer is a matrix `T x T`, or with `reduction > 1` two of them with a relu between, without
    bias: `2 + T^2 + 36` or `2 + 2 T (T // reduction) + 36` parameters. Among equal entries the one
    of the lower index ranks higher; the gradient of a maximum is shared among equal elements. For
    its derivative the layer keeps its inputs, the mask and two maps.

    The released module has seven defects. Here:

    1. Its alpha, beta and mixer never learn, since they only choose among maps: with
       `gate="hard"` it is the same, their gradient is exactly 0 and the ranking stays the one they
       were drawn with (scaling the mixer, as decoupled weight decay does, changes no rank). Only
       the 36 weights of the convolutions learn. `gate="straight_through"` lets all of them learn.
    2. It mixes the examples of a batch, in evaluation too: each gets the union over the batch of
       all top sets. Absent with `mode="per_sample"`; `"official_batch_union"` reproduces it.
    3. It fails for a batch of one: absent.
    4. The two rankings may coincide, and then nothing is important and `conv_1` learns nothing from
       that example: so it is here in both modes, since the mask is the xor. The outputs are finite.
    5. Its means are divided by `share` and `1 - share`, which is not how many maps are important:
       `2 share (1 - share)` if the two rankings were independent, and mostly fewer, since they
       rank the same M. So it is here, in both modes: a constant factor, which the kernels absorb.
    6. A second module that is never used, 39 parameters per layer: absent, and so the counts of
       the released three-layer networks are larger than those here by 39 per convolution.
    7. Two of its networks ignore the share they are told: absent, it is an argument.

    Which reading: "important" could mean top in both rankings; the released code takes those that
    are top in one of them and not in the other, and so does this layer, in both modes.

    Args:
        timesteps: `T` of the window.
        reduction: how many times narrower the hidden layer of the mixer is; 1 is one matrix.
        share: of channels per timestep, and of timesteps per channel, that rank as top.
        mode: `"per_sample"`, each example by itself, or `"official_batch_union"`, parity with the
            released code: outputs then depend on which examples share a batch.
        gate: `"hard"`, as published, or `"straight_through"`, an extension of this library that is
            in no paper: the values are those of `"hard"`, while the derivative is taken as if c and
            t were `sig(M - boundary)`, with the boundary halfway between the last that is in and
            the first that is out, and `I = c + t - 2 c t`.
        rngs: for the weights.

    Raises:
        ValueError: an unknown mode or gate, a gate that the mode does not have; `share` outside (0,
            1) or so small that no map can rank as top (on a call); a reduction that leaves nothing;
            another number of timesteps, or inputs without space (on a call).
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
        self.whole_window, self.share, self.mode, self.gate = timesteps, share, mode, gate
        self.name = "asa"
        self.alpha, self.beta = (nnx.Param(jnp.full((), 0.5, jnp.float32)) for _ in range(2))
        hidden = timesteps // reduction
        shapes = [(timesteps, hidden), (hidden, timesteps)][: 1 if reduction == 1 else 2]
        draw = lambda shape: nnx.Param(fan_in_uniform(rngs.params(), shape, jnp.float32))  # noqa: E731
        self.mixer = nnx.List([draw(shape) for shape in shapes])
        self.important, self.remaining = (draw((3, 3, 2, 1)) for _ in range(2))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """No state."""
        del shape
        return State()

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Currents `[T, B, H, W, C]` to weighed currents.

        Taps: `"mask"`, the important maps, bool `[T, B, C]`; `"attention"`, the factor of
        each current; `"products"`, the multiplications, `2 T C H W` of the currents by the two
        maps and what maps and mixer take, one row for the window.
        """
        check_window("nn.ASA", self.whole_window, inputs, space=True)
        important = self._important(inputs)
        kernels = self.important[...], self.remaining[...]
        # Apart from its inputs, the derivative needs arrays of a map's size only.
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
        """Of one example: two per current, those of the maps and those of the mixer."""
        timesteps, _, *space, channels = shape
        mixer = sum(weights.shape[0] * weights.shape[1] for weights in self.mixer) * channels
        return 2 * timesteps * channels * math.prod(space) + 2 * place_products(space) + mixer

    def _important(self, inputs: Array) -> Array:
        """`I`, 0 or 1, `[T, B, C]`, in the dtype of means and maxima."""
        counts = tuple(int(self.share * inputs.shape[axis]) for axis in (-1, 0))
        if not any(counts):
            raise ValueError(
                f"a share of {self.share} picks none of {inputs.shape[-1]} channels and "
                f"{len(inputs)} timesteps: raise it"
            )
        scores = jax.checkpoint(_scores)(self, inputs)
        if self.gate == "hard":
            scores = jax.lax.stop_gradient(scores)
        top = [_top(scores, count, axis) for count, axis in zip(counts, (2, 0), strict=True)]
        if self.mode == "official_batch_union":
            top = [jnp.broadcast_to(mask.any(1, keepdims=True), mask.shape) for mask in top]
        hard = (top[0] ^ top[1]).astype(scores.dtype)
        if self.gate == "hard":
            return hard
        c, t = (_soft_top(scores, count, axis) for count, axis in zip(counts, (2, 0), strict=True))
        soft = c + t - 2 * c * t
        return hard + (soft - jax.lax.stop_gradient(soft))


def _scores(layer: ASA, inputs: Array) -> Array:
    """`M`, `[T, B, C]`."""
    currents = widen(inputs)
    mean, largest = currents.mean((2, 3)), currents.max((2, 3))
    ranking = (layer.alpha, layer.beta, *layer.mixer)
    alpha, beta, *mixer = (parameter[...].astype(mean.dtype) for parameter in ranking)
    scores = 0.5 * (mean + largest) + alpha * mean + beta * largest
    for number, weights in enumerate(mixer):
        scores = jax.nn.relu(scores) if number else scores
        scores = jnp.einsum("tbc,ts->sbc", scores, weights, precision="highest")
    return scores


def _check(timesteps: int, reduction: int, share: float, mode: str, gate: str) -> None:
    for name, value, known in (("mode", mode, _MODES), ("gate", gate, _GATES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if gate != "hard" and mode != "per_sample":
        raise ValueError(f'the gate {gate!r} has no union over the batch: use mode="per_sample"')
    if not 0 < share < 1:
        raise ValueError(f"the share that ranks as top lies between 0 and 1, got {share}")
    if not 1 <= reduction <= timesteps:
        raise ValueError(
            f"a reduction by {reduction} leaves nothing of {timesteps} timesteps: choose one from "
            f"1 to {timesteps}"
        )


def _top(scores: Array, count: int, axis: int) -> Array:
    """Mask of the `count` largest entries along an axis; of equals the first ones."""
    order = jnp.argsort(-scores, axis, stable=True)
    return jnp.argsort(order, axis) < count


def _soft_top(scores: Array, count: int, axis: int) -> Array:
    """Smooth mask of the `count` largest entries, 0 to 1; a shift of all scores changes nothing."""
    if count == 0:
        return jnp.zeros_like(scores)
    falling = -jnp.sort(-scores, axis)
    inner, outer = (jax.lax.slice_in_dim(falling, i, i + 1, axis=axis) for i in (count - 1, count))
    return jax.nn.sigmoid(scores - 0.5 * (inner + outer))


def _maps(shares, kernels, inputs: Array, important: Array) -> tuple[Array, Array]:
    """`A_1` and `A_0`, `[B, H, W]`."""
    currents, maps = widen(inputs), []
    for group, share, kernel in zip((important, 1 - important), shares, kernels, strict=True):
        chosen = currents * group[:, :, None, None]
        mean, largest = chosen.mean((0, 4)) / share, chosen.max((0, 4))
        maps.append(place_map(mean, largest, kernel))
    return maps[0], maps[1]


def _factor(important: Array, maps: tuple[Array, Array]) -> Array:
    one, zero = (m[None, ..., None] for m in maps)
    chosen = important[:, :, None, None]
    return chosen * one + (1 - chosen) * zero


def _weigh(inputs: Array, important: Array, maps: tuple[Array, Array]) -> Array:
    return narrow(widen(inputs) * _factor(important, maps), inputs.dtype)
