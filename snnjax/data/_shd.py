"""Spiking Heidelberg Digits (SHD) and Spiking Speech Commands (SSC): spoken words as spikes.

A model of the cochlea with 700 channels turned studio recordings of digits (SHD: English and
German, 20 classes) and Google's Speech Commands (SSC: 35 classes) into spikes. One HDF5 file per
part, `shd_train.h5`, `shd_test.h5`, `ssc_train.h5`, `ssc_valid.h5`, `ssc_test.h5`:

    spikes/times   [N] lists of seconds        labels       [N] classes from 0
    spikes/units   [N] lists of channels       extra/keys   [K] names of the classes
                                               extra/speaker [N] speakers (SHD)

The checksums of the publisher are those of its archives: an archive that was not unpacked is
checked, an unpacked file by its structure and its number of recordings. The reader was tested on
files written in this layout, not on the data sets themselves.

Reference:
    B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, "The Heidelberg Spiking Data Sets for the
    Systematic Evaluation of Spiking Neural Networks", IEEE Transactions on Neural Networks and
    Learning Systems, 2022, arXiv:1910.07407. Files: zenkelab.org/datasets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data._hdf5 import open_hdf5
from snnjax.data._recordings import Recordings, as_events
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

CHANNELS = 700
COUNTS = {
    "shd": {"train": 8156, "test": 2264},
    "ssc": {"train": 75466, "valid": 9981, "test": 20382},
}
"""Recordings in each part, as published."""
_CLASSES = {"shd": 20, "ssc": 35}
# Of the archives, as Tonic and SpikingJelly both record them; those of SSC have no second source.
_MD5 = {
    "shd_train.h5.zip": "f3252aeb598ac776c1b526422d90eecb",
    "shd_test.h5.zip": "1503a5064faa34311c398fb0a1ed0a6f",
}
_REQUIRED = ("spikes/times", "spikes/units", "labels")
_LONGEST = 60.0  # seconds; published recordings last at most 1.4


def read_shd(
    folder: Path,
    *,
    name: str = "shd",
    test: str = "test",
    counts: Mapping[str, int] | None = None,
) -> Dataset:
    """Lists the recordings of SHD or SSC; each is read on access.

    Args:
        folder: Folder of the unpacked files `<name>_<part>.h5`.
        name: `"shd"` or `"ssc"`.
        test: Part that is the test split: `"test"`, or `"valid"` of SSC.
        counts: Required number of recordings of each part; None is the published one.

    Returns:
        Recordings `[E, 4]` int32 with the columns microseconds, channel 0..699, 0 and 1: the
        format of an event camera of one row, which `encoding.events.channels_by_time` bins.
        `input_shape` is `(1, 700, 2)`. Training examples of SHD are grouped by speaker for
        `hold_out`; the published test split shares ten of twelve speakers with them.

    Raises:
        ImportError: If `h5py` is not installed.
        MissingDataError: If a file is missing or was not unpacked.
        CorruptDataError: If a file or an archive is damaged, or a part is not complete. On access,
            if a recording has a time or a channel out of range.
    """
    counts = COUNTS[name] if counts is None else counts
    parts = [_part(folder, name, part, counts[part]) for part in ("train", test)]
    names = parts[0][2] or tuple(map(str, range(_CLASSES[name])))
    splits = []
    for part, (labels, speakers, _) in zip(("train", test), parts, strict=True):
        path = folder / f"{name}_{part}.h5"
        # Pairs of a file and a number: one function reads both parts, so that they can be joined.
        sources = tuple((path, index) for index in range(len(labels)))
        groups = speakers if part == "train" else None
        splits.append(Split(Recordings(sources, _read), labels, groups))
    return Dataset(
        name=name if test == "test" else f"{name}_{test}",
        train=splits[0],
        test=splits[1],
        classes=_CLASSES[name],
        class_names=names,
        input_shape=(1, CHANNELS, 2),
        scale=1.0,
        note=f"{name.upper()}, {len(splits[0])} + {len(splits[1])} recordings, read on access. "
        "B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, 2022; CC BY 4.0.",
    )


def _part(folder: Path, name: str, part: str, count: int) -> tuple[np.ndarray, Any, Any]:
    """Labels, speakers or None, and names of the classes or None, of one part."""
    path = folder / f"{name}_{part}.h5"
    if not path.is_file():
        raise _not_unpacked(path)
    with open_hdf5(path, _REQUIRED) as file:
        lengths = {member: len(file[member]) for member in _REQUIRED}
        if set(lengths.values()) != {count}:
            raise CorruptDataError(
                f"{path} has {lengths} recordings where the published part has {count}: fetch it "
                "again"
            )
        labels = file["labels"][()]
        speakers = file["extra/speaker"][()] if "extra/speaker" in file else None
        keys = file["extra/keys"][()] if "extra/keys" in file else None
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < _CLASSES[name]:
        raise CorruptDataError(
            f"{path} has {labels.dtype} labels from {labels.min()} to {labels.max()}, not "
            f"0 to {_CLASSES[name] - 1}: fetch it again"
        )
    if speakers is not None and speakers.shape != labels.shape:
        raise CorruptDataError(f"{path} has {speakers.shape} speakers: fetch it again")
    if keys is not None:
        keys = tuple(k.decode() if isinstance(k, bytes) else str(k) for k in keys)
    return labels, speakers, keys if keys and len(keys) == _CLASSES[name] else None


def _not_unpacked(path: Path) -> Exception:
    """The error for a missing file, after a look for its archive."""
    for archive in (path.with_name(path.name + suffix) for suffix in (".zip", ".gz")):
        if archive.is_file():
            expected = _MD5.get(archive.name)
            with archive.open("rb") as file:
                digest = hashlib.file_digest(file, "md5").hexdigest() if expected else None
            if digest != expected:
                return CorruptDataError(
                    f"{archive} has the MD5 sum {digest}, the published file {expected}: fetch it "
                    "again"
                )
            tool = "unzip" if archive.suffix == ".zip" else "gunzip"
            return MissingDataError(f"{archive} is packed: unpack it there, {tool} {archive.name}")
    return MissingDataError(f"{path} is missing; it comes from zenkelab.org/datasets")


def _read(source: tuple[Path, int]) -> np.ndarray:
    path, index = source
    with open_hdf5(path, _REQUIRED) as file:
        times, units = (np.asarray(file[f"spikes/{name}"][index]) for name in ("times", "units"))
    name = f"{path}: recording {index}"
    # Stored in half precision, which overflows at 65504 microseconds.
    seconds = times.astype(np.float64)
    # Written so that NaN fails.
    if times.dtype.kind != "f" or not ((seconds >= 0) & (seconds < _LONGEST)).all():
        raise CorruptDataError(
            f"{name} has times other than seconds from 0 to {_LONGEST:g}: a damaged file to fetch "
            "again, or one of milliseconds to divide by 1000"
        )
    microseconds = np.round(1e6 * seconds).astype(np.int64)
    blank = np.zeros(len(microseconds), np.int64)
    return as_events(microseconds, units, blank, blank + 1, height=1, width=CHANNELS, name=name)
