"""A data set: a training and a test split, with the shape, scale and classes a network needs.

Inputs stay on the host as they were published: images as `uint8`, sensor windows as `float32`,
event recordings as sequences of integer arrays `[E, 4]` with one row `t, x, y, p` per event, the
input of `snnjax.encoding`. Recordings are a tuple if the set fits in memory, otherwise
`Recordings`, which reads on access. `rescale(inputs, dataset.scale)` makes float32 values in the
unit interval inside the jitted step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np


class MissingDataError(FileNotFoundError):
    """The data set is not on this machine; the message says how to get it and where to put it."""


class CorruptDataError(ValueError):
    """The content of a file does not match its data set or format: truncated or altered."""


Events: TypeAlias = np.ndarray
"""One recording of an event camera in order of time: `[E, 4]` int32 with the columns time in
microseconds, pixel column, pixel row and polarity (1 brighter, 0 darker)."""

Inputs: TypeAlias = np.ndarray | Sequence[Events]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples and their labels, in a fixed order.

    Attributes:
        inputs: `[N, ...]` array, a sequence of `N` recordings (`Events`), or a sequence that
            computes its examples on access (`LazyInputs`).
        labels: `[N]` int32, in `0 .. K-1`; or targets: `[N, T]` int32, a class per timestep, or
            `[N, D]` and `[N, T, D]` float32, real numbers per example and per timestep.
        groups: `[N]` int32 or None: group of each example, for instance the person who wore the
            sensor. Examples of one group must not be divided between training and test.

    Raises:
        ValueError: If the numbers of inputs, labels and groups differ.
    """

    inputs: Inputs
    labels: np.ndarray
    groups: np.ndarray | None = None

    # eq=False above: comparing arrays has no single truth value.
    def __post_init__(self):
        counts = {len(self.inputs), len(self.labels)}
        counts |= set() if self.groups is None else {len(self.groups)}
        if len(counts) != 1:
            raise ValueError(
                f"a split needs one label per example: {len(self.inputs)} inputs, "
                f"{len(self.labels)} labels"
                + ("" if self.groups is None else f", {len(self.groups)} groups")
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        """One example as `(input, label)`, the contract of a random-access source."""
        return self.inputs[index], self.labels[index]

    def take(self, indices: np.ndarray) -> Split:
        """Selects the examples at `indices` `[n]`, in that order."""
        groups = None if self.groups is None else self.groups[indices]
        return Split(take(self.inputs, indices), self.labels[indices], groups)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set with its published (or a fixed) split into training and test examples.

    Attributes:
        name: Name passed to `load`.
        train: Training split.
        test: Test split.
        classes: Number of classes `K`; 0 if targets are real numbers.
        class_names: The `K` names, in the order of the labels.
        input_shape: Shape of one input without time and batch: `(H, W, C)` for an image or an event
            camera (`C` = 2 polarities), `(T, C)` for a window of a series.
        scale: Factor of `rescale`: 1/255 for 8-bit images, 1/16 for the 8x8 digits, 1 for inputs
            that are floating-point already.
        note: Origin, citation and restrictions of the licence.
    """

    name: str
    train: Split
    test: Split
    classes: int
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    scale: float
    note: str

    def __post_init__(self):
        if len(self.class_names) != self.classes:
            raise ValueError(
                f"{self.name}: {self.classes} classes but {len(self.class_names)} class names"
            )
        for split in (self.train, self.test):
            labels = split.labels
            real = labels.dtype.kind == "f"
            if real != (self.classes == 0):
                raise ValueError(
                    f"{self.name}: {self.classes} classes and {labels.dtype} labels; real targets "
                    "need classes=0, and class labels are integers: labels.astype('int32')"
                )
            if real:
                # One NaN among the targets would make every loss of its epoch NaN.
                if not np.isfinite(labels).all():
                    raise CorruptDataError(f"{self.name}: some targets are not finite")
            # An index out of range raises no error in a jitted loss.
            elif len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
                raise CorruptDataError(
                    f"{self.name}: labels run from {labels.min()} to {labels.max()}, "
                    f"outside 0..{self.classes - 1}; count classes from zero"
                )


def rescale(inputs: jax.typing.ArrayLike, scale: float) -> jax.Array:
    """Converts stored inputs to float32 in the unit interval.

    Call it inside the jitted step: the data set then stays 8-bit on the host and in the transfer,
    a quarter of its float32 size.

        rescale(x) = float32(x) * scale

    Args:
        inputs: `[...]`, of any dtype, as stored in a `Split`.
        scale: `Dataset.scale`.

    Returns:
        `[...]` float32.
    """
    # float32 by name: a NumPy scale of 64 bits would widen the result under `jax_enable_x64`.
    return jnp.asarray(inputs).astype(jnp.float32) * jnp.float32(scale)


def patches(images: jax.Array, *, size: int = 2) -> jax.Array:
    """Moves the pixels of each patch into the channel axis (space to depth).

        y[b, i, j, (k, l, c)] = x[b, size i + k, size j + l, c]

    A convolution of the result equals one of the image with `size` times the kernel and stride, and
    all layers behind it are `size^2` times cheaper.

    Args:
        images: `[B, H, W, C]`, of any dtype.
        size: Pixels along each side of a patch.

    Returns:
        `[B, H / size, W / size, size^2 C]`, of the same dtype.

    Raises:
        ValueError: If H or W is not a multiple of `size`.
    """
    batch, height, width, channels = images.shape
    if size < 1 or height % size or width % size:
        raise ValueError(f"patches of {size} do not fill images of {height}x{width}: pad them")
    blocks = images.reshape(batch, height // size, size, width // size, size, channels)
    # Rows and columns of a patch become neighbours, then one axis with its channels.
    return blocks.swapaxes(2, 3).reshape(batch, height // size, width // size, -1)


def dense(
    dataset: Dataset,
    to_frames: Callable[[Events], Any],
    *,
    scale: float = 1.0,
    directory: str | Path | None = None,
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
        directory: Folder for the files `<name>-train.npy` and `<name>-test.npy`; existing ones are
            overwritten. The files are memory-mapped, so memory holds only the batches in use. None
            keeps the frames in memory.

    Returns:
        The data set with inputs `[N, T, H, W, C]`; `input_shape` is the shape of one array without
        its leading (time) axis.

    Raises:
        ValueError: If two recordings give arrays of different shapes, or a split is empty.
    """
    folder = None if directory is None else Path(directory)
    if folder is not None:
        # Before the first recording is read, so that a wrong path costs no time.
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder and folder / f"{dataset.name}-{split}.npy" for split in ("train", "test")]
    train = _dense_split(dataset.train, to_frames, dataset.name, paths[0])
    test = _dense_split(dataset.test, to_frames, dataset.name, paths[1])
    shape = train.inputs.shape  # type: ignore[union-attr]
    return dataclasses.replace(dataset, train=train, test=test, input_shape=shape[2:], scale=scale)


