"""DVS128 Gesture: eleven hand and arm gestures of 29 people in front of a DVS128, three lightings.

A recording holds the gestures of one person under one lighting; a table beside it lists start and
end of each. The examples are these intervals, `start <= t < end`, about six seconds long. The
data set's own lists divide people, not recordings, into training and test.

The paper counts 1,342 gestures; cut this way, SpikingJelly and snnTorch report 1,176 and 288 in the
published files. The reader was tested on files written from the format description and the
published layout, not on the data set itself.

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

from snnjax.data._archive import list_files, read_file, refuse_duplicates
from snnjax.data._recordings import Recordings
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split
from snnjax.data.event_files import DVS128, parse_aedat3

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
_LARGEST = 2 << 30  # bytes of a recording: published ones have 20 to 100 million
_TRIAL = re.compile(r"user(\d+)_\w+\.aedat")


class _Gesture(NamedTuple):
    path: Path
    label: int
    start: int
    stop: int
    user: int


def read_dvs128_gesture(folder: Path, *, other: bool = True) -> Dataset:
    """Lists the gestures of DVS128 Gesture, whole set or subset; each is read on access.

    Args:
        folder: Folder of the unpacked folder `DvsGesture`, or of its files: `userXX_LIGHT.aedat`,
            `userXX_LIGHT_labels.csv`, `trials_to_train.txt` and `trials_to_test.txt`.
        other: Include the eleventh class, gestures of the people's own choice.

    Returns:
        Recordings `[E, 4]` int32 of different lengths, t in microseconds of the camera clock.
        `groups` are people. `input_shape` is `(128, 128, 2)`. All events in memory would take twice
        the size of the unpacked files (5 GB); `dense` with 16 timesteps of uint8 frames takes
        0.8 GB.

    Raises:
        MissingDataError: If the lists are missing, or only an archive of them exists.
        CorruptDataError: If a listed recording or its table is missing, a table is damaged, or a
            recording or gesture is listed twice.
    """
    # The published lists mark the folder of the recordings, at any depth.
    lists = list_files(folder, lambda path: path.name == _LISTS["train"])
    if not lists:
        raise MissingDataError(f"{folder} has no {_LISTS['train']} beside userXX_LIGHT.aedat")
    if len(lists) > 1:
        raise CorruptDataError(
            f"{folder} has {len(lists)} copies of the data set, {lists[0].parent} and "
            f"{lists[1].parent}: leave one"
        )
    train, test = (_split(lists[0].parent, name, other) for name in _LISTS.values())
    # The other gestures are the last class, so the numbers of the rest stay.
    classes = len(GESTURES) if other else len(GESTURES) - 1
    return Dataset(
        name="dvs128_gesture" if other else "dvs128_gesture_10",
        train=train,
        test=test,
        classes=classes,
        class_names=GESTURES[:classes],
        input_shape=(DVS128, DVS128, 2),
        scale=1.0,
        note=f"DVS128 Gesture, {len(train)} + {len(test)} gestures, read on access. A. Amir "
        "et al., 2017; Creative Commons Attribution 4.0.",
    )


def _split(folder: Path, list_name: str, other: bool) -> Split:
    if not (folder / list_name).is_file():
        raise MissingDataError(f"{folder / list_name} is missing")
    try:
        trials = (folder / list_name).read_text().split()
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{folder / list_name} is no text ({error})") from error
    refuse_duplicates(folder / list_name, ((trial,) for trial in trials))
    gestures = [g for trial in trials for g in _read_table(folder, trial, list_name)]
    # Filtered before any recording is read.
    gestures = [g for g in gestures if other or g.label < len(GESTURES) - 1]
    if not gestures:
        raise CorruptDataError(f"{folder / list_name} names no gestures; fetch it again")
    return Split(
        Recordings(tuple(gestures), _read),
        np.array([g.label for g in gestures], np.int32),
        # People as groups: a further division must not put one person on both sides.
        np.array([g.user for g in gestures]),
    )


def _read_table(folder: Path, trial: str, list_name: str) -> list[_Gesture]:
    """Gestures of one trial, from the table beside its recording."""
    match = _TRIAL.fullmatch(trial)
    # The name of the file alone tells the person.
    if match is None:
        raise CorruptDataError(
            f"{folder / list_name} names {trial!r}, not userXX_LIGHT.aedat; fetch it again"
        )
    path = folder / trial
    table = path.with_name(f"{path.stem}_labels.csv")
    # Checked while listing: a missing recording would otherwise end an epoch.
    for file in (path, table):
        if not file.is_file():
            raise CorruptDataError(f"{file}, named in {list_name}, is missing; unpack it again")
    try:
        # The first line is the header. Classes count from 1, labels from 0.
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
        # A table with shifted columns parses without an error.
        if not 0 <= gesture.label < len(GESTURES) or not 0 <= gesture.start < gesture.stop:
            raise CorruptDataError(
                f"{table} has class {gesture.label + 1} from {gesture.start} to {gesture.stop} us, "
                f"not one of 1..{len(GESTURES)} that ends after it begins; fetch it again"
            )
    refuse_duplicates(table, ((g.label + 1, g.start, g.stop) for g in gestures))
    return gestures


def _read(gesture: _Gesture) -> np.ndarray:
    path, _, start, stop, _ = gesture
    # Of a recording of many gestures only the packets of this interval are decoded.
    events = parse_aedat3(read_file(path, largest=_LARGEST), name=str(path), start=start, stop=stop)
    # Frames of no events are zeros, and no later step would notice.
    if len(events) == 0:
        raise CorruptDataError(
            f"{path} has no events from {start} to {stop} us, where its table has a gesture: it is "
            "cut short, or not the recording of that table; fetch both again"
        )
    return events
