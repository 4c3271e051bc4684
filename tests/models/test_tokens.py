"""Tokenizer, MLP and neuron of the spiking transformers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, neurons, nn, surrogate
from snnjax.models.tokens import as_tokens, mlp_branch, tau_lif, tokenizer


def make(shape, width, pools, neuron=tau_lif):
    layers = tokenizer(
        shape, width, pools=pools, neuron=neuron, norm=nn.BatchNorm, rngs=nnx.Rngs(0)
    )
    return nn.Network(nn.Sequential(*layers), shape)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("size", "width", "pools", "tokens"), [(32, 384, 2, 64), (128, 256, 4, 64), (28, 16, 2, 49)]
)
def test_images_become_tokens(size, width, pools, tokens):
    def outputs():
        net = make((size, size, 2), width, pools)
        return net(jnp.zeros((3, 2, size, size, 2)), net.initial_state(2), training=False)[0]

    assert jax.eval_shape(outputs).shape == (3, 2, tokens, width)


@pytest.mark.fast
@pytest.mark.parametrize(("pools", "before"), [(0, []), (2, [3, 4]), (4, [1, 2, 3, 4])])
def test_where_it_pools(pools, before):
    """Neuron, pool, convolution: pooled are spikes."""
    net = jax.eval_shape(lambda: make((16, 16, 3), 8, pools))
    names, convolutions = [layer.name for layer in net.body.layers], []
    for i, name in enumerate(names):
        if name == "conv":
            convolutions.append(names[i - 1] if i else None)
            if names[i - 1] == "maxpool":
                assert names[i - 2] == "lif"
    assert [i for i, name in enumerate(convolutions) if name == "maxpool"] == before
    assert convolutions[0] is None
    assert names[-3:] == ["conv", "batchnorm", "tokens"]
    widths = [layer.function.kernel.shape[-1] for layer in net.body.layers if layer.name == "conv"]
    assert widths == [1, 2, 4, 8, 8]


def test_tokens_are_places_in_reading_order():
    images = jnp.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(as_tokens(images)[:, 6], images[:, 1, 2])


@pytest.mark.fast
@pytest.mark.parametrize("tau", [2.0, 1.5])
def test_the_neuron_of_the_papers(tau):
    """`h = v + (x - v) / tau`, hard reset without a gradient, sigmoid of slope 4."""
    x = jnp.asarray([[1.3], [1.3], [1.3], [4.0], [1.3]])
    layer = tau_lif(tau=tau)
    outputs, _ = layer(x, layer.initial_state((1,)), nn.Call(training=True))
    v, expected = 0.0, []
    for current in np.asarray(x)[:, 0]:
        h = v + (current - v) / tau
        expected.append(float(h >= 1))
        v = 0.0 if h >= 1 else h
    assert outputs[:, 0].tolist() == expected
    assert 0 < sum(expected) < 5
    options = dict(layer.model.step.options)
    assert options["reset"] == neurons.reset.detached(neurons.reset.zero)
    assert options["spike"] == surrogate.sigmoid(alpha=4.0)
    assert tau_lif(threshold=0.5).model.params.threshold == 0.5


@pytest.mark.fast
def test_the_mlp_keeps_the_shape_and_its_parameters():
    def branch():
        return mlp_branch(8, expansion=4, neuron=tau_lif, norm=nn.BatchNorm, rngs=nnx.Rngs(0))

    layer = jax.eval_shape(branch)
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.split(layer, nnx.Param, ...)[1])]
    assert sum(sizes) == 2 * 4 * 8 * 8 + 5 * 8 + 2 * 5 * 8  # weights, biases, norms
    assert [layer.name for layer in layer.layers] == ["lif", "linear", "batchnorm"] * 2


@pytest.mark.fast
def test_every_joint_of_it_is_spikes():
    strategy = memory.Strategy(depth=memory.recompute(1), pack=True)
    joints = nn.with_memory(make((8, 8, 2), 8, 2), strategy).body.joints
    assert joints.spikes == (False, True, True, True, True)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: make((8, 8, 2), 12, 2), "divisible by 8"),
        (lambda: make((8, 8, 2), 0, 2), "divisible by 8"),
        (lambda: make((8, 8, 2), 8, 5), "0 to 4 pools"),
        (functools.partial(tau_lif, tau=1.0), "above 1"),
    ],
)
def test_errors_name_the_cure(run, message):
    with pytest.raises(ValueError, match=message):
        run()
