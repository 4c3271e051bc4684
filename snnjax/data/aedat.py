"""AEDAT 2.0 and 3.1: event recordings as jAER (CIFAR10-DVS) and cAER (DVS128 Gesture) wrote them.

Both begin with lines of text that start with `#`; the first names the version, `#!AER-DAT2.0`.

AEDAT 2.0 of a DVS128 is big-endian, 8 bytes an event: an address and microseconds, 32 bits each.

    bit 0  polarity, 0 brighter    bits 1-7  column from the right    bits 8-14  row from the bottom
    bit 15 or 31  a signal of the camera and no event of a pixel: left out

AEDAT 3.1 is little-endian, in packets. A header of 28 bytes holds the type (16 bits; 1 is polarity)
and the source (16), then with 32 bits each the size of an event, the place of its time in it, the
overflows of the clock, the capacity, the number of events and of valid ones. A polarity event is 8
bytes, two words of 32 bits:

    bit 0  valid    bit 1  polarity, 1 brighter    bits 2-16  row from the top    bits 17-31  column
    microseconds = 2^31 overflows + the second word

iniVation's page says of version 2.0 that a polarity bit of 1 means brighter. jAER, which wrote the
files, reads 0 as brighter (its class `DVS128`, which also counts columns from the right), and so do
the loaders of SpikingJelly and Tonic; this reader follows jAER.

Reference:
    iniVation, "AEDAT File Formats", docs.inivation.com; SensorsINI, "jAER", `DVS128.java`; IBM
    Research, "DVS128 Gesture Dataset", research.ibm.com/interactive/dvsgesture.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from snnjax.data.errors import CorruptDataError
from snnjax.data.recordings import as_events

DVS128 = 128  # pixels along each side of that camera

_MAGIC = b"#!AER-DAT"
_SIGNAL = 1 << 15 | 1 << 31
_RECORD = np.dtype([("address", ">u4"), ("time", ">i4")])
_PACKET = struct.Struct("<HHiiiiii")
_POLARITY = 1
_CURES = {
    "2.0": "read it with snnjax.data.parse_aedat2",
    "3.1": "read it with snnjax.data.parse_aedat3",
    "4.0": "read it with snnjax.data.read_aedat4",
}


def parse_aedat2(content: bytes, *, name: str = "recording") -> np.ndarray:
    """Turns an AEDAT 2.0 file of a DVS128 into arrays.

    Args:
        content: The whole file.
        name: What to call it in an error.

    Returns:
        Its events in order of time, `[E, 4]` int32: t in microseconds since the first event (the
        camera's clock wraps around every 72 minutes), x from the left, y from the top, p.

    Raises:
        CorruptDataError: Where it is empty, cut short, of another version or of another camera.
    """
    start = _start(content, "2.0", name)
    if len(content) == start or (len(content) - start) % _RECORD.itemsize:
        raise CorruptDataError(
            f"{name} has {len(content) - start} bytes of events, not a positive multiple of 8: it "
            "is empty or cut short; fetch it again"
        )
    records = np.frombuffer(content, _RECORD, offset=start)
    records = records[records["address"] & _SIGNAL == 0]
    address, time = records["address"].astype(np.uint32), records["time"].astype(np.int32)
    if (address >> 15).any():
        raise CorruptDataError(
            f"{name} has addresses above 15 bits, not those of a DVS128: another camera's "
            "recording; convert it to AEDAT 4 with iniVation's DV and use snnjax.data.read_aedat4"
        )
    if len(address) == 0:
        raise CorruptDataError(f"{name} has no event of a pixel; fetch it again")
    elapsed = time - time[:1]  # modulo 2^32, so that a clock that wraps around goes on
    return as_events(
        elapsed - elapsed.min(),
        127 - (address >> 1 & 127).astype(np.int32),
        127 - (address >> 8 & 127).astype(np.int32),
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
    """Turns the polarity events of an AEDAT 3.1 file into arrays.

    Other packets (frames, inertial samples, special events) and events marked invalid are left
    out. Packets outside the stretch asked for are stepped over, not decoded; the format keeps the
    events of a packet in order of time.

    Args:
        content: The whole file.
        name: What to call it in an error.
        height: Rows of the camera.
        width: Columns of the camera.
        start: In microseconds of the camera's clock, what to begin with; by default the beginning.
        stop: In microseconds of the camera's clock, what to end before; by default the end.

    Returns:
        Events with `start <= t < stop` in order of time, `[E, 4]` int32: t in microseconds of the
        camera's clock, x from the left, y from the top, p.

    Raises:
        CorruptDataError: Where it has no polarity events, is cut short, of another version, or
            has a pixel outside `height` x `width`.
        ValueError: Where a time does not fit 32 bits.
    """
    begin, end = -1 if start is None else start, 1 << 63 if stop is None else stop
    words, times, empty = [np.empty(0, np.uint32)], [np.empty(0, np.int64)], True
    for packet, clock in _polarity_packets(content, _start(content, "3.1", name), name):
        empty = False
        if clock + int(packet[-1, 1]) >= begin and clock + int(packet[0, 1]) < end:
            words.append(packet[:, 0])
            times.append(packet[:, 1].astype(np.int64) + clock)
    if empty:
        raise CorruptDataError(f"{name} has no polarity events; fetch it again")
    word, time = np.concatenate(words), np.concatenate(times)
    chosen = (word & 1 == 1) & (time >= begin) & (time < end)
    word, time = word[chosen], time[chosen]
    return as_events(
        time, word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, height=height, width=width, name=name
    )


def _start(content: bytes, version: str, name: str) -> int:
    """Where the events begin, after the lines of text."""
    if not content.startswith(_MAGIC):
        raise CorruptDataError(
            f"{name} does not begin with {_MAGIC.decode()}: it is empty, damaged, or not an AEDAT "
            "recording (version 1.0, which need not say so, cannot be read)"
        )
    found = content[len(_MAGIC) : len(_MAGIC) + 16].split(b"\n")[0].strip().decode("latin-1")
    if found != version:
        cure = _CURES.get(found, "convert it to AEDAT 4 with iniVation's DV")
        raise CorruptDataError(f"{name} is AEDAT {found}, not {version}: {cure}")
    place = 0
    while content.startswith(b"#", place):
        end = content.find(b"\n", place)
        if end < 0:
            raise CorruptDataError(f"{name} is cut short in its header; fetch it again")
        last = content.startswith(b"#!END-HEADER", place)
        place = end + 1
        if last:
            break
    return place


def _polarity_packets(content: bytes, place: int, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Words `[n, 2]` of each packet that has polarity events, and what its times count from."""
    while place < len(content):
        if place + _PACKET.size > len(content):
            raise _cut_short(name, place)
        kind, _, size, offset, overflows, capacity, number, _ = _PACKET.unpack_from(content, place)
        place += _PACKET.size
        if size < 0 or not 0 <= number <= capacity or overflows < 0:
            raise CorruptDataError(
                f"{name} has a damaged packet header before byte {place}; fetch it again"
            )
        if place + size * capacity > len(content):
            raise _cut_short(name, place)
        if kind == _POLARITY and (size, offset) != (8, 4):
            raise CorruptDataError(
                f"{name} has polarity events of {size} bytes, not 8, before byte {place}: damaged; "
                "fetch it again"
            )
        if kind == _POLARITY and number:
            words = np.frombuffer(content, "<u4", count=2 * number, offset=place)
            yield words.reshape(-1, 2), overflows << 31
        place += size * capacity


def _cut_short(name: str, place: int) -> CorruptDataError:
    return CorruptDataError(f"{name} is cut short in the packet at byte {place}; fetch it again")
