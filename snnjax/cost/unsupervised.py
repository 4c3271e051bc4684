"""Cost of an unsupervised network: bytes of its synapses, operations and energy of an example.

    bytes             bits/8 (n N + matrices N^2)        matrices: 2 with an inhibitory layer,
                                                         1 lateral, 0 for inhibition by sums
    neuron updates    populations N S                    populations: 2 with an inhibitory layer
    input             P N                                additions of weights
    inhibition        E (N - 1), plus E with an inhibitory layer
    weight updates    counted during learning
    trace decays      traces S                           one exponential each

for n inputs, N neurons, S timesteps, and P input and E output spikes of an example. The energy is
the estimate of `cost.energy`: an addition takes 0.9 pJ, a multiplication with its addition 4.6 pJ;
each update of a neuron or a weight counts as one of the latter. Memory traffic is reported
separately and is not in the energy: a weight read or written moves its bits.

The paper's 3.5x (training) and 1.8x (inference) are energies measured on GPUs; counts give 2.0x to
3.7x and 1.3x for 100 to 4,900 neurons (`experiments/benchmarks/fspinn_energy.py`). Its 7.5x less
memory for N = 4,900 follows, as 7.448: 4x from 8 instead of 32 bits and 1.862x from one matrix
less. Inhibition by sums saves another 7.25x there and is ours.

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
    """Bytes of a network's synapses: plastic weights and stored matrices."""
    # eval_shape allocates nothing, so networks beyond the memory of this machine can be compared.
    state = jax.eval_shape(lambda: plasticity.initialize(network, jax.random.key(0)))
    arrays = jax.tree.leaves((state.weights, state.matrices))
    return sum(array.size * array.dtype.itemsize for array in arrays)


class PlasticityOperations(NamedTuple):
    """Operations of one example.

    Attributes:
        neuron_updates: Updates of membranes, `populations N S`.
        input_additions: Additions of input weights, `P N`.
        inhibition_additions: Additions of inhibition, `E (N - 1)`, plus `E` with a layer.
        weight_updates: Updates of weights.
        trace_decays: Decays of traces, `traces S`.
    """

    neuron_updates: float
    input_additions: float
    inhibition_additions: float
    weight_updates: float
    trace_decays: float

    @property
    def nanojoules(self) -> float:
        """Energy estimate at 45 nm for float32, nJ."""
        additions = self.input_additions + self.inhibition_additions
        # Each of these updates counts as one multiplication with its addition.
        multiplications = self.neuron_updates + self.weight_updates + self.trace_decays
        # pJ to nJ.
        return (AC_PICOJOULES * additions + MAC_PICOJOULES * multiplications) * 1e-3


@dataclasses.dataclass(frozen=True)
class PlasticityCost:
    """Cost of an unsupervised network.

    Attributes:
        synapse_bytes: Bytes of the synapses.
        inference: Operations of an example with learning off.
        training: Operations of an example with learning on.
        training_traffic: Bytes of weights read and written by an example in training.
    """

    synapse_bytes: int
    inference: PlasticityOperations
    training: PlasticityOperations
    training_traffic: float


def plasticity_cost(
    network: plasticity.Network,
    *,
    input_spikes: float,
    spikes: float,
    weight_updates: float,
    showings: float = 1.0,
) -> PlasticityCost:
    """Computes the cost of an example from its counted spikes and updates.

    Args:
        network: Simulated network.
        input_spikes: Input spikes per showing, P.
        spikes: Output spikes per showing, E.
        weight_updates: Weight updates per example in training, in all showings.
        showings: Mean number of showings of an example in training.
    """
    neurons = network.neurons
    # Membranes are updated during the silence, too.
    steps = network.timesteps + network.silence
    layer = isinstance(network.inhibition, plasticity.inhibition.InhibitoryLayer)
    # Each excitatory spike also excites its inhibitory neuron: one addition more.
    excitations = spikes if layer else 0.0
    inference = PlasticityOperations(
        # `layer` is a bool: an inhibitory layer is a second population.
        neuron_updates=(1 + layer) * neurons * steps,
        input_additions=input_spikes * neurons,
        inhibition_additions=excitations + spikes * (neurons - 1),
        weight_updates=0.0,
        trace_decays=0.0,
    )
    traces = _count_traces(network)
    # Every further showing of an example runs the whole network again.
    repeated = PlasticityOperations(*(showings * value for value in inference))
    # Weight updates are counted over all showings already; the decays of traces are not.
    training = repeated._replace(
        weight_updates=weight_updates, trace_decays=showings * traces * steps
    )
    # An update reads and writes its weight. Fixed-point codes take one byte at up to 8 bits.
    width = 4 if network.form is None else 1
    traffic = width * (training.input_additions + 2 * weight_updates)
    return PlasticityCost(synapse_bytes(network), inference, training, traffic)


def _count_traces(network: plasticity.Network) -> int:
    """Number of traces that decay at every timestep, of inputs and neurons."""
    neurons = network.neurons
    # Triplet STDP has a second, slow postsynaptic trace.
    slow = 1 if isinstance(network.rule, plasticity.triplet.TripletSTDP) else 0
    return network.inputs + neurons * (1 + slow)
