"""Triplet STDP of Diehl and Cook: potentiation needs two postsynaptic spikes in a row.

    on a presynaptic spike      w -= eta_pre post_1                    pre = 1
    on a postsynaptic spike     w += eta_post pre post_2               post_1 = post_2 = 1

The changes use the traces before the spikes of the current step set them, `pre` excepted: an input
that fires in the same step counts as firing just before. The first postsynaptic spike after silence
therefore changes nothing (`post_2 = 0`). Weights stay in [0, w_max].

`triplet_stdp` is a step on dense spike trains (batch axes as for `pair_stdp`), `TripletSTDP` the
same rule on spike lists inside a `plasticity.Network`.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015, and its released code; after J. P. Pfister, W. Gerstner,
"Triplets of spikes in a model of spike timing-dependent plasticity", 2006.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from snnjax.plasticity._synapses import Format, count_updates, update_columns, update_rows
from snnjax.plasticity.pair import outer
from snnjax.plasticity.traces import nearest_neighbour, nearest_neighbour_list
from snnjax.typing import Array, Key

__all__ = ["TripletParams", "TripletSTDP", "TripletState", "triplet_state", "triplet_stdp"]


class TripletParams(NamedTuple):
    """Parameters of triplet STDP, scalars.

    Attributes:
        eta_pre: Depression per presynaptic spike.
        eta_post: Potentiation per postsynaptic spike.
        decay_pre: Decay of the presynaptic trace per timestep, time constant 20 ms.
        decay_post_1: Decay of the fast postsynaptic trace per timestep, time constant 20 ms.
        decay_post_2: Decay of the slow postsynaptic trace per timestep, time constant 40 ms.
        w_max: Upper bound of the weights.
    """

    eta_pre: float = 1e-4
    eta_post: float = 1e-2
    # exp(-dt / tau) at the original's timestep of 0.5 ms.
    decay_pre: float = 0.9753099
    decay_post_1: float = 0.9753099
    decay_post_2: float = 0.9875778
    w_max: float = 1.0


class TripletState(NamedTuple):
    """Weights `[n, N]`, traces `pre` `[..., n]`, `post_1` and `post_2` `[..., N]`."""

    weights: Array
    pre: Array
    post_1: Array
    post_2: Array


def triplet_state(weights: Array, *, batch: tuple[int, ...] = ()) -> TripletState:
    """State with weights `[n, N]` and zero traces, for presentations with the axes `batch`."""
    inputs, neurons = weights.shape
    pre, *post = (jnp.zeros((*batch, size), weights.dtype) for size in (inputs, neurons, neurons))
    return TripletState(weights, pre, *post)


def triplet_stdp(
    params: TripletParams, state: TripletState, spikes: tuple[Array, Array]
) -> tuple[TripletState, Array]:
    """Applies one timestep of triplet STDP to dense spikes.

        w <- clip(w - eta_pre  s_pre post_1)
        w <- clip(w + eta_post pre s_post post_2)         clip to [0, w_max]

    The traces `post_1` and `post_2` are those before the spikes of this timestep.

    Args:
        params: Learning rates, decays and upper bound.
        state: Weights and traces after the previous timestep.
        spikes: Presynaptic `[..., n]` and postsynaptic `[..., N]` spikes, 0 or 1.

    Returns:
        The new state and its weights, `[n, N]`.
    """
    pre_spikes, post_spikes = spikes
    # `pre` alone includes this timestep: a coincident input counts as firing just before.
    pre = nearest_neighbour(state.pre, pre_spikes, params.decay_pre)
    post_1, post_2 = params.decay_post_1 * state.post_1, params.decay_post_2 * state.post_2
    weights = state.weights - params.eta_pre * outer(pre_spikes, post_1)
    # Clipped between the changes, as `TripletSTDP` clips rows and then columns.
    weights = jnp.clip(weights, 0, params.w_max)
    weights = weights + params.eta_post * outer(pre, post_spikes * post_2)
    weights = jnp.clip(weights, 0, params.w_max)
    # Set only now: a neuron's own spike must not enter the factors of its update.
    ones = jnp.ones_like(post_1)
    post_1, post_2 = (jnp.where(post_spikes > 0, ones, trace) for trace in (post_1, post_2))
    return TripletState(weights, pre, post_1, post_2), weights


class TripletTraces(NamedTuple):
    """Traces of `TripletSTDP`: `pre` `[n]`, `post_1` and `post_2` `[N]`."""

    pre: Array
    post_1: Array
    post_2: Array


@dataclasses.dataclass(frozen=True)
class TripletSTDP:
    """Triplet STDP on spike lists; equal to `triplet_stdp`.

    Args:
        params: Learning rates, decays and upper bound.
        depress: Depresses at presynaptic spikes; without depression the rule is post-triggered.
    """

    params: TripletParams = TripletParams()
    depress: bool = True

    def initial_traces(self, inputs: int, neurons: int) -> TripletTraces:
        """Zero traces of n inputs and N neurons."""
        return TripletTraces(jnp.zeros(inputs), jnp.zeros(neurons), jnp.zeros(neurons))

    def __call__(
        self,
        traces: TripletTraces,
        weights: Array,
        active: Array,
        spikes: Array,
        *,
        form: Format | None,
        key: Key | None,
    ) -> tuple[TripletTraces, Array, Array]:
        """Applies one timestep.

        Args:
            traces: Traces after the previous timestep.
            weights: Weights `[n, N]`, as stored.
            active: Indices of the firing inputs, `[slots]`, padded with n.
            spikes: Postsynaptic spikes, `[N]`, 0 or 1.
            form: Fixed-point format of the weights; None is float32.
            key: Random key of a format that rounds stochastically.

        Returns:
            The new traces, the new weights, and the number of updated weights.
        """
        params = self.params
        pre = nearest_neighbour_list(traces.pre, active, params.decay_pre)
        post_1, post_2 = params.decay_post_1 * traces.post_1, params.decay_post_2 * traces.post_2
        # Independent rounding noise: a weight may change in its row and in its column.
        rows_key, columns_key = (None, None) if key is None else jax.random.split(key)
        if self.depress:

            def weaken(rows):
                return jnp.clip(rows - params.eta_pre * post_1, 0, params.w_max)

            weights = update_rows(weights, active, weaken, form=form, key=rows_key)

        def strengthen(column, j):
            return jnp.clip(column + params.eta_post * post_2[j] * pre, 0, params.w_max)

        weights = update_columns(weights, spikes > 0, strengthen, form=form, key=columns_key)
        fired = spikes > 0
        # After both updates, as in `triplet_stdp`: the first spike after silence changes nothing.
        post_1, post_2 = jnp.where(fired, 1.0, post_1), jnp.where(fired, 1.0, post_2)
        updates = count_updates(weights, active if self.depress else None, fired)
        return TripletTraces(pre, post_1, post_2), weights, updates
