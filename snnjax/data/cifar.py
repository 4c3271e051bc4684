"""CIFAR-10 and CIFAR-100 from their binary version.

A record is one label byte (CIFAR-100: coarse, then fine) and 3,072 pixels: 32x32 red, then green,
then blue. The "python version" is a pickle, which can run code when opened, and is not read.

Reference:
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report,
    University of Toronto, 2009.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from snnjax.data.archive import members
from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
NOTE = "A. Krizhevsky, 2009; the set states no licence."


@dataclasses.dataclass(frozen=True)
class _Layout:
    archive: str
    sha256: str  # of the archive, as TensorFlow Datasets records it
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    classes: int
    names_file: str


LAYOUTS = {
    "cifar10": _Layout(
        archive="cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test=("test_batch.bin",),
        label_bytes=1,
        classes=10,
        names_file="batches.meta.txt",
    ),
    "cifar100": _Layout(
        archive="cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        train=("train.bin",),
        test=("test.bin",),
        label_bytes=2,
        classes=100,
        names_file="fine_label_names.txt",
    ),
}


def read_cifar_files(folder: Path, name: str) -> Dataset:
    """Reads the binary version of CIFAR-10 or CIFAR-100.

    Args:
        folder: Where the `.bin` files lie (at any depth), or the published archive of them, whose
            sha256 is then checked. No checksum is published for a single `.bin` file; sizes and
            class counts are checked instead.
        name: `"cifar10"` or `"cifar100"` (the 100 fine labels).

    Returns:
        50,000 and 10,000 images `[N, 32, 32, 3]` uint8.

    Raises:
        MissingDataError: Where a file is not there.
        CorruptDataError: Where a file is not as published.
    """
    layout = LAYOUTS[name]
    wanted = {*layout.train, *layout.test, layout.names_file}
    unpacked = any(folder.rglob(layout.test[0]))
    if not unpacked and (folder / layout.archive).is_file():
        _check_archive(folder / layout.archive, layout.sha256)
    files = {path.name: content for path, content in members(folder, lambda p: p.name in wanted)}
    missing = sorted({*layout.train, *layout.test} - files.keys())
    if missing:
        raise MissingDataError(
            f"{folder} lacks {', '.join(missing)} of the binary version of {name} (the python "
            "version is a pickle and is not read)"
        )
    train = parse_records([files[file] for file in layout.train], label_bytes=layout.label_bytes)
    test = parse_records([files[file] for file in layout.test], label_bytes=layout.label_bytes)
    check_balance(name, train, test, classes=layout.classes)
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=layout.classes,
        class_names=_class_names(files.get(layout.names_file), name, layout.classes),
        input_shape=(32, 32, 3),
        scale=1 / 255,
        note=NOTE + " Read from the binary version.",
    )


def parse_records(files: list[bytes], *, label_bytes: int) -> Split:
    """Turns files of CIFAR records into images and labels.

    Args:
        files: The content of each file, in order.
        label_bytes: Label bytes before the pixels; the last of them is the label.

    Returns:
        Images `[N, 32, 32, 3]` uint8, labels `[N]` int32.

    Raises:
        CorruptDataError: Where a file does not hold a whole number of records.
    """
    length = label_bytes + 3 * 32 * 32
    if any(len(content) % length for content in files):
        raise CorruptDataError(
            f"a CIFAR file must be a multiple of {length} bytes, not "
            f"{[len(content) for content in files]}: it is cut short; fetch it again"
        )
    records = np.concatenate([np.frombuffer(c, np.uint8).reshape(-1, length) for c in files])
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = records[:, label_bytes - 1].astype(np.int32)
    return Split(np.ascontiguousarray(images), labels)


def check_balance(name: str, train: Split, test: Split, *, classes: int) -> None:
    """Raises `CorruptDataError` unless 50,000 and 10,000 examples fall evenly on the classes."""
    for split, count in ((train, 50_000), (test, 10_000)):
        counts = np.bincount(split.labels, minlength=classes)
        if len(counts) != classes or (counts != count // classes).any():
            raise CorruptDataError(
                f"{name} has {count} examples, {count // classes} of each of {classes} classes; "
                f"found {len(split)}, from {counts.min()} to {counts.max()} of "
                f"{len(counts)} classes: not the published set; fetch it again"
            )


def _check_archive(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise CorruptDataError(
            f"{path} is not the published archive: sha256 is {found}, published {expected}; "
            "fetch it again"
        )


def _class_names(content: bytes | None, name: str, classes: int) -> tuple[str, ...]:
    if name == "cifar10":
        return CIFAR10_CLASSES
    if content is None:
        return tuple(str(label) for label in range(classes))
    return tuple(content.decode().split())
