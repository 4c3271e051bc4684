"""A model is one comparable value, and says why it has no inverse."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, nn
from snnjax.neurons.model import Refusal

pytestmark = pytest.mark.fast
MAKERS = {
    "if": neurons.integrate_fire_model,
    "lif": neurons.lif_model,
    "plif": neurons.plif_model,
    "alif": neurons.alif_model,
    "cuba_lif": neurons.cuba_lif_model,
    "li": neurons.li_model,
    "coupled_lif": neurons.coupled_lif_model,
    "lif of spikingjelly": neurons.compat.spikingjelly_lif,
    "plif of spikingjelly": neurons.compat.spikingjelly_plif,
    "if of spikingjelly": neurons.compat.spikingjelly_if,
    "leaky of snntorch": functools.partial(neurons.compat.snntorch_leaky, 0.9),
    "synaptic of snntorch": functools.partial(neurons.compat.snntorch_synaptic, 0.9, 0.8),
    "lif of norse": neurons.compat.norse_lif_box,
    "lif of spyx": functools.partial(neurons.compat.spyx_lif, 0.9),
}


@pytest.mark.parametrize("name", MAKERS)
def test_equal_options_give_equal_models_and_other_options_others(name):
    make = MAKERS[name]
    assert make() == make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().name = "other"
    assert dataclasses.replace(make(), name="other") != make()


def test_models_of_other_parameters_differ():
    assert neurons.lif_model(decay=0.9) != neurons.lif_model(decay=0.8)
    assert len({neurons.lif_model(decay=0.9), neurons.lif_model(decay=0.9)}) == 1


def test_a_model_is_a_step_that_brings_its_sequence():
    model, xs = neurons.lif_model(decay=0.5), jnp.full((4, 2, 3), 0.7)
    state = model.initial_state((2, 3))
    for scan in (memory.store, memory.recompute(2), memory.sequence):
        _, spikes = scan(model, model.params, state, xs)
        np.testing.assert_array_equal(spikes[:, 0, 0], [0, 1, 0, 1])
    _, by_sequence = model.sequence(model.params, state, xs)
    np.testing.assert_array_equal(by_sequence, spikes)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (neurons.lif_model(reset=neurons.reset.zero), r"hard or delayed.*neurons\.reset\.subtract"),
        (neurons.lif_model(reset=neurons.reset.delayed(neurons.reset.subtract)), "hard or delayed"),
        (neurons.integrate_fire_model(reset=neurons.reset.zero), "hard or delayed"),
        (neurons.plif_model(reset=neurons.reset.to(0.1)), "hard or delayed"),
        (neurons.alif_model(reset=neurons.reset.zero), "hard or delayed"),
        (neurons.cuba_lif_model(synaptic_decay=0.0), r"synaptic_decay lies in \(0, 1\]"),
        (neurons.lif_model(decay=1e-9), "forgets too fast"),
        (neurons.recurrent_model(neurons.lif_model(), jnp.eye(3)), "feedback have no inverse"),
        (neurons.psn.sliding_psn_model(order=2), "sliding_psn neurons offer no inverse"),
        (neurons.compat.snntorch_leaky(0.9), "hard or delayed"),
    ],
)
def test_a_model_without_an_inverse_gives_the_reason_and_the_cure(model, reason):
    assert not callable(model.inverse)
    with pytest.raises(ValueError, match=f"{reason}.*memory.recompute|{reason}"):
        model.require_inverse()


@pytest.mark.parametrize(
    ("model", "learned", "fixed"),
    [
        (neurons.lif_model(), "decay", "threshold"),
        (neurons.plif_model(), "w", "threshold"),
        (neurons.alif_model(), "adaptation_decay", "strength"),
        (neurons.cuba_lif_model(), "synaptic_decay", "threshold"),
        (neurons.coupled_lif_model(), "alpha", "beta"),
    ],
)
def test_an_inverse_that_rests_on_a_learned_parameter_is_refused(model, learned, fixed):
    assert model.with_learned((fixed,)) is model and model.require_inverse().steps > 1
    refused = model.with_learned((learned, fixed))
    assert isinstance(refused.inverse, Refusal)
    with pytest.raises(ValueError, match=rf"{learned} is not known beforehand.*recompute\(every"):
        nn.Neuron(model, scan=memory.reversal(), learn=(learned,))


def test_the_smallest_decay_bounds_the_inverse():
    model = neurons.lif_model(decay=jnp.asarray([0.9, 0.25, 0.5]))
    assert model.require_inverse().steps == 8
    assert neurons.integrate_fire_model().require_inverse().steps is None


def test_a_traced_decay_gives_no_inverse():
    reasons = []

    @jax.jit
    def trace(decay):
        reasons.append(neurons.lif_model(decay=decay).inverse)
        return decay

    trace(0.5)
    assert isinstance(reasons[0], Refusal) and "traced" in reasons[0].reason


def test_the_shift_of_another_librarys_membrane_is_kept():
    assert neurons.compat.spikingjelly_lif(v_reset=-0.25).rest == -0.25
    assert neurons.compat.norse_lif_box(v_leak=0.2).rest == 0.2


def test_feedback_keeps_what_is_known_of_the_neuron():
    model = neurons.recurrent_model(neurons.li_model(), jnp.eye(3))
    assert not model.spiking and model.name == "recurrent_li"
    state = model.initial_state((2, 3), dtype=jnp.float16)
    assert state.outputs.dtype == state.neuron.v.dtype == jnp.float16
