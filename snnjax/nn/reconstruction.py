"""The tap of reversing scans: how far what they rebuild is from what the forward pass saw."""

from __future__ import annotations

from typing import Any

from snnjax import memory
from snnjax.typing import Array, Scan, Step

__all__ = ["reconstruction"]


def reconstruction(
    name: str,
    scan: Scan | None,
    step: Step,
    params: Any,
    state: Any,
    xs: Any,
    taps: tuple[str, ...],
) -> dict[str, dict[str, Array]]:
    """`{name: {"reconstruction": [1]}}` where asked for and `scan` reverses, else nothing.

    Args:
        name: what the layer calls itself.
        scan: the layer's scan, with its inverse.
        step: what it scans.
        params: of the step.
        state: before the first step.
        xs: the scanned inputs.
        taps: what the caller asked to see.
    """
    if "reconstruction" not in taps or not isinstance(scan, memory.Reverse):
        return {}
    return {name: {"reconstruction": scan.error(step, params, state, xs)[None]}}
