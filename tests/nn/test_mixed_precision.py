"""Number formats put into a network: what is computed and kept in them, and what never is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.mixed_precision import Precision, parse_precision, with_precision
from tests.compare import assert_close, assert_equal
from tests.nn.layers import FLAT, LAYERS, SPACE, sequence
from tests.nn.networks import NETWORKS, inputs_of, run

BF16 = Precision(compute="bfloat16")


# The text.


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("", Precision()),
        ("float32", Precision()),
        (" bfloat16 ", BF16),
        ("float16", Precision(compute="float16")),
        ("params=bfloat16", Precision(params="bfloat16")),
        ("compute = bfloat16, params=bfloat16", Precision("bfloat16", "bfloat16")),
        ("compute=bfloat16, stream=float32, accumulators=float32", BF16),
    ],
)
def test_text_and_value(text, precision):
    assert parse_precision(text) == precision
    assert parse_precision(str(precision)) == precision
    assert precision.scales_loss == (text == "float16")


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("half", "compute is float32, bfloat16 or float16, not 'half'"),
        ("float64", "bfloat16"),
        ("stream=bfloat16", "leave stream=float32"),
        ("compute=float16, accumulators=float16", "leave accumulators=float32"),
        ("params=float16", "params are float32 or bfloat16"),
        ("weights=bfloat16", "parts are compute, params, stream, accumulators"),
        ("compute=bfloat16, compute=float16", "at 'compute=float16'"),
        ("compute=", "write 'bfloat16'"),
        ("bfloat16, float16", "at 'bfloat16'"),
    ],
)
def test_another_text_is_refused_with_the_cure(text, cure):
    with pytest.raises(ValueError, match=f"cannot read the precision.*{cure}"):
        parse_precision(text)


# Where which dtype is.


def traced(layer, inputs):
    """Outputs, aux and what a derivative keeps, as shapes and dtypes."""

    def pulled(layer, inputs):
        state = layer.initial_state(inputs.shape[1:])
        own = nn.Call(training=True, key=jax.random.key(0))
        call = lambda layer, inputs: layer(inputs, state, own)  # noqa: E731
        outputs, pull, aux = jax.vjp(call, layer, inputs, has_aux=True)
        return outputs, aux, pull

    return jax.eval_shape(pulled, layer, inputs)


SYNAPSES = {"linear", "conv", "sequential"}
FOLLOWING = {"avgpool", "maxpool", "globalavgpool", "flatten", "dropout", "if", "lif", "plif",
             "alif", "cubalif", "grouped", "groupnorm", "layernorm", "batchnorm",
             "batchnorm_step", "batchnorm_frozen", "recurrent", "srm", "delay",
             "delayed_linear"}  # fmt: skip
WIDE = {"li", "coupledlif", "shared", "residual", "stacked", "sigma_delta", "integrator"}


def test_every_layer_is_one_of_three_kinds():
    assert set(LAYERS) == SYNAPSES | FOLLOWING | WIDE


@pytest.mark.parametrize("name", LAYERS)
def test_the_dtype_of_outputs_and_states(name):
    """Synapses give two bytes, what follows the dtype that comes, sums and membranes float32."""
    make, shape = LAYERS[name]
    layer = with_precision(make(), BF16)
    for dtype in (jnp.float32, jnp.bfloat16):
        outputs, aux, _ = traced(layer, sequence(shape).astype(dtype))
        kinds = {**dict.fromkeys(SYNAPSES, jnp.bfloat16), **dict.fromkeys(WIDE, jnp.float32)}
        assert outputs.dtype == kinds.get(name, dtype)
        arrays = jax.tree.leaves(aux._replace(diagnostics={}))
        assert all(leaf.dtype == jnp.float32 for leaf in arrays)


def networks():
    """Kernels in two bytes are so in every layer alike; no format depends on the order."""
    other = "compute=float16, params=bfloat16"
    for name in NETWORKS:
        yield pytest.param(name, "bfloat16", marks=pytest.mark.slow if "time" in name else ())
        yield pytest.param(name, other, marks=() if name == "recurrent" else pytest.mark.slow)


@pytest.mark.parametrize(("name", "text"), list(networks()))
def test_a_network_has_float32_outputs_and_gradients_like_its_parameters(name, text):
    plain = NETWORKS[name]()
    network = with_precision(plain, parse_precision(text))

    def loss(network, inputs):
        outputs, aux = network(
            inputs, network.initial_state(2), training=True, key=jax.random.key(0)
        )
        return outputs.sum(), (outputs, aux)

    gradients, seen = jax.eval_shape(
        jax.grad(loss, has_aux=True), network, jax.eval_shape(inputs_of, network)
    )
    floats = [leaf for leaf in jax.tree.leaves(seen) if leaf.dtype != bool]  # without marks of NaN
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert [g.dtype for g in jax.tree.leaves(gradients)] == [
        p.dtype for p in jax.tree.leaves(network)
    ]
    for path, leaf in jax.tree_util.tree_leaves_with_path(network):
        kernel = "kernel" in str(path) or "weights" in str(path)
        assert leaf.dtype == ("bfloat16" if "params" in text and kernel else "float32"), path
    kept = [id(leaf) for leaf in jax.tree.leaves(network)]
    assert "params" in text or kept == [id(leaf) for leaf in jax.tree.leaves(plain)]


def test_float32_changes_nothing_and_takes_it_back():
    plain = NETWORKS["recurrent"]()
    narrowed = with_precision(plain, BF16)
    assert nnx.graphdef(with_precision(plain, Precision())) == nnx.graphdef(plain)
    assert nnx.graphdef(narrowed) != nnx.graphdef(plain)
    assert nnx.graphdef(with_precision(narrowed, Precision())) == nnx.graphdef(plain)


def test_whole_numbers_stay_float32():
    shared = with_precision(nn.SharedScale(nn.Conv(2, 3, rngs=nnx.Rngs(0))), BF16)
    sub_bit = with_precision(nn.SubBitConv(2, 3, bits_per_kernel=4, rngs=nnx.Rngs(0)), BF16)
    spikes = jax.random.bernoulli(jax.random.key(0), 0.5, (3, *SPACE)).astype(jnp.float32)
    for layer in (shared, sub_bit):
        assert traced(layer, spikes)[0].dtype == jnp.float32
    narrow, _ = shared(
        spikes.astype(jnp.bfloat16), shared.initial_state(SPACE), nn.Call(training=False)
    )
    wide, _ = shared(spikes, shared.initial_state(SPACE), nn.Call(training=False))
    np.testing.assert_array_equal(narrow.astype(jnp.float32), wide)


def test_taps_are_float32_and_rates_those_of_the_spikes():
    layer = with_precision(nn.Sequential(nn.Linear(6, 5, rngs=nnx.Rngs(0)), nn.LIF()), BF16)
    inputs, state = sequence(FLAT), layer.initial_state(FLAT)
    taps = ("spikes", "currents", "membrane", "rates", "operations")
    outputs, aux = layer(inputs, state, nn.Call(training=False, taps=taps))
    seen = aux.taps["lif1"]
    assert outputs.dtype == jnp.bfloat16
    assert {seen[kind].dtype for kind in taps[:4]} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(seen["spikes"], outputs.astype(jnp.float32))
    np.testing.assert_allclose(seen["rates"], np.asarray(seen["spikes"]).mean(-1), rtol=1e-6)
    plain = nn.Sequential(nn.Linear(6, 5, rngs=nnx.Rngs(0)), nn.LIF())
    counted = plain(inputs, state, nn.Call(training=False, taps=("operations",)))[1].taps
    assert_equal(aux.taps["linear0"]["operations"], counted["linear0"]["operations"])


# The laws under a policy.

LAWS = {
    "reversible": "depth=reverse, pack=True",
    "averaging": "time=reverse",
    "recurrent": "time=recompute(2), depth=recompute(1), pack=True",
    "vgg": "depth=recompute(sqrt), pack=True",
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(
            name,
            text,
            # Of these networks the one that compiles fastest.
            marks=() if (name, text) == ("recurrent", "bfloat16") else pytest.mark.slow,
        )
        for name in LAWS
        for text in ("bfloat16", "float16")
    ],
)
def test_a_strategy_changes_nothing_under_a_precision(name, text):
    """Law 1: outputs, states and statistics bit for bit, gradients as in float32."""
    network = with_precision(NETWORKS[name](), parse_precision(text))
    wanted, seen = run(network)
    found, again = run(nn.with_memory(network, memory.parse_strategy(LAWS[name])))
    assert_equal(again, seen)
    assert_close(found, wanted, 1e-6)
    assert all(np.isfinite(g).all() for g in found)


@functools.cache
def linear_net(text):
    """A net without thresholds, so that a rounding stays one."""
    body = nn.Sequential(
        nn.Conv(2, 8, rngs=nnx.Rngs(0)), nn.BatchNorm(8), nn.LI(),
        nn.Conv(8, 8, rngs=nnx.Rngs(1), use_bias=True), nn.GlobalAvgPool(),
        nn.Linear(8, 3, rngs=nnx.Rngs(2)), nn.LI(),
    )  # fmt: skip
    return with_precision(nn.Network(body, (6, 6, 2)), parse_precision(text))


@pytest.mark.parametrize(("text", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_values_differ_by_the_rounding_only(text, bits):
    wanted, (outputs, _) = run(linear_net("float32"))
    found, (narrow, _) = run(linear_net(text))
    assert_close(narrow, outputs, 8 * 2.0**-bits)
    assert_close(found, wanted, 32 * 2.0**-bits)
    difference = np.abs(np.asarray(narrow) - np.asarray(outputs)).max()
    assert difference > 0  # else nothing was narrowed


# Bytes.


def kept_bytes(layer, inputs):
    """Of what a derivative keeps, without parameters and inputs (fact: nothing is run)."""
    own = {(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves((layer, inputs))}
    kept = [leaf for leaf in jax.tree.leaves(traced(layer, inputs)[2]) if hasattr(leaf, "dtype")]
    return sum(x.size * x.dtype.itemsize for x in kept if (x.shape, x.dtype) not in own)


def test_a_derivative_keeps_two_bytes_of_inputs_of_synapses_and_norms():
    """Of LIF, convolution and batch norm: 2 + 2 instead of 4 + 4, and 4 of the membrane.

    Two thirds, but for the membranes before the first timestep.
    """
    half = lambda n: [nn.Conv(n, 8, rngs=nnx.Rngs(n)), nn.BatchNorm(8), nn.LIF()]  # noqa: E731
    body = nn.Sequential(*half(2), *half(8), *half(8))
    inputs = jax.ShapeDtypeStruct((8, 2, 16, 16, 2), jnp.float32)
    wide, narrow = (kept_bytes(with_precision(body, p), inputs) for p in (Precision(), BF16))
    assert narrow < 0.7 * wide, narrow / wide
