"""Layers of neurons with the derivative of their rate, and their part in a simulated network.

    layer = learning.RateNeuron(learning.dsr_if_model(), learn=("threshold",))

On its own, in any network, the layer maps trains `[T, B, ...]` to trains and keeps one mean current
per neuron for the backward pass. Inside `learning.Equilibrium` the same layer is simulated step by
step, and later stands for its rate: the type of its state says which.

    Membranes    simulates whole trains; derivative of the rate
    Counted      simulates a timestep and adds up spikes; no derivative
    Mapped       outputs rate(inputs)
    Linked       outputs the simulated rate, with the derivative of rate(inputs)
    Free         outputs the simulated rate as a variable; its state becomes rate(inputs)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from flax import nnx

from snnjax import nn
from snnjax.learning import rates
from snnjax.learning.derivatives import surrogate_vjp
from snnjax.learning.rate_models import RateModel
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, place, replace
from snnjax.ops.rounding import widen
from snnjax.typing import Array, PyTree, bind

__all__ = ["Counted", "Free", "Linked", "Mapped", "Membranes", "RateNeuron"]


class Membranes(NamedTuple):
    """State of the neurons between two timesteps."""

    neurons: PyTree


class Counted(NamedTuple):
    """State of the neurons, and the weighted sum of their outputs so far."""

    neurons: PyTree
    total: Array


class Mapped(NamedTuple):
    """Mark of a layer that stands for its rate."""


class Linked(NamedTuple):
    """Simulated rate `[B, ...]`, at which the network is linearised."""

    rate: Array


class Free(NamedTuple):
    """Rate `[B, ...]` as a variable of the fixed-point equation; afterwards its image."""

    rate: Array


class RateNeuron(nnx.Module):
    """A layer of neurons `[T, B, ...] -> [T, B, ...]` with the derivative of their firing rate.

        forward     the neurons' own dynamics, spike trains in and out
        backward    dL/dx[t] = dr/dz * dz/dx[t],   z the mean current over time, r(z) the rate

    The derivative is not that of backpropagation through time: `exact` is False. It keeps the mean
    current, `[B, ...]`, whatever T; synapses between such layers still keep their own inputs. A
    memory strategy over time replaces it by backpropagation through time under that strategy, with
    the spike function of the model, and `exact` becomes True.

    Args:
        model: rate model, such as `learning.dsr_if_model()`, or `learning.RateModel(model, rate)`
            for any `neurons.Model` of your own.
        learn: names of the parameters to learn; the others stay constant.

    Raises:
        ValueError: the rate has another shape than the outputs (on differentiation), or a call has
            lengths.

    Reference:
        Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural
        Networks by Differentiation on Spike Representation", 2022, arXiv:2205.00459.
    """

    def __init__(self, model: RateModel, *, learn: tuple[str, ...] = ()):
        self.neuron = nn.Neuron(model.model, learn=learn)
        # Of the model itself only the static parts: its parameters may be arrays.
        self.rate, self.decay = model.rate, model.decay
        self.uniform_gradient = model.uniform_gradient

    @property
    def name(self) -> str:
        """Name of the layer in taps."""
        return self.neuron.name

    @property
    def exact(self) -> bool:
        """True if the derivative is that of backpropagation through time."""
        return self.neuron.scan is not None

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Replaces the derivative by backpropagation through time under a strategy over time."""
        placed = place(self.neuron, request)
        return placed._replace(layer=replace(self, neuron=placed.layer))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, one per element of `shape`."""
        return State(Membranes(self.neuron.initial_state(shape).neurons))

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs of one step of the neurons."""
        return self.neuron.infer_shape(State(state.neurons.neurons), shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, ...]` to outputs `[T, B, ...]`."""
        own = state.neurons
        if call.lengths is not None and not self.exact:
            raise ValueError(
                "the derivative of a RateNeuron takes means over all timesteps, padded ones, too: "
                "leave lengths out, or give a memory strategy over time"
            )
        if isinstance(own, Mapped | Linked | Free):
            return self._represent(widen(inputs), own)
        outputs, aux = self._simulate(inputs, own.neurons, call, trains=isinstance(own, Membranes))
        if isinstance(own, Membranes):
            return outputs, aux._replace(state=Membranes(aux.state))
        # One timestep: the layer is a step of the scan over the whole network.
        total = self.decay * own.total + widen(outputs[0])
        return outputs, aux._replace(state=Counted(aux.state, total))

    def _simulate(self, inputs, neurons, call, *, trains):
        if self.exact or not trains:
            return self.neuron(inputs, State(neurons), call)
        options = {"rate": self.rate, "timesteps": len(inputs)}
        decay = self.decay
        run = surrogate_vjp(
            _simulate_trains,
            bind(_rate_trains, decay=decay if self.uniform_gradient else 1.0, **options),
            summarize=bind(_mean_currents, decay=decay, uniform=self.uniform_gradient),
        )
        return run((self.neuron, neurons, call), inputs)

    def _represent(self, inputs: Array, own: Any) -> tuple[Array, Aux]:
        simulated = None if isinstance(own, Mapped) else own.rate
        rate = self.rate(self.neuron.params(), inputs[0], simulated)
        if isinstance(own, Mapped):
            return rate[None], Aux(own)
        if isinstance(own, Free):
            return own.rate[None], Aux(Free(rate))
        # In this order the value is that of the simulation, to the last bit.
        return (own.rate + (rate - jax.lax.stop_gradient(rate)))[None], Aux(own)


def _simulate_trains(params, currents):
    neuron, neurons, call = params
    return neuron(currents, State(neurons), call)


def _mean_currents(currents, *, decay, uniform):
    currents = widen(currents)
    weighted = rates.mean(currents, decay=decay)
    return (currents.mean(0), weighted) if uniform else (weighted, None)


def _rate_trains(params, means, kept, *, rate, timesteps, decay):
    del kept
    neuron, _, _ = params
    current, weighted = means
    if weighted is not None:
        # The rate at the weighted mean, whose gradient goes to all timesteps alike.
        current = jax.lax.stop_gradient(weighted - current) + current
    return rates.broadcast_steps(rate(neuron.params(), current, None), timesteps, decay=decay)
