"""Overhead of the training loop over the compiled step, on the Fashion-MNIST experiment.

The loop gathers batches, fetches metrics, writes a record every 20 steps and a checkpoint every
500; the bare step receives the same batch, already on the device, and its results are not read.
Blocks of 100 steps of both alternate in one process, and begin and end at steps whose metrics were
waited for; one block in five has a checkpoint in its middle, so that writing falls into the block.
Evaluations are excluded. CPU time is that of all threads of the process: on a busy machine it is
more reliable than wall time.

Hardware: 2 CPU cores, of which one is used (float32)
Time: about 5 minutes on an idle core
Expected: at most 5 % (500 steps of each, one checkpoint, 159 ms a bare step: 3.8 % of wall time and
    of processor time, all blocks together; single blocks vary by 5 %)
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

LOG_EVERY = 20  # blocks begin and end at steps whose metrics were waited for
FASHION_MNIST = pathlib.Path(__file__).parents[1] / "fashion_mnist.py"


def experiment(
    path: pathlib.Path, data_dir: str | None, *, checkpoint_every: int
) -> training.Experiment:
    """Experiment of a file, with a checkpoint interval and without evaluations."""
    spec = importlib.util.spec_from_file_location("measured", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    often = {"log_every": LOG_EVERY, "checkpoint_every": checkpoint_every}
    rare = {"epochs": 100, "eval_every": 100}
    return dataclasses.replace(module.config(), data_dir=data_dir, **often, **rare)


class Alternation:
    """Alternates blocks of the loop and of the bare step; the stop condition of the loop."""

    def __init__(self, session: training.session.Session, *, block: int, blocks: int):
        self.session, self.block, self.blocks = session, block, blocks
        self.first = block // 2 // LOG_EVERY * LOG_EVERY  # checkpoints fall inside blocks
        self.batch = training.sharding.feed(session.loader, 0, session.mesh)
        self.state = jax.tree.map(jax.numpy.copy, session.state)
        self.step, self.loop, self.bare = 0, [], []
        self.began = _now()

    def __call__(self) -> bool:
        """Counts a step of the loop; runs a bare block after each block of the loop."""
        self.step += 1
        if self.step < self.first or (self.step - self.first) % self.block:
            return False
        if self.step > self.first:
            self.loop.append(self._since(self.began))
        if len(self.loop) == self.blocks:
            return True
        began = _now()
        for _ in range(self.block):
            self.state, _ = self.session.train(self.state, self.batch)
        jax.block_until_ready(self.state)
        self.bare.append(self._since(began))
        self.began = _now()
        return False

    def _since(self, then: tuple[float, float]) -> tuple[float, float]:
        """Seconds per step of a block, wall time and processor time."""
        clock, processor = _now()
        return (clock - then[0]) / self.block, (processor - then[1]) / self.block


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def measure(chosen: training.Experiment, *, block: int, blocks: int) -> dict:
    """Medians over blocks, and the overhead of all blocks together."""
    session = training.prepare(chosen)
    alternation = Alternation(session, block=block, blocks=blocks)
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run.create(pathlib.Path(folder) / "run", chosen, "")
        training.fit(session, run, stop=alternation)
    found: dict = {"steps": block * blocks, "checkpoint_every": chosen.checkpoint_every}
    found["jax"] = jax.__version__
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
    parser.add_argument("--block", type=int, default=100, help="steps; a multiple of 20")
    parser.add_argument("--blocks", type=int, default=5, help="of each kind")
    parser.add_argument("--checkpoint-every", type=int, default=500, help="steps")
    parser.add_argument("--experiment", type=pathlib.Path, default=FASHION_MNIST)
    options = parser.parse_args()
    every = options.checkpoint_every
    chosen = experiment(options.experiment, options.data_dir, checkpoint_every=every)
    found = measure(chosen, block=options.block, blocks=options.blocks)
    print(f"{'per step':<12}{'loop':>12}{'bare':>12}{'overhead':>12}{'of medians':>12}")
    for kind in ("clock", "cpu"):
        row = found[kind]
        times = f"{row['loop_median'] * 1e3:>9.2f} ms{row['bare_median'] * 1e3:>9.2f} ms"
        print(f"{kind:<12}{times}{row['overhead']:>12.1%}{row['overhead_of_medians']:>12.1%}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
