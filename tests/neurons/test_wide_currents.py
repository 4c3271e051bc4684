"""Currents in float64 through every neuron and scan that start from a float32 state."""

import functools

import jax
import jax.numpy as jnp
import pytest

from snnjax import memory, neurons, nn, surrogate
from tests.compare import assert_close
from tests.memory.test_scans import SCANS, Row, loss, side_by_side
from tests.neurons.cases import CORE, NEURONS
from tests.nn.layers import LAYERS, call, rngs, sequence

CHOSEN = ("recompute(3)", "reverse(refresh=4)", "whole sequence")
TABLE = {"store": Row(memory.store), **{name: SCANS[name] for name in CHOSEN}}


def widened(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


@functools.cache
def gradient_of(name):
    return jax.jit(jax.value_and_grad(functools.partial(loss, TABLE[name].scan), 1, has_aux=True))


def arguments_of(name, names):
    """Weights and inputs in float64, parameters and state in float32."""
    with jax.enable_x64(False):
        chosen = TABLE[name].among(names).neurons
        weights, params, state, xs = side_by_side(chosen, 4, jnp.float32)
    weights, xs = widened((weights, xs))
    return weights, params, state, xs


@functools.cache
def of_a_wide_state(name, names):
    weights, params, state, xs = arguments_of(name, names)
    return gradient_of(name)(weights, widened(params), widened(state), xs)


def cases():
    """Both promotions, which the steps of neurons meet and scans do not: recomputed steps once."""
    for name in TABLE:
        for promotion in ("standard", "strict"):
            if (name, promotion) == ("recompute(3)", "strict"):
                yield pytest.param(name, promotion, ("lif",), id=f"{name}-{promotion}")
            elif name != "recompute(3)":
                yield pytest.param(name, promotion, CORE, id=f"{name}-{promotion}")
            # 19 neurons take a minute to compile.
            id_ = f"{name}-{promotion}-every neuron"
            yield pytest.param(name, promotion, NEURONS, id=id_, marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "promotion", "names"), list(cases()))
def test_values_and_gradients_are_those_of_a_float64_state(x64, name, promotion, names):
    names = tuple(names)
    with jax.numpy_dtype_promotion(promotion):
        (_, outputs), found = gradient_of(name)(*arguments_of(name, names))
    (_, exact), expected = of_a_wide_state(name, names)
    # Under standard promotion an expression of parameters alone, such as 1 - decay, is float32.
    assert_close(outputs, exact, 1e-12 if promotion == "strict" else 1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("float64")}
    assert_close(found, expected, 1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}


NEURON_LAYERS = ("if", "lif", "plif", "alif", "cubalif", "li", "coupledlif", "recurrent", "grouped")
SAVED = (memory.recompute(2), memory.reversal(), memory.recompute(2, inner=memory.sequence))


# A layer widens what enters its scan, whichever neuron that is.
QUICK = ("lif", "coupledlif", "recurrent")
MARKED = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NEURON_LAYERS]


@pytest.mark.parametrize("name", MARKED)
def test_layers_take_them_under_every_strategy(x64, name):
    make, shape = LAYERS[name]
    inputs = sequence(shape).astype(jnp.float64)
    expected = call(make(), inputs)[0]
    assert expected.dtype == jnp.float64
    for scan in SAVED:
        try:
            layer = nn.with_memory(make(), memory.Strategy(time=scan))
        except ValueError:  # no inverse, or one that depends on what is learned
            assert isinstance(scan, memory.Reverse)
            continue
        assert_close(call(layer, inputs)[0], expected, 0.0)


def test_a_network_in_order_of_time_takes_them(x64):
    body = nn.Sequential(nn.Linear(6, 4, rngs=rngs()), nn.LIF(), nn.Linear(4, 3, rngs=rngs()))
    inputs = sequence((2, 6)).astype(jnp.float64)
    layer, time = (nn.Network(body, (6,), order=order) for order in ("layer", "time"))
    run = jax.jit(lambda net, x: net(x, net.initial_state(2), training=False)[0])
    outputs = [run(net, inputs) for net in (layer, time)]
    assert outputs[0].dtype == jnp.float64
    assert_close(*outputs, 1e-12)


@pytest.mark.parametrize("scan", [memory.store, memory.recompute(2), memory.sequence])
@pytest.mark.parametrize("make", [neurons.alif_model, neurons.cuba_lif_model])
def test_a_state_of_another_batch_is_named(scan, make):
    model = make()
    # A batch of one broadcasts, and the state would grow in the first step.
    with pytest.raises(TypeError, match=r"float32\[1, 4\] before a step and float32\[2, 4\]"):
        scan(model, model.params, model.initial_state((1, 4)), jnp.zeros((5, 2, 4)))
    with pytest.raises((TypeError, ValueError), match="3"):
        scan(model, model.params, model.initial_state((3, 4)), jnp.zeros((5, 2, 4)))


# Options that are refused where they are written.

MAKERS = {
    "decay": ("lif_model", "li_model", "alif_model", "cuba_lif_model", "coupled_lif_model"),
    "adaptation_decay": ("alif_model",),
    "threshold": (
        "lif_model", "integrate_fire_model", "plif_model", "alif_model", "cuba_lif_model",
        "coupled_lif_model",
    ),
}  # fmt: skip
WRONG = {
    "decay": (0.0, -0.5, 1.5, float("nan"), jnp.asarray([0.5, 1.5])),
    "adaptation_decay": (0.0, 1.01, float("nan")),
    "threshold": (0.0, -1.0, float("nan"), float("inf"), jnp.asarray([1.0, 0.0])),
}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("maker", "option"), [(maker, option) for option in MAKERS for maker in MAKERS[option]]
)
def test_parameters_outside_their_range_are_refused(maker, option):
    for value in WRONG[option]:
        with pytest.raises(ValueError, match=f"{maker}: {option} must"):
            getattr(neurons, maker)(**{option: value})
    with pytest.raises(TypeError, match=f"{option} must be a number"):
        getattr(neurons, maker)(**{option: "0.9"})


@pytest.mark.fast
@pytest.mark.parametrize("maker", [m for m in neurons.__all__ if m.endswith("_model")])
def test_an_object_that_is_no_spike_function_is_refused(maker):
    # Without spikes of their own.
    if maker in ("li_model", "recurrent_model", "refractory_model"):
        return
    for spike in ("atan", 1.0, surrogate.arctan):
        with pytest.raises(TypeError, match="spike must be a spike function"):
            getattr(neurons, maker)(spike=spike)
    # The reset of the others is a potential, or learned.
    if maker not in ("coupled_lif_model", "adex_model", "izhikevich_model"):
        for reset in ("zero", 0.0, neurons.reset.to):
            with pytest.raises(TypeError, match="reset must be a reset rule"):
                getattr(neurons, maker)(reset=reset)
