"""Files of a folder or of the archives in it, and errors for broken archives."""

import io
import tarfile
import zipfile

import pytest

from snnjax.data._archive import list_files, read_files
from snnjax.data.dataset import CorruptDataError, MissingDataError

CONTENT = {"a/1.bin": b"one", "a/._1.bin": b"a Mac's", "b/2.bin": b"two", "b/note.txt": b"no"}


def _read(folder):
    return {
        str(path): content for path, content in read_files(folder, lambda p: p.suffix == ".bin")
    }


def _tar(path, mode="w:xz"):
    with tarfile.open(path, mode) as archive:
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _folder(root):
    for name, content in CONTENT.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)


def _zip(root):
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "make",
    [
        _folder,
        _zip,
        lambda root: _tar(root / "all.tar.xz"),
        lambda root: _tar(root / "all.tar.gz", "w:gz"),
    ],
    ids=["folder", "zip", "tar.xz", "tar.gz"],
)
def test_all_kinds_give_the_same_files(tmp_path, make):
    make(tmp_path)
    assert _read(tmp_path) == {"a/1.bin": b"one", "b/2.bin": b"two"}


def test_unpacked_files_come_instead_of_the_archive(tmp_path):
    _tar(tmp_path / "all.tar.xz")
    (tmp_path / "3.bin").write_bytes(b"three")
    assert _read(tmp_path) == {"3.bin": b"three"}


@pytest.mark.parametrize("name", ["all.tar.xz", "all.tar.gz", "all.zip"])
def test_a_broken_archive_is_named(tmp_path, name):
    if name.endswith("zip"):
        _zip(tmp_path)
    else:
        _tar(tmp_path / name, "w:" + name.rsplit(".", 1)[1])
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CorruptDataError, match=f"{name}.*fetch it again"):
        _read(tmp_path)


def test_a_folder_without_anything_gives_nothing(tmp_path):
    assert _read(tmp_path) == {}


def test_files_of_a_large_set_are_listed_and_archives_are_not_opened(tmp_path):
    def wanted(path):
        return path.suffix == ".bin"

    assert list_files(tmp_path, wanted) == []
    _tar(tmp_path / "all.tar.gz", "w:gz")
    with pytest.raises(MissingDataError, match=r"all\.tar\.gz.*unpack them there"):
        list_files(tmp_path, wanted)
    _folder(tmp_path)
    assert list_files(tmp_path, wanted) == [tmp_path / "a" / "1.bin", tmp_path / "b" / "2.bin"]
