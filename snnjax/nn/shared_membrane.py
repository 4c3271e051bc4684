"""Layers or channel groups that share one membrane: fewer states, written in turn.

    Grouped   channel groups c = 1..G of one layer:   h_1[t] = f(v_G[t-1], x_1[t])
                                                      h_c[t] = f(v_{c-1}[t], x_c[t])
    Shared    layers l = 1..K, equal in shape:        h_1[t] = f(v_K[t-1], x_1[t])
                                                      h_l[t] = f(v_{l-1}[t], x_l[t])
              with currents                           x_l = synapse_l(s_{l-1}) + shortcut_l(s_{l-2})

Sharing is wiring, not a memory strategy: another network, whose membranes forget once per call, so
K or G times per timestep (at a decay of 0.25 and K = 6 one timestep leaves 0.0002 of a membrane to
the next). State shrinks by G or K; the gradient stays exact for this network. Both at once is
`Shared` with a `Grouped` neuron, K G calls per timestep.

`SharedStep` is one timestep of `Shared`. `SharedInverse` undoes it by the inverse of the neuron,
from the membrane after the last call and the spikes of all calls, at one bit each: it computes the
currents again from the spikes, so that a gradient keeps one membrane per timestep at most.

Reference: Kim, Li, Moitra, Yin, Panda, "Sharing Leaky-Integrate-and-Fire Neurons for
Memory-Efficient Spiking Neural Networks", 2023, arXiv:2305.18360.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory
from snnjax.nn.contract import (
    Aux,
    Call,
    MemoryRequest,
    Placed,
    State,
    largest,
    mean_over_steps,
    named,
    output_shape,
    place,
    replace,
    taken_by,
)
from snnjax.nn.neuron import Neuron, membranes
from snnjax.nn.normalization import refuse_window_statistics
from snnjax.nn.stack import repeat_state
from snnjax.nn.static_input import StaticInput
from snnjax.nn.taps import reconstruction, tapped
from snnjax.nn.wiring import gather
from snnjax.ops.rounding import widen
from snnjax.ops.trees import value_and_pullback
from snnjax.typing import Array, PyTree, Scan

__all__ = [
    "SharedStep",
    "SharedInverse",
    "Grouped",
    "Parts",
    "Shared",
    "side_by_side",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """The params of a `SharedStep`, equal at all timesteps.

    Attributes:
        synapses: of each layer, the layers that make its currents.
        shortcuts: of each layer a layer or None, or nothing at all.
        cell: the neuron that owns the membrane.
        statistics: of synapses, then of shortcuts.
        call: the options of the call.
        fixed: the first layer's currents, `[B, ...]`, where they are the same at every timestep.
    """

    synapses: Any
    shortcuts: Any
    cell: Neuron
    statistics: tuple
    call: Call
    fixed: Any


@dataclasses.dataclass(frozen=True)
class SharedStep:
    """One timestep of layers that share a membrane, as a Step.

    Attributes:
        groups: channel groups of each layer, each of which is one call.
        packs_spikes: return the spikes of all calls too, at one bit each, for the way back.
    """

    groups: int
    packs_spikes: bool = False

    def __call__(self, parts: Parts, state: PyTree, frame: Array) -> tuple[PyTree, PyTree]:
        """One frame `[B, ...]` through the layers.

        Returns:
            The state, and `(spikes, (statistics, taps, diagnostics), bits)`.
        """
        return self.run(parts, state, frame, None)

    def run(self, parts: Parts, state: PyTree, frame: Array, known: Any) -> tuple[PyTree, PyTree]:
        """The timestep; `known` states and spikes of all calls replace the computed ones.

        A membrane rebuilt with a rounding error would fire where the true one did not.
        """
        carried, inner = state
        entered, found, seen = [None, frame], [], {}
        for number in range(len(parts.synapses)):
            x, auxes = self.currents(parts, inner, number, *entered[-2:])
            found.append(auxes)
            given = None if known is None else known[number]
            carried, spikes, potentials = self._calls(parts, carried, x, given)
            entered.append(checkpoint_name(spikes, "spikes"))
            if kinds := self._tapped(parts, x, spikes, potentials):
                seen[f"{parts.cell.name}{number}"] = kinds
        bits = tuple(memory.packing.pack(s) for s in entered[2:]) if self.packs_spikes else ()
        pairs = [pair for column in zip(*found, strict=True) for pair in column]
        layers = len(parts.synapses)
        names = [f"{kind}{n}" for kind in ("synapse", "shortcut") for n in range(layers)]
        aux = gather(list(zip(names, pairs, strict=False)))
        seen |= jax.tree.map(lambda leaf: leaf[0], aux.taps)
        return (carried, aux.state), (entered[-1], (aux.statistics, seen, aux.diagnostics), bits)

    def currents(self, parts: Parts, inner: Any, number: int, further: Any, before: Any):
        """A layer's currents `[B, ...]`, and the auxes of its synapse and shortcut.

        Args:
            parts: of the step.
            inner: states of synapses, then of shortcuts.
            number: of the layer.
            further: input of the layer before, `[B, ...]`; None for the first.
            before: input of this layer.
        """

        def run(layer, x, place):
            own = State(inner[place], parts.statistics[place])
            y, aux = layer(x[None], own, parts.call.child(place))
            return y[0], [aux]

        if number == 0 and parts.fixed is not None:
            total, found = parts.fixed, [Aux(inner[0])]  # all else left before the loop
        else:
            total, found = run(parts.synapses[number], before, number)
        total = widen(total)  # the membrane is float32
        if not len(parts.shortcuts):
            return total, found
        if parts.shortcuts[number] is None:
            return total, [*found, Aux()]
        bypass, more = run(parts.shortcuts[number], further, len(parts.synapses) + number)
        return _sum(widen(bypass), total), found + more

    def _calls(self, parts: Parts, carried: PyTree, x: Array, known: Any):
        cell, fired, potentials = parts.cell, [], []
        params = cell.params()
        for group, part in enumerate(jnp.split(x, self.groups, axis=-1)):
            carried, spikes = cell.step(params, carried, part)
            if known is not None:
                carried, spikes = _pinned(known[group], (carried, spikes))
            fired.append(spikes)
            if "membrane" in parts.call.taps:
                potentials.append(membranes(carried))
        return carried, side_by_side(fired), potentials

    def _tapped(self, parts: Parts, x: Array, spikes: Array, potentials: list[Array]):
        membrane = side_by_side(potentials)[None] if potentials else None
        options = {"currents": x[None], "params": parts.cell.params(), "membrane": membrane}
        return {k: leaf[0] for k, leaf in tapped(parts.call.taps, spikes[None], **options).items()}


@dataclasses.dataclass(frozen=True)
class SharedInverse:
    """Undoes one timestep of a `SharedStep` with packed spikes, call by call.

    Attributes:
        step: the step.
        undo: the inverse of the neuron, of one call.
        steps: timesteps that it can undo in a row; None is any number.
    """

    step: SharedStep
    undo: Any
    steps: int | None

    def __call__(self, parts: Parts, after: PyTree, frame: Array, outputs: PyTree) -> PyTree:
        """The state before a timestep."""
        return self._back(parts, after, frame, outputs)[0]

    def pull(self, parts: Parts, after: PyTree, frame: Array, outputs: PyTree, cotangents: PyTree):
        """The state before a timestep, and the cotangents of parts, state and frame."""
        before, known = self._back(parts, after, frame, outputs)
        run = lambda parts, state, frame: self.step.run(parts, state, frame, known)  # noqa: E731
        return before, value_and_pullback(run, parts, before, frame, cotangents=cotangents)[1]

    def _back(self, parts, after, frame, outputs):
        carried, inner = after
        entered, known = [None, frame], []
        potentials = membranes(carried)
        *front, channels = potentials.shape
        shape = (*front, channels * self.step.groups)
        entered += [memory.packing.unpack(bits, shape, potentials.dtype) for bits in outputs[-1]]
        for number in reversed(range(len(parts.synapses))):
            x, _ = self.step.currents(parts, inner, number, *entered[number : number + 2])
            carried, calls = self._undo_calls(parts.cell, carried, x, entered[number + 2])
            known.append(calls)
        return (carried, inner), known[::-1]

    def _undo_calls(self, cell, carried, x, spikes):
        params, calls = cell.params(), []
        pieces = (jnp.split(a, self.step.groups, axis=-1) for a in (x, spikes))
        for part, fired in reversed(list(zip(*pieces, strict=True))):
            calls.append((carried, fired))
            carried = self.undo(params, carried, part, fired)
        return carried, calls[::-1]


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


class Grouped(nnx.Module):
    """`groups` contiguous channel groups of one layer write one membrane of `C / groups` channels.

    The groups are laid out in time, `[T, B, ..., C] -> [T * G, B, ..., C / G]`, so that the neuron
    runs under any of its own scans. With one group it is the neuron itself.

    Args:
        neuron: the neuron that owns the membrane.
        groups: number of groups; must divide the channels.

    Raises:
        ValueError: `groups` does not divide the channels (on `initial_state`).
    """

    def __init__(self, neuron: Neuron, groups: int):
        self.neuron, self.groups, self.name = neuron, groups, f"grouped_{neuron.name}"
        self.spiking = neuron.spiking

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the neuron by the strategy over time."""
        placed = self.neuron.with_memory(request)
        return placed._replace(layer=replace(self, neuron=placed.layer))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, `(B, ..., C / groups)`."""
        *front, channels = shape
        if self.groups < 1 or channels % self.groups:
            raise ValueError(
                f"{channels} channels cannot be cut in {self.groups} groups: choose a divisor"
            )
        return self.neuron.initial_state((*front, channels // self.groups))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Currents `[T, B, ..., C]` to spikes `[T, B, ..., C]`."""
        inner = tuple(kind for kind in call.taps if kind in ("membrane", "reconstruction"))
        turns, aux = self.neuron(self._in_turn(inputs), state, call.tapping(*inner))
        outputs, kinds = self._side_by_side(turns), aux.taps.get("", {})
        membrane = self._side_by_side(kinds["membrane"]) if "membrane" in kinds else None
        options = {"currents": inputs, "params": self.neuron.params(), "membrane": membrane}
        kinds = kinds | tapped(call.taps, outputs, **options)
        return outputs, Aux(aux.state, (), {"": kinds} if kinds else {})

    def _in_turn(self, inputs: Array) -> Array:
        timesteps, *middle, channels = inputs.shape
        cut = inputs.reshape(timesteps, *middle, self.groups, channels // self.groups)
        return jnp.moveaxis(cut, -2, 1).reshape(-1, *middle, channels // self.groups)

    def _side_by_side(self, outputs: Array) -> Array:
        turns, *middle, channels = outputs.shape
        cut = outputs.reshape(turns // self.groups, self.groups, *middle, channels)
        return jnp.moveaxis(cut, 1, -2).reshape(-1, *middle, self.groups * channels)


class Shared(nnx.Module):
    """Layers of equal shape that write one membrane, one after the other within each timestep.

    Since a layer waits for the membrane its predecessor leaves at the same timestep, the group runs
    step by step: normalisation inside must be `over="step"` or `"frozen"`. A first layer in
    `nn.StaticInput` is taken out of the loop.

    Of the membrane a gradient keeps, with `T` timesteps, `K` layers, `G` channel groups and M bytes
    of one membrane (of `C / G` channels):

        memory.store              T K G M         every call's
        memory.recompute(every)   (T / every) M   exact; all calls of `every` timesteps once more
        memory.reversal()         M               if the neuron does not forget, as nn.IF; else
                                                  (T / refresh) M, refresh * K * G calls at most as
                                                  many as its inverse can undo

    `recompute` keeps the inputs beside it, and `reversal` all spikes at one bit each; neither keeps
    currents nor the residuals of synapses and norms.

    Args:
        synapses: per layer the layers that make its currents, such as `Sequential(Conv,
            BatchNorm)`; all of them give one shape.
        neuron: the neuron, with its one membrane; an `nn.Grouped` one if channels share it, too.
        shortcuts: per layer None, or a layer on the input of the layer before, whose output is
            added to the currents: `x_l = synapse_l(s_{l-1}) + shortcut_l(s_{l-2})`, the residual
            blocks of two layers. An empty `nn.Sequential()` is the identity.
        scan: the memory strategy over time; None for `memory.store`.

    Raises:
        ValueError: there are no layers, or not one shortcut for each; their currents differ in
            shape (on `initial_state`); one normalises over the window (on a call in training); the
            scan reverses and the group has no inverse.
    """

    def __init__(
        self,
        synapses: list[Any],
        neuron: Neuron | Grouped,
        *,
        shortcuts: Sequence[Any] = (),
        scan: Scan | None = None,
    ):
        if not synapses:
            raise ValueError("Shared needs at least one layer of synapses")
        if shortcuts and (len(shortcuts) != len(synapses) or shortcuts[0] is not None):
            raise ValueError(
                "give one shortcut per layer, or None; before the first layer there is nothing it "
                "could start from"
            )
        self.synapses, self.neuron = nnx.List(synapses), neuron
        self.shortcuts = nnx.List(shortcuts)
        self.scan, self.name = scan, "shared"
        if isinstance(scan, memory.Reverse):
            self.inverse()

    def inverse(self) -> tuple[Any, int | None]:
        """The inverse of one call and how many timesteps it can undo; None is any number.

        Raises:
            ValueError: there is none, and why.
        """
        cell, groups = self._cell()
        if not cell.spiking:
            raise ValueError(f"{cell.name} neurons offer no inverse: use memory.recompute(every)")
        undo, calls = cell.inverse(), groups * len(self.synapses)
        if undo.steps is None:
            return undo, None
        if undo.steps < calls:
            raise ValueError(
                f"layers that share a membrane call it {calls} times per timestep, and this neuron "
                f"can be undone {undo.steps} times before its rounding error matters: use "
                "memory.recompute(every), or a neuron that forgets less"
            )
        return undo, undo.steps // calls

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Scans the group by the strategy over time; synapses and shortcuts take the rest.

        Raises:
            ValueError: the strategy reverses and the group has no inverse.
        """
        firing, time = self.neuron.spiking, request.strategy.time
        entering = [request.spiking, *([firing] * (len(self.synapses) - 1))]
        synapses = [
            place(part, request.inside(spikes))
            for part, spikes in zip(self.synapses, entering, strict=True)
        ]
        # A shortcut starts where the layer before does; the first layer has none.
        shortcuts = [
            Placed(way) if way is None else place(way, request.inside(spikes))
            for way, spikes in zip(self.shortcuts, [False, *entering[:-1]], strict=False)
        ]
        changed = replace(
            self,
            synapses=nnx.List([part.layer for part in synapses]),
            shortcuts=nnx.List([part.layer for part in shortcuts]),
        )
        taken = taken_by(synapses + shortcuts)
        if time is None:
            return Placed(changed, firing, taken, "block")
        if isinstance(time, memory.Reverse):
            self.inverse()
        return Placed(replace(changed, scan=time), firing, taken | {"time"}, "block")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """One membrane for all layers, and the states of synapses and shortcuts."""
        states, bypasses, further, first = [], [], None, None
        for number, synapse in enumerate(self.synapses):
            states.append(synapse.initial_state(shape))
            if self.shortcuts:
                way = self.shortcuts[number]
                bypasses.append(State() if way is None else way.initial_state(further))
            further, shape = shape, output_shape(synapse, states[-1], shape)
            if number and shape != first:
                raise ValueError(
                    f"layers that share a membrane give one shape, not {first} and {shape}"
                )
            first = shape
        states += bypasses
        inner = repeat_state(tuple(s.neurons for s in states))  # they are carried over time
        membrane = self.neuron.initial_state(shape).neurons
        return State((membrane, inner), tuple(s.statistics for s in states))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """`[T, B, ...]` through the group, timestep by timestep."""
        if call.training:
            refuse_window_statistics([*self.synapses, *self.shortcuts])
        cell, groups = self._cell()
        fixed, aux = self._fixed(inputs, state, call)
        parts = Parts(self.synapses, self.shortcuts, cell, state.statistics, call, fixed)
        step, scan, start = SharedStep(groups), self.scan, state.neurons
        if isinstance(scan, memory.Reverse):
            back = SharedStep(groups, packs_spikes=True)
            scan = scan.with_inverse(SharedInverse(back, *self.inverse()))
            quiet = dataclasses.replace(parts, call=call.tapping())
            seen_back = reconstruction("", scan, back, quiet, start, inputs, call.taps)
            # What is looked at is all kept: under a strategy it would have to be rebuilt as well.
            step, scan = (step, memory.store) if call.taps else (back, scan)
        else:
            seen_back = {}
        scan = memory.store if scan is None else scan
        after, (outputs, (statistics, seen, diagnostics), _) = scan(step, parts, start, inputs)
        statistics = mean_over_steps(statistics)
        if fixed is not None:
            statistics = (aux.statistics, *statistics[1:])
        seen = named("synapse0", aux.taps) | seen | seen_back
        diagnostics = named("synapse0", aux.diagnostics) | largest(diagnostics)
        return outputs, Aux(after, statistics, seen, diagnostics)

    def _cell(self) -> tuple[Neuron, int]:
        neuron = self.neuron
        return (neuron.neuron, neuron.groups) if isinstance(neuron, Grouped) else (neuron, 1)

    def _fixed(self, inputs: Array, state: State, call: Call) -> tuple[Array | None, Aux]:
        """The first layer's currents, where they are the same at every timestep."""
        first = self.synapses[0]
        if not isinstance(first, StaticInput):
            return None, Aux()
        own = State(state.neurons[1][0], state.statistics[0])
        outputs, aux = first.layer(inputs[:1], own, call.child(0))
        return outputs[0], aux
