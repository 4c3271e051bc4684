"""Feedback networks and networks of DSR: published sizes, shapes, strategies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import learning, memory, models, nn
from snnjax.models.feedback_net import ALEXNET_F, CIFARNET_F, CONVNET_F
from tests.models.sizes import count

pytestmark = pytest.mark.fast
CIFAR, MNIST = (32, 32, 3), (28, 28, 1)
SIZES = {
    # name: options, weights without biases and norms, neurons with the input
    "64C5s (F64C5), MNIST": (
        {"stages": ((64, 5, 2),), "feedback_kernel": 5}, MNIST, 229_440, 13_328,
    ),
    "400 (F400)": ({"hidden": (400,)}, MNIST, 477_600, 1_184),
    "64C5s (F64C5), N-MNIST": (
        {"stages": ((64, 5, 2),), "feedback_kernel": 5}, (34, 34, 2), 290_560, 20_808,
    ),
    "AlexNet-F": ({"stages": ALEXNET_F}, CIFAR, 3_705_376, 158_720),
    "CIFARNet-F": ({"stages": CIFARNET_F}, CIFAR, 11_832_704, 232_448),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    """Weights and neurons of the README of the released code: 229K, 478K, 291K, 3.7M, 11.8M."""
    options, shape, weights, neurons = SIZES[name]
    make = lambda: models.feedback_net(shape, rngs=nnx.Rngs(0), timesteps=1, **options)  # noqa: E731
    network = jax.eval_shape(make)
    params = jax.tree_util.tree_flatten_with_path(nn.split(network)[1])[0]
    kernels = [leaf.size for path, leaf in params if "kernel" in jax.tree_util.keystr(path)]
    assert sum(kernels) == weights

    def spikes(network, x):
        return network(x, network.initial_state(1), training=False, taps=("spikes",))[1].taps

    taps = jax.eval_shape(spikes, network, jax.ShapeDtypeStruct((1, 1, *shape), jnp.float32))
    sizes = [np.prod(kinds["spikes"].shape[2:]) for kinds in taps.values()]
    assert sum(sizes) + np.prod(shape) == neurons


def preact_count(classes=10, *, large=False):
    """Closed form of PreAct-ResNet-18: a bias, or for large images none, in its convolutions.

    The first one has none, and a norm and neurons of its own for large images, where norms also
    follow the convolutions of shortcuts.
    """
    depth, neurons, bias = 64, int(large), not large
    total = 49 * 3 * 64 + 2 * 64 if large else 9 * 3 * 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for i in range(2):
            total += 2 * depth + 9 * depth * width + 2 * width + 9 * width**2 + 2 * bias * width
            if stage and not i:
                total += depth * width + (1 if bias else 2) * width
            depth, neurons = width, neurons + 2
    return total + 2 * depth + depth * classes + classes + 2 * classes + neurons + 3


def test_dsr_resnet_size():
    make = lambda: models.dsr_resnet(rngs=nnx.Rngs(0))  # noqa: E731
    assert count(make) == preact_count() == 11_176_945
    make = lambda: models.dsr_resnet(  # noqa: E731
        classes=1000, input_shape=(224, 224, 3), large=True, rngs=nnx.Rngs(0)
    )
    assert count(make) == preact_count(1000, large=True)


def test_dsr_vgg_size():
    """Convolutions with biases, norms, thresholds, and 512 inputs of the last layer."""
    widths = (64, 128, 256, 256, 512, 512, 512, 512)
    pairs = zip((2, *widths), widths, strict=False)
    expected = sum(9 * a * b + 3 * b + 1 for a, b in pairs) + 512 * 10 + 10 + 20 + 1
    assert count(lambda: models.dsr_vgg(rngs=nnx.Rngs(0))) == expected


def often():
    """Neurons that fire within a few timesteps of small currents, such as means over space."""
    return learning.RateNeuron(learning.dsr_if_model(threshold=0.5), learn=("threshold",))


DSR = {
    "resnet": lambda **o: models.dsr_resnet(
        widths=(4, 6), blocks=(1, 1), input_shape=(8, 8, 3), **o
    ),
    "vgg": lambda **o: models.dsr_vgg(stages=((4,), (6,)), input_shape=(8, 8, 2), **o),
    "resnet, large": lambda **o: models.dsr_resnet(
        widths=(4, 6), blocks=(1, 1), input_shape=(16, 16, 3), large=True, neuron=often, **o
    ),
}


# The neurons hold the derivative, and the ResNet contains every layer of the others but pools.
@pytest.mark.parametrize(
    "name",
    [name if name == "resnet" else pytest.param(name, marks=pytest.mark.slow) for name in DSR],
)
def test_dsr_networks_run_and_differ_from_backpropagation_through_time(name):
    network = jax.jit(lambda: DSR[name](classes=3, rngs=nnx.Rngs(0)))()
    assert not nn.contract.is_exact(network)
    x = np.random.default_rng(0).normal(size=(5, 4, *network.input_shape)).astype(np.float32)

    @jax.jit
    def gradient(network, x):
        def loss(network):
            state, key = network.initial_state(4), jax.random.key(1)
            outputs, _ = network(x, state, training=True, key=key)
            return jnp.sum(outputs.mean(0) ** 2), outputs

        return jax.grad(loss, has_aux=True)(network)

    grads, outputs = gradient(network, x)
    assert outputs.shape == (5, 4, 3)
    through = nn.with_memory(network, memory.Strategy(time=memory.store))
    assert nn.contract.is_exact(through)
    other, same = gradient(through, x)
    np.testing.assert_array_equal(outputs, same)
    kernels = [jax.tree.leaves(g.body.layers[0])[0] for g in (grads, other)]
    assert not np.allclose(*kernels, rtol=1e-3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("rule", "frames"),
    # Frames enter the simulation alike under both rules.
    [
        ("IDE", 1),
        pytest.param("IDE", 4, marks=pytest.mark.slow),
        ("SPIDE", 1),
        pytest.param("SPIDE", 4, marks=pytest.mark.slow),
    ],
)
def test_feedback_nets_train_from_images_and_from_frames(rule, frames):
    options = {"inner": "rates", "solver": learning.solvers.spiking_ternary(timesteps=5)}
    options |= {"norm": None, "bound": learning.Frobenius}
    make = lambda: models.feedback_net(  # noqa: E731
        (8, 8, 2), stages=((4, 3, 2), (6, 3, 2)), classes=3, timesteps=4, rngs=nnx.Rngs(0),
        **(options if rule == "SPIDE" else {}),
    )  # fmt: skip
    network = jax.jit(make)()

    @jax.jit
    def gradient(network, x):
        def loss(network):
            state = network.initial_state(5)
            outputs, aux = network(x, state, training=True, key=jax.random.key(1))
            return jnp.sum(outputs[0] * jnp.arange(15.0).reshape(5, 3)), (outputs, aux)

        return jax.grad(loss, has_aux=True)(network)

    def evaluated(network, x, statistics):
        return network(x, network.initial_state(5, statistics=statistics), training=False)[0]

    x = np.random.default_rng(0).normal(size=(frames, 5, 8, 8, 2)).astype(np.float32)
    grads, (outputs, aux) = gradient(network, x)
    assert outputs.shape == (1, 5, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(nn.split(grads)[1]))
    # Evaluation takes the statistics that training left.
    shape = jax.eval_shape(evaluated, network, x, aux.statistics).shape
    assert shape == outputs.shape


def test_the_feedback_starts_from_its_own_draw():
    """Zeros in the feedback alone, of a convolution and of a transposed one."""
    init = lambda key, shape, dtype: jnp.zeros(shape, dtype)  # noqa: E731
    for stride in (1, 2):
        network = jax.jit(lambda stride: models.feedback_net(
            (8, 8, 2), stages=((4, 3, 2), (6, 3, stride)), bound=learning.Frobenius,
            feedback_init=init, rngs=nnx.Rngs(0),
        ), static_argnums=0)(stride)  # fmt: skip
        leaves = jax.tree_util.tree_leaves_with_path(nn.split(network)[1])
        kernels = {jax.tree_util.keystr(p): x for p, x in leaves if "kernel" in str(p)}
        assert [name for name in kernels if not kernels[name].any()] == [
            name for name in kernels if "feedback" in name
        ] and len(kernels) == 4


def test_one_kind_of_maps():
    for options in ({}, {"hidden": (4,), "stages": CONVNET_F}):
        with pytest.raises(ValueError, match="give stages"):
            models.feedback_net((8, 8, 1), rngs=nnx.Rngs(0), **options)
