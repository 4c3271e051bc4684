"""Bits and bytes of every model under every memory strategy, recorded before a change to the code.

    record      python experiments/benchmarks/regression.py --record FILE.json
    compare     python experiments/benchmarks/regression.py --compare FILE.json
    times       python experiments/benchmarks/regression.py --times OTHER_CHECKOUT

A case is a slim network of `snnjax.models` in one order under one strategy. It holds the temporary
bytes that XLA plans for the gradient, compiled as training compiles it, the loss of the first step,
and SHA-256 digests of outputs, initial parameters and gradients. Digests know no parameter names, so
that a renamed attribute leaves them as they are. A network that refuses the strategy holds the
class of the error. Recording goes on with a file that is there already.

`--compare` prints every case that differs and exits with 1 if a value differs or bytes rose. A case
that lowers to the recorded program (StableHLO, without names of source lines) with the recorded
arguments is not compiled again; `--full` compiles all of them.

`--times` starts each program of `peers.py` twice, here and from another checkout, and takes their
steps in turn. Only ratios of such a pair say something: a machine's CPU time of a step changes from
one minute to the next by more than a change to the code does.

Hardware: 1 CPU core, float32. Bits are those of one machine, jax version and number of cores.
Time: TIME
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import memory, models, nn, training
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
WORKLOADS, WARM, ROUNDS = ("W1", "W2T4", "W3", "W3R", "W4"), 3, 9
per_step = functools.partial(nn.BatchNorm, over="step")


class Model(NamedTuple):
    """A network, its frames, and the strategies that are tried on it.

    Attributes:
        make: `(rngs, **options) -> network`.
        timesteps: T.
        batch: examples.
        time: options of `order="time"`; None where the model has no such order.
        table: which of `TABLES`.
        still: one frame at every timestep, for models with a static stem.
    """

    make: Callable[..., nn.Network]
    timesteps: int = 4
    batch: int = 4
    time: dict[str, Any] | None = None
    table: str = "few"
    still: bool = False

    def drawn(self, order: str) -> tuple[nn.Network, Array, Array]:
        """The network as written, its frames and its labels."""
        options = {"order": "time", **(self.time or {})} if order == "time" else {}
        network = self.make(rngs=nnx.Rngs(0), **options)
        shape = (1 if self.still else self.timesteps, self.batch, *network.input_shape)
        frames = 3 * jax.random.normal(jax.random.key(1), shape)
        frames = jnp.broadcast_to(frames, (self.timesteps, *shape[1:]))
        return network, frames, jnp.arange(self.batch) % 5


def _slim(make: Callable[..., nn.Network], *arguments: Any, **options: Any) -> Any:
    return functools.partial(make, *arguments, classes=5, **options)


def _neuron(neuron: Callable[..., Any]) -> Model:
    """A multilayer perceptron of some neurons."""
    return Model(_slim(models.mlp, (24,), hidden=(16, 16), neuron=neuron), 6, time={})


def _recurrent() -> nn.Recurrent:
    return nn.Recurrent(nn.LIF(), 16, rngs=nnx.Rngs(2))


NORM, IMAGE = {"norm": per_step}, {"input_shape": (8, 8, 2)}
LOUD = {"norm": functools.partial(nn.BatchNorm, gain=4.0)}  # few neurons of so few fire without
RESNET = {"blocks": (2, 1), "input_shape": (8, 8, 3)}
FORMER = {"depth": 2, "width": 16, "heads": 2, "pools": 1, "expansion": 2, **IMAGE}
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
        time=NORM, table="some", still=True,
    ),
    "rev_resnet floating": Model(_slim(models.rev_resnet, bits=None, **GRID)),
    "rev_resnet parallel": Model(_slim(models.rev_resnet, parallel=True, **GRID)),
    "rev_resnet shared": Model(_slim(models.rev_resnet, sharing="both", **GRID, **NORM), time={}),
    "spikingformer": Model(_slim(models.spikingformer, **FORMER), time=NORM, table="some"),
    "rev_sformer": Model(_slim(models.rev_sformer, **FORMER), time=NORM, table="some"),
    "t_revsnn": Model(_slim(models.t_revsnn, columns=4, **COLUMNS), 1, table="columns"),
    "t_revsnn grid": Model(_slim(models.t_revsnn, columns=3, bits=12, **COLUMNS), 1, table="two"),
    "t_revsnn spiking": Model(_slim(models.t_revsnn, columns=2, heads="spiking", **COLUMNS), 2, table="two"),
    "efficient_lif_vgg": Model(
        _slim(models.efficient_lif_vgg, stages=STAGES, **IMAGE), time={}, table="some", still=True
    ),
    "efficient_lif_vgg channel": Model(
        _slim(models.efficient_lif_vgg, stages=STAGES, sharing="channel", static=False, **IMAGE),
        time={},
    ),
    "efficient_lif_resnet": Model(
        _slim(models.efficient_lif_resnet, stages=((16, 2), (16, 1)), stem=8, **IMAGE),
        time={}, table="some", still=True,
    ),
    "efficient_lif_har": Model(
        _slim(models.efficient_lif_har, (6,), hidden=16), 9, time={}, table="some"
    ),
    "efficient_lif_compat": Model(
        _slim(models.efficient_lif_compat, "vgg16", input_shape=(16, 16, 3)),
        3, time={}, still=True,
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
    for name, neuron in {
        "IF": nn.IF, "PLIF": nn.PLIF, "ALIF": nn.ALIF, "CubaLIF": nn.CubaLIF, "MALIF": nn.MALIF,
        "CoupledLIF": nn.CoupledLIF, "ResetFreeLIF": nn.ResetFreeLIF, "recurrent": _recurrent,
        "PSN": lambda: nn.PSN(6, rngs=nnx.Rngs(2)), "SlidingPSN": lambda: nn.SlidingPSN(order=2),
        "MaskedPSN": lambda: nn.MaskedPSN(6, order=3, rngs=nnx.Rngs(4)), "TurnedOff": nn.TurnedOff,
    }.items()
}  # fmt: skip


def cases() -> dict[str, tuple[str, str, str]]:
    """Model, order and strategy of every case, by `"MODEL | ORDER | STRATEGY"`.

    The first strategy of every model comes before the second of any: half a recording has them all.
    """
    rows = []
    for name, model in MODELS.items():
        for order, texts in TABLES[model.table].items():
            if order == "layer" or model.time is not None:
                rows += [(number, name, order, text) for number, text in enumerate(texts)]
    rows.sort(key=lambda row: row[0])  # a stable sort
    return {" | ".join(row[1:]): row[1:] for row in rows}


@functools.cache
def drawn(name: str, order: str) -> tuple[nn.Network, Array, Array]:
    """Network, frames and labels of a model; kept for its next strategy."""
    return MODELS[name].drawn(order)


def digest(tree: Any) -> str:
    """SHA-256 of the bytes, shapes and types of a tree's leaves, in their order."""
    leaves = map(np.asarray, jax.tree.leaves(tree))
    return _hashed(f"{x.dtype}{x.shape}".encode() + x.tobytes() for x in leaves)


