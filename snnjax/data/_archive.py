"""Files of a data set, in a folder or in archives, read into memory without unpacking to disk.

`read_files` yields names and bytes from plain files, tar or zip alike. Nothing is written, so an
archive with absolute or climbing paths is harmless. Sizes are checked before memory is taken:

    per member    the `member` bytes of the data set; links and sparse members are refused
    in total      the `total` bytes of the data set, and 64 MiB + 20 times the size of the archive

Text of numbers packs 8 to 1 and event files 2 to 1; an archive that packs zeros reaches 1,000 to 1.

Data sets too large for memory need random access, which archives do not offer at a useful speed:
`list_files` lists their unpacked files, or asks the user to unpack them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from snnjax.data.dataset import CorruptDataError, MissingDataError

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_OPENERS: dict[str, Any] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".tar": open,
}
# tarfile and zipfile raise bare errors of Python for headers that they did not foresee: a number
# that is none, an unknown compression, an encrypted member.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    NotImplementedError,
    RuntimeError,
)
_BASE, _RATIO = 64 << 20, 20
_LONGEST_HEADER = 1 << 16  # bytes of a long name or of the extended attributes of a tar member
_CHUNK = 1 << 20


def read_files(
    folder: Path,
    match: Callable[[PurePosixPath], bool],
    *,
    member: int = 1 << 28,
    total: int = 1 << 32,
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yields path and content of every matching file.

    Args:
        folder: Folder of the files, or of tar and zip archives of them.
        match: Predicate on the path relative to the folder or to the archive root.
        member: Largest size of one file, in bytes.
        total: Largest size of all matching files, in bytes.

    Yields:
        `(path, content)`, in the order of the folder or of the archive. Archives are opened only if
        the folder itself has no matching file.

    Raises:
        CorruptDataError: If an archive cannot be read to its end, a file is larger than the data
            set allows, or a path occurs twice.
    """
    sizes = _Sizes(folder, member, total)
    any_plain = False
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_file() and _visible(relative) and match(relative):
            any_plain = True
            sizes.add(relative, path.stat().st_size, path)
            yield relative, path.read_bytes()
    # An unpacked copy beside its archive must not yield every example twice.
    if any_plain:
        return
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if path.name.endswith(_TARS):
                yield from _tar_members(path, match, sizes)
            elif path.suffix == ".zip":
                yield from _zip_members(path, match, sizes)
        except CorruptDataError:
            raise
        except _BROKEN as error:
            raise CorruptDataError(
                f"{path} cannot be read to its end ({error}); fetch it again"
            ) from error


def read_file(path: Path, *, largest: int) -> bytes:
    """Reads a whole file of at most `largest` bytes, or raises `CorruptDataError` naming it."""
    size = path.stat().st_size
    # A sparse file claims terabytes and occupies nothing.
    if size > largest:
        raise CorruptDataError(
            f"{path} has {size} bytes, more than any recording of its data set ({largest}): "
            "another file under this name; fetch it again"
        )
    return path.read_bytes()


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


def refuse_duplicates(folder: Path, keys: Iterable[tuple[Any, ...]]) -> None:
    """Raises an error if two files of a folder, or two entries of a list, are one example.

    Args:
        folder: Folder or list in error messages.
        keys: Identity of each example, such as `(split, class, file name)`.

    Raises:
        CorruptDataError: If a key occurs twice.
    """
    earlier = set()
    for key in keys:
        if key in earlier:
            raise CorruptDataError(
                f"{folder} has {'/'.join(map(str, key))} twice, so that an example would count "
                "twice: leave one of them"
            )
        earlier.add(key)


def parse_table(content: bytes, columns: int, name: str) -> np.ndarray:
    """Parses a text table of numbers.

    Args:
        content: The whole file.
        columns: Numbers per row.
        name: Name of the file in error messages.

    Returns:
        `[rows, columns]` float64, all finite.

    Raises:
        CorruptDataError: If a row has more or fewer numbers, or something other than numbers.
    """
    if not content.strip():
        return np.empty((0, columns))
    try:
        # By row: two damaged rows can hold the numbers of two whole ones together.
        values = np.loadtxt(io.BytesIO(content), ndmin=2, comments=None)
        if values.shape[1] != columns:
            raise ValueError(f"rows have {values.shape[1]}")
    except ValueError as error:
        raise CorruptDataError(
            f"{name} is not a table of {columns} numbers a row ({error}); fetch it again"
        ) from error
    if not np.isfinite(values).all():
        raise CorruptDataError(f"{name} has numbers that are not finite; fetch it again")
    return values


