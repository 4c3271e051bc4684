"""Programs of JAX peers for `peers.py`: spyx, jaxpike, brainpy."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import workloads
from jax_steps import alone, trained
from workloads import ALPHA, DECAY, THRESHOLD, Layer

SPYX = {
    "packages": ("jax", "spyx"),
    "differs": "soft reset, differentiated; spikes one step late",
}
JAXPIKE = {"packages": ("jax", "jaxpike"), "differs": "reset differentiated"}
BRAINPY = {
    "packages": ("jax", "brainpy", "brainstate"),
    "differs": "reset differentiated in its spike alone",
}


def _refuse_feedback(problem):
    if problem.recurrent:
        raise SystemExit("this program has no recurrent weights: take jaxpike")


def spyx(problem):
    """`spyx.nn.run` of a `Sequential`; `LIF` learns its decays."""
    _refuse_feedback(problem)
    import spyx.axn
    import spyx.nn
    from flax import nnx

    rngs, spike = nnx.Rngs(0), spyx.axn.arctan(k=1.0)

    def lif(shape):
        return spyx.nn.LIF(shape, beta=DECAY, activation=spike, rngs=rngs)

    if isinstance(problem.workload, Layer):
        node = lif(problem.inputs.shape[-1:])
        return alone(lambda inputs: spyx.nn.run(node, inputs)[0], problem, **SPYX)
    layers = []
    for kernel in problem.kernels:
        layer = nnx.Linear(*kernel.shape, use_bias=False, rngs=rngs)
        layer.kernel = nnx.Param(jnp.asarray(kernel))
        layers += [layer, lif(kernel.shape[1:])]
    graphdef, params, rest = nnx.split(spyx.nn.Sequential(*layers[:-1]), nnx.Param, ...)

    def run(params, inputs):
        return spyx.nn.run(nnx.merge(graphdef, params, rest), inputs)[0]

    return trained(run, params, problem, **SPYX)


def jaxpike(problem, *, by="unroll", **options):
    """A `Sequential`, or a `Graph` for feedback; decays are constant."""
    import equinox as eqx
    import jaxpike as jp

    unroll = functools.partial(getattr(jp, by), **options)
    # v = decay v + (1 - decay) x: a scaled membrane, whose threshold and surrogate scale with it.
    scale = 1 - DECAY
    node = jp.LIF(
        tau=-1 / math.log(DECAY), threshold=scale * THRESHOLD, reset="zero",
        surrogate=jp.ATan(ALPHA / scale),
    )  # fmt: skip
    if isinstance(problem.workload, Layer):
        return alone(lambda inputs: unroll(node, inputs)[0], problem, **JAXPIKE)

    def dense(kernel):
        layer = jp.Dense(*kernel.shape, use_bias=False, key=jax.random.key(0))
        return eqx.tree_at(lambda layer: layer.weight, layer, jnp.asarray(kernel.T))

    layers = [dense(kernel) for kernel in problem.kernels]
    if problem.recurrent:
        model = _graph(jp, layers, node, [dense(matrix) for matrix in problem.recurrent])
    else:
        hidden = [part for layer in layers[:-1] for part in (layer, node)]
        model = jp.Sequential(*hidden, layers[-1])
    weights = jax.tree.map(lambda leaf: eqx.is_array(leaf) and leaf.ndim == 2, model)
    params, rest = eqx.partition(model, weights)

    def run(params, inputs):
        return unroll(eqx.combine(params, rest), inputs)[0]

    return trained(run, params, problem, **JAXPIKE)


def _graph(jp, layers, node, feedback):
    """Network of jaxpike with feedback of neurons after one step."""
    nodes, edges, last = {"out": layers[-1]}, [], "input"
    for i, (layer, matrix) in enumerate(zip(layers[:-1], feedback, strict=True)):
        nodes |= {f"in{i}": layer, f"lif{i}": node, f"back{i}": matrix}
        edges += [(last, f"in{i}"), (f"in{i}", f"lif{i}")]
        edges += [(f"lif{i}", f"back{i}"), (f"back{i}", f"lif{i}")]
        last = f"lif{i}"
    return jp.Graph(nodes, [*edges, (last, "out")], "out")


def brainpy(problem):
    """`brainpy.state.LIF` in a `for_loop` of brainstate, with states as arguments."""
    _refuse_feedback(problem)
    import brainpy
    import brainstate
    import braintools
    import brainunit as u

    brainstate.environ.set(dt=1.0 * u.ms)
    batch = problem.workload.batch

    def lif(size):
        # The membrane decays to R x, by exp(-dt / tau) a step.
        return brainpy.state.LIF(
            size, R=1 / (1 - DECAY) * u.mV, tau=-1 / math.log(DECAY) * u.ms, V_th=THRESHOLD * u.mV,
            spk_fun=braintools.surrogate.Arctan(ALPHA), spk_reset="hard",
        )  # fmt: skip

    def looped(model, inputs):
        brainstate.nn.init_all_states(model, batch)
        return brainstate.transform.for_loop(model.update, inputs)

    if isinstance(problem.workload, Layer):
        size = problem.workload.neurons
        return alone(lambda inputs: looped(lif(size), inputs), problem, **BRAINPY)
    layers = []
    for kernel in problem.kernels:
        linear = brainstate.nn.Linear(*kernel.shape, w_init=jnp.asarray(kernel), b_init=None)
        layers += [linear, lif(kernel.shape[1])]
    model = brainstate.nn.Sequential(*layers[:-1])
    graphdef, params, rest = brainstate.graph.treefy_split(model, brainstate.ParamState, ...)

    def run(params, inputs):
        return looped(brainstate.graph.treefy_merge(graphdef, params, rest), inputs)

    return trained(run, params, problem, **BRAINPY)


PROGRAMS = {
    "spyx": spyx,
    "jaxpike": jaxpike,
    "jaxpike scan_unroll=1": functools.partial(jaxpike, scan_unroll=1),
    "jaxpike checkpointed": functools.partial(jaxpike, by="unroll_checkpointed"),
    "brainpy": brainpy,
}

if __name__ == "__main__":
    workloads.serve(PROGRAMS)
