"""HAPT: windows of a phone's accelerometer and gyroscope, six activities of thirty people.

The raw 50 Hz signals of the UCI HAPT set (a superset of UCI HAR's) are cut, within each labelled
interval of a basic activity, into windows of 128 samples with a stride of 64. People, not windows,
are divided into training and test, with the authors' own division. Each channel is standardised
with the mean and standard deviation of the training windows.

The windows differ from those of the "UCI HAR Dataset" files, which were filtered first: accuracies
are not comparable to the last per cent.

Reference:
    J.-L. Reyes-Ortiz, L. Oneto, A. Samà, X. Parra, D. Anguita, "Transition-Aware Human Activity
    Recognition Using Smartphones", Neurocomputing, 2016.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import read_files
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

WINDOW = 128
STRIDE = 64
TEST_USERS = (2, 4, 9, 10, 12, 13, 18, 20, 24)
ACTIVITIES = (
    "walking",
    "walking_upstairs",
    "walking_downstairs",
    "sitting",
    "standing",
    "laying",
)
_SIGNAL = re.compile(r"(acc|gyro)_exp(\d+)_user(\d+)\.txt")


def read_hapt(folder: Path) -> Dataset:
    """Reads the raw signals of HAPT and cuts them into windows; takes a few seconds.

    Args:
        folder: Folder of the set's `RawData/`, or of an archive of it.

    Returns:
        Windows `[N, 128, 6]` float32, standardised; the channels are acceleration x, y, z and
        angular velocity x, y, z. `groups` are people. The whole set gives 7,415 and 2,996 windows.

    Raises:
        MissingDataError: If the labels or a signal are missing.
        CorruptDataError: If a signal is truncated.
    """
    signals: dict[tuple[str, int], np.ndarray] = {}
    rows = None
    for path, content in read_files(folder, _is_needed):
        if path.name == "labels.txt":
            rows = parse_table(content, 5, path).astype(int)
        elif match := _SIGNAL.fullmatch(path.name):
            signals[match[1], int(match[2])] = parse_table(content, 3, path)
    if rows is None or not signals:
        raise MissingDataError(
            f"{folder} has no RawData/labels.txt with acc_expXX_userYY.txt and "
            "gyro_expXX_userYY.txt, nor an archive of them"
        )
    windows, labels, users = _windows(signals, rows)
    # By person: windows of one person overlap and would appear on both sides.
    test = np.isin(users, TEST_USERS)
    # Training windows only: statistics of the test windows would leak into training.
    mean = windows[~test].mean(axis=(0, 1), dtype=np.float64)
    deviation = windows[~test].std(axis=(0, 1), dtype=np.float64)
    # Sums of float32 windows are taken in float64 above; the result needs float32 only.
    windows = ((windows - mean) / deviation).astype(np.float32)
    return Dataset(
        name="hapt",
        train=Split(windows[~test], labels[~test], users[~test]),
        test=Split(windows[test], labels[test], users[test]),
        classes=len(ACTIVITIES),
        class_names=ACTIVITIES,
        input_shape=(WINDOW, 6),
        scale=1.0,
        note="HAPT, J.-L. Reyes-Ortiz, L. Oneto, A. Samà, X. Parra, D. Anguita, 2016; its readme "
        "prohibits any commercial use. Windows of the raw signals, not those of UCI HAR.",
    )


def parse_table(content: bytes, columns: int, path: PurePosixPath) -> np.ndarray:
    """Parses a text table of numbers.

    Args:
        content: The whole file.
        columns: Numbers per row.
        path: Path of the file in error messages.

    Returns:
        `[rows, columns]` float64.

    Raises:
        CorruptDataError: If a row is incomplete or has something other than numbers.
    """
    try:
        # All numbers at once: a truncated row shows in the number of entries.
        values = np.array(content.split(), np.float64)
        return values.reshape(-1, columns)
    except ValueError as error:
        raise CorruptDataError(
            f"{path} is not a table of {columns} numbers a row ({error}); fetch it again"
        ) from error


def _is_needed(path: PurePosixPath) -> bool:
    return path.name == "labels.txt" or _SIGNAL.fullmatch(path.name) is not None


def _windows(
    signals: dict[tuple[str, int], np.ndarray], rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    windows, labels, users = [], [], []
    for experiment, user, activity, first, last in rows:
        if activity > len(ACTIVITIES):
            continue  # a postural transition, too short for a window
        try:
            acceleration, rotation = signals["acc", experiment], signals["gyro", experiment]
        except KeyError as error:
            raise MissingDataError(f"the signals of experiment {experiment} are missing") from error
        # A slice beyond the end would be shorter without an error.
        if min(len(acceleration), len(rotation)) < last:
            raise CorruptDataError(
                f"experiment {experiment} is labelled up to sample {last}, but its signals end at "
                f"{min(len(acceleration), len(rotation))}; fetch them again"
            )
        # Sample numbers count from 1, and the last one belongs to the interval.
        interval = np.concatenate([a[first - 1 : last] for a in (acceleration, rotation)], axis=1)
        # Whole windows only: a rest shorter than a window is dropped.
        starts = range(0, len(interval) - WINDOW + 1, STRIDE)
        windows += [interval[start : start + WINDOW] for start in starts]
        labels += [activity - 1] * len(starts)
        users += [user] * len(starts)
    if not windows:
        raise CorruptDataError(f"labels.txt has no activity of {WINDOW} samples or more")
    return (
        np.stack(windows).astype(np.float32),
        np.array(labels, np.int32),
        np.array(users, np.int32),
    )
