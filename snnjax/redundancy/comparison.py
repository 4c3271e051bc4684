"""Comparison of two networks, before and after a measure against redundancy."""

from __future__ import annotations

import dataclasses

from snnjax.redundancy.report import Report

__all__ = ["Comparison", "compare"]


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Result of `compare`.

    Attributes:
        pairs: Names of corresponding layers, `(before, after)`; empty if the two networks are built
            differently.
        nasfr_change: Change of the NASFR, %; negative for fewer spikes, None if there were none
            before.
    """

    pairs: tuple[tuple[str, str], ...]
    nasfr_change: float | None


def compare(before: Report, after: Report) -> Comparison:
    """Compares the firing of two networks.

        change = 100 (NASFR_after / NASFR_before - 1)

    Args:
        before: Report of the reference network.
        after: Report of the other network.
    """
    # By order and not by name: an attention layer in between shifts the numbers in the names and
    # leaves the neurons.
    same = list(before.neurons.values()) == list(after.neurons.values())
    pairs = tuple(zip(before.layers, after.layers, strict=True)) if same else ()
    change = 100 * (after.nasfr / before.nasfr - 1) if before.nasfr else None
    return Comparison(pairs, change)
