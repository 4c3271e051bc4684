"""ImageNet (ILSVRC 2012): 1.28 million photographs of a thousand classes, read from image files.

The licence forbids redistribution: request the files at image-net.org and unpack them into the
usual folders, one per class,

    train/n01440764/n01440764_10026.JPEG    val/n01440764/ILSVRC2012_val_00000293.JPEG

The archive of the validation images unpacks into one flat folder; sort its 50,000 files by the
label list of the development kit. The reader was tested on files written in this layout, not on
the data set itself.

Reference: Russakovsky, Deng, Su, Krause, Satheesh, Ma, Huang, Karpathy, Khosla, Bernstein, Berg,
Fei-Fei, "ImageNet Large Scale Visual Recognition Challenge", 2014, arXiv:1409.0575.
"""

from __future__ import annotations

import os
from pathlib import Path

from snnjax.data.dataset import Dataset
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.image_folder import image_folder

CLASSES, TRAIN, TEST = 1000, 1_281_167, 50_000
_FLAT = "ILSVRC2012_val_"  # prefix of the validation images


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
    if counts != (CLASSES, TRAIN, TEST):
        raise CorruptDataError(
            f"{folder} has {counts[0]} classes, {counts[1]} training and {counts[2]} validation "
            f"images where ImageNet has {CLASSES}, {TRAIN} and {TEST}: unpack it again, or load a "
            "part of it under its own name by data.image_folder(folder)"
        )
    return dataset
