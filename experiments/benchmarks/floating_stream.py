"""Drift of a floating reversible stream, against a stream on a grid.

`depth` couplings of IF-conv3x3-BN halves (random weights, batch statistics) run forward and are
reversed by `memory.reverse`. The program compares each block's reconstructed input with its input
in the forward pass, the spikes of the neurons on both, and each block's gradient with that of
`memory.store`.

Measured on a CPU, jax 0.10.2, streams [4, 8, 16, 16, 32], seeds 0 and 1: spikes that flip in the
backward pass, and the cosine of the worst block's gradient

                               4 blocks                  32 blocks
    floating                   0           1.000         1,204 / 875,583          0.997 / 0.052
    grid                       0           exactly 1     0                        exactly 1
    grid, bfloat16 branches    0           exactly 1     0                        exactly 1
    bfloat16 stream            131 / 127k  0.68 / 0.70   2.22 / 2.22 million      0.04 / 0.02

Exactly: no bit of any gradient differs, up to 64 blocks. bfloat16 branches have float32 membranes
and statistics, like the layers of the library.

Run:
    python experiments/benchmarks/floating_stream.py
    python experiments/benchmarks/floating_stream.py --json
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import memory, nn

SHAPE = (4, 8, 16, 16, 32)  # [T, B, H, W, C] of one of the two streams


class Kind(NamedTuple):
    """Dtypes of a stream and of its branches."""

    name: str
    bits: int | None
    stream: Any
    compute: Any


KINDS = (
    Kind("floating", None, jnp.float32, jnp.float32),
    Kind("grid", 12, jnp.float32, jnp.float32),
    Kind("grid, bfloat16 branches", 12, jnp.float32, jnp.bfloat16),
    Kind("bfloat16 stream", None, jnp.bfloat16, jnp.bfloat16),
)


@dataclasses.dataclass(frozen=True)
class Watched:
    """A coupling whose backward pass returns the reconstructed streams.

    Each block has a witness, zeros in the shape of the streams. Its 'gradient' is the reconstructed
    input of the block; the output of the step is the input in the forward pass.
    """

    couple: Any

    def step(self, params, streams, x):
        """Runs one block forward; outputs its input."""
        return self.couple.step(params, streams, x[0])[0], streams

    def __call__(self, params, after, x, y):
        """Reconstructs the streams before the block."""
        return self.couple(params, after, x[0], y)

    def pull(self, params, after, x, y, cotangents):
        """Inverse and derivative of the coupling; the witness receives the reconstructed input."""
        g_after, g_seen = cotangents
        nothing = memory.CouplingAux((), (), jnp.zeros(()))
        before, (g_params, g_before, g_block) = self.couple.pull(
            params, after, x[0], y, (g_after, nothing)
        )
        del g_seen
        return before, (g_params, g_before, (g_block, before))


def branch(which: int, compute: Any):
    """The `which`-th half of a block as a branch, from the resting state.

    Activations between layers have the dtype `compute`; membranes and batch statistics are always
    float32.
    """

    def run(params, block, x):
        del params
        x = x.astype(compute)
        for layer in block[which].layers:
            x = layer(x, layer.initial_state(x.shape[1:]), nn.Call(training=True))[0].astype(
                compute
            )
        return x, ()

    return run


@functools.cache
def coupling(kind: Kind) -> Any:
    """One coupling per kind, so that equal programs compile once."""
    return memory.coupling(branch(0, kind.compute), branch(1, kind.compute), bits=kind.bits)


@functools.partial(jax.jit, static_argnums=(0, 1))
def blocks(depth: int, channels: int, key: jax.Array):
    """Stacked IF-conv-BN halves."""

    def one(key):
        rngs = nnx.Rngs(key)
        layers = [(nn.IF(), nn.Conv(channels, channels, rngs=rngs)) for _ in range(2)]
        return tuple(nn.Sequential(*pair, nn.BatchNorm(channels)) for pair in layers)

    return jax.vmap(one)(jax.random.split(key, depth))


def loss(end: memory.Streams) -> jax.Array:
    """A smooth function of both streams."""
    x1, x2 = (stream.astype(jnp.float32) for stream in end)
    return jnp.mean(x1**2) + jnp.mean(jnp.sin(x2))


@functools.partial(jax.jit, static_argnums=0)
def store_gradient(couple: Any, entered: memory.Streams, stack):
    """Gradient of every block by `memory.store`."""

    def run(stack):
        return loss(memory.store(couple.step, (), entered, stack)[0])

    return jax.grad(run)(stack)


@functools.partial(jax.jit, static_argnums=0)
def reverse_gradient(couple: Any, entered: memory.Streams, stack):
    """Gradient by `memory.reverse`; the streams at every joint, original and reconstructed."""
    watched, depth = Watched(couple), len(jax.tree.leaves(stack)[0])
    witness = jax.tree.map(lambda s: jnp.zeros((depth, *s.shape), s.dtype), entered)

    def run(stack, witness):
        scan = memory.reverse(watched)
        end, seen = scan(watched.step, (), entered, (stack, witness))
        return loss(end), (end, seen)

    grads, (end, seen) = jax.grad(run, (0, 1), has_aux=True)(stack, witness)
    ended = [jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), s, end)
             for s in (seen, grads[1])]  # fmt: skip
    return grads[0], *ended


@functools.partial(jax.jit, static_argnums=0)
def spikes(compute: Any, joints: memory.Streams) -> jax.Array:
    """Spikes of F on x2 and of G on y1, `[depth, 2, T, B, ...]`."""
    neuron = nn.IF()

    def fire(x):
        state = neuron.initial_state(x.shape[1:])
        return neuron(x.astype(compute), state, nn.Call(training=True))[0] > 0

    return jax.lax.map(jax.vmap(fire), jnp.stack([joints.x2[:-1], joints.x1[1:]], 1))


def cosines(a: Any, b: Any) -> np.ndarray:
    """Cosine of two stacked gradients, block by block."""
    a, b = (
        np.concatenate([np.asarray(leaf, np.float64).reshape(len(leaf), -1)
                        for leaf in jax.tree.leaves(tree)], 1)
        for tree in (a, b)
    )  # fmt: skip
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def measure(kind: Kind, depth: int, seed: int, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    """Errors of one network's backward pass; lists are per block, first block first."""
    keys = jax.random.split(jax.random.key(seed))
    stack, couple = blocks(depth, shape[-1], keys[0]), coupling(kind)
    x = jax.random.normal(keys[1], shape)
    entered = couple.enter(*(s.astype(kind.stream) for s in (x, 0.7 * x + 0.1)))
    reference = store_gradient(couple, entered, stack)
    gradient, seen, rebuilt = reverse_gradient(couple, entered, stack)
    gaps = [jnp.abs((a - b).astype(jnp.float32)) for a, b in zip(seen, rebuilt, strict=True)]
    errors = jnp.maximum(*(gap[:-1].reshape(depth, -1).max(1) for gap in gaps))
    before, after = (spikes(kind.compute, joints) for joints in (seen, rebuilt))
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(reference), strict=True)
    return {
        "kind": kind.name,
        "depth": depth,
        "seed": seed,
        "errors": np.asarray(errors, np.float64).tolist(),
        "flips": np.asarray((before != after).reshape(depth, -1).sum(1)).tolist(),
        "neurons": int(before[0].size),
        "rate": float(before.mean()),
        "cosines": cosines(gradient, reference).tolist(),
        "difference": max(float(jnp.abs(a - b).max()) for a, b in pairs),
    }


def main() -> None:
    """Measures every kind at every depth and prints a line of text or of JSON for each net."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per net")
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3, help="number of nets per row (3)")
    parser.add_argument("--kinds", nargs="+", choices=[k.name for k in KINDS])
    parser.add_argument("--shape", type=int, nargs=5, default=SHAPE, metavar=tuple("TBHWC"))
    options = parser.parse_args()
    if not options.json:
        print(f"jax {jax.__version__}, {jax.devices()[0].platform}, streams {options.shape}")
    for kind in KINDS:
        if options.kinds and kind.name not in options.kinds:
            continue
        for depth in options.depths:
            for seed in range(options.seeds):
                result = measure(kind, depth, seed, tuple(options.shape))
                if options.json:
                    print(json.dumps({"jax": jax.__version__, **result}), flush=True)
                    continue
                first = [b for b in range(depth) if result["flips"][b]]
                print(
                    f"{kind.name:24} {depth:3} blocks, seed {seed}: "
                    f"error {max(result['errors']):.1e}, flipped {sum(result['flips']):8} of "
                    f"{depth * result['neurons']} (last flipping block {max(first, default=None)}),"
                    f" worst cosine {min(result['cosines']):.7f}, "
                    f"largest difference {result['difference']:.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
