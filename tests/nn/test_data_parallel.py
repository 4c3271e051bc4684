"""Examples shared by devices: draws of the whole batch, joined statistics, norms over all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from snnjax import nn
from snnjax.nn.contract import Statistics
from snnjax.nn.data_parallel import local_rows

pytestmark = pytest.mark.fast
AXES = ("data", "fsdp")


SECOND = P(None, AXES)


def spread(function, *arguments, specs=SECOND, out=SECOND):
    """The function on four devices, each with its own examples."""
    mesh = jax.make_mesh((2, 2), AXES, (AxisType.Auto,) * 2, devices=jax.devices()[:4])
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
    return jax.jit(mapped)(*arguments)


def test_rows_are_those_of_the_whole_draw():
    draw = functools.partial(jax.random.uniform, jax.random.key(3))
    whole = draw((5, 8))
    own = lambda: local_rows(draw, (5, 2), axis=1, axes=AXES)  # noqa: E731
    np.testing.assert_array_equal(spread(own, specs=()), whole)
    np.testing.assert_array_equal(local_rows(draw, (5, 8), axis=1, axes=()), whole)


def test_dropout_silences_what_it_would_on_one_device():
    inputs, key = jnp.ones((3, 8, 6)), jax.random.key(1)
    layer = nn.Dropout(0.5)
    shared = nn.data_parallel.with_data_axes(layer, AXES)
    run = lambda layer, x: layer(x, nn.State(), nn.Call(training=True, key=key))[0]  # noqa: E731
    np.testing.assert_array_equal(
        spread(functools.partial(run, shared), inputs), run(layer, inputs)
    )
    assert layer.axes == ()  # the original is left as it was


@pytest.mark.parametrize("over", ["window", "step"])
def test_norms_look_at_all_devices(over):
    inputs = jax.random.normal(jax.random.key(0), (3, 8, 4, 5)) * 3 + 1
    layer = nn.BatchNorm(5, over=over)
    state = layer.initial_state(inputs.shape[1:])

    def run(layer, x):
        def loss(layer):
            y, aux = layer(x, state, nn.Call(training=True))
            return jnp.sum(jnp.sin(y)), (y, aux.statistics)

        gradient, found = jax.grad(loss, has_aux=True)(layer)
        if layer.axes:
            gradient = jax.lax.psum(gradient, layer.axes)
        return *found, jax.tree.leaves(gradient)

    shared = nn.data_parallel.with_data_axes(layer, AXES)
    out = (P(None, AXES), P(), P())
    found = spread(functools.partial(run, shared), inputs, out=out)
    for a, b in zip(*map(jax.tree.leaves, (found, jax.jit(run)(layer, inputs))), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_groups_cross_no_device():
    layer = nn.BatchNorm(5, axes=AXES)
    grouped = nn.data_parallel.with_data_axes(layer, AXES, norm_groups=1)
    inputs = jax.random.normal(jax.random.key(0), (2, 8, 5))
    state = layer.initial_state((8, 5))
    run = lambda x: nn.BatchNorm(5)(x, state, nn.Call(training=True))[0]  # noqa: E731
    own = lambda x: nn.BatchNorm(5, groups=4)(x, state, nn.Call(training=True))[0]  # noqa: E731
    assert grouped.groups == 1 and grouped.axes == ()
    np.testing.assert_allclose(spread(run, inputs), own(inputs), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="3 groups do not divide a batch of 8"):
        nn.BatchNorm(5, groups=3)(inputs, state, nn.Call(training=True))


def test_statistics_of_devices_are_joined():
    means = jnp.array([1.0, 2.0, 3.0, 6.0])

    def joined(mean):
        return nn.data_parallel.pmean_statistics(Statistics(mean[0], mean[0]), AXES)

    statistics = spread(joined, means, specs=P(AXES), out=P())
    assert float(statistics.mean) == 3
    third = jnp.full(4, jnp.float32(1) / 3)
    same = spread(joined, third, specs=P(AXES), out=P())
    assert float(same.mean) == float(third[0])  # equal ones stay, to the bit
    assert nn.data_parallel.pmean_statistics(("as", "they are"), ()) == ("as", "they are")
