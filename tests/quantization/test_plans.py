"""Plans: which arrays of a model are chosen, and rounding with a gradient that passes through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import nn
from snnjax.quantization import QFormat, Quantizer, quantize
from snnjax.quantization.fixed_point import stochastic
from snnjax.quantization.plans import FirstOf, Kernels, NeuronParameters, named_leaves

# The search for the least error is compiled at every eager call; no plan depends on it.
FOUR = Quantizer(4, fit="largest")
KERNELS = Kernels(FOUR)


def network():
    rngs = nnx.Rngs(0)
    layers = [
        *(nn.Conv(2, 3, rngs=rngs), nn.BatchNorm(3), nn.LIF(decay=0.3, learn=("decay",))),
        *(nn.Flatten(), nn.Linear(48, 5, rngs=rngs)),
        nn.LIF(threshold=jnp.linspace(0.5, 1, 5)),
    ]
    return nn.Network(nn.Sequential(*layers), (4, 4, 2))


def chosen(plan, model):
    return [name for name, leaf in named_leaves(model)[0] if plan(name, leaf) is not None]


def changed(before, after):
    pairs = zip(named_leaves(before)[0], named_leaves(after)[0], strict=True)
    return [name for (name, a), (_, b) in pairs if (a != b).any()]


def test_names_are_paths():
    names = [name for name, _ in named_leaves(network())[0]]
    assert "body/layers/0/function/kernel" in names and "body/layers/1/scale" in names
    assert len(set(names)) == len(names)


def test_kernels_are_weights_and_nothing_else():
    expected = ["body/layers/0/function/kernel", "body/layers/4/function/kernel"]
    assert chosen(KERNELS, network()) == expected
    assert chosen(Kernels(FOUR, skip=("*layers/0/*",)), network()) == expected[1:]
    assert KERNELS("kernel", jnp.zeros((2, 2), jnp.int8)) is None


def test_neuron_parameters_are_learned_ones_and_arrays():
    plan = NeuronParameters(QFormat(0, 8))
    names = ["body/layers/2/learned/decay", "body/layers/5/constants/threshold"]
    assert chosen(plan, network()) == names
    assert chosen(NeuronParameters(QFormat(0, 8), skip=("*threshold",)), network()) == names[:1]


def test_the_first_plan_that_has_one():
    plan = FirstOf((KERNELS, NeuronParameters(QFormat(0, 8)), Kernels(Quantizer(2))))
    assert plan("kernel", jnp.zeros((2, 2))) == FOUR
    assert plan("learned/decay", jnp.zeros(())) == QFormat(0, 8)
    assert plan("bias", jnp.zeros(3)) is None
    assert plan == FirstOf((KERNELS, NeuronParameters(QFormat(0, 8)), Kernels(Quantizer(2))))


def test_planned_arrays_are_on_their_grid_and_the_rest_untouched():
    before = network()
    plan = FirstOf((KERNELS, NeuronParameters(QFormat(0, 3))))
    after = quantize(before, plan)
    assert changed(before, after) == chosen(plan, before)
    kernel = before.body.layers[0].function.kernel[...]
    np.testing.assert_array_equal(after.body.layers[0].function.kernel[...], FOUR(kernel))
    assert after.body.layers[2].learned["decay"][...] == 0.25
    assert jax.tree.structure(before) == jax.tree.structure(after)


def test_the_network_runs_on_the_grid_and_learns_behind_it():
    """The gradient is that of the rounded network, with respect to its full-precision weights."""
    model = network()
    frames = 1 + jax.random.normal(jax.random.key(1), (3, 2, 4, 4, 2))
    state = model.initial_state(2)

    def loss(model):
        return jnp.square(model(frames, state, training=False)[0] - 0.3).sum()

    rounded = quantize(model, KERNELS)
    through = lambda m: loss(quantize(m, KERNELS))  # noqa: E731
    value, slope = jax.jit(jax.value_and_grad(through))(model)
    expected, slope_there = jax.jit(jax.value_and_grad(loss))(rounded)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(slope_there), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert jnp.abs(slope.body.layers[0].function.kernel[...]).max() > 0


def test_every_array_draws_its_own_numbers():
    tree = {"a": jnp.full(100, 0.3), "b": jnp.full(100, 0.3)}
    format = QFormat(0, 1, rounding=stochastic)
    drawn = quantize(tree, lambda name, leaf: format, key=jax.random.key(0))
    assert (drawn["a"] != drawn["b"]).any()
    with pytest.raises(ValueError, match="pass key"):
        quantize(tree, lambda name, leaf: format)


def test_a_plan_that_finds_nothing_is_refused():
    with pytest.raises(ValueError, match="chooses none of the 1 arrays"):
        quantize({"bias": jnp.zeros(3)}, KERNELS)
