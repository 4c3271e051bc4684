"""A variable at several places stays one variable under every transformation of a network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import export, memory, nn, quantization, readout, training
from snnjax.export.functions import named_weights
from snnjax.quantization.plans import Kernels
from tests.training import micro

BFLOAT16 = nn.mixed_precision.Precision(compute="bfloat16", params="bfloat16")
FLOAT16 = nn.mixed_precision.Precision(compute="float16")
PLAN = Kernels(quantization.Quantizer(4))


def layer_twice():
    """One linear map, one norm and one layer of neurons, at two places each."""
    r = nnx.Rngs(0)
    linear, norm, neuron = nn.Linear(6, 6, rngs=r), nn.BatchNorm(6), nn.LIF(learn=("decay",))
    body = nn.Sequential(linear, norm, neuron, linear, norm, neuron, nn.Linear(6, 3, rngs=r))
    return nn.Network(body, (6,))


def kernel_twice():
    """Two linear maps with one kernel, and a layer of feedback at two places."""
    r = nnx.Rngs(0)
    first, second = nn.Linear(6, 6, rngs=r), nn.Linear(6, 6, rngs=r)
    second.function.kernel = first.function.kernel
    feedback = nn.Recurrent(nn.LIF(), 6, rngs=r)
    body = nn.Sequential(first, feedback, second, feedback, nn.Linear(6, 3, rngs=r))
    return nn.Network(body, (6,))


def block_twice():
    """One block as both branches of two residual connections, and within stacked blocks."""
    r = nnx.Rngs(0)

    def block(rngs):
        linear = nn.Linear(6, 6, rngs=rngs)
        return nn.Sequential(linear, nn.LIF(), linear)

    once = nn.Residual(block(r), shortcut=None)
    once = nn.Residual(once.branch, shortcut=once.branch)
    stack = nn.Stacked(block, 2, rngs=r)
    reversible = nn.Reversible(lambda s: _half(s), lambda s: _half(s), 2, rngs=r)
    return nn.Network(nn.Sequential(once, once, stack, reversible, nn.Linear(6, 3, rngs=r)), (6,))


def _half(rngs):
    linear = nn.Linear(3, 3, rngs=rngs)
    return nn.Sequential(nn.LIF(), linear, nn.LIF(), linear)


def special_twice():
    """Layers with a transformation of their own, at two places each."""
    r = nnx.Rngs(0)
    conv = nn.SubBitConv(2, 2, bits_per_kernel=3, rngs=r)
    psn = nn.PSN(4, order=2, rngs=r)
    shared = nn.SharedScale(nn.Linear(32, 32, use_bias=False, rngs=r))
    body = nn.Sequential(
        conv, psn, conv, psn, nn.Flatten(), shared, shared, nn.Linear(32, 3, rngs=r)
    )
    return nn.Network(body, (4, 4, 2))


NETWORKS = {f.__name__: f for f in (layer_twice, kernel_twice, block_twice, special_twice)}
TRANSFORMATIONS = {
    "with_precision(float32)": lambda n: nn.with_precision(n, nn.mixed_precision.Precision()),
    "with_precision(bfloat16)": lambda n: nn.with_precision(n, BFLOAT16),
    "with_precision(float16)": lambda n: nn.with_precision(n, FLOAT16),
    "with_memory(depth)": lambda n: nn.with_memory(
        n, memory.Strategy(depth=memory.recompute(1), pack=True)
    ),
    "with_memory(time)": lambda n: nn.with_memory(n, memory.Strategy(time=memory.recompute(2))),
    "with_masking": lambda n: nn.with_masking(n, 0.5),
    "with_stored_kernels": nn.with_stored_kernels,
    "with_data_axes": lambda n: nn.data_parallel.with_data_axes(n, ("data",), norm_groups=1),
    "replace": lambda n: nn.replace(n, body=nn.replace(n.body, layers=n.body.layers)),
    "split and merge": lambda n: nn.merge(*nn.split(n)),
    "quantize": lambda n: quantization.quantize(n, PLAN),
    "store and restore": lambda n: quantization.restore(quantization.store(n, PLAN)),
    "Quantized": lambda n: nn.replace(n, body=nn.Quantized(n.body, PLAN)),
}


def sizes(network):
    """Number of elements of all variables, each counted once."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network)))


def parameters(network):
    return sum(leaf.size for leaf in jax.tree.leaves(nn.split(network)[1]))


def transformed(network, name):
    try:
        return TRANSFORMATIONS[name](network)
    except ValueError as error:
        # A network without the part that a transformation acts on refuses it.
        pytest.skip(str(error))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_the_number_of_parameters_never_changes(make, name):
    network = make()
    places = len(jax.tree.leaves(network))
    new = transformed(network, name)
    if name != "with_stored_kernels":
        assert parameters(new) == parameters(network)
        assert sizes(new) == sizes(network)
    else:
        # The stored form of a kernel at two places is stored once, too.
        assert len(jax.tree.leaves(nnx.state(new))) < len(jax.tree.leaves(new))
        assert sizes(new) <= sizes(network)
    # The case is a real one: places outnumber variables.
    assert len(jax.tree.leaves(nnx.state(network))) < places


