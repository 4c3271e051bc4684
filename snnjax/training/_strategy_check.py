"""Check of memory strategies: values and gradients compared with those of `store`.

The gradient is that of the experiment's loss on its first batch. Three further runs tell faults
apart: the inverse alone, the statistics after one and after two updates, and the gradient without
dropout.
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
from snnjax.training._objective import encode_batch, grad_with_infos, objective
from snnjax.training.errors import ExperimentError, user_code
from snnjax.training.experiment import Experiment, check_learning
from snnjax.training.sharding import compiler_options, make_mesh
from snnjax.training.state import Program, TrainState, initialize, wants_memory_scheduler

__all__ = ["check_independence", "check_strategies", "network_strategies", "with_strategy"]

_IN_TIME = (
    memory.Strategy(time=memory.recompute("sqrt")),
    memory.Strategy(time=memory.reversal()),
)
# Tolerance of a running mean: XLA may fuse its product and sum in one program, not in another.
_ROUNDING = 1e-6
# Largest residual of a converged solver: a wrong equation leaves about half of the gradient, a
# hundred timesteps of backward spikes a few hundredths.
_RESIDUAL = 0.2
# References, the first that the network admits: some networks have no time or no depth to scan.
_STORE = (
    memory.Strategy(time=memory.store, depth=memory.store),
    memory.Strategy(time=memory.store),
    memory.Strategy(depth=memory.store),
    memory.Strategy(),
)


class _Outcome(NamedTuple):
    """Results of a batch under one strategy."""

    gradients: Any
    outputs: Any
    statistics: Any
    stream: Any
    residual: Any  # largest residual of the solvers of implicit derivatives; None without one


def with_strategy(experiment: Experiment, strategy: memory.Strategy) -> Experiment:
    """Replaces the memory strategy of an experiment; an empty strategy keeps it."""
    # The empty strategy stands for the experiment as it is, its field `memory` included.
    if strategy == memory.Strategy():
        return experiment
    # A value, not its text: a scan of the user need not have one to be measured.
    return dataclasses.replace(experiment, memory=strategy)


def network_strategies(
    experiment: Experiment, *, approximate: bool = False
) -> list[memory.Strategy]:
    """Candidate strategies for an experiment's network, exact ones unless `approximate`."""
    check_learning(experiment, "gradients")
    with user_code("network(experiment, rngs)"):
        network = experiment.network(experiment, nnx.Rngs(0))
    return nn.candidates(network, approximate=approximate)


def check_strategies(
    experiment: Experiment,
    *,
    dataset: data.Dataset,
    strategies: Sequence[memory.Strategy] | None = None,
    mesh: Mesh | None = None,
    bound: float = 1e-5,
    tolerance: float = 1e-2,
    repeats: int = 3,
    report: Callable[[memory.checking.CheckResult], None] | None = None,
) -> list[memory.checking.CheckResult]:
    """Compares outputs, statistics and gradients under each strategy with those under `store`.

    Args:
        experiment: Experiment, whose network as written is checked as well.
        dataset: Data set from `config.load_dataset(experiment)`.
        strategies: Strategies to check; None is `network_strategies` and two strategies over time.
        mesh: Device; None is the first one.
        bound: Largest relative difference of a gradient; for leaky neurons reversed in time
            `tolerance` takes its place.
        tolerance: Largest error of a reconstructed state.
        repeats: Number of timed runs.
        report: Callback for each finding.

    Returns:
        One finding per admitted strategy; the first is `store` compared with itself.

    Raises:
        ExperimentError: The network admits none of the strategies.
    """
    case = _Case(experiment, dataset, make_mesh() if mesh is None else mesh)
    asked = [*network_strategies(experiment), *_IN_TIME] if strategies is None else strategies
    reasons = [case.refusal(strategy) for strategy in asked]
    # A check that compares store with itself only would pass without having checked anything.
    if asked and all(reasons):
        listed = "; ".join(dict.fromkeys(map(str, reasons)))
        raise ExperimentError(f"{experiment.name} admits no such strategy: {listed}")
    admitted = [s for s, reason in zip(asked, reasons, strict=True) if reason is None]
    reference = next(s for s in _STORE if case.admits(s))
    # Not timed: the reference is run again with the others.
    expected = case.outcome(reference)
    findings = []
    for strategy in [reference, *admitted]:
        finding = _compare(case, strategy, reference, expected, bound, tolerance, repeats)
        if strategy is reference:
            finding = dataclasses.replace(finding, name=f"store ({finding.name})")
        findings.append(finding)
        if report:
            report(finding)
    return findings


