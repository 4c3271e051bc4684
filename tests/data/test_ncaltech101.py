"""N-Caltech101: N-MNIST's format in class folders, the split, errors."""

import numpy as np
import pytest

from snnjax import data
from snnjax.data import _ncaltech101
from tests.data import event_files as files

pytestmark = pytest.mark.fast
SIZES = {"BACKGROUND_Google": 11, "accordion": 20, "wrench": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, count in SIZES.items():
        (tmp_path / "ncaltech101" / "Caltech101" / name).mkdir(parents=True)
        for i in range(1, count + 1):
            path = tmp_path / "ncaltech101" / "Caltech101" / name / f"image_{i:04}.bin"
            path.write_bytes(files.atis([(i, 239, 179, 1), (9000 + i, i, 0, 0)]))
    read = _ncaltech101.read_ncaltech101
    monkeypatch.setattr(read, "__kwdefaults__", {"counts": (3, 34)})
    return tmp_path / "ncaltech101"


def test_the_last_tenth_of_each_class_tests(folder):
    (folder / "Caltech101_annotations" / "wrench").mkdir(parents=True)
    (folder / "Caltech101_annotations" / "wrench" / "annotation_0001.bin").write_bytes(b"box")
    dataset = data.load("ncaltech101", data_dir=folder.parent)
    assert dataset.class_names == tuple(SIZES) and dataset.input_shape == (180, 240, 2)
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [10, 18, 3])
    np.testing.assert_array_equal(np.bincount(dataset.test.labels, minlength=3), [1, 2, 0])
    np.testing.assert_array_equal(dataset.test.inputs[2], [[20, 239, 179, 1], [9020, 20, 0, 0]])


def test_missing_recordings_damaged_ones_and_archives(folder, tmp_path):
    dataset = data.load("ncaltech101", data_dir=folder.parent)
    path = folder / "Caltech101" / "wrench" / "image_0003.bin"
    path.write_bytes(files.atis([(1, 240, 0, 1)]))
    with pytest.raises(data.CorruptDataError, match=r"image_0003\.bin .*outside 180x240"):
        dataset.train.inputs[30]
    path.unlink()
    with pytest.raises(data.CorruptDataError, match="3 classes and 33 recordings, not 3 and 34"):
        data.load("ncaltech101", data_dir=folder.parent)
    (tmp_path / "b" / "ncaltech101").mkdir(parents=True)
    (tmp_path / "b" / "ncaltech101" / "Caltech101.zip").write_bytes(b"")
    with pytest.raises(data.MissingDataError, match=r"Caltech101\.zip.*unpack them there"):
        data.load("ncaltech101", data_dir=tmp_path / "b")


def test_the_published_numbers():
    assert _ncaltech101.COUNTS == (101, 8709)
