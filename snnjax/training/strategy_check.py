"""Every memory strategy that an experiment's network admits, held against plain `store`.

The gradient is that of the experiment's own loss on its own first batch. Faults are told apart by
what makes them go away or come back: the inverse is run by itself, the statistics are compared with
those of one update and of two, and the gradient is taken once more without dropout.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from snnjax import data, memory, nn
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.training.objective import given, objective
from snnjax.training.planning import strategies_of, under
from snnjax.training.sharding import compiler_options, make_mesh
from snnjax.training.state import TrainState, initialize, wants_memory_scheduler

__all__ = ["check_strategies"]

_IN_TIME = (
    memory.Strategy(time=memory.recompute("sqrt")),
    memory.Strategy(time=memory.reversal()),
)
_ROUNDING = 1e-6
"""What XLA may make of a running mean in another program: it fuses a product into a sum or not."""
_STORE = (
    memory.Strategy(time=memory.store, depth=memory.store),
    memory.Strategy(time=memory.store),
    memory.Strategy(depth=memory.store),
    memory.Strategy(),
)


class _Outcome(NamedTuple):
    """What one strategy made of the batch."""

    gradients: Any
    outputs: Any
    statistics: Any
    stream: Any


def check_strategies(
    experiment: Experiment,
    *,
    dataset: data.Dataset,
    strategies: Sequence[memory.Strategy] | None = None,
    mesh: Mesh | None = None,
    bound: float = 1e-5,
    tolerance: float = 1e-2,
    repeats: int = 3,
    report: Callable[[memory.Checked], None] | None = None,
) -> list[memory.Checked]:
    """Compares outputs, statistics and gradients under each strategy with those under `store`.

    Args:
        experiment: its network as it is written is one of those checked.
        dataset: from `load_dataset(experiment)`.
        strategies: which to check; None is all that `strategies_of` finds, and two over time.
        mesh: on which device; None is the first one.
        bound: relative difference of a gradient to put up with; where neurons with a leak are
            reversed in time it is `tolerance`.
        tolerance: error of a rebuilt state to put up with.
        repeats: runs to time.
        report: is told each finding as it is made.

    Returns:
        One finding per strategy that the network admits; the first is `store` against itself.

    Raises:
        ExperimentError: the network admits none of the strategies.
    """
    case = _Case(experiment, dataset, make_mesh() if mesh is None else mesh)
    asked = [*strategies_of(experiment), *_IN_TIME] if strategies is None else strategies
    reasons = [case.refusal(strategy) for strategy in asked]
    if asked and all(reasons):
        said = "; ".join(dict.fromkeys(map(str, reasons)))
        raise ExperimentError(f"{experiment.name} admits no such strategy: {said}")
    admitted = [s for s, reason in zip(asked, reasons, strict=True) if reason is None]
    reference = next(s for s in _STORE if case.admits(s))
    expected, *_ = case.run(reference, repeats=0)
    found = []
    for strategy in [reference, *admitted]:
        finding = _judge(case, strategy, reference, expected, bound, tolerance, repeats)
        if strategy is reference:
            finding = dataclasses.replace(finding, name=f"store ({finding.name})")
        found.append(finding)
        if report:
            report(finding)
    return found


class _Case:
    """An experiment with its first batch, and what each strategy makes of it."""

    def __init__(self, experiment: Experiment, dataset: data.Dataset, mesh: Mesh):
        self.experiment, self.dataset, self.mesh = experiment, dataset, mesh
        size = min(experiment.batch, len(dataset.train))
        loader = data.Loader(dataset.train, batch_size=size, seed=experiment.seed)
        self.batch = jax.tree.map(jax.numpy.asarray, loader.batch(0))

    def refusal(self, strategy: memory.Strategy) -> str | None:
        """Why the network does not admit a strategy, or None."""
        try:
            initialize(under(self.experiment, strategy), steps=1)
        except ExperimentError as error:
            if isinstance(error.__cause__, memory.StrategyError):
                return str(error.__cause__)
            raise
        return None

    def admits(self, strategy: memory.Strategy) -> bool:
        """Whether it does."""
        return self.refusal(strategy) is None

    def run(self, strategy: memory.Strategy, *, repeats: int, updates: int = 1) -> tuple[Any, ...]:
        """Outcome, bytes and seconds of the gradient; the statistics of so many updates."""
        program, state = initialize(under(self.experiment, strategy), steps=1)
        scheduler = wants_memory_scheduler(program, state)
        graded = jax.jit(
            functools.partial(_graded, program),
            compiler_options=compiler_options(self.mesh, memory_scheduler=scheduler),
        )
        compiled = graded.lower(state, self.batch).compile()
        for _ in range(updates - 1):
            state = state._replace(statistics=compiled(state, self.batch).statistics)
        outcome, seconds = memory.timed(compiled, (state, self.batch), repeats=repeats)
        return outcome, memory.analysed(compiled, len(self.batch.labels)), seconds

    def reconstructions(self, strategy: memory.Strategy) -> dict[str, float]:
        """Error of the rebuilt states, by layer."""
        program, state = initialize(under(self.experiment, strategy), steps=1)

        def look(state: TrainState, batch: data.Batch):
            shown = given(program, state, batch)
            taps = ("reconstruction",)
            return objective(state.params, program, state, shown, batch, taps=taps)[1][2].taps

        taps = jax.device_get(jax.jit(look)(state, self.batch))
        return {name: float(kinds["reconstruction"].max()) for name, kinds in taps.items()}

    def without_dropout(self) -> _Case | None:
        """The same case with nothing silenced; None where nothing was."""
        original = self.experiment.network
        probe = list(_dropouts(original(self.experiment, nnx.Rngs(0))))
        if not any(layer.rate for layer in probe):
            return None

        def network(experiment, rngs):
            made = original(experiment, rngs)
            for layer in _dropouts(made):
                layer.rate = 0.0
            return made

        silent = dataclasses.replace(self.experiment, network=network)
        return _Case(silent, self.dataset, self.mesh)


def _judge(case, strategy, reference, expected, bound, tolerance, repeats) -> memory.Checked:
    actual, measured, seconds = case.run(strategy, repeats=repeats)
    gradients = memory.compare_gradients(actual.gradients, expected.gradients)
    rebuilt = case.reconstructions(strategy)
    place = max(rebuilt, key=lambda name: rebuilt[name], default="")
    faults = []
    if rebuilt and not rebuilt[place] <= tolerance:
        faults.append(f"wrong inverse: a state rebuilt in {place} is off by {rebuilt[place]:.2g}")
    moved = memory.unequal(actual.statistics, expected.statistics, within=_ROUNDING)
    if moved:
        faults.append(_statistics_fault(case, reference, actual.statistics, moved))
    equal = not memory.unequal(actual.outputs, expected.outputs)
    worst = max(gradients, key=lambda name: gradients[name].relative, default="")
    allowed = tolerance if rebuilt and any(rebuilt.values()) else bound
    off = bool(worst) and not gradients[worst].relative <= allowed
    if not faults and (off or not equal):
        what = f"the gradient of {worst} is off by {gradients[worst].relative:.2g}"
        faults.append(
            "a dropped key: without dropout the gradient is right, so a replay draws other random "
            "numbers than the forward pass"
            if _right_without_dropout(case, strategy, reference, allowed)
            else f"wrong gradient: {what}" if equal else f"wrong values: outputs differ, and {what}"
        )  # fmt: skip
    use = float(actual.stream)
    return memory.Checked(
        str(strategy), tuple(faults), equal, gradients, rebuilt[place] if rebuilt else None,
        measured, seconds,
        statistics_equal=not moved if jax.tree.leaves(actual.statistics) else None,
        bits_left=-math.log2(use) if use > 0 else None,
    )  # fmt: skip


def _statistics_fault(case, reference, statistics, moved) -> str:
    twice = case.run(reference, repeats=0, updates=2)[0].statistics
    gaps = memory.compare_gradients(statistics, twice)
    if max(gap.relative for gap in gaps.values()) <= 1e-5:
        return "statistics were updated twice: they must leave once, from the forward pass"
    return f"statistics differ from store's: {', '.join(moved)}"


def _right_without_dropout(case, strategy, reference, bound) -> bool:
    silent = case.without_dropout()
    if silent is None:
        return False
    outcomes = [silent.run(s, repeats=0)[0] for s in (strategy, reference)]
    gaps = memory.compare_gradients(*(outcome.gradients for outcome in outcomes))
    equal = not memory.unequal(*(outcome.outputs for outcome in outcomes))
    return equal and max(gap.relative for gap in gaps.values()) <= bound


def _graded(program, state: TrainState, batch: data.Batch) -> _Outcome:
    shown = given(program, state, batch)
    graded = jax.grad(objective, has_aux=True)
    gradients, (_, outputs, aux) = graded(state.params, program, state, shown, batch)
    return _Outcome(gradients, outputs, aux.statistics, nn.stream_use(aux.diagnostics))


def _dropouts(network: nn.Network):
    return (m for _, m in nnx.iter_modules(network) if isinstance(m, nn.Dropout))
