"""A data set: two splits of examples with labels, and what a network must know to read them.

Inputs are stored as they were published and stay on the host: images as `uint8`, windows of a
sensor as `float32`, event recordings as sequences of integer arrays `[E, 4]`, one row `t, x, y, p`
per event, which is what `snnjax.encoding` cuts into frames: a tuple where the set fits in memory,
else `Recordings`, which reads each when asked for. A float in the unit interval is made
from a stored image by `rescale(inputs, dataset.scale)`, inside the jitted step, where it costs no
memory: a set of 8-bit images is four times smaller than its float32 copy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.data.errors import CorruptDataError
from snnjax.data.recordings import taken

Events: TypeAlias = np.ndarray
"""One recording of an event camera in order of time: `[E, 4]` int32, its columns the time in
microseconds, the column and row of the pixel, and the polarity (1 brighter, 0 darker)."""

Inputs: TypeAlias = np.ndarray | Sequence[Events]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples and their labels, in a fixed order.

    Attributes:
        inputs: `[N, ...]` array, or a sequence of `N` recordings (`Events`), or one that makes its
            examples on request (`Transformed`).
        labels: `[N]` int32, in `0 .. K-1`; or targets: `[N, T]` int32, a class per timestep, or
            `[N, D]` and `[N, T, D]` float32, real numbers per example and per timestep.
        groups: `[N]` int32 or None: who or what each example comes from (the person who wore the
            sensor), where examples of one group must not fall on both sides of a split.

    Raises:
        ValueError: Where inputs, labels and groups differ in number.
    """

    inputs: Inputs
    labels: np.ndarray
    groups: np.ndarray | None = None

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
        """One example as `(input, label)`: the contract of a random-access source."""
        return self.inputs[index], self.labels[index]

    def take(self, indices: np.ndarray) -> Split:
        """The examples at `indices` `[n]`, in that order."""
        groups = None if self.groups is None else self.groups[indices]
        return Split(taken(self.inputs, indices), self.labels[indices], groups)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set with its published (or fixed) division into training and test examples.

    Attributes:
        name: The name it was loaded under.
        train: The training split.
        test: The test split.
        classes: The number of classes `K`; 0 if targets are real numbers.
        class_names: The `K` names, in the order of the labels.
        input_shape: The shape of one input without time and batch: `(H, W, C)` of an image or an
            event camera (`C` = 2 polarities), `(T, C)` of a window of a series.
        scale: What `rescale` multiplies inputs by: 1/255 for 8-bit images, 1/16 for the 8x8
            digits, 1 for what is a float already.
        note: Where it comes from, whom to cite, and what the licence forbids.
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
                if not np.isfinite(labels).all():
                    raise CorruptDataError(f"{self.name}: some targets are not finite")
            elif len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
                raise CorruptDataError(
                    f"{self.name}: labels run from {labels.min()} to {labels.max()}, "
                    f"outside 0..{self.classes - 1}; count classes from zero"
                )


def rescale(inputs: jax.typing.ArrayLike, scale: float) -> jax.Array:
    """Turns stored inputs into float32 in the unit interval, inside the jitted step.

        rescale(x) = float32(x) * scale

    Args:
        inputs: `[...]`, of any dtype, as stored in a `Split`.
        scale: The data set's `scale`.

    Returns:
        `[...]` float32.
    """
    return jnp.asarray(inputs).astype(jnp.float32) * jnp.float32(scale)


def patches(images: jax.Array, *, size: int = 2) -> jax.Array:
    """Lays the pixels of each patch side by side as channels: a smaller image that lost nothing.

        y[b, i, j, (k, l, c)] = x[b, size i + k, size j + l, c]

    A convolution over the result is one of `size` times the kernel and stride over the image, and
    layers behind it are `size^2` times cheaper.

    Args:
        images: `[B, H, W, C]`, of any dtype.
        size: Pixels along each side of a patch.

    Returns:
        `[B, H / size, W / size, size^2 C]`, of the same dtype.

    Raises:
        ValueError: Where H or W is no multiple of `size`.
    """
    batch, height, width, channels = images.shape
    if size < 1 or height % size or width % size:
        raise ValueError(f"patches of {size} do not fill images of {height}x{width}: pad them")
    cut = images.reshape(batch, height // size, size, width // size, size, channels)
    return cut.swapaxes(2, 3).reshape(batch, height // size, width // size, -1)


def dense(
    dataset: Dataset,
    to_frames: Callable[[Events], Any],
    *,
    scale: float = 1.0,
    directory: str | Path | None = None,
) -> Dataset:
    """Replaces every event recording by an array of one shape, so that a `Loader` can batch it.

    One recording at a time is read and cut. The frames of both splits take

        (N_train + N_test) T H W C  bytes of the dtype that `to_frames` returns

    of memory or, given a `directory`, of disk. Frames that fit in neither, or shall differ from
    epoch to epoch, are made batch by batch: `transformed`.

    Args:
        dataset: A data set of event recordings.
        to_frames: `Events -> [T, H, W, C]` (or any fixed shape), for instance
            `lambda events: encoding.frames_by_time(events, timesteps=16, height=34, width=34,
            dtype=np.uint8)`. The dtype it returns is the dtype stored.
        scale: What `rescale` shall multiply the frames by.
        directory: A folder to write the frames to, `<name>-train.npy` and `<name>-test.npy`, over
            what has those names; they are mapped, so that memory holds only the batches in use.
            None keeps them in memory.

    Returns:
        The same data set with `[N, T, H, W, C]` inputs; `input_shape` becomes the shape of one
        array without its leading (time) axis.

    Raises:
        ValueError: Where two recordings give arrays of different shapes.
    """
    folder = None if directory is None else Path(directory)
    if folder is not None:
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
        if frames is None:
            frames = _room((len(split), *frame.shape), frame.dtype, path)
        if frame.shape != frames.shape[1:]:
            raise ValueError(
                f"{name}: recording {i} gave frames {frame.shape}, the ones before it "
                f"{frames.shape[1:]}; choose an encoder with a fixed number of timesteps"
            )
        frames[i] = frame
    if frames is None:
        raise ValueError(f"{name}: an empty split has no shape to give its frames")
    return Split(frames, split.labels, split.groups)


def _room(shape: tuple[int, ...], dtype: np.dtype, path: Path | None) -> np.ndarray:
    if path is None:
        return np.empty(shape, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
