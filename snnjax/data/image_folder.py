"""A folder of images, a folder per class, decoded when a batch asks for them.

    train/<class>/<any name>.jpg    val/<class>/<any name>.jpg        (.jpeg, .png; any case)

Only paths are held, a hundred bytes or two an image; each batch reads and decodes its own
`[B, S, S, 3]` uint8. In training a view is drawn anew for every epoch, seeded by (seed, epoch,
number of the image), so that batches repeat and a run resumes; `data.image_view` has the views.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.image_view import ImageView
from snnjax.data.transformed import Transformed

__all__ = ["at_size", "image_folder"]

_SUFFIXES = (".jpg", ".jpeg", ".png")


def image_folder(
    folder: str | Path,
    *,
    train: str = "train",
    test: str = "val",
    size: int = 224,
    resize: int | None = None,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    threads: int = 4,
    name: str | None = None,
    note: str = "",
) -> Dataset:
    """Finds the images of a folder; none is decoded before a batch needs it.

    Any size and mode of image will do: it becomes RGB, whatever orientation a camera noted is not
    looked at, and resizing is bicubic. Mirroring belongs into the jitted step, `random_flip`.
    Batches come from `Loader`; `grain_loader` gives the views of evaluation.

    Args:
        folder: Where the folders of the two splits lie.
        train: Name of the folder of training images, in it one folder per class.
        test: Name of that of the images to judge by, often `"val"`.
        size: Pixels along both sides of an example, S.
        resize: Pixels of the shorter side in evaluation; None is `8/7` of `size`, as 256 to 224.
        area: Range of a training crop's share of the image.
        aspect: Range of its width over its height.
        threads: That decode a batch; 0 decodes in the calling thread.
        name: Of the data set; None is that of the folder.
        note: Where it comes from.

    Returns:
        The data set, `[N, S, S, 3]` uint8 on request; classes are the folders of the training
        images in order of their names.

    Raises:
        MissingDataError: Where there are no such folders; the message shows the layout.
        CorruptDataError: Where a test image is of a class without training images; when a batch
            asks for it, also where a file is damaged.
        ValueError: Where `size` and `resize`, or a range, do not fit.

    Example:
        >>> flowers = image_folder("flowers", size=64)           # doctest: +SKIP
        >>> batch = Loader(flowers.train, batch_size=32).batch(0)  # doctest: +SKIP
    """
    folder = Path(folder)
    view = ImageView(size, resize or round(size * 8 / 7), area, aspect)
    listed = [_listed(folder, split) for split in (train, test)]
    classes = sorted(listed[0])
    if unknown := sorted(set(listed[1]) - set(classes)):
        raise CorruptDataError(
            f"{folder / test} has classes that {folder / train} has not: {', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}; folders of one class have one name"
        )
    splits = [_split(paths, classes, view, threads) for paths in listed]
    return Dataset(
        name=folder.name if name is None else name,
        train=splits[0],
        test=splits[1],
        classes=len(classes),
        class_names=tuple(classes),
        input_shape=(size, size, 3),
        scale=1 / 255,
        note=note or f"Images of {folder.name}, decoded when asked for.",
    )


def at_size(dataset: Dataset, **view: Any) -> Dataset:
    """The same images, seen otherwise; nothing is read.

    Args:
        dataset: From `image_folder` or `load("imagenet")`.
        view: What to change of `ImageView`: `size`, `resize`, `area`, `aspect`.

    Example:
        >>> imagenet = at_size(load("imagenet"), size=224, resize=232)  # doctest: +SKIP

    Raises:
        TypeError: Where the data set has no images to be decoded, or an option is unknown.
        ValueError: Where sizes do not fit.
    """
    splits = []
    for split in (dataset.train, dataset.test):
        inputs = split.inputs
        if not isinstance(inputs, Transformed) or not isinstance(inputs.transform, ImageView):
            raise TypeError(
                f"{dataset.name} holds no images that are decoded on request: at_size takes what "
                'image_folder(...) or load("imagenet") gives'
            )
        changed = dataclasses.replace(inputs.transform, **view)
        splits.append(
            dataclasses.replace(split, inputs=dataclasses.replace(inputs, transform=changed))
        )
    side = splits[0].inputs.transform.size
    shape = (side, side, 3)
    return dataclasses.replace(dataset, train=splits[0], test=splits[1], input_shape=shape)


def _listed(folder: Path, split: str) -> dict[str, list[str]]:
    """Paths of the images of each class, in order of their names."""
    root, found = folder / split, {}
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        if entry.is_dir() and not entry.name.startswith("."):
            names = sorted(n for n in os.listdir(entry) if _is_image(n))
            if names:
                found[entry.name] = [os.path.join(entry, n) for n in names]
    if not found:
        raise MissingDataError(
            f"{root} has no images in folders of their class; the layout is\n"
            f"  {folder.name}/{split}/<class>/<any name>.jpg (or .jpeg, .png)\n"
            "with the same names of classes for training and test: sort the images into such "
            "folders, or say how yours are called: image_folder(folder, train=..., test=...)"
        )
    return found


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def _split(
    paths: dict[str, list[str]], classes: Sequence[str], view: ImageView, threads: int
) -> Split:
    counts = [len(paths.get(name, ())) for name in classes]
    every = tuple(path for name in classes for path in paths.get(name, ()))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Split(Transformed(every, view, threads=threads), labels)
