"""One LIF layer alone, forward and backward: the Pallas kernel, the scans, PyTorch, a plain copy.

    h = 0.5 v + x, fires at h >= 1, hard reset to 0 (detached), arctan(2); v = 0 at rest

    store          nn.LIF(scan=memory.store): lax.scan, derivative by JAX
    lif_scan       nn.LIF(): lax.scan, derivative by hand
    lif_kernel     nn.LIF(sequence=neurons.lif_kernel): one kernel each way, `--block` neurons each
    torch          a loop over time in PyTorch, surrogate by hand
    spikingjelly   its multi-step LIF, `functional.lif_multi_step`; in brackets its implementation
    copy           y = 2 x over the bytes that one pass of the kernel moves: the memory bandwidth

Currents and cotangents are [T, B, N], float32, bfloat16 or float16; membranes are float32. The rows
alternate in one process; times are medians over rounds. A layer must move 4 sequences in the
currents' dtype (currents, spikes, and the cotangents of both) and membranes twice:

    bytes = T B N (4 itemsize + 8)        24 in float32, 16 in two bytes, per neuron and timestep

`bandwidth` is these bytes over the time, `of_copy` its ratio to the bandwidth of the copy. Spikes
(`flipped`: compilers round h once or twice) and gradients (`error`) are compared with lif_scan's.

Both PyTorch rows need a build with GPU support; a row that cannot run is omitted with a line on
stderr. spikingjelly 2 selects the first available of its extension (if built from source), Triton
and a loop in PyTorch; `SJ_LIF_CUDA_IMPLEMENTATION=triton` in front of the command selects one. Its
function receives float32 membranes: its module would allocate them in the currents' dtype, and fall
back to a loop in PyTorch in two bytes.

**Not yet run on a GPU or TPU**: the kernel's speed is unknown. On a CPU, `--small` tests the
program in interpret mode at a tiny size, PyTorch on the CPU; its times mean nothing.

Hardware: one GPU or TPU with 16 GB (float32, N = 65536: 7 sequences of 512 MiB), 24 GB with PyTorch
Time: unknown; expected minutes
Expected: lif_kernel's `of_copy` at least 0.8 (goal, unmeasured); nothing flipped, 0.5 v being exact
Command: pip install -e ".[cuda12]" torch spikingjelly==2.0.0   # the last two for their rows
    python experiments/benchmarks/lif_kernel.py                 # all sizes and dtypes
    python experiments/benchmarks/lif_kernel.py --block 256     # other blocks: 128 to 8192
    python experiments/benchmarks/lif_kernel.py --small         # any machine
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves memory to PyTorch

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import memory, neurons, nn
from snnjax.typing import bind

SHAPES = [(32, 64, 16384), (32, 64, 65536)]
DTYPES = ("float32", "bfloat16", "float16")
SMALL = [(4, 2, 300)]
DECAY, THRESHOLD, RESET = 0.5, 1.0, neurons.reset.detached(neurons.reset.zero)


def layers(block: int, interpret: bool) -> dict[str, nn.Neuron]:
    """The layer under `store`, `lif_scan` and `lif_kernel`."""
    options = {"decay": DECAY, "threshold": THRESHOLD, "reset": RESET}
    kernel = bind(neurons.lif_kernel, block=block, interpret=interpret)
    return {
        "store": nn.LIF(scan=memory.store, **options),
        "lif_scan": nn.LIF(**options),
        "lif_kernel": nn.LIF(sequence=kernel, **options),
    }


def forward_and_backward(layer: nn.Neuron) -> Callable[..., Any]:
    """Spikes, and the cotangents of the currents in the buffer of the spikes' cotangents."""

    def run(currents, cotangents):
        state = layer.initial_state(currents.shape[1:])

        def forward(currents):
            return layer(currents, state, nn.Call(training=True))[0]

        spikes, pull = jax.vjp(forward, currents)
        return spikes, pull(cotangents)[0]

    return jax.jit(run, donate_argnums=1)


