"""Event recordings as dense arrays of frames, in memory or memory-mapped."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data.dataset import Dataset, Events, Split, check_dtype, require, whole_number

__all__ = ["dense"]


def dense(
    dataset: Dataset,
    to_frames: Callable[[Events], Any],
    *,
    scale: float = 1.0,
    directory: str | Path | None = None,
    timesteps: int | None = None,
) -> Dataset:
    """Converts every event recording to an array of one shape, so that a `Loader` can batch it.

    Recordings are read and encoded one at a time. The frames of both splits take

        (N_train + N_test) T H W C  bytes of the dtype that `to_frames` returns

    of memory or, with a `directory`, of disk. Use `map_inputs` if they fit in neither, or if frames
    must differ between epochs.

    Args:
        dataset: A data set of event recordings.
        to_frames: `Events -> [T, H, W, C]` (or any fixed shape), for instance
            `lambda events: encoding.events.frames_by_time(events, timesteps=16, height=34,
            width=34, dtype=np.uint8)`. Frames are stored in the dtype it returns.
        scale: Factor of `rescale` for the frames.
        timesteps: T, to which frames `[T_i, ...]` of recordings of different lengths are padded by
            zeros; the splits then have `lengths`. None requires frames of one shape.
        directory: Folder for the files `<name>-train.npy` and `<name>-test.npy`; existing ones are
            replaced once all frames are written. The files are memory-mapped, so memory holds only
            the batches in use. None keeps the frames in memory.

    Returns:
        The data set with inputs `[N, T, H, W, C]`; `input_shape` is the shape of one array without
        its leading (time) axis.

    Raises:
        ValueError: If two recordings give arrays of different shapes or dtypes, one gives more
            than `timesteps`, or a split is empty.
    """
    require("dataset", dataset, Dataset)
    folder = None if directory is None else Path(directory)
    if folder is not None:
        # Before the first recording is read, so that a wrong path costs no time.
        if Path(dataset.name).name != dataset.name:
            raise ValueError(
                f"the data set's name {dataset.name!r} names its files and is no path: "
                "dataclasses.replace(dataset, name=...)"
            )
        folder.mkdir(parents=True, exist_ok=True)
    if timesteps is not None:
        whole_number("timesteps", timesteps, least=1)
    paths = [folder and folder / f"{dataset.name}-{split}.npy" for split in ("train", "test")]
    train = _dense_split(dataset.train, to_frames, dataset.name, paths[0], timesteps)
    test = _dense_split(dataset.test, to_frames, dataset.name, paths[1], timesteps)
    shape = train.inputs.shape  # type: ignore[union-attr]
    return dataclasses.replace(dataset, train=train, test=test, input_shape=shape[2:], scale=scale)


def _dense_split(
    split: Split,
    to_frames: Callable[[Events], Any],
    name: str,
    path: Path | None,
    timesteps: int | None,
) -> Split:
    frames, lengths = None, split.lengths if timesteps is None else np.zeros(len(split), np.int32)
    for i, events in enumerate(split.inputs):
        frame = np.asarray(to_frames(events))  # type: ignore[arg-type]
        if timesteps is not None and lengths is not None:
            lengths[i] = len(frame)
            frame = _fill_window(f"{name}: recording {i}", frame, timesteps)
        # Allocated once the first frame tells shape and dtype: a list of frames would need twice
        # the memory when it is stacked.
        if frames is None:
            check_dtype(f"{name}: frames", frame)
            frames = _allocate((len(split), *frame.shape), frame.dtype, path)
        if frame.shape != frames.shape[1:]:
            raise ValueError(
                f"{name}: recording {i} gave frames {frame.shape}, the ones before it "
                f"{frames.shape[1:]}; choose an encoder with a fixed number of timesteps, or give "
                "timesteps=T to pad recordings of different lengths"
            )
        # The assignment below would cast: floating counts to uint8 lose their fractions.
        if frame.dtype != frames.dtype:
            raise ValueError(
                f"{name}: recording {i} gave {frame.dtype} frames, the ones before it "
                f"{frames.dtype}; let to_frames return one dtype"
            )
        frames[i] = frame
    if frames is None:
        raise ValueError(f"{name}: an empty split has no shape to give its frames")
    if path is not None:
        # Under its name only when complete: an interrupted run would leave frames of zeros. The
        # old file stays readable to a map of it, which may be the input of this very call.
        os.replace(_partial(path), path)
    return dataclasses.replace(split, inputs=frames, lengths=lengths)


def _fill_window(name: str, frames: np.ndarray, timesteps: int) -> np.ndarray:
    """Frames `[T_i, ...]` padded by zeros to `[timesteps, ...]`, or an error that names them."""
    if not frames.ndim or not 1 <= len(frames) <= timesteps:
        raise ValueError(
            f"{name} gave frames {frames.shape}, not 1 to {timesteps} timesteps: cut it in "
            "to_frames, or give a larger timesteps"
        )
    widths = [(0, timesteps - len(frames)), *[(0, 0)] * (frames.ndim - 1)]
    return np.pad(frames, widths)


def _allocate(shape: tuple[int, ...], dtype: np.dtype, path: Path | None) -> np.ndarray:
    if path is None:
        return np.empty(shape, dtype)
    # An ordinary .npy file, which np.load can open again.
    return np.lib.format.open_memmap(_partial(path), mode="w+", dtype=dtype, shape=shape)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")
