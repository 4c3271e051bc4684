"""Chain of unequal functions under a strategy over depth.

    x_i = f_i(operands_i, x_{i-1}),   i = 1..n

Equal blocks can be stacked and scanned, unequal functions cannot: a chain is a Python loop, and its
strategy selects the joints x_i to keep. With A_i the bytes of x_i and R_i the residuals of f_i:

    store                 sum R_i
    recompute(every=k)    sum of every k-th A_i + max over segments (sum of R_i inside)

Joints that carry spikes can be kept at one bit each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from snnjax.memory.checkpoint import replay
from snnjax.memory.packing import encode_spikes, unpack_straight_through
from snnjax.memory.scans import Recompute, store
from snnjax.ops.trees import nan_unless
from snnjax.typing import Array, PyTree, Scan

__all__ = ["chain"]

Link = Callable[[PyTree, Array], tuple[Array, Any]]


def chain(
    links: Sequence[Link],
    operands: Sequence[PyTree],
    x: Array,
    *,
    scan: Scan | None = None,
    spikes: Sequence[bool] = (),
    alone: Sequence[bool] = (),
) -> tuple[Array, list[Any]]:
    """Runs unequal functions in sequence with the residuals of a strategy.

    Segments run under `memory.replay`, isolated from each other, or under `jax.checkpoint` if the
    strategy has `keep`. On a CPU the memory-optimised scheduler of XLA
    (`training.compiler_options`) lowers the peak further; without it `keep` saves nothing.

    Args:
        links: Pure functions `(operands, x) -> (x, by-products)`.
        operands: Operands of each function: parameters, states, keys.
        x: Input of the first function.
        scan: Strategy: `memory.store` or None keeps every residual; `memory.recompute(...)` keeps
            every `every`-th joint and replays the functions between, `inner` and `keep` included.
        spikes: Marks of functions whose input is spikes, kept at one bit each if it is a joint;
            none by default.
        alone: Marks of functions with a strategy of their own, run unchanged between joints; none
            by default.

    Returns:
        The last output, and the by-products of every function.

    Raises:
        ValueError: The scan needs equal functions.
    """
    if scan is None or scan is store:
        return _run(links, operands, x)
    if not isinstance(scan, Recompute):
        raise ValueError(
            f"layers that differ cannot be scanned, and {scan} needs a scan: use memory.store or "
            "memory.recompute(every) over them, or stack equal blocks (nn.Stacked, nn.Reversible)"
        )
    spikes, alone = (list(marks) or [False] * len(links) for marks in (spikes, alone))
    # A function alone is a segment by itself, so the root is that of the number of the others.
    count = alone.count(False)
    every = math.isqrt(max(count - 1, 0)) + 1 if scan.every == "sqrt" else scan.every
    extras: list[Any] = []
    for part in _parts(alone, every):
        segment = _Segment(tuple(links[part]), scan.inner, tuple(spikes[part]))
        if alone[part.start]:
            x, more = _run(links[part], operands[part], x)
        elif part.stop == len(links):
            # The backward pass starts with the last segment: replaying it would save nothing.
            x, more = segment(operands[part], x)
        elif scan.keep:
            x, more = _checkpoint(segment, scan.keep)(operands[part], x)
        else:
            x, more = replay(segment, spikes=spikes[part.start])(operands[part], x)
        extras += more
    return x, extras


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Functions between two joints, as one function; equal segments compare equal."""

    links: tuple[Link, ...]
    inner: Scan
    spikes: tuple[bool, ...]

    def __call__(self, operands: Sequence[PyTree], x: Array) -> tuple[Array, list[Any]]:
        return chain(self.links, operands, x, scan=self.inner, spikes=self.spikes)


def _checkpoint(segment: _Segment, keep: tuple[str, ...]) -> Link:
    """Replays a segment, except for the named values."""

    # `replay` cannot keep named values, `jax.checkpoint` can.
    def run(operands, kept, x):
        if kept is not None:
            bits, binary = kept
            x = nan_unless(binary, unpack_straight_through(bits, x))
        return segment(operands, x)

    policy = jax.checkpoint_policies.save_only_these_names(*keep)
    checkpointed = jax.checkpoint(run, policy=policy)

    def bits(x):
        return encode_spikes(x) if segment.spikes[0] else None

    # Packed outside: `jax.checkpoint` keeps its arguments, so these must be the bits.
    return lambda operands, x: checkpointed(operands, bits(x), x)


def _parts(alone: Sequence[bool], every: int) -> Iterator[slice]:
    """Slices of at most `every` functions, each marked function in a slice of its own."""
    start = 0
    while start < len(alone):
        stop = start + 1
        while stop < min(start + every, len(alone)) and not alone[start] and not alone[stop]:
            stop += 1
        yield slice(start, stop)
        start = stop


def _run(links, operands, x):
    extras = []
    for link, operand in zip(links, operands, strict=True):
        x, extra = link(operand, x)
        extras.append(extra)
    return x, extras
