"""AEDAT 4: event recordings of iniVation's DV, read through the package `aedat` (an extra).

The format packs FlatBuffers with LZ4 or Zstandard, neither of which Python can unpack by itself;
`aedat` (MIT licence, NumPy its only dependency) does.

Reference:
    iniVation, "AEDAT 4.0", docs.inivation.com; International Centre for Neuromorphic Systems,
    "aedat", github.com/neuromorphicsystems/aedat.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.recordings import as_events


def read_aedat4(path: str | Path, *, stream: int | None = None) -> np.ndarray:
    """Reads the polarity events of an AEDAT 4 file.

    Args:
        path: The file.
        stream: Which stream of events to read, by its number; needed only where there are several,
            as from two cameras.

    Returns:
        Its events in order of time, `[E, 4]` int32: t in microseconds since the first event (the
        file counts from 1970, which 32 bits do not hold), x from the left, y from the top, p.

    Raises:
        ImportError: Where `aedat` is not installed.
        MissingDataError: Where there is no such file.
        CorruptDataError: Where it is cut short, damaged, or has no events.
        ValueError: Where there are several streams of events and none is chosen, or it is longer
            than 36 minutes.
    """
    try:
        # By name: type checkers take `import aedat` for the file beside this one.
        aedat = importlib.import_module("aedat")
    except ImportError as error:
        raise ImportError("AEDAT 4 needs a decoder: pip install 'snnjax[events]'") from error
    if not Path(path).is_file():
        raise MissingDataError(f"{path} does not exist; give the path of an .aedat4 file")
    try:
        decoder = aedat.Decoder(str(path))
        stream, description = _choose(decoder.id_to_stream(), stream, path)
        packets = [p["events"] for p in decoder if p["stream_id"] == stream]
    except RuntimeError as error:  # all that the decoder raises
        raise CorruptDataError(
            f"{path} cannot be read as AEDAT 4 ({error}); fetch it again"
        ) from error
    if not sum(map(len, packets)):
        raise CorruptDataError(f"{path} has no events in stream {stream}; fetch it again")
    events = np.concatenate(packets)
    time = events["t"].astype(np.int64)
    return as_events(
        time - time.min(),
        events["x"],
        events["y"],
        events["on"],
        height=description["height"],
        width=description["width"],
        name=str(path),
    )


def _choose(
    streams: dict[int, dict[str, Any]], stream: int | None, path: str | Path
) -> tuple[int, dict[str, Any]]:
    events = {number: s for number, s in streams.items() if s["type"] == "events"}
    if not events:
        raise CorruptDataError(
            f"{path} has no stream of events; record one, or choose another file"
        )
    if stream is None and len(events) == 1:
        stream = next(iter(events))
    if stream is None or stream not in events:
        raise ValueError(f"{path} has streams of events {sorted(events)}: give stream= one of them")
    return stream, events[stream]
