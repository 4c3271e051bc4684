"""CIFAR-10 and CIFAR-100 from their binary version, and a JPEG copy of CIFAR-10.

A binary record is one label byte (CIFAR-100: coarse, then fine) and 3,072 pixels: 32x32 red, then
green, then blue. The "python version" is a pickle, which can run code when opened, and is not read.

The JPEG copy (quality 75, 19 MB) is not CIFAR-10: its pixels differ at a PSNR of about 30 dB. It
has a name of its own, `cifar10_jpeg`, since accuracies on it are not comparable to published ones
to the last per cent and must be reported as "CIFAR-10 (JPEG q75 copy)".

Reference:
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report,
    University of Toronto, 2009.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import read_files, refuse_duplicates
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

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
# Also the note of copies that are read through TFDS.
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

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of the largest file, and of all files together."""
        record = self.label_bytes + 3 * 32 * 32
        # Names are text of a few kilobytes, with the same room as in published copies.
        return 50_000 // len(self.train) * record, 60_000 * record + (1 << 16)


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
        folder: Folder of the `.bin` files (at any depth), or of their published archive, whose
            sha256 is then verified. Single `.bin` files have no published checksum; their sizes and
            class counts are verified instead.
        name: `"cifar10"` or `"cifar100"` (the 100 fine labels).

    Returns:
        50,000 and 10,000 images `[N, 32, 32, 3]` uint8.

    Raises:
        MissingDataError: If a file is missing.
        CorruptDataError: If a file differs from the published one.
    """
    layout = LAYOUTS[name]
    names = {*layout.train, *layout.test, layout.names_file}
    # Unpacked files are preferred to the archive, whose checksum then says nothing about them.
    unpacked = any(folder.rglob(layout.test[0]))
    if not unpacked and (folder / layout.archive).is_file():
        _check_archive(folder / layout.archive, layout.sha256)
    # By name, since published archives have a folder around the files.
    files: dict[str, bytes] = {}
    largest, total = layout.sizes
    for path, content in read_files(folder, lambda p: p.name in names, member=largest, total=total):
        refuse_duplicates(folder, [*((name,) for name in files), (path.name,)])
        files[path.name] = content
    # Without the file of names, which only serves texts.
    missing = sorted({*layout.train, *layout.test} - files.keys())
    if missing:
        raise MissingDataError(
            f"{folder} lacks {', '.join(missing)} of the binary version of {name} (the python "
            "version is a pickle and is not read)"
        )
    train = parse_records([files[file] for file in layout.train], label_bytes=layout.label_bytes)
    test = parse_records([files[file] for file in layout.test], label_bytes=layout.label_bytes)
    # A file of whole records may still be another one: class counts tell.
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


def read_cifar10_jpeg(folder: Path) -> Dataset:
    """Reads the JPEG copy of CIFAR-10; takes about ten seconds and the extra `snnjax[data]`.

    Args:
        folder: Folder with `train/<class>/<number>.jpg` and `test/<class>/<number>.jpg`, or a tar
            of them.

    Returns:
        50,000 and 10,000 images `[N, 32, 32, 3]` uint8, sorted by class, then number.

    Raises:
        ImportError: If Pillow is not installed.
        MissingDataError: If the folder has no such files.
        CorruptDataError: If a class has more or fewer images than CIFAR-10, or an image is broken.
    """
    images: dict[tuple[str, int, int], np.ndarray] = {}
    for path, content in read_files(folder, _is_jpeg, member=1 << 16, total=256 << 20):
        split, name, number = path.parts[-3], path.parts[-2], int(path.stem)
        # Keyed, not appended: the order within a tar is not that of a folder.
        key = (split, CIFAR10_CLASSES.index(name), number)
        if key in images:
            raise CorruptDataError(f"{path} is there twice, or two files have number {number}")
        images[key] = decode_jpeg(content, path)
    if not images:
        raise MissingDataError(
            f"{folder} has no files train/<class>/<number>.jpg, nor a tar of them"
        )
    train, test = _jpeg_split(images, "train"), _jpeg_split(images, "test")
    check_balance("cifar10_jpeg", train, test, classes=10)
    return Dataset(
        name="cifar10_jpeg",
        train=train,
        test=test,
        classes=10,
        class_names=CIFAR10_CLASSES,
        input_shape=(32, 32, 3),
        scale=1 / 255,
        note="CIFAR-10 (JPEG q75 copy), NOT the original pixels: say so beside any accuracy. "
        "A. Krizhevsky, 2009; the set states no licence.",
    )


def parse_records(files: list[bytes], *, label_bytes: int) -> Split:
    """Parses files of CIFAR records into images and labels.

    Args:
        files: Content of each file, in order.
        label_bytes: Label bytes before the pixels; the last of them is the label.

    Returns:
        Images `[N, 32, 32, 3]` uint8, labels `[N]` int32.

    Raises:
        CorruptDataError: If a file does not hold a whole number of records.
    """
    length = label_bytes + 3 * 32 * 32
    # A truncated download seldom ends at a record.
    if any(len(content) % length for content in files):
        raise CorruptDataError(
            f"a CIFAR file must be a multiple of {length} bytes, not "
            f"{[len(content) for content in files]}: it is cut short; fetch it again"
        )
    records = np.concatenate([np.frombuffer(c, np.uint8).reshape(-1, length) for c in files])
    # Planar channels first on disk; channels last everywhere else.
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = records[:, label_bytes - 1].astype(np.int32)
    # The transpose is a view, whose rows a loader would gather with strides.
    return Split(np.ascontiguousarray(images), labels)


def decode_jpeg(content: bytes, path: PurePosixPath) -> np.ndarray:
    """Decodes one image to `[32, 32, 3]` uint8, or raises `CorruptDataError` naming `path`."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "cifar10_jpeg is decoded by Pillow: pip install 'snnjax[data]'"
        ) from error
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            # Before decoding: a file of a kilobyte can claim an image of gigabytes.
            if image.size != (32, 32):
                raise CorruptDataError(f"{path} is an image of {image.size}, not of 32x32")
            # A grey JPEG would decode to two axes.
            return np.asarray(image.convert("RGB"))
    except CorruptDataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptDataError(f"{path} is not a readable JPEG ({error})") from error


