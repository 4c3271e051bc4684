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

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from snnjax import losses, memory, nn
from snnjax.models.t_revsnn_body import HEADS, STRIDES, TRevSNN, TRevSNNSize
from snnjax.typing import Array, Scan

__all__ = ["T_REVSNN_SIZES", "TRevSNN", "TRevSNNSize", "column_loss", "t_revsnn"]

T_REVSNN_SIZES = {
    "small": TRevSNNSize((96, 192, 384, 512)),
    "tiny": TRevSNNSize((64, 128, 256, 384)),
    "tiny_dvs": TRevSNNSize(
        (32, 64, 128, 256), 3, ((3, 2),), 8, "spiking", (128, 128, 2), events=True
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
    a (learned) power of two. On the grid outputs, statistics and gradients have the same bits under
    `memory.store`, the column mode and reversal (on a CPU, with the norm as it is).

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
            f"frames of {size.input_shape[:2]} cannot be divided by {total}, as the stem and the "
            "levels do, so that what comes back up would not fit: pad them, or give stem= smaller "
            "strides"
        )
