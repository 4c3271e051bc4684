"""ImageNet's folder layout on a few files, and errors."""

import importlib

import numpy as np
import pytest

from snnjax import data
from snnjax.data.image_folder import ImageView

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.fast

# `data.image_folder` is the function of this name.
MODULE = importlib.import_module("snnjax.data.image_folder")

IDS = ("n01440764", "n01443537")


@pytest.fixture
def root(tmp_path, monkeypatch):
    for split, count in (("train", 3), ("val", 1)):
        for shade, name in enumerate(IDS):
            (tmp_path / "imagenet" / split / name).mkdir(parents=True)
            for i in range(count):
                path = tmp_path / "imagenet" / split / name / f"{name}_{i}.JPEG"
                Image.new("RGB", (300, 260), (100 * shade, 0, 0)).save(path)
    monkeypatch.setattr(MODULE, "IMAGENET_COUNTS", (2, 6, 2))
    return tmp_path


def test_images_are_found_and_seen_at_the_usual_size(root):
    dataset = data.load("imagenet", data_dir=root)
    assert dataset.name == "imagenet" and dataset.class_names == IDS
    assert dataset.input_shape == (224, 224, 3) and "non-commercial" in dataset.note
    assert dataset.train.inputs.transform == ImageView(size=224, resize=256)
    batch = next(data.evaluation_batches(dataset.test, batch_size=2))
    assert batch.inputs.shape == (2, 224, 224, 3)
    np.testing.assert_array_equal(batch.inputs[:, 0, 0, 0] > 50, [False, True])


def test_an_incomplete_set_is_refused(root):
    (root / "imagenet" / "train" / IDS[0] / f"{IDS[0]}_0.JPEG").unlink()
    with pytest.raises(data.CorruptDataError, match=r"5 training(.|\n)*data\.image_folder"):
        data.load("imagenet", data_dir=root)


def test_validation_images_that_are_not_sorted_name_the_cure(root):
    (root / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(data.MissingDataError, match=r"ground_truth\.txt(.|\n)*--data-dir DIR"):
        data.load("imagenet", data_dir=root)


def test_the_published_numbers():
    assert MODULE.IMAGENET_COUNTS == (
        1000,
        1_281_167,
        50_000,
    )
