"""HDF5 files, opened by the package `h5py`: the extra `snnjax[h5]`.

A file that ends early is refused. One with forged bytes may keep the C library of HDF5 busy without
end: open files of sources you trust.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from snnjax.data.dataset import CorruptDataError, MissingDataError


@contextlib.contextmanager
def open_hdf5(path: Path, required: Sequence[str]) -> Iterator[Any]:
    """Opens an HDF5 file for reading, and names it in every error of its content.

    Args:
        path: Path of the file.
        required: Data sets that the file must have, `group/name`.

    Yields:
        The open `h5py.File`.

    Raises:
        ImportError: If `h5py` is not installed.
        MissingDataError: If the file does not exist.
        CorruptDataError: If it is no HDF5 file, ends early or lacks a data set.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need h5py: pip install 'snnjax[h5]'") from error
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; give the path of an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            # A soft link to nothing is a member that cannot be opened.
            missing = [n for n in required if not isinstance(file.get(n), h5py.Dataset)]
            if missing:
                raise CorruptDataError(
                    f"{path} lacks {', '.join(missing)}; it has {sorted(file)}: another file, or "
                    "a damaged one to fetch again"
                )
            yield file
    except CorruptDataError:
        raise
    # h5py raises these for a header that is none and for chunks that cannot be decoded.
    except (OSError, KeyError, RuntimeError) as error:
        raise CorruptDataError(
            f"{path} cannot be read as HDF5 ({error}); fetch it again"
        ) from error
