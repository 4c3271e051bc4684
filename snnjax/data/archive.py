"""Files of a folder, or of the archives lying in it: read into memory, never unpacked to disk.

Data sets travel as a folder of small files, as a tar or as a zip. A reader asks for the names it
wants and gets their bytes, whichever it is; nothing is written, so an archive with absolute or
climbing paths can do no harm.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from snnjax.data.errors import CorruptDataError

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError)


def members(
    folder: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yields path and content of every wanted file, unpacked files first.

    Args:
        folder: Where the files, or tar and zip archives of them, lie.
        wanted: Whether a file is asked for, from its path relative to the folder or the archive.

    Yields:
        `(path, content)`, in the order of the folder or the archive. Archives are only opened
        where the folder has no wanted file of its own.

    Raises:
        CorruptDataError: Where an archive cannot be read to its end.
    """
    found = False
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_file() and _visible(relative) and wanted(relative):
            found = True
            yield relative, path.read_bytes()
    if found:
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if path.name.endswith(_TARS):
                yield from _tar_members(path, wanted)
            elif path.suffix == ".zip":
                yield from _zip_members(path, wanted)
        except _BROKEN as error:
            raise CorruptDataError(
                f"{path} cannot be read to its end ({error}); fetch it again"
            ) from error


def _visible(path: PurePosixPath) -> bool:
    # Archives packed on a Mac carry a "._name" of resource data beside each file.
    return not path.name.startswith("._")


def _tar_members(path: Path, wanted: Callable[[PurePosixPath], bool]):
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and _visible(name) and wanted(name):
                content = archive.extractfile(member)
                assert content is not None  # a regular file has content
                yield name, content.read()


def _zip_members(path: Path, wanted: Callable[[PurePosixPath], bool]):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = PurePosixPath(info.filename)
            if not info.is_dir() and _visible(name) and wanted(name):
                yield name, archive.read(info)
