"""Ablation of FSpiNN's techniques: each alone, all but each, and strengths of inhibition.

Every row is a run of experiments/stdp_mnist.py with other options. Adding a technique adds its
prerequisites, and removing one removes its dependents: a window requires post-triggered updates, a
potentiation factor requires a window.

Columns: accuracy on the test images; weight updates per training image, all writes of a rule; bytes
of the stored synapses, and `dense`, the same with inhibition as matrices (two through a layer, one
lateral, in the width of the weights), as the paper counts; seconds of training, with evaluation.

Hardware: CPU cores, one run on each
Time: about a minute of a core for a row of 10,000 images and 100 neurons
Expected: with `--images 10000 --assign 5000 --strengths 17.5 240`, seed 0: none 85.0 %, all 83.1 %
    with a fifteenth of the updates; lateral inhibition alone costs 1.5 points, and all techniques
    without it reach 85.8 %; other differences are within the error (0.4 points). Inhibition of 17.5
    in place of 120: 47.8 %. All rows: docs/plasticity.md
Command: python experiments/stdp_ablation.py --data-dir "$SNNJAX_DATA"
All further options go to `snnjax train`. Each core executes one run at a time. Complete runs are
reused and incomplete ones resumed, so the same command continues after a stop. The last line of
stdout is one JSON object; `--out` holds it as table.json, beside the picture.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys

from snnjax import cost, training, viz

EXPERIMENT = pathlib.Path(__file__).with_name("stdp_mnist.py")
OFF = {
    "lateral": False, "post_triggered": False, "window": None, "spikes_per_factor": None, "bits": 32
}  # fmt: skip
ON = {"lateral": True, "post_triggered": True, "window": 10, "spikes_per_factor": 8.0, "bits": 8}
NEEDS = {"window": {"post_triggered"}, "spikes_per_factor": {"post_triggered", "window"}}


def rows(strengths):
    """Fields of the experiment by name of the row."""
    found = {"none": OFF}
    for name in ON:
        brought = {name} | NEEDS.get(name, set())
        found[f"{name} alone"] = {k: (ON if k in brought else OFF)[k] for k in ON}
    found["all"] = ON
    for name in ON:
        taken = {name} | {other for other, needed in NEEDS.items() if name in needed}
        found[f"all but {name}"] = {k: (OFF if k in taken else ON)[k] for k in ON}
    for strength in strengths:
        found[f"all, strength {strength:g}"] = ON | {"strength": strength}
    return found


def option(field):
    """Option of `snnjax train` for a field; boolean fields are true by default."""
    name, value = field[0].replace("_", "-"), field[1]
    if isinstance(value, bool):
        return [] if value else [f"--no-{name}"]
    return [f"--{name}={value}"]


def train(fields, out, rest, core):
    """Result of `snnjax train` for one run, pinned to a core where the system supports it."""
    options = ["--model=fspinn", *itertools.chain.from_iterable(map(option, fields.items()))]
    command = [sys.executable, "-m", "snnjax", "train", str(EXPERIMENT), *options, *rest, "--json"]
    if (out / "result.json").is_file():
        return json.loads((out / "result.json").read_text())
    if (out / "config.json").is_file():
        command = [sys.executable, "-m", "snnjax", "train", "--resume", str(out), "--json"]
    else:
        command += ["--out", str(out)]
    keep = None if core is None else lambda: os.sched_setaffinity(0, {core})
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=keep)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(name, out, report):
    """Row of the table for a run."""
    run = training.Run.open(out)
    experiment = training.config.load_experiment(out / "experiment.py")
    experiment = training.config.override(experiment, run.config())
    network = experiment.learner(experiment)
    records = [r for r in run.records() if r["kind"] == "train"]
    matrices = 1 if experiment.lateral else 2
    return {
        "name": name,
        "accuracy": report["test_accuracy"],
        "updates": statistics.mean(r["weight_updates"] for r in records),
        "spikes": statistics.mean(r["spikes"] for r in records),
        "bytes": cost.unsupervised.synapse_bytes(network),
        "dense": cost.unsupervised.dense_bytes(
            network.neurons, bits=experiment.bits, matrices=matrices
        ),
        "seconds": report["train_seconds"],
    }


def format_row(row):
    """Row of the table as text."""
    return (
        f"{row['name']:26} {row['accuracy']:7.2%} {row['updates']:11,.0f} {row['spikes']:7.1f} "
        f"{row['bytes']:11,} {row['dense']:13,.0f} {row['seconds']:7.0f}"
    )


def picture(table, path):
    """Draws accuracy against updates, one point per row."""
    figure, axes = viz._style.subplots(height=4.0)
    axis = axes[0, 0]
    for row in table:
        colour = viz._style.VERMILION if row["name"] in ("none", "all") else viz._style.BLUE
        place = (row["updates"], 100 * row["accuracy"])
        axis.plot(*place, "o", color=colour, markersize=5)
        axis.annotate(row["name"], place, (5, -3), textcoords="offset points", fontsize=7)
    axis.set_xscale("log")
    axis.margins(0.2, 0.1)
    viz._style.polish(axis)
    viz._style.write(
        axis, title="FSpiNN's techniques", x="weights updated per image", y="test accuracy (%)"
    )
    figure.set_label(f"Test accuracy against weight updates of {len(table)} networks")
    return viz.save(figure, path)


def options():
    """Options of this program, and the remaining ones for `snnjax train`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/stdp_ablation"))
    parser.add_argument("--strengths", nargs="*", type=float, default=[17.5, 60.0, 240.0])
    parser.add_argument("--neurons", type=int, default=100)
    known, rest = parser.parse_known_args()
    return known, [f"--neurons={known.neurons}", *rest]


def main():
    """Trains all rows, prints and draws the table."""
    known, rest = options()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    free = collections.deque(cores)

    def one(name, fields):
        core, out = free.popleft(), known.out / name.replace(",", "").replace(" ", "-")
        try:
            return measure(name, out, train(fields, out, rest, core))
        finally:
            free.append(core)

    print(f"{'':26} {'test':>7} {'updates':>11} {'spikes':>7} {'bytes':>11} {'dense':>13} {'s':>7}")
    table = []
    with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
        jobs = [pool.submit(one, *row) for row in rows(known.strengths).items()]
        try:
            for job in jobs:
                table.append(job.result())
                print(format_row(table[-1]), flush=True)
        finally:
            pool.shutdown(cancel_futures=True)
    (known.out / "table.json").write_text(json.dumps(table, indent=1))
    drawn = picture(table, known.out / "ablation.png")
    print(json.dumps({"rows": table, "picture": str(drawn), "options": rest}))


if __name__ == "__main__":
    main()
