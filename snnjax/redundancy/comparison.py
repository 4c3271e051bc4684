"""Two networks side by side: before and after something was done against redundancy."""

from __future__ import annotations

import dataclasses

from snnjax.redundancy.report import Report

__all__ = ["Comparison", "compare"]


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What changed.

    Attributes:
        pairs: Names of layers that correspond, `(before, after)`; empty where the two networks are
            built differently.
        nasfr_change: In per cent of the NASFR before; negative where there are fewer spikes, None
            where there were none.
    """

    pairs: tuple[tuple[str, str], ...]
    nasfr_change: float | None


def compare(before: Report, after: Report) -> Comparison:
    """Compares two networks.

    Layers correspond by their order, if all of them have as many neurons: an attention in between
    changes the numbers in their names, and not the neurons.

        change = 100 (NASFR_after / NASFR_before - 1)

    Args:
        before: Of the network to compare with.
        after: Of the other one.
    """
    same = list(before.neurons.values()) == list(after.neurons.values())
    pairs = tuple(zip(before.layers, after.layers, strict=True)) if same else ()
    change = 100 * (after.nasfr / before.nasfr - 1) if before.nasfr else None
    return Comparison(pairs, change)
