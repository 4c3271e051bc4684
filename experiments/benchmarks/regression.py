"""Values and bytes of every model under every memory strategy, before and after a change.

    record      python experiments/benchmarks/regression.py --record FILE.json
    compare     python experiments/benchmarks/regression.py --compare FILE.json
    times       python experiments/benchmarks/regression.py --times OTHER_CHECKOUT

A case is one slim network of `regression_models.py` in one order under one strategy. It records the
temporary bytes that XLA plans for the gradient, compiled as training compiles it, the loss of the
first step, and SHA-256 digests of initial parameters, outputs, running statistics and gradients, or
the class of the error that refuses the strategy. Digests hold no parameter names, so renaming an
attribute does not change them. An interrupted recording continues where it stopped.

`--compare` prints every difference and exits with 1 if a value differs or bytes rise. It lowers
each case first: the same program (StableHLO without names and source lines) on the same arguments
has the same values and bytes and is not compiled; `--full` compiles it all the same. `--record
--lower` records programs alone, which is much faster; values can be added later. Setting
$JAX_COMPILATION_CACHE_DIR makes repeated runs faster.

`--times` runs every program of `peers.py` that is ours in two checkouts, alternating step by step.
Only ratios within such a pair are comparable: CPU time drifts more between two runs than a change
to the code moves it.

Hardware: 1 CPU core, float32. Bits hold for one machine, one jax version and one number of cores.
Time: 12 CPU minutes if the programs are equal, 40 to record (extrapolated)
Command: python experiments/benchmarks/regression.py --compare FILE.json
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from regression_models import cases, draw
from regression_times import time_pairs

from snnjax import memory, nn, training
from snnjax.typing import Array


def digest(tree: Any) -> str:
    """SHA-256 of the bytes, shapes and types of a tree's leaves, in their order."""
    leaves = map(np.asarray, jax.tree.leaves(tree))
    return _hash(f"{x.dtype}{x.shape}".encode() + x.tobytes() for x in leaves)


def unordered_digest(tree: Any) -> str:
    """`digest` of the leaves in any order, since renaming attributes reorders them."""
    return _hash(sorted(digest(leaf).encode() for leaf in jax.tree.leaves(tree)))


def _hash(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:32]


def measure_case(
    name: str, order: str, text: str, *, known: dict[str, Any] | None = None, lower: bool = False
) -> dict[str, Any]:
    """Values and bytes of one case.

    Args:
        name: model, a key of `MODELS`.
        order: "layer" or "time".
        text: strategy, as `memory.parse_strategy` reads it.
        known: result to return as it is if the program and its arguments are the same.
        lower: stop before compiling, with the digest of the program alone.
    """
    if not hasattr(memory, "sequence"):  # its name in version 0.1
        text = text.replace("sequence", "whole")
    try:
        network, frames, labels = draw(name, order)
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
        options = training.sharding.compiler_options(
            training.sharding.make_mesh(), memory_scheduler=lean
        )
        arguments = (params, others, network.initial_state(len(labels)), frames, jax.random.key(2))
        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=options)
        lowered = gradient.lower(*arguments)
    except ValueError as error:
        return {"refused": type(error).__name__}
    found: dict[str, Any] = {
        "program": _hash([_strip_names(lowered.as_text()).encode(), str(options).encode()]),
        "arguments": digest(jax.tree.map(_key_data, arguments)),
        "parameters": unordered_digest(params),
    }
    if known and all(known.get(name) == found[name] for name in found):
        return known
    if lower:
        return found
    compiled = lowered.compile()
    analysis = compiled.memory_analysis()
    assert analysis, "this backend does not report the memory of compiled code"
    (value, (outputs, moved)), gradients = compiled(*arguments)
    norm = sum(np.square(x, dtype=np.float64).sum() for x in jax.tree.leaves(gradients))
    return found | {
        "temp_bytes": analysis.temp_size_in_bytes,
        "loss": float(value).hex(), "outputs": digest(outputs), "norm": float(np.sqrt(norm)),
        "statistics": unordered_digest(moved), "gradient": unordered_digest(gradients),
    }  # fmt: skip


def _strip_names(program: str) -> str:
    """StableHLO text with functions numbered and without the paths of results."""
    program = re.sub(r'jax\.result_info = "[^"]*"', "", program)
    numbers: dict[str, str] = {}
    # The target of a custom call stays: another target is another program.
    names = r'(?<!custom_call )@("[^"]*"|[\w.$-]+)'
    return re.sub(names, lambda m: numbers.setdefault(m[0], f"@{len(numbers)}"), program)


