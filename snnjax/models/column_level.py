"""One level of a T-RevSNN column: fusion of what is below and above, then two residual blocks.

    z = Down(lower) + Up(upper)                  Down, Up: spikes - conv - norm (- nearest x2)
    z <- z + gamma * DW(PW(Q(PW(DW(Q(z))))))     DW depthwise k x k, PW scaled conv1x1, Q spikes
    z <- z + DW_s(PW_s(Q(PW(DW(Q(z))))))         PW_s, DW_s shared by all columns

Level 0 takes its lower input as it is. PW widens four times and narrows back.

Reference: Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L)
Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.contract import Aux, State, output_shape
from snnjax.nn.narrow import widen
from snnjax.nn.wiring import gather
from snnjax.typing import Array, bind

__all__ = ["ColumnLevel", "nearest", "packing", "shared_tail"]

_EXPANSION = 4


class ColumnLevel(nnx.Module):
    """A level of one column, for `nn.Columns`.

    Args:
        number: which level.
        channels: of all levels.
        strides: between neighbouring levels.
        kernel: of the depthwise convolutions.
        first: in the first column, without an upper input.
        norm: makes a normalisation for so many channels.
        rngs: for the weights.
        stem: in front of level 0, where every column has an input of its own.
    """

    def __init__(
        self,
        number: int,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        kernel: int,
        first: bool,
        norm: Callable[[int], Any],
        rngs: nnx.Rngs,
        stem: nn.Sequential | None = None,
    ):
        width, last = channels[number], number + 1 == len(channels)
        self.stride = strides[number - 1] if number else 1
        self.down = nn.Sequential() if stem is None else stem
        if number:
            self.down = _fusion(channels[number - 1], width, self.stride, norm, rngs)
        upper = None if first or last else channels[number + 1]
        self.up = (
            None
            if upper is None
            else _fusion(
                upper, width, 1, norm, rngs, nn.Fold(bind(nearest, factor=strides[number]))
            )
        )
        self.block1 = nn.Sequential(
            *_head(width, kernel, rngs), nn.TurnedOff(), *_tail(width, kernel, rngs)
        )
        self.block2 = nn.Sequential(*_head(width, kernel, rngs), nn.TurnedOff())
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))  # gamma

    def initial_state(self, lower: tuple[int, ...], upper: tuple[int, ...] | None) -> State:
        """Fresh statistics, for inputs of these shapes, `(B, H, W, C)`."""
        down = self.down.initial_state(lower)
        up = self.up.initial_state(upper) if self.up and upper else State()
        return State((), (down.statistics, up.statistics))

    def output_shape(self, lower: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the state for a lower input of this shape, `(B, H, W, C)`."""
        return output_shape(self.down, self.down.initial_state(lower), lower)

    def __call__(
        self,
        tail: nn.Sequential,
        lower: Array,
        upper: Array | None,
        state: State,
        *,
        training: bool,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """`B_l`, `[B, H, W, C]`."""
        auxes = {}

        def run(name, layers, x, statistics=None):
            rest = ((),) * len(layers.layers)
            own = State(rest, rest if statistics is None else statistics)
            y, auxes[name] = layers(x, own, training=training, taps=taps)
            return widen(y)  # sums are float32 whatever the precision of synapses

        z, moved = run("down", self.down, lower[None], state.statistics[0]), ()
        if self.up is not None and upper is not None:
            z = z + run("up", self.up, upper[None], state.statistics[1])
            moved = auxes["up"].statistics
        z = z + self.scale[...].astype(z.dtype) * run("block1", self.block1, z)
        z = z + run("tail", tail, run("block2", self.block2, z))
        seen = gather(list(auxes.items())).taps
        return z[0], Aux((), (auxes["down"].statistics, moved), seen)


def shared_tail(width: int, kernel: int, *, rngs: nnx.Rngs) -> nn.Sequential:
    """What all columns share of one level: PW_s and DW_s, behind spikes."""
    return nn.Sequential(*_tail(width, kernel, rngs))


def nearest(inputs: Array, *, factor: int) -> Array:
    """Every pixel `factor x factor` times, `[N, H, W, C] -> [N, factor H, factor W, C]`."""
    n, h, w, c = inputs.shape
    blown = jnp.broadcast_to(inputs[:, :, None, :, None], (n, h, factor, w, factor, c))
    return blown.reshape(n, factor * h, factor * w, c)


def packing(columns: nn.Columns, pack: bool | memory.Storage) -> nn.Columns:
    """The same columns, with convolutions of spikes that keep them at one bit each.

    Args:
        columns: of `ColumnLevel`s; stays as it is.
        pack: as `memory.Strategy.pack`; the narrow storages serve the other convolutions.
    """
    if not pack:
        return columns
    first, later = (
        nnx.List([_packed_level(level, pack) for level in levels])
        for levels in (columns.first, columns.later)
    )
    shared = nnx.List([_packed(tail, pack, spikes=True) for tail in columns.shared])
    return nn.replace(columns, first=first, later=later, shared=shared)


def _packed_level(level: ColumnLevel, pack: bool | memory.Storage) -> ColumnLevel:
    parts = {name: getattr(level, name) for name in ("down", "up", "block1", "block2")}
    packed = {name: _packed(part, pack) for name, part in parts.items() if part is not None}
    return nn.replace(level, **packed)


def _packed(layers: nn.Sequential, pack: Any, *, spikes: bool = False) -> nn.Sequential:
    placed = []
    for layer in layers.layers:
        if isinstance(layer, nn.Fold) and isinstance(layer.function, nnx.Module):
            kept = "spikes" if spikes else None if pack is True else pack
            layer = nn.replace(layer, pack=kept)
        spikes = isinstance(layer, nn.TurnedOff)
        placed.append(layer)
    return nn.replace(layers, layers=nnx.List(placed))


def _fusion(inputs, outputs, strides, norm, rngs, *more) -> nn.Sequential:
    kernel = 1 if strides == 1 else 3
    pads = ((kernel // 2, kernel // 2),) * 2
    conv = nn.Conv(inputs, outputs, kernel=kernel, strides=strides, padding=pads, rngs=rngs)
    return nn.Sequential(nn.TurnedOff(), conv, norm(outputs), *more)


def _head(width: int, kernel: int, rngs: nnx.Rngs) -> list[Any]:
    widen = nn.ScaledStdConv(width, _EXPANSION * width, kernel=1, rngs=rngs)
    return [nn.TurnedOff(), _depthwise(width, kernel, rngs), widen]


def _tail(width: int, kernel: int, rngs: nnx.Rngs) -> list[Any]:
    narrow = nn.ScaledStdConv(_EXPANSION * width, width, kernel=1, rngs=rngs)
    return [narrow, _depthwise(width, kernel, rngs)]


def _depthwise(width: int, kernel: int, rngs: nnx.Rngs) -> nn.Fold:
    return nn.Conv(width, width, kernel=kernel, groups=width, use_bias=True, rngs=rngs)
