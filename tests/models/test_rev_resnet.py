"""RevSResNet: published sizes, one gradient whatever is kept, bytes that depth does not move."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, models, nn
from snnjax.nn.contract import Repeated
from tests.compare import assert_close, assert_equal
from tests.models.sizes import count

T, B, SHAPE = 4, 4, (8, 8, 3)  # of channels not in eights XLA rounds sums by program
X = jax.random.uniform(jax.random.key(1), (T, B, *SHAPE))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("depth", "classes", "expected"),
    [
        (21, 10, 10_967_690),
        (21, 100, 11_048_420),
        (37, 10, 23_510_154),
        (37, 100, 23_590_884),
        (109, 10, 69_995_146),
        (109, 100, 70_075_876),
    ],
)
def test_parameters_for_images(depth, classes, expected):
    """They follow from the layer shapes; 11.05M and 23.59M are published for 100 classes."""
    make = lambda: models.rev_resnet(depth=depth, classes=classes, rngs=nnx.Rngs(0))  # noqa: E731
    assert count(make) == expected


@pytest.mark.fast
@pytest.mark.parametrize(("classes", "expected"), [(10, 260_362), (11, 260_459)])
def test_parameters_for_event_frames(classes, expected):
    options = {"depth": 24, "classes": classes, "input_shape": (128, 128, 2)}
    assert count(lambda: models.rev_resnet(**options, rngs=nnx.Rngs(0))) == expected


def small(blocks=(1, 2), **options):
    halves = (8, 16)[: len(blocks)]
    return models.rev_resnet(
        halves=halves, blocks=blocks, classes=5, input_shape=SHAPE, rngs=nnx.Rngs(0), **options
    )


@functools.cache
def drawn(parallel, bits=12):
    """The small network; one program draws all of its parameters."""
    return jax.jit(lambda: small(parallel=parallel, bits=bits))()


def loss(network, x, state):
    outputs, aux = network(x, state, training=True)
    return jnp.mean(jnp.sin(outputs)), (outputs, aux.statistics, aux.state)


@jax.jit
def gradient(network):
    """Value, what leaves, and the gradient's leaves (modules compare by their strategy, too)."""
    state = network.initial_state(B)
    (value, seen), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(network, X, state)
    return (value, seen), jax.tree.leaves(grads)


def under(network, text):
    return nn.with_memory(network, memory.parse_strategy(text))


KEPT = [
    ("depth=reverse, pack=True", False), ("depth=recompute(1)", False), ("depth=reverse", False),
    ("depth=reverse(inner=store)", False), ("depth=reverse", True),
]  # fmt: skip


@functools.cache
def stored(parallel, bits):
    return gradient(under(drawn(parallel, bits), "depth=store"))


# tests/nn/test_reversible.py reverses such blocks, test_strategy.py a network with a stack of them.
@pytest.mark.slow
@pytest.mark.parametrize(("text", "parallel"), KEPT)
def test_strategies_change_neither_values_nor_gradients(text, parallel):
    found, grads = gradient(under(drawn(parallel), text))
    expected, want = stored(parallel, 12)
    assert_equal(found, expected)
    # On the grid every state is rebuilt exactly. Later releases of XLA round sums of the reversed
    # program otherwise than those of the stored one.
    assert_close(grads, want, 0 if jax.__version__.startswith("0.10.") else 1e-6)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in want)


@pytest.mark.slow
def test_a_floating_stream_is_undone_nearly_right_while_no_spike_flips():
    found, grads = gradient(under(drawn(False, None), "depth=reverse"))
    expected, want = stored(False, None)
    assert_equal(found, expected)
    assert_close(grads, want, 1e-5)


per_step = functools.partial(nn.BatchNorm, over="step")


def shared(kind):
    return small((1, 1), sharing=kind, static=True, norm=per_step)


@functools.cache
def stored_shared(kind):
    return gradient(under(shared(kind), "depth=store"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("channel", "depth=reverse, pack=True"),
        ("layer", "depth=reverse"),
        ("both", "depth=reverse, pack=True"),
        ("both", "time=recompute(2), depth=reverse, pack=True"),
    ],
)
def test_branches_that_share_membranes_have_one_gradient(kind, text):
    found, grads = gradient(under(shared(kind), text))
    expected, want = stored_shared(kind)
    assert_equal(found, expected)
    assert_close(grads, want, 1e-6)


@pytest.mark.parametrize(("kind", "smaller"), [("channel", 2), ("layer", 2), ("both", 4)])
def test_sharing_leaves_the_parameters_and_shrinks_the_membranes_of_branches(kind, smaller):
    def branches(network):
        neurons = jax.eval_shape(lambda network: network.initial_state(1).neurons, network)
        at_rest = [state.block for state in neurons if isinstance(state, Repeated)]
        return sum(leaf.size for leaf in jax.tree.leaves(at_rest))

    def shapes(network):
        return sorted(leaf.shape for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))

    plain = jax.eval_shape(lambda: small((1, 1), norm=per_step))
    sharing = jax.eval_shape(lambda: shared(kind))
    assert branches(sharing) * smaller == branches(plain)
    assert shapes(sharing) == shapes(plain)


def temporary(text, blocks):
    """Bytes of activations in the gradient: what four more examples per batch add."""

    def of(batch):
        network = under(small(blocks), text)
        x = jax.ShapeDtypeStruct((T, batch, *SHAPE), jnp.float32)
        run = jax.jit(jax.grad(loss, has_aux=True))
        compiled = run.lower(network, x, network.initial_state(batch)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    return of(8) - of(4)


@pytest.mark.slow
def test_activation_bytes_do_not_grow_with_the_blocks_of_a_stage():
    flat = temporary("depth=reverse", (2, 2))
    assert abs(temporary("depth=reverse", (5, 5)) - flat) <= 0.02 * flat
    assert temporary("depth=store", (5, 5)) > 1.8 * temporary("depth=store", (2, 2))


@pytest.mark.parametrize(
    "text",
    [
        "depth=reverse",
        pytest.param("depth=recompute(1)", marks=pytest.mark.slow),
        pytest.param("depth=store", marks=pytest.mark.slow),
    ],
)
def test_blocks_do_not_lengthen_the_program(text):
    """Compile time against depth, where no clock is asked: lines of the gradient handed to XLA."""

    def lines(blocks):
        network = jax.eval_shape(lambda: under(small(blocks), text))
        run = lambda network, x: jax.grad(loss, has_aux=True)(network, x, network.initial_state(B))  # noqa: E731
        return jax.jit(run).lower(network, X).as_text().count("\n")

    assert lines((16,)) <= 1.02 * lines((1,))


def test_the_last_norm_of_a_branch_is_its_own():
    quiet = functools.partial(nn.BatchNorm, scale=0.05)

    def branches():
        layers = small(last_norm=quiet).body.layers
        return layers[2].f, layers[7].g

    for branch in jax.eval_shape(branches):
        assert [type(layer) for layer in branch.layers[3:]] == [type(x) for x in branch.layers[:3]]
    scales = jax.jit(lambda: [[b.layers[i].scale[...] for i in (2, 5)] for b in branches()])
    for first, last in jax.device_get(scales()):
        assert np.all(first == 1) and np.all(last == np.float32(0.05))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18}, r"knows depths \[21, 24, 37, 109\].*give halves= and blocks="),
        ({"blocks": (1, 2)}, "do not fit 4 stages"),
        ({"blocks": (1, 0, 1, 1)}, "do not fit"),
    ],
)
def test_errors_name_the_cure(options, message):
    with pytest.raises(ValueError, match=message):
        models.rev_resnet(**options, rngs=nnx.Rngs(0))
