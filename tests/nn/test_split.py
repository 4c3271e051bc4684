"""One loop of one's own: gradients, slots and checkpoints do not know the memory strategy.

The loop is written out here as a user would write it, with `nn.split`, optax and Orbax.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from snnjax import losses, memory, models, nn
from tests.compare import assert_equal
from tests.nn.networks import NETWORKS

T, B = 3, 8
STORE = memory.Strategy(depth=memory.store)
LEAN = memory.Strategy(depth=memory.recompute(1), pack=True)
FRAMES = jax.random.normal(jax.random.key(0), (T, B, 8, 8, 2))
LABELS = jnp.arange(B) % 4
OPTIMIZER = optax.adam(1e-2)


def network(strategy):
    """Eight channels everywhere, so that the arrays can be cut over eight devices."""
    return models.ms_resnet(
        blocks=(3,), widths=(8,), classes=8, input_shape=(8, 8, 2), rngs=nnx.Rngs(0),
        memory=strategy,
    )  # fmt: skip


@jax.jit
def moved(gradient, slots, params):
    """One program for all strategies, so that the bits of an update are those of its gradient."""
    with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
        updates, slots = OPTIMIZER.update(gradient, slots, params)
    return optax.apply_updates(params, updates), slots


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """A training loop: its network, and one update of `(params, slots, statistics)`."""

    graphdef: Any
    constants: Any

    @classmethod
    @functools.cache
    def begin(cls, strategy):
        """One loop per strategy, compiled once for all tests."""
        net = network(strategy)
        graphdef, params, constants = nn.split(net)
        start = params, OPTIMIZER.init(params), net.initial_state(1).statistics
        return cls(graphdef, constants), start

    def loss(self, params, statistics):
        net = nn.merge(self.graphdef, params, self.constants)
        state = net.initial_state(B)._replace(statistics=statistics)
        outputs, aux = net(FRAMES, state, training=True)
        return losses.mean(losses.rate_cross_entropy(outputs, LABELS)), aux.statistics

    @functools.cached_property
    def gradient(self):
        return jax.jit(jax.grad(self.loss, has_aux=True))

    def update(self, params, slots, statistics):
        gradient, statistics = self.gradient(params, statistics)
        return *moved(gradient, slots, params), statistics

    def run(self, state, steps):
        for _ in range(steps):
            state = self.update(*state)
        return state


def test_gradients_of_two_strategies_are_one_kind_of_tree():
    (store, (params, _, statistics)), (lean, _) = Loop.begin(STORE), Loop.begin(LEAN)
    assert store.graphdef != lean.graphdef  # the strategy is in here
    stored, _ = store.gradient(params, statistics)
    recomputed, _ = lean.gradient(params, statistics)
    gap = jax.tree.map(jnp.subtract, stored, recomputed)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gap)) < 1e-6
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(stored)) > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_params_and_constants_are_the_same_trees_under_every_strategy(name):
    net = NETWORKS[name]()
    graphdef, *trees = nn.split(net)
    for strategy in nn.candidates(net):
        other, *others = nn.split(nn.with_memory(net, strategy))
        assert jax.tree.structure(others) == jax.tree.structure(trees)
        assert_equal(jax.tree.leaves(others), jax.tree.leaves(trees))
        merged = nn.merge(other, *trees)
        assert nnx.graphdef(merged) == nnx.graphdef(nn.with_memory(net, strategy))
    assert nnx.graphdef(nn.merge(graphdef, *trees)) == nnx.graphdef(net)


def test_training_goes_on_under_another_strategy_with_its_slots():
    (store, start), (lean, _) = Loop.begin(STORE), Loop.begin(LEAN)
    after = store.run(start, 3)
    assert_equal(lean.run(after, 3), store.run(after, 3))


def test_orbax_saves_a_loop_and_restores_it_onto_a_mesh(tmp_path: pathlib.Path):
    from orbax.checkpoint import v1 as ocp

    loop, start = Loop.begin(STORE)
    state = loop.run(start, 2)
    ocp.save(tmp_path / "two", state)

    # In another process: the network under another strategy, its arrays cut over eight devices.
    mesh = jax.make_mesh((8,), ("fsdp",), (AxisType.Auto,))

    def cut(x):
        last = PartitionSpec(*[None] * (x.ndim - 1), "fsdp")
        fits = x.ndim > 1 and x.shape[-1] % 8 == 0
        sharding = NamedSharding(mesh, last if fits else PartitionSpec())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    other = Loop.begin(LEAN)[0]
    shapes = jax.eval_shape(lambda: Loop.begin(LEAN)[1])
    restored = ocp.load(tmp_path / "two", jax.tree.map(cut, shapes))

    assert_equal(restored, state)
    kernels = [leaf for leaf in jax.tree.leaves(restored[0]) if leaf.ndim == 4]
    assert all(len(leaf.addressable_shards) == 8 for leaf in kernels)
    assert all(leaf.addressable_shards[0].data.size * 8 == leaf.size for leaf in kernels)
    there, here = other.run(restored, 1), loop.run(state, 1)
    for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
