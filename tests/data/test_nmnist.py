"""N-MNIST: ATIS parser, both folder layouts, errors."""

import functools
import tarfile
import zipfile

import numpy as np
import pytest

from snnjax import data, encoding


def _pack(t, x, y, p):
    t, x, y, p = (np.asarray(a) for a in (t, x, y, p))
    rows = [x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]
    return np.stack(rows, axis=1).astype(np.uint8).tobytes()


RECORDING = _pack([5, 70_000, 300_000], [0, 33, 7], [33, 0, 9], [1, 0, 1])


@functools.cache
def _real(root):
    return data.load("nmnist", data_dir=root)


@pytest.mark.fast
def test_five_bytes_make_an_event():
    events = data.event_files.parse_atis(RECORDING)
    assert events.dtype == np.int32
    np.testing.assert_array_equal(events, [[5, 0, 33, 1], [70_000, 33, 0, 0], [300_000, 7, 9, 1]])


@pytest.mark.fast
def test_a_row_of_240_marks_an_overflow_of_the_clock():
    content = _pack([10, 0, 20, 0, 30], [1, 0, 2, 0, 3], [1, 240, 2, 240, 3], [0, 0, 1, 0, 1])
    events = data.event_files.parse_atis(content)
    np.testing.assert_array_equal(events[:, 0], [10, 20 + 2**13, 30 + 2**14])
    np.testing.assert_array_equal(events[:, 1], [1, 2, 3])


@pytest.mark.fast
def test_a_truncated_or_foreign_recording_is_refused():
    for broken in (RECORDING[:-1], RECORDING[:-4], b""):
        with pytest.raises(data.CorruptDataError, match="empty or cut short"):
            data.event_files.parse_atis(broken, name="1.bin")
    with pytest.raises(data.CorruptDataError, match="outside 34x34"):
        data.event_files.parse_atis(_pack([1], [34], [0], [0]))


@pytest.mark.fast
def test_other_cameras_of_the_format_are_read_with_their_size():
    content = _pack([1, 2], [127, 0], [0, 127], [0, 1])
    events = data.event_files.parse_atis(content, height=128, width=128)
    np.testing.assert_array_equal(events, [[1, 127, 0, 0], [2, 0, 127, 1]])
    for size in ({"height": 241}, {"width": 257}, {"height": 0}):
        with pytest.raises(ValueError, match="room for 240 rows and 256 columns"):
            data.event_files.parse_atis(content, **size)


def test_the_layout_of_the_whole_set_is_read_from_zips(tmp_path):
    (tmp_path / "nmnist").mkdir()
    for split, numbers in {"Train": (1, 2), "Test": (3,)}.items():
        with zipfile.ZipFile(tmp_path / "nmnist" / f"{split}.zip", "w") as archive:
            for digit in (0, 7):
                for number in numbers:
                    archive.writestr(f"{split}/{digit}/{number:05d}.bin", RECORDING)
    dataset = data.load("nmnist", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 7, 7])
    np.testing.assert_array_equal(dataset.test.labels, [0, 7])
    np.testing.assert_array_equal(dataset.test.inputs[0], data.event_files.parse_atis(RECORDING))


def test_the_layout_with_lists_is_read_from_a_folder(tmp_path):
    folder = tmp_path / "nmnist-small"
    folder.mkdir()
    (folder / "train2.txt").write_text("#sample #class\r\n10\t4\r\n9\t3\r\n")
    for name in ("9.bs2", "10.bs2", "60001.bs2"):
        (folder / name).write_bytes(RECORDING)
    with pytest.raises(data.MissingDataError, match=r"test\*\.txt"):
        data.load("nmnist", data_dir=tmp_path)
    (folder / "test1.txt").write_text("60001\t7\n")
    dataset = data.load("nmnist", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.labels, [3, 4])  # in order of number
    (folder / "9.bs2").write_bytes(RECORDING[:-2])
    with pytest.raises(data.CorruptDataError, match="9.bs2 has 13 bytes"):
        data.load("nmnist", data_dir=tmp_path)
    (folder / "9.bs2").unlink()
    with pytest.raises(data.CorruptDataError, match="1 recordings of the train list"):
        data.load("nmnist", data_dir=tmp_path)
    (folder / "train2.txt").write_text("nine three\n")
    with pytest.raises(data.CorruptDataError, match="number label"):
        data.load("nmnist", data_dir=tmp_path)


