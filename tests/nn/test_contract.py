"""The laws of every layer: shapes, state in and out, nothing mutated, JAX's transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import nn
from snnjax.nn.contract import output_shape
from tests.compare import assert_close, assert_equal
from tests.nn.layers import FLAT, LAYERS, SPACE, B, T, call, leaves, rngs, run, sequence

KEY = jax.random.key(7)
SPIKING = {
    "if", "lif", "plif", "alif", "cubalif", "li", "coupledlif", "recurrent", "grouped", "srm",
    "sigma_delta", "integrator",
}  # fmt: skip
WIRED = {"shared", "sequential", "residual", "stacked"}
FAST = {"linear", "lif", "batchnorm", "sequential"}


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.fast] if n in FAST else []) for n in LAYERS]
)
def name(request):
    return request.param


@functools.partial(jax.jit, static_argnames="training")
def once(layer, inputs, state, *, training):
    return layer(inputs, state, nn.Call(training=training, key=KEY))


@pytest.mark.parametrize("training", [True, False])
def test_state_goes_in_and_comes_out_and_the_layer_stays_as_it_was(name, training):
    make, shape = LAYERS[name]
    layer, inputs = make(), sequence(shape)
    before = leaves(layer)
    state = layer.initial_state(shape)
    outputs, aux = once(layer, inputs, state, training=training)
    assert outputs.shape[:2] == (T, B)
    assert outputs.shape[1:] == output_shape(layer, state, shape)
    assert isinstance(aux, nn.Aux) and aux.taps == {}
    after = state.after(aux)
    state = nn.contract.repeat_state(
        state
    )  # stacked blocks at rest come out as blocks with a state each
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
    for new, old in zip(leaves(layer), before, strict=True):
        np.testing.assert_array_equal(new, old)


def test_equal_constructions_are_one_tree_structure_and_one_trace(name):
    make, shape = LAYERS[name]
    one, other = make(), make()
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert_equal(one, other)
    state, traces = one.initial_state(shape), []

    @jax.jit
    def compiled(layer, state):
        del layer, state
        traces.append(1)

    compiled(one, state)
    compiled(other, state)
    assert len(traces) == 1


def test_a_layer_is_a_pytree_under_jit_and_grad_and_looks_only_back(name):
    """Law 7: with fixed statistics, outputs before t = 2 do not depend on inputs from then on."""
    make, shape = LAYERS[name]
    layer, inputs = make(), sequence(shape)
    result = run(layer, inputs, until=2)
    to_layer, to_inputs = result.gradients
    assert jax.tree.structure(to_layer) == jax.tree.structure(layer)
    assert all(np.isfinite(leaf).all() for leaf in leaves(result.gradients))
    np.testing.assert_array_equal(np.asarray(to_inputs[2:]), 0.0)
    assert np.abs(to_inputs[:2]).max() > 0
    outputs, _ = call(layer, inputs)
    assert_close(result.outputs, outputs, 1e-6)
    changed, _ = call(layer, inputs.at[2:].set(0.0))
    np.testing.assert_array_equal(changed[:2], outputs[:2])


def test_a_layer_is_mapped_over_sequences(name):
    make, shape = LAYERS[name]
    layer, inputs = make(), jnp.stack([sequence(shape), sequence(shape, seed=1)])
    mapped = jax.jit(jax.vmap(lambda x: call(layer, x)[0]))(inputs)
    assert_close(mapped, jnp.stack([call(layer, x)[0] for x in inputs]), 1e-6)


def _more_layers():
    """Makers of layers that are no row of the table, with the shape of a timestep of input."""
    tokens = B, 4, 8
    branch = lambda r: nn.Sequential(nn.LIF(), nn.Linear(3, 3, rngs=r), nn.BatchNorm(3))  # noqa: E731
    return {
        "asa": (lambda: nn.ASA(T, rngs=rngs()), SPACE),
        "ma": (
            lambda: nn.MA("TCSA", T, 2, time_reduction=2, channel_reduction=1, rngs=rngs()),
            SPACE,
        ),
        "psn": (lambda: nn.PSN(T, rngs=rngs()), FLAT),
        "sliding psn": (lambda: nn.SlidingPSN(order=2), FLAT),
        "reset-free lif": (lambda: nn.ResetFreeLIF(), FLAT),
        "disabled": (lambda: nn.Disabled(), FLAT),
        "scaled conv": (lambda: nn.ScaledStdConv(2, 3, rngs=rngs()), SPACE),
        "sub-bit conv": (lambda: nn.SubBitConv(2, 3, bits_per_kernel=4, rngs=rngs()), SPACE),
        "attention": (lambda: nn.SpikingSelfAttention(8, 2, rngs=rngs()), tokens),
        "spike-driven attention": (lambda: nn.SpikeDrivenAttention(8, rngs=rngs()), tokens),
        "static": (lambda: nn.StaticInput(nn.Conv(2, 3, rngs=rngs())), SPACE),
        "reversible": (lambda: nn.Reversible(branch, branch, 2, rngs=rngs()), FLAT),
    }


# An evaluation computes a part of what training does.
@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_float64_goes_in_and_comes_out(x64, training):
    """No layer computes in float32 on the way; parameters and states at rest are float32."""
    for name, (make, shape) in (LAYERS | _more_layers()).items():

        def loss(x, make=make, shape=shape):
            layer = make()  # traced, too: nothing is drawn
            options = nn.Call(training=training, key=KEY)
            outputs, aux = layer(x, layer.initial_state(shape), options)
            return outputs.sum(), (outputs, aux.statistics)

        x = jax.ShapeDtypeStruct((T, *shape), jnp.float64)
        # Float32 anywhere would raise under strict promotion, or show in the dtype of the outputs.
        # The norms of Flax promote float64 with float32 themselves.
        promotion = "standard" if name in ("groupnorm", "layernorm") else "strict"
        with jax.numpy_dtype_promotion(promotion):
            both = jax.eval_shape(jax.value_and_grad(loss, has_aux=True), x)
        (_, (outputs, statistics)), gradient = both
        assert outputs.dtype == gradient.dtype == jnp.float64, name
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(statistics)), name


@pytest.mark.parametrize("name", sorted(SPIKING | WIRED))
def test_taps_show_spikes_and_membranes_of_the_outputs_shape(name):
    make, shape = LAYERS[name]
    layer, inputs = make(), sequence(shape)
    plain, _ = call(layer, inputs)
    kinds = ("spikes",) if name == "shared" else ("spikes", "membrane")
    outputs, aux = call(layer, inputs, taps=kinds)
    np.testing.assert_array_equal(outputs, plain)
    assert aux.taps
    for seen in aux.taps.values():
        assert set(seen) == set(kinds)
        assert all(leaf.shape[:2] == (T, B) for leaf in seen.values())
    if name in SPIKING:
        assert set(aux.taps) == {""}
        np.testing.assert_array_equal(aux.taps[""]["spikes"], outputs)
    else:
        assert "" not in aux.taps


def test_a_layer_without_neurons_taps_nothing():
    for name in sorted(set(LAYERS) - SPIKING - WIRED):
        make, shape = LAYERS[name]
        _, aux = call(make(), sequence(shape), taps=("spikes", "membrane"))
        assert aux.taps == {}