def _key_data(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def environment() -> dict[str, Any]:
    """Versions and device, on which bits and bytes depend."""
    packages = ("jax", "jaxlib", "flax", "numpy")
    device = jax.devices()[0]
    return {name: importlib.metadata.version(name) for name in packages} | {
        "device": f"{device.platform}, {device.device_kind}", "cores": os.cpu_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }  # fmt: skip


def record(path: pathlib.Path, wanted: dict[str, Any], *, lower: bool) -> None:
    """Adds the missing cases to a file, which is written after each of them."""
    last = "program" if lower else "loss"
    kept = (
        json.loads(path.read_text())
        if path.exists()
        else {"environment": environment(), "cases": {}}
    )
    if kept["environment"] != environment():
        raise SystemExit(
            f"{path} was recorded by {kept['environment']}, this is {environment()}: start anew"
        )
    for key, row in wanted.items():
        if not kept["cases"].get(key, {}).keys() & {last, "refused"}:
            began = time.process_time()
            kept["cases"].setdefault(key, {}).update(measure_case(*row, lower=lower))
            print(f"{time.process_time() - began:6.1f} s  {key}", flush=True)
            beside = path.with_suffix(".part")
            beside.write_text(json.dumps(kept, indent=1))
            beside.replace(path)


def compare(path: pathlib.Path, wanted: dict[str, Any], pattern: str, *, full: bool) -> bool:
    """Prints differences from a file; True if all values are equal and no bytes rose."""
    kept = json.loads(path.read_text())
    if kept["environment"] != environment():
        full = True  # another compiler may compile an equal program differently
        print(f"recorded by {kept['environment']}\nthis is     {environment()}")
    before = {key: case for key, case in kept["cases"].items() if re.search(pattern, key)}
    worse = dict.fromkeys(before.keys() - wanted.keys(), "no longer in the table")
    counts = dict.fromkeys(("compiled", "same program", "refused", "fewer bytes"), 0)
    for key in (key for key in wanted if key in before):
        old = before[key]
        new = measure_case(*wanted[key], known={} if full else old)
        kind = "refused" if "refused" in new else "same program" if new is old else "compiled"
        counts[kind] += 1
        if faults := "; ".join(differences(old, new)):
            worse[key] = faults
            print(f"{key:60} {faults}", flush=True)
        elif new.get("temp_bytes", 0) < old.get("temp_bytes", 0):
            counts["fewer bytes"] += 1
            print(f"{key:60} bytes {old['temp_bytes']} -> {new['temp_bytes']}", flush=True)
    print(f"{len(before)} cases of {len(kept['cases'])}: {counts}, {len(worse)} worse")
    return not worse


def differences(old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """Descriptions of the values that changed and of bytes that rose."""
    if old.get("refused") != new.get("refused"):
        yield f"refused: {old.get('refused', 'no')} -> {new.get('refused', 'no')}"
    elif "refused" in new or old is new:
        return
    elif "loss" not in old:
        yield "another program, and the recorded one was never run: record it without --lower"
    else:
        for name in ("parameters", "loss", "outputs", "statistics", "gradient"):
            if old[name] != new[name]:
                shown = f" {old['norm']:.9g} -> {new['norm']:.9g}" if name == "gradient" else ""
                yield f"{name} differs{shown}"
        if new["temp_bytes"] > old["temp_bytes"]:
            yield f"bytes rose {old['temp_bytes']} -> {new['temp_bytes']}"


def main() -> int:
    """Records, compares or measures times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", type=pathlib.Path, help="JSON file to write or to complete")
    parser.add_argument("--compare", type=pathlib.Path, help="JSON file to compare with")
    parser.add_argument("--times", type=pathlib.Path, help="checkout to pair CPU times with")
    parser.add_argument("--only", default="", help="regular expression; cases whose name matches")
    parser.add_argument("--lower", action="store_true", help="record programs without values")
    parser.add_argument("--full", action="store_true", help="compile equal programs too")
    options = parser.parse_args()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    wanted = {key: row for key, row in cases().items() if re.search(options.only, key)}
    same = True
    if options.record:
        record(options.record, wanted, lower=options.lower)
    if options.compare:
        same = compare(options.compare, wanted, options.only, full=options.full)
    if options.times:
        time_pairs(options.times, options.only)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
