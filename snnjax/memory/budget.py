"""Memory budget: the cheapest strategy whose compiled step fits.

    choice = argmin operations(strategy)   over   { strategy : total_bytes(strategy) <= budget }

The bytes are those of the compiled step, the operations are counted in its trace; nothing runs.
Estimates would not do: shorter segments can raise the peak if parameters dominate, and the buffer
assignment of XLA cannot be predicted. A strategy with another gradient (`exact = False`) is
measured, and chosen only where it is asked for.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from snnjax.memory.accounting import MemoryUse, compiled_memory, count
from snnjax.memory.notation import Strategy, StrategyError
from snnjax.ops.programs import make_room

__all__ = ["Candidate", "Plan", "largest_fit", "plan"]

Build = Callable[[Strategy], tuple[Any, tuple[Any, ...]]]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Strategy and its measured cost.

    Attributes:
        strategy: Memory strategy.
        measured: Bytes of the compiled step; None if the model refuses the strategy.
        operations: Floating-point operations of a step.
        refused: Reason of the model's refusal, or None.
    """

    strategy: Strategy
    measured: MemoryUse | None
    operations: float
    refused: str | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Measured strategies, the choice for any budget.

    Attributes:
        candidates: Candidates in the order of the strategies.
        forward: Floating-point operations of one forward pass, or None.
        approximate: True if a strategy with another gradient than backpropagation through time may
            be chosen.
    """

    candidates: tuple[Candidate, ...]
    forward: float | None = None
    approximate: bool = False

    @property
    def admitted(self) -> list[Candidate]:
        """Candidates that the model admits."""
        return [c for c in self.candidates if c.measured is not None]

    @property
    def eligible(self) -> list[Candidate]:
        """Admitted candidates that may be chosen: without approximate ones unless asked for.

        If nothing else is admitted, the approximate ones are listed, and none of them is chosen.
        """
        exact = [c for c in self.admitted if c.strategy.exact]
        return self.admitted if self.approximate or not exact else exact

    @property
    def leanest(self) -> Candidate:
        """Eligible candidate with the fewest bytes."""
        return min(self.eligible, key=_bytes)

    def choose(self, budget: float) -> Candidate | None:
        """Fitting candidate with the fewest operations, then the fewest bytes; None if none fits.

        Args:
            budget: Budget in bytes.
        """
        allowed = (c for c in self.eligible if self.approximate or c.strategy.exact)
        fits = [c for c in allowed if _bytes(c) <= budget]
        # Operations stand for time: measuring it would take a run of each candidate.
        return min(fits, key=lambda c: (c.operations, _bytes(c)), default=None)

    def missing(self, budget: float) -> int:
        """Bytes by which the leanest candidate exceeds the budget; 0 if it fits."""
        return max(0, int(_bytes(self.leanest) - budget))

    def extra_passes(self, candidate: Candidate) -> float | None:
        """Operations above the cheapest eligible candidate, in forward passes.

        Negative for an approximate one that computes less; None if `forward` is None.
        """
        if self.forward is None:
            return None
        least = min(c.operations for c in self.eligible)
        return (candidate.operations - least) / self.forward


def plan(
    build: Build,
    strategies: Iterable[Strategy],
    *,
    forward: float | None = None,
    samples: int | None = None,
    workers: int | None = None,
    report: Callable[[Candidate], None] | None = None,
    approximate: bool = False,
) -> Plan:
    """Measures strategies by compiling a step under each.

    Args:
        build: Function `(strategy) -> (jitted function, its arguments or their shapes)`, which
            raises a StrategyError for a strategy that the model does not admit.
        strategies: Strategies to measure.
        forward: Floating-point operations of one forward pass, for `extra_passes`.
        samples: Number of examples in a batch, for the bytes per sample.
        workers: Number of concurrent compilations; None is one per core.
        report: Callback for each candidate, once measured or refused.
        approximate: May choose a strategy whose gradient is not that of backpropagation through
            time; without it such strategies are measured only.

    Returns:
        The plan; `plan.choose(budget)` picks a candidate.

    Raises:
        StrategyError: The model admits no strategy.

    Example:
        plan = memory.plan(build, [Strategy(), Strategy(depth=recompute(1))])
        choice = plan.choose(8 * 2**30)
    """

    def compile_one(lowered: Any, strategy: Strategy, operations: float) -> Candidate:
        candidate = Candidate(strategy, compiled_memory(lowered.compile(), samples), operations)
        if report:
            report(candidate)
        return candidate

    # Before the threads: what they compile must not be cleared under them.
    make_room()
    results: list[Any] = []
    # XLA releases the interpreter lock while it compiles; tracing and lowering hold it and stay on
    # this thread.
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
                results.append(pool.submit(compile_one, traced.lower(), strategy, operations))
            candidates = [r if isinstance(r, Candidate) else r.result() for r in results]
        except BaseException:  # also Ctrl-C: queued compilations would go on for minutes
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    result = Plan(tuple(candidates), forward, approximate)
    if not result.admitted:
        reasons = "; ".join(sorted({str(c.refused) for c in candidates}))
        raise StrategyError(f"no strategy is admitted here: {reasons}")
    return result


def largest_fit(
    measure_bytes: Callable[[int], int], budget: float, *, start: int = 1, limit: int = 2**24
) -> int:
    """Searches the largest number (batch, timesteps, depth) whose bytes fit a budget.

    Secant search, safeguarded by bisection; four measurements if the bytes are linear and `start`
    is near the answer.

    Args:
        measure_bytes: Function from the number to its bytes, not decreasing.
        budget: Budget in bytes.
        start: First number to measure.
        limit: Upper limit of the search.

    Returns:
        The largest fitting number; 0 if not even 1 fits.
    """
    known: dict[int, int] = {}
    # The answer is in [low, high); `slow` counts guesses that cut off too little.
    low, high, guess, slow = 0, limit + 1, min(start, limit), -1
    while high - low > 1:
        known[guess] = measure_bytes(guess)
        before = low, high
        low, high = (guess, high) if known[guess] <= budget else (low, guess)
        unbounded = high > limit  # no number too large is known yet
        if unbounded:
            progress = low >= 2 * before[0]
        else:
            progress = 2 * (high - low) <= before[1] - before[0]
        slow = 0 if progress else slow + 1
        # Bytes are nearly linear: the next guess is where the line through the two nearest
        # measurements meets the budget.
        nearest = sorted(known, key=lambda n: abs(n - guess))[:2]
        a, b = min(nearest), max(nearest)
        rise = known[b] - known[a]
        # Compiling a program far beyond the budget takes long, so the guess grows 16-fold at most.
        top = min(16 * low, limit) if unbounded else high - 1
        guess = min(2 * low, limit) if unbounded else (low + high) // 2
        if rise > 0 and slow < 2:
            line = int(a + (budget - known[a]) * (b - a) / rise)
            guess = line if line <= top else top if unbounded else guess
        else:
            slow = -1  # bytes may rise in steps: after two slow guesses one halves the interval
        guess = max(guess, low + 1)
    return low


def _bytes(candidate: Candidate) -> int:
    assert candidate.measured is not None
    return candidate.measured.total_bytes
