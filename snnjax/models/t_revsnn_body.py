"""Stem, columns and heads of a T-RevSNN; `t_revsnn` makes it.

    x = stem(frame),   c[t] = column_t(x, c[t-1]),   o[t] = head_t(c_3[t])

An image is encoded once for all columns; of events every column has its own frame and stem.

Reference: Hu et al., "High-Performance Temporal Reversible Spiking Neural Networks with O(L)
Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, nn
from snnjax.models.column_level import ColumnLevel, packing, shared_tail
from snnjax.nn.contract import Aux, State
from snnjax.nn.wiring import gather
from snnjax.typing import Array, Key

__all__ = ["HEADS", "STRIDES", "TRevSNN", "TRevSNNSize"]

STRIDES = (2, 2, 1)  # between levels; the last two are of one size
HEADS = ("deep", "spiking", "plain")


@dataclasses.dataclass(frozen=True)
class TRevSNNSize:
    """A published size.

    Attributes:
        channels: of the four levels.
        kernel: of the depthwise convolutions.
        stem: `(kernel, stride)` of each convolution of the stem.
        columns: T.
        heads: see `t_revsnn`.
        input_shape: `(H, W, C)` of one frame.
        events: a frame and a stem for each column, instead of one image for all.
    """

    channels: tuple[int, ...]
    kernel: int = 5
    stem: tuple[tuple[int, int], ...] = ((7, 2), (3, 2))
    columns: int = 4
    heads: str = "deep"
    input_shape: tuple[int, int, int] = (224, 224, 3)
    events: bool = False


class TRevSNN(nnx.Module):
    """Stem, columns and heads; made by `t_revsnn`.

    Args:
        size: of what.
        classes: outputs.
        norm: makes a normalisation.
        states: options of `nn.Columns` about its states.
        rngs: for the weights.
    """

    def __init__(
        self,
        size: TRevSNNSize,
        classes: int,
        *,
        norm: Callable[[int], Any],
        states: dict[str, Any],
        rngs: nnx.Rngs,
    ):
        self.name, self.head_kind, self.events = "t_revsnn", size.heads, size.events
        channels, top = size.channels, size.channels[-1]
        convs = lambda rngs: _stem(size, rngs)  # noqa: E731
        self.stem = nn.Sequential() if size.events else convs(rngs)

        def level(number: int, first: bool, rngs: nnx.Rngs) -> ColumnLevel:
            return ColumnLevel(
                number, channels, STRIDES, kernel=size.kernel, first=first, norm=norm,
                stem=convs(rngs) if size.events and not number else None, rngs=rngs,
            )  # fmt: skip

        self.columns = nn.Columns(
            level,
            lambda number, rngs: shared_tail(channels[number], size.kernel, rngs=rngs),
            channels,
            size.columns,
            own_inputs=size.events,
            read={"deep": mean, "spiking": firing, "plain": None}[size.heads],
            rngs=rngs,
            **states,
        )
        if size.heads == "deep":
            heads = [_classifier(top, classes, rngs) for _ in range(size.columns - 1)]
            heads.append(_classifier(top, classes, rngs, spiking=True))
        else:
            heads = [_classifier(top, classes, rngs, spiking=size.heads == "spiking")]
        self.heads = nnx.List(heads)

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """States zero and fresh statistics, for frames of this shape, `(B, H, W, C)`."""
        return self.columns.initial_state(_shape_after(self.stem, shape))

    def with_memory(self, strategy: memory.Strategy, spikes: bool) -> tuple[TRevSNN, bool]:
        """Takes the strategy over time for its columns, and packing.

        Raises:
            ValueError: one over depth is asked for; a reversal over too many columns.
        """
        del spikes
        if strategy.depth is not None:
            raise ValueError(
                "T-RevSNN has no stack of blocks over depth: its columns are its time, so use "
                "time=reverse (or time=recompute(1))"
            )
        columns = packing(self.columns, strategy.pack)
        if strategy.time is not None:
            columns = columns.with_scan(strategy.time)
        return nn.replace(self, columns=columns), False

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """Logits of each column.

        Args:
            inputs: `[T, B, H, W, C]`, T the number of columns. Of an image only the first frame is
                looked at, since all are equal, and T may be 1.
            state: from `initial_state`.
            training: whether batch statistics are at work.
            key: not used.
            taps: what to look at.

        Raises:
            ValueError: another number of timesteps.
        """
        timesteps, columns = len(inputs), self.columns.columns
        if timesteps != columns and (self.events or timesteps != 1):
            raise ValueError(
                f"this network has {columns} columns and takes {columns} timesteps"
                f"{'' if self.events else ' (or 1: an image is encoded once)'}, got {timesteps}: "
                f"give it columns={timesteps}, or encode to that many"
            )
        frames = inputs if self.events else inputs[:1]
        x, stem = self.stem(frames, _stateless(self.stem), training=training, taps=taps)
        read, aux = self.columns(x, state, training=training, key=key, taps=taps)
        logits, heads = self._logits(read, aux.state[-1], training, taps)
        seen = gather([("stem", stem), *heads]).taps
        return logits, aux._replace(taps=aux.taps | seen)

    def _logits(
        self, read: Any, top: Array, training: bool, taps: tuple[str, ...]
    ) -> tuple[Array, list[tuple[str, Aux]]]:
        """Logits of each column, and what was to be seen of each head by its name."""
        if self.head_kind == "plain":
            rows = [mean(top)[None]]
        elif self.head_kind == "spiking":
            rows = [read]
        else:
            rows = [read[t : t + 1] for t in range(len(self.heads) - 1)] + [firing(top)[None]]
        outputs, auxes = [], []
        for number, (head, row) in enumerate(zip(self.heads, rows, strict=True)):
            options = {"training": training, "taps": taps}
            y, aux = head(row[:, :, None, None], _stateless(head), **options)
            outputs.append(y[:, :, 0, 0])
            auxes.append((f"head{number}", aux))
        return jnp.concatenate(outputs), auxes


def mean(top: Array) -> Array:
    """`[B, H, W, C] -> [B, C]`."""
    return top.mean((1, 2))


def firing(top: Array) -> Array:
    """Firing rates over space of turned-off neurons, `[B, H, W, C] -> [B, C]`."""
    return mean(nn.TurnedOff()(top, State(), training=False)[0])


def _stem(size: TRevSNNSize, rngs: nnx.Rngs) -> nn.Sequential:
    layers, before = [], size.input_shape[2]
    for kernel, strides in size.stem:
        layers.append(
            nn.ScaledStdConv(before, size.channels[0], kernel=kernel, strides=strides, rngs=rngs)
        )
        before = size.channels[0]
    return nn.Sequential(*layers)


def _classifier(
    inputs: int, classes: int, rngs: nnx.Rngs, *, spiking: bool = False
) -> nn.Sequential:
    """One scaled conv1x1 on pooled features, or two in a row behind spikes."""
    widths = [inputs, classes, classes] if spiking else [inputs, classes]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return nn.Sequential(*(nn.ScaledStdConv(a, b, kernel=1, rngs=rngs) for a, b in pairs))


def _stateless(layers: nn.Sequential) -> State:
    return State(((),) * len(layers.layers), ((),) * len(layers.layers))


def _shape_after(stem: nn.Sequential, shape: tuple[int, ...]) -> tuple[int, ...]:
    run = lambda stem, x: stem(x, _stateless(stem), training=False)[0]  # noqa: E731
    return jax.eval_shape(run, stem, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]
