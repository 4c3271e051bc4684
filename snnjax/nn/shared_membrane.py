"""Shared membranes: layers or channel groups that update one membrane in turn.

    Grouped   channel groups c = 1..G of one layer:   h_1[t] = f(v_G[t-1], x_1[t])
                                                      h_c[t] = f(v_{c-1}[t], x_c[t])
    Shared    layers l = 1..K, equal in shape:        h_1[t] = f(v_K[t-1], x_1[t])
                                                      h_l[t] = f(v_{l-1}[t], x_l[t])
              with currents                           x_l = synapse_l(s_{l-1}) + shortcut_l(s_{l-2})

f is one call of the neuron on membrane v and current x, h its result, s its spikes. Sharing changes
the network; it is no memory strategy. A membrane decays once per call, that is K or G times per
timestep: at a decay of 0.25 and K = 6 a fraction of 0.0002 reaches the next timestep. The state
shrinks by a factor G or K, and the gradient is exact for this network. `Shared` with a `Grouped`
neuron combines both, at K G calls per timestep.

`SharedStep` is one timestep of `Shared`. `SharedInverse` inverts it call by call, from the last
membrane and the spikes of all calls at one bit each. It recomputes the currents from the spikes, so
a gradient keeps at most one membrane per timestep.

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
from snnjax.nn._checks import check_layer, check_scan
from snnjax.nn.contract import (
    Aux,
    Call,
    MemoryRequest,
    Placed,
    State,
    gather,
    join_steps,
    max_over_steps,
    output_shape,
    parts_taken,
    place,
    prefix_names,
    repeat_state,
    replace,
)
from snnjax.nn.neuron import Neuron, check_neuron, membranes
from snnjax.nn.normalization import refuse_window_statistics
from snnjax.nn.taps import neuron_taps, reconstruction
from snnjax.nn.wiring import StaticInput
from snnjax.ops.arguments import check_counts
from snnjax.ops.derivative import with_derivative
from snnjax.ops.rounding import widen, widen_to
from snnjax.ops.trees import value_and_pullback
from snnjax.typing import Array, PyTree, Scan

__all__ = [
    "SharedStep",
    "SharedInverse",
    "Grouped",
    "Parts",
    "Shared",
    "join_groups",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """Parameters of a `SharedStep`, equal at all timesteps.

    Attributes:
        synapses: one layer per shared layer, which computes its currents.
        shortcuts: one layer or None per shared layer; empty without shortcuts.
        cell: neuron with the shared membrane.
        statistics: statistics of the synapses, followed by those of the shortcuts.
        call: options of the call.
        fixed: currents of the first layer, `[B, ...]`, if equal at every timestep, else None.
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
        groups: channel groups per layer; each group is one call of the neuron.
        packs_spikes: also return the spikes of all calls at one bit each, for `SharedInverse`.
    """

    groups: int
    packs_spikes: bool = False

    def __call__(self, parts: Parts, state: PyTree, frame: Array) -> tuple[PyTree, PyTree]:
        """One frame `[B, ...]` through the layers.

        Returns:
            State, and `(spikes, (statistics, taps, diagnostics), packed spikes of all calls)`.
        """
        return self.run(parts, state, frame, None)

    def run(self, parts: Parts, state: PyTree, frame: Array, replay: Any) -> tuple[PyTree, PyTree]:
        """One timestep, optionally with given results of all calls.

        Args:
            parts: parameters of the step.
            state: membrane, and states of synapses and shortcuts.
            frame: `[B, ...]`.
            replay: per layer and group `(state, spikes)` of the forward pass, or None. They
                replace the computed values: a membrane rebuilt with a rounding error could fire
                where the original one did not.
        """
        # Inputs of all layers: the last two are those of a layer (read by its synapse) and of its
        # predecessor (read by its shortcut).
        carried, inner = state
        layer_inputs, found, taps = [None, frame], [], {}
        for number in range(len(parts.synapses)):
            x, auxes = self.currents(parts, inner, number, *layer_inputs[-2:])
            found.append(auxes)
            calls = None if replay is None else replay[number]
            carried, spikes, potentials = self._calls(parts, carried, x, calls)
            layer_inputs.append(checkpoint_name(spikes, "spikes"))
            if kinds := self._layer_taps(parts, x, spikes, potentials):
                taps[f"{parts.cell.name}{number}"] = kinds
        # Packed for the inverse only: no other strategy needs the spikes of all calls.
        kept = layer_inputs[2:] if self.packs_spikes else []
        if replay is not None:
            # The pullback of a replay differentiates the step, and needs no bits.
            kept = jax.lax.stop_gradient(kept)
        # Of order 1: the scan that reverses runs this step undifferentiated.
        bits = tuple(memory.packing.encode_spikes(spikes, order=1) for spikes in kept)
        pairs = [pair for column in zip(*found, strict=True) for pair in column]
        layers = len(parts.synapses)
        names = [f"{kind}{n}" for kind in ("synapse", "shortcut") for n in range(layers)]
        # Not strict: without shortcuts their names are left over.
        aux = gather(list(zip(names, pairs, strict=False)))
        # Layers saw one timestep `[1, B, ...]`; the scan adds the axis over time.
        taps |= jax.tree.map(lambda leaf: leaf[0], aux.taps)
        return (carried, aux.state), (
            layer_inputs[-1],
            (aux.statistics, taps, aux.diagnostics),
            bits,
        )

    def currents(self, parts: Parts, inner: Any, number: int, further: Any, before: Any):
        """Currents of one layer, `[B, ...]`, and the `Aux` of its synapse and its shortcut.

        Args:
            parts: parameters of the step.
            inner: states of the synapses, followed by those of the shortcuts.
            number: index of the layer.
            further: input of the previous layer, `[B, ...]`; None for the first layer.
            before: input of this layer, `[B, ...]`.
        """

        def run(layer, x, place):
            own = State(inner[place], parts.statistics[place])
            y, aux = layer(x[None], own, parts.call.child(place))
            return y[0], [aux]

        if number == 0 and parts.fixed is not None:
            # Its statistics and taps were taken before the loop.
            total, found = parts.fixed, [Aux(inner[0])]
        else:
            total, found = run(parts.synapses[number], before, number)
        total = widen(total)  # the membrane is float32
        if not len(parts.shortcuts):
            return total, found
        # Placeholder, so that the n-th entry of the auxes belongs to the n-th part.
        if parts.shortcuts[number] is None:
            return total, [*found, Aux()]
        bypass, more = run(parts.shortcuts[number], further, len(parts.synapses) + number)
        return _add_shortcut(widen(bypass), total), found + more

    def _calls(self, parts: Parts, carried: PyTree, x: Array, replay: Any):
        cell, spikes_of_groups, potentials = parts.cell, [], []
        params = cell.params()
        # Calls are sequential: each group starts from the membrane of the previous one.
        for group, part in enumerate(jnp.split(x, self.groups, axis=-1)):
            carried, spikes = cell.step(params, carried, part)
            if replay is not None:
                # Their values, with the gradient of the calls.
                carried, spikes = jax.tree.map(with_derivative, replay[group], (carried, spikes))
            spikes_of_groups.append(spikes)
            # All potentials at once would be the memory that sharing saves.
            if "membrane" in parts.call.taps:
                potentials.append(membranes(carried))
        return carried, join_groups(spikes_of_groups), potentials

    def _layer_taps(self, parts: Parts, x: Array, spikes: Array, potentials: list[Array]):
        membrane = join_groups(potentials)[None] if potentials else None
        options = {"currents": x[None], "params": parts.cell.params(), "membrane": membrane}
        return {
            k: leaf[0] for k, leaf in neuron_taps(parts.call.taps, spikes[None], **options).items()
        }


@dataclasses.dataclass(frozen=True)
class SharedInverse:
    """Inverse of a `SharedStep` with packed spikes, call by call.

    Attributes:
        step: step to invert.
        undo: inverse of one call of the neuron.
        steps: number of consecutive timesteps it can undo; None if unlimited.
    """

    step: SharedStep
    undo: Any
    steps: int | None

    def __call__(self, parts: Parts, after: PyTree, frame: Array, outputs: PyTree) -> PyTree:
        """State before a timestep."""
        return self._undo_step(parts, after, frame, outputs)[0]

    def check(self, parts: Parts, state: PyTree, steps: int) -> Any:
        """True if the neuron's inverse can undo the calls of so many timesteps."""
        check = getattr(self.undo, "check", None)
        calls = steps * self.step.groups * len(parts.synapses)
        return check is None or check(parts.cell.params(), state[0], calls)

    def pull(self, parts: Parts, after: PyTree, frame: Array, outputs: PyTree, cotangents: PyTree):
        """State before a timestep, and the cotangents of parts, state and frame.

        The pullback reuses the rebuilt states, which `SharedStep.run` takes as `replay`.
        """
        # Rebuilt once, used for the state and for the pullback.
        before, replay = self._undo_step(parts, after, frame, outputs)
        run = lambda parts, state, frame: self.step.run(parts, state, frame, replay)  # noqa: E731
        return before, value_and_pullback(run, parts, before, frame, cotangents=cotangents)[1]

    def _undo_step(self, parts, after, frame, outputs):
        carried, inner = after
        layer_inputs, replay = [None, frame], []
        potentials = membranes(carried)
        *front, channels = potentials.shape
        # A membrane has the channels of one group, the spikes have those of all groups.
        shape = (*front, channels * self.step.groups)
        layer_inputs += [
            memory.packing.decode_spikes(kept, shape, potentials.dtype) for kept in outputs[-1]
        ]
        # Last layer first: its call left the membrane that is known.
        for number in reversed(range(len(parts.synapses))):
            x, _ = self.step.currents(parts, inner, number, *layer_inputs[number : number + 2])
            carried, calls = self._undo_calls(parts.cell, carried, x, layer_inputs[number + 2])
            replay.append(calls)
        return (carried, inner), replay[::-1]

    def _undo_calls(self, cell, carried, x, spikes):
        params, calls = cell.params(), []
        pieces = (jnp.split(a, self.step.groups, axis=-1) for a in (x, spikes))
        for part, spikes_of_group in reversed(list(zip(*pieces, strict=True))):
            calls.append((carried, spikes_of_group))
            carried = self.undo(params, carried, part, spikes_of_group)
        return carried, calls[::-1]


