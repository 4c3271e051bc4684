"""Images per second of STDP training on MNIST: BindsNET's `DiehlAndCook2015`, and ours.

Both learn with 784 Poisson inputs of 128 Hz for a white pixel, N current-based neurons, N
inhibitory ones, pair STDP of the same rates, 250 steps of 1 ms an image, one image at a time; all
state but weights and thresholds is reset between images, and weights are scaled to 78.4. The two
alternate on the same images (ours, theirs, ours, ...), each in a process of its own, on the cores
of this program; compilation and a first turn are not counted. The models differ in:

    spike trains     theirs have integer intervals drawn from a Poisson distribution (more regular,
                     about as many); ours are Poisson processes
    arithmetic       theirs is dense, at every step; ours follows the spikes
    delays           theirs delay inputs by a step; inhibition takes two steps in both
    two at once      theirs draw the neuron that fires; ours is the one furthest over its threshold
    scaling          theirs scale all neurons after every image; ours the neurons that fired

so the program reports spikes per image and the mean change of a weight for both: of the same order,
not equal. The strength of inhibition is 17.5, the default of the class; its MNIST example uses 120.

Reference: H. Hazan et al., "BindsNET: A Machine Learning-Oriented Spiking Neural Networks Library
in Python", 2018, arXiv:1806.01423; version 0.3.4. Its licence is the AGPL: this program calls it
and contains no line of it.

Recipe:
    python3.11 -m venv peer
    peer/bin/pip install torch numpy scipy tqdm
    peer/bin/pip install --no-deps bindsnet==0.3.4
    (it imports packages for data sets, pictures and games without using them; empty modules
    replace the missing ones)
Hardware: 2 idle CPU cores (float32; jax 0.10.2, Python 3.11; torch 2.13.0, older than 0.3.4
    requires). On busy cores, threads of PyTorch that wait for each other slow theirs far more than
    ours
Time: a minute, with `--images 10 --turns 3`
Expected: medians
        N = 100     462 images/s against 12.8: 36 times (67 in CPU seconds, 0.0023 against 0.156)
                    34.2 spikes per image against 35.0; weights moved 0.0048 against 0.0058
        N = 400     157 images/s against 9.2: 17 times (18 in CPU seconds, 0.0118 against 0.218)
                    34.7 spikes per image against 34.8; weights moved 0.0014 against 0.0017
    These are the first images after random weights, with the most spikes; ours gets faster as
    spikes become fewer
Command: python experiments/benchmarks/stdp_peers.py --bindsnet-python peer/bin/python
    --data-dir "$SNNJAX_DATA"
The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import types

STEPS, PEAK = 250, 128.0  # of 1 ms; Hz
NOT_USED = {
    "ale_py", "cv2", "gymnasium", "matplotlib", "mpl_toolkits", "pandas", "PIL", "skimage",
    "sklearn", "tensorboardX", "torchvision",
}  # fmt: skip


class Empty(type):
    """An empty class that has every attribute: an empty class."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Empty(name, (), {})


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import hook: an empty module for each package that BindsNET imports without using it here.

    It comes last among the hooks, so that installed packages take precedence.
    """

    def find_spec(self, fullname, path=None, target=None):
        """A module whose every attribute is an `Empty` class."""
        if fullname.partition(".")[0] in NOT_USED:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        """Creates an empty module."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = functools.partial(Empty.__getattr__, module)
        return module

    def exec_module(self, module):
        """Executes nothing."""


def theirs(images, options):
    """`(show, weights, about)` of BindsNET; `show` trains, and counts spikes if watched."""
    sys.meta_path.append(Absent())
    import bindsnet
    import torch
    from bindsnet.network.monitors import Monitor

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = bindsnet.models.DiehlAndCook2015(
        n_inpt=784, n_neurons=options.neurons, inh=options.strength, dt=1.0, batch_size=1
    )
    rates = torch.from_numpy(images).float() * (PEAK / 255)
    (connection,) = (c for (a, b), c in network.connections.items() if (a, b) == ("X", "Ae"))

    def show(first, last, watched):
        counts = 0.0
        if watched:
            network.add_monitor(Monitor(network.layers["Ae"], ("s",), time=STEPS), name="watched")
        for image in rates[first:last]:
            spikes = bindsnet.encoding.poisson(image, time=STEPS, dt=1.0)
            network.run(inputs={"X": spikes}, time=STEPS)
            if watched:
                counts += float(network.monitors["watched"].get("s").sum())
            network.reset_state_variables()
        if watched:
            del network.monitors["watched"]
        return counts / (last - first)

    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "compile_seconds": 0.0}
    return show, lambda: connection.pipeline[0].value.detach().numpy().copy(), about


