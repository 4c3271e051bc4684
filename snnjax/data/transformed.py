"""Inputs that are made when a batch asks for them: frames of a random slice, an image from a file.

    input i = transform(source[i], rng)

In training `rng` is seeded by (seed, epoch, i), so that the batch of a step stays a pure function
of the seed and the step, and a run that is resumed draws what it would have drawn. In evaluation it
is None. Against `dense`, this holds no array of the data set and shows another view of an example
in every epoch; each batch is made on the host, on every pass.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from snnjax import encoding
from snnjax.data.dataset import Dataset, Events, Inputs, Split
from snnjax.data.recordings import Recordings, taken

__all__ = ["Transformed", "clips", "transformed"]


@dataclasses.dataclass(frozen=True, eq=False)
class Transformed(Sequence[np.ndarray]):
    """A sequence whose examples are made on request, all of one shape; a `Loader` batches it.

    Attributes:
        source: `N` of whatever `transform` understands: recordings, paths, arrays.
        transform: `(example, rng) -> array`; `rng` is None in evaluation. Nothing else may be
            random in it.
        threads: That make the examples of a batch side by side; 0 makes them one after another.
            It pays where `transform` leaves Python, as decoding a file does.
    """

    source: Inputs | Sequence[Any]
    transform: Callable[[Any, np.random.Generator | None], Any]
    _: dataclasses.KW_ONLY
    threads: int = 0

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The example as evaluation sees it."""
        return np.asarray(self.transform(self.source[index], None))

    def take(self, indices: np.ndarray) -> Transformed:
        """The examples at `indices` `[n]`, in that order; none is made."""
        return dataclasses.replace(self, source=taken(self.source, indices))

    def batch(self, indices: np.ndarray, *, draw: tuple[int, int] | None = None) -> np.ndarray:
        """Makes some examples, `[n, ...]`.

        Args:
            indices: `[n]`, which.
            draw: `(seed, epoch)` of the training, which with its index decide what an example
                draws; None is evaluation.

        Raises:
            ValueError: Where two examples differ in shape.
        """
        make, places = functools.partial(self._made, draw=draw), list(map(int, indices))
        if self.threads:
            with futures.ThreadPoolExecutor(self.threads) as pool:
                made = list(pool.map(make, places))
        else:
            made = list(map(make, places))
        for index, example in zip(places, made, strict=True):
            if example.shape != made[0].shape:
                raise ValueError(
                    f"example {index} became {list(example.shape)} and another one of its batch "
                    f"{list(made[0].shape)}: transform must give every example one shape"
                )
        return np.stack(made)

    def _made(self, index: int, *, draw: tuple[int, int] | None) -> np.ndarray:
        rng = None if draw is None else _rng(*draw, index)
        return np.asarray(self.transform(self.source[index], rng))


def transformed(
    dataset: Dataset,
    transform: Callable[[Any, np.random.Generator | None], Any],
    *,
    scale: float = 1.0,
    threads: int = 0,
) -> Dataset:
    """The data set with inputs that `transform` makes anew for every batch; see this file's head.

    Args:
        dataset: Of recordings, or of anything that `transform` understands.
        transform: `(example, rng) -> array` of one shape, its first axis time. `rng` is None for
            what is evaluated: test examples, that is.
        scale: What `rescale` shall multiply the inputs by.
        threads: As of `Transformed`.

    Returns:
        The same data set; `input_shape` is that of its first training example without time.

    Raises:
        ValueError: Where there is no training example.

    Example:
        >>> def to_frames(events, rng):                                   # doctest: +SKIP
        ...     if rng is not None:
        ...         events = encoding.random_slice(rng, events, duration=900_000)
        ...         events = encoding.event_drop(rng, events, height=128, width=128)
        ...     return encoding.frames_by_time(
        ...         events, timesteps=60, height=128, width=128, start=0, duration=900_000
        ...     )
        >>> gestures = data.load("dvs128_gesture")                        # doctest: +SKIP
        >>> test = data.clips(gestures.test, count=10, duration=900_000)  # doctest: +SKIP
        >>> gestures = dataclasses.replace(gestures, test=test)           # doctest: +SKIP
        >>> gestures = data.transformed(gestures, to_frames)              # doctest: +SKIP
    """
    if not len(dataset.train):
        raise ValueError(f"{dataset.name}: an empty split has no shape to give its inputs")
    train, test = (
        dataclasses.replace(split, inputs=Transformed(split.inputs, transform, threads=threads))
        for split in (dataset.train, dataset.test)
    )
    shape = train.inputs[0].shape[1:]
    return dataclasses.replace(dataset, train=train, test=test, input_shape=shape, scale=scale)


def clips(split: Split, *, count: int, duration: int) -> Split:
    """Each recording of a split as `count` clips, one after the other: see `encoding.clips`.

    A recording is then judged by most of its clips: `metrics.clip_accuracy`, or an experiment's
    field `clips`. Clips are cut when they are asked for, each from its recording.

    Args:
        split: Of recordings.
        count: Clips of a recording.
        duration: Of a clip, in microseconds.

    Returns:
        `N * count` examples; clip k of recording i is number `i * count + k`, and its time counts
        from its own start.
    """
    sources = [(number, clip) for number in range(len(split)) for clip in range(count)]
    read = functools.partial(_clip, split.inputs, count=count, duration=duration)
    groups = None if split.groups is None else np.repeat(split.groups, count)
    return Split(Recordings(sources, read), np.repeat(split.labels, count), groups)


def _clip(inputs: Any, source: tuple[int, int], *, count: int, duration: int) -> Events:
    number, clip = source
    return encoding.clips(inputs[number], count=count, duration=duration)[clip]


def _rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    # The order of an epoch uses the same key and counters from 0: the last word keeps them apart.
    counter = np.array([0, 0, 0, index + 1], np.uint64)
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=counter))
