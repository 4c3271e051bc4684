"""Training on several devices is training on one, and each device holds its part.

The larger table of networks, strategies and meshes is experiments/benchmarks/meshes.py.
"""

import functools
import math
import re

import jax
import numpy as np
import pytest
from flax import nnx

from snnjax import data, training
from tests.programs import loaded
from tests.training import test_unsupervised
from tests.training.conftest import make


@functools.cache
def table():
    return loaded("benchmarks/meshes.py")


@functools.cache
def mesh(text):
    return training.sharding.make_mesh(**training.sharding.parse_mesh(text))


@functools.cache
def measured(kind, memory, text):
    return table().measure(table().experiment(kind, memory), mesh(text))


def differences(kind, memory, text):
    return table().compare(measured(kind, memory, text), measured(kind, memory, ""))


@pytest.mark.fast
@pytest.mark.parametrize("text", ["data=4", "fsdp=4"])
def test_without_thresholds_twenty_steps_end_at_the_same_parameters(text):
    assert differences("analog", "", text)["parameters"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("text", ["data=2", "data=8", "fsdp=2", "model=2", "data=2,fsdp=2,model=2"])
def test_on_any_mesh_they_do(text):
    assert differences("analog", "", text)["parameters"] < 1e-5


@pytest.mark.slow
def test_with_norms_in_groups_a_spiking_network_has_the_same_gradient():
    found = differences("ghost", "depth=reverse", "data=4")
    assert found["flips"] == 0 and found["gradient"] < 1e-6
    assert found["loss"] < 0.05  # of 20 steps: sums in another order flip a spike, then more


@pytest.mark.slow
@pytest.mark.parametrize("text", ["data=8", "fsdp=4", "model=2", "data=2,fsdp=2,model=2"])
@pytest.mark.parametrize("memory", ["depth=store", "depth=recompute(1)", "depth=reverse"])
def test_under_every_strategy_and_mesh(memory, text):
    found = differences("spiking", memory, text)
    assert found["flips"] == 0
    assert found["gradient"] < 1e-6
    assert found["loss"] < 0.05


@pytest.mark.fast
def test_each_device_holds_its_part():
    assert differences("analog", "", "fsdp=4")["held"] <= 0.27
    assert differences("analog", "", "data=4")["temporary"] <= 0.27
    assert differences("analog", "", "data=4")["held"] == 1


def compiled(experiment, text):
    return training.prepare(experiment, mesh=mesh(text))


def test_no_device_gathers_the_batch(micro_on_four):
    text = micro_on_four.train.as_text()
    assert "all-reduce" in text
    assert not re.search(r"all-to-all|collective-permute", text)
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather", text)
    sizes = [math.prod(map(int, shape.split(","))) for shape in gathered]
    # Sums of batch norm, of at most 64 parts of the batch and 64 channels: no activation.
    assert sizes and max(sizes) <= 64 * 64


@pytest.fixture(scope="module")
def micro_on_four():
    return compiled(make(batch=64, eval_batch=60, norm_groups=1), "data=4")


@pytest.fixture(scope="module")
def micro_alone():
    return compiled(make(batch=64, eval_batch=60), "")


def steps(session, count=4):
    state = session.state._replace()
    state = jax.tree.map(lambda x: jax.numpy.copy(x), state)
    for step in range(count):
        state, metrics = session.train(
            state, training.sharding.feed(session.loader, step, session.mesh)
        )
    return state, metrics


def test_dropout_augmentation_and_statistics_are_those_of_one_device(micro_on_four, micro_alone):
    (one, alone), (four, shared) = steps(micro_alone, 1), steps(micro_on_four, 1)
    np.testing.assert_allclose(shared.loss, alone.loss, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (four.statistics, one.statistics)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    found, expected = micro_on_four.evaluate(four), micro_alone.evaluate(one)
    assert found.accuracy == pytest.approx(expected.accuracy, abs=2 / 360)


def updated(text, **fields):
    """State and metrics after a step, compiled without the evaluation beside it."""
    experiment = make(batch=64, **fields)
    program, state = training.initialize(experiment, steps=44, mesh=mesh(text))
    step = training.sharding.compile_step(
        functools.partial(training.train_step, program), mesh(text)
    )
    loader = data.Loader(experiment.dataset(experiment).train, batch_size=64)
    return step(state, training.sharding.feed(loader, 0, mesh(text)))


@pytest.mark.parametrize(
    "fields",
    [
        {"norm_groups": 2},
        *(
            pytest.param(fields, marks=pytest.mark.slow)  # fields that groups share a path with
            for fields in ({"accumulate": 2}, {"norm_groups": 4}, {"mixup": 0.5})
        ),
    ],
)
def test_groups_parts_and_mixtures_do_not_depend_on_the_devices(fields):
    (one, alone), (two, shared) = updated("", **fields), updated("data=2", **fields)
    np.testing.assert_allclose(shared.loss, alone.loss, rtol=1e-5)
    np.testing.assert_allclose(shared.gradient_norm, alone.gradient_norm, rtol=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (two.statistics, one.statistics)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_devices_share_one_loss_scale():
    """An overflow on any of them leaves the update out on all."""
    session = compiled(make(batch=64, precision="float16"), "data=2")
    batch = training.sharding.feed(session.loader, 0, session.mesh)
    copied = functools.partial(jax.tree.map, jax.numpy.copy, session.state)
    after, metrics = session.train(copied(), batch)
    assert metrics.finite and float(after.loss_scale.scale) == 2.0**15
    _, alone = updated("", precision="float16")
    np.testing.assert_allclose(metrics.gradient_norm, alone.gradient_norm, rtol=0.05)
    high = session.state.loss_scale._replace(scale=jax.numpy.float32(2.0**40))
    after, metrics = session.train(copied()._replace(loss_scale=high), batch)
    assert not metrics.finite and after.finite
    jax.tree.map(np.testing.assert_array_equal, after.params, session.state.params)


@pytest.mark.fast
@pytest.mark.parametrize(
    "fields, text, cure",
    [
        ({"batch": 255}, "data=2", "255 cannot be cut evenly over 2 devices: .* multiple of 2"),
        ({"batch": 6, "accumulate": 3}, "data=4", "6 in 3 parts .* multiple of 12"),
        ({"batch": 64, "norm_groups": 2}, "data=4", "choose 1, .* or a multiple of 4"),
    ],
)
def test_fields_that_devices_cannot_share_are_refused(fields, text, cure):
    with pytest.raises(training.errors.MeshError, match=cure):
        training.prepare(make(**fields), mesh=mesh(text))


@pytest.mark.fast
def test_a_network_for_one_device_is_left_as_it_is():
    program, _ = training.initialize(make(), steps=1, mesh=mesh(""))
    assert program.axes == ()
    program, state = training.initialize(make(), steps=1, mesh=mesh("data=2, model=2"))
    network = program.network(state)
    named = {type(m).__name__ for _, m in nnx.iter_modules(network) if getattr(m, "axes", ())}
    assert program.axes == ("data", "fsdp") and named == {"BatchNorm", "Dropout"}


@pytest.mark.fast
def test_slots_and_parameters_stay_where_they_are():
    session = compiled(make(batch=64, width=64), "fsdp=2")
    before = jax.tree.map(lambda x: x.sharding, session.state.params)
    state, _ = steps(session, 1)
    assert jax.tree.map(lambda x: x.sharding, state.params) == before
    cut = [s for s in jax.tree.leaves(before) if "fsdp" in str(s.spec)]
    assert cut


def test_plasticity_is_refused_on_several_devices(tmp_path):
    (tmp_path / "plastic.py").write_text(test_unsupervised.FILE)
    experiment = training.config.load_experiment(tmp_path / "plastic.py")
    with pytest.raises(training.errors.MeshError, match="leave the mesh out"):
        training.prepare(experiment, mesh=mesh("data=2"))
