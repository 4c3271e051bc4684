"""N-CARS: DAT parser, folder layout, errors."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from snnjax import data, encoding
from tests.data import event_files as files

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2**31 - 1), st.integers(0, 119), st.integers(0, 99), st.integers(0, 1)
    ),
    min_size=1,
    max_size=30,
).map(lambda events: sorted(events, key=lambda event: event[0]))
FEW = [(0, 0, 99, 1), (40, 119, 0, 0), (99_000, 5, 9, 1)]


@pytest.mark.fast
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(EVENTS, st.sampled_from([0, 12]))
def test_a_dat_file_is_read_back(events, kind):
    read = data.event_files.parse_dat(files.dat(events, kind=kind))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, events)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a DAT file of version 2"),
        (b"% Data file\n", "not a DAT file of version 2"),
        (b"% Version 2", "not a DAT file of version 2"),
        (bytes(100), "not a DAT file of version 2"),
        (files.dat(FEW, version=1), "not a DAT file of version 2"),
        (files.dat(FEW, kind=14), "type 14 and 8 bytes, not changes of contrast"),
        (files.dat([]), "0 bytes of events"),
        (files.dat(FEW)[:-1], "23 bytes of events, not a positive multiple of 8"),
        (files.dat([(1, 120, 0, 1)]), "outside 100x120"),
        (files.dat([(1, 0, 0, 2)]), "polarity of 2"),
    ],
)
def test_a_damaged_dat_file_is_named(content, match):
    with pytest.raises(data.CorruptDataError, match=match) as caught:
        data.event_files.parse_dat(content, name="obj_000001_td.dat")
    assert str(caught.value).startswith("obj_000001_td.dat")


@pytest.mark.fast
def test_a_larger_camera_and_a_long_clock():
    wide = [(1, 639, 479, 1)]
    np.testing.assert_array_equal(
        data.event_files.parse_dat(files.dat(wide), height=480, width=640), wide
    )
    with pytest.raises(ValueError, match="more than 32 bits hold"):
        data.event_files.parse_dat(files.dat([(2**31, 0, 0, 0)]))


@pytest.mark.fast
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.binary(max_size=80))
def test_garbage_after_the_header_ends_in_a_refusal_or_in_events(garbage):
    try:
        events = data.event_files.parse_dat(b"% Version 2\n" + garbage)
    except ValueError:  # CorruptDataError is one
        return
    assert events.dtype == np.int32 and set(events[:, 3]) <= {0, 1}


def _write(root, names=("n-cars_train", "n-cars_test")):
    for split in names:
        for name, number in (("cars", 4), ("background", 2)):
            folder = root / "ncars" / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                (folder / f"obj_{i:06}_td.dat").write_bytes(files.dat([(i, i, i, 1)]))


@pytest.mark.parametrize("names", [("n-cars_train", "n-cars_test"), ("train", "test")])
def test_the_layout_of_the_set(tmp_path, names):
    _write(tmp_path, names)
    (tmp_path / "ncars" / "train.txt").write_text("not a recording")
    dataset = data.load("ncars", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (6, 6)
    assert dataset.class_names == ("background", "cars")
    assert dataset.input_shape == (100, 120, 2)
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(dataset.train.inputs[5], [[3, 3, 3, 1]])
    (tmp_path / "ncars" / names[0] / "cars" / "obj_000003_td.dat").write_bytes(b"")
    with pytest.raises(data.CorruptDataError, match=r"obj_000003_td\.dat"):
        dataset.train.inputs[5]


def test_a_set_without_a_split_or_in_an_archive_says_what_to_do(tmp_path):
    (tmp_path / "ncars").mkdir()
    with pytest.raises(data.MissingDataError, match=r"train/cars/\*\.dat"):
        data.load("ncars", data_dir=tmp_path)
    (tmp_path / "ncars" / "n-cars_train.zip").write_bytes(b"")
    with pytest.raises(data.MissingDataError, match="n-cars_train.zip.*unpack them there"):
        data.load("ncars", data_dir=tmp_path)
    _write(tmp_path, ("train",))
    with pytest.raises(data.MissingDataError, match=r"no recordings test/cars"):
        data.load("ncars", data_dir=tmp_path)


def test_a_real_recording_has_the_known_events(shared):
    path = shared("data", "event-samples", "sample_ncars.dat")
    events = data.event_files.parse_dat(path.read_bytes(), name=path.name)
    assert events.shape == (2009, 4)
    assert (np.diff(events[:, 0]) >= 0).all() and (events[0, 0], events[-1, 0]) == (0, 99_952)
    np.testing.assert_array_equal(events[:, 1:].max(axis=0), [77, 41, 1])
    np.testing.assert_array_equal(np.bincount(events[:, 3]), [659, 1350])
    frames = encoding.events.frames_by_time(events, timesteps=4, height=100, width=120)
    assert frames.sum() == 2009
