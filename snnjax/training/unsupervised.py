"""Experiments that learn by plasticity: no gradient, no optimizer, labels for evaluation only.

    rates  = encode(experiment, inputs, key)              [B, ...] -> [B, n], spikes per timestep
    counts = present(network, ...)                        one example after the other -> [B, N]
    scores = score(counts, responses)                     -> [B, K]

A training step presents the examples of a batch in turn; each presentation changes the weights for
the next. Its accuracy uses the responses before the batch, which do not contain the batch's own
labels; its loss is the share of wrong answers. Before the test examples are evaluated, responses
are measured again, on training examples and with learning off.

The state is a `TrainState`: `params` are weights and thresholds, `constants` stored connections,
`optimizer` the activity after the last presentation, `statistics` the responses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from snnjax import data, encoding, plasticity
from snnjax.training._watch import data_places, tree_place, watch
from snnjax.training.errors import ExperimentError, user_code
from snnjax.training.experiment import BaseExperiment
from snnjax.training.state import TrainState
from snnjax.training.step import EvalMetrics
from snnjax.training.task import Classification, Task
from snnjax.typing import Array, Key

__all__ = [
    "PlasticityMetrics",
    "PlasticityProgram",
    "Unsupervised",
    "check_rates",
    "eval_step",
    "initialize",
    "measure_responses",
    "train_step",
]

# Examples whose rates are checked against the network's slots: enough to meet a bright one.
_RATE_EXAMPLES = 2_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unsupervised(BaseExperiment):
    """Experiment whose network learns by plasticity.

    Attributes:
        learner: `(experiment) -> plasticity.Network`, which sets the length of a presentation.
        encode: `(experiment, inputs, key) -> rates [B, n]`, spikes per timestep of its `cell.dt`.
        score: `(counts [B, N], responses) -> scores [B, K]`: `plasticity.labels.all_activity` or
            `plasticity.labels.proportion`.
        assign: Number of first training examples that assign classes to neurons.
    """

    learns_by: ClassVar[str] = "plasticity"

    learner: Callable[[Any], plasticity.Network]
    score: Callable[[Array, plasticity.labels.Responses], Array] = plasticity.labels.all_activity
    batch: int = 250
    epochs: int = 1
    log_every: int = 4
    assign: int = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class PlasticityProgram:
    """Static arguments of the steps, the counterpart of `Program`.

    Attributes:
        experiment: Experiment, which encodes and scores.
        network: Simulated network.
        task: Classification, for the name and direction of the metric.
    """

    experiment: Unsupervised
    network: plasticity.Network
    task: Task = Classification()


class PlasticityMetrics(NamedTuple):
    """Metrics of a step, scalars.

    Attributes:
        loss: Share of wrong answers.
        metrics: `accuracy`, the share of right answers by the responses before the batch.
        spikes: Spikes of all neurons per example.
        weight_updates: Weight updates per example.
        showings: Presentations per example.
        finite: True if inputs, thresholds and counts are finite.
        stream: 0, since there is no reversible stream.
        watch: First example whose inputs are not finite.
    """

    loss: Array
    metrics: dict[str, Array]
    spikes: Array
    weight_updates: Array
    showings: Array
    finite: Array
    stream: Array
    watch: Any = ()

    def means(self) -> dict[str, Any]:
        """Values to average over the steps of a record."""
        counts = {name: getattr(self, name) for name in ("spikes", "weight_updates", "showings")}
        return {"loss": self.loss, **self.metrics, **counts}

    def latest(self) -> dict[str, Any]:
        """Values that a record takes from its last step: none."""
        return {}


def initialize(experiment: Unsupervised, *, classes: int) -> tuple[PlasticityProgram, TrainState]:
    """Makes the network and its initial state.

    Args:
        experiment: Experiment, whose `seed` determines every number.
        classes: Number of classes of the data set.

    Raises:
        ExperimentError: `learner(experiment)` failed or did not return a `plasticity.Network`.
    """
    # Two keys: initial weights do not depend on the draws of presentations.
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    with user_code("learner(experiment)"):
        network = experiment.learner(experiment)
        if not isinstance(network, plasticity.Network):
            raise ExperimentError(
                f"learner(experiment) must return a plasticity.Network, got "
                f"{type(network).__name__}: plasticity.presets.current_based(400), for one"
            )
    learned = plasticity.initialize(network, init_key)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        params={"weights": learned.weights, "theta": learned.theta},
        constants=learned.matrices,
        optimizer=learned.activity,
        statistics=plasticity.labels.empty_responses(classes, network.neurons),
        key=run_key,
        finite=jnp.ones((), bool),
    )
    return PlasticityProgram(experiment, network), state


def check_rates(program: PlasticityProgram, split: data.Split) -> None:
    """Checks the rates of some examples: shape, sign and capacity of the network.

    Raises:
        ExperimentError: The rates have another shape, are negative, or exceed the capacity.
    """
    experiment, network = program.experiment, program.network
    size = min(_RATE_EXAMPLES, len(split))
    # The first batch alone: checking all examples would take a pass over the data.
    batch = next(data.evaluation_batches(split, batch_size=size))
    with user_code("encode(experiment, inputs, key)"):
        # On the host: the checks below need values, which a traced function does not have.
        rates = jax.device_get(experiment.encode(experiment, batch.inputs, None))
    if rates.ndim != 2 or rates.shape[1] != network.inputs:
        raise ExperimentError(
            f"encode(experiment, inputs, key) must give rates [B, {network.inputs}], got "
            f"{list(rates.shape)}: flatten the inputs, or give the network inputs={rates.shape[-1]}"
        )
    if not np.isfinite(rates).all():
        example = int(np.argmin(np.isfinite(rates).all(1)))
        raise ExperimentError(
            f"the rates of training example {example} hold NaN or an infinity: look at the data "
            "and at encode(experiment, inputs, key)"
        )
    # Gaps between spikes are divided by the total rate, which a negative rate would distort.
    if rates.min() < 0:
        raise ExperimentError(f"rates are spikes per timestep, at least 0, got {rates.min():.3g}")
    if (needed := encoding.spike_lists.spike_slots(float(rates.sum(1).max()))) > network.slots:
        raise ExperimentError(
            f"the brightest of {len(rates)} examples gives {rates.sum(1).max():.1f} spikes per "
            f"timestep, more than {network.slots} slots can hold: give the network slots={needed}, "
            "or lower its rates"
        )


def train_step(
    program: PlasticityProgram, state: TrainState, batch: data.Batch
) -> tuple[TrainState, PlasticityMetrics]:
    """Presents the examples of a batch in turn, with learning on."""
    experiment = program.experiment
    key = jax.random.fold_in(state.key, state.step)
    # Two keys, so that random rates do not shift the draws of spikes.
    encode_key, present_key = jax.random.split(key)
    rates = experiment.encode(experiment, batch.inputs, encode_key)
    watched = watch(data_places(batch, rates[None]), len(batch.labels))
    after, shown = _present(program, state, rates, present_key, learning=True)
    # The responses before the batch: those after it contain the labels to be predicted.
    right = jnp.argmax(experiment.score(shown.counts, state.statistics), -1) == batch.labels
    accuracy = right.astype(jnp.float32).mean()
    # Responses fade over about `assign` examples: older ones were given by other weights.
    kept = max(0.0, 1 - experiment.batch / experiment.assign)
    responses = plasticity.labels.add_examples(
        state.statistics, shown.counts, batch.labels, retention=kept
    )
    # Weights lie within bounds; thresholds and counts have none and show a divergence.
    finite = jnp.isfinite(after.params["theta"]).all() & jnp.isfinite(shown.counts).all()
    finite = finite & watched.clean
    after = after._replace(
        step=state.step + 1,
        position=state.position + 1,
        statistics=responses,
        finite=state.finite & finite,
    )
    return after, PlasticityMetrics(
        loss=1 - accuracy,
        metrics={"accuracy": accuracy},
        spikes=shown.counts.sum(-1).mean(),
        weight_updates=shown.updates.mean(),
        showings=shown.showings.astype(jnp.float32).mean(),
        finite=finite,
        # The loop reads this metric of every kind of step.
        stream=jnp.zeros(()),
        watch=watched,
    )


def eval_step(program: PlasticityProgram, state: TrainState, batch: data.Batch) -> EvalMetrics:
    """Sums over a batch, presented with learning off and a fixed key."""
    experiment, network = program.experiment, program.network
    rates = experiment.encode(experiment, batch.inputs, None)
    counts = _spike_counts(program, state, rates)
    right = jnp.argmax(experiment.score(counts, state.statistics), -1) == batch.labels
    weight = batch.weights.sum()
    correct = jnp.where(right, batch.weights, 0).sum()
    spikes = (counts.sum(-1) * batch.weights).sum() / (network.neurons * network.timesteps)
    return EvalMetrics(
        loss=weight - correct,
        metrics={"accuracy": correct},
        weight=weight,
        rates={"neurons": spikes},
        analog={"neurons": jnp.zeros((), bool)},
        # All neurons count as one layer under this name.
        neurons={"neurons": jnp.asarray(network.neurons)},
        watch=watch(
            [*tree_place("parameters", state.params), *data_places(batch, rates[None])],
            len(batch.labels),
            weights=batch.weights,
        ),
    )


def measure_responses(
    program: PlasticityProgram, state: TrainState, batch: data.Batch
) -> plasticity.labels.Responses:
    """Measures responses to one batch with learning off."""
    # From zero: the old responses belong to older weights.
    nothing = jax.tree.map(jnp.zeros_like, state.statistics)
    rates = program.experiment.encode(program.experiment, batch.inputs, None)
    counts = _spike_counts(program, state, rates)
    return plasticity.labels.add_examples(nothing, counts, batch.labels, weight=batch.weights)


def _spike_counts(program: PlasticityProgram, state: TrainState, rates: Array) -> Array:
    """Spike counts `[B, N]` with learning off, for examples with rates `[B, n]`."""
    # A fixed key: evaluations of one state agree.
    return _present(program, state, rates, jax.random.key(0), learning=False)[1].counts


def _present(
    program: PlasticityProgram, state: TrainState, rates: Array, key: Key, *, learning: bool
) -> tuple[TrainState, plasticity.network.Presentation]:
    """Presents examples with rates `[B, n]` in turn."""

    def one(carry, x):
        return plasticity.present(program.network, carry, *x, learning=learning)

    start = plasticity.network.NetworkState(
        state.params["weights"], state.params["theta"], state.optimizer, state.constants
    )
    # A scan over examples: each presentation needs the weights that the one before left.
    learned, shown = lax.scan(one, start, (rates, jax.random.split(key, len(rates))))
    params = {"weights": learned.weights, "theta": learned.theta}
    return state._replace(params=params, optimizer=learned.activity), shown
