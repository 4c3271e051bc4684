"""Neuron layers: the scan changes no value, what is learned, what is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, nn
from snnjax.neurons.li import LIParams
from snnjax.neurons.lif import LIFState
from snnjax.neurons.plif import plif_weight
from snnjax.neurons.recurrent import RecurrentState
from snnjax.nn.neuron import Constant, membranes
from snnjax.typing import bind
from tests.compare import assert_close
from tests.nn.layers import call, leaves, run, sequence

LEARN = {
    nn.IF: ("threshold",),
    nn.LIF: ("decay", "threshold"),
    nn.PLIF: ("w", "threshold"),
    nn.ALIF: ("decay", "threshold", "adaptation_decay", "strength"),
    nn.CubaLIF: ("decay", "synaptic_decay", "threshold"),
    nn.LI: ("decay",),
}
SHAPE = (2, 5)


@pytest.mark.parametrize(
    "kind", [pytest.param(nn.LIF, marks=pytest.mark.fast), *[k for k in LEARN if k is not nn.LIF]]
)
def test_no_scan_changes_outputs_or_gradients(kind):
    inputs = sequence(SHAPE, timesteps=7)
    layers = [
        kind(scan=scan, learn=LEARN[kind])
        for scan in (None, memory.store, memory.recompute(every=3))
    ]
    if layers[0].model.sequence is None:  # then None is memory.store itself
        del layers[1]
    results = [run(layer, inputs) for layer in layers]
    for result in results[1:]:
        np.testing.assert_array_equal(result.outputs, results[0].outputs)
        np.testing.assert_array_equal(leaves(result.aux), leaves(results[0].aux))
        assert_close(leaves(result.gradients), leaves(results[0].gradients), 1e-5)
    assert len(leaves(results[0].gradients[0])) == len(LEARN[kind])
    assert all(np.abs(g).max() > 0 for g in leaves(results[0].gradients))


def test_the_state_carries_on_where_it_stopped():
    layer, inputs = nn.LIF(decay=0.5), sequence(SHAPE, timesteps=6)
    whole, end = call(layer, inputs)
    first, aux = call(layer, inputs[:2])
    second, last = layer(inputs[2:], nn.State().after(aux), nn.Call(training=False))
    np.testing.assert_array_equal(jnp.concatenate([first, second]), whole)
    np.testing.assert_array_equal(last.state.v, end.state.v)


@pytest.mark.fast
def test_arrays_are_held_as_constants_that_get_no_gradient():
    decay = jnp.linspace(0.2, 0.9, 5)
    layer = nn.LIF(decay=decay, threshold=jnp.asarray(0.8), learn=("threshold",))
    gradient, _ = run(layer, sequence(SHAPE)).gradients
    assert isinstance(layer.constants["decay"], Constant)
    np.testing.assert_array_equal(gradient.constants["decay"][...], 0.0)
    assert float(jnp.abs(gradient.learned["threshold"][...])) > 0
    one = call(nn.LIF(decay=float(decay[3]), threshold=0.8), sequence(SHAPE)[..., 3:4])[0]
    np.testing.assert_array_equal(call(layer, sequence(SHAPE))[0][..., 3:4], one)


def test_numbers_are_no_leaves_and_learned_parameters_are():
    assert leaves(nn.LIF(decay=0.3)) == []
    assert leaves(nn.LIF(decay=0.3, learn=("decay",))) == [np.float32(0.3)]
    assert jax.tree.structure(nn.LIF(decay=0.3)) != jax.tree.structure(nn.LIF(decay=0.4))
    assert float(plif_weight(0.5)) == pytest.approx(float(leaves(nn.PLIF())[0]))


def test_learning_an_unknown_parameter_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"\['tau'\].*\['decay', 'threshold'\]"):
        nn.LIF(learn=("tau",))


def test_a_delayed_reset_falls_back_on_scanning_the_step():
    layer = nn.LIF(reset=neurons.reset.delayed(neurons.reset.subtract))
    assert layer.model.sequence is None
    stored = nn.LIF(reset=neurons.reset.delayed(neurons.reset.subtract), scan=memory.store)
    inputs = sequence(SHAPE)
    np.testing.assert_array_equal(call(layer, inputs)[0], call(stored, inputs)[0])


def test_the_membrane_seen_is_the_one_after_the_reset():
    layer, inputs = nn.LIF(), sequence(SHAPE)
    outputs, aux = call(layer, inputs, taps=("membrane", "spikes"))
    seen = aux.taps[""]
    np.testing.assert_array_equal(seen["membrane"][-1], aux.state.v)
    np.testing.assert_array_equal(seen["spikes"], outputs)
    v = jnp.concatenate([jnp.zeros((1, *SHAPE)), seen["membrane"][:-1]])
    np.testing.assert_allclose(seen["membrane"], 0.5 * v + inputs - outputs, atol=1e-6)


def test_the_membrane_is_found_in_any_state():
    v = jnp.ones(3)
    assert membranes(LIFState(v)) is v
    assert membranes(RecurrentState(LIFState(v), jnp.zeros(3))) is v
    assert membranes((v, jnp.zeros(3))) is v


def _leak(params, state, current):
    (decay,) = params
    v = decay * state + current
    return v, jnp.where(v > 1, 1.0, 0.0)


def test_a_step_of_ones_own_is_a_layer():
    model = neurons.Model(_leak, LIParams(0.5), jnp.zeros, name="leak")
    layer = nn.Neuron(model, learn=("decay",))
    outputs, aux = nn.Sequential(layer)(
        sequence(SHAPE),
        nn.Sequential(layer).initial_state(SHAPE),
        nn.Call(training=True, taps=("spikes",)),
    )
    assert outputs.shape == (4, *SHAPE)
    assert set(aux.taps) == {"leak0"}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        pytest.param(nn.LIF, jnp.bfloat16, marks=pytest.mark.fast),
        (nn.IF, jnp.bfloat16),
        (nn.PLIF, jnp.float32),
    ],
)
def test_a_kernel_in_place_of_the_scan_changes_no_value(kind, dtype):
    inputs = sequence(SHAPE, timesteps=4).astype(dtype)
    interpreted = bind(neurons.lif_kernel, interpret=True, block=128)
    layers = [kind(learn=LEARN[kind], **chosen) for chosen in ({}, {"sequence": interpreted})]
    expected, actual = (run(layer, inputs) for layer in layers)
    assert actual.outputs.dtype == dtype
    np.testing.assert_array_equal(actual.outputs, expected.outputs)
    np.testing.assert_array_equal(leaves(actual.aux), leaves(expected.aux))
    assert_close(leaves(actual.gradients), leaves(expected.gradients), 1e-5)


@pytest.mark.fast
def test_a_kernel_reads_currents_of_two_bytes_as_they_are():
    inputs = sequence(SHAPE, timesteps=4).astype(jnp.bfloat16)
    kernel = bind(neurons.lif_kernel, interpret=True)
    layer = nn.LIF(sequence=kernel)
    state = layer.initial_state(SHAPE)
    made = str(jax.make_jaxpr(lambda x: layer(x, state, nn.Call(training=True))[0])(inputs))
    read = next(line for line in made.splitlines() if "pallas_call[" in line)
    assert "bf16[4,8,128]" in read.split("=")[0]
    assert jax.tree.structure(layer) == jax.tree.structure(nn.LIF(sequence=kernel))
    delayed = nn.LIF(sequence=kernel, reset=neurons.reset.delayed(neurons.reset.zero))
    assert delayed.model.sequence is None
