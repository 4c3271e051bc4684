"""Pair STDP: inputs that fire before the neuron are strengthened, inputs after it are weakened.

    on a presynaptic spike      w -= eta_pre  post  down(w)
    on a postsynaptic spike     w += eta_post pre   up(w)

The traces `pre` and `post` include the spikes of the current step, so coincident spikes cause both
changes. Weights stay in [0, w_max].

`pair_stdp` is a step on dense spike trains, to be scanned. Its batch axes are presentations at the
same weights, and their changes are summed: minibatch STDP, a different algorithm from sequential
presentations. `PairSTDP` is the same rule on spike lists inside a `plasticity.Network`.

Reference: G. Q. Bi, M. M. Poo, "Synaptic modifications in cultured hippocampal neurons", 1998; S.
Song, K. D. Miller, L. F. Abbott, "Competitive Hebbian learning through spike-timing-dependent
synaptic plasticity", 2000. Minibatches: D. J. Saunders, C. Sigrist, K. Chaney, R. Kozma, H. T.
Siegelmann, "Minibatch Processing in Spiking Neural Networks", 2019, arXiv:1909.02549.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from snnjax.plasticity._synapses import Format, count_updates, update_columns, update_rows
from snnjax.plasticity.traces import Trace, nearest_neighbour, nearest_neighbour_list
from snnjax.plasticity.weight_dependence import Additive, WeightDependence
from snnjax.typing import Array, Key

__all__ = ["PairParams", "PairSTDP", "PairState", "pair_state", "pair_stdp"]


_ADDITIVE = Additive()


class PairParams(NamedTuple):
    """Parameters of pair STDP, scalars.

    Attributes:
        eta_pre: Depression per presynaptic spike.
        eta_post: Potentiation per postsynaptic spike.
        decay_pre: Decay of the presynaptic trace per timestep, `exp(-dt / tau_pre)`.
        decay_post: Decay of the postsynaptic trace per timestep, `exp(-dt / tau_post)`.
        w_max: Upper bound of the weights.
    """

    eta_pre: float = 1e-4
    eta_post: float = 1e-2
    # exp(-1 / 20): a time constant of 20 timesteps.
    decay_pre: float = 0.9512294
    decay_post: float = 0.9512294
    w_max: float = 1.0


class PairState(NamedTuple):
    """State of pair STDP: weights `[n, N]`, traces `pre` `[..., n]` and `post` `[..., N]`."""

    weights: Array
    pre: Array
    post: Array


def pair_state(weights: Array, *, batch: tuple[int, ...] = ()) -> PairState:
    """State with weights `[n, N]` and zero traces, for presentations with the axes `batch`."""
    inputs, neurons = weights.shape
    zeros = jnp.zeros((*batch, 1), weights.dtype)
    return PairState(weights, jnp.tile(zeros, inputs), jnp.tile(zeros, neurons))


def pair_stdp(
    params: PairParams,
    state: PairState,
    spikes: tuple[Array, Array],
    *,
    trace: Trace = nearest_neighbour,
    dependence: WeightDependence = _ADDITIVE,
) -> tuple[PairState, Array]:
    """Applies one timestep of pair STDP to dense spikes.

        pre, post   traces, including the spikes of this timestep
        w <- clip(w - eta_pre  s_pre post   down(w))
        w <- clip(w + eta_post pre  s_post  up(w))        clip to [0, w_max]

    Args:
        params: Learning rates, decays and upper bound.
        state: Weights and traces after the previous timestep.
        spikes: Presynaptic `[..., n]` and postsynaptic `[..., N]` spikes, 0 or 1.
        trace: Trace update, `traces.nearest_neighbour` or `traces.all_to_all`.
        dependence: Factors by which the weight scales its change.

    Returns:
        The new state and its weights, `[n, N]`.
    """
    pre_spikes, post_spikes = spikes
    # Traces include this timestep before they are read: coincident spikes cause both changes.
    pre = trace(state.pre, pre_spikes, params.decay_pre)
    post = trace(state.post, post_spikes, params.decay_post)
    down = outer(pre_spikes, post) * dependence.down(state.weights, params.w_max)
    weights = jnp.clip(state.weights - params.eta_pre * down, 0, params.w_max)
    # Potentiation acts on the depressed weights, the order in which `PairSTDP` touches them.
    up = outer(pre, post_spikes) * dependence.up(weights, params.w_max)
    weights = jnp.clip(weights + params.eta_post * up, 0, params.w_max)
    return PairState(weights, pre, post), weights


def outer(pre: Array, post: Array) -> Array:
    """Outer product `pre[i] post[j]`, summed over the batch axes; `[n, N]`."""
    # One contraction over the batch: no array `[B, n, N]` of changes per presentation.
    return jnp.tensordot(pre.reshape(-1, pre.shape[-1]), post.reshape(-1, post.shape[-1]), (0, 0))


class PairTraces(NamedTuple):
    """Traces of `PairSTDP`: `pre` `[n]` and `post` `[N]`."""

    pre: Array
    post: Array


@dataclasses.dataclass(frozen=True)
class PairSTDP:
    """Pair STDP on spike lists: updates the rows of firing inputs and columns of firing neurons.

    Equal to `pair_stdp` with nearest-neighbour traces.

    Args:
        params: Learning rates, decays and upper bound.
        dependence: Factors by which the weight scales its change.
        depress: Depresses at presynaptic spikes; without depression the rule is post-triggered.
    """

    params: PairParams = PairParams()
    dependence: WeightDependence = Additive()
    depress: bool = True

    def initial_traces(self, inputs: int, neurons: int) -> PairTraces:
        """Zero traces of n inputs and N neurons."""
        return PairTraces(jnp.zeros(inputs), jnp.zeros(neurons))

    def __call__(
        self,
        traces: PairTraces,
        weights: Array,
        active: Array,
        spikes: Array,
        *,
        form: Format | None,
        key: Key | None,
    ) -> tuple[PairTraces, Array, Array]:
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
        post = nearest_neighbour(traces.post, spikes, params.decay_post)
        # Independent rounding noise: a weight may change in its row and in its column.
        rows_key, columns_key = (None, None) if key is None else jax.random.split(key)
        if self.depress:

            def weaken(rows):
                down = post * self.dependence.down(rows, params.w_max)
                return jnp.clip(rows - params.eta_pre * down, 0, params.w_max)

            weights = update_rows(weights, active, weaken, form=form, key=rows_key)

        def strengthen(column, j):
            del j
            up = pre * self.dependence.up(column, params.w_max)
            return jnp.clip(column + params.eta_post * up, 0, params.w_max)

        # Columns after rows, as in `pair_stdp`: potentiation reads the depressed weights.
        weights = update_columns(weights, spikes > 0, strengthen, form=form, key=columns_key)
        updates = count_updates(weights, active if self.depress else None, spikes > 0)
        return PairTraces(pre, post), weights, updates