class _Sizes:
    """Sizes and paths of the files read so far, against the limits of their data set."""

    def __init__(self, folder: Path, member: int, total: int):
        self.folder, self.member, self.total = folder, member, total
        self.paths: set[PurePosixPath] = set()
        self.sum = 0

    def add(self, name: PurePosixPath, size: int, source: Path) -> None:
        """Counts a file before it is read, or raises an error that names it and its source."""
        if not 0 <= size <= self.member:
            raise CorruptDataError(
                f"{source}: {name} has {size} bytes, more than any file of this data set "
                f"({self.member}); fetch it again"
            )
        self.sum += size
        if self.sum > self.total:
            raise CorruptDataError(
                f"{source}: the files up to {name} have {self.sum} bytes, more than the whole data "
                f"set ({self.total}); fetch it again"
            )
        if name in self.paths:
            raise CorruptDataError(
                f"{source}: {name} occurs twice in the archives of {self.folder}; leave one of them"
            )
        self.paths.add(name)


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends in an error at its limit instead of filling the memory."""

    def __init__(self, stream: BinaryIO, path: Path):
        self.stream, self.path = stream, path
        self.limit = self.left = _unpacked_limit(path)

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        content = self.stream.read(min(size, _CHUNK) if size >= 0 else _CHUNK)
        self.left -= len(content)
        if self.left < 0:
            raise _bomb(self.path, self.limit)
        return content


class _Header(tarfile.TarInfo):
    """Header of a tar member, refused where tarfile would read any amount of text behind it."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        header = super().frombuf(buf, encoding, errors)
        texts = (b"L", b"K", b"x", b"g", b"X")  # long names, extended attributes
        if header.type in texts and not 0 <= header.size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the block of zeros that ends an archive
        # A damaged header, or an end between two members: tarfile would call the archive complete.
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} instead of a member or the end mark") from error


def _check_directory(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Raises an error if a zip lists fewer members than its last record counts."""
    # zipfile ignores the count: a damaged directory that ends early would only leave examples out.
    file.seek(-22 - len(archive.comment), io.SEEK_END)
    count = struct.unpack_from("<H", file.read(22), 10)[0]
    if count != 0xFFFF and count != len(archive.infolist()):  # more are counted elsewhere
        raise zipfile.BadZipFile(f"it lists {len(archive.infolist())} of {count} members")


def _unpacked_limit(path: Path) -> int:
    return _BASE + _RATIO * path.stat().st_size


def _bomb(path: Path, limit: int) -> CorruptDataError:
    return CorruptDataError(
        f"{path} unpacks to more than {limit} bytes, {_RATIO} times its size and more: no archive "
        "of this data set; fetch it again, or unpack it yourself"
    )


def _visible(path: PurePosixPath) -> bool:
    # Archives made on macOS carry a resource fork named "._name" beside each file.
    return not path.name.startswith("._")


def _tar_members(path: Path, match: Callable[[PurePosixPath], bool], sizes: _Sizes):
    with _OPENERS[path.suffix](path, "rb") as stream:
        bounded: Any = _Bounded(stream, path)
        # One sequential pass: random access would decompress a .tar.gz from its start each time.
        with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_Header) as archive:
            for entry in archive:
                name = PurePosixPath(entry.name)
                if entry.isdir() or not _visible(name) or not match(name):
                    continue
                # A link repeats another member, a sparse one claims a size without content.
                if not entry.isreg() or entry.issparse():
                    raise CorruptDataError(
                        f"{path}: {name} is a link, a sparse or a special file; pack the files "
                        "themselves"
                    )
                sizes.add(name, entry.size, path)
                content = archive.extractfile(entry)
                assert content is not None  # a regular file has content
                yield name, content.read()
        # The checksum of the compressed stream stands at its end, behind the end mark.
        while bounded.read(_CHUNK):
            pass


def _zip_members(path: Path, match: Callable[[PurePosixPath], bool], sizes: _Sizes):
    limit, matching = _unpacked_limit(path), []
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        _check_directory(file, archive)
        # Sizes first: zipfile reads no more of a member than the size that it states.
        for info in archive.infolist():
            name = PurePosixPath(info.filename)
            # Opened whether it matches or not: this compares its name with the one beside its
            # content, and a name damaged in the directory would only leave an example out.
            archive.open(info).close()
            if not info.is_dir() and _visible(name) and match(name):
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise CorruptDataError(f"{path}: {name} is a link; pack the files themselves")
                sizes.add(name, info.file_size, path)
                matching.append((name, info))
        if sum(info.file_size for _, info in matching) > limit:
            raise _bomb(path, limit)
        for name, info in matching:
            yield name, archive.read(info)
