"""CIFAR from its binary version: order of channels, checksum, balance."""

import io
import tarfile

import numpy as np
import pytest

from snnjax import data
from snnjax.data import _cifar as cifar


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def _records(images, *labels):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([np.stack(labels, 1).astype(np.uint8), planes], axis=1).tobytes()


def test_records_are_channel_planes_after_the_last_label(images):
    split = cifar.parse_records([_records(images, [3, 1, 0, 9])], label_bytes=1)
    np.testing.assert_array_equal(split.inputs, images)
    np.testing.assert_array_equal(split.labels, [3, 1, 0, 9])
    fine = cifar.parse_records([_records(images, [1, 1, 1, 1], [7, 8, 9, 99])] * 2, label_bytes=2)
    np.testing.assert_array_equal(fine.labels, [7, 8, 9, 99] * 2)
    assert fine.inputs.flags["C_CONTIGUOUS"]


def test_a_file_cut_short_is_refused(images):
    with pytest.raises(data.CorruptDataError, match="multiple of 3073 bytes"):
        cifar.parse_records([_records(images, [0] * 4)[:-1]], label_bytes=1)


def test_bin_files_are_read_at_any_depth(tmp_path, monkeypatch, images):
    monkeypatch.setattr(cifar, "check_balance", lambda *args, **kwargs: None)
    folder = tmp_path / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(_records(images, [0, 0, 1, 1], [5, 6, 7, 99]))
    (folder / "test.bin").write_bytes(_records(images[:1], [0], [5]))
    dataset = data.load("cifar100", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.train.inputs, images)
    np.testing.assert_array_equal(dataset.test.labels, [5])
    assert dataset.classes == 100 and dataset.class_names[99] == "99"
    (folder / "fine_label_names.txt").write_text("\n".join(f"name{i}" for i in range(100)) + "\n")
    assert data.load("cifar100", data_dir=tmp_path).class_names[99] == "name99"


def test_balance_counts_examples_of_each_class():
    def split(count, classes=10):
        return data.Split(np.zeros((count, 1)), np.arange(count, dtype=np.int32) % classes)

    cifar.check_balance("cifar10", split(50_000), split(10_000), classes=10)
    for train, test in [(split(49_990), split(10_000)), (split(50_000), split(10_000, 9))]:
        with pytest.raises(data.CorruptDataError, match="of each of 10 classes"):
            cifar.check_balance("cifar10", train, test, classes=10)


def test_a_set_out_of_balance_is_refused(tmp_path, images):
    (tmp_path / "cifar10").mkdir()
    for file in (*cifar.LAYOUTS["cifar10"].train, "test_batch.bin"):
        (tmp_path / "cifar10" / file).write_bytes(_records(images, [0, 1, 2, 3]))
    with pytest.raises(data.CorruptDataError, match="not the published set"):
        data.load("cifar10", data_dir=tmp_path)


def test_missing_files_and_the_pickled_version_are_named(tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "data_batch_1").write_bytes(b"pickle")
    with pytest.raises(data.MissingDataError, match=r"data_batch_1\.bin.*pickle(.|\n)*--data-dir"):
        data.load("cifar10", data_dir=tmp_path)


def test_an_archive_other_than_the_published_one_is_refused(tmp_path, images):
    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        content = _records(images, [0, 1, 2, 3])
        info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    with pytest.raises(data.CorruptDataError, match="sha256 is .* published c4a38c50"):
        data.load("cifar10", data_dir=tmp_path)


def test_lossless_first_images_match_the_layout(shared):
    image = pytest.importorskip("PIL.Image")
    folder = shared("data", "cifar10-first4000")
    pixels = np.asarray(image.open(folder / "cifar10_batch_0.png")).reshape(1000, 32, 32, 3)
    labels = np.fromfile(folder / "labels.u8", np.uint8)[:1000]
    split = cifar.parse_records([_records(pixels, labels)], label_bytes=1)
    np.testing.assert_array_equal(split.inputs, pixels)
    assert [cifar.CIFAR10_CLASSES[i] for i in labels[:3]] == ["frog", "truck", "truck"]
