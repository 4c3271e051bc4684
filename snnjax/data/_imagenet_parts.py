"""Tiny ImageNet and ImageNet-100: parts of ImageNet in folders; each image is decoded on access.

Tiny ImageNet has 200 classes of 64x64 images, 500 for training and 50 for validation, which a list
sorts into classes:

    train/<WordNet id>/images/<WordNet id>_<number>.JPEG
    val/images/val_<number>.JPEG        val/val_annotations.txt, lines "file, class, box" with tabs

ImageNet-100 has the images of 100 classes of ImageNet at their full size, in two layouts:

    train/<WordNet id>/*.JPEG           val/<WordNet id>/*.JPEG
    train.X1/<WordNet id>/*.JPEG, train.X2, ...         val.X/<WordNet id>/*.JPEG

Papers choose different hundreds: results compare only where the lists of classes agree. The test
images of Tiny ImageNet have no labels, so the validation images are the test split of both. The
readers were tested on files written in these layouts, not on the data sets themselves.

References: Y. Le, X. Yang, "Tiny ImageNet Visual Recognition Challenge", CS 231N, 2015
(cs231n.stanford.edu/tiny-imagenet-200.zip). Y. Tian, D. Krishnan, P. Isola, "Contrastive Multiview
Coding", 2019, arXiv:1906.05849 (ImageNet-100). O. Russakovsky and others, "ImageNet Large Scale
Visual Recognition Challenge", 2014, arXiv:1409.0575.
"""

from __future__ import annotations

from pathlib import Path

from snnjax.data._archive import read_file
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError
from snnjax.data.image_folder import ImageView, class_paths, from_paths

TINY_COUNTS = (200, 100_000, 10_000)
"""Classes, training images and validation images of Tiny ImageNet."""
HUNDRED_COUNTS = (100, None, 5_000)
"""Those of ImageNet-100, whose training images depend on the choice of classes."""
_LIST = "val_annotations.txt"
_LARGEST = 16 << 20  # bytes of the list: the published one has 400,000


def read_tiny_imagenet(folder: Path) -> Dataset:
    """Lists the images of Tiny ImageNet; each is decoded on access.

    Images are 64x64: random crops in training, whole images in evaluation; `with_image_view`
    changes that.

    Args:
        folder: The unpacked folder `tiny-imagenet-200`.

    Returns:
        100,000 and 10,000 images `[N, 64, 64, 3]` uint8; classes in order of their WordNet ids.

    Raises:
        MissingDataError: If images or the list of validation labels are missing.
        CorruptDataError: If a line of the list is damaged, names an unknown class or image or
            occurs twice, or a number of images differs from the published one.
    """
    train = class_paths(folder, "train", inner="images")
    images = folder / "val" / "images"
    test: dict[str, list[str]] = {name: [] for name in train}
    for file, name in _annotations(folder).items():
        if name not in test or not (images / file).is_file():
            raise CorruptDataError(
                f"{folder / 'val' / _LIST} has {file} of class {name}, but there is no such "
                f"{'image' if name in test else 'class in train'}: unpack the archive again"
            )
        test[name].append(str(images / file))
    _check_counts(folder, "Tiny ImageNet", train, test, TINY_COUNTS)
    return from_paths(
        train,
        test,
        view=ImageView(64, 64),
        name="tiny_imagenet",
        note="Tiny ImageNet, decoded on access; validation images test. Y. Le, X. Yang, 2015; for "
        "non-commercial research and education only, as ImageNet.",
    )


def read_imagenet100(folder: Path) -> Dataset:
    """Lists the images of ImageNet-100; each is decoded on access.

    Views are those of ImageNet, 224x224; `with_image_view` changes them.

    Args:
        folder: Folder with `train` and `val`, or with `train.X1`, `train.X2`, ... and `val.X`.

    Returns:
        The images `[N, 224, 224, 3]` uint8; classes in order of their WordNet ids.

    Raises:
        MissingDataError: If a folder is missing.
        CorruptDataError: If there are not 100 classes and 5,000 validation images, or one class has
            images in two training folders.
    """
    parts = sorted(path.name for path in folder.glob("train.X*") if path.is_dir())
    train: dict[str, list[str]] = {}
    for part in parts or ["train"]:
        found = class_paths(folder, part)
        if double := sorted(train.keys() & found.keys()):
            raise CorruptDataError(
                f"{folder} has class {double[0]} in {part} and before: leave one"
            )
        train |= found
    test = class_paths(folder, "val.X" if parts else "val")
    _check_counts(folder, "ImageNet-100", train, test, HUNDRED_COUNTS)
    return from_paths(
        train,
        test,
        view=ImageView(),
        name="imagenet100",
        note="ImageNet-100, decoded on access; the choice of classes is that of the folders. Tian, "
        "Krishnan, Isola, 2019; for non-commercial research and education only, as ImageNet.",
    )


def _annotations(folder: Path) -> dict[str, str]:
    """Validation image to class, in the order of the list."""
    path = folder / "val" / _LIST
    if not path.is_file():
        raise MissingDataError(f"{path} is missing, which sorts the validation images into classes")
    classes: dict[str, str] = {}
    for number, line in enumerate(read_file(path, largest=_LARGEST).splitlines(), 1):
        # A class and a box: the box is not used, but a line without it ends early.
        fields = line.decode(errors="replace").split()
        if fields and len(fields) != 6:
            raise CorruptDataError(
                f"{path} has {len(fields)} fields in line {number}, not file, class and a box of "
                "four numbers: unpack the archive again"
            )
        if fields and fields[0] in classes:
            raise CorruptDataError(f"{path} has {fields[0]} twice: unpack the archive again")
        if fields:
            classes[fields[0]] = fields[1]
    return classes


def _check_counts(
    folder: Path,
    title: str,
    train: dict[str, list[str]],
    test: dict[str, list[str]],
    expected: tuple[int, int | None, int],
) -> None:
    counts = (len(train), *(sum(map(len, part.values())) for part in (train, test)))
    names = ("classes", "training images", "validation images")
    for name, found, count in zip(names, counts, expected, strict=True):
        if count not in (None, found):
            raise CorruptDataError(
                f"{folder} has {found} {name} where {title} has {count}: unpack it again, or load "
                "a part of it under its own name by data.image_folder(folder)"
            )
