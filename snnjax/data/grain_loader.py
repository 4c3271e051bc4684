"""Batches through Grain, for data that do not fit in memory: the extra `snnjax[data]`.

`Loader` is the default, about two orders of magnitude faster for arrays in memory. Grain is for
data sets on disk, for event recordings encoded example by example, and for several processes that
each read their own shard.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from snnjax.data.dataset import Split, as_labels, whole_number
from snnjax.data.loader import Batch


def grain_loader(
    source: Any,
    *,
    batch_size: int,
    seed: int = 0,
    transform: Callable[[Any], tuple[Any, ...]] | None = None,
    shard: tuple[int, int] = (0, 1),
    threads: int = 4,
) -> Any:
    """Makes an endless, shuffled, resumable Grain data set of batches.

    Args:
        source: Any object with `len(source)` and `source[i]`: a `Split`, a split opened by
            `tfds.open_split`, a list.
        batch_size: Examples per batch in this process.
        seed: Seed of the shuffled orders.
        transform: `example -> (input, label)`, or `(input, label, length)` for a sequence padded
            behind `length` valid timesteps; required unless examples are such tuples already. It
            must be a pure function for batches to be reproducible. Examples of a `Split` with
            `lengths` keep theirs if it returns a pair.
        shard: `(index, count)` of this process, `(jax.process_index(), jax.process_count())`: it
            reads every `count`-th example, so that the shards are disjoint.
        threads: Threads that read ahead; 0 reads in the calling thread.

    Returns:
        A `grain.IterDataset` of `Batch`. `get_state()` and `set_state(state)` of its iterators
        resume it. Examples that do not fill a batch are dropped at the end of an epoch.

    Raises:
        ImportError: If Grain is not installed.
        ValueError: If the shard of this process does not fill one batch; on reading, if a length
            is outside [1, T].
    """
    try:
        # Grain is an extra: only this function needs it.
        import grain
    except ImportError as error:
        raise ImportError(
            "grain_loader needs Grain: pip install 'snnjax[data]' (sets that fit in memory need "
            "only snnjax.data.Loader)"
        ) from error
    whole_number("batch_size", batch_size, least=1)
    whole_number("threads", threads, least=0)
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (index, count) with 0 <= index < count, not {shard}")
    # Dropping the remainder would leave no batch, and an endless loop over nothing.
    if len(range(index, len(source), count)) < batch_size:
        raise ValueError(
            f"{len(source)} examples over {count} processes do not fill one batch of {batch_size}: "
            "choose a smaller batch_size"
        )
    read = functools.partial(_example, transform=transform)
    if isinstance(source, Split) and source.lengths is not None:
        source, read = _Padded(source), functools.partial(_padded_example, transform=transform)
    # Sharded before the shuffle: shards stay disjoint in every epoch, whatever the seed.
    examples = grain.MapDataset.source(source)[index::count].seed(seed).shuffle().map(read)
    batches = examples.batch(batch_size, drop_remainder=True).map(_batch).repeat()
    # The buffer counts batches: Grain's default of 500, meant for single examples, fills memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * max(threads, 1))
    return batches.to_iter_dataset(options)


@dataclasses.dataclass(frozen=True)
class _Padded:
    """Examples of a split with their lengths, `((input, label), length)`."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.split[index], self.split.lengths[index]  # type: ignore[index]


def _padded_example(
    example: tuple[Any, Any], *, transform: Callable[[Any], Any] | None
) -> tuple[Any, ...]:
    found = example[0] if transform is None else transform(example[0])
    # A transform of other padding returns the length that it made.
    kept = isinstance(found, tuple) and len(found) == 2
    return _example((*found, example[1]) if kept else found, transform=None)


def _example(example: Any, *, transform: Callable[[Any], Any] | None) -> tuple[Any, ...]:
    """Input, label and, of a padded sequence, length."""
    example = example if transform is None else transform(example)
    if not isinstance(example, tuple) or len(example) not in (2, 3):
        raise TypeError(
            "an example must be a pair (input, label), or (input, label, length), not "
            f"{type(example).__name__}: give transform=lambda e: (e['image'], e['label']) or the "
            "like"
        )
    inputs = np.asarray(example[0])
    # Checked before the cast: fractions are targets, not classes, and stay what they are.
    labels = as_labels(np.asarray(example[1])[None])[0]
    if len(example) == 2:
        return inputs, labels
    length, longest = whole_number("length", example[2], least=1), len(inputs)
    if length > longest:
        raise ValueError(f"length is {length}, and the input has {longest} timesteps: pad it")
    return inputs, labels, np.int32(length)


def _batch(parts: tuple[np.ndarray, ...]) -> Batch:
    inputs, labels, *lengths = parts
    return Batch(inputs, labels, np.ones(len(labels), np.float32), *lengths)
