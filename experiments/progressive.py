"""Converts the network of a run layer by layer, by progressive tandem learning.

Command: python experiments/progressive.py runs/ptl_mnist runs/ptl_mnist-spiking --timesteps 4
The same command goes on with a conversion that was stopped. The last line of stdout is one JSON
object: metrics on the test examples of the networks `source`, `primitive` (converted without
training) and `spiking`, `thresholds`, `epochs` over all stages, and `seconds` of this call.
"""

import argparse
import dataclasses
import json
import time

from snnjax import training
from snnjax.training import progressive


def options():
    """Options of this program: those of `progressive.Options` by their types."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("out")
    for field in dataclasses.fields(progressive.Options):
        required = field.default is dataclasses.MISSING
        kind = int if required else type(field.default)
        default = None if required else field.default
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=kind, required=required, default=default)
    return parser.parse_args()


def show(record):
    """Prints evaluations and thresholds as they come."""
    if record["kind"] in ("eval", "threshold"):
        print(json.dumps(record), flush=True)


def main() -> None:
    """Converts, or goes on."""
    began, given = time.perf_counter(), vars(options())
    source, out = training.Run.open(given.pop("run")), given.pop("out")
    result = progressive.train(source, out, progressive.Options(**given), report=show, warn=print)
    done = {
        **result.metrics,
        "thresholds": result.progress.thresholds,
        "epochs": result.progress.epoch,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(done))


if __name__ == "__main__":
    main()