def _dense_split(
    split: Split, to_frames: Callable[[Events], Any], name: str, path: Path | None
) -> Split:
    frames = None
    for i, events in enumerate(split.inputs):
        frame = np.asarray(to_frames(events))  # type: ignore[arg-type]
        # Allocated once the first frame tells shape and dtype: a list of frames would need twice
        # the memory when it is stacked.
        if frames is None:
            frames = _allocate((len(split), *frame.shape), frame.dtype, path)
        if frame.shape != frames.shape[1:]:
            raise ValueError(
                f"{name}: recording {i} gave frames {frame.shape}, the ones before it "
                f"{frames.shape[1:]}; choose an encoder with a fixed number of timesteps"
            )
        frames[i] = frame
    if frames is None:
        raise ValueError(f"{name}: an empty split has no shape to give its frames")
    return Split(frames, split.labels, split.groups)


def _allocate(shape: tuple[int, ...], dtype: np.dtype, path: Path | None) -> np.ndarray:
    if path is None:
        return np.empty(shape, dtype)
    # An ordinary .npy file, which np.load can open again.
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def take(examples: Any, indices: np.ndarray) -> Any:
    """Selects the examples at `indices` `[n]`, in that order; lazy sequences stay lazy."""
    if isinstance(examples, np.ndarray):
        return examples[indices]
    # Lists of events have no `take`; lazy sequences define theirs.
    if hasattr(examples, "take"):
        return examples.take(indices)
    return tuple(examples[int(i)] for i in indices)
