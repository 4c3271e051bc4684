"""One call checks the laws of a neuron model: of every row of the case table, and of a user's."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from snnjax import memory, neurons, nn, surrogate
from snnjax.typing import bind
from tests.compare import AS_USERS_DO
from tests.neurons.cases import NEURONS, case


class Resonator(NamedTuple):
    decay: float
    coupling: float


def resonate(params, state, current, *, spike=surrogate.arctan()):
    v, w = state
    h = params.decay * v - params.coupling * w + current
    spikes = spike(h - 1)
    return (h - spikes, params.decay * w + params.coupling * h), spikes


def at_rest(shape):
    return jnp.zeros(shape), jnp.zeros(shape)


def undo(params, after, current, spikes):
    v, w = after
    h = v + spikes
    w = (w - params.coupling * h) / params.decay
    return (h - current + params.coupling * w) / params.decay, w


undo.steps = 8
OWN = neurons.Model(resonate, Resonator(0.8, 0.3), at_rest, inverse=undo, name="resonator")


# Each compiles a dozen programs; the default lane has every scan of tests/memory/test_scans.py, and
# below a model of one's own.
@pytest.mark.slow
@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_keeps_the_laws(name):
    made = case(name, 12, dtype=jnp.float32)
    # The coupled node's derivative carries rounding errors, as that of a reversal does.
    bound = 4e-2 if name == "coupled_lif" else 1e-5
    options = {"state": made.state, "bound": bound, "compiler_options": AS_USERS_DO}
    assert not nn.check_model(made.model, currents=made.xs, **options)


@pytest.mark.fast
def test_a_step_of_ones_own_is_a_layer_and_keeps_the_laws():
    assert not nn.check_model(OWN)
    layer = nn.Neuron(OWN, scan=memory.reversal(), learn=("coupling",))
    outputs, _ = layer(jnp.ones((5, 2, 3)), layer.initial_state((2, 3)), nn.Call(training=False))
    assert outputs.shape == (5, 2, 3) and layer.scan.inverse is undo
    assert layer.name == "resonator"


def backwards(params, state, xs):
    """A whole-sequence function that is none of the step's."""
    last, ys = memory.store(resonate, params, state, xs[::-1])
    return last, ys[::-1]


def half_gradient(params, state, xs):
    half = jax.tree.map(lambda x: x / 2 + jax.lax.stop_gradient(x / 2), xs)
    return memory.store(resonate, params, state, half)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sequence": backwards}, "sequence: outputs .* differ from store's.*later currents"),
        ({"sequence": half_gradient}, "sequence: wrong gradient"),
        ({"inverse": lambda params, after, x, y: after}, "reverse.*wrong inverse"),
        ({"step": neurons.li, "params": neurons.LIFParams(0.5, 1.0)}, "neither 0 nor 1"),
        ({"params": Resonator(0.1, 0.0), "step": bind(resonate, spike=jnp.zeros_like)}, "fired"),
    ],
)
def test_a_fault_is_named(changes, fault):
    model = dataclasses.replace(OWN, **{"inverse": None, **changes})
    if model.step is neurons.li:
        model = dataclasses.replace(model, initial_state=neurons.lif_model().initial_state)
    faults = nn.check_model(model)
    assert re.search(fault, "; ".join(faults)), faults
