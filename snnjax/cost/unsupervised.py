"""What an unsupervised network costs: bytes of its synapses, operations and energy of an example.

    bytes             bits/8 (n N + matrices N^2)        matrices: 2 through a layer, 1 lateral,
                                                         0 where inhibition goes by sums
    neuron updates    populations N S                    populations: 2 with an inhibitory layer
    input             P N                                additions of weights
    inhibition        E (N - 1), and E through a layer
    weight updates    as counted while it learns
    trace decays      traces S                           one exponential each

for n inputs, N neurons, S timesteps, and an example's P input and E output spikes. The energy is
the estimate of `cost.energy`: an addition takes 0.9 pJ, a multiplication with its addition 4.6 pJ;
a neuron's and a weight's update count as one of the latter. Bytes moved are told apart and are not
in it: a weight that is read or written moves its bits.

These are counts. The paper's 3.5x (training) and 1.8x (inference) are energies measured on GPUs and
cannot be derived from them; its 7.5x less memory for N = 4,900 can, as 7.448: 4x by 8 bits for 32
and 1.862x by one matrix less. Inhibition by sums saves another 7.25x there and is not the paper's.

Reference: R. V. W. Putra, M. Shafique, "FSpiNN: An Optimization Framework for Memory- and
Energy-Efficient Spiking Neural Networks", 2020, arXiv:2007.08860.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from snnjax import plasticity
from snnjax.cost.energy import AC_PICOJOULES, MAC_PICOJOULES

__all__ = [
    "PlasticityCost",
    "PlasticityOperations",
    "dense_bytes",
    "plasticity_cost",
    "synapse_bytes",
]


def dense_bytes(neurons: int, *, inputs: int = 784, bits: int = 32, matrices: int = 2) -> float:
    """Bytes of all synapses stored as dense matrices, `bits/8 (n N + matrices N^2)`."""
    return bits / 8 * (inputs * neurons + matrices * neurons**2)


def synapse_bytes(network: plasticity.Network) -> int:
    """Bytes of the arrays that hold a network's synapses: weights and stored matrices.

    Nothing is allocated.
    """
    state = jax.eval_shape(lambda: plasticity.initialize(network, jax.random.key(0)))
    arrays = jax.tree.leaves((state.weights, state.matrices))
    return sum(array.size * array.dtype.itemsize for array in arrays)


class PlasticityOperations(NamedTuple):
    """Operations of one example; the equations are those above."""

    neuron_updates: float
    input_additions: float
    inhibition_additions: float
    weight_updates: float
    trace_decays: float

    @property
    def nanojoules(self) -> float:
        """The estimate at 45 nm, float32."""
        additions = self.input_additions + self.inhibition_additions
        multiplied = self.neuron_updates + self.weight_updates + self.trace_decays
        return (AC_PICOJOULES * additions + MAC_PICOJOULES * multiplied) * 1e-3


@dataclasses.dataclass(frozen=True)
class PlasticityCost:
    """What a network costs.

    Attributes:
        synapse_bytes: of the stored synapses.
        inference: operations of an example with learning off.
        training: of an example with learning on.
        training_traffic: bytes of weights read and written by an example in training.
    """

    synapse_bytes: int
    inference: PlasticityOperations
    training: PlasticityOperations
    training_traffic: float


def plasticity_cost(
    network: plasticity.Network,
    *,
    arrived: float,
    spikes: float,
    weight_updates: float,
    showings: float = 1.0,
) -> PlasticityCost:
    """The cost of an example, from what was counted.

    Args:
        network: What was simulated.
        arrived: P, input spikes per showing.
        spikes: E, output spikes per showing.
        weight_updates: Per example, in training, all showings together.
        showings: How often an example is shown in training.
    """
    neurons = network.neurons
    steps = network.timesteps + network.silence
    layer = isinstance(network.inhibition, plasticity.inhibition.InhibitoryLayer)
    through = spikes if layer else 0.0
    inference = PlasticityOperations(
        neuron_updates=(1 + layer) * neurons * steps,
        input_additions=arrived * neurons,
        inhibition_additions=through + spikes * (neurons - 1),
        weight_updates=0.0,
        trace_decays=0.0,
    )
    traces = _traces(network)
    shown = PlasticityOperations(*(showings * value for value in inference))
    training = shown._replace(weight_updates=weight_updates, trace_decays=showings * traces * steps)
    width = 4 if network.form is None else 1
    traffic = width * (training.input_additions + 2 * weight_updates)
    return PlasticityCost(synapse_bytes(network), inference, training, traffic)


def _traces(network: plasticity.Network) -> int:
    """Traces that decay at every timestep: of inputs and of neurons."""
    neurons = network.neurons
    slow = 1 if isinstance(network.rule, plasticity.triplet.TripletSTDP) else 0
    return network.inputs + neurons * (1 + slow)