def unordered(tree: Any) -> str:
    """`digest` that renaming, which may change the order of the leaves, leaves as it is."""
    return _hashed(sorted(digest(leaf).encode() for leaf in jax.tree.leaves(tree)))


def _hashed(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:32]


def measured(name: str, order: str, text: str, known: dict[str, Any] | None) -> dict[str, Any]:
    """A case; `known` itself where its program is the same."""
    if not hasattr(memory, "sequence"):  # its name in version 0.1
        text = text.replace("sequence", "whole")
    try:
        network, frames, labels = drawn(name, order)
        network = nn.with_memory(network, memory.parse_strategy(text))
        graphdef, params, others = nnx.split(network, nnx.Param, ...)

        def loss(params: Any, others: Any, state: Any, frames: Array, key: Any) -> Any:
            network = nnx.merge(graphdef, params, others)
            outputs, aux = network(frames, state, training=True, key=key)
            scores = jax.nn.log_softmax(outputs.mean(0))
            # Version 0.1 keeps the peaks of streams among the statistics.
            peak = lambda node: isinstance(node, getattr(nn, "StreamPeak", ()))  # noqa: E731
            moved = jax.tree.leaves(aux.statistics, is_leaf=peak)
            moved = [leaf for leaf in moved if not peak(leaf)]
            return -jnp.take_along_axis(scores, labels[:, None], 1).mean(), (outputs, moved)

        lean = nn.saves_memory(network)
        options = training.compiler_options(training.make_mesh(), memory_scheduler=lean)
        arguments = (params, others, network.initial_state(len(labels)), frames, jax.random.key(2))
        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=options)
        lowered = gradient.lower(*arguments)
    except ValueError as error:
        return {"refused": type(error).__name__}
    found: dict[str, Any] = {
        "program": _hashed([lowered.as_text().encode(), str(options).encode()]),
        "arguments": digest(jax.tree.map(_plain, arguments)),
        "parameters": unordered(params),
    }
    if known and all(known.get(name) == found[name] for name in found):
        return known
    compiled = lowered.compile()
    (value, (outputs, moved)), gradients = compiled(*arguments)
    norm = sum(np.square(x, dtype=np.float64).sum() for x in jax.tree.leaves(gradients))
    return found | {
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "loss": float(value).hex(), "outputs": digest(outputs), "gradient": unordered(gradients),
        "statistics": unordered(moved), "norm": float(np.sqrt(norm)),
    }  # fmt: skip


