"""Slim networks of every family of `snnjax.models`, and strategies to try; for `regression.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import models, nn
from snnjax.typing import Array

PACK, EACH, ROOT = "pack=True", "recompute(1)", "recompute(sqrt)"
NAMED = "recompute(1, keep=('currents',))"
LEVELS = f"recompute(sqrt, inner={EACH})"
LAYER = (
    *("as written", PACK, "pack='bfloat16'", f"depth=store, {PACK}", f"depth={EACH}"),
    *(f"depth={scan}, {PACK}" for scan in (EACH, NAMED, ROOT, LEVELS, "reverse")),
    *("time=store", "time=recompute(2)", "time=reverse", f"time=reverse(refresh=2), {PACK}"),
    *(f"time=recompute(2), depth={EACH}, {PACK}", f"time=reverse, depth=reverse, {PACK}"),
)
TIME = (
    *("as written", PACK, "time=store", "time=recompute(2)", "time=reverse", f"depth={EACH}"),
    *(f"time={scan}, {PACK}" for scan in (EACH, ROOT, LEVELS, f"recompute(sqrt, inner={LEVELS})")),
    *(f"time=recompute({every}, inner=sequence), {PACK}" for every in ("sqrt", 2)),
    *(f"time=recompute(2, inner=sequence, keep=('currents',)), {PACK}", f"depth={EACH}, {PACK}"),
    *(f"time={ROOT}, depth={EACH}, {PACK}", f"time=recompute(2), depth=reverse, {PACK}"),
)
TABLES = {
    "all": {"layer": LAYER, "time": TIME},
    "some": {
        "layer": (
            *("as written", PACK, f"depth=store, {PACK}", "time=reverse"),
            *(f"depth={scan}, {PACK}" for scan in (EACH, NAMED, LEVELS, "reverse")),
        ),
        "time": (
            *("as written", f"time={LEVELS}, {PACK}", f"time=recompute(2, inner=sequence), {PACK}"),
            *(f"time={ROOT}, depth={EACH}, {PACK}", f"time={ROOT}, depth=reverse, {PACK}"),
        ),
    },
    "few": {
        "layer": ("as written", f"depth={EACH}, {PACK}", "time=recompute(2)", "time=reverse"),
        "time": ("as written", f"time={ROOT}, depth={EACH}, {PACK}", "time=recompute(2)"),
    },
    "columns": {"layer": ("as written", PACK, "time=store", "time=reverse", f"depth={EACH}")},
    "two": {"layer": ("as written", f"time=reverse, {PACK}")},
}
per_step = functools.partial(nn.BatchNorm, over="step")


class Model(NamedTuple):
    """A network, its frames, and its table of strategies.

    Attributes:
        make: `(rngs, **options) -> network`.
        timesteps: T.
        batch: examples.
        time: options of `order="time"`; None where the model has no such order.
        table: key of `TABLES`.
        static_frames: repeat one frame, for models whose stem runs once.
    """

    make: Callable[..., nn.Network]
    timesteps: int = 4
    batch: int = 4
    time: dict[str, Any] | None = None
    table: str = "few"
    static_frames: bool = False

    def draw(self, order: str) -> tuple[nn.Network, Array, Array]:
        """The network as written, its frames and its labels."""
        options = {"order": "time", **(self.time or {})} if order == "time" else {}
        network = self.make(rngs=nnx.Rngs(0), **options)
        shape = (1 if self.static_frames else self.timesteps, self.batch, *network.input_shape)
        frames = 3 * jax.random.normal(jax.random.key(1), shape)
        frames = jnp.broadcast_to(frames, (self.timesteps, *shape[1:]))
        return network, frames, jnp.arange(self.batch) % 5


def _slim(make: Callable[..., nn.Network], *arguments: Any, **options: Any) -> Any:
    return functools.partial(make, *arguments, classes=5, **options)


def _neuron(neuron: Callable[..., Any]) -> Model:
    """Multilayer perceptron with a kind of neuron."""
    return Model(_slim(models.mlp, (24,), hidden=(16, 16), neuron=neuron), 6, time={})


def _recurrent() -> nn.Recurrent:
    return nn.Recurrent(nn.LIF(), 16, rngs=nnx.Rngs(2))


NORM, IMAGE = {"norm": per_step}, {"input_shape": (8, 8, 2)}
LOUD = {"norm": functools.partial(nn.BatchNorm, gain=4.0)}  # without it too few neurons fire
RESNET = {"blocks": (2, 1), "input_shape": (8, 8, 3)}
FORMER = {"depth": 2, "width": 16, "heads": 2, "pools": 1, "expansion": 2, **IMAGE}
DRIVEN = {k: v for k, v in FORMER.items() if k != "heads"}
SEW = {"widths": (8, 16), "blocks": (2, 1), "input_shape": (16, 16, 3)}
STAGES = ((8, 8), (16, 16))
COLUMNS = {"channels": (8,) * 4, "stem": ((3, 1),), "kernel": 3, **IMAGE}
GRID = {"halves": (8, 8), "neuron": nn.LIF, **RESNET}
ASA = {"timesteps": 6, "channels": (8,) * 3, "hidden": 16, **IMAGE, **LOUD}
MA = {
    "linear_norm": LOUD["norm"], "attention": functools.partial(nn.MA, "TCSA"),
    "linear_attention": functools.partial(nn.MA, "TA"),
}  # fmt: skip
MODELS = {
    "mlp": Model(_slim(models.mlp, (8, 8, 1), hidden=(16, 16)), 9, time={}, table="all"),
    "conv_net": Model(
        _slim(models.conv_net, (8, 8, 1), channels=(8, 8), hidden=16, dropout=0.2),
        time=NORM, table="some",
    ),
    "vgg": Model(_slim(models.vgg, stages=((8,), (16, 16)), **IMAGE), time=NORM, table="all"),
    "ms_resnet": Model(_slim(models.ms_resnet, widths=(8, 16), **RESNET), time=NORM, table="some"),
    "rev_resnet": Model(
        _slim(models.rev_resnet, halves=(8, 8), static=True, **RESNET),
        time=NORM, table="some", static_frames=True,
    ),
    "rev_resnet floating": Model(_slim(models.rev_resnet, bits=None, **GRID)),
    "rev_resnet parallel": Model(_slim(models.rev_resnet, parallel=True, **GRID)),
    "rev_resnet shared": Model(_slim(models.rev_resnet, sharing="both", **GRID, **NORM), time={}),
    "spikingformer": Model(_slim(models.spikingformer, **FORMER), time=NORM, table="some"),
    "rev_sformer": Model(_slim(models.rev_sformer, **FORMER), time=NORM, table="some"),
    "spikformer": Model(_slim(models.spikformer, **FORMER), time=NORM),
    "spike_driven_transformer": Model(
        _slim(models.spike_driven_transformer, **DRIVEN), time=NORM, table="some"
    ),
    "sew_resnet": Model(_slim(models.sew_resnet, **SEW), time=NORM, static_frames=True),
    "sew_resnet iand": Model(
        _slim(models.sew_resnet, join="iand", **SEW), time=NORM, table="some", static_frames=True
    ),
    "t_revsnn": Model(_slim(models.t_revsnn, columns=4, **COLUMNS), 1, table="columns"),
    "t_revsnn grid": Model(_slim(models.t_revsnn, columns=3, bits=12, **COLUMNS), 1, table="two"),
    "t_revsnn spiking": Model(
        _slim(models.t_revsnn, columns=2, heads="spiking", **COLUMNS), 2, table="two"
    ),
    "efficient_lif_vgg": Model(
        _slim(models.efficient_lif_vgg, stages=STAGES, **IMAGE),
        time={}, table="some", static_frames=True,
    ),
    "efficient_lif_vgg channel": Model(
        _slim(models.efficient_lif_vgg, stages=STAGES, sharing="channel", static=False, **IMAGE),
        time={},
    ),
    "efficient_lif_resnet": Model(
        _slim(models.efficient_lif_resnet, stages=((16, 2), (16, 1)), stem=8, **IMAGE),
        time={}, table="some", static_frames=True,
    ),
    "efficient_lif_har": Model(
        _slim(models.efficient_lif_har, (6,), hidden=16), 9, time={}, table="some"
    ),
    "efficient_lif_compat": Model(
        _slim(models.efficient_lif_compat, "vgg16", input_shape=(16, 16, 3)),
        3, time={}, static_frames=True,
    ),
    "asa_snn": Model(_slim(models.asa_snn, **ASA), 6, table="some"),
    "asa_snn ma": Model(_slim(models.asa_snn, **ASA, **MA), 6),
    "asa_snn_five": Model(
        _slim(
            models.asa_snn_five, timesteps=4, channels=(8,) * 5, hidden=16, votes=2,
            input_shape=(32, 32, 2), neuron=functools.partial(nn.PLIF, threshold=0.3), **LOUD,
        ),
        table="some",
    ),
} | {
    f"mlp {name}": _neuron(neuron)
    # Names of cases are keys of recordings.
    for name, neuron in {
        "IF": nn.IF, "PLIF": nn.PLIF, "ALIF": nn.ALIF, "CubaLIF": nn.CubaLIF, "MALIF": nn.MALIF,
        "CoupledLIF": nn.CoupledLIF, "ResetFreeLIF": nn.ResetFreeLIF, "recurrent": _recurrent,
        "PSN": lambda: nn.PSN(6, rngs=nnx.Rngs(2)), "SlidingPSN": lambda: nn.SlidingPSN(order=2),
        "PSN of order 3": lambda: nn.PSN(6, order=3, rngs=nnx.Rngs(4)), "Disabled": nn.Disabled,
    }.items()
}  # fmt: skip


def cases() -> dict[str, tuple[str, str, str]]:
    """Model, order and strategy of every case, by `"MODEL | ORDER | STRATEGY"`.

    Sorted by rank in the tables, so that an incomplete recording covers every model.
    """
    rows = []
    for name, model in MODELS.items():
        for order, texts in TABLES[model.table].items():
            if order == "layer" or model.time is not None:
                rows += [(number, name, order, text) for number, text in enumerate(texts)]
    rows.sort(key=lambda row: row[0])
    return {" | ".join(row[1:]): row[1:] for row in rows}


@functools.cache
def draw(name: str, order: str) -> tuple[nn.Network, Array, Array]:
    """Network, frames and labels of a model, cached for its next strategy."""
    return MODELS[name].draw(order)
