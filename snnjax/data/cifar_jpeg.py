"""A JPEG copy of CIFAR-10 (quality 75): the same pictures, not the same pixels.

It is small enough to carry about (19 MB), and it is not CIFAR-10: the pixels differ by a PSNR of
about 30 dB, so accuracies must be reported as "CIFAR-10 (JPEG q75 copy)" and do not compare with
published ones to the last per cent. Hence a name of its own.

Reference:
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report,
    University of Toronto, 2009.
"""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data.archive import members
from snnjax.data.cifar import CIFAR10_CLASSES, check_balance
from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError


def read_cifar10_jpeg(folder: Path) -> Dataset:
    """Reads the JPEG copy of CIFAR-10; it takes about ten seconds and the extra `snnjax[data]`.

    Args:
        folder: Where `train/<class>/<number>.jpg` and `test/<class>/<number>.jpg` lie, or a tar of
            them.

    Returns:
        50,000 and 10,000 images `[N, 32, 32, 3]` uint8, sorted by class, then number.

    Raises:
        ImportError: Where Pillow is not installed.
        MissingDataError: Where there are no such files.
        CorruptDataError: Where a class has more or fewer images than CIFAR-10, or one is broken.
    """
    images: dict[tuple[str, int, int], np.ndarray] = {}
    for path, content in members(folder, _is_image):
        split, name, number = path.parts[-3], path.parts[-2], int(path.stem)
        images[split, CIFAR10_CLASSES.index(name), number] = decode_jpeg(content, path)
    if not images:
        raise MissingDataError(
            f"{folder} has no files train/<class>/<number>.jpg, nor a tar of them"
        )
    train, test = _split(images, "train"), _split(images, "test")
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


def decode_jpeg(content: bytes, path: PurePosixPath) -> np.ndarray:
    """Decodes one image to `[32, 32, 3]` uint8, or raises `CorruptDataError` naming `path`."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "cifar10_jpeg is decoded by Pillow: pip install 'snnjax[data]'"
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise CorruptDataError(f"{path} is not a readable JPEG ({error})") from error
    if pixels.shape != (32, 32, 3):
        raise CorruptDataError(f"{path} is an image of {pixels.shape[:2]}, not of 32x32")
    return pixels


def _is_image(path: PurePosixPath) -> bool:
    return (
        path.suffix == ".jpg"
        and len(path.parts) >= 3
        and path.parts[-3] in ("train", "test")
        and path.parts[-2] in CIFAR10_CLASSES
        and path.stem.isdigit()
    )


def _split(images: dict[tuple[str, int, int], np.ndarray], name: str) -> Split:
    keys = sorted(key for key in images if key[0] == name)
    labels = np.array([label for _, label, _ in keys], np.int32)
    # Popping frees each image once it is copied: the set is never in memory twice.
    pixels = np.empty((len(keys), 32, 32, 3), np.uint8)
    for i, key in enumerate(keys):
        pixels[i] = images.pop(key)
    return Split(pixels, labels)
