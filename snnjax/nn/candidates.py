"""Memory strategies worth trying on a network.

    order="layer"    depth: unchanged, store, recompute without and with the synapses on one or two
                     levels, reverse
    order="time"     time: unchanged, recompute on one, two or three levels, or on one whose
                     segments run layer by layer (`memory.sequence`); depth: recompute

Candidates pack spikes where possible, since packing costs little; the unchanged network is a
candidate without packing, too. In `order="layer"` a strategy over time is no candidate: it acts on
single layers of neurons, whose own derivative already keeps only one membrane per timestep.
`nn.with_memory` accepts it nevertheless. Approximate strategies, whose gradient is another one, are
candidates only where they are asked for, in `order="time"`, where their bytes do not grow with T.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import nnx

from snnjax.memory import (
    Strategy,
    eprop,
    ottt,
    recompute,
    reversal,
    sequence,
    sltt,
    store,
    truncated,
)
from snnjax.nn.network import Network
from snnjax.nn.strategy import with_memory

__all__ = ["candidates"]

_EACH, _CURRENTS = recompute(1), recompute(1, keep=("currents",))
_ROOTS = (
    recompute("sqrt"),
    recompute("sqrt", inner=_EACH),
    recompute("sqrt", inner=recompute("sqrt", inner=_EACH)),
)
_CHOICES = {
    "layer": [
        Strategy(depth=scan) for scan in (None, store, _CURRENTS, _EACH, *_ROOTS[:2], reversal())
    ],
    "time": [
        *(Strategy(time=scan) for scan in (None, *_ROOTS, recompute("sqrt", inner=sequence))),
        *(Strategy(time=scan, depth=_EACH) for scan in (None, _ROOTS[0])),
    ],
}


_APPROXIMATE = [Strategy(time=rule) for rule in (truncated(8), eprop(), ottt(), sltt())]


def candidates(network: Network, *, approximate: bool = False) -> list[Strategy]:
    """Strategies that a network accepts and that change it in different ways.

    Args:
        network: network to try them on.
        approximate: add strategies whose gradient is not that of backpropagation through time.

    Returns:
        Strategies; the first one leaves the network unchanged.
    """
    packed = (dataclasses.replace(choice, pack=True) for choice in _CHOICES[network.order])
    choices = [Strategy()]
    for choice, alternative in zip(_CHOICES[network.order], packed, strict=True):
        # A network without spikes to pack refuses `pack=True`; its candidate is the plain strategy.
        choices.append(alternative if _structure(network, alternative) else choice)
    if approximate and network.order == "time":
        choices += _APPROXIMATE
    distinct: dict[Any, Strategy] = {}
    for strategy in choices:
        if structure := _structure(network, strategy):
            # Two strategies with the same effect, such as one over depth without stacks, count
            # once.
            distinct.setdefault(structure, strategy)
    return list(distinct.values())


def _structure(network: Network, strategy: Strategy) -> Any:
    """Graph definition of a network under a strategy; None if the network refuses it."""
    try:
        return nnx.graphdef(with_memory(network, strategy))
    except ValueError:
        return None
