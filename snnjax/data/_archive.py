"""Files of a data set, in a folder or in archives, read into memory without unpacking to disk.

`read_files` yields names and bytes from plain files, tar or zip alike. Nothing is written, so an
archive with absolute or climbing paths is harmless. Data sets too large for memory need random
access, which archives do not offer at a useful speed: `list_files` lists their unpacked files, or
asks the user to unpack them.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from snnjax.data.dataset import CorruptDataError, MissingDataError

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError)


def read_files(
    folder: Path, match: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yields path and content of every matching file.

    Args:
        folder: Folder of the files, or of tar and zip archives of them.
        match: Predicate on the path relative to the folder or to the archive root.

    Yields:
        `(path, content)`, in the order of the folder or of the archive. Archives are opened only if
        the folder itself has no matching file.

    Raises:
        CorruptDataError: If an archive cannot be read to its end.
    """
    any_plain = False
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_file() and _visible(relative) and match(relative):
            any_plain = True
            yield relative, path.read_bytes()
    # An unpacked copy beside its archive must not yield every example twice.
    if any_plain:
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if path.name.endswith(_TARS):
                yield from _tar_members(path, match)
            elif path.suffix == ".zip":
                yield from _zip_members(path, match)
        except _BROKEN as error:
            raise CorruptDataError(
                f"{path} cannot be read to its end ({error}); fetch it again"
            ) from error


def list_files(folder: Path, match: Callable[[PurePosixPath], bool]) -> list[Path]:
    """Lists the matching files of a data set that is read file by file.

    Args:
        folder: Folder of the files, searched at any depth.
        match: Predicate on the path relative to the folder.

    Returns:
        The files, sorted by path; an empty list if the folder has none.

    Raises:
        MissingDataError: If the folder has archives instead of files.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [PurePosixPath(path.relative_to(folder).as_posix()) for path in files]
    matches = [f for f, name in zip(files, names, strict=True) if _visible(name) and match(name)]
    # Looked for only to give advice: nothing is unpacked here.
    archives = [f.name for f in files if f.name.endswith((*_TARS, ".zip"))]
    if archives and not matches:
        raise MissingDataError(
            f"{folder} has archives only ({', '.join(archives[:3])}), and this set is too large to "
            "be read out of them: unpack them there (tar -xf, unzip)"
        )
    return matches


def _visible(path: PurePosixPath) -> bool:
    # Archives made on macOS carry a resource fork named "._name" beside each file.
    return not path.name.startswith("._")


def _tar_members(path: Path, match: Callable[[PurePosixPath], bool]):
    with tarfile.open(path) as archive:
        # One sequential pass: random access would decompress a .tar.gz from its start each time.
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and _visible(name) and match(name):
                content = archive.extractfile(member)
                assert content is not None  # a regular file has content
                yield name, content.read()


def _zip_members(path: Path, match: Callable[[PurePosixPath], bool]):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = PurePosixPath(info.filename)
            if not info.is_dir() and _visible(name) and match(name):
                yield name, archive.read(info)
