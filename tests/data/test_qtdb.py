"""QTDB ECG: a label every timestep, files of its layout, errors."""

import numpy as np
import pytest
import scipy.io

from snnjax import data
from snnjax.data import _qtdb

pytestmark = pytest.mark.fast
COUNTS = {"train": 3, "test": 2}


def write(folder, part, *, count=None, **changes):
    rng = np.random.default_rng(len(part))
    shape = (COUNTS[part] if count is None else count, _qtdb.STEPS)
    waves = np.eye(6, dtype=np.uint8)[rng.integers(0, 6, shape)]
    waves[:, -40:] = 0  # behind the last beat
    spikes = rng.integers(0, 2, (*shape, 4)).astype(np.int16)
    spikes[:, -1, 0] = -1
    arrays = {"x": spikes, "y": waves, "t": np.zeros(shape, np.uint16)} | changes
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / f"QTDB_{part}.mat", arrays, do_compression=True)
    return arrays


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_qtdb, "COUNTS", COUNTS)
    return tmp_path / "qtdb-ecg"


def test_every_step_has_a_label(folder):
    written = write(folder, "train")
    write(folder, "test")
    dataset = data.load("qtdb_ecg", data_dir=folder.parent)
    assert dataset.class_names == ("P", "PQ", "QRS", "ST", "T", "TP")
    assert dataset.train.inputs.shape == (3, 1301, 4) and dataset.train.inputs.dtype == np.int8
    assert dataset.train.labels.shape == (3, 1301) and dataset.test.labels.shape == (2, 1301)
    np.testing.assert_array_equal(dataset.train.inputs, written["x"])
    marked = written["y"].any(-1)
    np.testing.assert_array_equal(dataset.train.labels[~marked], 0)
    np.testing.assert_array_equal(np.eye(6)[dataset.train.labels[marked]], written["y"][marked])
    batch = data.Loader(dataset.train, batch_size=2, seed=0).batch(0)
    assert batch.labels.shape == (2, 1301)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"x": np.zeros((3, 1300, 4), np.int16)}, "'x': \\(3, 1300, 4\\)"),
        ({"x": np.full((3, 1301, 4), 2, np.int16)}, "spikes other than -1, 0 and 1"),
        ({"y": np.ones((3, 1301, 6), np.uint8)}, "steps of two waves"),
        ({"y": np.full((3, 1301, 6), 9, np.uint8)}, "steps of two waves"),
    ],
)
def test_arrays_of_another_kind_are_refused(folder, changes, match):
    write(folder, "train", **changes)
    write(folder, "test")
    with pytest.raises(data.CorruptDataError, match=match):
        data.load("qtdb_ecg", data_dir=folder.parent)


def test_missing_and_damaged_files(folder):
    write(folder, "train")
    with pytest.raises(data.MissingDataError, match=r"QTDB_test\.mat is missing(.|\n)*byin-cwi"):
        data.load("qtdb_ecg", data_dir=folder.parent)
    write(folder, "test")
    path = folder / "QTDB_train.mat"
    whole = path.read_bytes()
    for damaged in (b"", whole[:200], whole[: len(whole) // 2], b"x" * 500):
        path.write_bytes(damaged)
        with pytest.raises(data.CorruptDataError, match=r"QTDB_train\.mat"):
            data.load("qtdb_ecg", data_dir=folder.parent)


def test_the_set_itself(shared):
    dataset = data.load("qtdb_ecg", data_dir=shared("data", "qtdb-ecg").parent)
    assert (len(dataset.train), len(dataset.test)) == (618, 141)
    # 804,018 and 183,441 steps; the share of the largest class is 30.5 % of the test.
    counts = np.bincount(dataset.test.labels.ravel())
    np.testing.assert_array_equal(counts, [43209, 10145, 9840, 9065, 55885, 55297])
    assert counts.max() / counts.sum() == pytest.approx(0.305, abs=5e-4)
    assert (np.abs(dataset.train.inputs) > 0).mean() == pytest.approx(0.0775, abs=5e-4)
