"""Tiny ImageNet and ImageNet-100: folder layouts on a few files, and errors."""

import numpy as np
import pytest

from snnjax import data
from snnjax.data import _imagenet_parts
from snnjax.data.image_folder import ImageView

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.fast
IDS = ("n01443537", "n01629819")


def save(path, shade, *, size=(64, 64), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (shade, 0, 0) if mode == "RGB" else shade).save(path)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    root = tmp_path / "tiny-imagenet-200"
    for shade, name in enumerate(IDS):
        for i in range(3):
            save(root / "train" / name / "images" / f"{name}_{i}.JPEG", 100 * shade)
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for i, kind in enumerate((1, 0, 1)):
        save(root / "val" / "images" / f"val_{i}.JPEG", 100 * kind)
        lines.append(f"val_{i}.JPEG\t{IDS[kind]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save(root / "test" / "images" / "test_0.JPEG", 7)
    monkeypatch.setattr(_imagenet_parts, "TINY_COUNTS", (2, 6, 3))
    return root


def test_a_list_sorts_the_validation_images(tiny):
    dataset = data.load("tiny_imagenet", data_dir=tiny.parent)
    assert dataset.class_names == IDS and dataset.input_shape == (64, 64, 3)
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(dataset.test.labels, [0, 1, 1])
    assert dataset.train.inputs.transform == ImageView(64, 64)
    # Sorted by class, and every image of the class that the list gives it.
    batch = next(data.evaluation_batches(dataset.test, batch_size=3))
    np.testing.assert_array_equal(batch.inputs[:, 0, 0, 0] > 50, dataset.test.labels == 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text.replace("val_1", "val_9"), "val_9.JPEG .*no such image"),
        (lambda text: text.replace(IDS[0], "n00000000"), "no such class in train"),
        (lambda text: text.replace("\t62\n", "\n", 1), "5 fields in line 1"),
        (lambda text: text + text.splitlines()[0] + "\n", "val_0.JPEG twice"),
        (lambda text: text.partition("\n")[2], "2 validation images where Tiny ImageNet has 3"),
    ],
)
def test_a_damaged_list_is_refused(tiny, change, match):
    path = tiny / "val" / "val_annotations.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(data.CorruptDataError, match=match):
        data.load("tiny_imagenet", data_dir=tiny.parent)


def test_missing_parts_name_the_layout(tiny):
    (tiny / "val" / "val_annotations.txt").unlink()
    with pytest.raises(data.MissingDataError, match=r"val_annotations\.txt is missing"):
        data.load("tiny_imagenet", data_dir=tiny.parent)
    (tiny / "train").rename(tiny / "training")
    with pytest.raises(data.MissingDataError, match="train/<class>/images/<any name>.jpg"):
        data.load("tiny_imagenet", data_dir=tiny.parent)


@pytest.fixture
def hundred(tmp_path, monkeypatch):
    monkeypatch.setattr(_imagenet_parts, "HUNDRED_COUNTS", (2, None, 2))

    def write(train, val):
        root = tmp_path / val / "imagenet100"
        for shade, (name, part) in enumerate(zip(IDS, train, strict=True)):
            for i in range(shade + 2):
                save(root / part / name / f"{name}_{i}.JPEG", 100 * shade, size=(300, 260))
            save(
                root / val / name / f"ILSVRC2012_val_{shade:08}.JPEG", 100 * shade, size=(300, 260)
            )
        return root

    return write


@pytest.mark.parametrize(
    ("train", "val"), [(("train", "train"), "val"), (("train.X1", "train.X2"), "val.X")]
)
def test_a_hundred_classes_in_both_layouts(hundred, train, val):
    dataset = data.load("imagenet100", data_dir=hundred(train, val).parent)
    assert dataset.class_names == IDS and dataset.input_shape == (224, 224, 3)
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(dataset.test.labels, [0, 1])
    assert dataset.test.inputs[1].shape == (224, 224, 3)


def test_an_incomplete_hundred_is_refused(hundred):
    root = hundred(("train.X1", "train.X2"), "val.X")
    (root / "val.X" / IDS[0] / "ILSVRC2012_val_00000000.JPEG").unlink()
    with pytest.raises(data.CorruptDataError, match="1 validation images where ImageNet-100 has 2"):
        data.load("imagenet100", data_dir=root.parent)
    save(root / "train.X2" / IDS[0] / "copy.JPEG", 3)
    with pytest.raises(data.CorruptDataError, match=f"class {IDS[0]} in train.X2 and before"):
        data.load("imagenet100", data_dir=root.parent)


def test_the_published_numbers():
    assert _imagenet_parts.TINY_COUNTS == (200, 100_000, 10_000)
    assert _imagenet_parts.HUNDRED_COUNTS == (100, None, 5_000)
