"""Spike-driven Transformer, Spikformer, SEW-ResNet: parameters; one function under every strategy.

`test_released.py` compares them with the authors' code.
"""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, models, nn
from tests.compare import assert_close, assert_equal
from tests.models.sizes import count
from tests.models.transformers import (
    CLASSES,
    TINY,
    B,
    T,
    assert_gradients,
    frames,
    graded,
    lowest_rate,
    per_step,
)

LARGE = {"classes": 1000, "input_shape": (224, 224, 3), "pools": 4}
SMALL = {"classes": 10, "input_shape": (32, 32, 3), "pools": 2}
DRIVEN = {key: value for key, value in TINY.items() if key != "heads"}
SEW = {
    "widths": (4, 8), "blocks": (2, 1), "classes": CLASSES, "input_shape": TINY["input_shape"],
    "norm": TINY["norm"], "static": False,
}  # fmt: skip
NETWORKS = {
    "driven": functools.partial(models.spike_driven_transformer, depth=2, **DRIVEN),
    "spikformer": functools.partial(models.spikformer, depth=2, **TINY),
    "sew": functools.partial(models.sew_resnet, **SEW),
    "sew and": functools.partial(models.sew_resnet, join="and", **SEW),
    "sew iand": functools.partial(models.sew_resnet, join="iand", **SEW),
}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("depth", "width", "options", "released"),
    [
        (8, 384, LARGE, 16_816_536),
        (6, 512, LARGE, 23_373_736),
        (8, 512, LARGE, 29_689_896),
        (10, 512, LARGE, 36_006_056),
        (8, 768, LARGE, 66_339_144),
        (2, 256, SMALL, 2_567_082),
        (2, 512, SMALL, 10_233_546),
    ],
)
def test_parameters_of_the_spike_driven_transformer(depth, width, options, released):
    """The released code counts 64 unused weights of 8 heads per block."""
    make = functools.partial(models.spike_driven_transformer, depth=depth, width=width, **options)
    assert count(lambda: make(rngs=nnx.Rngs(0))) + 64 * depth == released


@pytest.mark.fast
@pytest.mark.parametrize(
    ("depth", "width", "options", "released"),
    [
        (4, 384, SMALL, 9_330_874),
        (4, 384, SMALL | {"classes": 100}, 9_365_524),
        (2, 384, SMALL, 5_768_122),
        (8, 384, LARGE | {"bias": False}, 16_828_312),
        (8, 512, LARGE | {"bias": False}, 29_705_768),
    ],
)
def test_parameters_of_spikformer(depth, width, options, released):
    """The released code counts two unused layer norms per block."""
    make = functools.partial(models.spikformer, depth=depth, width=width, heads=8, **options)
    assert count(lambda: make(rngs=nnx.Rngs(0))) + 4 * width * depth == released


@pytest.mark.fast
@pytest.mark.parametrize(("depth", "released"), [(18, 11_689_512), (34, 21_797_672)])
def test_parameters_of_sew_resnet(depth, released):
    assert count(lambda: models.sew_resnet(depth=depth, rngs=nnx.Rngs(0))) == released


@functools.cache
def drawn(name):
    # One program draws all parameters.
    return jax.jit(lambda: NETWORKS[name](rngs=nnx.Rngs(0)))()


@functools.cache
def stored(name):
    return graded(drawn(name), frames())


STRATEGIES = ("depth=recompute(1), pack=True", "time=recompute(2)", "pack=True")


# Each case is a program of ten seconds; the packed mask is compared in tests/nn/test_attention.py.
@pytest.mark.slow
@pytest.mark.parametrize("text", STRATEGIES)
@pytest.mark.parametrize("name", list(NETWORKS))
def test_strategies_are_the_same_function(name, text):
    net = nn.with_memory(drawn(name), memory.parse_strategy(text))
    ((_, (outputs, aux)), gradients), ((_, (expected, known)), wanted) = (
        graded(net, frames()),
        stored(name),
    )
    assert outputs.shape == (T, B, CLASSES)
    assert_equal(outputs, expected)
    assert_close(aux.statistics, known.statistics, 1.5e-7)
    assert_gradients(gradients, wanted, 1e-5)


@pytest.mark.slow  # two more programs per network
@pytest.mark.parametrize("name", list(NETWORKS))
def test_orders_are_the_same_function(name):
    runs = [
        graded(
            jax.jit(lambda o=order: NETWORKS[name](norm=per_step, order=o, rngs=nnx.Rngs(0)))(),
            frames(),
        )
        for order in ("layer", "time")
    ]
    ((_, (outputs, _)), gradients), ((_, (again, _)), others) = runs
    assert_close(again, outputs, 1e-5)
    assert_gradients(others, gradients, 2e-5)


@pytest.mark.slow  # one more program per network
@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_neuron_takes_part(name):
    assert lowest_rate(drawn(name), frames()) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "largest"), [("spikformer", 6), ("sew", 3), ("sew and", 1), ("sew iand", 1)]
)
def test_streams_count_spikes(name, largest):
    """Integers up to 2 + 2 blocks, blocks of the stage + 1, or spikes."""
    net = drawn(name)
    number = next(i for i, layer in enumerate(net.body.layers) if isinstance(layer, nn.Stacked))
    front = nn.Network(nn.Sequential(*net.body.layers[: number + 1]), net.input_shape)
    run = jax.jit(lambda net, x: net(x, net.initial_state(B), training=True)[0])
    stream = np.asarray(run(front, frames()))
    assert set(np.unique(stream)) <= set(range(largest + 1)) and stream.max() > 0


@pytest.mark.fast
def test_joined_spikes_are_packed():
    """The stream of AND and IAND is binary, that of sums is not."""
    strategy = memory.parse_strategy("depth=recompute(1), pack=True")
    for name in ("sew", "sew and", "sew iand"):
        shapes = jax.eval_shape(lambda n=name: NETWORKS[n](rngs=nnx.Rngs(0)))
        layers = nn.with_memory(shapes, strategy).body.layers
        stack = next(layer for layer in layers if isinstance(layer, nn.Stacked))
        synapses = [layer for layer in stack.blocks.branch.layers if layer.name == "conv"]
        assert [bool(layer.pack) for layer in synapses] == [name != "sew", True]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: models.sew_resnet(depth=50, rngs=r), "knows depths 18 and 34"),
        (lambda r: models.sew_resnet(blocks=(1, 2), rngs=r), "do not fit 4 stages"),
        (lambda r: models.sew_resnet(join="or", rngs=r), "add, and, iand"),
        (lambda r: models.spike_driven_transformer(width=12, rngs=r), "divisible by 8"),
        (lambda r: models.spikformer(width=16, heads=3, rngs=r), "choose a divisor"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: make(nnx.Rngs(0)))
