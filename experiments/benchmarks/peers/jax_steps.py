"""A compiled step of JAX as `workloads.serve` takes it; shared by all programs of JAX."""

from __future__ import annotations

import importlib.metadata

import jax


def stepping(compiling, state, *arguments, packages=("jax",), differs=None):
    """`(step, about)` of a jitted `(state, ...) -> (state, value)`, compiled at its first call.

    Args:
        compiling: the jitted function; it may take over the memory of its state.
        state: what it starts from.
        arguments: the same for every step.
        packages: whose versions to tell.
        differs: in what it computes something else than the workload says.
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
