"""File formats of event cameras: each reader turns one file into events `[E, 4]`.

    parse_aedat2    AEDAT 2.0, jAER: CIFAR10-DVS
    parse_aedat3    AEDAT 3.1, cAER: DVS128 Gesture
    read_aedat4     AEDAT 4, DV (needs the package `aedat`: the extra `snnjax[events]`)
    parse_dat       DAT version 2, Prophesee: N-CARS
    parse_atis      5 bytes per event: N-MNIST, N-Caltech101

Every reader returns int32 rows `t, x, y, p` in order of time: microseconds, column from the left,
row from the top, polarity (1 brighter, 0 darker).

**AEDAT 2.0 and 3.1** begin with lines of text that start with `#`; the first names the version,
`#!AER-DAT2.0`. In version 2.0 a DVS128 event has 8 bytes, big-endian: a 32-bit address and 32-bit
microseconds.

    bit 0  polarity, 0 brighter    bits 1-7  column from the right    bits 8-14  row from the bottom
    bit 15 or 31  a camera signal, not a pixel event: skipped

Version 3.1 is little-endian and packed. The 28-byte packet header holds the event type (16 bits; 1
is polarity) and the source (16 bits), then 32 bits each for the event size, the offset of the
timestamp within an event, the clock overflows, the capacity, the number of events and the number of
valid events. A polarity event is two 32-bit words:

    bit 0  valid    bit 1  polarity, 1 brighter    bits 2-16  row from the top    bits 17-31  column
    microseconds = 2^31 overflows + the second word

**DAT version 2** is little-endian: lines of text that start with `%`, one byte for the event type,
one byte for the event size (8), then two 32-bit words per event.

    microseconds        bits 0-13  column    bits 14-27  row    bits 28-31  polarity

**ATIS** events have 5 bytes, big-endian: column (8 bits), row (8), polarity (1), microseconds (23).
Row 240 marks a clock overflow instead of an event: all later timestamps grow by 2^13 us.

References:
    iniVation, "AEDAT File Formats" and "AEDAT 4.0", docs.inivation.com; SensorsINI, "jAER",
    `DVS128.java`; IBM Research, "DVS128 Gesture Dataset", research.ibm.com/interactive/dvsgesture.
    International Centre for Neuromorphic Systems, "aedat", github.com/neuromorphicsystems/aedat.
    Prophesee, "DAT File Format", docs.prophesee.ai.
    G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, "Converting Static Image Datasets to Spiking
    Neuromorphic Datasets Using Saccades", Frontiers in Neuroscience, 2015, arXiv:1507.07629.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data._recordings import as_events
from snnjax.data.dataset import CorruptDataError, MissingDataError

__all__ = ["parse_aedat2", "parse_aedat3", "parse_atis", "parse_dat", "read_aedat4"]

DVS128 = 128  # pixels along each side of the sensor

_AEDAT_MAGIC = b"#!AER-DAT"
_AEDAT2_SIGNAL = 1 << 15 | 1 << 31
_AEDAT2_RECORD = np.dtype([("address", ">u4"), ("time", ">i4")])
_AEDAT3_PACKET = struct.Struct("<HHiiiiii")
_AEDAT3_POLARITY = 1
_AEDAT_CURES = {
    "2.0": "read it with snnjax.data.event_files.parse_aedat2",
    "3.1": "read it with snnjax.data.event_files.parse_aedat3",
    "4.0": "read it with snnjax.data.event_files.read_aedat4",
}

# Bytes of one unpacked packet, and of all events: base + ratio * size of the file.
_AEDAT4_PACKET = 64 << 20
_AEDAT4_BASE, _AEDAT4_RATIO = 64 << 20, 50
_LZ4, _ZSTD, _ZSTD_BLOCK = 0x184D2204, 0xFD2FB528, 1 << 17

_DAT_TYPES = (0, 12)  # Event2d and EventCD share one layout
_DAT_VERSION = re.compile(rb"^% *Version +(\d+)", re.MULTILINE)

_ATIS_OVERFLOW_ROW = 240
_ATIS_OVERFLOW_TIME = 2**13


def parse_aedat2(content: bytes, *, name: str = "recording") -> np.ndarray:
    """Parses an AEDAT 2.0 file of a DVS128.

    Args:
        content: The whole file.
        name: Name of the recording in error messages.

    Returns:
        Events in order of time, `[E, 4]` int32: t in microseconds since the first event (the
        camera clock wraps around every 72 minutes), x from the left, y from the top, p.

    Raises:
        CorruptDataError: If the file is empty, truncated, of another version or another camera.
        ValueError: If it is longer than 36 minutes.
    """
    start = _aedat_start(_content(content), "2.0", name)
    if len(content) == start or (len(content) - start) % _AEDAT2_RECORD.itemsize:
        raise CorruptDataError(
            f"{name} has {len(content) - start} bytes of events, not a positive multiple of 8: it "
            "is empty or cut short; fetch it again"
        )
    records = np.frombuffer(content, _AEDAT2_RECORD, offset=start)
    # Signals first: their bits would look like addresses of another camera.
    records = records[records["address"] & _AEDAT2_SIGNAL == 0]
    address, time = records["address"].astype(np.uint32), records["time"].astype(np.int32)
    if (address >> 15).any():
        raise CorruptDataError(
            f"{name} has addresses above 15 bits, not those of a DVS128: another camera's "
            "recording; convert it to AEDAT 4 with iniVation's DV and use "
            "snnjax.data.event_files.read_aedat4"
        )
    if len(address) == 0:
        raise CorruptDataError(f"{name} has no event of a pixel; fetch it again")
    # Steps in int32 wrap modulo 2^32, so that time stays right across a clock wrap-around; their
    # sum in int64 does not, however long the recording.
    elapsed = np.concatenate([[0], np.cumsum(np.diff(time), dtype=np.int64)])
    return as_events(
        elapsed - elapsed.min(),
        # Columns count from the right and rows from the bottom in jAER's addresses.
        127 - (address >> 1 & 127).astype(np.int32),
        127 - (address >> 8 & 127).astype(np.int32),
        # iniVation's page says that 1 means brighter in version 2.0. jAER, which wrote these files,
        # reads 0 as brighter (its class `DVS128`), and so do SpikingJelly and Tonic.
        1 - (address & 1).astype(np.int32),
        height=DVS128,
        width=DVS128,
        name=name,
    )


def parse_aedat3(
    content: bytes,
    *,
    name: str = "recording",
    height: int = DVS128,
    width: int = DVS128,
    start: int | None = None,
    stop: int | None = None,
) -> np.ndarray:
    """Parses the polarity events of an AEDAT 3.1 file.

    Other packets (frames, inertial samples, special events) and events marked invalid are skipped.
    Packets outside `[start, stop)` are skipped without decoding; the format keeps the events of a
    packet in order of time.

    Args:
        content: The whole file.
        name: Name of the recording in error messages.
        height: Rows of the camera.
        width: Columns of the camera.
        start: First timestamp to return, in microseconds of the camera clock; None starts at the
            beginning.
        stop: End of the interval (exclusive), in microseconds of the camera clock; None reads to
            the end.

    Returns:
        Events with `start <= t < stop` in order of time, `[E, 4]` int32: t in microseconds of the
        camera clock, x from the left, y from the top, p.

    Raises:
        CorruptDataError: If the file has no polarity events, is truncated, of another version, or
            has a pixel outside `height` x `width`.
        ValueError: If a timestamp does not fit 32 bits.
    """
    begin, end = -1 if start is None else start, 1 << 63 if stop is None else stop
    words, times, empty = [np.empty(0, np.uint32)], [np.empty(0, np.int64)], True
    for packet, clock in _polarity_packets(
        content, _aedat_start(_content(content), "3.1", name), name
    ):
        empty = False
        first, last = int(packet[0, 1]), int(packet[-1, 1])
        # Events of a packet are ordered, so its first and last timestamps decide the overlap. Some
        # writers order none, and the extremes decide.
        if first > last:
            first, last = int(packet[:, 1].min()), int(packet[:, 1].max())
        if clock + last >= begin and clock + first < end:
            if packet[:, 1].max() >> 31:
                raise CorruptDataError(f"{name} has a negative time: damaged; fetch it again")
            words.append(packet[:, 0])
            times.append(packet[:, 1].astype(np.int64) + clock)
    if empty:
        raise CorruptDataError(f"{name} has no polarity events; fetch it again")
    word, time = np.concatenate(words), np.concatenate(times)
    keep = (word & 1 == 1) & (time >= begin) & (time < end)
    word, time = word[keep], time[keep]
    if len(word) == 0 and start is None and stop is None:
        raise CorruptDataError(f"{name} has no valid event; fetch it again")
    return as_events(
        time, word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, height=height, width=width, name=name
    )


def read_aedat4(path: str | Path, *, stream: int | None = None) -> np.ndarray:
    """Reads the polarity events of an AEDAT 4 file with the package `aedat`.

    Args:
        path: Path of the file.
        stream: Number of the event stream to read; required only for files with several event
            streams, for instance of two cameras.

    Returns:
        Events in order of time, `[E, 4]` int32: t in microseconds since the first event, x from the
        left, y from the top, p.

    Raises:
        ImportError: If `aedat` is not installed.
        MissingDataError: If the file does not exist.
        CorruptDataError: If the file is truncated, damaged, or has no events.
        ValueError: If the file has several event streams and `stream` is None, or if it is longer
            than 36 minutes.
    """
    try:
        # The format packs FlatBuffers with LZ4 or Zstandard, neither of which is in the standard
        # library; `aedat` (MIT licence) depends on NumPy only.
        import aedat
    except ImportError as error:
        raise ImportError("AEDAT 4 needs a decoder: pip install 'snnjax[events]'") from error
    if not Path(path).is_file():
        raise MissingDataError(f"{path} does not exist; give the path of an .aedat4 file")
    content = Path(path).read_bytes()
    _check_aedat4_packets(content, path)
    try:
        decoder = aedat.Decoder(str(path))
        stream, description = _select_stream(decoder.id_to_stream(), stream, path)
        packets = _aedat4_events(decoder, stream, len(content), path)
    except BaseException as error:
        # A panic of the decoder, which is written in Rust, is no `Exception`.
        panic = type(error).__name__ == "PanicException"
        if not panic and not isinstance(error, RuntimeError | OSError):
            raise
        raise CorruptDataError(
            f"{path} cannot be read as AEDAT 4 ({error}); fetch it again"
        ) from error
    if not sum(map(len, packets)):
        raise CorruptDataError(f"{path} has no events in stream {stream}; fetch it again")
    events = np.concatenate(packets)
    return as_events(
        # AEDAT 4 counts microseconds since 1970, which do not fit 32 bits. Unsigned as they are: a
        # damaged time of 64 bits would become negative in a cast.
        events["t"] - events["t"].min(),
        events["x"],
        events["y"],
        events["on"],
        height=description["height"],
        width=description["width"],
        name=str(path),
    )


def parse_dat(
    content: bytes, *, name: str = "recording", height: int = 100, width: int = 120
) -> np.ndarray:
    """Parses a DAT file (version 2) of Prophesee.

    Args:
        content: The whole file.
        name: Name of the recording in error messages.
        height: Rows of the camera or of the crop; the default is the largest crop of N-CARS.
        width: Columns of the camera or of the crop.

    Returns:
        Events in order of time, `[E, 4]` int32: t in microseconds, x, y, p.

    Raises:
        CorruptDataError: If the file has no events, is truncated, of another version or type, or
            has a pixel outside `height` x `width`.
        ValueError: If a timestamp does not fit 32 bits.
    """
    start = _dat_start(_content(content), name)
    if len(content) == start or (len(content) - start) % 8:
        raise CorruptDataError(
            f"{name} has {len(content) - start} bytes of events, not a positive multiple of 8: it "
            "is empty or cut short; fetch it again"
        )
    words = np.frombuffer(content, "<u4", offset=start).reshape(-1, 2)
    time, word = words[:, 0], words[:, 1]
    return as_events(
        time, word & 0x3FFF, word >> 14 & 0x3FFF, word >> 28, height=height, width=width, name=name
    )


def parse_atis(
    content: bytes, *, name: str = "recording", height: int = 34, width: int = 34
) -> np.ndarray:
    """Parses a file of 5-byte ATIS events, the format of N-MNIST and N-Caltech101.

    Args:
        content: The whole file.
        name: Name of the recording in error messages.
        height: Rows of the camera, at most 240: 34 for N-MNIST, 128 for a DVS128, 180 for
            N-Caltech101.
        width: Columns of the camera, at most 256.

    Returns:
        Events in order of time, `[E, 4]` int32: t in microseconds, x, y, p.

    Raises:
        CorruptDataError: If the file is empty, truncated, or has a pixel outside `height` x
            `width`.
        ValueError: If the format cannot hold a camera of this size, or a timestamp does not fit 32
            bits.
    """
    if not (1 <= height <= _ATIS_OVERFLOW_ROW and 1 <= width <= 256):
        raise ValueError(
            f"events of 5 bytes have room for 240 rows and 256 columns, not {height}x{width}"
        )
    if not _content(content) or len(content) % 5:
        raise CorruptDataError(
            f"{name} has {len(content)} bytes, not a positive multiple of 5: the event file is "
            "empty or cut short; fetch it again"
        )
    raw = np.frombuffer(content, np.uint8).reshape(-1, 5).astype(np.int32)
    x, y = raw[:, 0], raw[:, 1]
    t = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    overflow = y == _ATIS_OVERFLOW_ROW
    if overflow.all():
        raise CorruptDataError(f"{name} has no event of a pixel; fetch it again")
    # The running count of overflow rows is the number of clock wrap-arounds before each event. In
    # int64: 2^18 of them, 1.3 MB, exceed 32 bits.
    t = t + _ATIS_OVERFLOW_TIME * np.cumsum(overflow, dtype=np.int64)
    t, x, y, p = (column[~overflow] for column in (t, x, y, raw[:, 2] >> 7))
    return as_events(t, x, y, p, height=height, width=width, name=name)


def _content(content: bytes) -> bytes:
    if not isinstance(content, bytes):
        raise TypeError(
            f"content is the whole file as bytes, not {type(content).__name__}: give "
            "Path(path).read_bytes()"
        )
    return content


def _aedat_start(content: bytes, expected: str, name: str) -> int:
    """Byte offset of the first event, behind the header lines."""
    if not content.startswith(_AEDAT_MAGIC):
        raise CorruptDataError(
            f"{name} does not begin with {_AEDAT_MAGIC.decode()}: it is empty, damaged, or not an "
            "AEDAT recording (version 1.0 may lack this line and cannot be read)"
        )
    first_line = content[len(_AEDAT_MAGIC) : len(_AEDAT_MAGIC) + 16].split(b"\n")[0]
    version = first_line.strip().decode("latin-1")
    if version != expected:
        cure = _AEDAT_CURES.get(version, "convert it to AEDAT 4 with iniVation's DV")
        raise CorruptDataError(f"{name} is AEDAT {version}, not {expected}: {cure}")
    position = 0
    while content.startswith(b"#", position):
        end = content.find(b"\n", position)
        if end < 0:
            raise CorruptDataError(f"{name} is cut short in its header; fetch it again")
        # The first event byte may itself be "#": an explicit end mark stops the search.
        last = content.startswith(b"#!END-HEADER", position)
        position = end + 1
        if last:
            break
    return position


def _polarity_packets(content: bytes, position: int, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the words `[n, 2]` of each polarity packet and its clock offset in microseconds."""
    while position < len(content):
        if position + _AEDAT3_PACKET.size > len(content):
            raise _truncated_packet(name, position)
        header = _AEDAT3_PACKET.unpack_from(content, position)
        kind, _, size, offset, overflows, capacity, number, _ = header
        position += _AEDAT3_PACKET.size
        if size < 0 or not 0 <= number <= capacity or overflows < 0:
            raise CorruptDataError(
                f"{name} has a damaged packet header before byte {position}; fetch it again"
            )
        # The capacity is on disk even if the packet is not full.
        if position + size * capacity > len(content):
            raise _truncated_packet(name, position)
        if kind == _AEDAT3_POLARITY and (size, offset) != (8, 4):
            raise CorruptDataError(
                f"{name} has polarity events of {size} bytes, not 8, before byte {position}: "
                "damaged; fetch it again"
            )
        # An empty packet has no first and last timestamp.
        if kind == _AEDAT3_POLARITY and number:
            words = np.frombuffer(content, "<u4", count=2 * number, offset=position)
            yield words.reshape(-1, 2), overflows << 31
        # A packet occupies its capacity on disk, not only its number of events.
        position += size * capacity