def torch_loop(torch: Any, shape: tuple[int, ...], device: str) -> tuple[str, Callable[..., Any]]:
    """The layer as a plain loop over time."""

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u >= 0).to(u.dtype)

        @staticmethod
        def backward(ctx, g):
            (u,) = ctx.saved_tensors
            return g / (1 + (torch.pi * u) ** 2)  # arctan(2)

    def forward(currents):
        v, spikes = torch.zeros(shape[1:], device=device), []
        for x in currents:
            h = DECAY * v + x
            s = Fire.apply(h - THRESHOLD)
            v = h * (1 - s.detach())
            spikes.append(s.to(x.dtype))
        return torch.stack(spikes)

    return "torch", forward


def spikingjelly(torch: Any, shape: tuple[int, ...], device: str) -> tuple[str, Callable[..., Any]]:
    """Layer of spikingjelly 2, and a name with its implementation."""
    from spikingjelly.activation_based import functional, surrogate

    chosen: Any = functional.neuron_implementation("lif", torch.device(device))
    for name, reason in chosen["unavailable"].items():
        warn_once(f"spikingjelly has no {name} here: {reason}")
    options = {"tau": 1 / (1 - DECAY), "decay_input": False, "v_threshold": THRESHOLD}
    options |= {"v_reset": 0.0, "detach_reset": True, "surrogate_function": surrogate.ATan(2.0)}
    v = torch.zeros(shape[1:], device=device)
    forward = lambda currents: functional.lif_multi_step(currents, v, **options)[0]  # noqa: E731
    return f"spikingjelly ({chosen['implementation']})", forward


def torch_layers(made: tuple[jax.Array, ...], *, small: bool) -> dict[str, Callable[..., Any]]:
    """Functions `calls -> (spikes, gradient)` of the last call, for each available layer."""
    found = {}
    for make in (torch_loop, spikingjelly):
        try:
            import torch

            if not (small or torch.cuda.is_available()):
                raise RuntimeError("PyTorch sees no GPU: install a build of it for CUDA")
            device = "cuda" if torch.cuda.is_available() else "cpu"
            if not found:
                dtype = getattr(torch, made[0].dtype.name)
                x, g = (torch.from_numpy(np.array(a, np.float32)).to(device, dtype) for a in made)
                x.requires_grad_()
            name, forward = make(torch, x.shape, device)
            run = repeat_torch(torch, forward, x, g)
            run(1)
        except Exception as error:  # a missing package must not stop the other rows
            warn_once(f"{make.__name__} is left out: {type(error).__name__}: {error}")
        else:
            found[name] = run
    return found


def repeat_torch(torch: Any, forward: Callable[..., Any], currents: Any, cotangents: Any):
    """Function that runs forward and backward `calls` times and waits."""

    def many(calls: int) -> tuple[Any, Any]:
        for _ in range(calls):
            currents.grad = None
            spikes = forward(currents)
            spikes.backward(cotangents)
        if currents.is_cuda:
            torch.cuda.synchronize()
        return spikes.detach(), currents.grad

    return many


@functools.cache
def warn_once(said: str) -> None:
    """Prints the first line of a remark, once."""
    print(said.partition("\n")[0], file=sys.stderr)


def arrays(shape: tuple[int, ...], dtype: str) -> tuple[jax.Array, jax.Array]:
    """Currents at which about a quarter of the neurons fires, and cotangents."""
    keys = jax.random.split(jax.random.key(0))
    made = (0.5 + jax.random.normal(keys[0], shape), jax.random.normal(keys[1], shape))
    return made[0].astype(dtype), made[1].astype(dtype)


def repeat_jax(run: Callable[..., Any], currents: jax.Array, cotangents: jax.Array, calls: int):
    """Function that calls a compiled program `calls` times and waits; each call feeds the next."""
    held = [jnp.copy(cotangents)]

    def many() -> None:
        for _ in range(calls):
            _, held[0] = run(currents, held[0])
        held[0].block_until_ready()

    return many


