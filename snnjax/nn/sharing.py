"""Sharing one membrane: fewer states, written in turn by several layers or channel groups.

    Grouped   channel groups c = 1..G of one layer:   h_1[t] = f(v_G[t-1], x_1[t])
                                                      h_c[t] = f(v_{c-1}[t], x_c[t])
    Shared    layers l = 1..K, equal in shape:        h_1[t] = f(v_K[t-1], x_1[t])
                                                      h_l[t] = f(v_{l-1}[t], x_l[t])

It is wiring, not a memory strategy: another network, whose membranes forget once per call, so K or
G times per timestep. State shrinks by G or K; the gradient stays exact for this network.

Reference: Kim, Li, Moitra, Yin, Panda, "Sharing Leaky-Integrate-and-Fire Neurons for
Memory-Efficient Spiking Neural Networks", 2023, arXiv:2305.18360.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory
from snnjax.nn.contract import Aux, State, output_shape
from snnjax.nn.neuron import Neuron
from snnjax.nn.normalization import refuse_window_statistics
from snnjax.nn.rest import expanded
from snnjax.nn.statistics import mean_over_steps
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
        outputs, aux = self.neuron(
            self._in_turn(inputs), state, training=training, key=key, taps=taps
        )
        seen = jax.tree.map(self._side_by_side, aux.taps)
        return self._side_by_side(outputs), Aux(aux.state, (), seen)

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
    step by step: normalisation inside must be `over="step"` or `"frozen"`.

    Args:
        synapses: what leads to each layer's currents, such as `Sequential(Conv, BatchNorm)`; all
            of them give one shape.
        neuron: the neuron, with its one membrane.
        scan: the memory strategy over time; None for `memory.store`.

    Raises:
        ValueError: there are no layers, their currents differ in shape (on `initial_state`), or
            one normalises over the window (on a call in training).
    """

    def __init__(self, synapses: list[Any], neuron: Neuron, *, scan: Scan | None = None):
        if not synapses:
            raise ValueError("Shared needs at least one layer of synapses")
        self.synapses, self.neuron = nnx.List(synapses), neuron
        self.scan, self.name = scan, "shared"

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """One membrane for all layers, and the states of the synapses."""
        states, shapes = [], []
        for synapse in self.synapses:
            states.append(synapse.initial_state(shape))
            shape = output_shape(synapse, states[-1], shape)
            shapes.append(shape)
        if len(set(shapes)) > 1:
            raise ValueError(f"layers that share a membrane give one shape, not {shapes}")
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
            refuse_window_statistics(self.synapses)
        params = (self.synapses, self.neuron, state.statistics, key)
        step = Group(training, taps)
        scan = memory.store if self.scan is None else self.scan
        after, (outputs, statistics, seen) = scan(step, params, state.neurons, inputs)
        return outputs, Aux(after, mean_over_steps(statistics), seen)


@dataclasses.dataclass(frozen=True)
class Group:
    """One timestep of layers that share a membrane, as a Step."""

    training: bool
    taps: tuple[str, ...]

    def __call__(self, params: Any, state: Any, frame: Array) -> tuple[Any, Any]:
        """One frame `[B, ...]` through the layers; the membrane is handed from one to the next."""
        synapses, neuron, statistics, key = params
        membrane, inner = state
        outputs, states, moved, seen = frame[None], [], [], {}
        for i, synapse in enumerate(synapses):
            own = State(inner[i], statistics[i])
            currents, aux = synapse(outputs, own, training=self.training, key=subkey(key, i))
            states.append(aux.state)
            moved.append(aux.statistics)
            outputs, aux = neuron(currents, State(membrane), training=self.training, taps=self.taps)
            membrane = aux.state
            for kinds in aux.taps.values():
                seen[f"{neuron.name}{i}"] = jax.tree.map(lambda leaf: leaf[0], kinds)
        return (membrane, tuple(states)), (outputs[0], tuple(moved), seen)
