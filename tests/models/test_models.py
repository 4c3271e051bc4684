"""The zoo: exact parameter counts, shapes, orders, strategies as arguments."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, models, nn
from snnjax.models.strided_net import ALEXNET, STRIDED_VGG11
from snnjax.models.vgg import VGG11, VGG16
from tests.models.sizes import count

T, B = 3, 4  # two samples normalised per step become -1 and 1: their gradient is all rounding


@pytest.mark.fast
@pytest.mark.parametrize(
    ("depth", "classes", "expected"),
    [
        (18, 10, 11_173_962),
        (18, 100, 11_220_132),
        (34, 10, 21_282_122),
        (34, 100, 21_328_292),
        (104, 10, 76_764_490),
        (104, 100, 76_810_660),
    ],
)
def test_ms_resnet_parameters(depth, classes, expected):
    """Zhang and Zhang 2024, baselines; the counts follow from the layer shapes."""
    make = lambda: models.ms_resnet(depth=depth, classes=classes, rngs=nnx.Rngs(0))  # noqa: E731
    assert count(make) == expected


@pytest.mark.fast
@pytest.mark.parametrize(("classes", "expected"), [(10, 272_330), (11, 272_395)])
def test_ms_resnet_parameters_for_event_frames(classes, expected):
    options = {"depth": 20, "classes": classes, "input_shape": (128, 128, 2)}
    assert count(lambda: models.ms_resnet(**options, rngs=nnx.Rngs(0))) == expected


def vgg_count(stages, classes, channels=3):
    """Kernels, scales and biases of the norms, one linear layer."""
    total = 0
    for width in (w for stage in stages for w in stage):
        total += 9 * channels * width + 2 * width
        channels = width
    return total + channels * classes + classes


@pytest.mark.parametrize("stages", [VGG11, VGG16])
@pytest.mark.parametrize("classes", [10, 100])
def test_vgg_parameters(stages, classes):
    make = lambda: models.vgg(stages=stages, classes=classes, rngs=nnx.Rngs(0))  # noqa: E731
    assert count(make) == vgg_count(stages, classes)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("layers", "hidden", "features"),
    [(ALEXNET, (2048,), 4 * 4 * 256), (STRIDED_VGG11, (4096, 4096), 2 * 2 * 512)],
)
def test_strided_net_parameters(layers, hidden, features):
    """Kernels with scales and biases of norms, and the linear layers' own."""
    channels = [3, *(size for size, _ in layers)]
    expected = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(channels))
    widths = [features, *hidden]
    expected += sum(a * b + 2 * b for a, b in itertools.pairwise(widths)) + 10 * widths[-1] + 10
    make = lambda: models.strided_net(layers=layers, hidden=hidden, rngs=nnx.Rngs(0))  # noqa: E731
    assert count(make) == expected


def test_vgg_with_the_widths_of_efficientlif_net():
    """Kim et al. 2023, baseline of the released code: 15,795,594 and 15,841,764 parameters."""
    stages = ((128, 128), (256, 256), (256, 256, 256), (512,) * 3, (512,) * 3)
    for classes, expected in ((10, 15_795_594), (100, 15_841_764)):
        make = lambda: models.vgg(stages=stages, classes=classes, rngs=nnx.Rngs(0))  # noqa: B023, E731
        assert count(make) == expected


SMALL = {
    "mlp": lambda **options: models.mlp((8, 8, 1), hidden=(6,), classes=5, **options),
    "conv_net": lambda **options: models.conv_net(
        (8, 8, 1), channels=(4, 6), hidden=7, classes=5, dropout=0.2, **options
    ),
    "vgg": lambda **options: models.vgg(
        stages=((4,), (6, 6)), classes=5, input_shape=(8, 8, 1), **options
    ),
    "resnet": lambda **options: models.resnet(
        blocks=(2, 2), widths=(4, 6), classes=5, input_shape=(8, 8, 1), dropout=0.2, **options
    ),
    "ms_resnet": lambda **options: models.ms_resnet(
        blocks=(2, 3), widths=(4, 6), classes=5, input_shape=(8, 8, 1), **options
    ),
}
per_step = functools.partial(nn.BatchNorm, over="step")
X = jax.random.uniform(jax.random.key(1), (T, B, 8, 8, 1))


