"""Batches of a split: the batch of step `n` is a pure function of the seed and `n`.

    epoch, index = divmod(step, steps_per_epoch)
    batch(step)  = split[order(seed, epoch)[index * B : (index + 1) * B]]

So resuming needs no iterator state, only the number of steps done. The order is made of raw bits
of a counter-based generator keyed by (seed, epoch), sorted; it is the same on every machine and
under every version of NumPy (`Generator.permutation` promises no such thing).

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

from snnjax.data.dataset import Split
from snnjax.data.transformed import Transformed


class Batch(NamedTuple):
    """A batch of fixed shape.

    Attributes:
        inputs: `[B, ...]`, dtype as stored in the split.
        labels: `[B]` int32, or targets as the split holds them, `[B, ...]`.
        weights: `[B]` float32: 1 for an example, 0 for padding. A mean over the examples is
            `sum(weights * value) / sum(weights)`.
        lengths: `[B]` int32, valid timesteps of padded sequences; None if all are valid, as in
            every batch of a `Loader`.
    """

    inputs: Any
    labels: Any
    weights: Any
    lengths: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Loader:
    """An endless, resumable sequence of batches over a split in memory.

    Attributes:
        split: What to draw from; its inputs must be one array, or `Transformed` on request.
        batch_size: Examples in a batch, `B`.
        seed: Which orders to draw; non-negative.
        shuffle: Whether each epoch has an order of its own, else the split's. Only then, in
            training that is, `Transformed` inputs draw.
        drop_last: Whether the examples left over by whole batches are left out of the epoch (other
            ones each epoch, where shuffled). Otherwise the last batch is filled by repeating
            examples at weight 0, so that every batch still has one shape.

    Raises:
        TypeError: Where the inputs are event recordings of different lengths.
        ValueError: Where no batch can be drawn.

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

    def __post_init__(self):
        if not isinstance(self.split.inputs, np.ndarray | Transformed):
            raise TypeError(
                "event recordings differ in length and cannot be batched; make frames of one "
                "shape first: data.dense(dataset, lambda events: encoding.frames_by_time(events, "
                "timesteps=16, height=34, width=34)), or batch by batch with data.transformed(...)"
            )
        if self.batch_size < 1 or self.seed < 0:
            raise ValueError(
                f"batch_size must be at least 1 and seed at least 0, not {self.batch_size} and "
                f"{self.seed}"
            )
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(self.split)} examples do not fill one batch of {self.batch_size}: choose a "
                "smaller batch_size, or drop_last=False"
            )

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in one pass over the split."""
        whole, rest = divmod(len(self.split), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def position(self, step: int) -> tuple[int, int]:
        """The `(epoch, batch index)` of a step, both counted from zero."""
        return divmod(step, self.steps_per_epoch)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Which examples make up the batch of a step.

        Several processes that feed one global batch each gather their own slice of these.

        Args:
            step: Steps done before this one; non-negative.

        Returns:
            `[B]` places in the split, and their `[B]` float32 weights.
        """
        if step < 0:
            raise ValueError(f"steps are counted from zero, not {step}")
        epoch, index = self.position(step)
        order = _order(self.seed, epoch, len(self.split)) if self.shuffle else None
        places = np.arange(index * self.batch_size, (index + 1) * self.batch_size)
        weights = (places < len(self.split)).astype(np.float32)
        places %= len(self.split)  # padding repeats real examples: no value a network never sees
        return (places if order is None else order[places]), weights

    def batch(self, step: int, *, rows: np.ndarray | None = None) -> Batch:
        """The batch of a step, whatever was drawn before it.

        Args:
            step: Steps done before this one; non-negative.
            rows: Which of its examples; None is all. Nothing else is read.
        """
        indices, weights = self.indices(step)
        if rows is not None:
            indices, weights = indices[rows], weights[rows]
        inputs = self.split.inputs
        if isinstance(inputs, Transformed):
            draw = (self.seed, self.position(step)[0]) if self.shuffle else None
            chosen = inputs.batch(indices, draw=draw)
        else:
            chosen = inputs[indices]  # type: ignore[call-overload]
        return Batch(chosen, self.split.labels[indices], weights)

    def batches(self, *, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yields the batches of steps `start`, `start + 1`, ... up to `stop`, or without end."""
        step = start
        while stop is None or step < stop:
            yield self.batch(step)
            step += 1


def evaluation_loader(split: Split, *, batch_size: int) -> Loader:
    """A loader of every example exactly once, in order, in batches of one shape.

    The last batch is filled up at weight 0: sum `weights * value` and divide by the sum of the
    weights, and a jitted evaluation compiles once.

    Args:
        split: What to evaluate; its inputs must be one array, or `Transformed` on request.
        batch_size: Examples in a batch.

    Returns:
        The loader; its `steps_per_epoch` is `ceil(N / batch_size)`.
    """
    return Loader(split, batch_size=batch_size, shuffle=False, drop_last=False)


def evaluation_batches(split: Split, *, batch_size: int) -> Iterator[Batch]:
    """Yields the batches of `evaluation_loader`; none of an empty split."""
    if len(split) == 0:
        return iter(())
    loader = evaluation_loader(split, batch_size=batch_size)
    return loader.batches(stop=loader.steps_per_epoch)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    order = np.argsort(bits, kind="stable")
    order.setflags(write=False)  # it is shared by all who ask for this epoch
    return order
