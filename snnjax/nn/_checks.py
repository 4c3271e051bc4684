"""Checks of layers, scans, random streams and states that other layers are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import memory
from snnjax.ops.arguments import shorten

__all__ = ["check_key", "check_layer", "check_rngs", "check_scan", "check_state"]


def check_layer(owner: str, layer: Any) -> None:
    """Refuses anything that does not follow the contract `Layer`.

    Args:
        owner: name of the layer that contains it.
        layer: layer to check.

    Raises:
        TypeError: no layer; the message names the cure.
    """
    if not isinstance(layer, type) and callable(layer) and hasattr(layer, "initial_state"):
        return
    name = getattr(layer, "__name__", type(layer).__name__)
    # Constructors of layers are classes and functions alike.
    if getattr(layer, "__module__", "").startswith("snnjax.nn"):
        cure = f"call it, nn.{name}(...)"
    elif isinstance(layer, type):
        cure = f"make one, {name}(...)"
    elif callable(layer):
        cure = "wrap it, nn.Fold(function), which applies it at every timestep"
    else:
        cure = "give a layer, such as nn.LIF() or nn.Linear(...)"
    raise TypeError(f"{owner} takes layers, got {shorten(layer)}: {cure}")


def check_rngs(owner: str, rngs: Any) -> None:
    """Refuses anything but `flax.nnx.Rngs`, such as a seed or a key.

    Raises:
        TypeError: no random streams.
    """
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"{owner} takes rngs=nnx.Rngs(0), got {shorten(rngs)}")


def check_key(owner: str, key: Any) -> None:
    """Refuses anything but a key of random numbers, such as a seed; None passes.

    Raises:
        TypeError: no key.
    """
    # Old keys are arrays of uint32, and work as well.
    if key is not None and not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"{owner} takes key=jax.random.key(0), got {shorten(key)}")


def check_scan(owner: str, scan: Any) -> None:
    """Refuses anything but a function as a memory strategy; None passes.

    Raises:
        TypeError: no function, such as the name of a strategy.
        ValueError: a rule for the synapses of a whole network.
    """
    if isinstance(scan, memory.traces.Traces):
        raise ValueError(
            f"{owner} scans one step, and memory.{scan.rule}() concerns all synapses of a network: "
            f"nn.with_memory(network, memory.Strategy(time=memory.{scan.rule}()))"
        )
    if scan is not None and (isinstance(scan, type) or not callable(scan)):
        raise TypeError(
            f"{owner} takes a scan such as memory.store or memory.recompute(8), got {shorten(scan)}"
        )


def check_state(initial_state: Callable[..., Any], state: Any, shape: tuple[int, ...]) -> None:
    """Refuses a state of another batch or size, which would broadcast.

    Args:
        initial_state: function from a shape to the state at rest.
        state: state of the neurons.
        shape: shape of one timestep of currents, `(B, ...)`.

    Raises:
        ValueError: the arrays of the state have other shapes.
    """
    rest = jax.eval_shape(lambda: initial_state(shape))
    if jax.tree.structure(rest) != jax.tree.structure(state):
        raise ValueError(
            f"the state is none of these neurons: take it from initial_state({shape}), or from the "
            "aux of their previous call"
        )
    pairs = zip(jax.tree.leaves(rest), jax.tree.leaves(state), strict=True)
    for own, leaf in pairs:
        if own.shape != jnp.shape(leaf):
            raise ValueError(
                f"the state has an array {list(jnp.shape(leaf))} and the currents {list(shape)} "
                f"need {list(own.shape)}: take it from the initial_state of this batch, or from "
                "the aux of a call with it"
            )
