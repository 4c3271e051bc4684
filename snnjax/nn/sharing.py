"""Sharing one membrane: fewer states, written in turn by several layers or channel groups.

    Grouped   channel groups c = 1..G of one layer:   h_1[t] = f(v_G[t-1], x_1[t])
                                                      h_c[t] = f(v_{c-1}[t], x_c[t])
    Shared    layers l = 1..K, equal in shape:        h_1[t] = f(v_K[t-1], x_1[t])
                                                      h_l[t] = f(v_{l-1}[t], x_l[t])

It is wiring, not a memory strategy: another network, whose membranes forget once per call, so K or
G times per timestep (at a decay of 0.25 and K = 6 one timestep leaves 0.0002 of a membrane to the
next). State shrinks by G or K; the gradient stays exact for this network. Both at once is `Shared`
with a `Grouped` neuron, K G calls per timestep.

Reference: Kim, Li, Moitra, Yin, Panda, "Sharing Leaky-Integrate-and-Fire Neurons for
Memory-Efficient Spiking Neural Networks", 2023, arXiv:2305.18360.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from snnjax import memory
from snnjax.nn.baton import Baton, BatonInverse, Parts
from snnjax.nn.contract import Aux, State, output_shape
from snnjax.nn.neuron import Neuron
from snnjax.nn.normalization import refuse_window_statistics
from snnjax.nn.once import Once
from snnjax.nn.reconstruction import reconstruction
from snnjax.nn.rest import expanded
from snnjax.nn.statistics import mean_over_steps
from snnjax.nn.taps import tapped
from snnjax.nn.wiring import subkey
from snnjax.typing import Array, Key, Scan

__all__ = ["Grouped", "Shared"]


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

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, `(B, ..., C / groups)`."""
        *front, channels = shape
        if self.groups < 1 or channels % self.groups:
            raise ValueError(
                f"{channels} channels cannot be cut in {self.groups} groups: choose a divisor"
            )
        return self.neuron.initial_state((*front, channels // self.groups))

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """Currents `[T, B, ..., C]` to spikes `[T, B, ..., C]`."""
        inner = tuple(kind for kind in taps if kind in ("membrane", "reconstruction"))
        turns, aux = self.neuron(
            self._in_turn(inputs), state, training=training, key=key, taps=inner
        )
        outputs, kinds = self._side_by_side(turns), aux.taps.get("", {})
        membrane = self._side_by_side(kinds["membrane"]) if "membrane" in kinds else None
        options = {"currents": inputs, "params": self.neuron.params(), "membrane": membrane}
        kinds = kinds | tapped(taps, outputs, **options)
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
    `nn.Once` is taken out of the loop.

    Of the membrane a gradient keeps, with `T` timesteps, `K` layers, `G` channel groups and M bytes
    of one membrane (of `C / G` channels):

        memory.store              T K G M         every call's
        memory.recompute(every)   (T / every) M   exact; all calls of `every` timesteps once more
        memory.reversal()         M               if the neuron does not forget, as nn.IF; else
                                                  (T / refresh) M, refresh * K * G calls at most as
                                                  many as its inverse can undo

    `recompute` keeps the inputs beside it, and `reversal` all spikes at one bit each; neither keeps
    currents nor what synapses and norms keep.

    Args:
        synapses: what leads to each layer's currents, such as `Sequential(Conv, BatchNorm)`; all
            of them give one shape.
        neuron: the neuron, with its one membrane; an `nn.Grouped` one if channels share it, too.
        shortcuts: of each layer None, or what what entered the layer before goes through to be
            added to its currents: `x_l = synapse_l(s_{l-1}) + shortcut_l(s_{l-2})`, the residual
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
        if cell.inverse is None or not cell.spiking:
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
        inner = expanded(tuple(s.neurons for s in states))  # they are carried over time
        membrane = self.neuron.initial_state(shape).neurons
        return State((membrane, inner), tuple(s.statistics for s in states))

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
    ) -> tuple[Array, Aux]:
        """`[T, B, ...]` through the group, timestep by timestep."""
        if training:
            refuse_window_statistics([*self.synapses, *self.shortcuts])
        cell, groups = self._cell()
        fixed, aux = self._fixed(inputs, state, training, key, taps)
        parts = Parts(self.synapses, self.shortcuts, cell, state.statistics, key, fixed)
        step, scan, start = Baton(groups, training, taps), self.scan, state.neurons
        if isinstance(scan, memory.Reverse):
            back = Baton(groups, training, (), True)
            scan = scan.by(BatonInverse(back, *self.inverse()))
            seen_back = reconstruction("", scan, back, parts, start, inputs, taps)
            # What is looked at is all kept: under a strategy it would have to be rebuilt as well.
            step, scan = (step, memory.store) if taps else (back, scan)
        else:
            seen_back = {}
        scan = memory.store if scan is None else scan
        after, (outputs, statistics, seen, _) = scan(step, parts, start, inputs)
        statistics = mean_over_steps(statistics)
        if fixed is not None:
            statistics = (aux.statistics, *statistics[1:])
        first = {f"synapse0/{name}".rstrip("/"): kinds for name, kinds in aux.taps.items()}
        return outputs, Aux(after, statistics, first | seen | seen_back)

    def _cell(self) -> tuple[Neuron, int]:
        neuron = self.neuron
        return (neuron.neuron, neuron.groups) if isinstance(neuron, Grouped) else (neuron, 1)

    def _fixed(self, inputs, state, training, key, taps) -> tuple[Array | None, Aux]:
        """The first layer's currents, where they are the same at every timestep."""
        first = self.synapses[0]
        if not isinstance(first, Once):
            return None, Aux()
        own = State(state.neurons[1][0], state.statistics[0])
        options = {"training": training, "key": subkey(key, 0), "taps": taps}
        outputs, aux = first.layer(inputs[:1], own, **options)
        return outputs[0], aux
