"""Batches through Grain, for data that do not fit in memory: the extra `snnjax[data]`.

`Loader` is the default, about two orders of magnitude faster for arrays in memory. Grain is for
data sets on disk, for event recordings encoded example by example, and for several processes that
each read their own shard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from snnjax.data.dataset import as_labels, whole_number
from snnjax.data.loader import Batch


def grain_loader(
    source: Any,
    *,
    batch_size: int,
    seed: int = 0,
    transform: Callable[[Any], tuple[Any, Any]] | None = None,
    shard: tuple[int, int] = (0, 1),
    threads: int = 4,
) -> Any:
    """Makes an endless, shuffled, resumable Grain data set of batches.

    Args:
        source: Any object with `len(source)` and `source[i]`: a `Split`, a split opened by
            `tfds.open_split`, a list.
        batch_size: Examples per batch in this process.
        seed: Seed of the shuffled orders.
        transform: `example -> (input, label)`, applied to each example; required unless examples
            are such pairs already. It must be a pure function for batches to be reproducible.
        shard: `(index, count)` of this process, `(jax.process_index(), jax.process_count())`: it
            reads every `count`-th example, so that the shards are disjoint.
        threads: Threads that read ahead; 0 reads in the calling thread.

    Returns:
        A `grain.IterDataset` of `Batch`. `get_state()` and `set_state(state)` of its iterators
        resume it. Examples that do not fill a batch are dropped at the end of an epoch.

    Raises:
        ImportError: If Grain is not installed.
        ValueError: If the shard of this process does not fill one batch.
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
    # Sharded before the shuffle: shards stay disjoint in every epoch, whatever the seed.
    examples = grain.MapDataset.source(source)[index::count].seed(seed).shuffle()
    if transform is not None:
        examples = examples.map(transform)
    batches = examples.map(_pair).batch(batch_size, drop_remainder=True).map(_batch).repeat()
    # The buffer counts batches: Grain's default of 500, meant for single examples, fills memory.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * max(threads, 1))
    return batches.to_iter_dataset(options)


def _pair(example: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(example, tuple) or len(example) != 2:
        raise TypeError(
            f"an example must be a pair (input, label), not {type(example).__name__}: give "
            "transform=lambda e: (e['image'], e['label']) or the like"
        )
    # Checked before the cast: fractions are targets, not classes, and stay what they are.
    return np.asarray(example[0]), as_labels(np.asarray(example[1])[None])[0]


def _batch(pair: tuple[np.ndarray, np.ndarray]) -> Batch:
    inputs, labels = pair
    return Batch(inputs, labels, np.ones(len(labels), np.float32))
