"""Split and Dataset: validation, rescaling, patches, dense frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data


def _events(count: int) -> np.ndarray:
    t = np.arange(count, dtype=np.int32) * 1000
    return np.stack([t, t % 34, t % 31, t % 2], axis=1).astype(np.int32)


def _recordings() -> data.Dataset:
    return data.from_arrays(
        [_events(3), _events(5)],
        np.array([0, 1]),
        [_events(2)],
        np.array([1]),
        input_shape=(34, 34, 2),
    )


def test_a_split_needs_one_label_per_example():
    with pytest.raises(ValueError, match="3 inputs, 2 labels"):
        data.Split(np.zeros((3, 2)), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="1 groups"):
        data.Split(np.zeros((2, 2)), np.zeros(2, np.int32), np.zeros(1, np.int32))


def test_labels_outside_the_classes_are_refused():
    x, y = np.zeros((2, 3)), np.array([1, 2])
    with pytest.raises(ValueError, match="count classes from zero"):
        data.from_arrays(x, y, x, y, class_names=("a", "b"))


def test_taking_examples_keeps_input_label_and_group_together():
    split = data.Split(np.arange(5), np.arange(5, dtype=np.int32), np.arange(5, dtype=np.int32))
    taken = split.take(np.array([3, 1]))
    for leaf in (taken.inputs, taken.labels, taken.groups):
        np.testing.assert_array_equal(leaf, [3, 1])
    assert split[4] == (4, 4)
    recordings = _recordings().train.take(np.array([1]))
    assert len(recordings.inputs[0]) == 5


def test_rescale_standardises_per_channel():
    pixels = np.array([[0, 51], [255, 102]], np.uint8)
    options = {"mean": (0.5, 0.2), "deviation": (0.25, 0.1)}
    out = jax.jit(lambda x: data.rescale(x, 1 / 255, **options))(pixels)
    np.testing.assert_allclose(out, [[-2, 0], [2, 2]], atol=1e-6)
    assert out.dtype == jnp.float32
    for wrong in ({"deviation": 0.0}, {"deviation": (1, -1)}, {"mean": np.nan}):
        with pytest.raises(ValueError, match="positive"):
            data.rescale(pixels, 1 / 255, **wrong)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rescale_gives_float32_inside_jit(dtype):
    stored = np.array([[0, 16, 8]], dtype)
    out = jax.jit(data.rescale, static_argnums=1)(stored, 1 / 16)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, [[0.0, 1.0, 0.5]])


def test_dense_turns_recordings_into_frames():
    def to_frames(events):
        frames = np.zeros((4, 34, 34, 2), np.uint8)
        np.add.at(frames, (events[:, 0] % 4, events[:, 2], events[:, 1], events[:, 3]), 1)
        return frames

    dataset = data.dense(_recordings(), to_frames)
    assert dataset.train.inputs.shape == (2, 4, 34, 34, 2)
    assert dataset.train.inputs.dtype == np.uint8
    assert dataset.input_shape == (34, 34, 2)
    np.testing.assert_array_equal(dataset.train.inputs.sum(axis=(1, 2, 3, 4)), [3, 5])
    batch = data.Loader(dataset.train, batch_size=2).batch(0)
    assert batch.inputs.shape == (2, 4, 34, 34, 2)


def test_dense_refuses_frames_of_different_shapes():
    with pytest.raises(ValueError, match="fixed number of timesteps"):
        data.dense(_recordings(), lambda events: events)


@pytest.mark.fast
def test_patches_keep_every_pixel_where_it_was():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    cut = np.asarray(data.patches(jnp.asarray(images)))
    assert cut.shape == (2, 2, 3, 12)
    for row, column in np.ndindex(4, 6):
        channels = 3 * (2 * (row % 2) + column % 2) + np.arange(3)
        np.testing.assert_array_equal(
            cut[:, row // 2, column // 2, channels], images[:, row, column]
        )


@pytest.mark.fast
@pytest.mark.parametrize("size", [0, 4])
def test_patches_must_fill_the_image(size):
    with pytest.raises(ValueError, match="do not fill images of 4x6: pad them"):
        data.patches(jnp.zeros((1, 4, 6, 1)), size=size)


def test_frames_of_recordings_of_different_lengths_are_padded(tmp_path):
    recordings = [np.full((n, 4), n, np.int32) for n in (2, 4, 1)]
    split = data.Split(tuple(recordings), np.array([0, 1, 0]))
    dataset = data.Dataset("made", split, split, 2, ("a", "b"), (4, 4, 2), 1.0, "")

    def frames(events):
        return np.full((len(events), 1, 1, 2), len(events), np.uint8)

    for directory in (None, tmp_path):
        found = data.dense(dataset, frames, timesteps=5, directory=directory).train
        assert found.lengths.tolist() == [2, 4, 1] and found.inputs.shape == (3, 5, 1, 1, 2)
        assert found.inputs[:, :, 0, 0, 0].tolist() == [
            [2, 2, 0, 0, 0], [4, 4, 4, 4, 0], [1, 0, 0, 0, 0]
        ]  # fmt: skip
    with pytest.raises(ValueError, match="recording 1 gave frames .* 1 to 3 timesteps"):
        data.dense(dataset, frames, timesteps=3)