def join_groups(groups: list[Array]) -> Array:
    """Concatenates channel groups `[..., C / groups]`; a single group is returned as it is."""
    return groups[0] if len(groups) == 1 else jnp.concatenate(groups, -1)


def _add_shortcut(shortcut: Array, currents: Array) -> Array:
    # A sum would broadcast one of the two silently.
    if shortcut.shape != currents.shape:
        raise ValueError(
            f"the synapse gives {list(currents.shape)} and the shortcut {list(shortcut.shape)}: "
            "give a shortcut that changes the shape as its block does"
        )
    return shortcut + currents


class Grouped(nnx.Module):
    """Contiguous channel groups of one layer that share a membrane of `C / groups` channels.

        h_1[t] = f(v_G[t-1], x_1[t]),    h_c[t] = f(v_{c-1}[t], x_c[t]),    c = 2..G = groups

    f is one call of the neuron on a membrane v and a current x. The groups are laid out along time,
    `[T, B, ..., C] -> [T * G, B, ..., C / G]`, so the neuron runs under any scan. One group equals
    the plain neuron.

    Args:
        neuron: neuron with the shared membrane.
        groups: number of groups; must divide the channels.

    Raises:
        ValueError: `groups` does not divide the channels (on `initial_state`).
    """

    def __init__(self, neuron: Neuron, groups: int):
        check_counts("nn.Grouped", groups=groups)
        check_neuron("nn.Grouped", neuron)
        self.neuron, self.groups, self.name = neuron, groups, f"grouped_{neuron.name}"
        self.spiking = neuron.spiking

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over time to the neuron's scan."""
        placed = self.neuron.with_memory(request)
        return placed._replace(layer=replace(self, neuron=placed.layer))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, `[B, ..., C / groups]`."""
        *front, channels = shape
        if channels % self.groups:
            raise ValueError(
                f"{channels} channels cannot be divided into {self.groups} groups: choose a divisor"
            )
        return self.neuron.initial_state((*front, channels // self.groups))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, ..., C]` to spikes `[T, B, ..., C]`."""
        # Other taps need the layout `[T, B, ..., C]` and are computed from the outputs below.
        inner = tuple(kind for kind in call.taps if kind in ("membrane", "reconstruction"))
        turns, aux = self.neuron(self._groups_to_time(inputs), state, call.with_taps(*inner))
        outputs, kinds = self._groups_to_channels(turns), aux.taps.get("", {})
        membrane = self._groups_to_channels(kinds["membrane"]) if "membrane" in kinds else None
        options = {"currents": inputs, "params": self.neuron.params(), "membrane": membrane}
        kinds = kinds | neuron_taps(call.taps, outputs, **options)
        return outputs, Aux(aux.state, (), {"": kinds} if kinds else {})

    def _groups_to_time(self, inputs: Array) -> Array:
        timesteps, *middle, channels = inputs.shape
        # Contiguous groups: channel c belongs to group c // (C / groups).
        cut = inputs.reshape(timesteps, *middle, self.groups, channels // self.groups)
        # Group c of timestep t becomes step t * G + c, the order of the calls.
        return jnp.moveaxis(cut, -2, 1).reshape(-1, *middle, channels // self.groups)

    def _groups_to_channels(self, outputs: Array) -> Array:
        turns, *middle, channels = outputs.shape
        cut = outputs.reshape(turns // self.groups, self.groups, *middle, channels)
        return jnp.moveaxis(cut, 1, -2).reshape(-1, *middle, self.groups * channels)


class Shared(nnx.Module):
    """Layers of equal shape that update one membrane, one after the other in each timestep.

        h_1[t] = f(v_K[t-1], x_1[t]),    h_l[t] = f(v_{l-1}[t], x_l[t]),    l = 2..K
        x_l    = synapse_l(s_{l-1}) + shortcut_l(s_{l-2})

    f is one call of the neuron on membrane v and currents x, `[B, ...]`; s_l are the spikes of
    layer l, s_0 the inputs and s_K the outputs.

    Each layer needs the membrane of its predecessor at the same timestep, so the group runs step by
    step, and its normalisation must be `over="step"` or `"frozen"`. A first layer in
    `nn.StaticInput` runs once, before the loop.

    Membranes that a gradient keeps, with `T` timesteps, `K` layers, `G` channel groups and a
    membrane of M bytes (`C / G` channels):

        memory.store              T K G M         one per call
        memory.recompute(every)   (T / every) M   exact; one more forward pass
        memory.reversal()         M               without a leak, as nn.IF; with a leak
                                                  (T / refresh) M, where the inverse must be able to
                                                  undo refresh * K * G calls

    `recompute` also keeps the inputs, `reversal` all spikes at one bit each. Neither keeps currents
    or residuals of synapses and norms.

    Args:
        synapses: one layer per shared layer, which computes its currents, such as
            `Sequential(Conv, BatchNorm)`; all outputs have one shape.
        neuron: neuron with the shared membrane; an `nn.Grouped` one shares it between channel
            groups, too.
        shortcuts: per shared layer None, or a layer on the input of the previous layer, whose
            output is added to the currents (residual blocks of two layers). An empty
            `nn.Sequential()` is the identity.
        scan: memory strategy over time; None for `memory.store`.

    Raises:
        ValueError: no layers, or a wrong number of shortcuts; currents of different shapes (on
            `initial_state`); normalisation over the window (on a call in training); a reversing
            scan without an inverse.

    Reference:
        Kim, Li, Moitra, Yin, Panda, "Sharing Leaky-Integrate-and-Fire Neurons for Memory-Efficient
        Spiking Neural Networks", 2023, arXiv:2305.18360.
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
        for layer in (*synapses, *(way for way in shortcuts if way is not None)):
            check_layer("nn.Shared", layer)
        if not isinstance(neuron, Grouped):
            check_neuron("nn.Shared", neuron)
        check_scan("nn.Shared", scan)
        if shortcuts and (len(shortcuts) != len(synapses) or shortcuts[0] is not None):
            raise ValueError(
                "give one shortcut or None per layer, and None for the first layer, which has no "
                "previous layer"
            )
        # nnx.List, because Flax does not look for modules inside a plain list.
        self.synapses, self.neuron = nnx.List(synapses), neuron
        self.shortcuts = nnx.List(shortcuts)
        self.scan, self.name = scan, "shared"
        # Refused at construction and not in the first step of a training run.
        if isinstance(scan, memory.Reverse):
            self.inverse()

    def inverse(self) -> tuple[Any, int | None]:
        """Inverse of one call, and the number of timesteps it can undo; None if unlimited.

        Raises:
            ValueError: the group has no inverse; the message gives the reason and the cure.
        """
        cell, groups = self._cell()
        if not cell.spiking:
            raise ValueError(f"{cell.name} neurons offer no inverse: use memory.recompute(every)")
        # A timestep is K * G calls, and the inverse's limit counts calls.
        undo, calls = cell.inverse(), groups * len(self.synapses)
        if undo.steps is None:
            return undo, None
        # Not even one timestep can be undone.
        if undo.steps < calls:
            raise ValueError(
                f"layers that share a membrane update it {calls} times per timestep, and the "
                f"inverse of this neuron is accurate for {undo.steps} updates only: use "
                "memory.recompute(every), or a neuron with a decay nearer to 1"
            )
        return undo, undo.steps // calls

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over time to the group, the other parts to its layers.

        Raises:
            ValueError: a reversing strategy, and the group has no inverse.
        """
        # A membrane that several layers charge has no trace of one synapse.
        request = dataclasses.replace(request, traces=None)
        spiking, time = self.neuron.spiking, request.strategy.time
        spiking_inputs = [request.spiking, *([spiking] * (len(self.synapses) - 1))]
        synapses = [
            place(part, request.child(spikes))
            for part, spikes in zip(self.synapses, spiking_inputs, strict=True)
        ]
        # A shortcut has the inputs of the previous layer; the first layer has no shortcut.
        shortcuts = [
            Placed(way) if way is None else place(way, request.child(spikes))
            for way, spikes in zip(self.shortcuts, [False, *spiking_inputs[:-1]], strict=False)
        ]
        changed = replace(
            self,
            synapses=nnx.List([part.layer for part in synapses]),
            shortcuts=nnx.List([part.layer for part in shortcuts]),
        )
        taken = parts_taken(synapses + shortcuts)
        if time is None:
            return Placed(changed, spiking, taken, "block")
        if isinstance(time, memory.Reverse):
            self.inverse()
        return Placed(replace(changed, scan=time), spiking, taken | {"time"}, "block")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """One membrane at rest for all layers, and the states of synapses and shortcuts."""
        states, bypasses, further, first = [], [], None, None
        for number, synapse in enumerate(self.synapses):
            states.append(synapse.initial_state(shape))
            if self.shortcuts:
                way = self.shortcuts[number]
                bypasses.append(State() if way is None else way.initial_state(further))
            # A shortcut reads the input of the layer before, so that shape lives one layer longer.
            further, shape = shape, output_shape(synapse, states[-1], shape)
            if number and shape != first:
                raise ValueError(
                    "layers that share a membrane have currents of one shape, not "
                    f"{first} and {shape}"
                )
            first = shape
        states += bypasses
        inner = repeat_state(tuple(s.neurons for s in states))  # a scan over time carries them
        # All layers have one shape, so the last one stands for all.
        membrane = self.neuron.initial_state(shape).neurons
        return State((membrane, inner), tuple(s.statistics for s in states))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Runs the group over `[T, B, ...]`, timestep by timestep."""
        if call.training:
            # The layers see one timestep at a time, so statistics over the window do not exist.
            refuse_window_statistics([*self.synapses, *self.shortcuts])
        cell, groups = self._cell()
        fixed, aux = self._static_currents(inputs, state, call)
        parts = Parts(self.synapses, self.shortcuts, cell, state.statistics, call, fixed)
        start = widen_to(state.neurons, inputs.dtype)
        step, scan = SharedStep(groups), self.scan
        if isinstance(scan, memory.Reverse):
            back = SharedStep(groups, packs_spikes=True)
            scan = scan.with_inverse(SharedInverse(back, *self.inverse()))
            # The error is measured without taps, which would be computed twice.
            quiet = dataclasses.replace(parts, call=call.with_taps())
            reconstruction_taps = reconstruction("", scan, back, quiet, start, inputs, call.taps)
            # Taps are outputs for every timestep: a strategy would save nothing beside them.
            step, scan = (step, memory.store) if call.taps else (back, scan)
        else:
            reconstruction_taps = {}
        scan = memory.store if scan is None else scan
        after, (outputs, (statistics, taps, diagnostics), _) = scan(step, parts, start, inputs)
        # A first layer with static input ran once, outside of the loop over timesteps.
        once = 0 if fixed is None else 1
        statistics = join_steps(state.statistics[once:], statistics[once:])
        statistics = (aux.statistics,)[:once] + statistics
        taps = prefix_names("synapse0", aux.taps) | taps | reconstruction_taps
        diagnostics = prefix_names("synapse0", aux.diagnostics) | max_over_steps(diagnostics)
        return outputs, Aux(after, statistics, taps, diagnostics)

    def _cell(self) -> tuple[Neuron, int]:
        neuron = self.neuron
        return (neuron.neuron, neuron.groups) if isinstance(neuron, Grouped) else (neuron, 1)

    def _static_currents(self, inputs: Array, state: State, call: Call) -> tuple[Array | None, Aux]:
        """Currents of a first layer in `nn.StaticInput`, `[B, ...]`, and its `Aux`; else None."""
        first = self.synapses[0]
        if not isinstance(first, StaticInput):
            return None, Aux()
        own = State(state.neurons[1][0], state.statistics[0])
        # Equal at every timestep, so the first frame stands for all.
        outputs, aux = first(inputs[:1], own, call.child(0))
        return outputs[0], aux
