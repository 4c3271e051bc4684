"""Writers of event files for tests of the readers, after the format specifications."""

import struct


def aedat2(events, *, signals=()):
    """AEDAT 2.0 of a DVS128: `signals` are `(time, address)` records of camera signals."""
    records = [(t, (1 - p) | (127 - x) << 1 | (127 - y) << 8) for t, x, y, p in events]
    lines = [
        "#!AER-DAT2.0",
        "# This is a raw AE data file - do not edit",
        "# Timestamps tick is 1 us",
    ]
    return _text(lines) + b"".join(
        struct.pack(">Ii", address, t) for t, address in [*records, *signals]
    )


AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def aedat3(events, *, packet=7, overflows=0):
    """AEDAT 3.1 with `packet` events per packet."""
    packets = [events[i : i + packet] for i in range(0, len(events), packet)]
    return AEDAT3_HEADER + b"".join(polarity_packet(p, overflows=overflows) for p in packets)


def polarity_packet(events, *, overflows=0, valid=1, capacity=None):
    """Packet of polarity events with a capacity of `capacity`."""
    number = len(events)
    capacity = number if capacity is None else capacity
    body = b"".join(
        struct.pack("<Ii", valid | p << 1 | y << 2 | x << 17, t) for t, x, y, p in events
    )
    header = struct.pack("<HHiiiiii", 1, 1, 8, 4, overflows, capacity, number, number * valid)
    return header + body + bytes(8 * (capacity - number))


def other_packet(kind, size, number):
    """Packet of another event type."""
    return struct.pack("<HHiiiiii", kind, 1, size, 4, 0, number, number, number) + bytes(
        size * number
    )


def dat(events, *, version=2, kind=0):
    """DAT file of Prophesee."""
    lines = b"%% Data file containing CD events.\n%% Version %d\n%% Date 2017-10-31 11:29:21\n"
    return (
        lines % version
        + bytes([kind, 8])
        + b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in events)
    )


def _text(lines):
    return "".join(line + "\r\n" for line in lines).encode()


def atis(events):
    """ATIS file of 5-byte events, all before the clock of 23 bits wraps around."""
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for t, x, y, p in events)