def _truncated_packet(name: str, position: int) -> CorruptDataError:
    return CorruptDataError(f"{name} is cut short in the packet at byte {position}; fetch it again")


def _select_stream(
    streams: dict[int, dict[str, Any]], stream: int | None, path: str | Path
) -> tuple[int, dict[str, Any]]:
    events = {number: s for number, s in streams.items() if s["type"] == "events"}
    if not events:
        raise CorruptDataError(
            f"{path} has no stream of events; record one, or choose another file"
        )
    # Frames and inertial samples are streams too, so a single one of events is unambiguous.
    if stream is None and len(events) == 1:
        stream = next(iter(events))
    if stream is None or stream not in events:
        raise ValueError(f"{path} has streams of events {sorted(events)}: give stream= one of them")
    return stream, events[stream]


def _check_aedat4_packets(content: bytes, path: str | Path) -> None:
    """Raises an error if a packet may unpack to more than a camera writes at once, before it is."""
    position = 14  # behind the line of the version
    position += 4 + int.from_bytes(content[position : position + 4], "little")
    # The decoder walks the packets in the same way; where it cannot walk on, it raises an error.
    while position + 8 <= len(content):
        size = int.from_bytes(content[position + 4 : position + 8], "little", signed=True)
        if size < 0 or position + 8 + size > len(content):
            return
        if _unpacked_bound(content, position + 8, position + 8 + size) > _AEDAT4_PACKET:
            raise CorruptDataError(
                f"{path} may unpack its packet at byte {position} to more than {_AEDAT4_PACKET} "
                "bytes, which no camera writes at once; fetch it again"
            )
        position += 8 + size


