"""The memory table of FSpiNN, against the formula and against the arrays that are stored."""

import jax
import pytest

from snnjax import cost, plasticity
from snnjax.quantization import QFormat

BYTES = QFormat(0, 8)
TABLE = [  # neurons, megabytes: baseline, lateral in float32, in 8 bits, without a matrix in 8 bits
    (100, 0.394, 0.354, 0.088, 0.078),
    (400, 2.534, 1.894, 0.474, 0.314),
    (900, 9.302, 6.062, 1.516, 0.706),
    (1600, 25.498, 15.258, 3.814, 1.254),
    (2500, 57.84, 32.84, 8.21, 1.96),
    (3600, 114.97, 63.13, 15.78, 2.822),
    (4900, 207.446, 111.406, 27.852, 3.842),
    (6400, 347.75, 183.91, 45.98, 5.018),
]


def baseline(neurons):
    through = plasticity.inhibition.InhibitoryLayer(
        plasticity.cells.current_inhibitory(), stored=True
    )
    return plasticity.presets.current_based(neurons, inhibition=through)


def lateral(neurons, *, bits, stored=True):
    inhibition = plasticity.inhibition.LateralInhibition(stored=stored, bits=bits)
    form = BYTES if bits == 8 else None
    return plasticity.presets.fspinn(neurons, inhibition=inhibition, form=form)


@pytest.mark.parametrize(("neurons", *"abcd"), TABLE)
def test_the_table_is_what_is_stored(neurons, a, b, c, d):
    networks = [
        (baseline(neurons), a, 32, 2),
        (lateral(neurons, bits=32), b, 32, 1),
        (lateral(neurons, bits=8), c, 8, 1),
        (lateral(neurons, bits=8, stored=False), d, 8, 0),
    ]
    for network, megabytes, bits, matrices in networks:
        actual = cost.unsupervised.synapse_bytes(network)
        assert actual == cost.unsupervised.dense_bytes(neurons, bits=bits, matrices=matrices)
        digits = len(str(megabytes).split(".")[1])
        assert round(actual / 1e6, digits) == pytest.approx(megabytes, abs=10.0**-digits / 2)


def test_published_saving_at_4900():
    before, after, sums = (
        cost.unsupervised.synapse_bytes(network)
        for network in (baseline(4900), lateral(4900, bits=8), lateral(4900, bits=8, stored=False))
    )
    assert before / after == pytest.approx(7.448, abs=5e-4)
    assert before / cost.unsupervised.synapse_bytes(lateral(4900, bits=32)) == pytest.approx(
        1.862, abs=5e-4
    )
    assert after / sums == pytest.approx(7.25, abs=5e-3)


def held(network):
    """Bytes of the arrays that are made: of the synapses, and of the whole state."""
    state = plasticity.initialize(network, jax.random.key(0))
    synapses = jax.tree.leaves((state.weights, state.matrices))
    return tuple(sum(a.nbytes for a in arrays) for arrays in (synapses, jax.tree.leaves(state)))


def test_arrays_in_memory_have_these_bytes():
    for network in (baseline(50), lateral(50, bits=8), lateral(50, bits=8, stored=False)):
        assert held(network)[0] == cost.unsupervised.synapse_bytes(network)


def test_arrays_of_4900_neurons_save_what_the_table_says():
    """Also with what a state holds besides synapses: a threshold for each neuron."""
    before, matrix, sums = (
        held(network)
        for network in (baseline(4900), lateral(4900, bits=8), lateral(4900, bits=8, stored=False))
    )
    assert before == (207_446_400, 207_446_400 + 4 * 4900)
    assert before[0] / matrix[0] == pytest.approx(7.448, abs=5e-4)
    assert before[1] / matrix[1] > 7.44
    assert before[0] / sums[0] == 54.0


def test_operations_of_an_example():
    counted = {"input_spikes": 2181.0, "spikes": 11.5, "weight_updates": 8977.0}
    network = plasticity.presets.diehl_cook(400)
    actual = cost.unsupervised.plasticity_cost(network, **counted)
    assert actual.inference.neuron_updates == 2 * 400 * 1000
    assert actual.inference.input_additions == 2181 * 400
    assert actual.inference.inhibition_additions == 11.5 + 11.5 * 399
    assert actual.inference.weight_updates == actual.inference.trace_decays == 0
    assert actual.training.trace_decays == (784 + 400 + 400) * 1000
    light = cost.unsupervised.plasticity_cost(plasticity.presets.fspinn(400), **counted)
    assert light.inference.neuron_updates == 400 * 250
    assert light.inference.inhibition_additions == 11.5 * 399
    expected = 0.9 * (2181 * 400 + 11.5 * 399) + 4.6 * 400 * 250
    assert light.inference.nanojoules == pytest.approx(expected / 1e3)


def test_fewer_bits_move_fewer_bytes_and_showings_multiply():
    counted = {"input_spikes": 100.0, "spikes": 5.0, "weight_updates": 50.0}
    wide, narrow = (
        cost.unsupervised.plasticity_cost(plasticity.presets.fspinn(20, form=form), **counted)
        for form in (None, BYTES)
    )
    assert wide.training_traffic == 4 * narrow.training_traffic == 4 * (100 * 20 + 100)
    twice = cost.unsupervised.plasticity_cost(
        plasticity.presets.fspinn(20), **counted, showings=2.0
    )
    assert twice.training.input_additions == 2 * wide.training.input_additions
    assert twice.training.weight_updates == wide.training.weight_updates
