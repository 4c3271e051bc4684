"""Taps of connections: the same counts wherever a layer stands and under every strategy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, metrics, models, nn
from tests.nn.layers import B, T, call, rngs, sequence
from tests.nn.networks import NETWORKS, half, per_step

TAPS = ("operations", "products")


def tapped(network, inputs, taps=TAPS):
    def run(network, inputs):
        state = network.initial_state(inputs.shape[1])
        return network(inputs, state, training=False, taps=taps)[1].taps

    return jax.jit(run)(network, inputs)


def tapped_layer(layer, inputs):
    """Taps of a layer by itself, under the name ""."""
    return tapped(nn.Network(layer, inputs.shape[2:]), inputs)


def images(network, timesteps=T):
    return jax.random.normal(jax.random.key(1), (timesteps, B, *network.input_shape))


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, kinds in expected.items():
        jax.tree.map(np.testing.assert_array_equal, found[name], kinds)


@pytest.mark.fast
def test_linear_maps_and_convolutions_tap_their_operations():
    for layer, shape in (
        (nn.Linear(6, 3, rngs=rngs()), (B, 6)),
        (nn.Conv(2, 4, strides=2, use_bias=True, rngs=rngs()), (B, 8, 8, 2)),
        (nn.Conv(2, 4, pack="bfloat16", rngs=rngs()), (B, 8, 8, 2)),
        (nn.ScaledStdConv(2, 4, rngs=rngs()), (B, 8, 8, 2)),
    ):
        inputs = jnp.maximum(sequence(shape), 0)
        _, aux = call(layer, inputs, taps=TAPS)
        (found,) = aux.taps[""].values()
        assert found.effective.shape == (T, B)
        active = (np.asarray(inputs) != 0).reshape(T, B, -1).sum(-1)
        np.testing.assert_array_equal(found.active, active)
        assert found.effective.sum() < found.dense.sum()
        full, aux = call(layer, jnp.ones_like(inputs), taps=TAPS)
        found = aux.taps[""]["operations"]
        np.testing.assert_array_equal(found.effective, found.dense)
        assert full.size and call(layer, inputs)[1].taps == {}


@pytest.mark.fast
def test_layers_without_weights_tap_nothing():
    for layer in (nn.MaxPool(), nn.Flatten(), nn.GroupNorm(2, 2, rngs=rngs()), nn.BatchNorm(2)):
        assert call(layer, sequence((B, 8, 8, 2)), taps=TAPS)[1].taps == {}


@pytest.mark.fast
def test_pruned_weights_do_not_count():
    layer = nn.Conv(2, 4, kernel=1, rngs=rngs())
    layer.function.kernel[...] = layer.function.kernel[...].at[..., 1:].set(0)
    found = call(layer, jnp.ones((T, B, 3, 3, 2)), taps=TAPS)[1].taps[""]["operations"]
    np.testing.assert_array_equal(found.effective, 9 * 2)
    np.testing.assert_array_equal(found.dense, 9 * 2 * 4)


@pytest.mark.fast
def test_a_module_of_your_own_counts_by_a_method():
    found = call(nn.Fold(Twice()), jnp.ones((T, B, 3)), taps=TAPS)[1].taps[""]["operations"]
    np.testing.assert_array_equal(found.dense, 3)


class Twice(nnx.Module):
    def __call__(self, inputs):
        return 2 * inputs

    def operations(self, inputs):
        return metrics.operations.synaptic_operations(inputs, jnp.eye(3))._replace(
            dense=jnp.full(inputs.shape[:2], 3)
        )


def test_feedback_counts_the_spikes_of_the_timestep_before():
    layer = nn.Recurrent(nn.LIF(), 6, rngs=rngs())
    spikes, aux = call(layer, sequence((B, 6)), taps=("spikes", *TAPS))
    found = aux.taps[""]["operations"]
    before = np.concatenate([np.zeros((1, B, 6)), spikes[:-1]])
    np.testing.assert_array_equal(found.effective, before.sum(-1) * 6)
    assert found.effective.any() and found.binary.all()
    np.testing.assert_array_equal(aux.taps[""]["spikes"], spikes)


def test_attention_is_apart_from_connections():
    layer = nn.SpikingSelfAttention(8, 2, rngs=rngs())
    taps = tapped_layer(layer, sequence((B, 5, 8)))
    assert {name: list(kinds) for name, kinds in taps.items()} == {
        "linear1": ["operations"],
        "attention4": ["products"],
        "linear6": ["operations"],
    }
    np.testing.assert_array_equal(taps["attention4"]["products"].dense, 2 * 2 * 5 * 4 * 4)
    assert taps["attention4"]["products"].binary.all()


def test_attention_on_currents_counts_its_multiplications():
    """`2 T C H W` of the currents, two maps of 18 by 13 * 13 reads of 15 * 15, the mixer."""
    inputs = sequence((B, 5, 5, 3), timesteps=6)
    layer = nn.ASA(6, reduction=2, rngs=rngs())
    found = tapped_layer(layer, inputs)[""]["products"]
    assert found.dense.shape == (1, B) and not found.binary.any()
    np.testing.assert_array_equal(found.dense, 2 * 6 * 75 + 2 * (13 * 13 * 2) + 2 * 6 * 3 * 3)
    layer = nn.MA("TCSA", 6, 3, time_reduction=2, channel_reduction=1, rngs=rngs())
    found = tapped_layer(layer, inputs)[""]["products"]
    squeezed = 2 * (2 * 6 * 3 + 2 * 3 * 3)
    np.testing.assert_array_equal(found.dense, 3 * 6 * 75 + squeezed + 13 * 13 * 2)


@pytest.mark.parametrize(
    "name",
    [
        "shared",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("vgg", "ms_resnet", "reversible")),
    ],
)
def test_both_orders_and_every_strategy_count_alike(name):
    network = NETWORKS[name]()
    inputs = images(network)
    expected = tapped(network, inputs)
    assert any(taps["operations"].effective.any() for taps in expected.values())
    strategies = [
        memory.Strategy(depth=memory.recompute(1), pack=True),
        memory.Strategy(time=memory.recompute(2)),
    ]
    for strategy in strategies:
        assert_equal(tapped(nn.with_memory(network, strategy), inputs), expected)
    in_time = nn.Network(network.body, network.input_shape, order="time")
    assert_equal(_counts(tapped(in_time, inputs)), _counts(expected))


def _counts(taps):
    """Without the checksums, which see the last bit of a current: it may round otherwise."""
    return {
        name: {kind: found._replace(checksum=0) for kind, found in kinds.items()}
        for name, kinds in taps.items()
    }


def test_a_reversed_stack_counts_as_a_stored_one():
    stack = lambda scan: nn.Network(  # noqa: E731
        nn.Reversible(half, half, 2, rngs=rngs(), scan=scan), (6, 6, 4)
    )
    expected = tapped(stack(memory.store), images(stack(None)))
    assert_equal(tapped(stack(memory.reversal()), images(stack(None))), expected)
    assert {f"block{n}/{side}/conv1" for n in range(2) for side in "fg"} == set(expected)


def test_a_layer_that_runs_once_has_one_row():
    stem = nn.Sequential(nn.Conv(2, 3, rngs=rngs()), per_step(3))
    after = nn.Sequential(nn.Conv(3, 3, rngs=rngs()), per_step(3))
    shared = nn.Network(nn.Shared([nn.StaticInput(stem), after], nn.LIF()), (6, 6, 2))
    taps = tapped(shared, images(shared))
    rows = {name: kinds["operations"].dense.shape for name, kinds in taps.items()}
    assert rows == {"synapse0/conv0": (1, B), "synapse1/conv0": (T, B)}
    alone = nn.Network(nn.Sequential(nn.StaticInput(stem), nn.LIF()), (6, 6, 2))
    (found,) = tapped(alone, images(alone)).values()
    np.testing.assert_array_equal(
        found["operations"].dense, taps["synapse0/conv0"]["operations"].dense
    )


def test_shortcuts_of_shared_layers_are_counted():
    layers = [nn.Conv(2, 3, rngs=rngs()), nn.Conv(3, 3, rngs=rngs())]
    ways = [None, nn.Sequential(nn.Conv(2, 3, kernel=1, rngs=rngs()))]
    network = nn.Network(nn.Shared(layers, nn.LIF(), shortcuts=ways), (6, 6, 2))
    taps = tapped(network, images(network))
    assert set(taps) == {"synapse0", "synapse1", "shortcut1/conv0"}
    np.testing.assert_array_equal(taps["shortcut1/conv0"]["operations"].dense, 36 * 2 * 3)


@pytest.mark.slow
def test_columns_count_stem_levels_and_heads():
    network = models.t_revsnn(
        channels=(4, 4, 4, 4), kernel=3, columns=2, input_shape=(32, 32, 2), classes=3,
        rngs=rngs(),
    )  # fmt: skip
    taps = tapped(network, images(network, 2))
    places = {name.split("/")[0] for name in taps}
    assert places == {"stem", "column0", "column1", "head0", "head1"}
    assert all(kinds["operations"].dense.shape == (1, B) for kinds in taps.values())
    assert taps["stem/scaled_conv0"]["operations"].padded[0, 0] == 16 * 16 * 49 * 2 * 4
    # The last column is read by spikes, the others are not: two convolutions in a row, and one.
    assert {"head0/scaled_conv0", "head1/scaled_conv0", "head1/scaled_conv1"} <= set(taps)
