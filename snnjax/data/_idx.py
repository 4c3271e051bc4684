"""MNIST and Fashion-MNIST from their four idx files, plain or gzipped.

An idx file is a magic number (two zero bytes, the element type, the number of axes), the axes as
big-endian int32, then the elements. Both data sets use the same four file names, so every file is
identified by the sha256 of its unpacked content: one set cannot pass for the other.

References:
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document
    Recognition", Proceedings of the IEEE, 1998.
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms", 2017, arXiv:1708.07747.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from snnjax.data._archive import read_file
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

# Fashion-MNIST has taken over the names of MNIST.
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_SIZES = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)  # bytes, unpacked

# sha256 of the unpacked files, in the order of _FILES: a repacked gz differs in its header only.
# Packed, the published files have the sha256 that TensorFlow Datasets records.
SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}

CLASS_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}

NOTES = {
    "mnist": "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, 1998; the files state no licence.",
    "fashion_mnist": "H. Xiao, K. Rasul, R. Vollgraf, 2017, arXiv:1708.07747; MIT licence.",
}


def read_idx_files(folder: Path, name: str) -> Dataset:
    """Reads the four files of MNIST or Fashion-MNIST and verifies their checksums.

    Args:
        folder: Folder of the four files, each plain or with `.gz`.
        name: `"mnist"` or `"fashion_mnist"`.

    Returns:
        60,000 and 10,000 images `[N, 28, 28, 1]` uint8.

    Raises:
        MissingDataError: If a file is missing.
        CorruptDataError: If a file is not the published one of this data set.
    """
    arrays = []
    for file, size, sha256 in zip(_FILES, _SIZES, SHA256[name], strict=True):
        content = _content(folder, file, size)
        # Of the content: each program that packs a file writes a header of its own.
        digest = hashlib.sha256(content).hexdigest()
        if digest != sha256:
            raise CorruptDataError(_mismatch(folder / file, name, sha256, digest))
        arrays.append(parse_idx(content))
    train_images, train_labels, test_images, test_labels = arrays
    return Dataset(
        name=name,
        # idx files have no channel axis, and their labels are bytes.
        train=Split(train_images[..., None], train_labels.astype(np.int32)),
        test=Split(test_images[..., None], test_labels.astype(np.int32)),
        classes=10,
        class_names=CLASS_NAMES[name],
        input_shape=(28, 28, 1),
        scale=1 / 255,
        note=NOTES[name] + " Read from idx files.",
    )


def parse_idx(content: bytes) -> np.ndarray:
    """Parses an unpacked idx file of unsigned bytes.

    Args:
        content: The whole file.

    Returns:
        uint8 array of the shape stated in the file.

    Raises:
        CorruptDataError: If the content is no idx file of unsigned bytes, or is truncated.
    """
    # 0x08 is the type of unsigned bytes, the only one in these sets.
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise CorruptDataError("not an idx file of unsigned bytes: it must begin with 00 00 08")
    header = 4 + 4 * content[3]
    axes = content[4:header]
    shape = tuple(int.from_bytes(axes[i : i + 4], "big") for i in range(0, len(axes), 4))
    # NumPy would refuse the reshape too, without naming the cure.
    # Python's integers: a product of 64 bits would wrap around.
    if len(content) < header or len(content) - header != math.prod(shape):
        raise CorruptDataError(
            f"an idx file of shape {shape} must have {math.prod(shape)} bytes after its header, "
            f"not {len(content) - header}: it is cut short or altered; fetch it again"
        )
    # A view of the bytes: nothing is copied.
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(folder: Path, file: str, size: int) -> bytes:
    plain, packed = folder / file, folder / f"{file}.gz"
    if plain.is_file():
        return read_file(plain, largest=size)
    if not packed.is_file():
        raise MissingDataError(f"{packed} is missing; the four files are {', '.join(_FILES)}")
    try:
        with gzip.open(packed) as stream:
            # One byte more than published: gzip checks its CRC at the end of the stream, and a
            # stream without end is not unpacked.
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptDataError(f"{packed} cannot be unpacked ({error}); fetch it again") from error
    if len(content) > size:
        raise CorruptDataError(
            f"{packed} unpacks to more than the {size} bytes of the published file; fetch it again"
        )
    return content


def _mismatch(path: Path, name: str, expected: str, digest: str) -> str:
    for other, checksums in SHA256.items():
        if digest in checksums:
            return (
                f"{path} belongs to {other}, not to {name}: the two sets share their file names; "
                "keep each in a folder of its own"
            )
    return (
        f"{path} is not the published file of {name}: sha256 of its content is {digest}, "
        f"published {expected}; fetch it again"
    )
