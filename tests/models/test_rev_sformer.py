"""RevSFormer: published parameter counts, an exact reversal, bytes that do not know the depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, models, nn
from snnjax.models.rev_sformer import duplicate_tokens
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


def parameters(**options):
    return count(lambda: models.rev_sformer(rngs=nnx.Rngs(0), **options))


def tiny(depth=2, **options):
    # One program draws all parameters.
    make = lambda: models.rev_sformer(depth=depth, rngs=nnx.Rngs(0), **(TINY | options))  # noqa: E731
    return jax.jit(make)()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("depth", "classes", "heads", "expected"),
    [
        (2, 10, 12, 5_766_586),
        (4, 10, 12, 9_323_962),
        (2, 100, 8, 5_835_796),
        (4, 100, 8, 9_393_172),
    ],
)
def test_parameters(depth, classes, heads, expected):
    """Zhang and Zhang 2024: RevSFormer-2-384 and 4-384."""
    assert parameters(depth=depth, classes=classes, heads=heads) == expected


@pytest.mark.fast
@pytest.mark.parametrize(("classes", "expected"), [(10, 2_569_226), (11, 2_569_739)])
def test_parameters_for_event_frames(classes, expected):
    """Zhang and Zhang 2024: RevSFormer-2-256."""
    events = {"width": 256, "heads": 16, "pools": 4, "input_shape": (128, 128, 2)}
    assert parameters(depth=2, classes=classes, **events) == expected


@pytest.mark.fast
def test_it_is_written_to_be_reversed():
    """Undone blocks between joints at one bit each; `store` takes both back."""
    net = jax.eval_shape(tiny)
    *_, stack, _, _ = net.body.layers
    assert stack.scan == memory.reversal()
    assert net.body.joints.spikes == (False, True, True, True, True, False, False)
    assert nn.saves_memory(net)
    stored = nn.with_memory(net, memory.parse_strategy("depth=store"))
    assert stored.body.joints is None
    assert not nn.saves_memory(stored)


@pytest.mark.fast
def test_both_streams_begin_with_the_tokens():
    tokens = jax.random.normal(jax.random.key(0), (2, 3, 4))
    for half in jnp.split(duplicate_tokens(tokens), 2, axis=-1):
        np.testing.assert_array_equal(half, tokens)


drawn = functools.cache(tiny)


@functools.cache
def stored(**options):
    return graded(nn.with_memory(drawn(**options), memory.Strategy(depth=memory.store)), frames())


def variants():
    for name, text, options in (
        ("reverse", "depth=reverse, pack=True", {}),
        ("as written", "", {}),
        ("inner", "depth=reverse(inner=recompute(1)), pack=True", {}),
        ("stored within", "depth=reverse(inner=store)", {}),
        ("recompute", "depth=recompute(1), pack=True", {}),
        ("parallel", "pack=True", {"parallel": True}),
    ):
        yield pytest.param(text, options, id=name)


# tests/nn/test_strategy.py reverses a network with a stack of smaller blocks.
@pytest.mark.slow
@pytest.mark.parametrize(("text", "options"), list(variants()))
def test_strategies_are_the_same_function(text, options):
    """Outputs, spikes and the stream's peak bit for bit; gradients too, where blocks are undone."""
    net = nn.with_memory(drawn(**options), memory.parse_strategy(text))
    (_, (outputs, aux)), gradients = graded(net, frames())
    (_, (expected, expected_aux)), wanted = stored(**options)
    assert outputs.shape == (T, B, CLASSES)
    assert_equal(outputs, expected)
    assert_close(aux.statistics, expected_aux.statistics, 1.5e-7)
    assert_gradients(gradients, wanted, 2e-6)


def test_every_neuron_takes_part():
    assert lowest_rate(drawn(), frames()) > 0.01


@pytest.mark.slow
def test_blocks_are_undone_without_error():
    net, floating = tiny(depth=4), tiny(depth=4, bits=None)

    @jax.jit
    def errors(net):
        taps = net(frames(), net.initial_state(B), training=True, taps=("reconstruction",))[1].taps
        return [kinds["reconstruction"] for kinds in taps.values() if "reconstruction" in kinds]

    np.testing.assert_array_equal(errors(net), [[0.0]])
    assert errors(floating)[0] > 0


@pytest.mark.slow
def test_orders_are_the_same_function():
    runs = [graded(tiny(norm=per_step, order=order), frames()) for order in ("layer", "time")]
    ((_, (outputs, _)), gradients), ((_, (again, _)), others) = runs
    assert_close(again, outputs, 1e-5)
    assert_gradients(others, gradients, 2e-5)


def temp_bytes(depth, **options):
    """Temporary bytes of a gradient at this depth, without what grows as the parameters do."""
    net = jax.eval_shape(lambda: tiny(depth, **options))
    x = jax.ShapeDtypeStruct((T, 32, 8, 8, 2), jnp.float32)

    def gradient(net, x):
        def loss(net):
            outputs, aux = net(x, net.initial_state(x.shape[1]), training=True)
            return jnp.mean(jnp.sin(outputs)), aux.statistics

        return jax.grad(loss, has_aux=True)(net)

    compiled = jax.jit(gradient).lower(net, x).compile()
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(nnx.split(net, nnx.Param, ...)[1]))
    return compiled.memory_analysis().temp_size_in_bytes, parameters


@pytest.mark.slow
def test_bytes_do_not_grow_with_depth():
    """Eight blocks take what four do, but for gradients of more parameters; stored, not."""
    (four, some), (eight, more) = temp_bytes(4), temp_bytes(8)
    assert eight - four <= more - some
    store = {"memory": memory.Strategy(depth=memory.store)}
    kept = temp_bytes(8, **store)[0] - temp_bytes(4, **store)[0]
    assert kept > 20 * (more - some)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["layer", "time"])
def test_the_menu_offers_what_it_admits(order):
    net = tiny(norm=per_step, order=order)
    offered = [str(strategy) for strategy in nn.candidates(net)]
    assert "as written" in offered and "pack=True" in " ".join(offered)
    if order == "layer":
        assert "depth=store, pack=True" in offered
    for strategy in nn.candidates(net):
        assert nn.with_memory(net, strategy).order == order


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "choose a divisor"),
        ({"depth": 0}, "at least 1"),
        ({"memory": memory.Strategy(time=memory.reversal())}, "hard reset|forgets"),
    ],
)
def test_errors_name_the_cure(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: tiny(**options))
