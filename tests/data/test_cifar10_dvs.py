"""CIFAR10-DVS: folder layout, test split, swapped axes."""

import numpy as np
import pytest

from snnjax import data
from snnjax.data._cifar import CIFAR10_CLASSES
from snnjax.data._cifar10_dvs import read_cifar10_dvs
from tests.data import event_files as files


def _write(folder, per_class=12):
    for label, name in enumerate(CIFAR10_CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            content = files.aedat2([(1000, label, i % 128, 1), (1500, 100, 3, 0)])
            (folder / name / f"cifar10_{name}_{i}.aedat").write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    _write(tmp_path / "cifar10-dvs")
    return tmp_path / "cifar10-dvs"


def test_the_last_tenth_of_each_class_by_name_tests(folder):
    dataset = read_cifar10_dvs(folder, per_class=12)
    assert (len(dataset.train), len(dataset.test)) == (110, 10)
    np.testing.assert_array_equal(dataset.train.labels, np.repeat(np.arange(10), 11))
    np.testing.assert_array_equal(dataset.test.labels, np.arange(10))
    # As text 9 comes last of 0, 1, 10, 11, 2, ..., 9.
    assert [source.stem for source in dataset.test.inputs.sources[:2]] == [
        "cifar10_airplane_9",
        "cifar10_automobile_9",
    ]
    assert dataset.train.inputs.sources[2].stem == "cifar10_airplane_10"
    assert dataset.input_shape == (128, 128, 2) and dataset.class_names == CIFAR10_CLASSES


def test_columns_and_rows_of_the_camera_change_places(folder):
    events = read_cifar10_dvs(folder, per_class=12).train.inputs[2]
    np.testing.assert_array_equal(events, [[0, 10, 0, 1], [500, 3, 100, 0]])


def test_a_missing_recording_is_not_passed_over(folder):
    (folder / "cat" / "cifar10_cat_3.aedat").unlink()
    with pytest.raises(data.CorruptDataError, match="11 recordings of cat, not 12: unpack"):
        read_cifar10_dvs(folder, per_class=12)
    with pytest.raises(data.CorruptDataError, match="12 recordings of airplane, not 1000"):
        data.load("cifar10_dvs", data_dir=folder.parent)


def test_a_damaged_recording_is_named_when_it_is_read(folder):
    path = folder / "airplane" / "cifar10_airplane_0.aedat"
    path.write_bytes(path.read_bytes()[:-1])
    dataset = read_cifar10_dvs(folder, per_class=12)
    assert len(dataset.train.inputs[1]) == 2
    with pytest.raises(data.CorruptDataError, match=r"cifar10_airplane_0\.aedat has 15 bytes"):
        dataset.train.inputs[0]


def test_archives_alone_are_to_be_unpacked(tmp_path):
    (tmp_path / "cifar10-dvs").mkdir()
    with pytest.raises(data.MissingDataError, match=r"<class>/cifar10_<class>_<number>\.aedat"):
        data.load("cifar10_dvs", data_dir=tmp_path)
    (tmp_path / "cifar10-dvs" / "airplane.zip").write_bytes(b"")
    with pytest.raises(data.MissingDataError, match="airplane.zip.*unpack them there"):
        data.load("cifar10_dvs", data_dir=tmp_path)


def test_a_set_of_the_published_size_divides_into_9000_and_1000(tmp_path):
    _write(tmp_path / "cifar10-dvs", per_class=1000)
    dataset = data.load("cifar10_dvs", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (9000, 1000)
    assert all(count == 100 for count in np.bincount(dataset.test.labels))
