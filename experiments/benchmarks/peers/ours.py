"""Programs of snnjax for `peers.py`, one per memory strategy, and their lower bound."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import workloads
from flax import nnx
from jax_steps import alone, stepping
from workloads import ALPHA, DECAY, RATE, THRESHOLD, Conv, Layer

from snnjax import losses, memory, neurons, nn, readout, surrogate, training


class Variant(NamedTuple):
    """Training options of a network.

    Attributes:
        order: "layer" or "time".
        over: range of the batch statistics, "step" or "window".
        strategy: text of `memory.parse_strategy`.
        lean: True for XLA's memory-optimised scheduler.
        parts: number of parts of the batch, see `memory.accumulate`.
    """

    order: str
    over: str
    strategy: str = ""
    lean: bool = False
    parts: int = 1


VARIANTS = {
    "layer": Variant("layer", "window"),
    "layer, 8 parts": Variant("layer", "window", parts=8),
    "layer, 16 parts": Variant("layer", "window", parts=16),
    "layer, lean": Variant("layer", "window", lean=True),
    "layer, pack, lean": Variant("layer", "window", "pack=True", lean=True),
    "layer, norm per step": Variant("layer", "step"),
    "time": Variant("time", "step", "time=store"),
    "time, recompute(1)": Variant("time", "step", "time=recompute(1)"),
} | {
    f"time, {name}, lean": Variant("time", "step", f"time={strategy}", lean=True)
    for name, strategy in {
        "recompute(1)": "recompute(1)",
        "recompute(1, currents)": "recompute(1, keep=('currents',))",
        "recompute(2), pack": "recompute(2), pack=True",
        "recompute(sqrt)": "recompute(sqrt)",
        "recompute(2, sequence)": "recompute(2, inner=sequence)",
        "recompute(5, sequence)": "recompute(5, inner=sequence)",
        "recompute(5, sequence, linear0)": "recompute(5, inner=sequence, keep=('linear0',))",
        "recompute(5, sequence, currents)": "recompute(5, inner=sequence, keep=('currents',))",
    }.items()
}


def _lif(scan=None):
    return nn.LIF(
        decay=DECAY, threshold=THRESHOLD, spike=surrogate.arctan(alpha=ALPHA),
        reset=neurons.reset.detached(neurons.reset.zero), scan=scan,
    )  # fmt: skip


def _network(problem, variant):
    """Network of a workload with its weights."""
    rngs, workload, layers = nnx.Rngs(0), problem.workload, []
    hidden = problem.kernels[:-1]
    strides = [s for _, s in workload.layers] if isinstance(workload, Conv) else [1] * len(hidden)
    for number, (kernel, stride) in enumerate(zip(hidden, strides, strict=True)):
        if kernel.ndim == 4:
            layers.append(nn.Conv(*kernel.shape[2:], strides=stride, use_bias=False, rngs=rngs))
            layers.append(nn.BatchNorm(kernel.shape[-1], over=variant.over))
        else:
            layers.append(nn.Linear(*kernel.shape, use_bias=False, rngs=rngs))
        lif = _lif()
        if problem.recurrent:
            lif = nn.Recurrent(lif, problem.recurrent[number].shape[0], rngs=rngs)
            lif.weights = nnx.Param(jnp.asarray(problem.recurrent[number]))
        layers.append(lif)
    if isinstance(workload, Conv):
        layers.append(nn.Fold(_pool))
    layers.append(nn.Linear(*problem.kernels[-1].shape, use_bias=False, rngs=rngs))
    _set(layers, problem.kernels)
    body, frame = nn.Sequential(*layers), problem.inputs.shape[2:]
    collect = "mean" if variant.order == "time" else "all"
    network = nn.Network(body, frame, order=variant.order, collect=collect)
    return nn.with_memory(network, memory.parse_strategy(variant.strategy))


def _pool(x):
    return x.mean((-3, -2))


def _set(layers, kernels):
    """Puts the weights into the synapses, in their order."""
    left = list(kernels)
    for layer in layers:
        for path, value in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
            if path[-1] == "kernel":
                assert value[...].shape == left[0].shape, (path, value[...].shape, left[0].shape)
                nnx.update(layer, nnx.from_flat_state([(path, nnx.Param(left.pop(0)))]))
    assert not left, f"{len(left)} kernels found no layer"


def _trained(problem, variant):
    """`step()`: the compiled training step of a network."""
    network = _network(problem, variant)
    graphdef, params, constants = nn.split(network)
    optimizer = optax.adam(RATE)
    start = network.initial_state(problem.workload.batch // variant.parts)

    def loss(params, statistics, inputs, labels):
        network = nn.merge(graphdef, params, constants)
        state = start._replace(statistics=statistics)
        outputs, aux = network(inputs, state, training=True)
        values = losses.cross_entropy(readout.rate(outputs), labels)
        return losses.mean(values) / variant.parts, aux.statistics

    def train(state, inputs, labels):
        params, slots, statistics = state

        def part(_, inputs, labels):
            (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(
                params, statistics, inputs, labels
            )
            return (value, gradient), moved

        (value, gradient), moved = memory.accumulate(
            part, variant.parts, (inputs, labels), axes=(1, 0)
        )
        statistics = jax.tree.map(lambda leaf: leaf.mean(0), moved)
        updates, slots = optimizer.update(gradient, slots, params)
        return (optax.apply_updates(params, updates), slots, statistics), value

    state = (params, optimizer.init(params), start.statistics)
    state = jax.tree.map(lambda x: jnp.array(x, copy=True), state)
    options = training.sharding.compiler_options(
        training.sharding.make_mesh(), memory_scheduler=variant.lean
    )
    compiling = jax.jit(train, donate_argnums=0, compiler_options=options)
    return stepping(compiling, state, jnp.asarray(problem.inputs), jnp.asarray(problem.labels))


def network(problem, *, variant):
    """A network, trained under one strategy."""
    if isinstance(problem.workload, Layer):
        raise SystemExit("this workload has no network")
    return _trained(problem, VARIANTS[variant])


def layer(problem, *, scan):
    """Neurons alone, under one strategy."""
    if not isinstance(problem.workload, Layer):
        raise SystemExit("this workload is a network")
    neurons_alone = _lif(scan)
    start = neurons_alone.initial_state(problem.inputs.shape[1:])
    return alone(lambda inputs: neurons_alone(inputs, start, nn.Call(training=True))[0], problem)


def products(problem):
    """Only the matrix products of a step, three per layer and two for the first: a lower bound."""
    if not isinstance(problem.workload, workloads.Dense):
        raise SystemExit("this is of dense layers")
    rows = problem.workload.timesteps * problem.workload.batch
    draw = np.random.default_rng(0)
    kernels = [jnp.asarray(k) for k in problem.kernels]
    sizes = [problem.inputs.shape[-1], *(k.shape[1] for k in kernels)]
    layers = [jnp.asarray(draw.standard_normal((rows, n), np.float32)) for n in sizes]

    @jax.jit
    def multiply(state, layers, kernels):
        found = []
        for number, kernel in enumerate(kernels):
            before, after = layers[number : number + 2]
            found += [before @ kernel, before.T @ after]
            found += [after @ kernel.T] if number else []
        return state, sum(jnp.sum(x[0]) for x in jax.lax.optimization_barrier(found))

    return stepping(multiply, jnp.zeros(()), layers, kernels)


if __name__ == "__main__":
    programs = {f"snnjax {v}": functools.partial(network, variant=v) for v in VARIANTS}
    scans = {"": None, " store": memory.store, " recompute(6)": memory.recompute(every=6)}
    scans |= {" recompute(1)": memory.recompute(every=1)}
    programs |= {f"snnjax LIF{n}": functools.partial(layer, scan=s) for n, s in scans.items()}
    workloads.serve(programs | {"products": products})
