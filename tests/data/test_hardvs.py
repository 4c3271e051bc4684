"""HARDVS: npz files and lists of its layout, errors."""

import numpy as np
import pytest

from snnjax import data

pytestmark = pytest.mark.fast
START = 1_634_296_682_000_000  # microseconds since 1970


def write(root, listed={"train": (1, 300, 1), "val": (2,), "test": (300, 2)}):  # noqa: B006
    folder, number = root / "hardvs", 0
    for part, actions in listed.items():
        lines = []
        for action in actions:
            name = f"action_{action:03}/dvSave-2021_10_15_19_18_{number:02}"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.savez(
                folder / f"{name}.npz",
                t=START + np.array([5 + number, 9, 2000]),
                x=np.array([345, 0, 7], np.int16),
                y=np.array([259, 0, 7], np.int16),
                p=np.array([True, False, True]),
            )
            lines.append(f"{name} {action - 1}\n")
            number += 1
        (folder / f"{part}_label.txt").write_text("".join(lines) + "\n")
    return folder


def test_lists_divide_the_recordings(tmp_path):
    write(tmp_path)
    dataset = data.load("hardvs", data_dir=tmp_path)
    assert dataset.classes == 300 and dataset.input_shape == (260, 346, 2)
    assert dataset.class_names[299] == "action_300"
    np.testing.assert_array_equal(dataset.train.labels, [0, 299, 0])
    np.testing.assert_array_equal(dataset.test.labels, [299, 1])
    np.testing.assert_array_equal(
        dataset.train.inputs[0], [[0, 345, 259, 1], [4, 0, 0, 0], [1995, 7, 7, 1]]
    )
    # In order of time, whatever the order of the file.
    np.testing.assert_array_equal(dataset.test.inputs[0][:, 0], [0, 0, 1991])


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("action_301/a 300\n", "not 'action_001/<recording>"),
        ("action_000/a\n", "line 4"),
        ("../../etc/passwd 1\n", "not 'action_001/<recording>"),
        ("action_001/../../x 1\n", "not 'action_001/<recording>"),
    ],
)
def test_a_damaged_list_is_refused(tmp_path, line, match):
    path = write(tmp_path) / "train_label.txt"
    path.write_text(path.read_text().rstrip("\n") + "\n" + line)
    with pytest.raises(data.CorruptDataError, match=match):
        data.load("hardvs", data_dir=tmp_path)


def test_missing_recordings_and_recordings_in_both_splits(tmp_path):
    folder = write(tmp_path)
    path = folder / "test_label.txt"
    listed = path.read_text()
    path.write_text(listed.strip() + "\naction_001/absent 0\n")
    with pytest.raises(data.MissingDataError, match=r"1 are missing, .*absent\.npz first"):
        data.load("hardvs", data_dir=tmp_path)
    path.write_text(listed.strip() + "\n" + (folder / "train_label.txt").read_text())
    with pytest.raises(data.CorruptDataError, match="twice"):
        data.load("hardvs", data_dir=tmp_path)
    path.unlink()
    with pytest.raises(data.MissingDataError, match=r"test_label\.txt is missing"):
        data.load("hardvs", data_dir=tmp_path)


def test_damaged_recordings_are_named(tmp_path):
    folder = write(tmp_path)
    dataset = data.load("hardvs", data_dir=tmp_path)
    path = folder / "action_001" / "dvSave-2021_10_15_19_18_00.npz"
    for arrays, match in (
        ({"t": [1], "x": [346], "y": [0], "p": [1]}, "outside 260x346"),
        ({"t": [1], "x": [0], "y": [0]}, "lacks p"),
        ({"t": [0.5], "x": [0], "y": [0], "p": [1]}, r"1e6 \* t"),
        ({"t": [], "x": [], "y": [], "p": []}, "no events"),
    ):
        np.savez(path, **{name: np.array(values) for name, values in arrays.items()})
        with pytest.raises((data.CorruptDataError, TypeError), match=match) as caught:
            dataset.train.inputs[0]
        assert path.name in str(caught.value)
    path.write_bytes(b"PK")
    with pytest.raises(data.CorruptDataError, match="cannot be read"):
        dataset.train.inputs[0]
