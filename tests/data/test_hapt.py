"""HAPT: windows, standardisation, split by people."""

import functools

import numpy as np
import pytest

from snnjax import data
from snnjax.data import _hapt as hapt


@functools.cache
def _real(root):
    return data.load("hapt", data_dir=root)


def _write(root, *, length=500, rows="1 1 5 11 266\n1 1 8 267 400\n2 2 1 1 128\n"):
    folder = root / "hapt" / "RawData"
    folder.mkdir(parents=True)
    ramp = np.arange(length)[:, None]
    for experiment, user in ((1, 1), (2, 2)):
        name = f"exp{experiment:02d}_user{user:02d}.txt"
        np.savetxt(folder / f"acc_{name}", ramp * [1.0, 10, 100])
        np.savetxt(folder / f"gyro_{name}", ramp * [2.0, 20, 200])
    (folder / "labels.txt").write_text(rows)
    (root / "hapt" / "activity_labels.txt").write_text("1 WALKING\n")  # not the labels
    return folder


def test_windows_overlap_by_half_and_end_with_their_stretch(tmp_path):
    _write(tmp_path)
    dataset = data.load("hapt", data_dir=tmp_path)
    # 256 samples, both ends included, make three windows; the transition (8) makes none.
    assert dataset.train.inputs.shape == (3, 128, 6) and dataset.test.inputs.shape == (1, 128, 6)
    np.testing.assert_array_equal(dataset.train.labels, [4, 4, 4])
    np.testing.assert_array_equal(dataset.test.labels, [0])
    np.testing.assert_array_equal(dataset.train.groups, [1, 1, 1])
    # Samples 11.. counted from 1 are 10.. counted from 0; the signal is a ramp.
    raw = np.stack([np.arange(10 + s, 10 + s + 128) for s in (0, 64, 128)])
    expected = (raw - raw.mean()) / raw.std()
    for channel in range(6):
        np.testing.assert_allclose(
            dataset.train.inputs[..., channel], expected, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(
        dataset.test.inputs[0, :, 0],
        (np.arange(128) - raw.mean()) / raw.std(),
        rtol=1e-4,
        atol=1e-5,
    )


def test_signals_cut_short_are_refused(tmp_path):
    folder = _write(tmp_path, length=200)
    with pytest.raises(data.CorruptDataError, match="labelled up to sample 266"):
        data.load("hapt", data_dir=tmp_path)
    table = folder / "acc_exp01_user01.txt"
    table.write_text(table.read_text()[:-30])
    with pytest.raises(data.CorruptDataError, match="acc_exp01_user01.txt is not a table"):
        data.load("hapt", data_dir=tmp_path)
    table.unlink()
    with pytest.raises(data.MissingDataError, match="signals of experiment 1"):
        data.load("hapt", data_dir=tmp_path)


def test_labels_without_a_window_are_refused(tmp_path):
    _write(tmp_path, rows="1 1 5 1 100\n")
    with pytest.raises(data.CorruptDataError, match="no activity of 128 samples"):
        data.load("hapt", data_dir=tmp_path)


def test_an_empty_folder_says_what_is_looked_for(tmp_path):
    (tmp_path / "hapt").mkdir()
    with pytest.raises(data.MissingDataError, match=r"RawData/labels.txt(.|\n)*--data-dir DIR"):
        data.load("uci_har", data_dir=tmp_path)


def test_real_windows_have_the_known_counts(shared):
    dataset = _real(shared("data", "hapt").parent)
    assert (len(dataset.train), len(dataset.test)) == (7415, 2996)
    assert dataset.train.inputs.shape[1:] == dataset.input_shape == (128, 6)
    assert dataset.train.inputs.dtype == np.float32
    assert set(dataset.test.groups) == set(hapt.TEST_USERS)
    assert len(set(dataset.train.groups)) == 21
    assert not set(dataset.train.groups) & set(hapt.TEST_USERS)
    assert set(dataset.train.labels) == set(dataset.test.labels) == set(range(6))


def test_real_windows_are_standardised_by_training_people_only(shared):
    dataset = _real(shared("data", "hapt").parent)
    mean = dataset.train.inputs.mean(axis=(0, 1), dtype=np.float64)
    deviation = dataset.train.inputs.std(axis=(0, 1), dtype=np.float64)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(deviation, 1, atol=1e-6)
    assert np.abs(dataset.test.inputs.mean(axis=(0, 1), dtype=np.float64)).max() > 1e-3
