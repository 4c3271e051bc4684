"""AEDAT 2.0 and 3.1: round trips through an independent writer, and errors for damaged files."""

import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from snnjax import data
from tests.data import event_files as files

pytestmark = pytest.mark.fast

PIXEL = st.integers(0, 127)
EVENTS = st.lists(
    st.tuples(st.integers(0, 2**31 - 1), PIXEL, PIXEL, st.integers(0, 1)), min_size=1, max_size=30
).map(lambda events: sorted(events, key=lambda event: event[0]))
FEW = [(100, 0, 127, 1), (100, 127, 0, 0), (250, 5, 9, 1)]
SETTINGS = hypothesis.settings(max_examples=60, deadline=None)


@SETTINGS
@hypothesis.given(EVENTS)
def test_version_2_is_read_back_from_its_first_event(events):
    read = data.event_files.parse_aedat2(files.aedat2(events))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read[:, 1:], np.array(events)[:, 1:])
    np.testing.assert_array_equal(read[:, 0], np.array(events)[:, 0] - events[0][0])


@SETTINGS
@hypothesis.given(EVENTS, st.integers(1, 9))
def test_version_3_is_read_back_with_its_clock(events, packet):
    read = data.event_files.parse_aedat3(files.aedat3(events, packet=packet))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, events)


@SETTINGS
@hypothesis.given(EVENTS, st.integers(0, 2**31), st.integers(0, 2**31), st.integers(1, 9))
def test_a_stretch_of_version_3_is_what_a_mask_gives(events, start, stop, packet):
    read = data.event_files.parse_aedat3(
        files.aedat3(events, packet=packet), start=start, stop=stop
    )
    expected = [event for event in events if start <= event[0] < stop]
    np.testing.assert_array_equal(read, np.array(expected, np.int32).reshape(-1, 4))


def test_the_bits_of_version_2_are_those_of_jaer():
    """By hand, from `DVS128.java`: column 127 - bits 1-7, brighter where bit 0 is 0."""
    content = b"#!AER-DAT2.0\r\n" + bytes.fromhex(
        "00000003 00000064 00007f00 000000c8".replace(" ", "")
    )
    events = data.event_files.parse_aedat2(content)
    np.testing.assert_array_equal(events, [[0, 126, 127, 0], [100, 127, 0, 1]])


def test_the_bits_of_version_3_are_those_of_its_page():
    """By hand, from IBM's page: x = word >> 17, y = word >> 2, polarity = word >> 1."""
    header = bytes.fromhex("0100 0100 08000000 04000000 00000000 01000000 01000000 01000000")
    word = 1 | 1 << 1 | 3 << 2 | 100 << 17
    events = data.event_files.parse_aedat3(
        files.AEDAT3_HEADER + header + struct.pack("<II", word, 77)
    )
    np.testing.assert_array_equal(events, [[77, 100, 3, 1]])


def test_signals_of_the_camera_are_no_events():
    content = files.aedat2(FEW, signals=[(260, 1 << 15), (270, 1 << 31), (280, 0xFFFF8001)])
    np.testing.assert_array_equal(
        data.event_files.parse_aedat2(content), data.event_files.parse_aedat2(files.aedat2(FEW))
    )
    with pytest.raises(data.CorruptDataError, match="no event of a pixel"):
        data.event_files.parse_aedat2(files.aedat2([], signals=[(260, 1 << 15)]))


def test_a_clock_that_wraps_around_goes_on():
    end = 2**31 - 1
    wrapped = [(end - 5, 1, 1, 1), (end, 2, 2, 0), (-(2**31) + 4, 3, 3, 1)]
    events = data.event_files.parse_aedat2(files.aedat2(wrapped))
    np.testing.assert_array_equal(events[:, :2], [[0, 1], [5, 2], [10, 3]])


def test_events_out_of_order_are_sorted_and_ties_keep_their_order():
    events = [(30, 1, 1, 1), (10, 2, 2, 0), (30, 3, 3, 1), (20, 4, 4, 0)]
    expected = [(10, 2, 2, 0), (20, 4, 4, 0), (30, 1, 1, 1), (30, 3, 3, 1)]
    np.testing.assert_array_equal(
        data.event_files.parse_aedat3(files.aedat3(events, packet=2)), expected
    )
    np.testing.assert_array_equal(
        data.event_files.parse_aedat2(files.aedat2(events))[:, 1:], np.array(expected)[:, 1:]
    )


def test_other_packets_invalid_events_and_empty_room_are_stepped_over():
    content = b"".join(
        [
            files.AEDAT3_HEADER,
            files.other_packet(0, 8, 2),
            files.polarity_packet(FEW[:1], capacity=5),
            files.polarity_packet([(120, 64, 64, 1)], valid=0),
            files.polarity_packet([]),
            files.other_packet(2, 36, 1),
            files.polarity_packet(FEW[1:]),
        ]
    )
    np.testing.assert_array_equal(data.event_files.parse_aedat3(content), FEW)


