"""SHD and SSC: files of their layout, binning, and errors."""

import hashlib

import numpy as np
import pytest

from snnjax import data, encoding
from snnjax.data import _shd
from snnjax.data.registry import load

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.fast

COUNTS = {"train": 6, "valid": 3, "test": 4}


def write(path, count, *, classes=20, seed=0, times=None, units=None, keys=True, speakers=True):
    """A part in the published layout: half-precision seconds, names of the classes, speakers."""
    rng = np.random.default_rng(seed)
    lists = [np.sort(rng.uniform(0, 1.3, 20 + i)).astype(np.float16) for i in range(count)]
    lists = lists if times is None else times
    channels = [rng.integers(0, 700, len(t)).astype(np.uint16) for t in lists]
    channels = channels if units is None else units
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values, dtype in (
            ("times", lists, lists[0].dtype),
            ("units", channels, channels[0].dtype),
        ):
            rows = file.create_dataset(
                f"spikes/{name}", (count,), dtype=h5py.vlen_dtype(np.dtype(dtype))
            )
            for i, row in enumerate(values):
                rows[i] = row
        file["labels"] = np.arange(count, dtype=np.uint16) % classes
        if speakers:
            file["extra/speaker"] = np.arange(count, dtype=np.uint16) % 3
        if keys:
            names = [f"word {i}".encode() for i in range(classes)]
            file.create_dataset("extra/keys", data=names)
    return lists, channels


@pytest.fixture
def few(monkeypatch):
    """Sets of few recordings count as complete."""
    monkeypatch.setattr(_shd, "COUNTS", {"shd": COUNTS, "ssc": COUNTS})


def test_recordings_are_read_on_access_and_binned(tmp_path, few):
    times, units = write(tmp_path / "shd" / "shd_train.h5", 6)
    write(tmp_path / "shd" / "shd_test.h5", 4, seed=1)
    dataset = data.load("shd", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (6, 4, 20)
    assert dataset.class_names[3] == "word 3" and dataset.input_shape == (1, 700, 2)
    events = dataset.train.inputs[2]
    np.testing.assert_array_equal(events[:, 0], np.round(times[2].astype(np.float64) * 1e6))
    np.testing.assert_array_equal(np.sort(events[:, 1]), np.sort(units[2]))
    assert (events[:, 2] == 0).all() and (events[:, 3] == 1).all()

    def bins(events):
        return encoding.events.channels_by_time(
            events, timesteps=100, channels=700, duration=1_400_000, neighbors=5
        )

    dense = data.dense(dataset, bins)
    assert dense.train.inputs.shape == (6, 100, 140) and dense.input_shape == (140,)
    assert dense.train.inputs[5].sum() == len(times[5])
    # By hand: every spike in the bin of 14 ms and the group of five channels that hold it.
    expected = np.zeros((100, 140))
    for t, unit in zip(times[0].astype(np.float64), units[0], strict=True):
        expected[int(round(t * 1e6) // 14_000), unit // 5] += 1
    np.testing.assert_array_equal(dense.train.inputs[0], expected)


def test_speakers_are_held_out_within_training(tmp_path, few):
    write(tmp_path / "shd" / "shd_train.h5", 6)
    write(tmp_path / "shd" / "shd_test.h5", 4)
    dataset = data.load("shd", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.groups, [0, 1, 2, 0, 1, 2])
    held = data.hold_out(dataset, share=0.3)
    assert len(held.test) == 2 and not set(held.train.groups) & set(held.test.groups)


def test_the_validation_part_of_ssc_has_a_name(tmp_path, few):
    for part, count in COUNTS.items():
        write(tmp_path / "ssc" / f"ssc_{part}.h5", count, classes=35, keys=False, speakers=False)
    assert len(data.load("ssc", data_dir=tmp_path).test) == 4
    dataset = data.load("ssc_valid", data_dir=tmp_path)
    assert (dataset.name, len(dataset.test), dataset.classes) == ("ssc_valid", 3, 35)
    assert dataset.train.groups is None and dataset.class_names[34] == "34"


def test_the_published_numbers():
    assert _shd.COUNTS == {
        "shd": {"train": 8156, "test": 2264},
        "ssc": {"train": 75466, "valid": 9981, "test": 20382},
    }


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"times": [np.array([0.1, 700.0])] * 2}, "seconds from 0 to 60.*divide by 1000"),
        ({"times": [np.array([0.1, np.nan])] * 2}, "seconds from 0 to 60"),
        ({"times": [np.array([-0.1, 0.2])] * 2}, "seconds from 0 to 60"),
        ({"times": [np.array([1, 2])] * 2}, "seconds from 0 to 60"),
        ({"units": [np.array([700] * 20), np.array([1] * 21)]}, "outside 1x700"),
        ({"units": [np.array([7]), np.array([1])]}, "columns of shapes"),
    ],
)
def test_damaged_recordings_are_named(tmp_path, content, match):
    for part in ("train", "test"):
        write(tmp_path / f"shd_{part}.h5", 2, **content)
    dataset = _shd.read_shd(tmp_path, counts={"train": 2, "test": 2})
    with pytest.raises(data.CorruptDataError, match=match) as caught:
        dataset.train.inputs[0]
    assert "shd_train.h5: recording 0" in str(caught.value)


def test_damaged_files_are_named(tmp_path, few):
    folder = tmp_path / "shd"
    write(folder / "shd_train.h5", 6)
    write(folder / "shd_test.h5", 3)
    with pytest.raises(data.CorruptDataError, match=r"shd_test\.h5 has .*published part has 4"):
        data.load("shd", data_dir=tmp_path)
    whole = (folder / "shd_train.h5").read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 1):
        (folder / "shd_train.h5").write_bytes(whole[:kept])
        with pytest.raises(data.CorruptDataError, match=r"shd_train\.h5 cannot be read as HDF5"):
            data.load("shd", data_dir=tmp_path)
    with h5py.File(folder / "shd_train.h5", "w") as file:
        file["labels"] = np.zeros(6, int)
        file["spikes/times"] = h5py.SoftLink("/nowhere")
    with pytest.raises(data.CorruptDataError, match="lacks spikes/times, spikes/units; it has"):
        data.load("shd", data_dir=tmp_path)
    write(folder / "shd_train.h5", 6)
    with h5py.File(folder / "shd_train.h5", "a") as file:
        file["labels"][0] = 20
    with pytest.raises(data.CorruptDataError, match="labels from 1 to 20, not 0 to 19"):
        data.load("shd", data_dir=tmp_path)


def test_a_packed_file_is_checked_before_the_advice_to_unpack_it(tmp_path, monkeypatch):
    folder = tmp_path / "shd"
    folder.mkdir()
    archive = folder / "shd_train.h5.zip"
    archive.write_bytes(b"not the published archive")
    with pytest.raises(data.CorruptDataError, match=r"shd_train\.h5\.zip has the MD5 sum .*f3252a"):
        load("shd", data_dir=tmp_path)
    monkeypatch.setitem(_shd._MD5, archive.name, hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(data.MissingDataError, match=r"unpack it there, unzip shd_train\.h5\.zip"):
        load("shd", data_dir=tmp_path)
    archive.rename(folder / "shd_train.h5.gz")
    with pytest.raises(data.MissingDataError, match=r"gunzip shd_train\.h5\.gz(.|\n)*--data-dir"):
        load("shd", data_dir=tmp_path)


def test_without_h5py_the_message_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "shd").mkdir()
    (tmp_path / "shd" / "shd_train.h5").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'snnjax\[h5\]'"):
        load("shd", data_dir=tmp_path)
