"""Folders of images, one subfolder per class, decoded on access; ImageNet is one of them.

    train/<class>/<any name>.jpg    val/<class>/<any name>.jpg        (.jpeg, .png; any case)

Memory holds only paths, one or two hundred bytes per image; each batch reads and decodes its own
`[B, S, S, 3]` uint8. In evaluation the shorter side is resized to `resize` pixels and the central
`S x S` is cropped. In training a random crop, a share a of the image area with ratio r of width to
height, is resized to `S x S`:

    a ~ U(area),  log r ~ U(log aspect),      w = round(sqrt(a r W H)),  h = round(sqrt(a / r W H))

Of ten draws the first that fits is used, at a uniform position. Draws are seeded by (seed, epoch,
index of the image), so that batches are reproducible and a resumed run continues them.

ImageNet (ILSVRC 2012) holds 1.28 million photographs of a thousand classes. Its licence forbids
redistribution: request the files at image-net.org and unpack them into the usual folders,

    train/n01440764/n01440764_10026.JPEG    val/n01440764/ILSVRC2012_val_00000293.JPEG

The archive of the validation images unpacks into one flat folder; sort its 50,000 files by the
label list of the development kit. The reader was tested on files written in this layout, not on
the data set itself.

References: Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going Deeper
with Convolutions", 2014, arXiv:1409.4842 (section 6: patches of 8 % to 100 % of the image, ratios
of 3/4 to 4/3). Russakovsky, Deng, Su, Krause, Satheesh, Ma, Huang, Karpathy, Khosla, Bernstein,
Berg, Fei-Fei, "ImageNet Large Scale Visual Recognition Challenge", 2014, arXiv:1409.0575.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split, whole_number
from snnjax.data.lazy import LazyInputs

__all__ = ["ImageView", "image_folder", "with_image_view"]

_SUFFIXES = (".jpg", ".jpeg", ".png")
_ATTEMPTS = 10  # random crops drawn before a central one is used

IMAGENET_COUNTS = (1000, 1_281_167, 50_000)
"""Classes, training images and validation images of ImageNet (ILSVRC 2012)."""
_FLAT = "ILSVRC2012_val_"  # prefix of the unsorted validation images


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
    """Makes a data set from a folder of images; each image is decoded on access.

    Images of any size and mode are converted to RGB and resized bicubically; the orientation tag of
    a camera is ignored. Mirror images in the jitted step, with `augmentation.random_flip`. Batches
    come from `Loader`; `grain_loader` yields the images of evaluation.

    Args:
        folder: Folder that contains the folders of both splits.
        train: Name of the folder of training images, which has one folder per class.
        test: Name of the folder of test images, often `"val"`.
        size: Pixels along both sides of an example, S.
        resize: Pixels of the shorter side in evaluation; None is `8/7` of `size`, 256 for 224.
        area: Range of a training crop's share of the image area.
        aspect: Range of a training crop's width divided by its height.
        threads: Threads that decode a batch; 0 decodes in the calling thread.
        name: Name of the data set; None is the name of the folder.
        note: Origin, citation and licence.

    Returns:
        The data set, `[N, S, S, 3]` uint8 on access; classes are the folders of the training images
        in order of their names.

    Raises:
        MissingDataError: If a folder is missing; the message shows the layout.
        CorruptDataError: If a test class has no training images; on access, if a file is damaged.
        ValueError: If `resize` is smaller than `size`, or a range is invalid.

    Example:
        >>> flowers = image_folder("flowers", size=64)           # doctest: +SKIP
        >>> batch = Loader(flowers.train, batch_size=32).batch(0)  # doctest: +SKIP
    """
    folder = Path(folder)
    view = ImageView(size, resize or round(size * 8 / 7), area, aspect)
    return from_paths(
        *(class_paths(folder, split) for split in (train, test)),
        view=view,
        threads=threads,
        name=folder.name if name is None else name,
        note=note or f"Images of {folder.name}, decoded on access.",
    )


def from_paths(
    train: dict[str, list[str]],
    test: dict[str, list[str]],
    *,
    view: ImageView,
    name: str,
    note: str,
    threads: int = 4,
) -> Dataset:
    """Makes a data set of the paths of images by class.

    Args:
        train: Class to paths of its training images; classes are numbered in order of their names.
        test: Class to paths of its test images, of the same classes.
        view: Transform from a path to an image.
        name: Name of the data set.
        note: Origin, citation and licence.
        threads: Threads that decode a batch.

    Returns:
        The data set; images are decoded on access.

    Raises:
        CorruptDataError: If a test class has no training images.
    """
    if unknown := sorted(test.keys() - train.keys()):
        raise CorruptDataError(
            f"{name}: test images have classes that training images have not: "
            f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}; folders of one class "
            "have one name"
        )
    # The training folders define the classes, so that a class without test images keeps its number.
    classes = sorted(train)
    splits = [_split(by_class, classes, view, threads) for by_class in (train, test)]
    return Dataset(
        name=name,
        train=splits[0],
        test=splits[1],
        classes=len(classes),
        class_names=tuple(classes),
        input_shape=(view.size, view.size, 3),
        scale=1 / 255,
        note=note,
    )


def with_image_view(dataset: Dataset, **view: Any) -> Dataset:
    """Changes the size and the crops of a data set of image files, without reading any.

    Args:
        dataset: Data set from `image_folder` or `load("imagenet")`.
        view: Fields of `ImageView` to change: `size`, `resize`, `area`, `aspect`.

    Returns:
        The data set with the new views.

    Example:
        >>> imagenet = with_image_view(load("imagenet"), size=224, resize=232)  # doctest: +SKIP

    Raises:
        TypeError: If the data set holds no image files, or an option is unknown.
        ValueError: If `resize` is smaller than `size`, or a range is invalid.
    """
    splits = []
    for split in (dataset.train, dataset.test):
        inputs = split.inputs
        if not isinstance(inputs, LazyInputs) or not isinstance(inputs.transform, ImageView):
            raise TypeError(
                f"{dataset.name} holds no images that are decoded on access: with_image_view takes "
                'what image_folder(...) or load("imagenet") gives'
            )
        # Views are frozen values: the original data set keeps its own.
        changed = dataclasses.replace(inputs.transform, **view)
        splits.append(
            dataclasses.replace(split, inputs=dataclasses.replace(inputs, transform=changed))
        )
    side = splits[0].inputs.transform.size
    shape = (side, side, 3)
    return dataclasses.replace(dataset, train=splits[0], test=splits[1], input_shape=shape)


@dataclasses.dataclass(frozen=True)
class ImageView:
    """Transform from an image path to `[size, size, 3]` uint8, for `LazyInputs`.

    Attributes:
        size: Pixels along both sides of the result, S.
        resize: Pixels of the shorter side in evaluation, before the central crop.
        area: Range of a training crop's share of the image area.
        aspect: Range of a training crop's width divided by its height.

    Raises:
        ValueError: If `resize` is smaller than `size`, or a range is invalid.
    """

    size: int = 224
    resize: int = 256
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        size, resize = (whole_number(name, getattr(self, name)) for name in ("size", "resize"))
        if not 1 <= size <= resize:
            raise ValueError(
                f"size={self.size} is cut out of a shorter side of resize={self.resize}: it takes "
                "1 <= size <= resize, for instance size=224, resize=256"
            )
        if not 0 < self.area[0] <= self.area[1] <= 1 or not (
            0 < self.aspect[0] <= self.aspect[1] < math.inf
        ):
            raise ValueError(
                f"area={self.area} must be a range within (0, 1] and aspect={self.aspect} one of "
                "positive numbers, low end first"
            )

    def __call__(self, path: str | Path, rng: np.random.Generator | None) -> np.ndarray:
        """Decodes an image: a random crop with `rng`, the central crop without."""
        view = self.central_crop if rng is None else functools.partial(self.random_crop, rng=rng)
        return decode_image(path, view)

    def central_crop(self, image: Any) -> Any:
        """Resizes the shorter side of a Pillow image and crops its centre."""
        from PIL import Image

        # By the shorter side: the crop then always lies within the image.
        scale = self.resize / min(image.size)
        # Rounding may lose the last pixel of the shorter side.
        width, height = (max(self.resize, round(scale * side)) for side in image.size)
        left, top = ((side - self.size) // 2 for side in (width, height))
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        return resized.crop((left, top, left + self.size, top + self.size))

    def random_crop(self, image: Any, rng: np.random.Generator) -> Any:
        """Resizes a random crop of a Pillow image."""
        from PIL import Image

        # A box instead of a crop: `resize` reads it without an intermediate image.
        box = self.box(image.size, rng)
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)

    def box(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a random crop of an image of `(width, height)`.

        If none of ten draws fits, it is the largest central crop with an admissible aspect ratio.
        """
        width, height = size
        low, high = (math.log(ratio) for ratio in self.aspect)
        for _ in range(_ATTEMPTS):
            pixels = rng.uniform(*self.area) * width * height
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
                return int(left), int(top), int(left) + w, int(top) + h
        w = min(width, max(1, round(height * self.aspect[1])))
        h = min(height, max(1, round(width / self.aspect[0])))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def decode_image(path: str | Path, view: Callable[[Any], Any]) -> np.ndarray:
    """Opens an image, converts it to RGB and applies `view` to it.

    Args:
        path: Path of the image file.
        view: Function of a Pillow image that returns one.

    Returns:
        `[H, W, 3]` uint8.

    Raises:
        ImportError: If Pillow is not installed.
        CorruptDataError: If the file is missing, truncated or no image; the message names it.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("images are decoded by Pillow: pip install 'snnjax[data]'") from error
    try:
        with Image.open(path) as image:
            # Before decoding: up to twice its limit Pillow only warns.
            if math.prod(image.size) > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise CorruptDataError(
                    f"{path} claims {image.size[0]}x{image.size[1]} pixels, more than "
                    f"PIL.Image.MAX_IMAGE_PIXELS, {Image.MAX_IMAGE_PIXELS}: shrink it, or move it "
                    "out of the way"
                )
            # Pillow clips 16 and 32 bits to 8 instead of scaling them: an almost white image.
            if image.mode.startswith(("I", "F")):
                raise CorruptDataError(
                    f"{path} has pixels of more than 8 bits (mode {image.mode}): convert it to 8 "
                    "bits with a scale of your choice"
                )
            # Decoding happens here: errors of damaged files must fall into this block.
            pixels = image.convert("RGB")
    except CorruptDataError:
        raise
    # Pillow raises SyntaxError for a broken PNG, and an error of its own for images too large.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptDataError(
            f"{path} is not a readable image ({error}): fetch it again, or move it out of the way"
        ) from error
    return np.asarray(view(pixels))


def class_paths(folder: Path, split: str, *, inner: str = "") -> dict[str, list[str]]:
    """Lists the images of each class, `<split>/<class>/<inner>/<any name>.jpg`, sorted by name.

    Args:
        folder: Folder that contains the folder of the split.
        split: Name of the folder of the split.
        inner: Folder of the images within that of their class; "" if there is none.

    Returns:
        Class to paths.

    Raises:
        MissingDataError: If there are no images; the message shows the layout.
    """
    root, paths = folder / split, {}
    # Sorted twice: the order of a directory listing differs between file systems, and labels and
    # batches must not.
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        images = entry / inner
        if images.is_dir() and not entry.name.startswith("."):
            names = sorted(n for n in os.listdir(images) if _is_image(n))
            if names:
                # Strings take half the memory of Path objects, which counts for a million images.
                paths[entry.name] = [os.path.join(images, n) for n in names]
    if not paths:
        raise MissingDataError(
            f"{root} has no images in folders of their class; the layout is\n"
            f"  {folder.name}/{split}/<class>/{inner and inner + '/'}<any name>.jpg (or .jpeg, "
            ".png)\n"
            "with the same names of classes for training and test: sort the images into such "
            "folders, or say how yours are called: image_folder(folder, train=..., test=...)"
        )
    return paths


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def _split(
    paths: dict[str, list[str]], classes: Sequence[str], view: ImageView, threads: int
) -> Split:
    counts = [len(paths.get(name, ())) for name in classes]
    sources = tuple(path for name in classes for path in paths.get(name, ()))
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    return Split(LazyInputs(sources, view, threads=threads), labels)


def read_imagenet(folder: Path) -> Dataset:
    """Lists the images of ImageNet; each is decoded on access.

    Images are 224x224: random crops in training, the centre of 256 pixels in evaluation;
    `with_image_view` changes that. Labels number the classes in order of their WordNet ids, as is
    customary.

    Args:
        folder: Folder with `train/<WordNet id>/*.JPEG` and `val/<WordNet id>/*.JPEG`.

    Returns:
        1,281,167 and 50,000 images `[N, 224, 224, 3]` uint8, decoded on access.

    Raises:
        MissingDataError: If the folders are missing, or the validation images are not sorted into
            classes.
        CorruptDataError: If the numbers of classes or images differ from ImageNet's.
    """
    # Checked first: the flat archive is the usual mistake, and image_folder would only say that
    # classes are missing.
    val = folder / "val"
    if val.is_dir() and any(name.startswith(_FLAT) for name in os.listdir(val)):
        raise MissingDataError(
            f"{val} holds images that are not in folders of their class: sort them into "
            "val/<WordNet id>/ by ILSVRC2012_validation_ground_truth.txt of the development kit"
        )
    dataset = image_folder(
        folder,
        name="imagenet",
        note="ImageNet (ILSVRC 2012), decoded on access. Russakovsky et al., 2014; for "
        "non-commercial research and education only.",
    )
    counts = (dataset.classes, len(dataset.train), len(dataset.test))
    if counts != IMAGENET_COUNTS:
        raise CorruptDataError(
            f"{folder} has {counts[0]} classes, {counts[1]} training and {counts[2]} validation "
            f"images where ImageNet has {', '.join(map(str, IMAGENET_COUNTS[:2]))} and "
            f"{IMAGENET_COUNTS[2]}: unpack it again, or load a part of it under "
            "its own name by data.image_folder(folder)"
        )
    return dataset
