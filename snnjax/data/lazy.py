"""Inputs computed on access: frames of a random time slice, an image decoded from a file.

    input i = transform(source[i], rng)

In training `rng` is seeded by (seed, epoch, i): the batch of a step stays a pure function of the
seed and the step, and a resumed run repeats the same draws. In evaluation `rng` is None. Unlike
`dense`, lazy inputs hold no array of the data set and vary an example between epochs, at the cost
of computing each batch on the host in every pass.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from snnjax import encoding
from snnjax.data._recordings import Recordings
from snnjax.data.dataset import (
    Dataset,
    Events,
    Inputs,
    Split,
    check_values,
    require,
    take,
    whole_number,
)

__all__ = ["LazyInputs", "clips", "map_inputs"]


@dataclasses.dataclass(frozen=True, eq=False)
class LazyInputs(Sequence[np.ndarray]):
    """A sequence of examples computed on access, all of one shape, which a `Loader` can batch.

    Attributes:
        source: `N` arguments of `transform`: recordings, paths, arrays.
        transform: `(example, rng) -> array`; `rng` is None in evaluation and the only source of
            randomness.
        threads: Threads that compute the examples of a batch; 0 computes them one after another.
            Threads help if `transform` releases the interpreter lock, as image decoding does.
    """

    source: Inputs | Sequence[Any]
    transform: Callable[[Any, np.random.Generator | None], Any]
    _: dataclasses.KW_ONLY
    threads: int = 0

    def __post_init__(self):
        whole_number("threads", self.threads, least=0)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The example without augmentation, as in evaluation."""
        return np.asarray(self.transform(self.source[index], None))

    def take(self, indices: np.ndarray) -> LazyInputs:
        """Selects the examples at `indices` `[n]`, in that order, without computing them."""
        return dataclasses.replace(self, source=take(self.source, indices))

    def batch(self, indices: np.ndarray, *, draw: tuple[int, int] | None = None) -> np.ndarray:
        """Computes a batch of examples, `[n, ...]`.

        Args:
            indices: `[n]` indices of the examples.
            draw: `(seed, epoch)` of the training, which seed the randomness of each example
                together with its index; None computes the examples of evaluation.

        Raises:
            TypeError: If an example is none of numbers.
            ValueError: If two examples differ in shape or dtype, or a value is not finite.
        """
        compute, numbers = functools.partial(self._example, draw=draw), list(map(int, indices))
        if self.threads:
            # A pool per batch: a pool kept on the object could not be pickled, nor shared by forks.
            with futures.ThreadPoolExecutor(self.threads) as pool:
                examples = list(pool.map(compute, numbers))
        else:
            examples = list(map(compute, numbers))
        for index, example in zip(numbers, examples, strict=True):
            if example.shape != examples[0].shape:
                raise ValueError(
                    f"example {index} has shape {list(example.shape)} and another one of its batch "
                    f"{list(examples[0].shape)}: transform must give every example one shape"
                )
            # `np.stack` would widen all to one dtype, which differs between batches.
            if example.dtype != examples[0].dtype:
                raise ValueError(
                    f"example {index} is {example.dtype} and another one of its batch "
                    f"{examples[0].dtype}: transform must give every example one dtype"
                )
        return np.stack(examples)

    def _example(self, index: int, *, draw: tuple[int, int] | None) -> np.ndarray:
        rng = None if draw is None else _rng(*draw, index)
        example = np.asarray(self.transform(self.source[index], rng))
        # Here, so that the threads share the work.
        check_values(f"inputs[{index}]", example)
        return example


def map_inputs(
    dataset: Dataset,
    transform: Callable[[Any, np.random.Generator | None], Any],
    *,
    scale: float = 1.0,
    threads: int = 0,
) -> Dataset:
    """Applies a transform to the inputs of a data set, lazily and with new draws in every epoch.

    Args:
        dataset: Data set of recordings or other arguments of `transform`.
        transform: `(example, rng) -> array` of one shape with time as its first axis. `rng` is None
            in evaluation, that is for test examples.
        scale: Factor of `rescale` for the inputs.
        threads: Threads that compute the examples of a batch, see `LazyInputs`.

    Returns:
        The data set with lazy inputs; `input_shape` is the shape of its first training example
        without time.

    Raises:
        ValueError: If the training split is empty, or an example has more valid timesteps (its
            `lengths`, which are kept) than the frames.

    Example:
        >>> def to_frames(events, rng):                                   # doctest: +SKIP
        ...     if rng is not None:
        ...         events = encoding.slices.random_slice(rng, events, duration=900_000)
        ...         events = encoding.slices.event_drop(rng, events, height=128, width=128)
        ...     return encoding.events.frames_by_time(
        ...         events, timesteps=60, height=128, width=128, start=0, duration=900_000
        ...     )
        >>> gestures = data.load("dvs128_gesture")                        # doctest: +SKIP
        >>> test = data.clips(gestures.test, count=10, duration=900_000)  # doctest: +SKIP
        >>> gestures = dataclasses.replace(gestures, test=test)           # doctest: +SKIP
        >>> gestures = data.map_inputs(gestures, to_frames)               # doctest: +SKIP
    """
    require("dataset", dataset, Dataset)
    if not len(dataset.train):
        raise ValueError(f"{dataset.name}: an empty split has no shape to give its inputs")
    train, test = (
        dataclasses.replace(split, inputs=LazyInputs(split.inputs, transform, threads=threads))
        for split in (dataset.train, dataset.test)
    )
    # One example is computed to learn the shape; all others must have it.
    timesteps, *rest = train.inputs[0].shape
    shape = tuple(rest)
    for name, split in (("training", train), ("test", test)):
        if split.lengths is not None and (longest := split.lengths.max(initial=1)) > timesteps:
            raise ValueError(
                f"{dataset.name}: transform gives {timesteps} timesteps, and a {name} example has "
                f"{longest} valid ones: let it pad all examples to the longest"
            )
    return dataclasses.replace(dataset, train=train, test=test, input_shape=shape, scale=scale)


def clips(split: Split, *, count: int, duration: int) -> Split:
    """Cuts each recording of a split into `count` consecutive clips, see `encoding.slices.clips`.

    A majority vote over its clips classifies a recording: `metrics.clip_accuracy`, or the field
    `clips` of an experiment. Clips are cut on access.

    Args:
        split: Split of recordings.
        count: Clips per recording.
        duration: Duration of a clip, in microseconds.

    Returns:
        `N * count` examples; clip k of recording i has index `i * count + k`, and its time counts
        from its own start.

    Raises:
        ValueError: If `count` or `duration` is below 1, or the split has lengths.
    """
    require("split", split, Split)
    count = whole_number("count", count, least=1)
    duration = whole_number("duration", duration, least=1)
    # Pairs of numbers instead of events: cutting waits until a clip is read.
    sources = [(number, clip) for number in range(len(split)) for clip in range(count)]
    read = functools.partial(_clip, split.inputs, count=count, duration=duration)
    if split.lengths is not None:
        raise ValueError("clips of recordings with lengths would have others: leave lengths out")
    groups = None if split.groups is None else np.repeat(split.groups, count)
    return Split(Recordings(sources, read), np.repeat(split.labels, count, axis=0), groups)


def _clip(inputs: Any, source: tuple[int, int], *, count: int, duration: int) -> Events:
    number, clip = source
    return encoding.slices.clips(inputs[number], count=count, duration=duration)[clip]


def _rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    # The order of an epoch uses the same key and counters from 0; the last counter word, at least
    # 1, keeps the streams of examples apart from it.
    counter = np.array([0, 0, 0, index + 1], np.uint64)
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=counter))
