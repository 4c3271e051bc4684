"""Counting a network: the tally against what the network itself says, layer by layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import cost, models, nn
from snnjax.cost.counting import layer_kind, shares_membranes

T, B = 3, 4


def network(*, static_norm=True, dropout=0.0):
    r = nnx.Rngs(0)
    norm = functools.partial(nn.BatchNorm, over="frozen" if static_norm else "window")
    return nn.Network(
        nn.Sequential(
            *(nn.Conv(2, 3, rngs=r), norm(3), nn.LIF(threshold=0.5), nn.MaxPool()),
            *(nn.Conv(3, 4, rngs=r), nn.IF(threshold=0.5), nn.AvgPool(), nn.Flatten()),
            *(nn.Dropout(dropout), nn.Linear(4, 3, rngs=r)),
        ),
        (4, 4, 2),
    )


def frames(seed=0, *, static=True, batch=B):
    moving = jax.random.normal(jax.random.key(seed), (T, batch, 4, 4, 2))
    return jnp.broadcast_to(moving[:1], moving.shape) if static else moving


def test_layers_are_told_by_what_comes_in():
    actual = cost.measure(network(), frames())
    assert list(actual.connections) == ["conv0", "conv4", "linear9"]
    first, second, last = actual.connections.values()
    assert (first.binary, second.binary, last.binary) == (False, True, False)
    assert (first.static, second.static, last.static) == (True, False, False)
    assert first.effective_acs == 0 < first.effective_macs
    assert second.effective_macs == 0 < second.effective_acs < second.dense < second.padded
    assert second.padded == T * B * 4 * 9 * 3 * 4
    assert actual.examples == B and actual.timesteps == T
    moving = cost.measure(network(), frames(static=False))
    assert not any(layer.static for layer in moving.connections.values())


def test_the_tally_is_that_of_the_recorded_spikes():
    net, x = network(), frames()
    state = net.initial_state(B)
    _, aux = net(x, state, training=False, taps=("spikes", "membrane"))
    actual = cost.measure(net, x)
    for name, kinds in aux.taps.items():
        spikes, membrane = (np.asarray(kinds[kind]) for kind in ("spikes", "membrane"))
        layer = actual.neurons[name]
        assert layer.active == spikes.sum() > 0 and layer.outputs == spikes.size
        moved = (membrane[1:] != membrane[:-1]).sum() + membrane[0].size
        assert layer.updates == moved and layer.spiking and layer.stateful
    total = sum(np.asarray(kinds["spikes"]).sum() for kinds in aux.taps.values())
    size = sum(np.asarray(kinds["spikes"]).size for kinds in aux.taps.values())
    np.testing.assert_allclose(actual.rate, total / size)
    pooled = nn.MaxPool()(
        jnp.asarray(aux.taps["lif2"]["spikes"]), nn.State(), nn.Call(training=False)
    )[0]
    assert actual.connections["conv4"].active == int(pooled.sum())


def test_batches_add_up_and_padding_does_not_count():
    net, x = network(), frames()
    whole = cost.measure(net, x)
    parts = cost.measure(net, x[:, :2]) + cost.measure(net, x[:, 2:])
    assert parts == whole
    padded = jnp.concatenate([x, 99 * jnp.ones_like(x)], axis=1)
    assert cost.measure(net, padded, weights=jnp.repeat(jnp.array([1, 0]), B)) == whole
    with pytest.raises(ValueError, match="at least one"):
        cost.measure(net, x, weights=jnp.zeros(B))
    with pytest.raises(ValueError, match="one network"):
        whole + cost.measure(net, x[:2])


def test_repeated_spikes_are_not_static():
    """Neurons that fire at every timestep: the second layer's input is the same each time."""
    r = nnx.Rngs(0)
    layers = [nn.Linear(2, 2, rngs=r), nn.LIF(threshold=0.1), nn.Linear(2, 2, rngs=r)]
    nnx.update(layers[0], jax.tree.map(jnp.ones_like, nnx.state(layers[0], nnx.Param)))
    net = nn.Network(nn.Sequential(*layers), (2,))
    first, second = cost.measure(net, jnp.ones((T, B, 2)) / 2).connections.values()
    assert first.static and second.binary and second.constant and not second.static
    binary, _ = cost.measure(net, jnp.ones((T, B, 2))).connections.values()
    assert binary.static and binary.binary and binary.first


def test_untrained_statistics_settle_where_training_would_take_them():
    """Against so many steps of training that what they started from is forgotten."""
    net, x = network(static_norm=False, dropout=0.5), frames(1)
    statistics = net.initial_state(1).statistics
    key = jax.random.key(0)
    settled = cost.counting.settle_statistics(net, statistics, x, key)

    @jax.jit
    def step(statistics):
        start = net.initial_state(B, statistics=statistics)
        return net(x, start, training=True, key=key)[1].statistics

    for _ in range(200):
        statistics = step(statistics)
    for ours, theirs in zip(jax.tree.leaves(settled), jax.tree.leaves(statistics), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_two_momenta_have_no_one_share():
    layers = [nn.BatchNorm(2), nn.BatchNorm(2, momentum=0.5)]
    net = nn.Network(nn.Sequential(*layers), (2,))
    with pytest.raises(ValueError, match="trained run"):
        cost.counting.settle_statistics(
            net, net.initial_state(1).statistics, jnp.ones((T, B, 2)), jax.random.key(0)
        )


def test_shared_membranes_have_no_updates_of_their_own():
    net = nn.Network(nn.Grouped(nn.LIF(), 2), (4,))
    assert shares_membranes(net) and not shares_membranes(network())
    (layer,) = cost.measure(net, jnp.ones((T, B, 4))).neurons.values()
    assert layer.updates is None and layer.stateful
    off = nn.Network(nn.Sequential(nn.Disabled()), (4,))
    (layer,) = cost.measure(off, jnp.ones((T, B, 4))).neurons.values()
    assert layer.updates is None and not layer.stateful


@pytest.mark.fast
def test_kinds_are_read_off_names():
    assert layer_kind("stack1/block0/lif12") == "lif" and layer_kind("") == ""


@pytest.mark.parametrize("constant", [True, False])
def test_a_simulation_of_constant_frames_has_its_own_timesteps(constant):
    net = models.feedback_net((3,), hidden=(4,), timesteps=6, dropout=0.0, rngs=nnx.Rngs(0))
    frames = jnp.ones((1 if constant else 6, 2, 3))
    found = cost.measure(net, frames)
    assert found.timesteps == 6
    # The map of the constant input runs once, the feedback at every timestep.
    runs = {name: connection.runs for name, connection in found.connections.items()}
    first, last = (next(n for n in runs if part in n) for part in ("inputs", "feedback"))
    assert runs[first] == (1 if constant else 6) and runs[last] == 6
