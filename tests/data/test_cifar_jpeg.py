"""The JPEG copy of CIFAR-10: its name, and errors for incomplete copies."""

import io
from pathlib import PurePosixPath

import numpy as np
import pytest

from snnjax import data
from snnjax.data import _cifar as cifar
from snnjax.data._cifar import CIFAR10_CLASSES

Image = pytest.importorskip("PIL.Image")


def _jpeg(shade, size=(32, 32)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def _write(root, per_class):
    for split, count in per_class.items():
        for label, name in enumerate(CIFAR10_CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                (root / split / name / f"{i:04d}.jpg").write_bytes(_jpeg(20 * label + i))


def test_images_are_sorted_by_class_and_number(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "check_balance", lambda *args, **kwargs: None)
    _write(tmp_path / "cifar10-jpeg", {"train": 3, "test": 2})
    dataset = data.load("cifar10_jpeg", data_dir=tmp_path)
    assert dataset.name == "cifar10_jpeg" and "NOT the original pixels" in dataset.note
    assert dataset.train.inputs.shape == (30, 32, 32, 3)
    np.testing.assert_array_equal(dataset.train.labels, np.repeat(np.arange(10), 3))
    shades = [20 * label + i for label in range(10) for i in range(3)]
    np.testing.assert_array_equal(dataset.train.inputs[:, 0, 0, 0], shades)


def test_an_incomplete_copy_is_refused(tmp_path):
    _write(tmp_path / "cifar10-jpeg", {"train": 1, "test": 1})
    with pytest.raises(data.CorruptDataError, match="5000 of each of 10 classes; found 10"):
        data.load("cifar10_jpeg", data_dir=tmp_path)
    (tmp_path / "empty" / "cifar10-jpeg").mkdir(parents=True)
    with pytest.raises(data.MissingDataError, match=r"<number>\.jpg(.|\n)*--data-dir DIR"):
        data.load("cifar10_jpeg", data_dir=tmp_path / "empty")


def test_broken_images_are_named():
    path = PurePosixPath("train/cat/0001.jpg")
    with pytest.raises(data.CorruptDataError, match="cat/0001.jpg is not a readable"):
        cifar.decode_jpeg(_jpeg(9)[:200], path)
    with pytest.raises(data.CorruptDataError, match="not of 32x32"):
        cifar.decode_jpeg(_jpeg(9, (16, 32)), path)


def test_without_pillow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"snnjax\[data\]"):
        cifar.decode_jpeg(b"", PurePosixPath("x.jpg"))


@pytest.mark.slow
def test_the_real_copy_is_near_the_lossless_images(shared):
    dataset = data.load("cifar10_jpeg", data_dir=shared("data", "cifar10-jpeg").parent)
    assert dataset.train.inputs.shape == (50_000, 32, 32, 3)
    assert dataset.test.inputs.shape == (10_000, 32, 32, 3)
    folder = shared("data", "cifar10-first4000")
    pixels = np.asarray(Image.open(folder / "cifar10_batch_0.png")).reshape(1000, 32, 32, 3)
    labels = np.fromfile(folder / "labels.u8", np.uint8)[:1000]
    for label in range(10):  # the number of a file is its place within its class
        lossless = pixels[labels == label].astype(float)
        copy = dataset.train.inputs[dataset.train.labels == label][: len(lossless)]
        psnr = 10 * np.log10(255**2 / ((lossless - copy) ** 2).mean(axis=(1, 2, 3)))
        assert psnr.min() > 22 and 29 < np.median(psnr) < 33
