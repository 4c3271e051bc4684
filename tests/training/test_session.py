"""Experiments that cannot be trained are refused before anything is written."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data, nn, training
from tests.training import micro
from tests.training.conftest import make


def refuse(match, **functions):
    with pytest.raises(training.errors.ExperimentError, match=match):
        training.prepare(dataclasses.replace(make(), **functions))


def test_a_batch_larger_than_the_data_set():
    refuse("2000 is larger than the 1437 training examples.*--batch 1437", batch=2000)


def test_an_evaluation_batch_may_be_larger_than_the_test_set():
    session = training.prepare(make(eval_batch=5000), training=False)
    assert session.evaluate(session.state).accuracy >= 0


def test_the_wrong_number_of_classes():
    def network(experiment, rngs):
        return nn.Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 7, rngs=rngs)), (8, 8, 1))

    refuse(r"outputs \[T, B, 10\].*got \[2, 256, 7\]", network=network)


def test_a_network_that_is_none():
    refuse("must return an nn.Network", network=lambda experiment, rngs: nn.Flatten())


def test_functions_that_fail_are_named():
    def broken(*args):
        raise KeyError("oops")

    refuse("network.* failed: KeyError: 'oops'", network=broken)
    refuse("dataset.* failed: KeyError", dataset=broken)
    refuse("encode.* failed: KeyError", encode=broken)
    refuse("schedule.* failed: KeyError", schedule=broken)
    refuse("optimizer.* failed: KeyError", optimizer=broken)
    refuse("task.* failed: KeyError", task=broken)
    refuse("failed: KeyError", task=functools.partial(training.task.classification, loss=broken))

    def mean(experiment, outputs, labels):
        return jnp.mean(outputs)

    task = functools.partial(training.task.classification, loss=mean)
    refuse("one number per example", task=task)


def test_frames_that_do_not_fit_the_network():
    refuse(r"the network failed.*takes \[T, B, 8, 8, 1\]",
           encode=lambda e, inputs, key: data.rescale(inputs, 1.0))  # fmt: skip


def test_a_data_set_that_is_none():
    refuse("must return a data.Dataset", dataset=lambda experiment: [1, 2])


def test_missing_data_stay_missing_data(tmp_path):
    with pytest.raises(data.MissingDataError, match="--data-dir"):
        training.prepare(
            dataclasses.replace(make(), dataset=lambda e: data.load("mnist", data_dir=tmp_path))
        )


def test_recordings_are_refused_with_the_cure():
    events = [np.zeros((3, 4), np.int32)] * 300
    labels = np.arange(300) % 10
    recordings = data.from_arrays(events, labels, events, labels, input_shape=(8, 8, 2))
    refuse("data.dense", dataset=lambda experiment: recordings)


def test_a_network_may_use_one_array_twice():
    """Donated buffers are the state's own: the same array in two layers is no obstacle."""
    decay = jnp.full(8, 0.5)

    def network(experiment, rngs):
        return nn.Network(
            nn.Sequential(
                nn.Flatten(), nn.Linear(64, 8, rngs=rngs), nn.LIF(decay=decay),
                nn.Linear(8, 8, rngs=rngs), nn.LIF(decay=decay), nn.Linear(8, 10, rngs=rngs),
            ),
            (8, 8, 1),
        )  # fmt: skip

    session = training.prepare(dataclasses.replace(make(), network=network))
    state, metrics = session.train(
        session.state, training.sharding.shard_batch(session.loader.batch(0), session.mesh)
    )
    assert bool(metrics.finite) and len(jax.tree.leaves(state.constants)) == 2


def test_options_of_the_compiler_only_where_there_is_a_choice():
    mesh = training.sharding.make_mesh()
    assert training.sharding.compiler_options(mesh, memory_scheduler=False) is None
    assert training.sharding.compiler_options(mesh, memory_scheduler=True) == {
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
    }
    session = training.prepare(make(memory_scheduler=True))
    batch = training.sharding.shard_batch(session.loader.batch(0), mesh)
    assert bool(session.train(session.state, batch)[1].finite)


def test_micro_is_an_experiment_file():
    loaded = training.config.load_experiment(micro.__file__)
    assert training.config.plain_values(loaded) == training.config.plain_values(micro.config())
