"""One timestep of layers that hand one membrane on, and the way back through it.

    currents   x_l = synapse_l(s_{l-1}) + shortcut_l(s_{l-2})
    calls      (s_l, v) = f(v, x_l), once per layer, or once per channel group of each layer

`Baton` is that timestep as a Step. `BatonInverse` undoes it by the neuron's inverse, from the
membrane after the last call and the spikes of all calls, at one bit each: the currents are computed
again from the spikes, so that one membrane is all that is kept of any call's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory
from snnjax.memory.trees import pulled_back
from snnjax.nn.contract import State
from snnjax.nn.narrow import widen
from snnjax.nn.neuron import Neuron, membranes
from snnjax.nn.taps import tapped
from snnjax.nn.wiring import subkey
from snnjax.typing import Array, PyTree

__all__ = ["Baton", "BatonInverse", "Parts", "side_by_side"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """What all timesteps share.

    Attributes:
        synapses: of each layer, what leads to its currents.
        shortcuts: of each layer a layer or None, or nothing at all.
        cell: the neuron that owns the membrane.
        statistics: of synapses, then of shortcuts.
        key: for dropout, or None.
        fixed: the first layer's currents, `[B, ...]`, where they are the same at every timestep.
    """

    synapses: Any
    shortcuts: Any
    cell: Neuron
    statistics: tuple
    key: Any
    fixed: Any


@dataclasses.dataclass(frozen=True)
class Baton:
    """One timestep of layers that share a membrane, as a Step.

    Attributes:
        groups: channel groups of each layer, each of which is one call.
        training: as for a layer.
        taps: as for a layer.
        bits: whether the spikes leave packed as well, for the way back.
    """

    groups: int
    training: bool
    taps: tuple[str, ...] = ()
    bits: bool = False

    def __call__(self, parts: Parts, state: PyTree, frame: Array) -> tuple[PyTree, PyTree]:
        """One frame `[B, ...]` through the layers: `state, (spikes, statistics, taps, bits)`."""
        return self.run(parts, state, frame, None)

    def run(self, parts: Parts, state: PyTree, frame: Array, known: Any) -> tuple[PyTree, PyTree]:
        """The timestep; with the states and spikes of all calls known, those in place of its own.

        A membrane rebuilt with a rounding error would fire where the true one did not.
        """
        carried, inner = state
        entered, found, seen = [None, frame], [], {}
        for number in range(len(parts.synapses)):
            x, auxes = self.currents(parts, inner, number, *entered[-2:])
            found.append(auxes)
            given = None if known is None else known[number]
            carried, spikes, potentials = self._calls(parts.cell, carried, x, given)
            entered.append(checkpoint_name(spikes, "spikes"))
            if kinds := self._tapped(parts.cell, x, spikes, potentials):
                seen[f"{parts.cell.name}{number}"] = kinds
        bits = tuple(memory.pack(s) for s in entered[2:]) if self.bits else ()
        pairs = [pair for column in zip(*found, strict=True) for pair in column]
        inner, moved, looked = zip(*pairs, strict=True)
        seen |= _named(looked, len(parts.synapses))
        return (carried, inner), (entered[-1], moved, seen, bits)

    def currents(self, parts: Parts, inner: Any, number: int, further: Any, before: Any):
        """A layer's currents `[B, ...]`; states, statistics, taps of its synapse and shortcut.

        Args:
            parts: of the step.
            inner: states of synapses, then of shortcuts.
            number: of the layer.
            further: what entered the layer before, `[B, ...]`; None for the first.
            before: what enters this one.
        """

        def run(layer, x, place):
            own, key = State(inner[place], parts.statistics[place]), subkey(parts.key, place)
            y, aux = layer(x[None], own, training=self.training, key=key, taps=self.taps)
            return y[0], [(aux.state, aux.statistics, aux.taps)]

        if number == 0 and parts.fixed is not None:
            total, found = parts.fixed, [(inner[0], (), {})]  # all else left before the loop
        else:
            total, found = run(parts.synapses[number], before, number)
        total = widen(total)  # the membrane is float32
        if not len(parts.shortcuts):
            return total, found
        if parts.shortcuts[number] is None:
            return total, [*found, ((), (), {})]
        bypass, more = run(parts.shortcuts[number], further, len(parts.synapses) + number)
        return _sum(widen(bypass), total), found + more

    def _calls(self, cell: Neuron, carried: PyTree, x: Array, known: Any):
        params, fired, potentials = cell.params(), [], []
        for group, part in enumerate(jnp.split(x, self.groups, axis=-1)):
            carried, spikes = cell.step(params, carried, part)
            if known is not None:
                carried, spikes = _pinned(known[group], (carried, spikes))
            fired.append(spikes)
            if "membrane" in self.taps:
                potentials.append(membranes(carried))
        return carried, side_by_side(fired), potentials

    def _tapped(self, cell: Neuron, x: Array, spikes: Array, potentials: list[Array]):
        membrane = side_by_side(potentials)[None] if potentials else None
        options = {"currents": x[None], "params": cell.params(), "membrane": membrane}
        return {k: leaf[0] for k, leaf in tapped(self.taps, spikes[None], **options).items()}


@dataclasses.dataclass(frozen=True)
class BatonInverse:
    """Undoes one timestep of a `Baton` that lets its bits out, call by call.

    Attributes:
        baton: the step.
        undo: the inverse of the neuron, of one call.
        steps: timesteps it can undo in a row; None is any number.
    """

    baton: Baton
    undo: Any
    steps: int | None

    def __call__(self, parts: Parts, after: PyTree, frame: Array, outputs: PyTree) -> PyTree:
        """The state before a timestep."""
        return self._back(parts, after, frame, outputs)[0]

    def pull(self, parts: Parts, after: PyTree, frame: Array, outputs: PyTree, cotangents: PyTree):
        """The state before a timestep, and the cotangents of parts, state and frame."""
        before, known = self._back(parts, after, frame, outputs)
        run = lambda parts, state, frame: self.baton.run(parts, state, frame, known)  # noqa: E731
        return before, pulled_back(run, parts, before, frame, cotangents=cotangents)[1]

    def _back(self, parts, after, frame, outputs):
        carried, inner = after
        entered, known = [None, frame], []
        potentials = membranes(carried)
        *front, channels = potentials.shape
        shape = (*front, channels * self.baton.groups)
        entered += [memory.unpack(bits, shape, potentials.dtype) for bits in outputs[3]]
        for number in reversed(range(len(parts.synapses))):
            x, _ = self.baton.currents(parts, inner, number, *entered[number : number + 2])
            carried, calls = self._undo_calls(parts.cell, carried, x, entered[number + 2])
            known.append(calls)
        return (carried, inner), known[::-1]

    def _undo_calls(self, cell, carried, x, spikes):
        params, calls = cell.params(), []
        pieces = (jnp.split(a, self.baton.groups, axis=-1) for a in (x, spikes))
        for part, fired in reversed(list(zip(*pieces, strict=True))):
            calls.append((carried, fired))
            carried = self.undo(params, carried, part, fired)
        return carried, calls[::-1]


def _named(looked: tuple[dict, ...], layers: int) -> dict[str, Any]:
    """Taps of synapses and then of shortcuts, one timestep of each, by their names."""
    names = [f"{kind}{n}" for kind in ("synapse", "shortcut") for n in range(layers)]
    return {
        f"{name}/{inner}".rstrip("/"): jax.tree.map(lambda leaf: leaf[0], kinds)
        for name, taps in zip(names, looked, strict=False)
        for inner, kinds in taps.items()
    }


def side_by_side(groups: list[Array]) -> Array:
    """Channel groups as one array; a single one as it is."""
    return groups[0] if len(groups) == 1 else jnp.concatenate(groups, -1)


def _sum(shortcut: Array, currents: Array) -> Array:
    if shortcut.shape != currents.shape:  # a sum would broadcast one of them without a word
        raise ValueError(
            f"the synapse gives {list(currents.shape)} and the shortcut {list(shortcut.shape)}: "
            "give a shortcut that changes the shape as its block does"
        )
    return shortcut + currents


@jax.custom_vjp
def _pinned(known: PyTree, computed: PyTree) -> PyTree:
    """Known values in place of computed ones; the gradient is the computed ones'."""
    del computed
    return known


_pinned.defvjp(
    lambda known, computed: (known, known),
    lambda known, g: (jax.tree.map(jnp.zeros_like, known), g),
)
