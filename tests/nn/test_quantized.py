"""Networks on rounded weights: the layer inside as it is, but for the rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.quantization import QFormat, Quantizer, quantize, restore, store
from snnjax.quantization.fixed_point import stochastic
from snnjax.quantization.plans import FirstOf, Kernels, NeuronParameters
from tests.compare import assert_close, assert_equal
from tests.nn.networks import B, inputs_of, reversible
from tests.nn.networks import run as graded

PLAN = Kernels(Quantizer(4))
UNCLIPPED = Kernels(Quantizer(4, fit="largest"))


def flat(**options):
    """The fewest layers that have all there is: neurons, statistics, spikes into a synapse."""
    rngs = nnx.Rngs(0)
    layers = [
        *(nn.Linear(5, 6, rngs=rngs), nn.BatchNorm(6, over="step"), nn.LIF()),
        nn.Linear(6, 3, rngs=rngs),
    ]
    return nn.Network(nn.Sequential(*layers), (5,), **options)


def wrapped(network, plan=PLAN):
    return nn.Network(nn.Quantized(network.body, plan), network.input_shape, order=network.order)


def outputs_of(network, **options):
    state = network.initial_state(B)
    return network(inputs_of(network), state, training=False, **options)


@pytest.mark.fast
def test_stored_weights_are_those_of_the_forward_pass():
    network, compiled = wrapped(flat()), jax.jit(outputs_of)
    body = restore(store(network.body.layer, network.body.plan))
    outputs, aux = compiled(network)
    expected, expected_aux = compiled(nn.Network(body, network.input_shape))
    assert_equal(outputs, expected)
    assert_equal(aux, expected_aux)
    assert (compiled(flat())[0] != expected).any()


def test_gradients_are_those_at_the_rounded_weights():
    """Where nothing is clipped; the parameters of the two are the same arrays in the same order."""
    network = flat()
    gradients, (outputs, aux) = graded(wrapped(network, UNCLIPPED))
    expected, (expected_outputs, expected_aux) = graded(quantize(network, UNCLIPPED))
    assert_equal(outputs, expected_outputs)
    assert_close(gradients, expected, 1e-5)
    assert_close(aux.statistics, expected_aux.statistics, 1e-6)


def test_taps_have_the_names_of_the_layer_inside():
    def names(network):
        traced = functools.partial(outputs_of, taps=("rates",))
        return set(jax.eval_shape(traced, network)[1].taps)

    assert names(wrapped(flat())) == names(flat())


@pytest.mark.fast
def test_neuron_parameters_are_rounded_too():
    rngs = nnx.Rngs(0)
    body = nn.Sequential(nn.Linear(5, 6, rngs=rngs), nn.LIF(decay=0.3, learn=("decay",)))
    plan = FirstOf((UNCLIPPED, NeuronParameters(QFormat(0, 2))))
    by_hand = nn.Sequential(quantize(body.layers[0], UNCLIPPED), nn.LIF(decay=0.25))
    inputs = 2 * jax.random.normal(jax.random.key(0), (4, B, 5))
    state = body.initial_state((B, 5))
    compiled = jax.jit(lambda layer: layer(inputs, state, nn.Call(training=False))[0])
    assert_close(compiled(nn.Quantized(body, plan)), compiled(by_hand), 0.0)


STRATEGIES = {
    "depth and pack": (flat, memory.Strategy(depth=memory.recompute(1), pack=True)),
    "time": (flat, memory.Strategy(time=memory.recompute(2))),
    "reverse": (reversible, memory.Strategy(depth=memory.reversal())),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "reverse" else n for n in STRATEGIES],
)
def test_strategies_reach_the_layers_inside(name):
    """They take what they take unwrapped, and values do not change."""
    make, strategy = STRATEGIES[name]
    network = make()
    saving = nn.with_memory(wrapped(network, UNCLIPPED), strategy)
    inside, alone = saving.body.layer, nn.with_memory(network, strategy).body
    assert jax.tree.structure(inside) == jax.tree.structure(alone)
    expected, (outputs, _) = graded(wrapped(network, UNCLIPPED))
    gradients, (again, _) = graded(saving)
    assert_close(again, outputs, 1e-6)
    assert_close(gradients, expected, 1e-4)


@pytest.mark.fast
def test_a_strategy_that_nothing_inside_takes_is_refused():
    for network in (flat(), wrapped(flat())):
        with pytest.raises(memory.StrategyError, match="no layer of this network uses depth"):
            nn.with_memory(network, memory.Strategy(depth=memory.reversal()))
    assert nn.candidates(wrapped(flat())) == nn.candidates(flat())
    synapse = nn.Sequential(nn.Quantized(nn.Linear(5, 6, rngs=nnx.Rngs(0)), PLAN), nn.LIF())
    again = nn.with_memory(nn.Network(synapse, (5,)), memory.Strategy(time=memory.recompute(2)))
    assert again.body.layers[1].scan == memory.recompute(2)


def test_in_time_order():
    network, compiled = flat(order="time"), jax.jit(outputs_of)
    by_hand = quantize(network, UNCLIPPED)
    assert_close(compiled(wrapped(network, UNCLIPPED))[0], compiled(by_hand)[0], 1e-6)


@pytest.mark.fast
def test_equal_constructions_are_one_structure():
    one, other = wrapped(flat()), wrapped(flat())
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.structure(one) != jax.tree.structure(wrapped(flat(), Kernels(Quantizer(5))))


@pytest.mark.fast
def test_plans_that_round_nothing_are_refused():
    with pytest.raises(ValueError, match="chooses none of"):
        nn.Quantized(nn.BatchNorm(3), PLAN)
    drawing = lambda name, leaf: QFormat(0, 4, rounding=stochastic)  # noqa: E731
    with pytest.raises(ValueError, match="pass key"):
        nn.Quantized(nn.Linear(3, 2, rngs=nnx.Rngs(0)), drawing)


def test_full_precision_weights_collect_what_rounding_would_lose():
    """Steps far below that of the grid, as a gradient's are: after enough of them a code moves."""
    layer = nn.Quantized(nn.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0)), PLAN)
    inputs, state = jnp.ones((1, 1, 4)), nn.State()
    (before,) = jax.tree.leaves(layer)
    small = 0.01 * float(PLAN.quantizer.scale(before).min())

    def step(layer):
        slope = jax.grad(lambda m: m(inputs, state, nn.Call(training=True))[0].sum())(layer)
        return jax.tree.map(lambda w, g: w - small * jnp.sign(g), layer, slope)

    @jax.jit
    def codes(layer, steps):
        after = jax.lax.fori_loop(0, steps, lambda _, m: step(m), layer)
        return store(after.layer, PLAN).arrays[0].codes.codes()

    start, once, often = (np.asarray(codes(layer, steps)) for steps in (0, 1, 100))
    assert (once != start).mean() < 0.2
    assert (often != start).mean() > 0.5
