"""HAPT: windows, standardisation, split by people."""

import functools
import pathlib
import re
import tarfile

import numpy as np
import pytest

from snnjax import data
from snnjax.data import _hapt as hapt
from tests.conftest import shared_folder


@functools.cache
def _real(root):
    return data.load("hapt", data_dir=root)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder with the real signals of two training people and one for testing, and its labels."""
    (path,) = shared_folder("data", "hapt").glob("*.tar.xz")
    root = tmp_path_factory.mktemp("few")
    (root / "hapt").mkdir()
    with tarfile.open(path) as archive:
        for member in archive:
            name = pathlib.PurePath(member.name).name
            if name == "labels.txt" or re.fullmatch(r".*_user0[123]\.txt", name):
                (root / "hapt" / name).write_bytes(archive.extractfile(member).read())
    labels = root / "hapt" / "labels.txt"
    rows = [row for row in labels.read_text().splitlines() if int(row.split()[1]) in (1, 2, 3)]
    labels.write_text("\n".join(rows))
    return root, np.array([row.split() for row in rows], int)


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


def test_real_windows_are_those_of_their_labels_standardised_by_training_people_only(few):
    root, rows = few
    dataset = data.load("hapt", data_dir=root)
    for split, users in ((dataset.train, (1, 3)), (dataset.test, (2,))):
        own = rows[np.isin(rows[:, 1], users) & (rows[:, 2] <= 6)]
        windows = np.maximum((own[:, 4] - own[:, 3] + 1 - 128) // 64 + 1, 0)
        assert split.inputs.shape == (windows.sum(), 128, 6)
        counts = np.bincount(own[:, 2] - 1, windows, minlength=6)
        np.testing.assert_array_equal(np.bincount(split.labels), counts)
        assert set(split.groups) == set(users)
    assert dataset.train.inputs.dtype == np.float32
    assert_standardised(dataset)


# All 122 tables of text take a quarter of a minute to parse.
@pytest.mark.slow
def test_real_windows_have_the_known_counts(shared):
    dataset = _real(shared("data", "hapt").parent)
    assert (len(dataset.train), len(dataset.test)) == (7415, 2996)
    assert dataset.train.inputs.shape[1:] == dataset.input_shape == (128, 6)
    assert dataset.train.inputs.dtype == np.float32
    assert set(dataset.test.groups) == set(hapt.TEST_USERS)
    assert len(set(dataset.train.groups)) == 21
    assert not set(dataset.train.groups) & set(hapt.TEST_USERS)
    assert set(dataset.train.labels) == set(dataset.test.labels) == set(range(6))

    assert_standardised(dataset)


def assert_standardised(dataset):
    """Mean and deviation of the training people alone."""
    mean = dataset.train.inputs.mean(axis=(0, 1), dtype=np.float64)
    deviation = dataset.train.inputs.std(axis=(0, 1), dtype=np.float64)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(deviation, 1, atol=1e-6)
    assert np.abs(dataset.test.inputs.mean(axis=(0, 1), dtype=np.float64)).max() > 1e-3
