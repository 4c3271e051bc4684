"""DVS128 Gesture: eleven hand and arm gestures of 29 people before a DVS128, three lightings.

A recording holds the gestures of one person under one light; a table beside it says when each
begins and ends. Those stretches are the examples, `start <= t < end`, of about six seconds. People,
not recordings, are divided into training and test, by the set's own lists.

The paper counts 1,342 gestures; cut like this, SpikingJelly and snnTorch report 1,176 and 288 of
the published files. This reader was tested on files written from the page of the format and the
layout of the set, not on the set itself.

Reference:
    A. Amir, B. Taba, D. Berg, T. Melano, J. McKinstry, C. Di Nolfo, T. Nayak, A. Andreopoulos,
    G. Garreau, M. Mendoza, J. Kusnitz, M. Debole, S. Esser, T. Delbruck, M. Flickner, D. Modha, "A
    Low Power, Fully Event-Based Gesture Recognition System", CVPR 2017.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snnjax.data.aedat import DVS128, parse_aedat3
from snnjax.data.archive import unpacked
from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError
from snnjax.data.recordings import Recordings

GESTURES = (
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
)
_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
_TRIAL = re.compile(r"user(\d+)_\w+\.aedat")


class _Gesture(NamedTuple):
    path: Path
    label: int
    start: int
    stop: int
    user: int


def read_dvs128_gesture(folder: Path, *, other: bool = True) -> Dataset:
    """Finds the gestures of DVS128 Gesture, whole set or subset; each is read when asked for.

    Args:
        folder: Where the unpacked folder `DvsGesture` lies, or its files: `userXX_LIGHT.aedat`,
            `userXX_LIGHT_labels.csv`, `trials_to_train.txt` and `trials_to_test.txt`.
        other: Whether the eleventh class, gestures of the people's own choice, is taken in.

    Returns:
        Recordings `[E, 4]` int32 of different lengths, t in microseconds of the camera's clock,
        read from disk one at a time. `groups` are the people. All of them as events would take
        twice the room of the files (5 GB, unpacked); `input_shape` is `(128, 128, 2)`, and frames
        of 8 bits and 16 timesteps made of them by `dense` take 0.8 GB.

    Raises:
        MissingDataError: Where the lists are not there, or only an archive of them.
        CorruptDataError: Where a listed recording or its table is missing, or a table is damaged.
    """
    found = unpacked(folder, lambda path: path.name == _LISTS["train"])
    if not found:
        raise MissingDataError(f"{folder} has no {_LISTS['train']} beside userXX_LIGHT.aedat")
    train, test = (_split(found[0].parent, name, other) for name in _LISTS.values())
    classes = len(GESTURES) if other else len(GESTURES) - 1
    return Dataset(
        name="dvs128_gesture" if other else "dvs128_gesture_10",
        train=train,
        test=test,
        classes=classes,
        class_names=GESTURES[:classes],
        input_shape=(DVS128, DVS128, 2),
        scale=1.0,
        note=f"DVS128 Gesture, {len(train)} + {len(test)} gestures, read when asked for. A. Amir "
        "et al., 2017; Creative Commons Attribution 4.0.",
    )


def _split(folder: Path, list_name: str, other: bool) -> Split:
    if not (folder / list_name).is_file():
        raise MissingDataError(f"{folder / list_name} is missing")
    trials = (folder / list_name).read_text().split()
    gestures = [g for trial in trials for g in _table(folder, trial, list_name)]
    gestures = [g for g in gestures if other or g.label < len(GESTURES) - 1]
    if not gestures:
        raise CorruptDataError(f"{folder / list_name} names no gestures; fetch it again")
    return Split(
        Recordings(tuple(gestures), _read),
        np.array([g.label for g in gestures], np.int32),
        np.array([g.user for g in gestures], np.int32),
    )


def _table(folder: Path, trial: str, list_name: str) -> list[_Gesture]:
    match = _TRIAL.fullmatch(trial)
    if match is None:
        raise CorruptDataError(
            f"{folder / list_name} names {trial!r}, not userXX_LIGHT.aedat; fetch it again"
        )
    path = folder / trial
    table = path.with_name(f"{path.stem}_labels.csv")
    for file in (path, table):
        if not file.is_file():
            raise CorruptDataError(f"{file}, named in {list_name}, is missing; unpack it again")
    try:
        lines = [line for line in table.read_text().splitlines()[1:] if line.strip()]
        rows = [map(int, line.split(",")) for line in lines]
        gestures = [
            _Gesture(path, number - 1, start, stop, int(match[1])) for number, start, stop in rows
        ]
    except ValueError as error:
        raise CorruptDataError(
            f"{table} must have rows class,start,end of whole numbers ({error}); fetch it again"
        ) from error
    for gesture in gestures:
        if not 0 <= gesture.label < len(GESTURES) or not 0 <= gesture.start < gesture.stop:
            raise CorruptDataError(
                f"{table} has class {gesture.label + 1} from {gesture.start} to {gesture.stop} us, "
                f"not one of 1..{len(GESTURES)} that ends after it begins; fetch it again"
            )
    return gestures


def _read(gesture: _Gesture) -> np.ndarray:
    path, _, start, stop, _ = gesture
    events = parse_aedat3(path.read_bytes(), name=str(path), start=start, stop=stop)
    if len(events) == 0:
        raise CorruptDataError(
            f"{path} has no events from {start} to {stop} us, where its table has a gesture: it is "
            "cut short, or not the recording of that table; fetch both again"
        )
    return events
