"""What the training loop costs above the bare compiled step, on the Fashion-MNIST experiment.

The loop gathers batches, fetches metrics, writes a record every 20 steps and a checkpoint every
500; the bare step gets the same batch, on the device already, over and over, and nobody looks at
what it returns. Blocks of 100 steps of both alternate in one process, from and to steps whose
metrics were waited for; one block in five has a checkpoint in its middle, so that it is written
inside it. Evaluations are left out. CPU time is that of all threads of the process: on a busy
machine it says more than the clock.

Hardware: 2 CPU cores, of which one is used (float32)
Time: about 5 minutes with the core to itself
Expected: at most 5 %
Command: taskset -c 0 python experiments/benchmarks/overhead.py --data-dir "$SNNJAX_DATA"
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import pathlib
import statistics
import tempfile
import time

import jax

from snnjax import training

CHECKPOINT_EVERY, BLOCK, FIRST = 500, 100, 60
FASHION_MNIST = pathlib.Path(__file__).parents[1] / "fashion_mnist.py"


def experiment(path: pathlib.Path, data_dir: str | None) -> training.Experiment:
    """The experiment of a file, with checkpoints every 500 steps and evaluations put off."""
    spec = importlib.util.spec_from_file_location("measured", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fields = {"data_dir": data_dir, "checkpoint_every": CHECKPOINT_EVERY, "epochs": 100}
    return dataclasses.replace(module.config(), **fields, eval_every=100)


class Alternation:
    """Lets the loop run for a block, then the bare step, and so on; asked by the loop to stop."""

    def __init__(self, session: training.Session, blocks: int):
        self.session, self.blocks = session, blocks
        self.batch = training.feed(session.loader, 0, session.mesh)
        self.state = jax.tree.map(jax.numpy.copy, session.state)
        self.step, self.loop, self.bare = 0, [], []
        self.began = _now()

    def __call__(self) -> bool:
        """Counts a step of the loop; runs a bare block where one is due."""
        self.step += 1
        if (self.step - FIRST) % BLOCK:
            return False
        if self.step > FIRST:
            self.loop.append(_since(self.began))
        if len(self.loop) == self.blocks:
            return True
        began = _now()
        for _ in range(BLOCK):
            self.state, _ = self.session.train(self.state, self.batch)
        jax.block_until_ready(self.state)
        self.bare.append(_since(began))
        self.began = _now()
        return False


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(then: tuple[float, float]) -> tuple[float, float]:
    """Seconds per step of a block, on the clock and of the processor."""
    clock, processor = _now()
    return (clock - then[0]) / BLOCK, (processor - then[1]) / BLOCK


def measure(chosen: training.Experiment, *, rounds: int) -> dict:
    """Medians over blocks, and the overhead of all blocks together."""
    session = training.prepare(chosen)
    alternation = Alternation(session, rounds * CHECKPOINT_EVERY // BLOCK)
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run.create(pathlib.Path(folder) / "run", chosen, "")
        training.fit(session, run, stop=alternation)
    found: dict = {"steps": rounds * CHECKPOINT_EVERY, "jax": jax.__version__}
    for place, kind in enumerate(("clock", "cpu")):
        loop, bare = ([block[place] for block in b] for b in (alternation.loop, alternation.bare))
        found[kind] = {
            "loop_median": statistics.median(loop),
            "bare_median": statistics.median(bare),
            "overhead": sum(loop) / sum(bare) - 1,
            "overhead_of_medians": statistics.median(loop) / statistics.median(bare) - 1,
            "loop": loop,
            "bare": bare,
        }
    return found


def main() -> None:
    """Prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--rounds", type=int, default=1, help="windows of 500 steps")
    parser.add_argument("--experiment", type=pathlib.Path, default=FASHION_MNIST)
    options = parser.parse_args()
    found = measure(experiment(options.experiment, options.data_dir), rounds=options.rounds)
    print(f"{'per step':<12}{'loop':>12}{'bare':>12}{'overhead':>12}{'of medians':>12}")
    for kind in ("clock", "cpu"):
        row = found[kind]
        times = f"{row['loop_median'] * 1e3:>9.2f} ms{row['bare_median'] * 1e3:>9.2f} ms"
        print(f"{kind:<12}{times}{row['overhead']:>12.1%}{row['overhead_of_medians']:>12.1%}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
