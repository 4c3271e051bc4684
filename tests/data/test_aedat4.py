"""AEDAT 4 through its decoder: counts of a real recording, and errors."""

import sys

import numpy as np
import pytest

from snnjax import data


@pytest.fixture
def sample(shared):
    pytest.importorskip("aedat", reason="AEDAT 4 needs the extra 'events'")
    return shared("data", "event-samples", "sample.aedat4")


def test_a_real_recording_has_the_known_events(sample):
    events = data.event_files.read_aedat4(sample)
    assert events.shape == (111_954, 4) and events.dtype == np.int32
    assert events[0, 0] == 0 and (np.diff(events[:, 0]) >= 0).all()
    assert set(np.unique(events[:, 3])) == {0, 1}
    assert events[:, 1].max() < 320 and events[:, 2].max() < 240 and events[:, 1:].min() >= 0
    np.testing.assert_array_equal(events[:2], [[0, 154, 204, 0], [3, 149, 206, 0]])


def test_the_stream_may_be_chosen_and_a_missing_one_names_those_there(sample):
    np.testing.assert_array_equal(
        data.event_files.read_aedat4(sample, stream=0), data.event_files.read_aedat4(sample)
    )
    with pytest.raises(ValueError, match=r"streams of events \[0\]: give stream="):
        data.event_files.read_aedat4(sample, stream=2)  # inertial samples


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:1000],
        lambda content: content[: len(content) // 2],
        lambda content: content[:5000] + b"\x55" * 5000 + content[10_000:],
        lambda content: b"#!AER-DAT3.1\r\n" + content[14:],
        lambda content: b"not a recording " * 100,
    ],
    ids=["empty", "header", "half", "overwritten", "version", "garbage"],
)
def test_a_damaged_file_is_named_with_its_cure(sample, tmp_path, damage):
    path = tmp_path / "mine.aedat4"
    path.write_bytes(damage(sample.read_bytes()))
    with pytest.raises(data.CorruptDataError, match=r"mine\.aedat4 .*fetch it again"):
        data.event_files.read_aedat4(path)


def test_a_file_that_is_not_there_is_missing(tmp_path):
    pytest.importorskip("aedat", reason="AEDAT 4 needs the extra 'events'")
    with pytest.raises(data.MissingDataError, match="nowhere.aedat4 does not exist"):
        data.event_files.read_aedat4(tmp_path / "nowhere.aedat4")


@pytest.mark.fast
def test_without_the_decoder_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(ImportError, match=r"pip install 'snnjax\[events\]'"):
        data.event_files.read_aedat4("recording.aedat4")


class _Decoder:
    """Fake decoder of a file with two cameras; the real sample has one."""

    def __init__(self, path):
        del path

    def id_to_stream(self):
        camera = {"type": "events", "width": 8, "height": 4}
        return {0: camera, 1: {"type": "imus"}, 5: camera}

    def __iter__(self):
        kind = [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")]
        start = 1_605_537_493_718_345
        yield {"stream_id": 0, "events": np.array([(start, 1, 2, True)], kind)}
        yield {"stream_id": 1, "imus": np.zeros(3)}
        yield {"stream_id": 5, "events": np.array([(start + 9, 7, 3, False)], kind)}
        yield {"stream_id": 0, "events": np.array([(start + 4, 0, 0, False)], kind)}


@pytest.mark.fast
def test_of_two_cameras_one_must_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "aedat", type(sys)("aedat"))
    sys.modules["aedat"].Decoder = _Decoder
    path = tmp_path / "two.aedat4"
    path.touch()
    with pytest.raises(ValueError, match=r"streams of events \[0, 5\]: give stream="):
        data.event_files.read_aedat4(path)
    np.testing.assert_array_equal(
        data.event_files.read_aedat4(path, stream=0), [[0, 1, 2, 1], [4, 0, 0, 0]]
    )
    np.testing.assert_array_equal(data.event_files.read_aedat4(path, stream=5), [[0, 7, 3, 0]])
