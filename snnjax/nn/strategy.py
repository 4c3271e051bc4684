"""Memory strategies for networks: `nn.with_memory` puts one into a network.

    network = nn.with_memory(network, memory.Strategy(depth=memory.recompute(1), pack=True))

Parameters and values stay the same; only the residuals of a gradient change. Layers that take each
part of the strategy:

    time    in order="layer" every neuron, in order="time" the network as a whole
    depth   nn.Stacked and nn.Reversible, as the scan of their blocks; the outermost Sequential, cut
            between neurons and the next synapse into blocks (store and recompute only, since the
            blocks differ)
    pack    synapses and max pools whose inputs are spikes, and the cuts
"""

from __future__ import annotations

from typing import Any

from flax import nnx

from snnjax.memory import Recompute, Reverse, Strategy, StrategyError
from snnjax.nn.contract import MemoryRequest, place
from snnjax.nn.network import Network

__all__ = ["saves_memory", "with_memory"]

_CURES = {
    "time": "there are no neurons in it",
    "depth": "it has no nn.Reversible or nn.Stacked blocks to reverse or scan: use "
    "memory.recompute(every)",
    "pack": "no synapse in it takes spikes; pack='bfloat16' narrows real-valued inputs",
}


def with_memory(network: Network, strategy: Strategy) -> Network:
    """A copy of a network under a memory strategy.

    A layer of your own takes part by a method `with_memory(request: nn.contract.MemoryRequest) ->
    nn.contract.Placed`. Without it the layer stays as it is and its outputs do not count as spikes.

    Args:
        network: stays as it is; the result shares its parameters.
        strategy: parts that are None leave the network as written.

    Raises:
        memory.StrategyError: a part of the strategy that no layer takes, or that a layer cannot
            take; the message says why. It is a ValueError.
    """
    try:
        placed = place(network, MemoryRequest(strategy))
    except ValueError as error:
        raise StrategyError(str(error)) from error
    for part, cure in _CURES.items():
        if getattr(strategy, part) not in (None, False) and part not in placed.taken:
            raise StrategyError(f"nothing in this network takes {part} ({strategy}): {cure}")
    return placed.layer


def saves_memory(network: Network) -> bool:
    """True if any scan in a network recomputes or reverses.

    On a CPU such a network wants XLA's memory-optimised scheduler; another is slower under it. The
    scheduler orders the operations between loops: an MS-ResNet-18 cut by `depth=recompute(1)` fell
    from 66 to 39 MB, while a single scanned stack with nothing around it rose by 4 to 20 %.
    """
    return any(
        isinstance(scan, Recompute | Reverse)
        for _, module in nnx.iter_modules(network)
        for scan in _scans(module)
    )


def _scans(module: Any) -> list[Any]:
    """Attributes that may be scans: the module's own, and those of its joints."""
    values = list(vars(module).values())
    return values + [getattr(value, "scan", None) for value in values]
