"""Batches of a split: the batch of step `n` is a pure function of the seed and `n`.

    epoch, index = divmod(step, steps_per_epoch)
    batch(step)  = split[order(seed, epoch)[index * B : (index + 1) * B]]

Resuming needs no iterator state, only the number of completed steps. An order is the argsort of raw
bits of a counter-based generator keyed by (seed, epoch), the same on every machine and under every
version of NumPy.

Sequences of different lengths are padded to one length T, or cut to `buckets`, a few fixed lengths
L_1 < L_2 < ... < T, so that a few programs serve all batches:

    timesteps(batch) = the smallest bucket that holds its longest example

In training a batch takes its examples from one bucket, in the order of the epoch. Examples that
fill no batch join the next larger bucket; so an epoch has as many batches as without buckets, and
each bucket equally many in all epochs. The batches then follow in an order of their own, keyed by
(seed, epoch), too.

Reference:
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel Random Numbers: As Easy as 1, 2,
    3", SC 2011 (Philox).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from snnjax.data.dataset import Split, per_timestep, require, whole_number
from snnjax.data.lazy import LazyInputs


class Batch(NamedTuple):
    """A batch of fixed shape.

    Attributes:
        inputs: `[B, ...]`, dtype as stored in the split.
        labels: `[B]` int32, or targets as the split holds them, `[B, ...]`.
        weights: `[B]` float32: 1 for an example, 0 for padding. A mean over the examples is
            `sum(weights * value) / sum(weights)`.
        lengths: `[B]` int32, valid timesteps of padded sequences `[B, T, ...]`; None if all are
            valid.
    """

    inputs: Any
    labels: Any
    weights: Any
    lengths: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Loader:
    """An endless, resumable sequence of batches over a split in memory.

    `Loader(split, batch_size=B, shuffle=False, drop_last=False)` visits every example once per
    epoch, in order and in batches of one shape: a jitted evaluation compiles once.

    Attributes:
        split: Examples to draw from; its inputs must be one array or `LazyInputs`.
        batch_size: Examples per batch, `B`.
        seed: Seed of the shuffled orders, non-negative.
        shuffle: Draw a new order in each epoch; False keeps the order of the split. Random
            transforms of `LazyInputs` are active only if True, that is in training.
        drop_last: Drop the examples that do not fill a batch at the end of an epoch (others in each
            epoch if shuffled). False fills the last batch with repeated examples of weight 0.
        buckets: Ascending lengths to which batches of a split with `lengths` are cut, see
            `bucket_lengths`; () leaves all T timesteps.
        by_length: Without `shuffle`: order from short to long, in which buckets cut most. The order
            does not depend on `buckets`.

    Raises:
        TypeError: If the inputs are event recordings of different lengths, or an option is no whole
            number.
        ValueError: If the split does not fill one batch, an option is out of range, a sequence
            fits no bucket, or a split without lengths has buckets.

    Example:
        >>> loader = Loader(dataset.train, batch_size=128, seed=0)   # doctest: +SKIP
        >>> for batch in loader.batches(start=step):                  # doctest: +SKIP
        ...     state = train_step(state, batch)
    """

    split: Split
    _: dataclasses.KW_ONLY
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    buckets: tuple[int, ...] = ()
    by_length: bool = False

    def __post_init__(self):
        require("split", self.split, Split)
        require("shuffle", self.shuffle, bool)  # the text "False" would be true
        require("drop_last", self.drop_last, bool)
        if not isinstance(self.split.inputs, np.ndarray | LazyInputs):
            raise TypeError(
                "event recordings differ in length and cannot be batched; make frames of one "
                "shape first: data.dense(dataset, lambda events: encoding.events.frames_by_time("
                "events, timesteps=16, height=34, width=34)), or batch by batch with "
                "data.map_inputs(...)"
            )
        whole_number("batch_size", self.batch_size, least=1)
        if whole_number("seed", self.seed, least=0) >= 1 << 64:
            raise ValueError(f"seed is one word of the generator, below 2^64, not {self.seed}")
        # Reported here: an empty epoch would fail in `position`, as a division by zero.
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(self.split)} examples do not fill one batch of {self.batch_size}: choose a "
                "smaller batch_size, or drop_last=False"
            )
        self._check_lengths()

    def _check_lengths(self) -> None:
        require("by_length", self.by_length, bool)
        buckets = tuple(whole_number("buckets", length, least=1) for length in self.buckets)
        object.__setattr__(self, "buckets", buckets)
        if (buckets or self.by_length) and self.split.lengths is None:
            raise ValueError(
                "buckets and by_length are for sequences of different lengths, and this split has "
                "none: data.from_arrays(..., lengths=(train, test)), or leave them out"
            )
        if self.by_length and self.shuffle:
            raise ValueError("by_length orders the examples, and shuffle, too: set shuffle=False")
        if list(buckets) != sorted(set(buckets)):
            raise ValueError(f"buckets are ascending lengths, not {buckets}: sort them")
        longest = 0 if self.split.lengths is None else int(self.split.lengths.max(initial=0))
        if buckets and longest > buckets[-1]:
            raise ValueError(
                f"a sequence of {longest} timesteps fits none of the buckets {buckets}: end them "
                f"with {longest}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one pass over the split."""
        whole, rest = divmod(len(self.split), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def position(self, step: int) -> tuple[int, int]:
        """Epoch and batch index of a step, both counted from zero."""
        return divmod(step, self.steps_per_epoch)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices and weights of the examples in the batch of a step.

        Processes that feed one global batch each gather their own rows of these.

        Args:
            step: Completed steps before this one, non-negative.

        Returns:
            `[B]` indices into the split, and their `[B]` float32 weights.
        """
        if whole_number("step", step) < 0:
            raise ValueError(f"steps are counted from zero, not {step}")
        epoch, index = self.position(step)
        order = self._order(epoch)
        if self.shuffle and self.buckets:
            order = _bucketed(order, self._bucket(self.split.lengths), self)
            index = _order(self.seed, epoch, self.steps_per_epoch, stream=1)[index]
        positions = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        weights = (positions < len(self.split)).astype(np.float32)
        # Padding repeats real examples: zeros could give batch statistics no data set ever has.
        positions %= len(self.split)
        return (positions if order is None else order[positions]), weights

    def _order(self, epoch: int) -> np.ndarray | None:
        """Order of the examples in an epoch; None is that of the split."""
        if self.shuffle:
            return _order(self.seed, epoch, len(self.split))
        return np.argsort(np.asarray(self.split.lengths), kind="stable") if self.by_length else None

    def _bucket(self, lengths: Any) -> np.ndarray:
        """Number of the smallest bucket that holds each length."""
        return np.searchsorted(self.buckets, lengths)

    def timesteps(self, step: int) -> int | None:
        """Timesteps to which the batch of a step is cut; None without buckets."""
        if not self.buckets:
            return None
        return self._timesteps(self.indices(step)[0])

    def _timesteps(self, indices: np.ndarray) -> int:
        longest = self.split.lengths[indices].max()  # type: ignore[index]
        return self.buckets[int(self._bucket(longest))]

    def shapes(self) -> dict[int | None, int]:
        """First step of each number of timesteps that batches have, longest first.

        Every epoch has batches of the same shapes: one program for each serves a whole run.
        """
        if not self.buckets:
            return {None: 0}
        first: dict[int | None, int] = {}
        for step in range(self.steps_per_epoch):
            first.setdefault(self.timesteps(step), step)
        return dict(sorted(first.items(), reverse=True))  # type: ignore[type-var]

    def batch(self, step: int, *, rows: np.ndarray | None = None) -> Batch:
        """Gathers the batch of a step, independent of the batches drawn before.

        Args:
            step: Completed steps before this one, non-negative.
            rows: Indices of the rows of the batch to read, for one process of several; None reads
                all of them.
        """
        indices, weights = self.indices(step)
        # Of the whole batch, since the processes of a multi-host run must agree.
        timesteps = self._timesteps(indices) if self.buckets else None
        # Before gathering: a process of a multi-host run reads only its own rows.
        if rows is not None:
            indices, weights = indices[rows], weights[rows]
        inputs = self.split.inputs
        if isinstance(inputs, LazyInputs):
            draw = (self.seed, self.position(step)[0]) if self.shuffle else None
            examples = inputs.batch(indices, draw=draw)
        else:
            examples = inputs[indices]  # type: ignore[call-overload]
        labels, lengths = self.split.labels[indices], self.split.lengths
        if timesteps is not None:
            examples = examples[:, :timesteps]
            labels = labels[:, :timesteps] if per_timestep(labels) else labels
        return Batch(examples, labels, weights, None if lengths is None else lengths[indices])

    def batches(self, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yields the batches of steps `start`, `start + 1`, ... up to `stop`, or endlessly."""
        step = start
        while stop is None or step < stop:
            yield self.batch(step)
            step += 1


def evaluation_batches(split: Split, *, batch_size: int) -> Iterator[Batch]:
    """Yields every example once, in order, in batches of one shape.

    The last batch is padded at weight 0: sum `weights * value` and divide by the sum of `weights`.

    Args:
        split: Examples to evaluate; its inputs must be one array or `LazyInputs`.
        batch_size: Examples per batch.

    Yields:
        `ceil(N / batch_size)` batches; none for an empty split.
    """
    if len(split) == 0:  # a Loader refuses splits without a batch
        return iter(())
    loader = Loader(split, batch_size=batch_size, shuffle=False, drop_last=False)
    return loader.batches(stop=loader.steps_per_epoch)


def bucket_lengths(lengths: Any, count: int, *, longest: int | None = None) -> tuple[int, ...]:
    """Lengths of buckets that hold equally many sequences each.

        L_k = the smallest length that at least k / count of the sequences do not exceed

    Args:
        lengths: `[N]` integers.
        count: Number of buckets; equal ones are merged.
        longest: Last bucket; None is the longest of the sequences.

    Returns:
        At most `count` ascending lengths.

    Raises:
        ValueError: If `count` is below 1, there are no lengths, or one exceeds `longest`.
    """
    whole_number("count", count, least=1)
    lengths = np.asarray(lengths)
    if not lengths.size:
        raise ValueError("bucket_lengths needs at least one length")
    longest = int(lengths.max()) if longest is None else whole_number("longest", longest, least=1)
    if lengths.max() > longest:
        raise ValueError(f"a length is {lengths.max()}, above the longest bucket of {longest}")
    ranks = np.ceil(np.arange(1, count) * len(lengths) / count).astype(int) - 1
    return tuple(sorted({*map(int, np.sort(lengths)[ranks]), longest}))


def _bucketed(order: Any, bucket: np.ndarray, loader: Loader) -> np.ndarray:
    """The order of an epoch by buckets; a rest that fills no batch goes on to the next bucket."""
    parts, rest = [], order[:0]
    for number in range(len(loader.buckets)):
        own = np.concatenate([rest, order[bucket[order] == number]])
        whole = len(own) // loader.batch_size * loader.batch_size
        parts.append(own[:whole])
        rest = own[whole:]
    return np.concatenate([*parts, rest])


# Computed once per epoch, not per batch; entries serve training and evaluation together.
@functools.lru_cache(maxsize=6)
def _order(seed: int, epoch: int, count: int, *, stream: int = 0) -> np.ndarray:
    # Raw Philox bits: `Generator.permutation` may change its stream between versions of NumPy. A
    # stable sort decides ties the same way everywhere.
    key = np.array([seed, epoch], np.uint64)
    bits = np.random.Philox(key=key, counter=[0, 0, stream, 0]).random_raw(count)
    order = np.argsort(bits, kind="stable")
    order.setflags(write=False)  # the cached array is shared by all callers
    return order
