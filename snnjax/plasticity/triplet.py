"""Triplet STDP of Diehl and Cook: potentiation needs two postsynaptic spikes in a row.

    on a presynaptic spike      w -= eta_pre post_1                    pre = 1
    on a postsynaptic spike     w += eta_post pre post_2               post_1 = post_2 = 1

where each factor is the trace before this step's own spike set it, `pre` excepted: an input that
fires in the same step counts as just before. So the first postsynaptic spike after silence changes
nothing (`post_2 = 0`). Weights stay in [0, w_max].

`triplet_stdp` is a step of dense spike trains (batch axes as for `pair_stdp`), `TripletSTDP` the
same rule on lists of spikes inside a `plasticity.Network`.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015, and its released code; after J. P. Pfister, W. Gerstner,
"Triplets of spikes in a model of spike timing-dependent plasticity", 2006.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from snnjax.plasticity.pair import outer
from snnjax.plasticity.synapses import Format, update_columns, update_rows, weights_touched
from snnjax.plasticity.traces import latest, latest_of_list
from snnjax.typing import Array, Key

__all__ = ["TripletParams", "TripletSTDP", "TripletState", "triplet_state", "triplet_stdp"]


class TripletParams(NamedTuple):
    """Parameters of triplet STDP, scalars; decays are `exp(-dt / tau)`, here of 0.5 ms.

    Attributes:
        eta_pre: depression per presynaptic spike.
        eta_post: potentiation per postsynaptic spike.
        decay_pre: of the presynaptic trace, 20 ms.
        decay_post_1: of the fast postsynaptic trace, 20 ms.
        decay_post_2: of the slow one, 40 ms.
        w_max: upper bound of the weights.
    """

    eta_pre: float = 1e-4
    eta_post: float = 1e-2
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
    """Weights `[n, N]` with traces at rest, for presentations with these batch axes."""
    inputs, neurons = weights.shape
    pre, *post = (jnp.zeros((*batch, size), weights.dtype) for size in (inputs, neurons, neurons))
    return TripletState(weights, pre, *post)


def triplet_stdp(
    params: TripletParams, state: TripletState, spikes: tuple[Array, Array]
) -> tuple[TripletState, Array]:
    """One timestep of triplet STDP on dense spikes (equation above).

    Args:
        params: rates, decays and bound.
        state: weights and traces of the step before.
        spikes: presynaptic `[..., n]` and postsynaptic `[..., N]`, 0 or 1.

    Returns:
        The new state and its weights.
    """
    pre_spikes, post_spikes = spikes
    pre = latest(state.pre, pre_spikes, params.decay_pre)
    post_1, post_2 = params.decay_post_1 * state.post_1, params.decay_post_2 * state.post_2
    weights = state.weights - params.eta_pre * outer(pre_spikes, post_1)
    weights = jnp.clip(weights, 0, params.w_max)
    weights = weights + params.eta_post * outer(pre, post_spikes * post_2)
    weights = jnp.clip(weights, 0, params.w_max)
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
    """Triplet STDP on lists of spikes; equal to `triplet_stdp`.

    Args:
        params: Rates, decays and bound.
        depress: Whether presynaptic spikes weaken; without, the rule is post-triggered.
    """

    params: TripletParams = TripletParams()
    depress: bool = True

    def rest(self, inputs: int, neurons: int) -> TripletTraces:
        """Traces before a presentation."""
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
        """One timestep: traces and weights after it, and how many weights it touched."""
        params = self.params
        pre = latest_of_list(traces.pre, active, params.decay_pre)
        post_1, post_2 = params.decay_post_1 * traces.post_1, params.decay_post_2 * traces.post_2
        rows_key, columns_key = (None, None) if key is None else jax.random.split(key)
        if self.depress:

            def weaken(rows):
                return jnp.clip(rows - params.eta_pre * post_1, 0, params.w_max)

            weights = update_rows(weights, active, weaken, form=form, key=rows_key)

        def strengthen(column, j):
            return jnp.clip(column + params.eta_post * post_2[j] * pre, 0, params.w_max)

        weights = update_columns(weights, spikes > 0, strengthen, form=form, key=columns_key)
        fired = spikes > 0
        post_1, post_2 = jnp.where(fired, 1.0, post_1), jnp.where(fired, 1.0, post_2)
        touched = weights_touched(weights, active if self.depress else None, fired)
        return TripletTraces(pre, post_1, post_2), weights, touched