def test_a_folder_without_recordings_says_what_is_looked_for(tmp_path):
    (tmp_path / "nmnist").mkdir()
    with pytest.raises(data.MissingDataError, match=r"Train/<digit>(.|\n)*--data-dir DIR"):
        data.load("nmnist", data_dir=tmp_path)


# All recordings are decoded; two tests below read real ones in the default lane.
@pytest.mark.slow
def test_real_recordings_have_the_known_counts_and_labels(shared):
    dataset = _real(shared("data", "nmnist-small").parent)
    assert (len(dataset.train), len(dataset.test)) == (1000, 100)
    counts = [len(events) for split in (dataset.train, dataset.test) for events in split.inputs]
    assert (min(counts), max(counts)) == (1069, 7152)
    for events in dataset.train.inputs[:50]:
        assert (np.diff(events[:, 0]) >= 0).all() and set(events[:, 3]) == {0, 1}
        assert events[:, 1:3].min() >= 0 and events[:, 1:3].max() < 34
        assert 250_000 < events[-1, 0] < 340_000


@pytest.mark.slow
def test_real_labels_are_those_of_mnist(shared):
    dataset = _real(shared("data", "nmnist-small").parent)
    mnist = data.load("mnist", data_dir=shared("data", "mnist").parent)
    np.testing.assert_array_equal(dataset.train.labels, mnist.train.labels[:1000])
    np.testing.assert_array_equal(dataset.test.labels, mnist.test.labels[:100])


@pytest.mark.slow
def test_real_recordings_become_frames_for_the_loader(shared):
    dataset = _real(shared("data", "nmnist-small").parent)
    small = data.Dataset(
        **{**vars(dataset), "train": dataset.train.take(np.arange(20)), "test": dataset.test}
    )
    frames = data.dense(
        small, lambda e: encoding.events.frames_by_time(e, timesteps=8, height=34, width=34)
    )
    assert frames.train.inputs.shape == (20, 8, 34, 34, 2)
    np.testing.assert_array_equal(
        frames.train.inputs.sum(axis=(1, 2, 3, 4)), [len(e) for e in small.train.inputs]
    )
    assert data.Loader(frames.train, batch_size=4).batch(3).inputs.shape == (4, 8, 34, 34, 2)


def test_a_real_recording_of_the_whole_set_is_read(shared):
    content = shared("data", "event-samples", "sample_nmnist.bin").read_bytes()
    events = data.event_files.parse_atis(content, name="sample_nmnist.bin")
    assert len(events) == len(content) // 5 == 4325
    assert (np.diff(events[:, 0]) >= 0).all() and 250_000 < events[-1, 0] < 340_000
    assert set(events[:, 3]) == {0, 1} and events[:, 1:3].max() < 34


def test_real_recordings_of_a_dvs128_are_read(shared):
    counts = []
    with tarfile.open(shared("data", "event-samples", "dvs128-unlabelled-10.tar.xz")) as archive:
        for member in archive:
            content = archive.extractfile(member).read()
            events = data.event_files.parse_atis(content, name=member.name, height=128, width=128)
            counts.append(len(events))
            assert len(events) == len(content) // 5
            assert (np.diff(events[:, 0]) >= 0).all() and 1_400_000 < events[-1, 0] < 1_500_000
            assert set(np.unique(events[:, 3])) == {0, 1}
            assert events[:, 1:3].min() >= 0 and 100 < events[:, 1:3].max() < 128
            frames = encoding.events.frames_by_time(events, timesteps=4, height=128, width=128)
            assert frames.sum() == len(events)
    assert (len(counts), min(counts), max(counts)) == (10, 63_471, 181_179)
    with pytest.raises(data.CorruptDataError, match="outside 34x34"):
        data.event_files.parse_atis(content)
