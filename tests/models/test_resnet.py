"""ResNet and VGG of conversions: parameter counts, strategies, conversion to rates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import conversion, memory, models, nn
from snnjax.models.vgg import VGG16, VGG16_POINTWISE
from tests.conversion.sources import logits
from tests.models.sizes import count

SHAPE = (8, 8, 1)


def resnet_count(depth, classes):
    """Kernels, two numbers per channel of a norm, one linear layer."""
    widths, blocks = {
        18: ((64, 128, 256, 512), (2, 2, 2, 2)),
        20: ((16, 32, 64), (3, 3, 3)),
        34: ((64, 128, 256, 512), (3, 4, 6, 3)),
    }[depth]
    conv = lambda a, b, kernel: kernel * kernel * a * b + 2 * b  # noqa: E731
    total, before = conv(3, widths[0], 3), widths[0]
    for width, number in zip(widths, blocks, strict=True):
        total += conv(before, width, 3) + (2 * number - 1) * conv(width, width, 3)
        total += conv(before, width, 1) if before != width else 0
        before = width
    return total + before * classes + classes


@pytest.mark.fast
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("depth", [18, 20, 34])
def test_resnet_parameters(depth, classes):
    make = lambda: models.resnet(depth=depth, classes=classes, rngs=nnx.Rngs(0))  # noqa: E731
    assert count(make) == resnet_count(depth, classes)


@pytest.mark.fast
@pytest.mark.parametrize(("depth", "expected"), [(18, 11_689_512), (34, 21_797_672)])
def test_resnet_parameters_for_large_images(depth, expected):
    """As published for ImageNet; a pool has no parameters, whether of maxima or of means."""
    options = {"depth": depth, "classes": 1000, "input_shape": (224, 224, 3), "stem": "large"}
    assert count(lambda: models.resnet(**options, rngs=nnx.Rngs(0))) == expected


@pytest.mark.fast
def test_parameters_of_the_networks_of_optimal_conversion():
    """Deng and Gu 2021, as released: kernels alone, and VGG-16 with biases."""
    make = lambda: models.resnet(  # noqa: E731
        stem="three", norm=None, bias=False, flatten=True, dropout=0.2, rngs=nnx.Rngs(0)
    )
    kernels = 9 * (3 * 64 + 2 * 64 * 64)
    for before, width in ((64, 64), (64, 128), (128, 256), (256, 512)):
        kernels += 9 * (before * width + 3 * width * width)
        kernels += before * width if before != width else 0
    # Three strides and the pool of the stem halve 32 pixels to 2.
    assert count(make) == kernels + 512 * 2 * 2 * 10
    make = lambda: models.vgg(  # noqa: E731
        stages=VGG16_POINTWISE, norm=None, flatten=True, hidden=(4096, 4096), rngs=nnx.Rngs(0)
    )
    total, before = 0, 3
    for stage in VGG16:
        for at, width in enumerate(stage):
            total += (1 if at == 2 else 9) * before * width + width
            before = width
    sizes = (512 * 2 * 2, 4096, 4096, 10)
    total += sum(a * b + b for a, b in zip(sizes, sizes[1:], strict=False))
    assert count(make) == total


@pytest.mark.fast
def test_parameters_of_the_vgg_of_qcfs():
    """Batch norm, two hidden layers behind a mean, and one threshold per activation."""
    make = lambda: models.vgg(  # noqa: E731
        neuron=conversion.QCFS, pool=nn.AvgPool, hidden=(4096, 4096), rngs=nnx.Rngs(0)
    )
    plain = count(lambda: models.vgg(rngs=nnx.Rngs(0))) - (512 * 10 + 10)
    sizes = (512, 4096, 4096, 10)
    head = sum(a * b + b for a, b in zip(sizes, sizes[1:], strict=False))
    assert count(make) == plain + head + 15


SOURCES = {
    "resnet": functools.partial(
        models.resnet, widths=(4, 6), blocks=(2, 2), classes=5, dropout=0.3
    ),
    "resnet, no norm": functools.partial(
        models.resnet, widths=(4, 6), blocks=(1, 1), stem="three", norm=None, bias=False,
        flatten=True, classes=5,
    ),
    "vgg": functools.partial(
        models.vgg, stages=((4,), (6, (5, 1))), hidden=(7,), norm=None, flatten=True,
        pool=nn.AvgPool, classes=5, dropout=0.3,
    ),
}  # fmt: skip


# The smaller two have all layers but the norms, which tests/conversion/test_spiking.py folds.
@pytest.mark.parametrize(
    "name", [pytest.param("resnet", marks=pytest.mark.slow), "resnet, no norm", "vgg"]
)
def test_rates_approach_the_source(name):
    """With identical and projected shortcuts, stacked blocks, hidden layers, without norms."""
    net = SOURCES[name](input_shape=SHAPE, neuron=conversion.ReLU, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(3, *SHAPE)), jnp.float32)
    rng = np.random.default_rng(1)
    statistics = jax.tree.map(
        lambda a: a + jnp.asarray(rng.uniform(0.1, 0.5, a.shape), a.dtype),
        net.initial_state(1).statistics,
    )
    thresholds = conversion.calibrate(net, [x], statistics=statistics)
    spiking = conversion.to_spiking(net, thresholds=thresholds, statistics=statistics)
    expected = logits(net, x, statistics)
    found = conversion.mean_outputs(spiking, x, timesteps=(32, 512))
    few, many = (float(np.abs(y - expected).mean()) for y in found.values())
    assert many < 0.02 * float(np.abs(expected).mean()) and many < few / 4, (few, many)


@functools.cache
def gradient(strategy):
    """Outputs and gradient of a spiking ResNet."""
    net = models.resnet(
        widths=(4, 6), blocks=(2, 1), classes=5, input_shape=SHAPE, rngs=nnx.Rngs(0),
        neuron=nn.IF, norm=functools.partial(nn.BatchNorm, over="step"), memory=strategy,
    )  # fmt: skip
    x = jax.random.uniform(jax.random.key(1), (3, 4, *SHAPE))

    def loss(net):
        outputs, _ = net(x, net.initial_state(4), training=True)
        return jnp.mean(outputs**2), outputs

    (_, outputs), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(net)
    return outputs, found


@pytest.mark.slow  # tests/nn/test_strategy.py has the same of a smaller network, bit for bit
@pytest.mark.parametrize(
    "strategy",
    [
        memory.Strategy(time=memory.reversal()),
        memory.Strategy(depth=memory.recompute(every=1), pack=True),
    ],
    ids=["reversal", "depth, packed"],
)
def test_spiking_resnets_reverse_and_pack(strategy):
    """Recomputation over time and both orders: tests/models/test_models.py."""
    outputs, expected = gradient(None)
    again, found = gradient(strategy)
    assert outputs.shape == (3, 4, 5)
    np.testing.assert_allclose(again, outputs, rtol=1e-5, atol=1e-6)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * float(jnp.abs(want).max()) + 1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 50}, "resnet knows depths"),
        ({"blocks": (1, 2)}, "do not fit 4 stages"),
        ({"stem": "wide"}, "stem"),
    ],
)
def test_errors_name_the_cure(options, message):
    with pytest.raises(ValueError, match=message):
        models.resnet(**options, rngs=nnx.Rngs(0))
