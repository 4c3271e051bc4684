"""Recordings of angular velocity in the layout of the paper, and errors."""

import numpy as np
import pytest

from snnjax import data, encoding

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.fast
STEPS = 10


def write(path, *, seed=0, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "ev_xy": rng.integers(0, (240, 180), (50, 2)).astype(np.int16),
        "ev_ts": np.sort(rng.integers(0, 1000 * STEPS, 50)),
        "ev_pol": rng.integers(0, 2, 50).astype(np.int8),
        "ang_xyz": rng.normal(size=(STEPS, 3)),
        "ang_ts": np.arange(STEPS) * 1000,
    } | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if values is not None:
                file[name] = values
    return arrays


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "angular-velocity"
    write(root / "train" / "0" / "0000.h5")
    write(root / "train" / "10" / "0001.h5", seed=1)
    write(root / "test" / "0002.h5", seed=2)
    return root


def test_events_and_targets(folder):
    dataset = data.load("angular_velocity", data_dir=folder.parent)
    written = write(folder / "test" / "0002.h5", seed=2)
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (2, 1, 0)
    assert dataset.train.labels.shape == (2, STEPS, 3) and dataset.input_shape == (180, 240, 2)
    np.testing.assert_allclose(dataset.test.labels[0], written["ang_xyz"], rtol=1e-6)
    events = dataset.test.inputs[0]
    np.testing.assert_array_equal(events[:, 0], written["ev_ts"])
    np.testing.assert_array_equal(events[:, 1:3], written["ev_xy"])
    np.testing.assert_array_equal(events[:, 3], written["ev_pol"])
    frames = encoding.events.frames_by_time(
        events, timesteps=STEPS, start=0, duration=1000 * STEPS, limit=1, height=180, width=240
    )
    # The tensor of the authors: 1 at polarity, row, column and millisecond.
    expected = np.zeros((STEPS, 180, 240, 2))
    x, y = written["ev_xy"].T
    expected[written["ev_ts"] // 1000, y, x, written["ev_pol"]] = 1
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ang_xyz": np.zeros((STEPS, 2))}, r"not \[T, 3\] and \[T\]"),
        ({"ang_xyz": np.full((STEPS, 3), np.nan)}, "targets that are not finite"),
        ({"ang_ts": np.arange(STEPS) ** 2}, "not whole microseconds at one distance"),
        ({"ang_ts": np.arange(STEPS) / 1e3}, r"\(1e6 \* t\)"),
        ({"ang_ts": np.arange(STEPS) * 500}, "targets every 500 us, others 10 every 1000"),
        ({"ang_xyz": None}, "lacks ang_xyz; it has"),
    ],
)
def test_wrong_targets_are_refused_at_once(folder, changes, match):
    write(folder / "train" / "10" / "0001.h5", **changes)
    with pytest.raises(data.CorruptDataError, match=match) as caught:
        data.load("angular_velocity", data_dir=folder.parent)
    assert "0001.h5" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ev_xy": np.full((50, 2), 200)}, "outside 180x240"),
        ({"ev_xy": np.zeros((49, 2), int)}, r"not \[E, 2\], \[E\] and \[E\]"),
        ({"ev_ts": np.linspace(0, 1, 50)}, r"\(1e6 \* t\)"),
        ({"ev_pol": np.full(50, -1)}, "write p > 0"),
    ],
)
def test_wrong_events_are_refused_on_access(folder, changes, match):
    write(folder / "test" / "0002.h5", **changes)
    dataset = data.load("angular_velocity", data_dir=folder.parent)
    with pytest.raises((data.CorruptDataError, TypeError), match=match) as caught:
        dataset.test.inputs[0]
    assert "0002.h5" in str(caught.value)


def test_a_missing_split(folder):
    (folder / "test" / "0002.h5").rename(folder / "0002.h5")
    with pytest.raises(data.MissingDataError, match="test has no recordings <number>.h5"):
        data.load("angular_velocity", data_dir=folder.parent)
