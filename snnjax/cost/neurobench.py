"""NeuroBench figures of a network, by NeuroBench's own rules and with their pitfalls.

    footprint             bytes of parameters and all other arrays of the network
    parameters            number of parameters
    connection_sparsity   zeros among the weights of connections, 4 decimals
    activation_sparsity   zeros among the outputs of spiking neurons
    synaptic operations   per example: effective_macs, effective_acs, dense
    membrane_updates      per example: changes of a membrane from one timestep to the next
    neuron_operations     per example: updates times a constant of the neuron model

Pitfalls, all reproduced: a call counts as accumulation (AC) if the whole batch of that timestep is
in {-1, 0, 1}, so a single other value makes all of it multiplication (MAC), and a batch of floats
that happen to be zero is AC; zero padding is in no count, not even in dense; pooling, norms and
biases are never counted; a stem counts at every timestep, even with a static input (here it counts
as often as it runs, and `nn.StaticInput` runs it once). NeuroBench sums in float32, these counts
are exact.

Inherent differences: a batch norm in PyTorch holds an int64 besides its statistics, and snnTorch's
neurons hold buffers for values that are plain numbers here; neither is in this footprint. Products
of attention, and of neurons that weigh currents over time (`nn.PSN`), belong to no connection and
are not counted: see `cost.energy`. Updates of the membranes of such neurons are counted.

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
from snnjax.cost._tally import Tally
from snnjax.cost.counting import layer_kind
from snnjax.nn.taps import counts
from snnjax.typing import Array

__all__ = ["NeuroBench", "connection_weights", "neurobench"]

# Layers with the update of snnTorch's Leaky, for which NeuroBench counts 4 operations with any
# reset or none. For other layers it has no constant, or one that depends on options.
_LEAKY = ("lif", "if", "plif", "reset_free_lif")


@dataclasses.dataclass(frozen=True)
class NeuroBench:
    """NeuroBench figures; counts are per example, over all timesteps.

    Attributes:
        footprint: Bytes of all arrays.
        parameters: Number of parameters.
        connection_sparsity: Fraction of zero weights, in [0, 1], 4 decimals; None without
            connections.
        activation_sparsity: Fraction of zero outputs of spiking neurons, in [0, 1].
        effective_macs: Multiply-accumulates of nonzero factors.
        effective_acs: Accumulates of nonzero factors.
        dense: All operations, zeros included.
        membrane_updates: Changes of membranes; None if a membrane is shared or a layer has no
            membrane of its own.
        neuron_operations: Operations of the membrane updates; None unless all neurons are LIF (with
            or without reset), IF or PLIF.
        neuron_dense: Operations if every membrane were updated at every timestep.
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
    """Computes the NeuroBench figures of a network from its operations on some examples.

    Args:
        network: Measured network, with its weights.
        tally: Counts of this network from `cost.measure` or `cost.counting.tally`.
    """
    params = jax.tree.leaves(nnx.state(network, nnx.Param))
    mean = lambda kind: sum(getattr(c, kind) for c in tally.connections.values()) / tally.examples  # noqa: E731
    weights = connection_weights(network)
    updates, effective, dense = _neuron_operations(tally)
    return NeuroBench(
        footprint=_footprint(network),
        parameters=sum(leaf.size for leaf in params),
        connection_sparsity=metrics.connection_sparsity(weights) if weights else None,
        activation_sparsity=1 - tally.rate,
        effective_macs=mean("effective_macs"),
        effective_acs=mean("effective_acs"),
        dense=mean("dense"),
        membrane_updates=updates,
        neuron_operations=effective,
        neuron_dense=dense,
    )


def connection_weights(network: nn.Network) -> list[Array]:
    """Weights of the connections that report their operations; stacked weights as one array."""
    weights = []
    for _, module in nnx.iter_modules(network):
        # Its matrix is named `weights`, so the search for a kernel below would miss it.
        if isinstance(module, nn.Recurrent):
            weights.append(module.weights[...])
            continue
        kernel = getattr(module, "kernel", None)
        # Scales of norms are parameters but no connections: those layers report no operations.
        if counts(module) and isinstance(kernel, nnx.Param):
            weights.append(kernel[...])
    return weights


def _footprint(network: nn.Network) -> int:
    """Bytes of parameters, constants and running statistics."""
    # Statistics are part of the state here and buffers of the module in PyTorch.
    kinds = (nn.contract.Statistics, nn.contract.StepStatistics)
    nodes = jax.tree.leaves(
        network.initial_state(1).statistics, is_leaf=lambda node: isinstance(node, kinds)
    )
    norms = [leaf for node in nodes if isinstance(node, kinds) for leaf in jax.tree.leaves(node)]
    leaves = [*jax.tree.leaves(nnx.state(network)), *norms]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _neuron_operations(tally: Tally) -> tuple[Any, Any, Any]:
    """Membrane updates, effective and dense operations; None where undefined."""
    layers = {name: layer for name, layer in tally.neurons.items() if layer.stateful}
    # An undefined layer makes the sum undefined: leaving it out would understate the network.
    if not layers or any(layer.updates is None for layer in layers.values()):
        return None, None, None
    # `or 0` only narrows the type; None was excluded above.
    updates = sum(layer.updates or 0 for layer in layers.values()) / tally.examples
    if any(layer_kind(name) not in _LEAKY for name in layers):
        return updates, None, None
    outputs = sum(layer.outputs for layer in layers.values()) / tally.examples
    effective, dense = (
        metrics.operations.neuron_operations(number) for number in (updates, outputs)
    )
    return updates, effective, dense