def copy_program(moved: int, calls: int) -> Callable[[], None]:
    """Program that reads and writes a number of bytes, half of them each."""
    numbers = jnp.ones(moved // 8, jnp.float32)
    double = jax.jit(lambda x: 2 * x)

    def many() -> None:
        for _ in range(calls):
            made = double(numbers)
        made.block_until_ready()

    return many


def agreement(programs: Mapping[str, Callable[[], Any]]) -> dict[str, dict[str, Any]]:
    """Number of flipped spikes, and largest error of a gradient relative to its largest entry."""
    expected, found = programs["lif_scan"](), {}
    for name, run in programs.items():
        spikes, g = run()
        error = np.abs(g - expected[1]).max() / np.abs(expected[1]).max()
        found[name] = {"flipped": int((spikes != expected[0]).sum()), "error": float(error)}
    return found


def measure(shape: tuple[int, ...], dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of one size and dtype."""
    made = arrays(shape, dtype)
    programs = {
        n: forward_and_backward(layer) for n, layer in layers(options.block, options.small).items()
    }
    others = torch_layers(made, small=options.small)

    def ours(run):
        return lambda: tuple(np.asarray(a, np.float32) for a in run(made[0], jnp.copy(made[1])))

    def theirs(run):
        return lambda: tuple(a.float().cpu().numpy() for a in run(1))

    results = {name: ours(run) for name, run in programs.items()}
    checked = agreement(results | {name: theirs(run) for name, run in others.items()})
    moved = int(np.prod(shape)) * (4 * made[0].dtype.itemsize + 8)
    loops = {name: repeat_jax(run, *made, options.calls) for name, run in programs.items()}
    loops |= {n: functools.partial(run, options.calls) for n, run in others.items()}
    loops["copy"] = copy_program(moved, options.calls)
    seconds = {name: [] for name in loops}
    for _ in range(options.rounds + 1):  # the first one warms up
        for name, loop in loops.items():
            began = time.perf_counter()
            loop()
            seconds[name].append((time.perf_counter() - began) / options.calls)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    rows = {
        name: {
            "seconds": median,
            "bandwidth": moved / median,
            "of_copy": medians["copy"] / median,
            **checked.get(name, {}),
        }
        for name, median in medians.items()
    }
    return {"shape": shape, "dtype": dtype, "bytes": moved, "rows": rows}


def versions(rows: set[str]) -> dict[str, str]:
    """Versions of the packages with a row."""
    packages = rows & {"torch", "spikingjelly"}
    return {package: importlib.metadata.version(package) for package in sorted(packages)}


def main() -> None:
    """Prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny, the kernel in interpret mode")
    parser.add_argument("--block", type=int, default=1024, help="neurons per program")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--calls", type=int, default=10, help="per round")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not options.small:
        parser.error("the kernel is for GPUs and TPUs; on a CPU there is only --small")
    if options.small:
        options.block, options.calls, options.rounds = 128, 1, 2
    found = [
        measure(shape, dtype, options)
        for shape in (SMALL if options.small else SHAPES)
        for dtype in options.dtypes
    ]
    for one in found:
        print(f"{one['shape']} {one['dtype']}, {one['bytes'] / 1e6:.1f} MB")
        for name, row in one["rows"].items():
            rate = row["bandwidth"] / 1e9
            times = f"{row['seconds'] * 1e3:>12.3f} ms{rate:>10.2f} GB/s{row['of_copy']:>8.1%}"
            flipped = f"{row['flipped']:>8} flipped" if "flipped" in row else ""
            print(f"    {name:<32}{times}{flipped}")
    about = {"jax": jax.__version__, "device": device.device_kind, "block": options.block}
    about |= versions({name.partition(" ")[0] for one in found for name in one["rows"]})
    print(json.dumps({**about, "interpreted": options.small, "results": found}))


if __name__ == "__main__":
    main()
