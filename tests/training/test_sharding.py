"""Where things are put: batches in rows, states in buffers of their own."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from snnjax import data, training
from snnjax.training.sharding import device_rows

pytestmark = pytest.mark.fast


@pytest.fixture
def loader():
    return data.Loader(data.load("digits").train, batch_size=16, seed=3)


def test_a_batch_is_cut_along_its_rows(loader):
    mesh = training.sharding.make_mesh(data=2, fsdp=2, model=2)
    batch = training.sharding.feed(loader, 5, mesh)
    leaves = (jax.tree.leaves(tree) for tree in (batch, loader.batch(5)))
    for found, expected in zip(*leaves, strict=True):
        assert found.sharding.shard_shape(found.shape)[0] == 4
        np.testing.assert_array_equal(found, expected)


def test_rows_of_all_devices_are_the_whole_batch_once(loader):
    mesh = training.sharding.make_mesh(data=4, model=2)
    assert device_rows(mesh.local_devices, 16, mesh).tolist() == list(range(16))
    places = training.sharding.feed(loader, 0, mesh).labels.sharding.devices_indices_map((16,))
    rows = sorted(range(16)[place[0]][0] for place in places.values())
    assert rows == [0, 0, 4, 4, 8, 8, 12, 12]  # twice, as the model axis has all of the batch


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    processes=st.sampled_from([1, 2, 4, 8]),
    axes=st.sampled_from([(8, 1), (4, 2), (2, 4), (1, 8)]),
    rows=st.integers(1, 5),
    step=st.integers(0, 400),
)
def test_processes_read_disjoint_parts_of_the_one_batch(processes, axes, rows, step):
    mesh = training.sharding.make_mesh(data=axes[0], fsdp=axes[1])
    size = 8 * rows
    loader = data.Loader(data.load("digits").train, batch_size=size, seed=5)
    groups = np.split(mesh.devices.ravel(), processes)  # as processes have them
    parts = [device_rows(group, size, mesh) for group in groups]
    assert sorted(np.concatenate(parts)) == list(range(size))
    read = [jax.tree.leaves(loader.batch(step, rows=part)) for part in parts]
    whole = jax.tree.leaves(loader.batch(step))
    for field, expected in zip(zip(*read, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(field), expected)


def test_a_mesh_of_ones_own_will_do():
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    batch = training.sharding.shard_batch({"x": np.ones((4, 3), np.float32)}, mesh)
    assert batch["x"].sharding.shard_shape((4, 3)) == (2, 3)


def test_a_placed_state_has_buffers_of_its_own():
    mesh = training.sharding.make_mesh()
    one = jax.numpy.ones(3)
    placed = training.sharding.place((one, one), mesh)
    assert placed[0].unsafe_buffer_pointer() != placed[1].unsafe_buffer_pointer()
