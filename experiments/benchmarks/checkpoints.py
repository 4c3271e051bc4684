"""Checkpoints: damage that is noticed, memory that is kept, time that digests take.

    damage    flips one bit of a random file of the newest of two checkpoints, or overwrites one
              block of 512 bytes by random ones, and loads: the older one must be loaded, with a
              warning that names the file. "silent" counts changed arrays loaded without a word.
    memory    trains a small network, a checkpoint every 10 steps, and estimates the slope of the
              resident memory at each checkpoint (Theil and Sen, since the system may page out), of
              the second half of the run.
    time      trains the digits with a checkpoint per epoch, the default, and compares the time of
              all digests with that of training; digests run beside it in a thread.

Command: python experiments/benchmarks/checkpoints.py damage --flips 1000 --blocks 200 --seed 0
         python experiments/benchmarks/checkpoints.py memory --steps 3000
         python experiments/benchmarks/checkpoints.py time --epochs 20
"""

import argparse
import gc
import json
import os
import pathlib
import random
import sys
import tempfile
import time

import jax
import numpy as np

from snnjax import data, default_experiment, encoding, nn, training
from snnjax.training import checkpoints
from snnjax.training.checkpoints import integrity

BLOCK = 512


def network(experiment, rngs):
    """A layer of neurons, with every kind of array that a checkpoint holds."""
    return nn.Network(
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16, rngs=rngs), nn.BatchNorm(16), nn.LIF(),
            nn.Linear(16, 10, rngs=rngs),
        ),
        input_shape=(8, 8, 1),
    )  # fmt: skip


def small(**fields):
    """Experiment whose steps take a millisecond."""
    return training.Experiment(
        name="checkpoints",
        network=network,
        dataset=lambda experiment: data.load("digits"),
        encode=lambda experiment, x, key: encoding.direct(data.rescale(x, 1 / 16), timesteps=1),
        **fields,
    )


def flip(content, draw):
    """Content with one changed bit."""
    changed, place = bytearray(content), draw.randrange(len(content))
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def overwrite(content, draw):
    """Content with one block of random bytes."""
    start = draw.randrange(0, len(content), BLOCK)
    old = content[start : start + BLOCK]
    new = old
    while new == old:
        new = draw.randbytes(len(old))
    return content[:start] + new + content[start + BLOCK :]


def damage(flips, blocks, seed):
    """Counts of trials by their outcome."""
    draw = random.Random(seed)
    _, state = training.initialize(small(), steps=1)
    state = training.sharding.place(state, training.sharding.make_mesh())
    found = {"flips": flips, "blocks": blocks, "passed": 0, "silent": 0, "other": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for step in (1, 2):
            checkpoints.save(folder, state._replace(step=state.step + step))
        files = [f for f in sorted((folder / "00000002").rglob("*")) if f.is_file()]
        files = [file for file in files if file.stat().st_size]
        found["files"] = len(files)
        for number in range(flips + blocks):
            file = draw.choice(files)
            content = file.read_bytes()
            file.write_bytes((flip if number < flips else overwrite)(content, draw))
            warnings = []
            loaded = checkpoints.load_newest(folder, state, warn=warnings.append)
            file.write_bytes(content)
            name = str(file.relative_to(folder / "00000002"))
            if int(loaded.step) == 1 and len(warnings) == 1 and name in warnings[0]:
                found["passed"] += 1
            elif not warnings:
                found["silent"] += 1
            else:
                found["other"].append(warnings)
    return found


def resident_bytes():
    """Resident memory of this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory(steps):
    """Slope of the resident memory in bytes per checkpoint, over the second half of a run."""
    experiment = small(batch=128, epochs=-(-steps // 11), eval_every=10**6, checkpoint_every=10)
    session = training.prepare(experiment)
    sizes, counter = [], iter(range(1, steps + 1))

    def stop():
        step = next(counter)
        if step % 10 == 0:
            gc.collect()
            sizes.append(resident_bytes())
        return step == steps

    with tempfile.TemporaryDirectory() as folder:
        run = training.Run.create(pathlib.Path(folder) / "run", experiment, "")
        training.fit(session, run, stop=stop)
    late = np.asarray(sizes[len(sizes) // 2 :], float)
    first, last = np.triu_indices(len(late), 1)
    slope = np.median((late[last] - late[first]) / (last - first))
    tenths = sizes[:: max(len(sizes) // 10, 1)]
    return {"checkpoints": len(sizes), "slope": slope, "resident_mb": [s / 1e6 for s in tenths]}


def digest_time(epochs):
    """Time of digests and of training, each by the clock and of the processor, in s."""
    spent, plain = np.zeros(2), integrity._stream_digest

    def timed(stream):
        began = time.perf_counter(), time.thread_time()
        try:
            return plain(stream)
        finally:
            spent[:] += time.perf_counter() - began[0], time.thread_time() - began[1]

    # The digests alone: files would be written and flushed without them too.
    integrity._stream_digest = timed
    experiment = training.config.override(default_experiment.config(), {"epochs": epochs})
    session = training.prepare(experiment)
    with tempfile.TemporaryDirectory() as folder:
        run = training.Run.create(pathlib.Path(folder) / "run", experiment, "")
        began = time.process_time()
        result = training.fit(session, run)
        total = np.array([result.train_seconds, time.process_time() - began])
    integrity._stream_digest = plain
    shares = spent / total
    return {
        "checkpoints": epochs,
        "digests": dict(zip(("clock", "processor"), spent, strict=True)),
        "training": dict(zip(("clock", "processor"), total, strict=True)),
        # A busy machine distorts the clock, other threads of the training the processor's time.
        "share": shares.max(),
    }


def main():
    """Prints one line of JSON; exit code 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["damage", "memory", "time"])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if options.what == "damage":
        found = damage(options.flips, options.blocks, options.seed)
        good = found["passed"] == options.flips + options.blocks
    elif options.what == "memory":
        found = memory(options.steps)
        good = found["slope"] < 1000
    else:
        found = digest_time(options.epochs)
        good = found["share"] < 0.01
    print(json.dumps({"jax": jax.__version__, **found}))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