def test_a_stretch_without_events_is_empty():
    events = data.event_files.parse_aedat3(files.aedat3(FEW), start=101, stop=250)
    assert events.shape == (0, 4) and events.dtype == np.int32


def test_another_camera_is_read_with_its_size():
    wide = [(1, 345, 259, 1)]
    with pytest.raises(data.CorruptDataError, match="column 345, row 259, outside 128x128"):
        data.event_files.parse_aedat3(files.aedat3(wide))
    np.testing.assert_array_equal(
        data.event_files.parse_aedat3(files.aedat3(wide), height=260, width=346), wide
    )


def test_a_clock_beyond_32_bits_says_so():
    with pytest.raises(ValueError, match="cut it into shorter recordings"):
        data.event_files.parse_aedat3(files.aedat3(FEW, overflows=1))


@pytest.mark.parametrize(
    ("parse", "content", "match"),
    [
        (
            data.event_files.parse_aedat2,
            files.aedat3(FEW),
            "AEDAT 3.1, not 2.0: read it with .*parse_aedat3",
        ),
        (
            data.event_files.parse_aedat3,
            files.aedat2(FEW),
            "AEDAT 2.0, not 3.1: read it with .*parse_aedat2",
        ),
        (
            data.event_files.parse_aedat3,
            b"#!AER-DAT4.0\r\n",
            "AEDAT 4.0, not 3.1: read it with .*read_aedat4",
        ),
        (data.event_files.parse_aedat3, b"#!AER-DAT3.0\r\n", "AEDAT 3.0, not 3.1: convert it"),
        (data.event_files.parse_aedat2, b"", "does not begin with #!AER-DAT"),
        (data.event_files.parse_aedat3, b"\x00" * 64, "does not begin with #!AER-DAT"),
        (data.event_files.parse_aedat2, b"#!AER-DAT2.0", "cut short in its header"),
        (data.event_files.parse_aedat2, files.aedat2([]), "0 bytes of events"),
        (data.event_files.parse_aedat3, files.AEDAT3_HEADER, "no polarity events"),
        (
            data.event_files.parse_aedat3,
            files.AEDAT3_HEADER + files.other_packet(0, 8, 1),
            "no polarity",
        ),
        (
            data.event_files.parse_aedat2,
            b"#!AER-DAT2.0\r\n" + struct.pack(">Ii", 1 << 22, 5),
            "not those of a DVS128",
        ),
        (
            data.event_files.parse_aedat3,
            files.AEDAT3_HEADER + struct.pack("<HHiiiiii", 1, 1, 16, 4, 0, 1, 1, 1) + bytes(16),
            "polarity events of 16 bytes",
        ),
        (
            data.event_files.parse_aedat3,
            files.AEDAT3_HEADER + struct.pack("<HHiiiiii", 1, 1, 8, 4, 0, 1, 2, 2) + bytes(16),
            "damaged packet header",
        ),
        (
            data.event_files.parse_aedat3,
            files.AEDAT3_HEADER + struct.pack("<HHiiiiii", 0, 1, -8, 4, 0, 1, 1, 1),
            "damaged packet header",
        ),
    ],
)
def test_a_foreign_or_damaged_file_is_named_with_its_cure(parse, content, match):
    with pytest.raises(data.CorruptDataError, match=match) as caught:
        parse(content, name="user01.aedat")
    assert str(caught.value).startswith("user01.aedat")


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_cut_anywhere_is_refused_or_ends_with_a_whole_event(version):
    if version == 2:
        content, parse = files.aedat2(FEW), data.event_files.parse_aedat2
    else:
        content, parse = files.aedat3(FEW, packet=1), data.event_files.parse_aedat3
    whole, read = parse(content), []
    for size in range(len(content)):
        try:
            read.append(parse(content[:size]))
        except data.CorruptDataError:
            continue
    assert [len(events) for events in read] == [1, 2]  # at the ends of the first and second event
    for events in read:
        np.testing.assert_array_equal(events, whole[: len(events)])


@SETTINGS
@hypothesis.given(st.binary(max_size=120))
def test_garbage_after_the_header_ends_in_a_refusal_or_in_events(garbage):
    for parse, header in (
        (data.event_files.parse_aedat2, b"#!AER-DAT2.0\r\n"),
        (data.event_files.parse_aedat3, files.AEDAT3_HEADER),
        (data.event_files.parse_aedat3, files.AEDAT3_HEADER + files.polarity_packet(FEW)),
    ):
        try:
            events = parse(header + garbage)
        except ValueError:  # CorruptDataError is one
            continue
        assert events.dtype == np.int32 and events.shape[1] == 4
        assert (np.diff(events[:, 0]) >= 0).all() and set(events[:, 3]) <= {0, 1}
        assert events[:, 1:3].min() >= 0 and events[:, 1:3].max() < 128
