"""Memory strategies worth trying on a network.

    order="layer"    depth: as written, store, recompute without and with the synapses on one or two
                     levels, reverse
    order="time"     time: as written, recompute on one, two or three levels, or on one with its
                     segments layer by layer (`memory.sequence`); depth: recompute

Spikes are packed wherever they can be, since it costs little; "as written" also stands unpacked. In
`order="layer"` a strategy over time acts on single neurons, whose own derivative keeps one membrane
per step already, so it is no candidate; `nn.with_memory` takes it all the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import nnx

from snnjax.memory import Strategy, recompute, reversal, sequence, store
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


def candidates(network: Network) -> list[Strategy]:
    """Strategies that a network admits and that differ on it, the one it has first."""
    packed = (dataclasses.replace(choice, pack=True) for choice in _CHOICES[network.order])
    choices = [Strategy()]
    for choice, alternative in zip(_CHOICES[network.order], packed, strict=True):
        choices.append(alternative if _structure(network, alternative) else choice)
    distinct: dict[Any, Strategy] = {}
    for strategy in choices:
        if structure := _structure(network, strategy):
            distinct.setdefault(structure, strategy)
    return list(distinct.values())


def _structure(network: Network, strategy: Strategy) -> Any:
    """Static structure of a network under a strategy; None if it does not admit the strategy."""
    try:
        return nnx.graphdef(with_memory(network, strategy))
    except ValueError:
        return None
