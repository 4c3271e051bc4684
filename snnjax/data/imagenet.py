"""ImageNet (ILSVRC 2012): 1.28 million photographs of a thousand classes, read from their files.

The licence does not let anybody pass the files on: they are asked for at image-net.org and unpacked
into folders of their classes, as everybody lays them out,

    train/n01440764/n01440764_10026.JPEG    val/n01440764/ILSVRC2012_val_00000293.JPEG

The archive of the validation images unpacks into one flat folder; its 50,000 files are sorted by
the list of their labels in the development kit. This reader was tested on files written in that
layout, not on the set itself.

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
_FLAT = "ILSVRC2012_val_"  # a validation image outside of the folder of its class


def read_imagenet(folder: Path) -> Dataset:
    """Finds the images of ImageNet; each is decoded when asked for.

    Views are 224x224: random crops in training, the middle of 256 pixels in evaluation; `at_size`
    asks for others. Labels count the classes in order of their WordNet ids, as is the custom.

    Args:
        folder: Where `train/<WordNet id>/*.JPEG` and `val/<WordNet id>/*.JPEG` lie.

    Returns:
        1,281,167 and 50,000 images `[N, 224, 224, 3]` uint8, on request.

    Raises:
        MissingDataError: Where there are no such folders, or the validation images are not sorted
            into classes.
        CorruptDataError: Where there are other numbers of classes or images.
    """
    val = folder / "val"
    if val.is_dir() and any(name.startswith(_FLAT) for name in os.listdir(val)):
        raise MissingDataError(
            f"{val} holds images that are not in folders of their class: sort them into "
            "val/<WordNet id>/ by ILSVRC2012_validation_ground_truth.txt of the development kit"
        )
    dataset = image_folder(
        folder,
        name="imagenet",
        note="ImageNet (ILSVRC 2012), decoded when asked for. Russakovsky et al., 2014; for "
        "non-commercial research and education only.",
    )
    found = (dataset.classes, len(dataset.train), len(dataset.test))
    if found != (CLASSES, TRAIN, TEST):
        raise CorruptDataError(
            f"{folder} has {found[0]} classes, {found[1]} training and {found[2]} validation "
            f"images where ImageNet has {CLASSES}, {TRAIN} and {TEST}: unpack it again, or load a "
            "part of it under its own name by data.image_folder(folder)"
        )
    return dataset