def _plain(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def about() -> dict[str, Any]:
    """Whatever else bits and bytes depend on."""
    packages = ("jax", "jaxlib", "flax", "numpy")
    device = jax.devices()[0]
    return {name: importlib.metadata.version(name) for name in packages} | {
        "device": f"{device.platform}, {device.device_kind}", "cores": os.cpu_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }  # fmt: skip


def record(path: pathlib.Path, wanted: dict[str, Any]) -> None:
    """Measures what the file does not hold yet; it is written after every case."""
    kept = json.loads(path.read_text()) if path.exists() else {"about": about(), "cases": {}}
    if kept["about"] != about():
        raise SystemExit(f"{path} was recorded by {kept['about']}, this is {about()}: start anew")
    for key, row in wanted.items():
        if key not in kept["cases"]:
            began = time.process_time()
            kept["cases"][key] = measured(*row, None)
            print(f"{time.process_time() - began:6.1f} s  {key}", flush=True)
            beside = path.with_suffix(".part")
            beside.write_text(json.dumps(kept, indent=1))
            beside.replace(path)


def compare(path: pathlib.Path, wanted: dict[str, Any], pattern: str, *, full: bool) -> bool:
    """Prints what differs from a file; True if no value does and no bytes rose."""
    kept = json.loads(path.read_text())
    if kept["about"] != about():
        print(f"recorded by {kept['about']}\nthis is     {about()}")
    before = {key: case for key, case in kept["cases"].items() if re.search(pattern, key)}
    told = {key: "no longer in the table" for key in before.keys() - wanted.keys()}
    counts = dict.fromkeys(("compiled", "same program", "refused", "fewer bytes"), 0)
    for key in (key for key in wanted if key in before):
        old, new = before[key], measured(*wanted[key], None if full else before[key])
        kind = "refused" if "refused" in new else "same program" if new is old else "compiled"
        counts[kind] += 1
        if faults := "; ".join(differences(old, new)):
            told[key] = faults
            print(f"{key:60} {faults}", flush=True)
        elif new.get("temp_bytes", 0) < old.get("temp_bytes", 0):
            counts["fewer bytes"] += 1
            print(f"{key:60} bytes {old['temp_bytes']} -> {new['temp_bytes']}", flush=True)
    print(f"{len(before)} cases of {len(kept['cases'])}: {counts}, {len(told)} worse")
    return not told


def differences(old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Values that are others now, and bytes that rose."""
    if old.get("refused") != new.get("refused"):
        yield f"refused: {old.get('refused', 'no')} -> {new.get('refused', 'no')}"
    elif "refused" not in new:
        for name in ("parameters", "loss", "outputs", "statistics", "gradient"):
            if old[name] != new[name]:
                shown = f" {old['norm']:.9g} -> {new['norm']:.9g}" if name == "gradient" else ""
                yield f"{name} differs{shown}"
        if new["temp_bytes"] > old["temp_bytes"]:
            yield f"bytes rose {old['temp_bytes']} -> {new['temp_bytes']}"


class Program:
    """A process of `peers/ours.py` of a checkout, which takes a step for every line it is sent."""

    def __init__(self, checkout: pathlib.Path, number: int, workload: str):
        file = checkout / "experiments/benchmarks/peers.py"
        spec = importlib.util.spec_from_file_location("peers", file)
        assert spec and spec.loader
        spec.loader.exec_module(peers := importlib.util.module_from_spec(spec))
        self.name = peers.PROGRAMS[workload][0][number]
        command = [sys.executable, str(peers.HERE / "ours.py"), f"snnjax {self.name}", workload]
        places = os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [*command, "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": places},
        )  # fmt: skip
        self.about = self.read()

    def read(self) -> dict[str, Any]:
        """The line that answers."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def step(self) -> float:
        """CPU seconds of one."""
        print(file=self.process.stdin, flush=True)
        return self.read()["cpu"]


def times(other: pathlib.Path) -> None:
    """Prints the CPU time of each program's step, here and there, and their ratio."""
    here = pathlib.Path(__file__).resolve().parents[2]
    print(f"{'':6} {'':34} {'here ms':>9} {'other ms':>9} {'ratio':>6}  temporary MiB")
    for workload in WORKLOADS:
        number = 0
        while True:
            try:
                pair = [Program(tree, number, workload) for tree in (here, other.resolve())]
            except IndexError:
                break
            steps = []
            for turn in range(WARM + ROUNDS):  # memory that is new to a process comes slowly
                taken = {p: p.step() for p in (pair if turn % 2 else pair[::-1])}
                steps += [[taken[p] for p in pair]] * (turn >= WARM)
            for program in pair:
                program.process.communicate()
            medians = [1e3 * statistics.median(column) for column in zip(*steps, strict=True)]
            ratio = statistics.median(a / b for a, b in steps)
            bytes_ = " ".join(f"{p.about['temporary']:9.2f}" for p in pair)
            print(
                f"{workload:6} {pair[0].name:34} {medians[0]:9.1f} {medians[1]:9.1f} {ratio:6.3f}  "
                f"{bytes_}{'' if pair[0].about['loss'] == pair[1].about['loss'] else '  loss!'}",
                flush=True,
            )
            number += 1


def main() -> int:
    """Records or compares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", type=pathlib.Path, help="JSON file to write, or to go on with")
    parser.add_argument("--compare", type=pathlib.Path, help="JSON file to compare with")
    parser.add_argument("--times", type=pathlib.Path, help="checkout to pair CPU times with")
    parser.add_argument("--only", default="", help="cases whose name holds this pattern")
    parser.add_argument("--full", action="store_true", help="compile what lowers as recorded too")
    options = parser.parse_args()
    wanted = {key: row for key, row in cases().items() if re.search(options.only, key)}
    same = True
    if options.record:
        record(options.record, wanted)
    if options.compare:
        same = compare(options.compare, wanted, options.only, full=options.full)
    if options.times:
        times(options.times)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
