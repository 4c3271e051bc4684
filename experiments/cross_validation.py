"""Trains an experiment on each of its folds; prints mean accuracy and standard error.

The experiment has a field `fold`; all further options go to `snnjax train`.

Command: python experiments/cross_validation.py experiments/nmnist.py --data-dir "$SNNJAX_DATA"
The last line of stdout is one JSON object: `accuracies`, `mean`, `standard_error`, `seconds`.
"""

import json
import statistics
import subprocess
import sys
import time

FOLDS = 5


def train(experiment: str, fold: int, options: list[str]) -> float:
    """Test accuracy of one fold, trained in a process of its own."""
    command = [sys.executable, "-m", "snnjax", "train", experiment, "--fold", str(fold), "--json"]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])["test_accuracy"]


def main() -> None:
    """Runs all folds in sequence."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python experiments/cross_validation.py EXPERIMENT.py [options of train]")
    start, accuracies = time.perf_counter(), []
    for fold in range(FOLDS):
        accuracies.append(train(sys.argv[1], fold, sys.argv[2:]))
        print(f"fold {fold}: {accuracies[-1]:.2%}", flush=True)
    mean = statistics.mean(accuracies)
    error = statistics.stdev(accuracies) / FOLDS**0.5
    print(f"mean {mean:.2%}, standard error {error:.2%}")
    seconds = round(time.perf_counter() - start, 1)
    result = {"accuracies": accuracies, "mean": mean, "standard_error": error, "seconds": seconds}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
