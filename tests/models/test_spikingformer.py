"""Spikingformer: published parameter counts, and one function under every strategy."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, models, nn
from tests.compare import assert_close, assert_equal
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

UNUSED = 4 * 384  # two layer norms per block of the released code


def tiny(depth=2, **options):
    # One program draws all parameters.
    make = lambda: models.spikingformer(depth=depth, rngs=nnx.Rngs(0), **(TINY | options))  # noqa: E731
    return jax.jit(make)()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("depth", "classes", "published", "ours"),
    [
        (2, 10, 5_765_818, 5_762_746),
        (4, 10, 9_326_266, 9_320_122),
        (2, 100, 5_800_468, 5_797_396),
        (4, 100, 9_360_916, 9_354_772),
    ],
)
def test_parameters(depth, classes, published, ours):
    """Zhang and Zhang 2024, baselines: without the layer norms that no forward pass uses."""
    net = jax.eval_shape(
        lambda: models.spikingformer(depth=depth, classes=classes, rngs=nnx.Rngs(0))
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.split(net, nnx.Param, ...)[1]))
    assert count == ours
    assert count + depth * UNUSED == published
    assert f"{ours:,}"[-7:] in models.spikingformer.__doc__


def test_a_block_adds_to_the_stream():
    """With branches that end in a norm of scale 0 the tokens pass every block as they are."""

    def still(channels):
        return nn.BatchNorm(channels, scale=0.0)

    layers = tiny(norm=still).body.layers
    stack = next(layer for layer in layers if isinstance(layer, nn.Stacked))
    tokens = np.random.default_rng(0).normal(size=(T, B, 4, 8)).astype(np.float32)

    @jax.jit
    def run(stack, tokens):
        state = stack.initial_state(tokens.shape[1:])
        return stack(tokens, state, nn.Call(training=True))[0]

    outputs = run(stack, tokens)
    np.testing.assert_array_equal(outputs, tokens)


drawn = functools.cache(tiny)


@functools.cache
def stored():
    return graded(drawn(), frames())


# tests/nn/test_stack.py recomputes blocks, and test_attention.py packs what enters the attention.
@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "depth=recompute(1), pack=True",
        "pack=True",
        "depth=recompute(1, keep=('currents',)), pack=True",
        "depth=recompute(sqrt), pack=True",
    ],
)
def test_strategies_are_the_same_function(text):
    net = nn.with_memory(drawn(), memory.parse_strategy(text))
    ((_, (outputs, aux)), gradients), ((_, (expected, statistics)), wanted) = (
        graded(net, frames()),
        stored(),
    )
    assert outputs.shape == (T, B, CLASSES)
    assert_equal(outputs, expected)
    assert_close(aux.statistics, statistics.statistics, 1.5e-7)
    assert_gradients(gradients, wanted, 1e-5)


def test_every_neuron_takes_part():
    assert lowest_rate(drawn(), frames()) > 0.01


@pytest.mark.slow
def test_orders_are_the_same_function():
    runs = [graded(tiny(norm=per_step, order=order), frames()) for order in ("layer", "time")]
    ((_, (outputs, _)), gradients), ((_, (again, _)), others) = runs
    assert_close(again, outputs, 1e-5)
    assert_gradients(others, gradients, 2e-5)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "message"), [({"heads": 3}, "choose a divisor"), ({"depth": 0}, "at least 1")]
)
def test_errors_name_the_cure(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda: models.spikingformer(**({"width": 8, "heads": 2} | options), rngs=nnx.Rngs(0))
        )
