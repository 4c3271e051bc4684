"""T-RevSNN: published parameter counts, heads, the whole network under its memory modes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import losses, memory, models, nn
from snnjax.models.t_revsnn import column_loss
from tests.compare import assert_close, assert_equal

B = 3


def slim(columns=4, **options):
    options = {"input_shape": (8, 8, 2), "stem": ((3, 1),), "kernel": 3, **options}
    return models.t_revsnn(
        channels=(3, 4, 4, 4), classes=5, columns=columns, rngs=nnx.Rngs(0), **options
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ("small", {}, 32_331_312),
        ("tiny_dvs", {"classes": 10}, 10_220_364),
        # The parts of the sizes above are counted below.
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("small", {"heads": "plain"}, 29_787_312),
                ("small", {"kernel": 3}, 32_085_040),
                ("tiny", {}, 17_376_912),
                ("tiny", {"heads": "plain"}, 15_216_912),
                ("tiny", {"kernel": 3}, 17_203_856),
                ("tiny_dvs", {"classes": 11}, 10_220_645),
            )
        ),
    ],
)
def test_parameters(size, options, expected):
    """The released log's total for small, and what follows from the layer shapes for the others."""
    net = jax.eval_shape(lambda: models.t_revsnn(size=size, rngs=nnx.Rngs(0), **options))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.split(net, nnx.Param, ...)[1])) == expected


@pytest.mark.fast
def test_parts_of_small():
    """Stem, alphas and heads as the released code logs them; the states at 56, 28, 14, 14."""
    net = jax.eval_shape(lambda: models.t_revsnn(rngs=nnx.Rngs(0)))
    size = lambda part: sum(leaf.size for leaf in jax.tree.leaves(part))  # noqa: E731
    assert [size(conv) for conv in net.body.stem.layers] == [14_304, 83_136]
    assert size(net.body.columns.learned) == 4 * 1_184
    assert [size(head) for head in net.body.heads] == [514_000] * 3 + [1_516_000]
    first, later = net.body.columns.first, net.body.columns.later
    assert size(first) + 1_184 == 6_612_416 and size(later) == 3 * (6_902_528 - 1_184)
    state = jax.eval_shape(lambda: models.t_revsnn(rngs=nnx.Rngs(0)).initial_state(2))
    places = [(2, 56, 56, 96), (2, 28, 28, 192), (2, 14, 14, 384), (2, 14, 14, 512)]
    assert [c.shape for c in state.neurons] == places


def test_the_column_loss_weighs_later_columns_more():
    outputs = np.random.default_rng(0).normal(size=(4, B, 5)).astype(np.float32)

    @jax.jit
    def run(outputs):
        labels = jnp.asarray([0, 3, 4])
        each = [losses.cross_entropy(o, labels, label_smoothing=0.1) for o in outputs]
        return column_loss(outputs, labels), each

    loss, each = jax.device_get(run(outputs))
    assert_close(loss, 0.25 * each[0] + 0.5 * each[1] + 0.75 * each[2] + 2 * each[3], 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "timesteps", "shape"),
    [
        ({}, 1, (2, B, 5)),
        ({"heads": "spiking"}, 1, (2, B, 5)),
        ({"heads": "plain"}, 2, (1, B, 5)),
        ({"size": "tiny_dvs"}, 2, (1, B, 5)),
        ({"size": "tiny_dvs", "heads": "spiking"}, 2, (2, B, 5)),
    ],
)
def test_heads_and_inputs(options, timesteps, shape):
    net = slim(2, **options)
    x = jax.random.normal(jax.random.key(0), (timesteps, B, 8, 8, 2))
    run = jax.jit(lambda net, x: net(x, net.initial_state(B), training=False)[0])
    outputs = run(net, x)
    assert outputs.shape == shape and jnp.isfinite(outputs).all()


def test_the_head_of_the_released_event_network_classifies_the_last_state_over_t():
    """Its classifier of spikes reads `c_3[T] / T`: a state fires there from T / 2 on."""

    @jax.jit
    def run():
        net = slim(2, size="tiny_dvs")
        top = jax.random.uniform(jax.random.key(0), (B, 2, 2, 4), maxval=2.0)
        logits, _ = net.body._logits(None, top, nn.Call(training=False))
        rates = jnp.mean((top >= 1.0).astype(jnp.float32), (1, 2))
        y = rates[None, :, None, None]
        for layer in net.body.heads[0].layers:
            y, _ = layer(y, nn.State(), nn.Call(training=False))
        return logits, y

    logits, y = run()
    assert logits.shape == (1, B, 5)
    np.testing.assert_allclose(logits[0], y[0, :, 0, 0], rtol=1e-6)


