"""N-Caltech101: Caltech101 photographs recorded by an event camera in three saccades (0.3 s).

ATIS files (see `event_files`) in one folder per class, `accordion/image_0001.bin`, ...: 100 objects
and `BACKGROUND_Google`, 8,709 recordings of at most 180 rows by 240 columns. The classes differ in
size, from 31 to 800.

The data set comes without a split. In each class the first nine tenths of the recordings, rounded
up and in order of file names, are for training, as for CIFAR10-DVS. Published numbers use splits of
their own. The reader was tested on files written from the format description and the published
folder layout, not on the data set itself.

Reference:
    G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, "Converting Static Image Datasets to Spiking
    Neuromorphic Datasets Using Saccades", Frontiers in Neuroscience, 2015, arXiv:1507.07629. Files:
    garrickorchard.com/datasets/n-caltech101, Caltech101.zip.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import list_files, read_file, refuse_duplicates
from snnjax.data._recordings import Recordings
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split
from snnjax.data.event_files import parse_atis

HEIGHT, WIDTH = 180, 240
COUNTS = (101, 8709)
"""Classes and recordings, as published."""
_LARGEST = 16 << 20  # bytes of a recording: three million events


def read_ncaltech101(folder: Path, *, counts: tuple[int, int] = COUNTS) -> Dataset:
    """Lists the recordings of N-Caltech101; each is read on access.

    Args:
        folder: Folder of the unpacked class folders, at any depth.
        counts: Required numbers of classes and recordings, so that missing files are noticed.

    Returns:
        Recordings `[E, 4]` int32 of different lengths, sorted by class, then name. `input_shape` is
        `(180, 240, 2)`.

    Raises:
        MissingDataError: If the folder has no recordings, or only an archive of them.
        CorruptDataError: If classes or recordings are missing, or one occurs twice.
    """
    files = list_files(folder, _is_recording)
    if not files:
        raise MissingDataError(f"{folder} has no files <class>/image_<number>.bin")
    refuse_duplicates(folder, ((file.parent.name, file.name) for file in files))
    names = tuple(sorted({file.parent.name for file in files}))
    if (len(names), len(files)) != counts:
        raise CorruptDataError(
            f"{folder} has {len(names)} classes and {len(files)} recordings, not {counts[0]} and "
            f"{counts[1]}: unpack Caltech101.zip again"
        )
    by_class = [[file for file in files if file.parent.name == name] for name in names]
    cuts = [-(-9 * len(recordings) // 10) for recordings in by_class]
    pairs = list(zip(by_class, cuts, strict=True))
    return Dataset(
        name="ncaltech101",
        train=_split([recordings[:cut] for recordings, cut in pairs]),
        test=_split([recordings[cut:] for recordings, cut in pairs]),
        classes=len(names),
        class_names=names,
        input_shape=(HEIGHT, WIDTH, 2),
        scale=1.0,
        note="N-Caltech101, read on access; the last tenth of each class tests. G. Orchard, "
        "A. Jayawant, G. K. Cohen, N. Thakor, 2015; CC BY 4.0.",
    )


def _is_recording(path: PurePosixPath) -> bool:
    # The archive of bounding boxes has `annotation_0001.bin` in folders of the same names.
    return len(path.parts) > 1 and path.suffix == ".bin" and path.name.startswith("image_")


def _split(by_class: list[list[Path]]) -> Split:
    files = tuple(file for recordings in by_class for file in recordings)
    labels = np.repeat(np.arange(len(by_class), dtype=np.int32), list(map(len, by_class)))
    return Split(Recordings(files, _read), labels)


def _read(path: Path) -> np.ndarray:
    return parse_atis(read_file(path, largest=_LARGEST), name=str(path), height=HEIGHT, width=WIDTH)
