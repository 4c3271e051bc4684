"""Unsupervised network: one layer of neurons that compete for patterns and learn without labels.

    inputs (Poisson trains) -> w [n, N], plastic -> N neurons -> inhibition of all others

A presentation is `timesteps` of an example's spikes, followed by `silence` timesteps without input,
in which membranes and traces relax; with `silence=0` they are reset instead. Then the weights of
the neurons that fired are scaled to a fixed sum. Presentations are sequential: each starts from the
weights of the previous one. An example that evokes too few spikes is shown again, brighter.

Everything is a pure function of state, rates and key, and is scanned over time and examples.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.encoding.spike_lists import poisson_lists
from snnjax.plasticity._synapses import Format, decode, drive, encode, update_columns
from snnjax.plasticity.cells import ConductanceCell, CurrentCell
from snnjax.plasticity.homeostasis import AdaptiveThreshold, normalize_column, normalize_columns
from snnjax.plasticity.inhibition import InhibitoryLayer, LateralInhibition
from snnjax.plasticity.pair import PairSTDP
from snnjax.plasticity.triplet import TripletSTDP
from snnjax.plasticity.windowed import WindowedSTDP
from snnjax.typing import Array, Key, PyTree

__all__ = ["Activity", "Network", "NetworkState", "Presentation", "initialize", "present"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Configuration of an unsupervised network; every technique is an argument of its own.

    Args:
        inputs: Number of inputs, n.
        neurons: Number of excitatory neurons, N.
        cell: Excitatory neuron; its `dt` is the timestep.
        inhibition: Inhibition through a layer of neurons, or lateral.
        rule: Learning rule of the weights.
        threshold: Adaptation of the thresholds.
        timesteps: Timesteps with input in one presentation.
        silence: Timesteps without input after them; 0 resets everything but weights and thresholds
            instead.
        slots: Largest number of input spikes in one timestep, see
            `encoding.spike_lists.spike_slots`.
        total: Sum of a neuron's weights after each presentation; None leaves them unscaled.
        initial: Upper bound of the initial weights, uniform in `[0, initial]` before scaling.
        form: Fixed-point format of the weights, such as `quantization.QFormat(0, 8)`; None is
            float32.
        min_spikes: Output spikes that an example must evoke, otherwise it is shown again; 0 shows
            it once.
        brightening: Fraction of the original rates by which each further showing is brighter.
        max_showings: Largest number of showings of one example.
    """

    inputs: int
    neurons: int
    cell: CurrentCell | ConductanceCell
    inhibition: InhibitoryLayer | LateralInhibition
    rule: PairSTDP | TripletSTDP | WindowedSTDP
    threshold: AdaptiveThreshold = AdaptiveThreshold()
    timesteps: int = 250
    silence: int = 0
    slots: int = 64
    total: float | None = 78.4
    initial: float = 0.3
    form: Format | None = None
    min_spikes: int = 0
    brightening: float = 0.5
    max_showings: int = 10

    def __post_init__(self):
        for name in ("inputs", "neurons", "timesteps", "slots", "max_showings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("silence", "min_spikes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is a count, at least 0, got {getattr(self, name)}")

    @property
    def duration(self) -> float:
        """Duration of a presentation with its silence, ms."""
        return self.cell.dt * (self.timesteps + self.silence)

    def float_weights(self, weights: Array) -> Array:
        """Weights of a `NetworkState` as float32, decoded from the network's format."""
        return decode(weights, self.form)


class Activity(NamedTuple):
    """Fast state after a presentation: cells, inhibition, last spikes `[N]`, traces."""

    cell: Any
    inhibition: Any
    spikes: Array
    traces: Any


class NetworkState(NamedTuple):
    """State of a network between two presentations.

    Attributes:
        weights: Plastic weights `[n, N]`, float32 or codes of the network's format.
        theta: Offsets of the thresholds, `[N]`, mV.
        activity: Fast state of the neurons; `()` where every presentation starts from rest.
        matrices: Stored connections that do not learn.
    """

    weights: Array
    theta: Array
    activity: Activity | tuple[()]
    matrices: PyTree


class Presentation(NamedTuple):
    """Record of one presentation.

    Attributes:
        counts: Spikes of each neuron in the last showing, `[N]`.
        input_spikes: Spikes of all inputs in the last showing.
        updates: Weight updates by the rule, in all showings.
        showings: Number of showings.
    """

    counts: Array
    input_spikes: Array
    updates: Array
    showings: Array


def initialize(network: Network, key: Key) -> NetworkState:
    """Makes the first state: random weights, zero threshold offsets, everything else at rest."""
    # The second key serves formats that round stochastically.
    weights_key, rounding_key = jax.random.split(key)
    shape = (network.inputs, network.neurons)
    weights = network.initial * jax.random.uniform(weights_key, shape)
    if network.total is not None:
        weights = normalize_columns(weights, network.total)
    return NetworkState(
        weights=encode(weights, network.form, rounding_key),
        theta=jnp.zeros(network.neurons),
        activity=_activity_at_rest(network) if network.silence else (),
        matrices=network.inhibition.matrices(network.neurons),
    )


def present(
    network: Network, state: NetworkState, rates: Array, key: Key, *, learning: bool
) -> tuple[NetworkState, Presentation]:
    """Presents one example to the network.

    Args:
        network: Configuration of the network.
        state: State after the previous presentation.
        rates: Spikes per timestep of each input, `[n]`.
        key: Random key of the input spikes and of stochastic rounding.
        learning: Updates weights and thresholds; otherwise they stay bit for bit.

    Returns:
        The new state and the record of the presentation.
    """

    def too_few(carry):
        _, total = carry
        return (total.counts.sum() < network.min_spikes) & (total.showings < network.max_showings)

    def show(carry):
        state, total = carry
        gain = 1 + network.brightening * total.showings.astype(jnp.float32)
        # A key of its own for every showing, or each would draw the spikes of the first.
        showing = jax.random.fold_in(key, total.showings)
        state, last = _showing(network, state, rates * gain, showing, learning=learning)
        return state, last._replace(
            updates=total.updates + last.updates, showings=total.showings + 1
        )

    zero = jnp.zeros(())
    start = Presentation(jnp.zeros(network.neurons), zero, zero, jnp.zeros((), jnp.int32))
    if not network.min_spikes:
        return show((state, start))
    # The start counts 0 spikes in 0 showings, so the loop shows the example at least once.
    return lax.while_loop(too_few, show, (state, start))


def _showing(network, state, rates, key, *, learning):
    """One showing: the scan over time, then the updates made once per presentation."""
    spikes_key, rounding_key, scaling_key = jax.random.split(key, 3)
    size = {"timesteps": network.timesteps, "slots": network.slots}
    active = poisson_lists(spikes_key, rates, **size)
    activity = state.activity if network.silence else _activity_at_rest(network)
    carry = (state.weights, state.theta, activity, jnp.zeros(network.neurons), jnp.zeros(()))

    def step(carry, x):
        return _timestep(network, state.matrices, rounding_key, carry, x, learning=learning), None

    clock = jnp.arange(network.timesteps + network.silence)
    carry, _ = lax.scan(step, carry, (active, clock[: network.timesteps]))
    # Spikes during the silence do not count: they answer no input.
    counts = carry[3]
    if network.silence:
        # Lists without a slot: for lists of padding XLA copies all weights at every timestep.
        silence = jnp.zeros((network.silence, 0), active.dtype)
        carry, _ = lax.scan(step, carry, (silence, clock[network.timesteps :]))
    weights, theta, activity, _, updates = carry
    if learning:
        theta = network.threshold.decay(theta, network.duration)
        weights = _scale_weights(network, weights, counts, scaling_key)
    # Padding of the lists is the index n.
    input_spikes = (active < network.inputs).sum().astype(jnp.float32)
    record = Presentation(counts, input_spikes, updates, jnp.ones((), jnp.int32))
    final = activity if network.silence else ()
    return state._replace(weights=weights, theta=theta, activity=final), record


def _timestep(network, matrices, key, carry, x, *, learning):
    """One timestep: inhibition by the previous spikes, membranes, thresholds, weights."""
    (weights, theta, activity, counts, updates), (active, t) = carry, x
    # Inhibition by the previous spikes: a step has no loop from its own spikes to its membranes.
    inhibition, suppression = network.inhibition(activity.inhibition, activity.spikes, matrices)
    excitation = drive(weights, active, form=network.form)
    cell, spikes, crossed = network.cell(activity.cell, theta, excitation, suppression)
    traces = activity.traces
    if learning:
        # `crossed` and not `spikes`: losers of `one_winner` raise their thresholds, too.
        theta = network.threshold.increase(theta, crossed)
        # float32 weights do not round, and drawing a key per timestep would be wasted.
        step_key = None if network.form is None else jax.random.fold_in(key, t)
        # The condition always holds. It makes the row updates depend on the row reads: without that
        # order XLA copies all weights at each step (it drops an optimization barrier too early).
        ordered = jnp.where(spikes.sum() >= 0, active, network.inputs)
        traces, weights, updated = network.rule(
            traces, weights, ordered, spikes, form=network.form, key=step_key
        )
        updates = updates + updated
    activity = Activity(cell, inhibition, spikes, traces)
    return weights, theta, activity, counts + spikes, updates


def _scale_weights(network, weights, counts, key):
    """Scales the weights of the neurons that fired in this showing."""
    if network.total is None:
        return weights
    total = network.total

    def scale(column, j):
        del j
        return normalize_column(column, total)

    # Only these columns: the weights of a silent neuron keep their sum, up to its depression.
    return update_columns(weights, counts > 0, scale, form=network.form, key=key)


def _activity_at_rest(network: Network) -> Activity:
    """Fast state before the first timestep."""
    neurons = network.neurons
    return Activity(
        cell=network.cell.initial_state(neurons),
        inhibition=network.inhibition.initial_state(neurons),
        spikes=jnp.zeros(neurons),
        traces=network.rule.initial_traces(network.inputs, neurons),
    )