def _aedat4_events(decoder: Any, stream: int, size: int, path: str | Path) -> list[np.ndarray]:
    packets, total = [], 0
    for packet in decoder:
        if packet["stream_id"] == stream:
            packets.append(packet["events"])
            total += packets[-1].nbytes
            if total > _AEDAT4_BASE + _AEDAT4_RATIO * size:
                raise CorruptDataError(
                    f"{path} has more than {total} bytes of events, {_AEDAT4_RATIO} times its size "
                    "and more: no recording; fetch it again"
                )
    return packets


def _unpacked_bound(content: bytes, position: int, end: int) -> int:
    """Largest size, in bytes, of the LZ4 and Zstandard frames in `content[position:end]`."""
    read = lambda start, size: int.from_bytes(content[start : start + size], "little")  # noqa: E731
    bound = end - position  # without a frame the packet is stored as it is
    while position + 6 <= end:
        magic, flags = read(position, 4), content[position + 4]
        if magic == _LZ4:
            # Blocks of 64 KiB to 4 MiB; a byte of LZ4 repeats at most 255 others.
            largest = 1 << (8 + 2 * (content[position + 5] >> 4 & 7))
            position += 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
            while position + 4 <= end and (size := read(position, 4) & 0x7FFFFFFF):
                bound += min(largest, 255 * size)
                position += 4 + size + (4 if flags & 16 else 0)
            position += 4 + (4 if flags & 4 else 0)
        elif magic == _ZSTD:
            single = flags >> 5 & 1
            position += 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
            position += (single, 2, 4, 8)[flags >> 6]
            last = False
            while position + 3 <= end and not last:
                header = read(position, 3)
                last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
                # Stored, one byte repeated, or compressed to any ratio within a block.
                bound += _ZSTD_BLOCK if kind == 2 else size
                position += 3 + (1 if kind == 1 else size)
            position += 4 if flags & 4 else 0
        else:
            break
    return bound


def _dat_start(content: bytes, name: str) -> int:
    """Byte offset of the first event, behind the header lines and the two type bytes."""
    position = 0
    while content.startswith(b"%", position):
        end = content.find(b"\n", position)
        if end < 0:
            break
        position = end + 1
    version = _DAT_VERSION.search(content, 0, position)
    if version is None or version[1] != b"2" or len(content) < position + 2:
        raise CorruptDataError(
            f"{name} is not a DAT file of version 2: lines that start with '%', one of them "
            "'% Version 2', then events; it is empty, damaged, or must be converted by Prophesee's "
            "metavision_file_to_dat"
        )
    kind, size = content[position], content[position + 1]
    if kind not in _DAT_TYPES or size != 8:
        raise CorruptDataError(
            f"{name} holds events of type {kind} and {size} bytes, not changes of contrast (type 0 "
            "or 12, 8 bytes): another kind of recording, or a damaged file to fetch again"
        )
    return position + 2
