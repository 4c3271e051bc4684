"""Depth without equal blocks: a chain of unequal functions under a strategy over depth.

    x_i = f_i(own_i, x_{i-1}),   i = 1..n

Equal blocks are stacked and scanned; unequal ones cannot be, so a chain is a Python loop and a
strategy over it says what is kept at its joints. With A_i the bytes of x_i and R_i those of f_i's
residuals:

    store                 sum R_i
    recompute(every=k)    sum of every k-th A_i + max over segments (sum of R_i inside)

Joints that carry spikes are kept at one bit each where asked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from snnjax.memory.checkpoint import replayed
from snnjax.memory.packing import pack, unpacked
from snnjax.memory.scans import Recompute, store
from snnjax.typing import Array, PyTree, Scan

__all__ = ["chain"]

Link = Callable[[PyTree, Array], tuple[Array, Any]]


def chain(
    links: Sequence[Link],
    owns: Sequence[PyTree],
    x: Array,
    *,
    scan: Scan | None = None,
    spikes: Sequence[bool] = (),
    alone: Sequence[bool] = (),
) -> tuple[Array, list[Any]]:
    """Runs unequal functions one after the other, keeping what `scan` says.

    Segments are `memory.replayed`, each apart from the others; on a CPU XLA's memory-optimised
    scheduler (`training.compiler_options`) saves some more of what lies between. With `keep` they
    are `jax.checkpoint`, which saves nothing there without that scheduler. The last segment is not
    replayed: its derivative comes next.

    Args:
        links: `(own, x) -> (x, by-products)`, pure.
        owns: what each owns: parameters, states, keys.
        x: into the first.
        scan: `memory.store` or None keeps every residual; `memory.recompute(...)` keeps every
            `every`-th joint and runs the links between again, `inner` and `keep` included.
        spikes: which links take spikes, to be kept at one bit each where their input is a joint;
            none by default.
        alone: which links bring a strategy of their own and are run as they are, between joints;
            none by default.

    Returns:
        The last output, and the by-products of every link.

    Raises:
        ValueError: a scan that needs equal links.
    """
    if scan is None or scan is store:
        return _run(links, owns, x)
    if not isinstance(scan, Recompute):
        raise ValueError(
            f"layers that differ cannot be scanned, and {scan} needs a scan: use memory.store or "
            "memory.recompute(every) over them, or stack equal blocks (nn.Stacked, nn.Reversible)"
        )
    spikes, alone = (list(marks) or [False] * len(links) for marks in (spikes, alone))
    count = alone.count(False)
    every = math.isqrt(max(count - 1, 0)) + 1 if scan.every == "sqrt" else scan.every
    extras: list[Any] = []
    for part in _parts(alone, every):
        segment = _Segment(tuple(links[part]), scan.inner, tuple(spikes[part]))
        if alone[part.start]:
            x, more = _run(links[part], owns[part], x)
        elif part.stop == len(links):  # its derivative comes next: nothing is gained by waiting
            x, more = segment(owns[part], x)
        elif scan.keep:
            x, more = _checkpointed(segment, scan.keep)(owns[part], x)
        else:
            x, more = replayed(segment, spikes=spikes[part.start])(owns[part], x)
        extras += more
    return x, extras


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Links between two joints, as one; equal segments are equal."""

    links: tuple[Link, ...]
    inner: Scan
    spikes: tuple[bool, ...]

    def __call__(self, owns: Sequence[PyTree], x: Array) -> tuple[Array, list[Any]]:
        return chain(self.links, owns, x, scan=self.inner, spikes=self.spikes)


def _checkpointed(segment: _Segment, keep: tuple[str, ...]) -> Link:
    """As `replayed`, but values of these names are kept."""

    def run(owns, bits, x):
        return segment(owns, x if bits is None else unpacked(bits, x))

    policy = jax.checkpoint_policies.save_only_these_names(*keep)
    again = jax.checkpoint(run, policy=policy)
    return lambda owns, x: again(owns, pack(x) if segment.spikes[0] else None, x)


def _parts(alone: Sequence[bool], every: int) -> Iterator[slice]:
    """Runs of at most `every` links, cut around those that stand alone."""
    start = 0
    while start < len(alone):
        stop = start + 1
        while stop < min(start + every, len(alone)) and not alone[start] and not alone[stop]:
            stop += 1
        yield slice(start, stop)
        start = stop


def _run(links, owns, x):
    extras = []
    for link, own in zip(links, owns, strict=True):
        x, extra = link(own, x)
        extras.append(extra)
    return x, extras
