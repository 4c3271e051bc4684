"""Choosing a network by accuracy, bytes and energy.

    over budget     bytes or energy above what is allowed: discarded before any training
    reward          accuracy - m bytes / budget of bytes - e energy / budget of energy
    Pareto front    nothing else is at least as good in all three and better in one

With both weights 0 the reward is the accuracy; equal rewards go to the leaner one. Each weight is
what a whole budget is worth in accuracy.

OUR RECONSTRUCTION of a selection by budgets, in the spirit of R. V. W. Putra, M. Shafique,
"FSpiNN", 2020, arXiv:2007.08860; the reward is after "Q-SpiNN", 2021, of the same authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Budgets", "Candidate", "chosen", "front", "over_budget"]


class Candidate(NamedTuple):
    """A network that could be trained.

    Attributes:
        name: what tells it from the others.
        bytes: of its synapses.
        inference: nanojoules of an example with learning off.
        training: nanojoules of an example with learning on.
        accuracy: on examples it was not trained on; None before.
    """

    name: str
    bytes: int
    inference: float
    training: float
    accuracy: float | None = None


class Budgets(NamedTuple):
    """The most that is allowed; None allows anything.

    Attributes:
        bytes: of synapses.
        inference: nanojoules per example.
        training: nanojoules per example.
    """

    bytes: float | None = None
    inference: float | None = None
    training: float | None = None


_ANYTHING = Budgets()


def over_budget(candidate: Candidate, budgets: Budgets) -> str | None:
    """Why a candidate is discarded, or None."""
    for name in Budgets._fields:
        most, value = getattr(budgets, name), getattr(candidate, name)
        if most is not None and value > most:
            unit = "bytes" if name == "bytes" else f"nJ per example ({name})"
            return f"{value:,.0f} {unit}, above {most:,.0f}"
    return None


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those on the Pareto front of accuracy, bytes and energy of inference, in their order."""
    return [c for c in candidates if not any(_dominates(other, c) for other in candidates)]


def chosen(
    candidates: Sequence[Candidate],
    *,
    budgets: Budgets = _ANYTHING,
    bytes_weight: float = 0.0,
    energy_weight: float = 0.0,
) -> Candidate:
    """The candidate with the highest reward; it is on the Pareto front.

    Args:
        candidates: measured ones, at least one.
        budgets: what bytes and energy are measured in; without one, the largest candidate's.
        bytes_weight: accuracy that a whole budget of bytes is worth, at least 0.
        energy_weight: accuracy that a whole budget of energy is worth, at least 0.

    Raises:
        ValueError: nothing was measured, or a weight is negative.
    """
    measured = [c for c in candidates if c.accuracy is not None]
    if not measured:
        raise ValueError("nothing was measured: no candidate has an accuracy")
    if bytes_weight < 0 or energy_weight < 0:
        raise ValueError("weights are what a budget is worth in accuracy, at least 0")
    most_bytes = budgets.bytes or max(c.bytes for c in measured)
    most_energy = budgets.inference or max(c.inference for c in measured)

    def reward(c: Candidate):
        assert c.accuracy is not None
        paid = bytes_weight * c.bytes / most_bytes + energy_weight * c.inference / most_energy
        return c.accuracy - paid, -c.bytes, -c.inference

    return max(measured, key=reward)


def _dominates(one: Candidate, other: Candidate) -> bool:
    pairs = [
        (one.accuracy or 0.0, other.accuracy or 0.0),
        (-one.bytes, -other.bytes),
        (-one.inference, -other.inference),
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
