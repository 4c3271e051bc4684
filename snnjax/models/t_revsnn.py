"""T-RevSNN: columns of four levels, one per timestep, reversible over time.

    stem    conv7x7 stride 2 - conv3x3 stride 2 (scaled, no neurons between): once per image
    column  c_l[t] = B_l(c_{l-1}[t], c_{l+1}[t-1]) + alpha_l[t] c_l[t-1]        (`memory.columns`)
    B_l     z = Down(c_{l-1}[t]) + Up(c_{l+1}[t-1])      Down, Up: spikes - conv - norm
            z <- z + gamma * DW(PW(Q(PW(DW(Q(z))))))     DW depthwise k x k, PW scaled conv1x1
            z <- z + DW_s(PW_s(Q(PW(DW(Q(z))))))         Q spikes; PW_s, DW_s shared by all columns
    head    o[t] = head_t(c_3[t])

`c_l` are the membranes of the turned-on neurons, which carry a state over time; all other neurons
are turned off (`nn.Disabled`) and stateless. PW expands channels by four and reduces them again.
Level 0 uses its lower input directly, and Up doubles H and W if the upper level is smaller. An
image is encoded once for all columns; with event frames each column has its own frame and stem.

`ColumnLevel` is one `B_l`, `TRevSNN` connects stem, columns and heads, `t_revsnn` builds a network,
and `column_loss` trains its deep heads.

Reference: Hu, Yao, Qiu, Chou, Cai, Qiao, Tian, Xu, Li, "High-Performance Temporal Reversible
Spiking Neural Networks with O(L) Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
As in the released code, all columns get the same stem output; the text of the paper splits it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import losses, nn
from snnjax.memory import Strategy
from snnjax.memory.packing import Storage
from snnjax.models._assembly import conv_norm
from snnjax.nn import Aux, Call, State
from snnjax.nn.contract import gather, output_shape
from snnjax.ops.rounding import widen
from snnjax.typing import Array, bind

__all__ = [
    "ColumnLevel",
    "HEADS",
    "STRIDES",
    "TRevSNN",
    "TRevSNNSize",
    "T_REVSNN_SIZES",
    "column_loss",
    "upsample_nearest",
    "pack_columns",
    "shared_tail",
    "t_revsnn",
]

STRIDES = (2, 2, 1)  # between neighbouring levels; the last two have one size
HEADS = ("deep", "spiking", "last", "plain")


@dataclasses.dataclass(frozen=True)
class TRevSNNSize:
    """Size of a T-RevSNN.

    Attributes:
        channels: channels of the four levels.
        kernel: side of the depthwise kernels.
        stem: `(kernel, stride)` of each convolution of the stem.
        columns: T.
        heads: kind of heads, see `t_revsnn`.
        input_shape: `(H, W, C)` of one frame.
        events: True for one frame and one stem per column; False for one image for all columns.
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
        size: channels, kernels, columns and heads.
        classes: number of outputs.
        norm: `(channels) -> layer`, a normalisation.
        states: options of `nn.Columns`: alpha, floor, bits and magnitude.
        rngs: random streams of the parameters.
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
        # With event frames each column has its own stem, in level 0.
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
            # Only pooled features of a column leave it: kept maps of all columns would cost the
            # memory that a reversal saves.
            read={"deep": mean, "spiking": firing_rates, "last": None, "plain": None}[size.heads],
            rngs=rngs,
            **states,
        )
        if size.heads == "deep":
            # Deep heads read means of membranes, except the last one, which reads spikes.
            heads = [_classifier(top, classes, rngs) for _ in range(size.columns - 1)]
            heads.append(_classifier(top, classes, rngs, spiking=True))
        else:
            heads = [_classifier(top, classes, rngs, spiking=size.heads != "plain")]
        # Flax finds modules of a list only in an nnx.List.
        self.heads = nnx.List(heads)

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """States zero and initial statistics; `shape` is that of a frame, `(B, H, W, C)`."""
        return self.columns.initial_state(_shape_after(self.stem, shape))

    def with_memory(self, request: nn.contract.MemoryRequest) -> nn.contract.Placed:
        """Applies the strategy over time to the columns, and packs inputs of convolutions.

        Raises:
            ValueError: a strategy over depth; a reversal over too many columns.
        """
        strategy, taken = request.strategy, frozenset[str]()
        if strategy.depth is not None:
            raise ValueError(
                "T-RevSNN has no stack of blocks over depth: its columns are its timesteps, so use "
                "time=reverse or time=recompute(1)"
            )
        columns = pack_columns(self.columns, strategy.pack)
        if strategy.pack:
            taken |= {"pack"}
        if strategy.time is not None:
            columns, taken = columns.with_scan(strategy.time), taken | {"time"}
        return nn.contract.Placed(nn.replace(self, columns=columns), taken=taken)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Logits of each column.

        Args:
            inputs: `[T, B, H, W, C]` with T the number of columns. Without events only the first
                frame is read, since all are equal, and T may be 1.
            state: state from `initial_state`.
            call: options of the call.

        Raises:
            ValueError: another number of timesteps.
        """
        timesteps, columns = len(inputs), self.columns.columns
        if timesteps != columns and (self.events or timesteps != 1):
            raise ValueError(
                f"this network has {columns} columns and takes {columns} timesteps"
                f"{'' if self.events else ' (or 1: an image is encoded once)'}, got {timesteps}: "
                f"build it with columns={timesteps}, or encode to {columns} timesteps"
            )
        # All frames of a static image are equal.
        frames = inputs if self.events else inputs[:1]
        x, stem = self.stem(frames, _stateless(self.stem), call)
        read, aux = self.columns(x, state, call)
        logits, heads = self._logits(read, aux.state[-1], call)
        taps = gather([("stem", stem), *heads]).taps
        return logits, aux._replace(taps=aux.taps | taps)

    def _logits(self, read: Any, top: Array, call: Call) -> tuple[Array, list[tuple[str, Aux]]]:
        """Logits of each column, and the `Aux` of each head by name."""
        if self.head_kind == "plain":
            rows = [mean(top)[None]]
        elif self.head_kind == "last":
            # As released: divided by T, although only the last state is left of their sum.
            rows = [firing_rates(top / self.columns.columns)[None]]
        elif self.head_kind == "spiking":
            rows = [read]
        else:
            # The last deep head reads spikes instead of means, so its row comes from the last
            # state.
            rows = [read[t : t + 1] for t in range(len(self.heads) - 1)] + [firing_rates(top)[None]]
        outputs, auxes = [], []
        for number, (head, row) in enumerate(zip(self.heads, rows, strict=True)):
            # Classifiers are convolutions and need two spatial axes.
            y, aux = head(row[:, :, None, None], _stateless(head), call)
            outputs.append(y[:, :, 0, 0])
            auxes.append((f"head{number}", aux))
        return jnp.concatenate(outputs), auxes


def mean(top: Array) -> Array:
    """Mean over space, `[B, H, W, C] -> [B, C]`."""
    return top.mean((1, 2))


def firing_rates(top: Array) -> Array:
    """Spatial firing rate of stateless neurons, `[B, H, W, C] -> [B, C]`."""
    return mean(nn.Disabled()(top, State(), Call(training=False))[0])


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
    """Classifier of pooled features: one scaled conv1x1, or two on firing rates."""
    widths = [inputs, classes, classes] if spiking else [inputs, classes]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    return nn.Sequential(*(nn.ScaledStdConv(a, b, kernel=1, rngs=rngs) for a, b in pairs))


def _stateless(layers: nn.Sequential) -> State:
    return State(((),) * len(layers.layers), ((),) * len(layers.layers))


def _shape_after(stem: nn.Sequential, shape: tuple[int, ...]) -> tuple[int, ...]:
    # Shapes alone: `eval_shape` traces the stem and computes nothing.
    run = lambda stem, x: stem(x, _stateless(stem), Call(training=False))[0]  # noqa: E731
    return jax.eval_shape(run, stem, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]


_EXPANSION = 4


class ColumnLevel(nnx.Module):
    """Level `B_l` of one column, for `nn.Columns`; `[B, H, W, C] -> [B, H', W', C']`.

        z = Down(lower) + Up(upper)
        z <- z + gamma * DW(PW(Q(PW(DW(Q(z))))))
        z <- z + tail(Q(PW(DW(Q(z)))))

    Args:
        number: index of the level.
        channels: channels of all levels.
        strides: strides between neighbouring levels.
        kernel: side of the depthwise kernels.
        first: True in the first column, which has no upper input.
        norm: `(channels) -> layer`, a normalisation.
        rngs: random streams of the parameters.
        stem: stem of level 0 if each column has its own input, else None.
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
        # Level 0 has no level below it: its lower input is the frame, or the map of a common stem.
        self.down = nn.Sequential() if stem is None else stem
        if number:
            self.down = _fusion(channels[number - 1], width, self.stride, norm, rngs)
        # The first column has no predecessor, and the last level nothing above it.
        upper = None if first or last else channels[number + 1]
        self.up = (
            None
            if upper is None
            else _fusion(
                upper, width, 1, norm, rngs, nn.Fold(bind(upsample_nearest, factor=strides[number]))
            )
        )
        self.block1 = nn.Sequential(
            *_head(width, kernel, rngs), nn.Disabled(), *_tail(width, kernel, rngs)
        )
        self.block2 = nn.Sequential(*_head(width, kernel, rngs), nn.Disabled())
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))  # gamma

    def initial_state(self, lower: tuple[int, ...], upper: tuple[int, ...] | None) -> State:
        """Initial statistics; the arguments are shapes of inputs, `(B, H, W, C)`."""
        down = self.down.initial_state(lower)
        up = self.up.initial_state(upper) if self.up and upper else State()
        return State((), (down.statistics, up.statistics))

    def output_shape(self, lower: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the state; `lower` is that of the lower input, `(B, H, W, C)`."""
        return output_shape(self.down, self.down.initial_state(lower), lower)

    def __call__(
        self, tail: nn.Sequential, lower: Array, upper: Array | None, state: State, call: Call
    ) -> tuple[Array, Aux]:
        """`B_l` of one timestep, `[B, H, W, C]`, and its `Aux`."""
        auxes = {}

        def run(name, layers, x, statistics=None):
            rest = ((),) * len(layers.layers)
            own = State(rest, rest if statistics is None else statistics)
            y, auxes[name] = layers(x, own, call)
            return widen(y)  # sums are float32 whatever the precision of synapses

        z, up_statistics = run("down", self.down, lower[None], state.statistics[0]), ()
        if self.up is not None and upper is not None:
            z = z + run("up", self.up, upper[None], state.statistics[1])
            up_statistics = auxes["up"].statistics
        # Strict promotion refuses to multiply the float32 sum by a parameter of a narrower format.
        z = z + self.scale[...].astype(z.dtype) * run("block1", self.block1, z)
        z = z + run("tail", tail, run("block2", self.block2, z))
        taps = gather(list(auxes.items())).taps
        return z[0], Aux((), (auxes["down"].statistics, up_statistics), taps)


def shared_tail(width: int, kernel: int, *, rngs: nnx.Rngs) -> nn.Sequential:
    """Layers PW_s and DW_s of one level, shared by all columns."""
    return nn.Sequential(*_tail(width, kernel, rngs))


def upsample_nearest(inputs: Array, *, factor: int) -> Array:
    """Nearest-neighbour upsampling, `[N, H, W, C] -> [N, factor H, factor W, C]`."""
    n, h, w, c = inputs.shape
    # A broadcast, whose gradient is a sum over the copies.
    copies = jnp.broadcast_to(inputs[:, :, None, :, None], (n, h, factor, w, factor, c))
    return copies.reshape(n, factor * h, factor * w, c)


def pack_columns(columns: nn.Columns, pack: bool | Storage) -> nn.Columns:
    """A copy of the columns whose convolutions keep input spikes at one bit each.

    Args:
        columns: columns of `ColumnLevel`s; they stay unchanged.
        pack: as `memory.Strategy.pack`; a narrow storage applies to convolutions of real numbers.
    """
    if not pack:
        return columns
    first, later = (
        nnx.List([_pack_level(level, pack) for level in levels])
        for levels in (columns.first, columns.later)
    )
    # The shared tail follows the spikes of block2.
    shared = nnx.List([_pack_layers(tail, pack, spikes=True) for tail in columns.shared])
    return nn.replace(columns, first=first, later=later, shared=shared)


def _pack_level(level: ColumnLevel, pack: bool | Storage) -> ColumnLevel:
    parts = {name: getattr(level, name) for name in ("down", "up", "block1", "block2")}
    packed = {name: _pack_layers(part, pack) for name, part in parts.items() if part is not None}
    return nn.replace(level, **packed)


def _pack_layers(layers: nn.Sequential, pack: Any, *, spikes: bool = False) -> nn.Sequential:
    placed = []
    for layer in layers.layers:
        # A Fold of a plain function, such as upsampling, has no weights and keeps no inputs for
        # them.
        if isinstance(layer, nn.Fold) and isinstance(layer.function, nnx.Module):
            # `pack=True` stores one bit per value, which suits spikes only; a narrow dtype suits
            # any input.
            kept = "spikes" if spikes else None if pack is True else pack
            layer = nn.replace(layer, pack=kept)
        # Only the layer directly behind turned-off neurons has spikes as inputs.
        spikes = isinstance(layer, nn.Disabled)
        placed.append(layer)
    return nn.replace(layers, layers=nnx.List(placed))


def _fusion(inputs, outputs, strides, norm, rngs, *more) -> nn.Sequential:
    kernel = 1 if strides == 1 else 3
    fusion = conv_norm(inputs, outputs, kernel, norm, strides=strides, rngs=rngs)
    return nn.Sequential(nn.Disabled(), *fusion, *more)


def _head(width: int, kernel: int, rngs: nnx.Rngs) -> list[Any]:
    widen = nn.ScaledStdConv(width, _EXPANSION * width, kernel=1, rngs=rngs)
    return [nn.Disabled(), _depthwise(width, kernel, rngs), widen]


def _tail(width: int, kernel: int, rngs: nnx.Rngs) -> list[Any]:
    narrow = nn.ScaledStdConv(_EXPANSION * width, width, kernel=1, rngs=rngs)
    return [narrow, _depthwise(width, kernel, rngs)]


def _depthwise(width: int, kernel: int, rngs: nnx.Rngs) -> nn.Fold:
    # No norm follows directly, so the convolution has a bias.
    return nn.Conv(width, width, kernel=kernel, groups=width, use_bias=True, rngs=rngs)


T_REVSNN_SIZES = {
    "small": TRevSNNSize((96, 192, 384, 512)),
    "tiny": TRevSNNSize((64, 128, 256, 384)),
    "tiny_dvs": TRevSNNSize(
        (32, 64, 128, 256), 3, ((3, 1),), 8, "last", (128, 128, 2), events=True
    ),
}


def t_revsnn(
    *,
    size: str | TRevSNNSize = "small",
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
    memory: Strategy | None = None,
) -> nn.Network:
    """T-RevSNN, `[T, B, H, W, C] -> [T, B, classes]`; `[1, B, classes]` with one head at the end.

        c_l[t] = B_l(c_{l-1}[t], c_{l+1}[t-1]) + alpha_l[t] c_l[t-1],    o[t] = head_t(c_3[t])

    Parameters for 1000 classes: small 32,331,312 and tiny 17,376,912 with deep heads, 29,787,312
    and 15,216,912 with the plain one (29.8M and 15.2M of the paper, by our reading); tiny_dvs
    10,220,364 for 10 classes.

    The names of the heads are ours. `"deep"`, as released, has a classifier of membranes after each
    column but the last, and one of spikes after the last; `column_loss` trains them and
    `readout.last` reads them. `"last"`, of the released event network, has one classifier of spikes
    on `c_3[T] / T`, after the last column. `"spiking"` has the same parameters and classifies the
    spikes of `c_3[t]` after each column (ours; for losses per timestep, such as the TET loss that
    the authors use on events). `"plain"` has one classifier of membranes after the last column.

    Norms are updated once per training step. The released code updates them twice, since its
    backward pass runs the columns again; `norm=functools.partial(nn.BatchNorm, momentum=0.81)`
    moves the statistics as far.

    Memory: the columns are the time axis. `time=None` is `memory.recompute(1)`, the column mode of
    the released code. `time=memory.reversal()` keeps the states of the last column, O(L), and
    floating-point states every 4 columns. With `bits` the states lie on a grid, where reversal is
    exact and alpha is a learned power of two. On the grid, outputs, statistics and gradients have
    the same bits under `memory.store`, the column mode and reversal (on a CPU, with the default
    norm).

    Args:
        size: `"small"`, `"tiny"`, `"tiny_dvs"`, or a `TRevSNNSize`.
        classes: number of outputs.
        rngs: random streams of the parameters.
        channels: channels of the four levels. None, here and below, takes the value of `size`.
        kernel: side of the depthwise kernels.
        stem: `(kernel, stride)` per convolution of the stem.
        columns: T; inputs have T timesteps, or 1 for an image.
        heads: `"deep"`, `"spiking"`, `"last"` or `"plain"`.
        input_shape: `(H, W, C)`; H and W divisible by 4 times the strides of the stem.
        alpha: initial value of every alpha.
        floor: lower bound of `|alpha|` for floating-point states; the error of the reversal grows
            by `1 / |alpha|` per column.
        bits: binary places of the grid; None is floating point, as published.
        magnitude: largest state that must be exact on the grid.
        norm: `(channels) -> layer`, a normalisation.
        memory: memory strategy of the gradient over the columns; its `depth` must be None.

    Raises:
        ValueError: an unknown size or head; a number of channels other than four; a frame that the
            strides do not divide; the errors of `nn.Columns`.

    Reference:
        Hu, Yao, Qiu, Chou, Cai, Qiao, Tian, Xu, Li, "High-Performance Temporal Reversible Spiking
        Neural Networks with O(L) Training Memory and O(1) Inference Cost", 2024, arXiv:2405.16466.
    """
    if isinstance(size, str):
        if size not in T_REVSNN_SIZES:
            raise ValueError(f"t_revsnn knows sizes {sorted(T_REVSNN_SIZES)}, not {size!r}")
        size = T_REVSNN_SIZES[size]
    overrides = {
        "channels": channels and tuple(channels), "kernel": kernel, "columns": columns,
        "stem": stem and tuple(map(tuple, stem)), "heads": heads, "input_shape": input_shape,
    }  # fmt: skip
    size = dataclasses.replace(size, **{k: v for k, v in overrides.items() if v is not None})
    # After overrides: only the final size has to be consistent.
    _check(size)
    states = {"alpha": alpha, "floor": floor, "bits": bits, "magnitude": magnitude}
    body = TRevSNN(size, classes, norm=norm, states=states, rngs=rngs)
    network = nn.Network(body, size.input_shape)
    return network if memory is None else nn.with_memory(network, memory)


def column_loss(outputs: Array, labels: Array, *, label_smoothing: float = 0.1) -> Array:
    """Cross entropy of all columns, with weights that grow with t, plus that of the last column.

        L = sum_{t=1..T} (t / T) CE(o[t], label) + CE(o[T], label)

    Args:
        outputs: logits of deep heads, `[T, B, K]`.
        labels: `[B]`, integers in [0, K).
        label_smoothing: fraction of the target spread evenly over the classes; published: 0.1.

    Returns:
        Loss per example, `[B]`, in nats.
    """
    # One loss per column: each classifier is trained at its own depth in time.
    each = [losses.cross_entropy(o, labels, label_smoothing=label_smoothing) for o in outputs]
    return sum((t + 1) / len(each) * loss for t, loss in enumerate(each)) + each[-1]


def _check(size: TRevSNNSize) -> None:
    if size.heads not in HEADS:
        raise ValueError(f"heads must be one of {', '.join(HEADS)}, got {size.heads!r}")
    if len(size.channels) != len(STRIDES) + 1:
        raise ValueError(f"T-RevSNN has four levels, got channels={size.channels}")
    total = 1
    for stride in (*(s for _, s in size.stem), *STRIDES):
        total *= stride
    if any(n % total for n in size.input_shape[:2]):
        raise ValueError(
            f"frames of {size.input_shape[:2]} cannot be divided by {total}, the product of the "
            "strides of stem and levels, so upsampled maps would not fit: pad the frames, or give "
            "stem= smaller strides"
        )