def test_the_sample_has_the_parameters_of_one_layer():
    linear = nn.Linear(6, 6, rngs=nnx.Rngs(0))
    network = nn.Network(nn.Sequential(linear, nn.LIF(), linear), (6,))
    assert parameters(network) == 42
    assert parameters(nn.with_precision(network, BFLOAT16)) == 42


def test_a_stack_draws_a_layer_of_its_block_once():
    def block(rngs):
        linear = nn.Linear(6, 6, rngs=rngs)
        return nn.Sequential(linear, nn.LIF(), linear)

    assert parameters(nn.Stacked(block, 3, rngs=nnx.Rngs(0))) == 3 * 42


@pytest.mark.parametrize("name", ["with_precision(bfloat16)", "with_precision(float16)"])
def test_both_places_still_compute_with_the_same_kernel(name):
    network = TRANSFORMATIONS[name](kernel_twice())
    kernels = [network.body.layers[i].function.kernel for i in (0, 2)]
    assert kernels[0] is kernels[1]


def test_layers_that_would_store_one_kernel_in_two_formats_are_refused():
    class Own(nnx.Module):
        def __init__(self, kernel):
            self.kernel = kernel

    linear = nn.Linear(6, 6, rngs=nnx.Rngs(0))
    body = nnx.List([linear, Own(linear.function.kernel)])
    with pytest.raises(ValueError, match="used at several places[^:]*: .*variables of their own"):
        nn.with_precision(body, BFLOAT16)


def test_the_gradient_of_a_tied_layer_is_the_sum_over_its_places():
    network = layer_twice()
    frames = jax.random.normal(jax.random.key(1), (3, 2, 6))

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(graphdef, params, constants):
        def loss(params):
            net = nn.merge(graphdef, params, constants)
            outputs, _ = net(frames, net.initial_state(2), training=True)
            return jnp.sum(jnp.sin(outputs))

        return jax.grad(loss)(params)

    plain = gradient(*nn.split(network))
    strategy = memory.Strategy(depth=memory.recompute(1))
    under = gradient(*nn.split(nn.with_memory(network, strategy)))
    assert jax.tree.structure(plain) == jax.tree.structure(under)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(under), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_weights_of_a_run_fit_a_network_with_a_tied_layer(tmp_path):
    """A training state has one array per variable, and so has a file made of a network."""
    network = layer_twice()
    _, params, constants = nn.split(network)
    path = export.save_weights(tmp_path / "run.safetensors", nnx.merge_state(params, constants))
    other = layer_twice()
    other.body.layers[0].function.kernel = nnx.Param(jnp.zeros((6, 6)))
    loaded = export.load_weights(path, other)
    assert sizes(loaded) == sizes(network)
    first, second = (loaded.body.layers[i].function.kernel for i in (0, 3))
    assert first is second
    np.testing.assert_array_equal(first[...], network.body.layers[0].function.kernel[...])
    direct = export.save_weights(tmp_path / "network.safetensors", network)
    assert direct.read_bytes() == path.read_bytes()


def tied(experiment, rngs):
    linear = nn.Linear(64, 64, rngs=rngs)
    last = nn.Linear(64, 10, rngs=rngs)
    return nn.Network(
        nn.Sequential(nn.Flatten(), linear, nn.LIF(), linear, nn.LIF(), last), (8, 8, 1)
    )


def test_a_tied_layer_stays_one_through_training_resuming_and_export(tmp_path):
    own = dataclasses.replace(micro.config(), network=tied, epochs=1)
    expected = 64 * 64 + 64 + 64 * 10 + 10
    run = training.Run.create(tmp_path / "run", own, "")
    session = training.prepare(own)
    state = training.fit(session, run).state
    resumed = training.fit(training.prepare(own), run).state
    for trained in (state, resumed):
        assert sum(leaf.size for leaf in jax.tree.leaves(trained.params)) == expected
    for a, b in zip(*map(jax.tree.leaves, (state.params, resumed.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    network = session.program.network(resumed)
    first, second = (network.body.layers[i].function.kernel for i in (1, 3))
    assert first is second
    source = export.Source(
        "tied", network, resumed.statistics, lambda x: micro.encode(own, x, None), readout.rate,
        jax.ShapeDtypeStruct((8, 8, 1), np.float32), tuple("0123456789"),
    )  # fmt: skip
    x = session.dataset.test.inputs[:4].astype(np.float32)
    artifact = export.load(export.save(tmp_path / "artifact", source))
    assert sum(x.size for x in named_weights(source).values()) == expected
    frames = micro.encode(own, jnp.asarray(x), None)
    outputs, _ = network(frames, network.initial_state(4), training=False)
    np.testing.assert_allclose(artifact(x), readout.rate(outputs), rtol=1e-5, atol=1e-6)
