"""Selection of a network by accuracy, bytes and energy.

    over budget     bytes or energy exceed a budget: discarded before any training
    reward          accuracy - m bytes / budget of bytes - e energy / budget of energy
    Pareto front    no other candidate is at least as good in all three and better in one

With both weights 0 the reward is the accuracy; among equal rewards the leaner candidate wins. A
weight is the accuracy that a whole budget is worth.

OUR RECONSTRUCTION of a selection by budgets, in the spirit of R. V. W. Putra, M. Shafique,
"FSpiNN", 2020, arXiv:2007.08860; the reward is after "Q-SpiNN", 2021, of the same authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Budgets", "Candidate", "check_budgets", "choose", "pareto_front"]


class Candidate(NamedTuple):
    """Candidate network of a selection.

    Attributes:
        name: Unique name.
        bytes: Bytes of the synapses.
        inference: Energy of an example with learning off, nJ.
        training: Energy of an example with learning on, nJ.
        accuracy: Accuracy on held-out examples; None before training.
    """

    name: str
    bytes: int
    inference: float
    training: float
    accuracy: float | None = None


class Budgets(NamedTuple):
    """Upper limits of a selection; None is unlimited.

    Attributes:
        bytes: Bytes of the synapses.
        inference: Energy of an example with learning off, nJ.
        training: Energy of an example with learning on, nJ.
    """

    bytes: float | None = None
    inference: float | None = None
    training: float | None = None


_UNLIMITED = Budgets()


def check_budgets(candidate: Candidate, budgets: Budgets) -> str | None:
    """Checks a candidate against budgets and returns the excess in words; None if within them."""
    for name in Budgets._fields:
        limit, value = getattr(budgets, name), getattr(candidate, name)
        if limit is not None and value > limit:
            unit = "bytes" if name == "bytes" else f"nJ per example ({name})"
            return f"{value:,.0f} {unit}, above {limit:,.0f}"
    return None


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates on the Pareto front of accuracy, bytes and inference energy, in their order."""
    return [c for c in candidates if not any(_dominates(other, c) for other in candidates)]


def choose(
    candidates: Sequence[Candidate],
    *,
    budgets: Budgets = _UNLIMITED,
    bytes_weight: float = 0.0,
    energy_weight: float = 0.0,
) -> Candidate:
    """Chooses the candidate with the highest reward, which is on the Pareto front.

        reward = accuracy - bytes_weight bytes / budgets.bytes
                          - energy_weight inference / budgets.inference

    Args:
        candidates: Candidates, at least one with an accuracy.
        budgets: Units of bytes and energy; where unlimited, those of the largest candidate.
        bytes_weight: Accuracy that a whole budget of bytes is worth, at least 0.
        energy_weight: Accuracy that a whole budget of energy is worth, at least 0.

    Raises:
        ValueError: No candidate has an accuracy, or a weight is negative.
    """
    measured = [c for c in candidates if c.accuracy is not None]
    if not measured:
        raise ValueError("nothing was measured: no candidate has an accuracy, train one first")
    if bytes_weight < 0 or energy_weight < 0:
        raise ValueError("weights are the accuracy that a budget is worth, at least 0")
    # Without a budget the largest candidate is the unit, so that weights keep their meaning.
    byte_unit = budgets.bytes or max(c.bytes for c in measured)
    energy_unit = budgets.inference or max(c.inference for c in measured)

    def reward(c: Candidate):
        # Narrows the type: `measured` holds only candidates with an accuracy.
        assert c.accuracy is not None
        cost = bytes_weight * c.bytes / byte_unit + energy_weight * c.inference / energy_unit
        # Bytes and energy break ties; without them an equal but dominated candidate could win.
        return c.accuracy - cost, -c.bytes, -c.inference

    return max(measured, key=reward)


def _dominates(one: Candidate, other: Candidate) -> bool:
    pairs = [
        # An untrained candidate ranks below every trained one.
        (one.accuracy or 0.0, other.accuracy or 0.0),
        # Negated, because fewer bytes and less energy are better.
        (-one.bytes, -other.bytes),
        (-one.inference, -other.inference),
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