def check_independence(experiment: Experiment, *, dataset: data.Dataset) -> list[str]:
    """Checks in evaluation that an example depends on no neighbour in its batch and no padding.

    Args:
        experiment: Experiment, whose first batch of training is evaluated.
        dataset: Data set from `config.load_dataset(experiment)`.

    Returns:
        One sentence per fault, which names the first layer; empty without one, or for a batch of
        one example.
    """
    case = _Case(experiment, dataset, make_mesh())
    program, state = case.start(memory.Strategy())
    lengths = case.batch.lengths
    if len(case.batch.labels) < 2:
        return []
    with user_code("encode(experiment, inputs, key)"):
        frames = experiment.encode(experiment, case.batch.inputs, None)

    def results(frames):
        network = program.network(state)
        start = network.initial_state(frames.shape[1], statistics=state.statistics)
        # Currents too: a threshold hides small differences of them from the outputs.
        outputs, aux = network(frames, start, training=False, taps=("currents",), lengths=lengths)
        layers = {n: kinds["currents"] for n, kinds in aux.taps.items() if "currents" in kinds}
        return {**layers, "outputs": outputs}

    return memory.checking.check_independence(results, frames, lengths=lengths)


class _Case:
    """Experiment and its first batch, to run under each strategy."""

    def __init__(self, experiment: Experiment, dataset: data.Dataset, mesh: Mesh):
        self.experiment, self.dataset, self.mesh = experiment, dataset, mesh
        size = min(experiment.batch, len(dataset.train))
        loader = data.Loader(dataset.train, batch_size=size, seed=experiment.seed)
        # On the device once, so that timed runs exclude the transfer.
        self.batch = jax.tree.map(jax.numpy.asarray, loader.batch(0))

    def start(self, strategy: memory.Strategy) -> tuple[Program, TrainState]:
        """Program and initial state under a strategy."""
        return initialize(with_strategy(self.experiment, strategy), steps=1)

    def refusal(self, strategy: memory.Strategy) -> str | None:
        """Reason of the network's refusal of a strategy, or None."""
        try:
            self.start(strategy)
        except ExperimentError as error:
            # `user_code` wraps the refusal; only this cause means one, others are faults of the
            # experiment.
            if isinstance(error.__cause__, memory.StrategyError):
                return str(error.__cause__)
            raise
        return None

    def admits(self, strategy: memory.Strategy) -> bool:
        """True if the network admits a strategy."""
        return self.refusal(strategy) is None

    def outcome(self, strategy: memory.Strategy, *, updates: int = 1) -> _Outcome:
        """Outcome under a strategy, with the statistics after `updates` steps."""
        return self.run(*self.start(strategy), repeats=0, updates=updates)[0]

    def run(
        self, program: Program, state: TrainState, *, repeats: int, updates: int = 1
    ) -> tuple[_Outcome, Any, float]:
        """Outcome, bytes and seconds of the gradient, with the statistics after `updates` steps."""
        scheduler = wants_memory_scheduler(program, state)
        gradient = jax.jit(
            functools.partial(_outcome, program),
            # As in training: bits depend on the options of the compiler.
            compiler_options=compiler_options(self.mesh, memory_scheduler=scheduler),
        )
        compiled = gradient.lower(state, self.batch).compile()
        for _ in range(updates - 1):
            state = state._replace(statistics=compiled(state, self.batch).statistics)
        outcome, seconds = memory.checking.time_call(compiled, (state, self.batch), repeats=repeats)
        return outcome, memory.accounting.compiled_memory(compiled, len(self.batch.labels)), seconds

    def without_dropout(self) -> _Case | None:
        """The same case without dropout; None if the network has no dropout."""
        original = self.experiment.network
        probe = list(_dropouts(original(self.experiment, nnx.Rngs(0))))
        if not any(layer.rate for layer in probe):
            return None

        def network(experiment, rngs):
            result = original(experiment, rngs)
            for layer in _dropouts(result):
                # In the built layers, since only the user's function knows how it makes them.
                layer.rate = 0.0
            return result

        silent = dataclasses.replace(self.experiment, network=network)
        return _Case(silent, self.dataset, self.mesh)


def diagnose_packing(program: Any, state: TrainState, batch: data.Batch) -> str | None:
    """Sentence on a layer that packs other inputs of a batch than spikes; None without one."""
    # Shapes first: most networks pack nothing, and need no program compiled for that.
    if not isinstance(program, Program) or not jax.eval_shape(
        functools.partial(_rebuild, program, ("packing",)), state, batch
    ):
        return None
    return _packing_fault(_rebuilding_errors(program, state, batch)["packing"])


def _rebuilding_errors(program, state, batch) -> dict[str, dict[str, float]]:
    """Errors of reconstructed states and of packed inputs, `{tap: {layer: error}}`."""
    taps = ("reconstruction", "packing")
    layers = jax.device_get(jax.jit(functools.partial(_rebuild, program, taps))(state, batch))
    return {
        tap: {name: float(own[tap].max()) for name, own in layers.items() if tap in own}
        for tap in taps
    }


def _rebuild(program, taps, state, batch) -> dict[str, dict[str, Any]]:
    inputs = encode_batch(program, state, batch)
    return objective(state.params, program, state, inputs, batch, taps=taps)[1][2].taps


