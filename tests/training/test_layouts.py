"""Layouts: which axis is cut, slots beside their parameters, and rules by name."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from snnjax import training
from tests.training.conftest import make

pytestmark = pytest.mark.fast


def mesh(**sizes):
    return training.sharding.make_mesh(**sizes)


@pytest.mark.parametrize(
    "sizes, shape, spec",
    [
        ({"fsdp": 4}, (3, 3, 64, 128), P(None, None, None, "fsdp")),
        ({"fsdp": 4}, (512, 10), P("fsdp", None)),
        ({"fsdp": 4}, (3, 5, 7, 9), P(None, None, None, None)),  # nothing divides
        ({"fsdp": 4}, (8, 8), P()),  # too small to be worth it
        ({"model": 2}, (3, 3, 64, 128), P(None, None, None, "model")),
        ({"model": 4}, (512, 10), P("model", None)),  # ten outputs cannot be cut into four
        ({"model": 2}, (1024,), P(None)),  # a bias is on every device
        ({"fsdp": 2, "model": 2}, (64, 128), P("fsdp", "model")),
        ({"fsdp": 2, "model": 2}, (1024,), P("fsdp")),
        ({"data": 2}, (64, 128), P(None, None)),
    ],
)
def test_shapes_decide_by_default(sizes, shape, spec):
    assert training.sharding.by_shape("", shape, mesh(**sizes)) == spec


def test_small_arrays_are_cut_where_asked():
    rule = functools.partial(training.sharding.by_shape, smallest=1)
    assert rule("", (8, 8), mesh(fsdp=4)) == P(None, "fsdp")


def laid_out(experiment, **sizes):
    _, state = training.initialize(experiment, steps=3)
    return state, training.sharding.state_shardings(state, mesh(**sizes), experiment.layout)


def specs(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.spec for path, leaf in leaves}


@pytest.mark.parametrize(
    "optimizer", [training.optimizer.adamw, training.optimizer.sgd, training.optimizer.lamb]
)
def test_slots_lie_as_their_parameters_do(optimizer):
    import dataclasses

    experiment = dataclasses.replace(make(width=64, clip_norm=1.0), optimizer=optimizer)
    state, layout = laid_out(experiment, fsdp=4)
    cut = {name for name, spec in specs(layout.params).items() if "fsdp" in spec}
    assert len(cut) == 2  # both kernels
    slots = specs(layout.optimizer)
    for name in cut:
        beside = [spec for slot, spec in slots.items() if slot.endswith(name)]
        assert beside and set(beside) == {specs(layout.params)[name]}
    assert all(spec == P() for name, spec in slots.items() if "count" in name)
    assert {*specs(layout.statistics).values()} == {P()}
    jax.tree.map(lambda x, s: s.shard_shape(x.shape), state, layout)  # all of it fits


def test_patterns_decide_before_shapes():
    rule = training.sharding.by_name({"layers.*5.*kernel": P(None, "model")})
    chosen = functools.partial(rule, mesh=mesh(model=2))
    assert chosen("['layers'][5]['kernel']", (64, 10)) == P(None, "model")
    assert chosen("['layers'][1]['kernel']", (64, 64)) == P(None, "model")
    assert training.sharding.by_name({"k": P()})("k", (64, 64), mesh(model=2)) == P()


@pytest.mark.parametrize("spec, why", [(P("rows"), "rows"), (P("fsdp"), "evenly|divisible")])
def test_a_rule_that_does_not_fit_is_refused(spec, why):
    import dataclasses

    experiment = dataclasses.replace(make(width=9), layout=lambda path, shape, mesh: spec)
    with pytest.raises(
        training.errors.MeshError, match=f"the layout puts .* does not fit: .*({why})"
    ):
        laid_out(experiment, fsdp=2)


def test_one_device_has_everything():
    state, layout = laid_out(make())
    assert {*specs(layout).values()} == {P()}
    assert jax.tree.structure(state) == jax.tree.structure(layout)


def test_masked_and_factored_slots_are_laid_out_too():
    import dataclasses

    def optimizer(experiment, schedule):
        decays = optax.masked(optax.trace(0.9), lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
        return optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=8), decays)

    experiment = dataclasses.replace(make(width=64), optimizer=optimizer)
    state, layout = laid_out(experiment, fsdp=2)
    jax.tree.map(lambda x, s: s.shard_shape(jnp.shape(x)), state, layout)
    assert any("fsdp" in spec for spec in specs(layout.optimizer).values())
