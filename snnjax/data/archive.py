"""Files of a folder, or of the archives lying in it: read into memory, never unpacked to disk.

Data sets travel as a folder of small files, as a tar or as a zip. A reader asks for the names it
wants and gets their bytes, whichever it is; nothing is written, so an archive with absolute or
climbing paths can do no harm. A set too large for memory is read out of order, which an archive
does not allow in reasonable time: `unpacked` lists its files and asks for them unpacked.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from snnjax.data.errors import CorruptDataError, MissingDataError

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


def unpacked(folder: Path, wanted: Callable[[PurePosixPath], bool]) -> list[Path]:
    """Lists the wanted files of a set that is read file by file, when asked for.

    Args:
        folder: Where the files lie.
        wanted: Whether a file is asked for, from its path relative to the folder.

    Returns:
        The files, sorted by path; none where the folder has none.

    Raises:
        MissingDataError: Where there are archives instead of them.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [PurePosixPath(path.relative_to(folder).as_posix()) for path in files]
    found = [f for f, name in zip(files, names, strict=True) if _visible(name) and wanted(name)]
    archives = [f.name for f in files if f.name.endswith((*_TARS, ".zip"))]
    if archives and not found:
        raise MissingDataError(
            f"{folder} has archives only ({', '.join(archives[:3])}), and this set is too large to "
            "be read out of them: unpack them there (tar -xf, unzip)"
        )
    return found


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