def check_balance(name: str, train: Split, test: Split, *, classes: int) -> None:
    """Raises `CorruptDataError` unless 50,000 and 10,000 examples are balanced over the classes."""
    for split, count in ((train, 50_000), (test, 10_000)):
        # `minlength` counts absent classes as 0 instead of leaving them out.
        counts = np.bincount(split.labels, minlength=classes)
        if len(counts) != classes or (counts != count // classes).any():
            raise CorruptDataError(
                f"{name} has {count} examples, {count // classes} of each of {classes} classes; "
                f"found {len(split)}, from {counts.min()} to {counts.max()} of "
                f"{len(counts)} classes: not the published set; fetch it again"
            )


def _check_archive(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        # In chunks: the archive need not be in memory.
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise CorruptDataError(
            f"{path} is not the published archive: sha256 is {digest}, published {expected}; "
            "fetch it again"
        )


def _class_names(content: bytes | None, name: str, classes: int) -> tuple[str, ...]:
    if name == "cifar10":
        return CIFAR10_CLASSES
    if content is None:
        return tuple(str(label) for label in range(classes))
    try:
        return tuple(content.decode().split())
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"the class names of {name} are no text ({error})") from error


def _is_jpeg(path: PurePosixPath) -> bool:
    return (
        path.suffix == ".jpg"
        and len(path.parts) >= 3
        and path.parts[-3] in ("train", "test")
        and path.parts[-2] in CIFAR10_CLASSES
        and path.stem.isdigit()
    )


def _jpeg_split(images: dict[tuple[str, int, int], np.ndarray], name: str) -> Split:
    keys = sorted(key for key in images if key[0] == name)
    labels = np.array([label for _, label, _ in keys], np.int32)
    pixels = np.empty((len(keys), 32, 32, 3), np.uint8)
    for i, key in enumerate(keys):
        pixels[i] = images.pop(key)  # freed once copied: the set is never in memory twice
    return Split(pixels, labels)
