"""N-CARS: cars and street background, 0.1 s each, cropped from an event camera's field of view.

Files are DAT files of Prophesee (see `event_files`). Rows and columns count from the corner of the
crop, at most 100 rows by 120 columns. The reader was tested on one recording of the data set and on
files written from the format description.

Reference:
    A. Sironi, M. Brambilla, N. Bourdis, X. Lagorce, R. Benosman, "HATS: Histograms of Averaged
    Time Surfaces for Robust Event-based Object Classification", CVPR 2018, arXiv:1803.07913.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import list_files, read_file, refuse_duplicates
from snnjax.data._recordings import Recordings
from snnjax.data.dataset import Dataset, MissingDataError, Split
from snnjax.data.event_files import parse_dat

# The largest crop: smaller ones leave rows and columns empty, so that frames have one shape.
HEIGHT, WIDTH = 100, 120

_LARGEST = 16 << 20  # bytes of a recording of 0.1 s: two million events
_CLASSES = {"background": 0, "cars": 1}


def read_ncars(folder: Path) -> Dataset:
    """Lists the recordings of N-CARS, whole set or subset; each is read on access.

    Args:
        folder: Folder of the unpacked folders `train` and `test` (or `n-cars_train` and
            `n-cars_test`), each with `cars` and `background`.

    Returns:
        Recordings `[E, 4]` int32 of different lengths; the published set has 15,422 and 8,607.
        `input_shape` is `(100, 120, 2)`. `dense` with 8 timesteps of uint8 frames takes 4.6 GB.

    Raises:
        MissingDataError: If the folder has no recordings, or only archives of them.
        CorruptDataError: If a recording occurs twice.
    """
    files = list_files(folder, lambda path: _split_name(path) is not None)
    if not files:
        raise MissingDataError(f"{folder} has no files train/cars/*.dat nor train/background/*.dat")
    names = [PurePosixPath(file.relative_to(folder)) for file in files]
    refuse_duplicates(folder, ((_split_name(p), p.parent.name, p.name) for p in names))
    train, test = (_split(folder, files, name) for name in ("train", "test"))
    return Dataset(
        name="ncars",
        train=train,
        test=test,
        classes=2,
        class_names=tuple(_CLASSES),
        input_shape=(HEIGHT, WIDTH, 2),
        scale=1.0,
        note=f"N-CARS, {len(train)} + {len(test)} recordings, read on access. A. Sironi, "
        "M. Brambilla, N. Bourdis, X. Lagorce, R. Benosman, 2018; see its page for its licence.",
    )


def _split_name(path: PurePosixPath) -> str | None:
    if path.suffix != ".dat" or path.parent.name not in _CLASSES:
        return None
    # `n-cars_train` ends like `train`: both published layouts are read.
    folder = path.parent.parent.name
    return next((split for split in ("train", "test") if folder.endswith(split)), None)


def _split(folder: Path, files: list[Path], name: str) -> Split:
    paths = [f for f in files if _split_name(PurePosixPath(f.relative_to(folder))) == name]
    if not paths:
        raise MissingDataError(
            f"no recordings {name}/cars/*.dat nor {name}/background/*.dat in {folder}"
        )
    # From the folder: files do not hold their class.
    labels = np.array([_CLASSES[f.parent.name] for f in paths], np.int32)
    return Split(Recordings(tuple(paths), _read), labels)


def _read(path: Path) -> np.ndarray:
    return parse_dat(read_file(path, largest=_LARGEST), name=str(path), height=HEIGHT, width=WIDTH)
