"""Choosing a strategy for a budget: measure each by compiling it, take the cheapest that fits.

    chosen = argmin operations(strategy)   over   { strategy : total_bytes(strategy) <= budget }

Chunking can raise the peak where parameters dominate, and what XLA makes of a program is not to be
guessed, so nothing here is: the bytes are those of the compiled step (`memory.measure`), and what a
strategy costs is counted from its trace (`memory.operations`). Nothing runs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from snnjax.memory.accounting import Measured, analysed
from snnjax.memory.flops import count
from snnjax.memory.notation import Strategy, StrategyError

__all__ = ["Candidate", "Plan", "largest", "plan"]

Build = Callable[[Strategy], tuple[Any, tuple[Any, ...]]]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A strategy, and what it needs.

    Attributes:
        strategy: which.
        measured: its bytes; None where it is refused.
        operations: floating-point operations of a step.
        refused: why the model does not admit it, or None.
    """

    strategy: Strategy
    measured: Measured | None
    operations: float
    refused: str | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was measured, and for any budget what to choose.

    Attributes:
        candidates: in the order they were given.
        forward: floating-point operations of one forward pass, where known.
    """

    candidates: tuple[Candidate, ...]
    forward: float | None = None

    @property
    def admitted(self) -> list[Candidate]:
        """The candidates that were measured."""
        return [c for c in self.candidates if c.measured is not None]

    @property
    def leanest(self) -> Candidate:
        """The one with the fewest bytes."""
        return min(self.admitted, key=_bytes)

    def choose(self, budget: float) -> Candidate | None:
        """The candidate of the fewest operations that fits, of equals the leanest; or None."""
        fitting = [c for c in self.admitted if _bytes(c) <= budget]
        return min(fitting, key=lambda c: (c.operations, _bytes(c)), default=None)

    def missing(self, budget: float) -> int:
        """Bytes by which the leanest candidate is over the budget; 0 if it fits."""
        return max(0, int(_bytes(self.leanest) - budget))

    def extra_passes(self, candidate: Candidate) -> float | None:
        """Operations above those of the cheapest candidate, in forward passes; an estimate."""
        if self.forward is None:
            return None
        least = min(c.operations for c in self.admitted)
        return (candidate.operations - least) / self.forward


def plan(
    build: Build,
    strategies: Iterable[Strategy],
    *,
    forward: float | None = None,
    samples: int | None = None,
    workers: int | None = None,
    report: Callable[[Candidate], None] | None = None,
) -> Plan:
    """Measures strategies by compiling a step under each.

    Args:
        build: `(strategy) -> (jitted function, its arguments or their shapes)`; a StrategyError
            says that the model does not admit the strategy.
        strategies: which to try.
        forward: floating-point operations of one forward pass, for `extra_passes`.
        samples: examples in a batch, for the bytes per sample.
        workers: compilations at a time; None is one per core.
        report: is told each candidate as it is measured, or refused.

    Returns:
        The plan; `plan.choose(budget)` picks.

    Raises:
        StrategyError: no strategy was admitted.

    Example:
        planned = memory.plan(build, [Strategy(), Strategy(depth=recompute(1))])
        chosen = planned.choose(8 * 2**30)
    """

    def compiled(lowered: Any, strategy: Strategy, operations: float) -> Candidate:
        candidate = Candidate(strategy, analysed(lowered.compile(), samples), operations)
        if report:
            report(candidate)
        return candidate

    results: list[Any] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            for strategy in strategies:
                try:
                    jitted, arguments = build(strategy)
                    traced = jitted.trace(*arguments)
                except StrategyError as error:
                    results.append(Candidate(strategy, None, 0.0, str(error)))
                    if report:
                        report(results[-1])
                    continue
                operations = count(traced.jaxpr)
                results.append(pool.submit(compiled, traced.lower(), strategy, operations))
            candidates = [r if isinstance(r, Candidate) else r.result() for r in results]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found = Plan(tuple(candidates), forward)
    if not found.admitted:
        reasons = "; ".join(sorted({str(c.refused) for c in candidates}))
        raise StrategyError(f"no strategy is admitted here: {reasons}")
    return found


def largest(
    bytes_of: Callable[[int], int], budget: float, *, start: int = 1, limit: int = 2**24
) -> int:
    """The largest number (batch, timesteps, depth) whose bytes fit; each one tried is measured.

    Bytes are nearly a line in such a number, so each next guess is where the line through the two
    nearest measurements meets the budget; where two guesses in a row left more than half of what
    was open (bytes may rise in steps), the next one halves it. Nothing is tried that is more than
    16 times the largest that is known to fit. A line takes four measurements from a start nearby.

    Args:
        bytes_of: measures for one number; must not fall as the number grows.
        budget: in bytes.
        start: where to begin.
        limit: not to be exceeded.

    Returns:
        The number; 0 if not even 1 fits.
    """
    known: dict[int, int] = {}
    low, high, guess, slow = 0, limit + 1, min(start, limit), -1
    while high - low > 1:
        known[guess] = bytes_of(guess)
        before = low, high
        low, high = (guess, high) if known[guess] <= budget else (low, guess)
        free = high > limit  # nothing too large is known yet
        told = low >= 2 * before[0] if free else 2 * (high - low) <= before[1] - before[0]
        slow = 0 if told else slow + 1
        near = sorted(known, key=lambda n: abs(n - guess))[:2]
        a, b = min(near), max(near)
        rise = known[b] - known[a]
        top = min(16 * low, limit) if free else high - 1
        guess = min(2 * low, limit) if free else (low + high) // 2
        if rise > 0 and slow < 2:
            line = int(a + (budget - known[a]) * (b - a) / rise)
            guess = line if line <= top else top if free else guess
        else:
            slow = -1  # halving tells enough by itself
        guess = max(guess, low + 1)
    return low


def _bytes(candidate: Candidate) -> int:
    assert candidate.measured is not None
    return candidate.measured.total_bytes
