"""The figures of NeuroBench, by its own rules and with its own traps.

    footprint             bytes of parameters and of what else the network holds
    parameters            their number
    connection_sparsity   zeros among the weights of connections, 4 decimals
    activation_sparsity   zeros among the outputs of spiking neurons
    synaptic operations   per example: effective_macs, effective_acs, dense
    membrane_updates      per example: a membrane is not what it was a timestep before
    neuron_operations     per example: updates times a constant of the neuron model

Traps, all reproduced: a call counts as accumulation (AC) if the whole batch of that timestep is in
{-1, 0, 1}, so that one other number makes all of it multiplication (MAC), and a batch of floats
that happen to be zero is AC; zero padding is in no count, not even in dense; pooling, norms and
biases are never counted; a stem is counted at every timestep, be its input static or not (here it
is counted as often as it runs: `nn.StaticInput` runs it once). Counts there are sums in float32,
here they are exact.

Different by nature: a batch norm in PyTorch holds an int64 besides its statistics, and snnTorch's
neurons hold buffers for what are plain numbers here; neither is in this footprint. Products of
attention, and of neurons that weigh currents over time (`nn.PSN`), are no connection's and in no
count here: see `cost.energy`. The membranes of such neurons are updated as any other's.

Reference: Yik et al., "The neurobench framework for benchmarking neuromorphic computing algorithms
and systems", Nature Communications 2025, arXiv:2304.04640; the rules are those of its released code
(v2.3.0).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx

from snnjax import metrics, nn
from snnjax.cost.measure import kind_of
from snnjax.cost.tally import Tally
from snnjax.nn import counts
from snnjax.typing import Array

__all__ = ["NeuroBench", "connection_weights", "neurobench", "uncounted"]

# Kinds of layers whose update is that of snnTorch's Leaky, with which it costs 4 operations
# whatever its reset, none included; the others have no constant, or one that depends on options.
_LEAKY = ("lif", "if", "plif", "reset_free_lif")


@dataclasses.dataclass(frozen=True)
class NeuroBench:
    """The figures; counts are per example, over all timesteps.

    Attributes:
        footprint: bytes.
        parameters: number of parameters.
        connection_sparsity: in [0, 1], 4 decimals; None without connections.
        activation_sparsity: in [0, 1].
        effective_macs: multiply-accumulates of what is not zero.
        effective_acs: accumulates of what is not zero.
        dense: all operations, zeros included.
        membrane_updates: None where a membrane is shared or a layer has none of its own.
        neuron_operations: effective ones; None but for LIF, without a reset too, IF and PLIF.
        neuron_dense: the same with every membrane updated at every timestep.
    """

    footprint: int
    parameters: int
    connection_sparsity: float | None
    activation_sparsity: float
    effective_macs: float
    effective_acs: float
    dense: float
    membrane_updates: float | None
    neuron_operations: float | None
    neuron_dense: float | None


def neurobench(network: nn.Network, tally: Tally) -> NeuroBench:
    """The figures of a network, from what it did with some examples.

    Args:
        network: as it was measured, with its weights.
        tally: from `cost.tally` of it.
    """
    params = jax.tree.leaves(nnx.state(network, nnx.Param))
    each = lambda kind: sum(getattr(c, kind) for c in tally.connections.values()) / tally.examples  # noqa: E731
    weights = connection_weights(network)
    updates, effective, dense = _of_neurons(tally)
    return NeuroBench(
        footprint=_footprint(network),
        parameters=sum(leaf.size for leaf in params),
        connection_sparsity=metrics.connection_sparsity(weights) if weights else None,
        activation_sparsity=1 - tally.rate,
        effective_macs=each("effective_macs"),
        effective_acs=each("effective_acs"),
        dense=each("dense"),
        membrane_updates=updates,
        neuron_operations=effective,
        neuron_dense=dense,
    )


def connection_weights(network: nn.Network) -> list[Array]:
    """The weights of all connections, as parameters: those that taps count, stacked ones whole."""
    found = []
    for _, module in nnx.iter_modules(network):
        if isinstance(module, nn.Recurrent):
            found.append(module.weights[...])
            continue
        kernel = getattr(module, "kernel", None)
        if counts(module) and isinstance(kernel, nnx.Param):
            found.append(kernel[...])
    return found


def uncounted(network: nn.Network) -> list[str]:
    """Layers of a user's own that hold matrices and do not tell their operations, by their name."""
    names = []
    for path, module in nnx.iter_modules(network):
        if isinstance(module, nn.Fold) and isinstance(module.function, nnx.Module):
            weights = jax.tree.leaves(nnx.state(module.function, nnx.Param))
            if not counts(module.function) and any(leaf.ndim > 1 for leaf in weights):
                normalizes = isinstance(module.function, nnx.GroupNorm | nnx.LayerNorm)
                names += [] if normalizes else ["/".join(map(str, path)) or module.name]
    return names


def _footprint(network: nn.Network) -> int:
    statistics = jax.tree.leaves(
        network.initial_state(1).statistics, is_leaf=lambda n: isinstance(n, nn.Statistics)
    )
    norms = [leaf for node in statistics if isinstance(node, nn.Statistics) for leaf in node]
    leaves = [*jax.tree.leaves(nnx.state(network)), *norms]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _of_neurons(tally: Tally) -> tuple[Any, Any, Any]:
    """Updates, effective and dense operations, each None where it is not defined."""
    layers = {name: layer for name, layer in tally.neurons.items() if layer.stateful}
    if not layers or any(layer.updates is None for layer in layers.values()):
        return None, None, None
    updates = sum(layer.updates or 0 for layer in layers.values()) / tally.examples
    if any(kind_of(name) not in _LEAKY for name in layers):
        return updates, None, None
    outputs = sum(layer.outputs for layer in layers.values()) / tally.examples
    effective, dense = (metrics.neuron_operations(number) for number in (updates, outputs))
    return updates, effective, dense