def ours(images, options):
    """`(show, weights, about)` of snnjax."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from snnjax import plasticity

    network = plasticity.presets.current_based(
        options.neurons, strength=options.strength, timesteps=STEPS
    )
    rates = jnp.asarray(images, jnp.float32) * (PEAK / 255 / 1000)
    state = [plasticity.initialize(network, jax.random.key(0))]

    @functools.partial(jax.jit, donate_argnums=0)
    def train(state, rates, first):
        def one(state, x):
            key = jax.random.fold_in(jax.random.key(1), x[1])
            return plasticity.present(network, state, x[0], key, learning=True)

        numbers = first + jnp.arange(len(rates))
        return jax.lax.scan(one, state, (rates, numbers))

    began = time.perf_counter()
    zero = jnp.zeros((), jnp.int32)
    compiled = train.lower(state[0], rates[: options.images], zero).compile()
    about = {"jax": jax.__version__, "compile_seconds": round(time.perf_counter() - began, 2)}

    def show(first, last, watched):
        del watched  # ours always counts spikes
        state[0], found = compiled(state[0], rates[first:last], jnp.asarray(first))
        return float(found.counts.sum()) / (last - first)

    return show, lambda: np.array(state[0].weights), about


def serve(options):
    """Worker process: shows images on request and prints the seconds."""
    import numpy as np

    images = np.load(options.worker_images)
    show, weights, about = {"theirs": theirs, "ours": ours}[options.worker](images, options)
    start = None
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        first, watched = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        spikes = show(first, first + options.images, watched)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # Weights after the first turn, since only ours starts with scaled weights.
        start = weights() if start is None else start
        found = {
            "seconds": wall / options.images,
            "cpu": cpu / options.images,
            "spikes": spikes,
            "moved": float(abs(weights() - start).mean()),
        }
        print(json.dumps(found), flush=True)


class Worker:
    """Handle of a worker process."""

    def __init__(self, python, which, path, options):
        command = [python, __file__, "--worker", which, "--worker-images", path]
        command += ["--neurons", str(options[0]), "--strength", str(options[1])]
        command += ["--images", str(options[2])]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.about = self._read()

    def show(self, first, *, watched=False):
        """Shows images from `first` on."""
        self._process.stdin.write(json.dumps([first, watched]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._process.args)} ended: {self._process.wait()}")
        return json.loads(line)


def measure(neurons, path, known):
    """Measures both, alternating, at one number of neurons."""
    options = (neurons, known.strength, known.images)
    pythons = {"ours": sys.executable, "theirs": known.bindsnet_python}
    workers = {name: Worker(python, name, path, options) for name, python in pythons.items()}
    turns = {name: [] for name in workers}
    for turn in range(known.turns + 1):  # the first turn is warm-up
        for name, worker in workers.items():
            turns[name].append(worker.show(turn * known.images))
    # Recording spikes slows theirs, so it has a turn of its own, at the same stage.
    watched = {
        n: w.show((known.turns + 1) * known.images, watched=True) for n, w in workers.items()
    }
    for worker in workers.values():
        worker.close()
    row = {"neurons": neurons, "strength": known.strength}
    for name, worker in workers.items():
        seconds = [turn["seconds"] for turn in turns[name][1:]]
        row[name] = {
            "images_per_second": 1 / statistics.median(seconds),
            "slowest": 1 / max(seconds),
            "fastest": 1 / min(seconds),
            "cpu_seconds": statistics.median(turn["cpu"] for turn in turns[name][1:]),
            "spikes": watched[name]["spikes"],
            "moved": watched[name]["moved"],
            **worker.about,
        }
    mine, other = row["ours"], row["theirs"]
    row["ratio"] = mine["images_per_second"] / other["images_per_second"]
    return row | {"cpu_ratio": other["cpu_seconds"] / mine["cpu_seconds"]}


def format_rows(row):
    """Two rows of the table as text."""
    lines = []
    for name in ("ours", "theirs"):
        r = row[name]
        lines.append(
            f"{row['neurons']:5} {name:7} {r['images_per_second']:8.2f} images/s "
            f"({r['slowest']:.2f} to {r['fastest']:.2f}), {r['cpu_seconds']:.4f} CPU s/image, "
            f"{r['spikes']:5.1f} spikes, weights moved {r['moved']:.4f}, "
            f"compiled in {r['compile_seconds']} s"
        )
    return "\n".join(
        [
            *lines,
            f"{row['neurons']:5} ratio   {row['ratio']:8.1f} ({row['cpu_ratio']:.1f} in CPU time)",
        ]
    )


def options():
    """Options of this program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bindsnet-python", help="an interpreter that has BindsNET, see above")
    parser.add_argument("--data-dir")
    parser.add_argument("--neurons", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--strength", type=float, default=17.5)
    parser.add_argument("--images", type=int, default=20, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--worker", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--worker-images", help=argparse.SUPPRESS)
    known = parser.parse_args()
    if not known.worker and not known.bindsnet_python:
        parser.error("--bindsnet-python is needed: make it by the recipe at the top of this file")
    return known


def compare(known):
    """Measures every number of neurons and prints its rows."""
    import numpy as np

    from snnjax import data

    needed = np.arange((known.turns + 2) * known.images)
    train = data.load("mnist", data_dir=known.data_dir).train.take(needed)
    batch = next(data.evaluation_batches(train, batch_size=len(needed)))
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "images.npy")
        np.save(path, np.asarray(batch.inputs, np.uint8).reshape(len(needed), -1))
        rows = []
        for neurons in known.neurons:
            rows.append(measure(neurons, path, known))
            print(format_rows(rows[-1]), flush=True)
    print(json.dumps({"rows": rows, "cores": len(os.sched_getaffinity(0)), "bindsnet": "0.3.4"}))


def main():
    """Compares at each number of neurons."""
    known = options()
    if known.worker:
        known.neurons = known.neurons[0]
        serve(known)
    else:
        compare(known)


if __name__ == "__main__":
    main()
