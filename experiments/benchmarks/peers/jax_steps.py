"""Training steps of JAX programs for `workloads.serve`."""

from __future__ import annotations

import importlib.metadata

import jax
import jax.numpy as jnp
import optax
from workloads import RATE


def stepping(compiling, state, *arguments, packages=("jax",), differs=None):
    """`(step, about)` of a jitted `(state, ...) -> (state, value)`, compiled at its first call.

    Args:
        compiling: the jitted function; it may donate the memory of its state.
        state: initial state.
        arguments: arguments of every step.
        packages: packages whose versions are reported.
        differs: difference from the function of the workload, in words.
    """
    held = {"state": state}

    def step():
        if "compiled" not in held:
            held["compiled"] = compiling.lower(held["state"], *arguments).compile()
        held["state"], value = held["compiled"](held["state"], *arguments)
        jax.block_until_ready(held["state"])
        return float(value)

    def about():
        temporary = held["compiled"].memory_analysis().temp_size_in_bytes / 2**20
        versions = {package: importlib.metadata.version(package) for package in packages}
        device = jax.devices()[0].device_kind
        told = {"temporary": temporary, "versions": versions, "device": device}
        return told | ({"differs": differs} if differs else {})

    return step, about


def trained(run, params, problem, **known):
    """`stepping` of a network: forward, backward and Adam.

    Args:
        run: `(params, inputs) -> outputs`, `[T, B, classes]`.
        params: a tree of arrays, with the weights of the problem.
        problem: inputs and labels.
        known: further arguments of `stepping`.
    """
    optimizer = optax.adam(RATE)

    def loss(params, inputs, labels):
        outputs = run(params, inputs).mean(0)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    def train(state, inputs, labels):
        params, slots = state
        value, gradient = jax.value_and_grad(loss)(params, inputs, labels)
        updates, slots = optimizer.update(gradient, slots, params)
        return (optax.apply_updates(params, updates), slots), value

    state = jax.tree.map(lambda x: jnp.array(x, copy=True), (params, optimizer.init(params)))
    data = jnp.asarray(problem.inputs), jnp.asarray(problem.labels)
    return stepping(jax.jit(train, donate_argnums=0), state, *data, **known)


def alone(run, problem, **known):
    """`stepping` of neurons alone.

    Args:
        run: `inputs -> spikes`.
        problem: inputs.
        known: further arguments of `stepping`.
    """

    def train(gradient, inputs):
        del gradient  # frees the previous gradient before the next
        value, gradient = jax.value_and_grad(lambda inputs: run(inputs).sum())(inputs)
        return gradient, value

    inputs = jnp.asarray(problem.inputs)
    return stepping(jax.jit(train, donate_argnums=0), jnp.zeros_like(inputs), inputs, **known)
