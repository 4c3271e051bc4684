"""Approximate strategies in a network: its scans that declare one, and traces of its synapses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from snnjax.memory.checking import approximation
from snnjax.memory.traces import Traces

if TYPE_CHECKING:
    # The contract itself asks for `approximations`.
    from snnjax.nn.contract import MemoryRequest

__all__ = ["approximations", "behind", "module_scans", "refuse_untraced"]


def approximations(network: Any) -> list[Any]:
    """Scans of a network that declare another gradient than that of `memory.store`."""
    modules = (module for _, module in nnx.iter_modules(network))
    found = (approximation(scan) for module in modules for scan in module_scans(module))
    return [scan for scan in found if scan is not None]


def module_scans(module: Any) -> list[Any]:
    """Memory strategies of a module itself: over time, over depth, and of its cuts."""
    values = vars(module)
    cuts = getattr(values.get("joints"), "scan", None)
    return [values.get("scan"), values.get("time_scan"), cuts]


def behind(request: MemoryRequest, layers: Iterable[Any]) -> MemoryRequest:
    """The request for a layer in front of others: its traces decay as the next neurons do.

    Args:
        request: the request for the layer.
        layers: layers behind it, in order. Without neurons among them the decay is that of the
            request.

    Raises:
        ValueError: the next layer with neurons has several decays, or `Neuron.leak` refuses.
    """
    if request.traces is None:
        return request
    for layer in layers:
        # Only `nn.Neuron` has a leak; other layers with a state are refused at the end.
        leaks = [getattr(module, "leak", None) for _, module in nnx.iter_modules(layer)]
        decays = {leak() for leak in leaks if leak is not None}
        if len(decays) > 1:
            raise ValueError(
                f"traces of a synapse have one decay, and the neurons behind it {sorted(decays)}: "
                "use memory.sltt() or memory.truncated(k)"
            )
        if decays:
            traces = dataclasses.replace(request.traces, decay=decays.pop())
            return dataclasses.replace(request, traces=traces)
    return request


def refuse_untraced(network: Any, traces: Traces) -> None:
    """Refuses layers that keep no traces, and so would silently learn by `sltt`.

    Args:
        network: network under the strategy.
        traces: the strategy.

    Raises:
        ValueError: a layer in `network` has weights without traces, or a state over time whose
            traces are unknown.
    """
    modules = dict(nnx.iter_modules(network))
    cure = "use memory.sltt() or memory.truncated(k)"
    for path, _ in nnx.to_flat_state(nnx.state(network, nnx.Param)):
        owners = [modules[path[:n]] for n in range(len(path)) if path[:n] in modules]
        # Normalizations and neurons learn through space only.
        local = path[-1] in ("scale", "bias") or "learned" in path
        if not local and all(getattr(owner, "traces", None) is None for owner in owners):
            raise ValueError(
                f"memory.{traces.rule}() needs traces of every synapse, and "
                f"{type(owners[-1]).__name__} at {'.'.join(map(str, path))} keeps none: {cure}"
            )
    layers = {path: module for path, module in modules.items() if hasattr(module, "initial_state")}
    for path, layer in layers.items():
        # `Network.initial_state` takes the batch alone; other layers with parts are their sum.
        if any(other[: len(path)] == path for other in layers if other != path):
            continue
        known = hasattr(layer, "leak") or getattr(layer, "traces", None) is not None
        if not known and _remembers(layer):
            raise ValueError(
                f"memory.{traces.rule}() knows leaky neurons, and nn.{type(layer).__name__} at "
                f"{'.'.join(map(str, path))} has a state of its own: {cure}"
            )


def _remembers(layer: Any) -> bool:
    """True if a layer has a state over time, or needs another shape to tell."""
    try:
        return bool(jax.tree.leaves(jax.eval_shape(lambda: layer.initial_state((1, 4)).neurons)))
    except (TypeError, ValueError):
        return True