def _packing_fault(errors: dict[str, float]) -> str | None:
    # NaN is unequal to 0, too.
    wrong = [name for name, error in errors.items() if error != 0]
    if not wrong:
        return None
    return (
        f"layer {wrong[0]} keeps its inputs at one bit each, and they are not all 0 or 1: do not "
        'pack them (pack=False), or in two bytes (pack="bfloat16")'
    )


def _compare(
    case, strategy, reference, expected, bound, tolerance, repeats
) -> memory.checking.CheckResult:
    program, state = case.start(strategy)
    actual, measured, seconds = case.run(program, state, repeats=repeats)
    gradients = memory.checking.compare_gradients(actual.gradients, expected.gradients)
    errors = _rebuilding_errors(program, state, case.batch)
    rebuilt = errors["reconstruction"]
    place = max(rebuilt, key=lambda name: rebuilt[name], default="")
    faults = []
    # Written so that NaN fails: every comparison with it is False.
    if rebuilt and not rebuilt[place] <= tolerance:
        faults.append(f"wrong inverse: a state rebuilt in {place} is off by {rebuilt[place]:.2g}")
    if fault := _packing_fault(errors["packing"]):
        faults.append(fault)
    moved = memory.checking.unequal_leaves(
        actual.statistics, expected.statistics, tolerance=_ROUNDING
    )
    if moved:
        faults.append(_statistics_fault(case, reference, actual.statistics, moved))
    equal = not memory.checking.unequal_leaves(actual.outputs, expected.outputs)
    worst = max(gradients, key=lambda name: gradients[name].relative, default="")
    # A rebuilt state with an error, as of a leak, has a gradient with an error; an exact one has
    # not.
    allowed = tolerance if rebuilt and any(rebuilt.values()) else bound
    off = bool(worst) and not gradients[worst].relative <= allowed
    exact = nn.contract.is_exact(program.network(state))
    layers = memory.checking.compare_layers(actual.gradients, expected.gradients)
    if not exact:
        off = False
        scans = nn.contract.approximations(program.network(state))
        faults += memory.checking.bound_faults(layers, scans)
        faults += _solver_faults(actual.residual)
    # A wrong inverse or wrong statistics make the gradient wrong as well: only the cause is named.
    if not faults and (off or not equal):
        what = f"the gradient of {worst} is off by {gradients[worst].relative:.2g}"
        faults.append(
            "a dropped key: without dropout the gradient is right, so a replay draws other random "
            "numbers than the forward pass"
            if _right_without_dropout(case, strategy, reference, allowed)
            else f"wrong gradient: {what}" if equal else f"wrong values: outputs differ, and {what}"
        )  # fmt: skip
    use = float(actual.stream)
    return memory.checking.CheckResult(
        str(strategy), tuple(faults), equal, gradients, rebuilt[place] if rebuilt else None,
        measured, seconds,
        statistics_equal=not moved if jax.tree.leaves(actual.statistics) else None,
        bits_left=-math.log2(use) if use > 0 else None,
        exact=exact,
        layers=layers,
        residual=None if exact or actual.residual is None else float(actual.residual),
    )  # fmt: skip


def _solver_faults(residual: Any) -> list[str]:
    """Fault of a solver that left too much of its equation; NaN fails."""
    if residual is None or residual <= _RESIDUAL:
        return []
    return [
        f"the solver left {float(residual):.2g} of the gradient unsolved: give it more iterations "
        "(or timesteps, or a larger scale, for learning.solvers.spiking_ternary), another method, "
        "or a tighter bound of the feedback weight (learning.Spectral)"
    ]


def _statistics_fault(case, reference, statistics, moved) -> str:
    # A replay that writes statistics again leaves them where two updates of `store` do.
    twice = case.outcome(reference, updates=2).statistics
    gaps = memory.checking.compare_gradients(statistics, twice)
    # Statistics of two programs differ by rounding, those of one and two updates by far more.
    if max(gap.relative for gap in gaps.values()) <= 1e-5:
        return "statistics were updated twice: they must leave once, from the forward pass"
    return f"statistics differ from store's: {', '.join(moved)}"


def _right_without_dropout(case, strategy, reference, bound) -> bool:
    silent = case.without_dropout()
    if silent is None:
        return False
    outcomes = [silent.outcome(s) for s in (strategy, reference)]
    gaps = memory.checking.compare_gradients(*(outcome.gradients for outcome in outcomes))
    equal = not memory.checking.unequal_leaves(*(outcome.outputs for outcome in outcomes))
    return equal and max(gap.relative for gap in gaps.values()) <= bound


def _outcome(program, state: TrainState, batch: data.Batch) -> _Outcome:
    inputs = encode_batch(program, state, batch)

    def loss(params, own):
        return objective(params, program, own, inputs, batch)

    gradients, found, (_, outputs, aux) = grad_with_infos(loss, state)
    stream = nn.contract.stream_use(aux.diagnostics)
    return _Outcome(gradients, outputs, aux.statistics, stream, found.get("solver_residual"))


def _dropouts(network: nn.Network):
    return (m for _, m in nnx.iter_modules(network) if isinstance(m, nn.Dropout))
