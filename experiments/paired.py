"""Trains an experiment under several values of one option, over the same folds and seeds.

All values use the same data and the same seeds, so the comparison is paired: the error is the
standard error of the differences from the first value. With folds, the pairs are folds, each
averaged over the seeds (which share its test examples); without folds, the pairs are seeds.

Command: python experiments/paired.py experiments/asa_snn.py --vary attention none half asa
    --folds 5 --seeds 3 --data-dir "$SNNJAX_DATA"
All further options go to `snnjax train`. Each core executes one run at a time.
The last line of stdout is one JSON object: for each value `accuracy`, `difference`, `error`,
`nasfr` and `runs`, a list of `[fold, seed, accuracy, nasfr, directory]`; and total `seconds`. The
runs are in `--out`, as VALUE-FOLD-SEED: `snnjax redundancy` compares two of them.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import os
import statistics
import subprocess
import sys
import time


def options():
    """Options of this program, and the remaining ones for `snnjax train`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("--vary", nargs="+", required=True, metavar=("OPTION", "VALUE"))
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/paired")
    known, rest = parser.parse_known_args()
    if len(known.vary) < 3:
        parser.error("--vary needs the name of an option and two values or more")
    if max(known.folds, known.seeds) < 2:
        parser.error("an error needs two seeds or folds: --seeds 3")
    return known, rest


def train(experiment, options, core):
    """Result of `snnjax train` for one run, pinned to a core where the system supports it."""
    command = [sys.executable, "-m", "snnjax", "train", experiment, "--json", *options]
    keep = None if core is None else lambda: os.sched_setaffinity(0, {core})
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=keep)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def runs(known, rest):
    """Yields `(value, fold, seed, report)` of all runs in the order of completion."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    free = collections.deque(cores)

    def one(seed, fold, value):
        core = free.popleft()
        chosen = [f"--{known.vary[0].replace('_', '-')}", value, "--seed", str(seed), *rest]
        chosen += ["--fold", str(fold)] if known.folds else []
        chosen += ["--out", f"{known.out}/{value}-{fold}-{seed}"]
        try:
            return value, fold, seed, train(known.experiment, chosen, core)
        finally:
            free.append(core)

    plan = itertools.product(range(known.seeds), range(known.folds or 1), known.vary[1:])
    with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
        jobs = [pool.submit(one, *each) for each in plan]
        try:
            for job in concurrent.futures.as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def compare(found, values, by_fold):
    """Means of each value, and its paired differences from the first value."""

    def means(value, field):
        units = collections.defaultdict(list)
        for name, fold, seed, report in found:
            if name == value:
                units[fold if by_fold else seed].append(report[field])
        return [statistics.mean(units[unit]) for unit in sorted(units)]

    table, first = {}, means(values[0], "test_accuracy")
    for value in values:
        own = means(value, "test_accuracy")
        differences = [a - b for a, b in zip(own, first, strict=True)]
        table[value] = {
            "accuracy": statistics.mean(own),
            "difference": statistics.mean(differences),
            "error": statistics.stdev(differences) / len(differences) ** 0.5,
            "nasfr": statistics.mean(means(value, "nasfr")),
            "runs": [
                [fold, seed, report["test_accuracy"], report["nasfr"], report["run"]]
                for name, fold, seed, report in found
                if name == value
            ],
        }
    return table


def main():
    """Trains all runs and prints the comparison."""
    (known, rest), began, found = options(), time.perf_counter(), []
    for value, fold, seed, report in runs(known, rest):
        found.append((value, fold, seed, report))
        summary = f"accuracy {report['test_accuracy']:.2%}  NASFR {report['nasfr']:.4f}"
        print(f"{value:8} fold {fold} seed {seed}  {summary}  {report['run']}", flush=True)
    table = compare(found, known.vary[1:], known.folds > 1)
    base = table[known.vary[1]]["nasfr"]
    for value, row in table.items():
        accuracy = f"{row['accuracy']:.2%} ({row['difference']:+.2%}, error {row['error']:.2%})"
        print(f"{value:8} {accuracy}  NASFR {row['nasfr']:.4f} ({row['nasfr'] / base - 1:+.1%})")
    print(json.dumps(table | {"seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
