"""T-RevSNN: columns of four levels, one per timestep, whose states can be undone over time.

    stem    conv7x7 stride 2 - conv3x3 stride 2 (scaled, linear in between): once per image
    column  c_l[t] = B_l(c_{l-1}[t], c_{l+1}[t-1]) + alpha_l[t] c_l[t-1]        (`nn.multilevel`)
    B_l     z = Down(c_{l-1}[t]) + Up(c_{l+1}[t-1])                 Down, Up: spikes - conv - norm
            z <- z + gamma * tail(head(z))          head: spikes - depthwise conv - scaled conv1x1
            z <- z + shared tail(head(z))           tail: spikes - scaled conv1x1 - depthwise conv

`c_l` are the membranes of the few turned-on neurons; all other neurons are turned off. The shared
tail is one set of parameters per level for all columns.

Reference: Hu, Yao, Qiu, Chou, Cai, Qiao, Tian, Xu, Li, "High-Performance Temporal Reversible
Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
As in the released code, the same stem output goes to every column; the paper's text splits it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, memory, nn
from snnjax.models.column_level import ColumnLevel, packing, shared_tail
from snnjax.nn.contract import Aux, State
from snnjax.typing import Array, Key, Scan

__all__ = ["T_REVSNN_SIZES", "TRevSNN", "TRevSNNSize", "column_loss", "t_revsnn"]

_STRIDES = (2, 2, 1)  # between levels; the last two are of one size
_HEADS = ("deep", "spiking", "plain")


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


T_REVSNN_SIZES = {
    "small": TRevSNNSize((96, 192, 384, 512)),
    "tiny": TRevSNNSize((64, 128, 256, 384)),
    "tiny_dvs": TRevSNNSize(
        (32, 64, 128, 256), 3, ((3, 2),), 8, "spiking", (128, 128, 2), events=True
    ),
}


def t_revsnn(
    size: str | TRevSNNSize = "small",
    *,
    classes: int = 1000,
    rngs: nnx.Rngs,
    channels: Sequence[int] | None = None,
    kernel: int | None = None,
    stem: Sequence[tuple[int, int]] | None = None,
    columns: int | None = None,
    heads: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    alpha: float = 0.5,
    floor: float = 1e-3,
    bits: int | None = None,
    magnitude: float = 8.0,
    norm: Callable[[int], Any] = nn.BatchNorm,
    time_scan: Scan | None = None,
    pack: bool | memory.Storage = False,
) -> nn.Network:
    """A T-RevSNN, `[T, B, H, W, C] -> [T, B, classes]` (`[1, B, classes]` with the plain head).

    Parameters for 1000 classes: small 32,331,312 and tiny 17,376,912 with deep heads, 29,787,312
    and 15,216,912 with the plain one (the paper's 29.8M and 15.2M in our reading); tiny_dvs
    10,220,364 for 10 classes.

    Heads are ours to name: `"deep"`, as released, has a classifier after each column and one of
    turned-off spikes after the last, trained by `column_loss` and read by `readout.last`;
    `"spiking"` has one such spike classifier, shared by all columns (the released event network
    has its parameters, but reads the last column only); `"plain"` has one classifier, after the
    last column. The strides of the stem of tiny_dvs are our choice: counts do not tell them.

    Memory: `time_scan=None` is `memory.recompute(1)`, the column mode of the released code.
    `memory.reversal()` keeps the states of the last column only, O(L): floating states are kept
    every 4 columns as well; with `bits` they live on a grid, where reversing is exact and alpha is
    a (learned) power of two.

    Args:
        size: `"small"`, `"tiny"`, `"tiny_dvs"`, or one of your own.
        classes: outputs.
        rngs: for the weights.
        channels: four numbers, in place of those of the size; so are the following.
        kernel: of the depthwise convolutions.
        stem: `(kernel, stride)` per convolution.
        columns: T; the timesteps of the input, or 1 for an image.
        heads: `"deep"`, `"spiking"` or `"plain"`.
        input_shape: `(H, W, C)`; H and W divisible by 4 times the strides of the stem.
        alpha: where every alpha starts.
        floor: least `|alpha|` of floating states; the reversal's error grows by `1 / |alpha|`.
        bits: binary places of the grid; None is floating, as published.
        magnitude: largest state to be exact on the grid.
        norm: makes a normalisation for so many channels.
        time_scan: the memory strategy over the columns, see above.
        pack: keep spikes at one bit each, see `memory.Strategy`.

    Raises:
        ValueError: an unknown size or head; channels that are not four; a frame that cannot be
            halved often enough; what `nn.Columns` refuses.
    """
    if isinstance(size, str):
        if size not in T_REVSNN_SIZES:
            raise ValueError(f"t_revsnn knows sizes {sorted(T_REVSNN_SIZES)}, not {size!r}")
        size = T_REVSNN_SIZES[size]
    given = {
        "channels": channels and tuple(channels), "kernel": kernel, "columns": columns,
        "stem": stem and tuple(map(tuple, stem)), "heads": heads, "input_shape": input_shape,
    }  # fmt: skip
    size = dataclasses.replace(size, **{k: v for k, v in given.items() if v is not None})
    _check(size)
    states = {"alpha": alpha, "floor": floor, "bits": bits, "magnitude": magnitude}
    body = TRevSNN(size, classes, norm=norm, states=states, rngs=rngs)
    network = nn.Network(body, size.input_shape)
    return nn.with_memory(network, memory.Strategy(time_scan, None, pack))


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
                number, channels, _STRIDES, kernel=size.kernel, first=first, norm=norm,
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
        net = copy.copy(self)
        net.columns = packing(self.columns, strategy.pack)
        if strategy.time is not None:
            net.columns = net.columns.with_scan(strategy.time)
        return net, False

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
        x, _ = self.stem(frames, _stateless(self.stem), training=training)
        read, aux = self.columns(x, state, training=training, key=key, taps=taps)
        return self._logits(read, aux.state[-1], training), aux

    def _logits(self, read: Any, top: Array, training: bool) -> Array:
        run = lambda head, x: head(  # noqa: E731
            x[:, :, None, None], _stateless(head), training=training
        )[0][:, :, 0, 0]
        if self.head_kind == "plain":
            return run(self.heads[0], mean(top)[None])
        if self.head_kind == "spiking":
            return run(self.heads[0], read)
        rows = [read[t : t + 1] for t in range(len(self.heads) - 1)] + [firing(top)[None]]
        return jnp.concatenate([run(h, row) for h, row in zip(self.heads, rows, strict=True)])


def column_loss(outputs: Array, labels: Array, *, label_smoothing: float = 0.1) -> Array:
    """Cross entropy of every column, later ones weighing more, and of the last one again.

        L = sum_{t=1..T} (t / T) CE(o[t], label) + CE(o[T], label)

    Args:
        outputs: `[T, B, K]`, floating, of deep heads.
        labels: `[B]`, integers in [0, K).
        label_smoothing: share of the target spread evenly over the classes; published: 0.1.

    Returns:
        `[B]`, nats.
    """
    each = [losses.cross_entropy(o, labels, label_smoothing=label_smoothing) for o in outputs]
    return sum((t + 1) / len(each) * loss for t, loss in enumerate(each)) + each[-1]


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


def _check(size: TRevSNNSize) -> None:
    if size.heads not in _HEADS:
        raise ValueError(f"heads must be one of {', '.join(_HEADS)}, got {size.heads!r}")
    if len(size.channels) != len(_STRIDES) + 1:
        raise ValueError(f"T-RevSNN has four levels, got channels={size.channels}")
    total = 1
    for stride in (*(s for _, s in size.stem), *_STRIDES):
        total *= stride
    if any(n % total for n in size.input_shape[:2]):
        raise ValueError(
            f"frames of {size.input_shape[:2]} cannot be divided by {total}, as the stem and the "
            "levels do, so that what comes back up would not fit: pad them, or give stem= smaller "
            "strides"
        )
