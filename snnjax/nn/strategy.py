"""A memory strategy, put into a network that was written without a thought of it.

    network = nn.with_memory(network, memory.Strategy(depth=memory.recompute(1), pack=True))

The parameters stay the same and so do the values; only what a gradient keeps changes. Which layer
takes what:

    time    in order="layer" every neuron, in order="time" the network as a whole
    depth   nn.Stacked and nn.Reversible scan their blocks by it; the other layers of the outermost
            Sequential are cut between neurons and the next synapse, and what lies between two cuts
            is one block (store and recompute only, since they differ)
    pack    synapses and max pools whose inputs are spikes, and the cuts
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import nnx

from snnjax.memory import Recompute, Reverse, Strategy, StrategyError, recompute, store
from snnjax.nn.contract import replace
from snnjax.nn.dropout import Dropout
from snnjax.nn.network import Network
from snnjax.nn.neuron import Neuron
from snnjax.nn.pooling import max_pool
from snnjax.nn.recurrent import Recurrent, refuse_reversal
from snnjax.nn.reversible import Reversible
from snnjax.nn.shared_membrane import Grouped, Shared
from snnjax.nn.stack import Stacked
from snnjax.nn.synapses import Fold, Kernel, flatten
from snnjax.nn.wiring import Joints, Residual, Sequential
from snnjax.typing import Bound

__all__ = ["Placing", "saves_memory", "with_memory"]

_SCANS = ("scan", "time_scan", "joints")
_BLOCKS = (Residual, Reversible, Sequential, Shared, Stacked)


def with_memory(network: Network, strategy: Strategy) -> Network:
    """The same network, keeping what a strategy says.

    A layer of your own takes part by a method `with_memory(strategy, spikes) -> (layer, spikes)`:
    whether its inputs are spikes goes in, whether its outputs are comes out. The strategy over time
    is left out for it in `order="time"`, where the network takes it as a whole.

    Args:
        network: stays as it is; the result shares its parameters.
        strategy: what is None in it stays as the network was written.

    Raises:
        memory.StrategyError: nothing in the network takes a part of the strategy, or what should
            take it cannot; it says why. It is a ValueError.
    """
    try:
        return _with_memory(network, strategy)
    except ValueError as error:
        raise StrategyError(str(error)) from error


def _with_memory(network: Network, strategy: Strategy) -> Network:
    placing = Placing(strategy, network.order)
    body, _ = placing.place(network.body, False)
    changes: dict[str, Any] = {"body": placing.cut(body)}
    if strategy.time is not None and network.order == "time":
        if isinstance(strategy.time, Reverse) and strategy.time.inverse is None:
            raise ValueError(
                'a whole network has no inverse over time, which order="time" would need: use '
                'time=recompute(every), or order="layer", where each neuron reverses by itself'
            )
        changes["time_scan"] = strategy.time
        placing.taken.add("time")
    placing.check()
    return replace(network, **changes)


def saves_memory(network: Network) -> bool:
    """Whether anything in a network keeps less than it could, at the price of computing again.

    On a CPU such a network wants XLA's memory-optimised scheduler; another is slower under it. The
    scheduler orders what stands between loops: an MS-ResNet-18 cut by `depth=recompute(1)` fell
    from 66 to 39 MB, while a single scanned stack with nothing around it rose by 4 to 20 %.
    """
    scans = (getattr(m, name, None) for _, m in nnx.iter_modules(network) for name in _SCANS)
    return any(isinstance(scan, Joints | Recompute | Reverse) for scan in scans)


class Placing:
    """One walk through the layers; remembers which parts of the strategy found a taker."""

    def __init__(self, strategy: Strategy, order: str):
        self.strategy, self.taken = strategy, set()
        self.time = strategy.time if order == "layer" else None
        self.depth = strategy.depth

    def place(self, layer: Any, spikes: bool) -> tuple[Any, bool]:
        """The layer with the strategy in it, and whether its outputs are spikes."""
        match layer:
            case Sequential():
                placed = []
                for part in layer.layers:
                    part, spikes = self.place(part, spikes)
                    placed.append(part)
                return replace(layer, layers=nnx.List(placed)), spikes
            case Residual():
                branch, shortcut = (
                    self.place(part, spikes)[0] for part in (layer.branch, layer.shortcut)
                )
                return replace(layer, branch=branch, shortcut=shortcut), False
            case Neuron():
                return self._neuron(layer), layer.spiking
            case Recurrent():
                refuse_reversal(self.time)
                return replace(layer, neuron=self._neuron(layer.neuron)), layer.neuron.spiking
            case Grouped():
                return replace(layer, neuron=self._neuron(layer.neuron)), layer.neuron.spiking
            case Shared():
                return self._shared(layer, spikes), layer.neuron.spiking
            case Stacked():
                return self._stacked(layer, spikes)
            case Reversible():
                return self._reversible(layer), False
            case Fold():
                return self._fold(layer, spikes)
            case Dropout():
                return layer, spikes and layer.rate == 0
        if hasattr(layer, "with_memory"):
            strategy = dataclasses.replace(self.strategy, time=self.time)
            self.taken.update(("time", "depth", "pack"))  # it knows which it takes
            return layer.with_memory(strategy, spikes)
        return layer, False

    def cut(self, body: Any) -> Any:
        """The outermost Sequential, cut into parts for a strategy over depth."""
        scan = self.depth
        if isinstance(scan, Reverse) and "depth" in self.taken:  # what lies between reversed stacks
            scan = scan.inner or recompute(1)
        if not isinstance(scan, Recompute) and scan is not store:
            return body
        if not isinstance(body, Sequential):
            return body
        self.taken.add("depth")
        if scan is store:
            return replace(body, joints=None)
        joints = _joints(body.layers, dataclasses.replace(self.strategy, depth=scan))
        if any(joints.spikes):
            self.taken.add("pack")
        return replace(body, joints=joints)

    def check(self) -> None:
        """Every part of the strategy must have found a layer."""
        cures = {
            "time": "there are no neurons in it",
            "depth": "it has no nn.Reversible or nn.Stacked blocks to reverse or scan: use "
            "memory.recompute(every)",
            "pack": "no synapse in it takes spikes; pack='bfloat16' narrows real-valued inputs",
        }
        for part, cure in cures.items():
            if getattr(self.strategy, part) not in (None, False) and part not in self.taken:
                raise ValueError(f"nothing in this network takes {part} ({self.strategy}): {cure}")

    def _neuron(self, layer: Neuron) -> Neuron:
        if self.time is None:
            return layer
        self.taken.add("time")
        return replace(layer, scan=layer.resolve(self.time))

    def _shared(self, layer: Shared, spikes: bool) -> Shared:
        firing = layer.neuron.spiking
        marks = [spikes, *([firing] * (len(layer.synapses) - 1))]
        pairs = zip(layer.synapses, marks, strict=True)
        synapses = nnx.List([self.place(part, mark)[0] for part, mark in pairs])
        # What enters a shortcut entered the layer before; in front of the first there is none.
        ways = zip(layer.shortcuts, [False, *marks[:-1]], strict=False)
        shortcuts = nnx.List([w if w is None else self.place(w, m)[0] for w, m in ways])
        changed = replace(layer, synapses=synapses, shortcuts=shortcuts)
        if self.time is None:
            return changed
        if isinstance(self.time, Reverse):
            layer.inverse()
        self.taken.add("time")
        return replace(changed, scan=self.time)

    def _stacked(self, layer: Stacked, spikes: bool) -> tuple[Stacked, bool]:
        taken = set(self.taken)
        blocks, out = self.place(layer.blocks, spikes)
        if spikes and not out:  # from the second block on the inputs are no spikes
            self.taken = taken
            blocks, out = self.place(layer.blocks, False)
        if isinstance(self.depth, Reverse) and self.depth.inverse is None:
            return replace(layer, blocks=blocks), spikes and out  # others may reverse
        return self._deep(layer, blocks=blocks), spikes and out

    def _reversible(self, layer: Reversible) -> Reversible:
        """Branches are undone one at a time, and their parts between two cuts as well."""
        f, g = (self.place(branch, False)[0] for branch in (layer.f, layer.g))
        scan = self.depth or layer.scan
        inner = (scan.inner or recompute(1)) if isinstance(scan, Reverse) else store
        within = Placing(dataclasses.replace(self.strategy, depth=inner), "layer")
        return self._deep(layer, f=within.cut(f), g=within.cut(g))

    def _deep(self, layer: Any, **changes: Any) -> Any:
        if self.depth is not None:
            self.taken.add("depth")
            changes["scan"] = self.depth
        return replace(layer, **changes)

    def _fold(self, layer: Fold, spikes: bool) -> tuple[Fold, bool]:
        pools = isinstance(layer.function, Bound) and layer.function.function is max_pool
        keeps = pools or layer.function is flatten
        pack = self.strategy.pack
        if not pack or not (pools or _weighs(layer)):
            return layer, spikes and keeps
        storage = "spikes" if spikes else None if pools or pack is True else pack
        if storage is None:
            return layer, spikes and keeps
        self.taken.add("pack")
        return replace(layer, pack=storage), spikes and keeps


def _joints(layers: Any, strategy: Strategy) -> Joints:
    """Cuts around blocks, and between neurons and the next synapse: where spikes can be packed."""
    assert strategy.depth is not None
    starts, marks = [0], [False]
    spikes, due, last = False, False, 0  # a cut is due; the last place where spikes would be cut
    for number, layer in enumerate(layers):
        last = number if spikes else last
        block = isinstance(layer, _BLOCKS)
        here = block or (number and isinstance(layers[number - 1], Stacked | Reversible))
        if number and (here or (due and _weighs(layer))):
            packs = bool(strategy.pack) and (spikes if here else last > starts[-1])
            starts.append(last if packs and not here else number)
            marks.append(packs)
            due = False
        _, fired = Placing(Strategy(), "layer").place(layer, spikes)
        neurons = isinstance(layer, Neuron | Recurrent | Grouped) or fired > spikes
        spikes, due = fired, due or block or neurons
    alone = tuple(isinstance(layers[start], Stacked | Reversible) for start in starts)
    return Joints(strategy.depth, tuple(starts), tuple(marks), alone)


def _weighs(layer: Any) -> bool:
    return isinstance(layer, Fold) and isinstance(layer.function, Kernel | nnx.Linear)