def gradient(net):
    def loss(net, x, state):
        outputs, aux = net(x, state, training=True, key=jax.random.key(2))
        return jnp.mean(outputs**2), (outputs, aux)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(net, X, net.initial_state(B))


def build(name, **options):
    if name != "mlp":
        options["norm"] = per_step
    return SMALL[name](rngs=nnx.Rngs(0), **options)


replayed = memory.Strategy(time=memory.recompute(every=2))
VARIANTS = {
    "time order": {"order": "time"},
    "recompute": {"memory": replayed},
    "time order, recompute": {"order": "time", "memory": replayed},
    "depth": {"memory": memory.Strategy(depth=memory.recompute(every=1))},
}


def variants():
    """A strategy over time acts on layers that all of these networks have."""
    for name in SMALL:
        for variant, options in VARIANTS.items():
            if variant != "depth" or "resnet" in name:
                # All layers of the VGG but its mean over space are in the convolutional network.
                quick = name == "conv_net" and variant == "time order" or name == "mlp"
                marks = () if quick else pytest.mark.slow
                yield pytest.param(name, options, id=f"{name}-{variant}", marks=marks)


@functools.cache
def as_written(name):
    return gradient(build(name))


@pytest.mark.parametrize(("name", "options"), list(variants()))
def test_orders_and_strategies_are_the_same_function(name, options):
    """With statistics per step, layer order, time order and recomputation agree."""
    (_, (outputs, aux)), expected = as_written(name)
    assert outputs.shape == (T, B, 5)
    (_, (again, aux_again)), gradients = gradient(build(name, **options))
    np.testing.assert_allclose(again, outputs, rtol=1e-5, atol=1e-6)
    leaves = zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True)
    for got, want in leaves:
        np.testing.assert_allclose(got, want, atol=2e-5 * float(jnp.abs(want).max()) + 1e-8)
    for got, want in zip(
        jax.tree.leaves(aux_again.statistics), jax.tree.leaves(aux.statistics), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["vgg", pytest.param("ms_resnet", marks=pytest.mark.slow)])
def test_nets_of_coupled_neurons_walk_back_through_a_hard_reset(name):
    """Zero-Memory nodes as a VGG's and a ResNet's neurons; the membranes are not kept."""
    (_, (outputs, _)), expected = gradient(build(name, neuron=nn.CoupledLIF))
    undone = build(name, neuron=nn.CoupledLIF, memory=memory.Strategy(time=memory.reversal()))
    (_, (again, _)), gradients = gradient(undone)
    np.testing.assert_array_equal(again, outputs)
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        assert float(jnp.abs(want).max()) > 0
        # Three steps undone in float32; `coupled_lif_inverse` says how rounding grows.
        np.testing.assert_allclose(got, want, atol=2e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: models.ms_resnet(depth=50, rngs=r), "knows depths"),
        (lambda r: models.ms_resnet(blocks=(1, 2), rngs=r), "do not fit"),
        (lambda r: models.conv_net((4, 4, 1), channels=(2, 2, 2), rngs=r), "fewer channels"),
        (lambda r: models.vgg(input_shape=(8, 8, 3), rngs=r), "fewer stages"),
        (lambda r: models.efficient_lif_vgg(input_shape=(8, 8, 3), rngs=r), "fewer stages"),
        (lambda r: models.dsr_vgg(input_shape=(24, 24, 2), rngs=r), "fewer stages"),
        (lambda r: models.mlp((4,), order="depth", rngs=r), "order must be"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make(nnx.Rngs(0))
