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

from snnjax.data._archive import parse_table, read_files, refuse_duplicates
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
_LARGEST = 16 << 20  # bytes of a signal: published ones have at most 1.9 million
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
        CorruptDataError: If a signal is truncated, constant, not finite or there twice, or a row of
            labels does not fit the signals.
    """
    signals: dict[tuple[str, int, int], np.ndarray] = {}
    rows = None
    for path, content in read_files(folder, _is_needed, member=_LARGEST, total=60 * _LARGEST):
        table = parse_table(content, 5 if path.name == "labels.txt" else 3, str(folder / path))
        if match := _SIGNAL.fullmatch(path.name):
            key = (match[1], int(match[2]), int(match[3]))
            refuse_duplicates(folder, [*signals, key])
            # A sensor that hangs would standardise to zeros, or to NaN.
            if not len(table) or (np.ptp(table, axis=0) == 0).any():
                raise CorruptDataError(f"{path} has a channel that is constant; fetch it again")
            signals[key] = table
        elif rows is None:
            rows = _label_rows(table, path)
        else:
            raise CorruptDataError(f"{folder} has two files labels.txt; leave one of them")
    if rows is None or not signals:
        raise MissingDataError(
            f"{folder} has no RawData/labels.txt with acc_expXX_userYY.txt and "
            "gyro_expXX_userYY.txt, nor an archive of them"
        )
    windows, labels, users = _windows(folder, signals, rows)
    # By person: windows of one person overlap and would appear on both sides.
    test = np.isin(users, TEST_USERS)
    for name, part in (("training", ~test), ("test", test)):
        if not part.any():
            raise CorruptDataError(f"{folder} has no windows of the people of the {name} split")
    # Training windows only: statistics of the test windows would leak into training.
    mean = windows[~test].mean(axis=(0, 1), dtype=np.float64)
    deviation = windows[~test].std(axis=(0, 1), dtype=np.float64)
    if (deviation == 0).any():
        raise CorruptDataError(
            f"{folder}: channel {int(np.argmin(deviation))} is constant in all training windows, "
            "and has no scale; fetch the signals again"
        )
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


def _label_rows(table: np.ndarray, path: PurePosixPath) -> np.ndarray:
    """Rows `experiment, user, activity, first, last` of labels.txt as integers."""
    # Before the cast, which would truncate fractions and wrap what is large.
    whole = (table == np.round(table)) & (table >= 1) & (table < 2**31)
    if not whole.all() or (table[:, 3] > table[:, 4]).any():
        bad = int(np.argmin(whole.all(axis=1) & (table[:, 3] <= table[:, 4])))
        raise CorruptDataError(
            f"{path} has the row {table[bad].tolist()}: experiment, user, activity, first and last "
            "sample count from 1, and the last does not precede the first; fetch it again"
        )
    rows = table.astype(np.int64)
    rows = rows[np.lexsort((rows[:, 3], rows[:, 0]))]
    overlap = (rows[1:, 0] == rows[:-1, 0]) & (rows[1:, 3] <= rows[:-1, 4])
    if overlap.any():
        raise CorruptDataError(
            f"{path} labels samples twice: the intervals {rows[:-1][overlap][0].tolist()} and "
            f"{rows[1:][overlap][0].tolist()} overlap; fetch it again"
        )
    return table.astype(np.int64)


def _is_needed(path: PurePosixPath) -> bool:
    return path.name == "labels.txt" or _SIGNAL.fullmatch(path.name) is not None


def _windows(
    folder: Path, signals: dict[tuple[str, int, int], np.ndarray], rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    windows, labels, users = [], [], []
    for experiment, user, activity, first, last in rows:
        if activity > len(ACTIVITIES):
            continue  # a postural transition, too short for a window
        try:
            acceleration, rotation = (signals[s, experiment, user] for s in ("acc", "gyro"))
        except KeyError as error:
            raise MissingDataError(
                f"the signals of experiment {experiment} of user {user} are missing in {folder}"
            ) from error
        # A slice beyond the end would be shorter without an error.
        if min(len(acceleration), len(rotation)) < last:
            raise CorruptDataError(
                f"{folder}: experiment {experiment} is labelled up to sample {last}, but its "
                f"signals end at {min(len(acceleration), len(rotation))}; fetch them again"
            )
        # Sample numbers count from 1, and the last one belongs to the interval.
        interval = np.concatenate([a[first - 1 : last] for a in (acceleration, rotation)], axis=1)
        # Whole windows only: a rest shorter than a window is dropped.
        starts = range(0, len(interval) - WINDOW + 1, STRIDE)
        windows += [interval[start : start + WINDOW] for start in starts]
        labels += [activity - 1] * len(starts)
        users += [user] * len(starts)
    if not windows:
        raise CorruptDataError(
            f"labels.txt of {folder} has no activity of {WINDOW} samples or more"
        )
    return (
        np.stack(windows).astype(np.float32),
        np.array(labels, np.int32),
        np.array(users, np.int32),
    )
