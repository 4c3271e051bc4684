"""Conversion and evaluation of a trained network, by snnjax and by spikingjelly's `ann2snn`.

The network is that of a run of `experiments/rmp_fashion_mnist.py`. A step measures thresholds on
training images, converts, and evaluates the 10,000 test images at T = 8. Each program is a process
on `--cores` cores; all exist at once, and each takes one step in turn, in a rotating order, so that
other load on the machine affects all of them. `snnjax` and both programs of spikingjelly compute
one function, as their losses show; `half a threshold` has snnjax's default, the better one.

The table lists for each program: accuracy and loss, median CPU and wall time of a step, the median
over rounds of the ratio to spikingjelly in its usual form, one timestep per call, and the wall time
of the first step, which compiles.

Hardware: 2 CPU cores, busy with other work (float32, jax 0.10.2, spikingjelly 2.0.0, torch 2.14.1)
Time: 19 minutes for three rounds of three programs
Expected: measured once, `--rounds 3` without `half a threshold`, CPU and wall seconds: snnjax 19.6,
    18.9; spikingjelly 31.3, 43.6, multi-step 54.4, 40.9. Ratio of snnjax to spikingjelly 0.62 (CPU)
    and 0.64 (wall). Loss 2.29735 for all. Accuracy 10.18 % for all: with thresholds at the maxima
    and no shift, T = 8 is too short for this network (`rmp_fashion_mnist.py` has its curve)
Command: python experiments/benchmarks/conversion.py runs/rmp --torch-python VENV/bin/python
The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile

import jax.numpy as jnp
import numpy as np
from peers import Program

from snnjax import data, training

FILE = "converters.py"
OURS = ("snnjax", "snnjax, half a threshold")
THEIRS = ("spikingjelly", "spikingjelly, multi-step")
KINDS = {"conv": "conv", "linear": "linear", "avgpool": "pool", "flatten": "flatten"}


def described(net) -> dict[str, np.ndarray]:
    """Kinds and kernels of the layers in sequence of a source."""
    layers = [layer for layer in net.body.layers if layer.name != "dropout"]
    kernels = [layer.function.kernel[...] for layer in layers if layer.name in ("conv", "linear")]
    arrays = {f"kernel{i}": np.asarray(kernel) for i, kernel in enumerate(kernels)}
    kinds = [KINDS.get(layer.name, layer.name) for layer in layers]
    return arrays | {"kinds": np.array(kinds), "synapses": np.array(len(kernels))}


def write(path: pathlib.Path, options: argparse.Namespace) -> None:
    """Writes the network of a run, its images and the sizes for the programs."""
    run = training.Run.open(options.run)
    session = training.prepare(run.experiment(), training=False)
    state = training.checkpoints.load_newest(run.checkpoints, session.state, warn=print)
    test, train = session.dataset.test, session.dataset.train
    pixels = lambda split, n: np.asarray(  # noqa: E731
        data.rescale(jnp.asarray(split.take(np.arange(n)).inputs), 1 / 255)
    )
    np.savez(
        path,
        images=pixels(test, options.images),
        labels=np.asarray(test.labels[: options.images]),
        calibration=pixels(train, options.calibration),
        batch=options.batch,
        timesteps=options.timesteps,
        **described(session.program.network(state)),
    )


def measure(path: pathlib.Path, options: argparse.Namespace) -> list[Program]:
    """Programs with the times of their steps."""
    wanted = [(name, sys.executable) for name in OURS]
    if options.torch_python:
        wanted += [(name, options.torch_python) for name in THEIRS]
    wanted = [row for row in wanted if not options.only or row[0] in options.only]
    programs = [Program(name, python, FILE, str(path), options.cores) for name, python in wanted]
    try:
        for turn in range(options.rounds):
            first = turn % len(programs)
            for program in programs[first:] + programs[:first]:
                program.step(counts=True)
    finally:
        for program in programs:
            program.close()
    return programs


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="a run of experiments/rmp_fashion_mnist.py")
    parser.add_argument("--torch-python", help="an interpreter that has spikingjelly")
    parser.add_argument("--only", nargs="+", choices=(*OURS, *THEIRS))
    parser.add_argument("--timesteps", type=int, default=8)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.npz"
        write(path, options)
        programs = measure(path, options)
    base = next((p for p in programs if p.name == THEIRS[0]), programs[0])
    rows = []
    titles = ("accuracy", "loss", "CPU s", "wall s", "ratio", "first s")
    print(f"{'':26}" + "".join(f"{title:>10}" for title in titles))
    for program in programs:
        row = {
            "program": program.name,
            **{key: program.about[key] for key in ("library", "accuracy", "loss")},
            **{what: program.median(what) for what in ("cpu", "wall")},
            **{f"{what}_ratio": program.ratio(base, what) for what in ("cpu", "wall")},
            "first": program.about["first"]["wall"],
        }
        rows.append(row)
        print(
            f"{program.name:26}{100 * row['accuracy']:10.2f}{row['loss']:10.5f}{row['cpu']:10.2f}"
            f"{row['wall']:10.2f}{row['wall_ratio']:10.2f}{row['first']:10.2f}"
        )
    print(json.dumps({"rows": rows, "base": base.name, "cores": options.cores}))


if __name__ == "__main__":
    main()
