"""Experiments that learn by plasticity: no gradient, no optimizer, labels only to judge.

    rates  = encode(experiment, inputs, key)              [B, ...] -> [B, n], spikes per timestep
    counts = present(network, ...)                        one example after the other -> [B, N]
    scores = score(counts, responses)                     -> [B, K]

A training step shows a batch of examples, each at the weights the one before has left. What it
reports as accuracy is of the responses before the batch, so it was not told its labels; its loss
is the share of wrong answers. Before the test examples are judged, responses are measured anew, on
training examples and with learning off.

The state is a `TrainState`: `params` are weights and thresholds, `constants` stored connections,
`optimizer` what the last presentation left behind, `statistics` the responses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from snnjax import data, encoding, plasticity
from snnjax.training.errors import ExperimentError, calling
from snnjax.training.experiment import Experiment
from snnjax.training.state import TrainState
from snnjax.training.step import EvalMetrics
from snnjax.typing import Array, Key

__all__ = [
    "Learner",
    "PlasticityMetrics",
    "Unsupervised",
    "check_rates",
    "initialize_learner",
    "judge_step",
    "learn_step",
    "respond",
]

_LOOKED_AT = 2_000  # examples whose rates are checked against the network's slots


def _no_network(experiment: Any, rngs: nnx.Rngs) -> Any:
    raise ExperimentError(f"{experiment.name} learns by plasticity: it has no network to derive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unsupervised(Experiment):
    """An experiment whose network learns by plasticity.

    Fields about gradients (`optimizer`, `learning_rate`, `memory`, ...) do nothing and are no
    options; the length of a presentation is the network's.

    Attributes:
        learner: `(experiment) -> plasticity.Network`.
        encode: `(experiment, inputs, key) -> rates [B, n]`, spikes per timestep of its `cell.dt`.
        score: `(counts [B, N], responses) -> scores [B, K]`: `plasticity.labels.all_activity` or
            `plasticity.labels.proportion`.
        assign: Training examples, from the first on, by which neurons get their class.
    """

    UNUSED: ClassVar[tuple[str, ...]] = (
        "timesteps", "accumulate", "norm_groups", "clips", "learning_rate", "warmup_epochs",
        "weight_decay", "clip_norm", "label_smoothing", "mixup", "mixup_epochs",
        "mixup_probability", "precision", "memory", "memory_scheduler",
    )  # fmt: skip

    learner: Callable[[Any], plasticity.Network]
    network: Callable[[Any, Any], Any] = _no_network
    score: Callable[[Array, plasticity.labels.Responses], Array] = plasticity.labels.all_activity
    batch: int = 250
    epochs: int = 1
    log_every: int = 4
    assign: int = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class Learner:
    """What stays fixed while learning; the counterpart of `Program`.

    Attributes:
        experiment: its functions encode and judge.
        network: what is simulated.
    """

    experiment: Unsupervised
    network: plasticity.Network


class PlasticityMetrics(NamedTuple):
    """What a step of learning tells, scalars.

    Attributes:
        loss: share of wrong answers.
        accuracy: share of right answers, by the responses before the batch.
        spikes: of all neurons, per example.
        weight_updates: per example.
        showings: per example.
        finite: whether thresholds and counts are.
        stream: 0; there is no reversible stream.
    """

    loss: Array
    accuracy: Array
    spikes: Array
    weight_updates: Array
    showings: Array
    finite: Array
    stream: Array


def initialize_learner(experiment: Unsupervised, *, classes: int) -> tuple[Learner, TrainState]:
    """The network and its state before the first example.

    Raises:
        ExperimentError: `learner(experiment)` failed, or returned something else.
    """
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))
    with calling("learner(experiment)"):
        network = experiment.learner(experiment)
        if not isinstance(network, plasticity.Network):
            raise ExperimentError(
                f"learner(experiment) must return a plasticity.Network, got "
                f"{type(network).__name__}: plasticity.current_based(400), for one"
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
    return Learner(experiment, network), state


def check_rates(learner: Learner, split: data.Split) -> None:
    """Looks at some examples' rates, so that a shape or a capacity that does not fit has a name.

    Raises:
        ExperimentError: It says what.
    """
    experiment, network = learner.experiment, learner.network
    batch = next(data.evaluation_batches(split, batch_size=min(_LOOKED_AT, len(split))))
    with calling("encode(experiment, inputs, key)"):
        rates = jax.device_get(experiment.encode(experiment, batch.inputs, None))
    if rates.ndim != 2 or rates.shape[1] != network.inputs:
        raise ExperimentError(
            f"encode(experiment, inputs, key) must give rates [B, {network.inputs}], got "
            f"{list(rates.shape)}: flatten the inputs, or give the network inputs={rates.shape[-1]}"
        )
    if rates.min() < 0:
        raise ExperimentError(f"rates are spikes per timestep, at least 0, got {rates.min():.3g}")
    if (needed := encoding.slots_for(float(rates.sum(1).max()))) > network.slots:
        raise ExperimentError(
            f"the brightest of {len(rates)} examples gives {rates.sum(1).max():.1f} spikes per "
            f"timestep, more than {network.slots} slots can hold: give the network slots={needed}, "
            "or lower its rates"
        )


def learn_step(
    learner: Learner, state: TrainState, batch: data.Batch
) -> tuple[TrainState, PlasticityMetrics]:
    """Shows a batch, one example after the other, learning."""
    experiment = learner.experiment
    key = jax.random.fold_in(state.key, state.step)
    encode_key, show_key = jax.random.split(key)
    rates = experiment.encode(experiment, batch.inputs, encode_key)
    after, found = _show(learner, state, rates, show_key, learning=True)
    right = jnp.argmax(experiment.score(found.counts, state.statistics), -1) == batch.labels
    accuracy = right.astype(jnp.float32).mean()
    kept = max(0.0, 1 - experiment.batch / experiment.assign)
    responses = plasticity.labels.add_examples(
        state.statistics, found.counts, batch.labels, retention=kept
    )
    finite = jnp.isfinite(after.params["theta"]).all() & jnp.isfinite(found.counts).all()
    after = after._replace(
        step=state.step + 1,
        position=state.position + 1,
        statistics=responses,
        finite=state.finite & finite,
    )
    return after, PlasticityMetrics(
        loss=1 - accuracy,
        accuracy=accuracy,
        spikes=found.counts.sum(-1).mean(),
        weight_updates=found.updates.mean(),
        showings=found.showings.astype(jnp.float32).mean(),
        finite=finite,
        stream=jnp.zeros(()),
    )


def judge_step(learner: Learner, state: TrainState, batch: data.Batch) -> EvalMetrics:
    """Sums over a batch of examples, shown with learning off; the same spikes every time."""
    experiment, network = learner.experiment, learner.network
    counts = _quietly(learner, state, batch)
    right = jnp.argmax(experiment.score(counts, state.statistics), -1) == batch.labels
    weight = batch.weights.sum()
    correct = jnp.where(right, batch.weights, 0).sum()
    fired = (counts.sum(-1) * batch.weights).sum() / (network.neurons * network.timesteps)
    return EvalMetrics(
        loss=weight - correct,
        correct=correct,
        weight=weight,
        rates={"neurons": fired},
        analog={"neurons": jnp.zeros((), bool)},
        neurons={"neurons": jnp.asarray(network.neurons)},
    )


def respond(learner: Learner, state: TrainState, batch: data.Batch) -> plasticity.labels.Responses:
    """Responses to a batch alone, with learning off."""
    nothing = jax.tree.map(jnp.zeros_like, state.statistics)
    counts = _quietly(learner, state, batch)
    return plasticity.labels.add_examples(nothing, counts, batch.labels, weight=batch.weights)


def _quietly(learner: Learner, state: TrainState, batch: data.Batch) -> Array:
    """Spike counts `[B, N]` with learning off."""
    rates = learner.experiment.encode(learner.experiment, batch.inputs, None)
    return _show(learner, state, rates, jax.random.key(0), learning=False)[1].counts


def _show(
    learner: Learner, state: TrainState, rates: Array, key: Key, *, learning: bool
) -> tuple[TrainState, plasticity.Presentation]:
    """Presents `[B, n]` examples in their order."""

    def one(carry, x):
        return plasticity.present(learner.network, carry, *x, learning=learning)

    start = plasticity.NetworkState(
        state.params["weights"], state.params["theta"], state.optimizer, state.constants
    )
    learned, found = lax.scan(one, start, (rates, jax.random.split(key, len(rates))))
    params = {"weights": learned.weights, "theta": learned.theta}
    return state._replace(params=params, optimizer=learned.activity), found