def test_event_frames_meet_the_released_stem():
    state = jax.eval_shape(
        lambda: models.t_revsnn(size="tiny_dvs", classes=10, rngs=nnx.Rngs(0)).initial_state(1)
    )
    assert state.neurons[0].shape == (1, 128, 128, 32)


@functools.partial(jax.jit, static_argnames="training")
def graded(net, x, *, training=True):
    def loss(net):
        outputs, aux = net(x, net.initial_state(B), training=training)
        return jnp.mean(column_loss(outputs, jnp.arange(B))), (outputs, aux)

    return jax.grad(loss, has_aux=True)(net)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 12])
def test_memory_modes_are_the_same_function(bits):
    """Store, column mode, O(L): outputs and statistics bit-equal; gradients too, on the grid."""
    x = jax.random.normal(jax.random.key(1), (1, B, 8, 8, 2))
    runs = [
        graded(slim(bits=bits, memory=memory.Strategy(time=scan)), x)
        for scan in (memory.store, None, memory.reversal())
    ]
    stored, column, undone = (jax.tree.leaves(gradient) for gradient, _ in runs)
    expected, seen, rebuilt = (outputs for _, outputs in runs)
    assert_equal((seen, rebuilt), (expected, expected))
    if bits is None:
        assert_close(undone, column, 1e-6)
    else:
        assert_equal((column, undone), (stored, stored))
    assert_close((column, undone), (stored, stored), 2e-6)
    assert max(gap(column, stored), gap(undone, stored)) < 1e-6


def gap(a, b):
    """`|a - b| / |b|` of two gradients as one vector each."""
    norm = lambda *trees: np.sqrt(  # noqa: E731
        sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(trees))
    )
    return norm(jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)) / norm(b)


def temporary(columns, scan):
    """XLA's temporary bytes per example: what three more of them add."""

    def of(batch):
        def loss(net, x):
            outputs, aux = net(x, net.initial_state(batch), training=True)
            return jnp.sum(jnp.sin(outputs)), aux.statistics

        options = {"bits": 12, "alpha": 1.0, "input_shape": (16, 16, 2)}
        net = jax.eval_shape(lambda: slim(columns, memory=memory.Strategy(time=scan), **options))
        x = jax.ShapeDtypeStruct((1, batch, 16, 16, 2), jnp.float32)
        lowered = jax.jit(jax.grad(loss, has_aux=True)).lower(net, x)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    return (of(6) - of(3)) / 3


@pytest.mark.slow
def test_bytes_of_the_whole_network_do_not_grow_with_its_columns():
    """O(L): of each column only what its head reads is kept, a few numbers per example."""
    four, eight, sixteen = (temporary(columns, memory.reversal()) for columns in (4, 8, 16))
    assert abs(eight - four) <= 0.02 * four and abs(sixteen - four) <= 0.02 * four
    assert temporary(16, None) > 1.2 * temporary(4, None)  # the released mode keeps boundaries


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.t_revsnn(size="large", rngs=nnx.Rngs(0)), "knows sizes"),
        (lambda: slim(heads="two"), "heads must be"),
        (lambda: slim(input_shape=(10, 10, 2)), "divided by 4"),
        (lambda: slim(16, bits=12), "alpha=1"),
        (lambda: nn.with_memory(slim(1), memory.Strategy(depth=memory.recompute(1))), "time="),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make)


@pytest.mark.fast
def test_a_strategy_over_time_reaches_the_columns():
    written = jax.eval_shape(lambda: slim(2))
    net = nn.with_memory(written, memory.parse_strategy("time=reverse(refresh=2)"))
    assert net.body.columns.scan == memory.reversal(refresh=2)
    assert written.body.columns.scan == memory.recompute(every=1)
    assert nn.saves_memory(net)
    with pytest.raises(ValueError, match="takes 2 timesteps"):
        jax.eval_shape(
            lambda net, x: net(x, net.initial_state(B), training=False)[0],
            net,
            jnp.zeros((3, B, 8, 8, 2)),
        )
