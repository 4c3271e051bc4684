"""Which memory strategies are worth trying on a network.

    order="layer"    depth: store, recompute (with and without the synapses), reverse     x  packing
    order="time"     time: store, recompute on one, two or three levels  x  depth  x  packing

In `order="layer"` a strategy over time acts on single neurons, whose own derivative keeps one
membrane per step already: it is left out here, and can be asked for all the same.
"""

from __future__ import annotations

import itertools

from flax import nnx

from snnjax.memory import Strategy, recompute, reversal, store
from snnjax.nn.network import Network
from snnjax.nn.strategy import with_memory

__all__ = ["menu"]

_EACH = recompute(1)
_CURRENTS = recompute(1, keep=("currents",))
_TIMES = (
    None,
    recompute("sqrt"),
    recompute("sqrt", inner=_EACH),
    recompute("sqrt", inner=recompute("sqrt", inner=_EACH)),
)
_DEPTHS = (
    None, store, _CURRENTS, _EACH, recompute("sqrt"), recompute("sqrt", inner=_EACH), reversal(),
)  # fmt: skip


def menu(network: Network) -> list[Strategy]:
    """Strategies that a network admits and that change it, the one it has first."""
    times, depths = ((None,), _DEPTHS) if network.order == "layer" else (_TIMES, (None, _EACH))
    found, seen = [], []
    for time, depth, pack in itertools.product(times, depths, (False, True)):
        strategy = Strategy(time, depth, pack)
        try:
            written = nnx.graphdef(with_memory(network, strategy))
        except ValueError:
            continue
        if written not in seen:
            seen.append(written)
            found.append(strategy)
    return found
