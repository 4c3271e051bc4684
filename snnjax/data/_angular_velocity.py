"""Angular velocity of a rotating event camera, rendered from panoramas: the data of Gehrig et al.

Files are `test/<number>.h5` and `train/.../<number>.h5` (HDF5), one recording each:

    ev_xy   [E, 2]  column, row of 240x180       ang_xyz  [T, 3]  angular velocity, rad/s
    ev_ts   [E]     microseconds                 ang_ts   [T]     microseconds, equally spaced
    ev_pol  [E]     0 or 1

A target holds from its timestamp to the next one. The layout is that which the authors' code reads;
this reader was tested on files written in it, not on the data set itself (62.7 GB).
`data.rotation` renders such data from photographs that everyone has.

Reference:
    M. Gehrig, S. B. Shrestha, D. Mouritzen, D. Scaramuzza, "Event-Based Angular Velocity Regression
    with Spiking Networks", ICRA 2020, arXiv:2003.02790. Files:
    rpg.ifi.uzh.ch/data/snn_angular_velocity/dataset.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snnjax.data._archive import list_files
from snnjax.data._hdf5 import open_hdf5
from snnjax.data._recordings import Recordings, as_events
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

HEIGHT, WIDTH = 180, 240
_EVENTS = ("ev_xy", "ev_ts", "ev_pol")
_TARGETS = ("ang_xyz", "ang_ts")
_MOST = 1 << 28  # events of a recording, and 2^20 targets: published ones have 100 targets


def read_angular_velocity(folder: Path) -> Dataset:
    """Lists the recordings of angular velocity; events are read on access, targets at once.

    Args:
        folder: Folder of the unpacked folders `train` and `test`; `val` is not read.

    Returns:
        Recordings `[E, 4]` int32 with targets `[N, T, 3]` float32 in rad/s, about the axes x (to
        the right), y (down) and z (forward) of the camera. `input_shape` is `(180, 240, 2)`. One
        frame per target is `encoding.events.frames_by_time(events, timesteps=T, start=0,
        duration=T * step, limit=1, ...)` with the step of `ang_ts` in microseconds, 1000.

    Raises:
        ImportError: If `h5py` is not installed.
        MissingDataError: If a folder has no recordings.
        CorruptDataError: If targets are not equally spaced, not finite, or differ in number or step
            between recordings. On access, if events are damaged.
    """
    parts = {part: list_files(folder / part, _is_recording) for part in ("train", "test")}
    if empty := [part for part, files in parts.items() if not files]:
        raise MissingDataError(f"{folder / empty[0]} has no recordings <number>.h5")
    targets = {part: [_targets(path) for path in files] for part, files in parts.items()}
    everything = [pair for found in targets.values() for pair in found]
    step, count = everything[0][1], len(everything[0][0])
    for path, (values, spacing) in zip(sum(parts.values(), []), everything, strict=True):
        if (len(values), spacing) != (count, step):
            raise CorruptDataError(
                f"{path} has {len(values)} targets every {spacing} us, others {count} every "
                f"{step} us: fetch it again"
            )
    train, test = (
        Split(Recordings(tuple(files), _read), np.stack([values for values, _ in targets[part]]))
        for part, files in parts.items()
    )
    return Dataset(
        name="angular_velocity",
        train=train,
        test=test,
        classes=0,
        class_names=(),
        input_shape=(HEIGHT, WIDTH, 2),
        scale=1.0,
        note=f"Angular velocity, {len(train)} + {len(test)} recordings, a target every {step} us, "
        "read on access. M. Gehrig, S. B. Shrestha, D. Mouritzen, D. Scaramuzza, 2020.",
    )


def _is_recording(path: object) -> bool:
    return str(path).endswith(".h5")


def _targets(path: Path) -> tuple[np.ndarray, int]:
    """Angular velocities `[T, 3]` float32 of a file and their distance in microseconds."""
    with open_hdf5(path, (*_EVENTS, *_TARGETS)) as file:
        shapes = [file[name].shape for name in _TARGETS]
        if len(shapes[1]) != 1 or not 2 <= shapes[1][0] < 1 << 20 or shapes[0] != (*shapes[1], 3):
            raise CorruptDataError(
                f"{path} has ang_xyz {shapes[0]} and ang_ts {shapes[1]}, not [T, 3] and [T]: fetch "
                "it again"
            )
        velocity, times = (file[name][()] for name in _TARGETS)
    steps = np.unique(np.diff(times))
    if times.dtype.kind not in "iu" or len(steps) != 1 or steps[0] <= 0:
        raise CorruptDataError(
            f"{path} has {times.dtype} target times at distances {steps[:3].tolist()}, not whole "
            "microseconds at one distance: seconds become (1e6 * t).astype('int64')"
        )
    if velocity.dtype.kind != "f" or not np.isfinite(velocity).all():
        raise CorruptDataError(f"{path} has targets that are not finite: fetch it again")
    return velocity.astype(np.float32), int(steps[0])


def _read(path: Path) -> np.ndarray:
    with open_hdf5(path, _EVENTS) as file:
        shapes = [file[name].shape for name in _EVENTS]
        if shapes[0] != (*shapes[1], 2) or shapes[1] != shapes[2] or len(shapes[1]) != 1:
            raise CorruptDataError(
                f"{path} has ev_xy, ev_ts and ev_pol of {shapes}, not [E, 2], [E] and [E]: fetch "
                "it again"
            )
        if shapes[1][0] > _MOST:
            raise CorruptDataError(f"{path} claims {shapes[1][0]} events: fetch it again")
        pixels, times, polarity = (file[name][()] for name in _EVENTS)
    x, y = pixels.T
    return as_events(times, x, y, polarity, height=HEIGHT, width=WIDTH, name=str(path))
