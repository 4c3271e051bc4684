"""DVS128 Gesture: recordings cut by their tables, split by people, errors."""

import pickle

import numpy as np
import pytest

from snnjax import data, encoding
from snnjax.data._dvs128_gesture import GESTURES, read_dvs128_gesture
from tests.data import event_files as files

STEP = 1000  # microseconds between events of the written recordings


def _recording(user):
    return [(STEP * i, (i + user) % 128, i % 128, i % 2) for i in range(200)]


def _table(rows):
    lines = ["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


ROWS = {
    "user01_fluorescent": [(1, 10_000, 20_000), (11, 20_000, 45_500), (8, 50_000, 60_000)],
    "user02_fluorescent_led": [(8, 0, 30_000), (8, 25_000, 40_000)],  # they overlap, as some do
    "user24_lab": [(2, 100_000, 150_000), (11, 150_000, 199_500)],
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "dvs128-gesture" / "DvsGesture"
    folder.mkdir(parents=True)
    for name, rows in ROWS.items():
        user = int(name[4:6])
        (folder / f"{name}.aedat").write_bytes(files.aedat3(_recording(user), packet=16))
        (folder / f"{name}_labels.csv").write_text(_table(rows))
    (folder / "trials_to_train.txt").write_text(
        "user01_fluorescent.aedat\r\nuser02_fluorescent_led.aedat\r\n\r\n"
    )
    (folder / "trials_to_test.txt").write_text("user24_lab.aedat\n")
    return folder


def test_recordings_are_cut_by_their_tables(folder):
    dataset = data.load("dvs128_gesture", data_dir=folder.parents[1])
    np.testing.assert_array_equal(dataset.train.labels, [0, 10, 7, 7, 7])
    np.testing.assert_array_equal(dataset.train.groups, [1, 1, 1, 2, 2])
    np.testing.assert_array_equal(dataset.test.labels, [1, 10])
    np.testing.assert_array_equal(dataset.test.groups, [24, 24])
    assert dataset.class_names == GESTURES and dataset.classes == 11
    for split, names in ((dataset.train, list(ROWS)[:2]), (dataset.test, list(ROWS)[2:])):
        stretches = [(name, row) for name in names for row in ROWS[name]]
        assert len(stretches) == len(split)
        for events, (name, (_, start, stop)) in zip(split.inputs, stretches, strict=True):
            whole = _recording(int(name[4:6]))
            np.testing.assert_array_equal(events, [e for e in whole if start <= e[0] < stop])


def test_ten_classes_leave_the_other_gestures_out(folder):
    dataset = data.load("dvs128_gesture_10", data_dir=folder.parents[1])
    assert dataset.name == "dvs128_gesture_10"
    np.testing.assert_array_equal(dataset.train.labels, [0, 7, 7, 7])
    np.testing.assert_array_equal(dataset.test.labels, [1])
    assert dataset.classes == 10 and dataset.class_names == GESTURES[:10]


def test_gestures_become_frames_and_people_are_not_cut_through(folder):
    dataset = read_dvs128_gesture(folder)

    def to_frames(events):
        return encoding.events.frames_by_time(
            events, timesteps=4, height=128, width=128, dtype=np.uint8
        )

    frames = data.dense(dataset, to_frames)
    assert frames.train.inputs.shape == (5, 4, 128, 128, 2)
    np.testing.assert_array_equal(
        frames.train.inputs.sum(axis=(1, 2, 3, 4)), [len(e) for e in dataset.train.inputs]
    )
    np.testing.assert_array_equal(frames.train.groups, dataset.train.groups)
    with pytest.raises(ValueError, match="divided by group"):
        data.folds(dataset)


def test_recordings_can_be_sent_to_another_process(folder):
    inputs = read_dvs128_gesture(folder).train.inputs
    copy = pickle.loads(pickle.dumps(inputs))
    np.testing.assert_array_equal(copy[3], inputs[3])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("user01_fluorescent_labels.csv", None, "user01_fluorescent_labels.csv.*is missing"),
        ("user01_fluorescent.aedat", None, "user01_fluorescent.aedat.*is missing; unpack"),
        ("user24_lab_labels.csv", _table([(12, 1, 2)]), "class 12 from 1 to 2 us"),
        ("user24_lab_labels.csv", _table([(0, 1, 2)]), "class 0 from 1 to 2 us"),
        ("user24_lab_labels.csv", _table([(3, 9, 9)]), "class 3 from 9 to 9 us"),
        ("user24_lab_labels.csv", _table([(3, 9)]), "rows class,start,end"),
        ("user24_lab_labels.csv", _table([("three", 9, 11)]), "rows class,start,end"),
        ("user24_lab_labels.csv", "class,start,end\n", "names no gestures"),
        ("trials_to_test.txt", "clap.aedat\n", "names 'clap.aedat', not userXX_LIGHT.aedat"),
        ("trials_to_test.txt", "", "names no gestures"),
    ],
)
def test_a_damaged_set_is_named(folder, name, content, match):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(data.CorruptDataError, match=match):
        read_dvs128_gesture(folder)


def test_a_table_beyond_its_recording_is_found_when_it_is_read(folder):
    (folder / "user24_lab_labels.csv").write_text(_table([(3, 500_000, 600_000)]))
    dataset = read_dvs128_gesture(folder)
    with pytest.raises(data.CorruptDataError, match="no events from 500000 to 600000 us"):
        dataset.test.inputs[0]


def test_a_missing_list_or_an_archive_says_what_to_do(folder):
    (folder / "trials_to_test.txt").unlink()
    with pytest.raises(data.MissingDataError, match="trials_to_test.txt is missing"):
        read_dvs128_gesture(folder)
    (folder / "trials_to_train.txt").unlink()
    with pytest.raises(data.MissingDataError, match="no trials_to_train.txt"):
        read_dvs128_gesture(folder)
    (folder / "DvsGesture.tar.gz").write_bytes(b"")
    with pytest.raises(data.MissingDataError, match=r"DvsGesture.tar.gz.*unpack them there"):
        read_dvs128_gesture(folder)
