"""The networks of ASA-SNN and MA-SNN: exact counts, layers, dropout, voting, strategies."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, models, neurons, nn
from snnjax.models.asa_snn import asa_attention, voting
from tests.compare import assert_close, assert_equal
from tests.models.sizes import count

UNUSED = 3 * 39  # of a second attention per convolution that the released code makes for nothing
night = {"channels": (32, 32, 32), "classes": 20}
day = {"classes": 20}
action = {"timesteps": 36, "classes": 10, "input_shape": (173, 130, 2)}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "reduction", "with_attention", "without"),
    [({}, 4, 2_329_162, 2_323_531), (day, 4, 2_331_475, 2_325_844), (night, 8, 551_731, 548_980)],
    ids=["A", "A, 20 classes", "D"],
)
def test_parameters_of_three_convolutions(options, reduction, with_attention, without):
    attention = functools.partial(asa_attention, reduction=reduction)
    make = functools.partial(models.asa_snn, **options)
    assert count(lambda: make(rngs=nnx.Rngs(0), attention=attention)) == with_attention - UNUSED
    assert count(lambda: make(rngs=nnx.Rngs(0), attention=None)) == without


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 1_701_123), ({"attention": None}, 1_698_933), (action, 1_962_617)],
    ids=["B", "without attention", "B on DailyAction"],
)
def test_parameters_of_five_convolutions(options, expected):
    """With a reduction of 1, whatever the recipes say."""
    assert count(lambda: models.asa_snn_five(rngs=nnx.Rngs(0), **options)) == expected


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (None, 2_324_065), ("SA", 2_324_119), ("TA", 2_331_265), ("TSA", 2_331_319),
        ("CA", 2_333_281), ("CSA", 2_333_335), ("TCA", 2_340_481), ("TCSA", 2_340_535),
    ],
)  # fmt: skip
def test_parameters_of_ma_snn(kind, expected):
    made = {"attention": kind and functools.partial(nn.MA, kind), "linear_norm": nn.BatchNorm}
    if kind and "T" in kind:
        made["linear_attention"] = functools.partial(nn.MA, "TA")
    assert count(lambda: models.asa_snn(rngs=nnx.Rngs(0), **made)) == expected


@pytest.mark.fast
def test_the_layers_stand_where_they_are_said_to():
    net = jax.eval_shape(lambda: models.asa_snn(rngs=nnx.Rngs(0)))
    assert [layer.name for layer in net.body.layers] == [
        *("conv", "batchnorm", "asa", "lif"),
        *("conv", "batchnorm", "avgpool", "asa", "lif"),
        *("dropout", "conv", "batchnorm", "avgpool", "asa", "lif", "dropout"),
        *("flatten", "dropout", "linear", "lif", "dropout", "dropout", "linear", "lif", "dropout"),
    ]
    five = jax.eval_shape(lambda: models.asa_snn_five(rngs=nnx.Rngs(0)))
    block = ("conv", "batchnorm", "asa", "plif", "maxpool")
    head = ("flatten", "linear", "plif", "linear", "plif", "voting")
    assert [layer.name for layer in five.body.layers] == [*(5 * block), *head]


T, B, FRAME = 4, 2, (8, 8, 2)
FRAMES = jnp.round(3 * jax.random.uniform(jax.random.key(0), (T, B, *FRAME)))


def small(**options):
    """Two convolutions, and dropout at one of them: each costs a second to compile."""
    options = {"dropout": (0.0, 0.2, 0.0, 0.0), "pools": (1, 2)} | options
    return models.asa_snn(
        timesteps=T, classes=3, input_shape=FRAME, channels=(3, 4), hidden=8, **options,
        norm=functools.partial(nn.BatchNorm, scale=2.0), rngs=nnx.Rngs(0),
    )  # fmt: skip


def small_five(**options):
    return models.asa_snn_five(
        timesteps=T, classes=3, votes=2, input_shape=FRAME, channels=(3, 4), hidden=8, **options,
        norm=functools.partial(nn.BatchNorm, scale=4.0), rngs=nnx.Rngs(0),
    )  # fmt: skip


@jax.jit
def graded(net, frames, key):
    def loss(net):
        outputs, aux = net(frames, net.initial_state(B), training=True, key=key)
        return jnp.sum((outputs.mean(0) - 0.3) ** 2), (outputs, aux)

    return jax.grad(loss, has_aux=True)(net)


lif = functools.partial(nn.LIF, scale_input=True, reset=neurons.reset.zero)
SMALL = {
    "A": small,
    "MA": lambda **options: small(
        attention=functools.partial(nn.MA, "TCSA", time_reduction=2, channel_reduction=2),
        linear_attention=functools.partial(nn.MA, "TA", time_reduction=2),
        linear_norm=nn.BatchNorm, **options,
    ),
    "B": small_five,
    "C": lambda **options: small_five(pool=nn.AvgPool, neuron=lif, **options),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_frames_become_scores_of_the_classes(name):
    net = SMALL[name]()
    run = lambda net, frames: net(frames, net.initial_state(B), training=False)[0]  # noqa: E731
    shapes = jax.eval_shape(run, net, FRAMES)
    assert (shapes.shape, shapes.dtype) == ((T, B, 3), jnp.float32)
    with pytest.raises(ValueError, match="window of 4 timesteps"):
        jax.eval_shape(run, net, FRAMES[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_they_learn_and_a_strategy_changes_nothing(name):
    """Of the attention only what chooses maps does not learn, as published."""
    gradients, (outputs, aux) = graded(SMALL[name](), FRAMES, jax.random.key(1))
    assert set(np.unique(outputs)) <= ({0.0, 0.5, 1.0} if name in "BC" else {0.0, 1.0})
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        place = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), place
        if any(part in place for part in ("alpha", "beta", "mixer")):
            np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
    assert float(jnp.abs(gradients.body.layers[0].function.kernel[...]).max()) > 0
    saving = SMALL[name](memory=memory.Strategy(depth=memory.recompute(1), pack=True))
    again, (outputs_again, aux_again) = graded(saving, FRAMES, jax.random.key(1))
    assert_equal((outputs_again, aux_again.state), (outputs, aux.state))
    assert_close(jax.tree.leaves(again), jax.tree.leaves(gradients), 1e-6)


def test_dropout_of_inputs_is_drawn_anew_at_every_step_and_of_spikes_once():
    layers = small().body.layers
    dropouts = [layer for layer in layers if layer.name == "dropout"]
    ones = jnp.ones((T, B, 50))
    entering, leaving = (
        dropouts[i](ones, nn.State(), nn.Call(training=True, key=jax.random.key(0)))[0]
        for i in (0, 1)
    )
    for outputs in (entering, leaving):
        assert set(np.unique(outputs)) == {0.0, 1.25}
        assert 0.1 < float((outputs == 0).mean()) < 0.3
    np.testing.assert_array_equal(leaving, jnp.broadcast_to(leaving[:1], leaving.shape))
    assert float(jnp.abs(entering[1:] - entering[:1]).max()) > 0
    for layer in dropouts[:2]:
        np.testing.assert_array_equal(layer(ones, nn.State(), nn.Call(training=False))[0], ones)
        with pytest.raises(ValueError, match="key="):
            layer(ones, nn.State(), nn.Call(training=True))


@pytest.mark.fast
def test_votes_are_means_of_neighbours():
    spikes = jnp.asarray([[[1.0, 0, 1, 1, 0, 0]]])
    outputs, _ = voting(2)(spikes, nn.State(), nn.Call(training=False))
    np.testing.assert_array_equal(outputs, [[[0.5, 1.0, 0.0]]])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(pools=(2, 2, 2)), "as many pools"),
        (lambda: small(dropout=(0.1,)), "two more dropout rates"),
        (lambda: small(pools=(4, 4)), "to nothing"),
        (lambda: models.asa_snn_five(input_shape=(16, 16, 2), rngs=nnx.Rngs(0)), "to nothing"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make)
