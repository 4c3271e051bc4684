"""Sub-bit convolution: a drop-in for a convolution, trained by gradient and rule, kept in bits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import memory, nn, training
from snnjax.nn import sub_bit_conv
from snnjax.quantization import sub_bit, sub_bit_lookup
from tests.compare import assert_close, assert_equal
from tests.nn.layers import SPACE, B, T, call, leaves, rngs, run, sequence, weighted


def layer(tau=3, **options):
    return nn.SubBitConv(2, 4, bits_per_kernel=tau, rngs=rngs(), **options)


# Eagerly, each operation would be compiled by itself.
called = jax.jit(call, static_argnames="taps")
stored = jax.jit(nn.with_stored_kernels)


def spikes(*shape, seed=3):
    return jnp.asarray(np.random.default_rng(seed).random(shape) < 0.4, jnp.float32)


def twin(layer):
    """A convolution whose float kernel is the scaled binary one."""
    module = layer.function
    scale = sub_bit.output_scale(sub_bit.split_kernels(module.kernel[...]))
    conv = nn.Conv(2, 4, strides=module.strides, use_bias=True, rngs=rngs())
    conv.function.kernel = nnx.Param(module.signs() * scale)
    return conv


@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"padding": "VALID"}, {"use_bias": True}])
def test_it_takes_the_place_of_a_convolution(options):
    ours, conv = layer(**options), nn.Conv(2, 4, rngs=rngs(), **options)
    found, expected = (jax.eval_shape(call, one, sequence(SPACE)) for one in (ours, conv))
    assert found == expected and found[1] == nn.Aux()
    assert ours.initial_state(SPACE) == nn.State()
    assert isinstance(ours.function, type(conv.function))  # strategies cut and pack in front of it


def test_values_and_input_gradients_are_those_of_the_scaled_binary_kernel():
    ours = layer(strides=2, use_bias=True)
    found, expected = run(ours, sequence(SPACE)), run(twin(ours), sequence(SPACE))
    assert_close(found.outputs, expected.outputs, 1e-5)
    assert_close(found.gradients[1], expected.gradients[1], 1e-5)
    bias = lambda run: run.gradients[0].function.bias[...]  # noqa: E731
    assert_close(bias(found), bias(expected), 1e-5)
    # The latent kernel has the gradient of the binary one, which is the twin's times the scale.
    module = ours.function
    scale = sub_bit.output_scale(sub_bit.split_kernels(module.kernel[...]))
    through = jnp.where(jnp.abs(module.kernel[...]) <= 1, scale, 0)
    to_twin = expected.gradients[0].function.kernel[...]
    assert_close(found.gradients[0].function.kernel[...], to_twin * through, 1e-5)
    numbers = sub_bit.nearest_pattern(
        sub_bit.split_kernels(module.kernel[...]), module.codebook().memory
    )
    moved = found.gradients[0].function.learned["codebook"].get_value()
    rows = np.zeros((8, 9))
    np.add.at(
        rows, np.asarray(numbers), np.asarray(sub_bit.split_kernels(to_twin * scale), np.float64)
    )
    assert_close(moved.latent, rows, 1e-5)
    np.testing.assert_array_equal(moved.memory, 0)


def test_parameters_and_constants():
    def sizes(layer):
        graphdef, params, rest = nn.split(layer)
        del graphdef
        return [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, rest)]

    assert sizes(layer(3)) == [72 + 2 * 72, 0]
    assert sizes(layer(3, learn_codebook=False)) == [72, 2 * 72]
    assert sizes(layer(9, use_bias=True)) == [72 + 4, 2 * 512 * 9]  # nothing to choose
    gradient = run(layer(3, learn_codebook=False), sequence(SPACE)).gradients[0].function
    np.testing.assert_array_equal(gradient.constants["codebook"].get_value().latent, 0)
    assert_equal(layer(), layer())
    assert jax.tree.structure(layer()) == jax.tree.structure(layer())
    with pytest.raises(ValueError, match="1 to 9 bits"):
        layer(0)


def test_weight_decay_pulls_on_latent_kernels_alone():
    _, params, _ = nn.split(layer(use_bias=True))
    marks = training.optimizer.decay_mask(params)["function"]
    found = (marks["kernel"], marks["bias"], marks["learned"]["codebook"])
    assert jax.tree.leaves(found) == [True, False, False, False]


def test_nine_bits_are_a_binary_convolution():
    signs = jax.jit(lambda module: module.signs())
    module = layer(9).function
    np.testing.assert_array_equal(signs(module), np.where(module.kernel[...] > 0, 1, -1))
    few = sub_bit.split_kernels(signs(layer(2).function)).reshape(-1, 9)
    assert 1 < len(np.unique(few, axis=0)) <= 4  # of 8 kernels


def test_currents_of_spikes_are_whole_numbers_times_the_scale():
    ours = layer()
    inputs = spikes(T, *SPACE)
    outputs, _ = called(ours, inputs)
    kept = stored(ours).function.kernels

    @jax.jit
    def looked_up(inputs, kept):
        codes = sub_bit_lookup.patch_codes(inputs.reshape(-1, *SPACE[1:]))
        counts = sub_bit_lookup.lookup_counts(codes, kept)
        return counts.astype(jnp.float32) * kept.scale

    np.testing.assert_array_equal(outputs, looked_up(inputs, kept).reshape(outputs.shape))


def test_operations_are_those_of_a_convolution():
    inputs = spikes(T, *SPACE)
    (found,), (expected,) = (
        called(one, inputs, taps=("operations",))[1].taps[""].values()
        for one in (layer(strides=2), nn.Conv(2, 4, strides=2, rngs=rngs()))
    )
    assert_equal(found, expected)
    _, aux = called(stored(layer(strides=2)), inputs, taps=("operations",))
    assert_equal(aux.taps[""]["operations"], expected)


def network(tau=4, *, norm=nn.BatchNorm, pack=False, order="layer", **options):
    r = rngs()
    conv = functools.partial(nn.SubBitConv, bits_per_kernel=tau, rngs=r, pack=pack, **options)
    parts = [nn.Conv(1, 3, rngs=r), norm(3), nn.LIF(), conv(3, 4), norm(4), nn.LIF()]
    return nn.Network(
        nn.Sequential(*parts, nn.Flatten(), nn.Linear(36 * 4, 3, rngs=r)), (6, 6, 1), order=order
    )


IMAGES = sequence((B, 6, 6, 1))


@functools.partial(jax.jit, static_argnames="training")
def graded(net, inputs, *, training=True):
    def total(net):
        outputs, aux = net(inputs, net.initial_state(B), training=training, key=jax.random.key(0))
        return weighted(outputs), (outputs, aux)

    return jax.value_and_grad(total, has_aux=True)(net)


@pytest.mark.slow  # strategies see a convolution, as the first test of this file says
def test_a_strategy_changes_no_value():
    strategy = memory.Strategy(time=memory.recompute(2), depth=memory.recompute(1), pack=True)
    plain = network()
    (_, (outputs, _)), expected = graded(plain, IMAGES)
    (_, (found, _)), gradient = graded(nn.with_memory(plain, strategy), IMAGES)
    np.testing.assert_array_equal(found, outputs)
    for a, b in zip(leaves(gradient), leaves(expected), strict=True):
        assert_close(a, b, 1e-5)


@pytest.mark.slow
def test_both_orders_are_the_same_function():
    step = functools.partial(nn.BatchNorm, over="step")
    one, other = (network(norm=step, order=order) for order in ("layer", "time"))
    (_, (outputs, _)), gradient = graded(one, IMAGES)
    (_, (found, _)), other_gradient = graded(other, IMAGES)
    assert_close(found, outputs, 1e-5)
    for a, b in zip(leaves(other_gradient), leaves(gradient), strict=True):
        assert_close(a, b, 1e-4)


def test_training_moves_latent_kernels_and_patterns_and_evaluation_nothing():
    net = network(tau=2, learn_codebook=True)
    rule = sub_bit.with_refinement(optax.adam(0.3), key=jax.random.key(1), every=2)
    graphdef, params, rest = nn.split(net)
    before, state, losses = params, rule.init(params), []

    @jax.jit
    def step(params, state):
        net = nn.merge(graphdef, params, rest)
        (loss, _), gradient = graded(net, IMAGES)
        with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
            updates, state = rule.update(nnx.state(gradient, nnx.Param), state, params)
        return optax.apply_updates(params, updates), state, loss

    for _ in range(12):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    module, trained = (
        nn.merge(graphdef, p, rest).body.layers[3].function for p in (before, params)
    )
    patterns = [np.asarray(sub_bit.encode_patterns(m.codebook().memory)) for m in (module, trained)]
    assert (patterns[0] != patterns[1]).any() and len(set(patterns[1].tolist())) == 4
    assert (trained.kernel[...] != module.kernel[...]).any()
    assert np.abs(trained.codebook().latent).max() <= 3
    after = nn.merge(graphdef, params, rest)
    kept = leaves(after)
    graded(after, IMAGES, training=False)
    for a, b in zip(leaves(after), kept, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stored_network_gives_the_same_bits():
    net = network(tau=5, use_bias=True)
    kept = stored(net)
    run = jax.jit(lambda net, x: net(x, net.initial_state(B), training=False, taps=("spikes",)))
    (outputs, aux), (found, other) = run(net, IMAGES), run(kept, IMAGES)
    np.testing.assert_array_equal(found, outputs)
    assert_equal(other.taps, aux.taps)
    assert any(taps["spikes"].any() for taps in aux.taps.values())
    kernels = kept.body.layers[3].function.kernels
    assert kernels.nbytes == 8 + 36 + 16  # 12 numbers of 5 bits
    assert isinstance(net.body.layers[3].function, sub_bit_conv.SubBitKernel)  # as it was


@pytest.mark.slow
def test_stacked_blocks_are_stored_one_by_one():
    def block(r):
        conv = nn.SubBitConv(2, 2, bits_per_kernel=2, rngs=r)
        return nn.Sequential(conv, nn.GroupNorm(2, 1, rngs=r), nn.LIF())

    stack = nn.Stacked(block, 3, rngs=rngs())
    kept, inputs = stored(stack), spikes(T, *SPACE)
    outputs, _ = called(stack, inputs)
    np.testing.assert_array_equal(called(kept, inputs)[0], outputs)
    kernels = kept.blocks.layers[0].function.kernels
    assert kernels.nbytes == 3 * (1 + 5 + 8)
    assert outputs.any()


def test_it_computes_in_the_type_of_its_inputs():
    outputs, _ = called(layer(use_bias=True), spikes(T, *SPACE).astype(jnp.bfloat16))
    assert outputs.dtype == jnp.bfloat16
    assert_close(outputs.astype(jnp.float32), called(layer(), spikes(T, *SPACE))[0], 0.02)
