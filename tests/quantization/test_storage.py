"""Models in packed arrays: byte-exact, the same network again, also inside a compiled function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import nn
from snnjax.quantization import QFormat, Quantizer, quantize, restore, store
from snnjax.quantization.fixed_point import stochastic
from snnjax.quantization.plans import FirstOf, Kernels, NeuronParameters
from snnjax.quantization.quantizer import Quantized
from snnjax.quantization.storage import Footprint
from snnjax.quantization.words import Packed
from tests.compare import assert_equal

FRAMES = 1 + jax.random.normal(jax.random.key(1), (3, 2, 4, 4, 2))


def network(channels=3):
    rngs = nnx.Rngs(0)
    layers = [
        *(nn.Conv(2, channels, rngs=rngs), nn.BatchNorm(channels)),
        *(nn.LIF(decay=0.3, learn=("decay",)), nn.Flatten()),
        nn.Linear(16 * channels, 5, rngs=rngs),
    ]
    return nn.Network(nn.Sequential(*layers), (4, 4, 2))


PLANS = [
    Kernels(Quantizer(8)),
    Kernels(Quantizer(4)),
    Kernels(Quantizer(4, power_of_two=True)),
    Kernels(Quantizer(3, per="tensor", fit="largest")),
    FirstOf((Kernels(Quantizer(4)), NeuronParameters(QFormat(0, 4)))),
]


@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_the_restored_model_is_the_rounded_one(plan):
    model = network()
    stored = jax.jit(lambda model: store(model, plan))(model)
    assert_equal(restore(stored), jax.jit(lambda model: quantize(model, plan))(model))


@pytest.mark.parametrize(("bits", "power"), [(8, False), (4, False), (4, True), (3, False)])
def test_the_footprint_is_that_of_the_arrays_and_of_the_formula(bits, power):
    stored = store(network(), Kernels(Quantizer(bits, fit="largest", power_of_two=power)))
    footprint = stored.footprint()
    assert footprint.total == sum(leaf.nbytes for leaf in jax.tree.leaves(stored))
    codes = [-(-bits * count // 8) for count in (3 * 3 * 2 * 3, 48 * 5)]
    scales, rest = (3 + 5) * (1 if power else 4), 4 * (3 + 3 + 1 + 5)
    assert footprint == Footprint(sum(codes), scales, rest)
    names = {name.removeprefix("body/layers/"): size for name, size in stored.unquantized.items()}
    assert names == {"1/bias": 12, "1/scale": 12, "2/learned/decay": 4, "4/function/bias": 20}


def test_quantized_neuron_parameters_count_as_weights():
    kernels = Kernels(Quantizer(4, fit="largest"))
    stored = store(network(), FirstOf((kernels, NeuronParameters(QFormat(0, 8)))))
    assert stored.footprint().weights == store(network(), kernels).footprint().weights + 1
    assert "body/layers/2/learned/decay" not in stored.unquantized
    assert {type(array) for array in stored.arrays if array.nbytes in (1, 39)} <= {
        Packed, Quantized
    }  # fmt: skip


def test_a_compiled_function_takes_the_packed_arrays():
    """Its arguments are bytes, its outputs those of the rounded network, without retracing."""
    model, traces, plan = network(), [], Kernels(Quantizer(4, fit="largest"))
    stored = store(model, plan)

    @jax.jit
    def run(stored, frames):
        traces.append(1)
        model = restore(stored)
        return model(frames, model.initial_state(2), training=False)[0]

    rounded = quantize(model, plan)
    expected = jax.jit(lambda m, x: m(x, m.initial_state(2), training=False)[0])(rounded, FRAMES)
    np.testing.assert_allclose(run(stored, FRAMES), expected, rtol=1e-6, atol=1e-6)
    run(store(network(), plan), FRAMES)
    assert len(traces) == 1
    sizes = [x.dtype.itemsize * x.size for x in jax.tree.leaves(stored)]
    assert (
        sum(sizes)
        == stored.footprint().total
        < 0.3 * sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    )


def test_statistics_are_stored_beside_the_model():
    model = network()
    statistics = model.initial_state(1).statistics
    plan = Kernels(Quantizer(8, fit="largest"))
    stored = store((model, statistics), plan)
    assert stored.footprint().unquantized == store(model, plan).footprint().unquantized + 24
    assert_equal(restore(stored)[1], statistics)


def test_a_tree_of_arrays_in_fixed_point():
    """Weights of a network that learns by spike timing: one format, chosen by a function."""
    tree = {"weights": jnp.linspace(0, 1.2, 50).reshape(5, 10), "offset": jnp.arange(10.0)}
    format = QFormat(0, 8)
    stored = store(tree, lambda name, leaf: format if name == "weights" else None)
    assert stored.footprint() == Footprint(weights=50, scales=0, unquantized=40)
    np.testing.assert_array_equal(restore(stored)["weights"], format(tree["weights"]))
    np.testing.assert_array_equal(restore(stored)["offset"], tree["offset"])


def test_stochastic_storage_is_that_of_its_key():
    tree = {"a": jnp.full(100, 0.3), "b": jnp.full(100, 0.3, jnp.bfloat16)}
    plan = lambda name, leaf: QFormat(0, 1, rounding=stochastic)  # noqa: E731
    key = jax.random.key(3)
    assert_equal(restore(store(tree, plan, key=key)), quantize(tree, plan, key=key))
    with pytest.raises(ValueError, match="pass key"):
        store(tree, plan)


def test_a_plan_that_finds_nothing_is_refused():
    with pytest.raises(ValueError, match="chooses none of"):
        store({"bias": jnp.zeros(3)}, Kernels(Quantizer(8)))
