"""What statistics are besides a norm's running mean: peaks of streams, and joins over timesteps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax.typing import Array, PyTree

__all__ = ["StreamPeak", "is_peak", "mean_over_steps", "stream_use"]


class StreamPeak(NamedTuple):
    """Largest magnitude met in a reversible stream, and the bound below which it is exact."""

    peak: Array
    bound: Array


def mean_over_steps(statistics: PyTree) -> PyTree:
    """Joins statistics of single timesteps, `[T, ...]` leaves: means, and the largest of peaks.

    The mean is exact where all its rows are equal, as those of a frozen norm are.
    """

    def join(node: Any) -> Any:
        if isinstance(node, StreamPeak):
            return StreamPeak(node.peak.max(0), node.bound[0])
        return node[0] + (node - node[0]).mean(0)

    return jax.tree.map(join, statistics, is_leaf=is_peak)


def stream_use(statistics: PyTree) -> Array:
    """The largest share of its bound that any reversible stream used; 0 where there is none.

    From 1 on the stream is no longer exact, and a reversed gradient only nearly right.
    """
    nodes = jax.tree.leaves(statistics, is_leaf=is_peak)
    shares = [node.peak / node.bound for node in nodes if is_peak(node)]
    return jnp.max(jnp.stack(shares)) if shares else jnp.zeros(())


def is_peak(node: Any) -> bool:
    """Where a walk through statistics stops."""
    return isinstance(node, StreamPeak)
