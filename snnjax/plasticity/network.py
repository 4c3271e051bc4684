"""A layer of neurons that compete for patterns and learn without labels.

    inputs (Poisson trains) -> w [n, N], plastic -> N neurons -> inhibition of all others

One presentation is `timesteps` of an example's spikes and, unless the state is reset, `rest`
timesteps of silence, in which membranes and traces calm down. Then the weights of the neurons that
fired are scaled to a fixed sum. Presentations follow one another: each learns from the weights the
one before has left. Where too few spikes came, the example is shown again, brighter.

Everything is a pure function of state, rates and key, and is scanned over time and examples.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.encoding import poisson_lists
from snnjax.plasticity.cells import ConductanceCell, CurrentCell
from snnjax.plasticity.homeostasis import AdaptiveThreshold, normalize, normalized
from snnjax.plasticity.inhibition import InhibitoryLayer, LateralInhibition
from snnjax.plasticity.pair import PairSTDP
from snnjax.plasticity.synapses import Format, decode, drive, encode, update_columns
from snnjax.plasticity.triplet import TripletSTDP
from snnjax.plasticity.windowed import WindowedSTDP
from snnjax.typing import Array, Key, PyTree

__all__ = [
    "Activity",
    "Network",
    "NetworkState",
    "Presentation",
    "float_weights",
    "initialize",
    "present",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What defines an unsupervised network; every technique is an argument of its own.

    Args:
        inputs: n.
        neurons: N.
        cell: The excitatory neuron; its `dt` is the timestep.
        inhibition: Through a layer, or lateral.
        rule: How weights change.
        threshold: How thresholds change.
        timesteps: Of one presentation.
        rest: Timesteps of silence after it; 0 resets everything but weights and thresholds instead.
        slots: Spikes of all inputs in one timestep at most, see `encoding.spike_slots`.
        total: What the weights of a neuron sum to after each presentation; None does not scale.
        initial: First weights are uniform in `[0, initial]`, before scaling.
        form: Fixed-point format of the weights, such as `quantization.QFormat(0, 8)`; None is
            float32.
        least: Show an example again, with `brighter` more of its rates, while it gives fewer spikes
            than this; 0 shows it once.
        brighter: Share of the first rates by which each further showing is brighter.
        showings: How often an example is shown at most.
    """

    inputs: int
    neurons: int
    cell: CurrentCell | ConductanceCell
    inhibition: InhibitoryLayer | LateralInhibition
    rule: PairSTDP | TripletSTDP | WindowedSTDP
    threshold: AdaptiveThreshold = AdaptiveThreshold()
    timesteps: int = 250
    rest: int = 0
    slots: int = 64
    total: float | None = 78.4
    initial: float = 0.3
    form: Format | None = None
    least: int = 0
    brighter: float = 0.5
    showings: int = 10

    def __post_init__(self):
        for name in ("inputs", "neurons", "timesteps", "slots", "showings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.rest < 0 or self.least < 0:
            raise ValueError(f"rest and least are counts, got {self.rest} and {self.least}")

    @property
    def duration(self) -> float:
        """Of a presentation with its rest, ms."""
        return self.cell.dt * (self.timesteps + self.rest)


class Activity(NamedTuple):
    """What a presentation leaves behind: cells, inhibition, last spikes `[N]`, traces."""

    cell: Any
    inhibition: Any
    spikes: Array
    traces: Any


class NetworkState(NamedTuple):
    """State of a network between two presentations.

    Attributes:
        weights: `[n, N]`, float32 or the codes of the network's format.
        theta: offset of the thresholds, `[N]`, mV.
        activity: see `Activity`; `()` where every presentation starts from rest.
        matrices: stored connections that do not learn.
    """

    weights: Array
    theta: Array
    activity: Activity | tuple[()]
    matrices: PyTree


class Presentation(NamedTuple):
    """What an example did.

    Attributes:
        counts: spikes of each neuron in its last showing, `[N]`.
        arrived: spikes of all inputs in that showing.
        updates: weights changed by the rule, in all showings.
        showings: how often it was shown.
    """

    counts: Array
    arrived: Array
    updates: Array
    showings: Array


def initialize(network: Network, key: Key) -> NetworkState:
    """Random weights, thresholds at their lowest, everything else at rest."""
    weights_key, rounding_key = jax.random.split(key)
    shape = (network.inputs, network.neurons)
    weights = network.initial * jax.random.uniform(weights_key, shape)
    if network.total is not None:
        weights = normalize(weights, network.total)
    return NetworkState(
        weights=encode(weights, network.form, rounding_key),
        theta=jnp.zeros(network.neurons),
        activity=_calm(network) if network.rest else (),
        matrices=network.inhibition.matrices(network.neurons),
    )


def float_weights(network: Network, weights: Array) -> Array:
    """Weights of a state as float32, whatever they are stored as."""
    return decode(weights, network.form)


def present(
    network: Network, state: NetworkState, rates: Array, key: Key, *, learning: bool
) -> tuple[NetworkState, Presentation]:
    """Shows one example.

    Args:
        network: What is simulated.
        state: Of the presentation before.
        rates: `[n]`, spikes per timestep.
        key: Of the spikes, and of stochastic rounding.
        learning: Whether weights and thresholds change; otherwise they stay bit for bit.

    Returns:
        The new state, and what the example did.
    """

    def again(carry):
        _, seen = carry
        return (seen.counts.sum() < network.least) & (seen.showings < network.showings)

    def show(carry):
        state, seen = carry
        brighter = 1 + network.brighter * seen.showings.astype(jnp.float32)
        showing = jax.random.fold_in(key, seen.showings)
        state, found = _showing(network, state, rates * brighter, showing, learning=learning)
        return state, found._replace(
            updates=seen.updates + found.updates, showings=seen.showings + 1
        )

    nothing = jnp.zeros(())
    seen = Presentation(jnp.zeros(network.neurons), nothing, nothing, jnp.zeros((), jnp.int32))
    if not network.least:
        return show((state, seen))
    # An example that was never shown has fewer spikes than any.
    return lax.while_loop(again, show, (state, seen))


def _showing(network, state, rates, key, *, learning):
    """One showing: the scan over time, then what is done once per presentation."""
    spikes_key, rounding_key, scaling_key = jax.random.split(key, 3)
    size = {"timesteps": network.timesteps, "slots": network.slots}
    active = poisson_lists(spikes_key, rates, **size)
    activity = state.activity if network.rest else _calm(network)
    carry = (state.weights, state.theta, activity, jnp.zeros(network.neurons), jnp.zeros(()))

    def step(carry, x):
        return _timestep(network, state.matrices, rounding_key, carry, x, learning=learning), None

    clock = jnp.arange(network.timesteps + network.rest)
    carry, _ = lax.scan(step, carry, (active, clock[: network.timesteps]))
    counts = carry[3]
    if network.rest:
        silence = jnp.zeros((network.rest, 0), active.dtype)  # lists without a slot
        carry, _ = lax.scan(step, carry, (silence, clock[network.timesteps :]))
    weights, theta, activity, _, updates = carry
    if learning:
        theta = network.threshold.decayed(theta, network.duration)
        weights = _scaled(network, weights, counts, scaling_key)
    arrived = (active < network.inputs).sum().astype(jnp.float32)
    found = Presentation(counts, arrived, updates, jnp.ones((), jnp.int32))
    left = activity if network.rest else ()
    return state._replace(weights=weights, theta=theta, activity=left), found


def _timestep(network, matrices, key, carry, x, *, learning):
    """Inhibition of the step before, membranes, thresholds, weights."""
    (weights, theta, activity, counts, updates), (active, t) = carry, x
    inhibition, held_back = network.inhibition(activity.inhibition, activity.spikes, matrices)
    excitation = drive(weights, active, form=network.form)
    cell, spikes, crossed = network.cell(activity.cell, theta, excitation, held_back)
    traces = activity.traces
    if learning:
        theta = network.threshold.raised(theta, crossed)
        mine = None if network.form is None else jax.random.fold_in(key, t)
        # Always true, but it puts the writing of rows after their reading: without an order between
        # the two XLA copies all weights at each step (a barrier is gone before it decides).
        written = jnp.where(spikes.sum() >= 0, active, network.inputs)
        traces, weights, changed = network.rule(
            traces, weights, written, spikes, form=network.form, key=mine
        )
        updates = updates + changed
    activity = Activity(cell, inhibition, spikes, traces)
    return weights, theta, activity, counts + spikes, updates


def _scaled(network, weights, counts, key):
    """The weights of the neurons that fired, scaled; the others have not changed."""
    if network.total is None:
        return weights
    total = network.total

    def scale(column, j):
        del j
        return normalized(column, total)

    return update_columns(weights, counts > 0, scale, form=network.form, key=key)


def _calm(network: Network) -> Activity:
    neurons = network.neurons
    return Activity(
        cell=network.cell.initial(neurons),
        inhibition=network.inhibition.rest(neurons),
        spikes=jnp.zeros(neurons),
        traces=network.rule.rest(network.inputs, neurons),
    )
