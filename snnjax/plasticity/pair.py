"""Pair STDP: what fired just before the neuron is strengthened, what fires after it is weakened.

    on a presynaptic spike      w -= eta_pre  post  down(w)
    on a postsynaptic spike     w += eta_post pre   up(w)

with traces `pre` and `post` that count this step's spikes already: spikes at the same step change
by both. Weights stay in [0, w_max].

`pair_stdp` is a step of dense spike trains, to be scanned; its batch axes are presentations at the
same weights, whose changes are added ("minibatch STDP", another algorithm than one presentation
after the other). `PairSTDP` is the same rule on lists of spikes inside a `plasticity.Network`.

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

from snnjax.plasticity.synapses import Format, update_columns, update_rows, weights_touched
from snnjax.plasticity.traces import Trace, latest, latest_of_list
from snnjax.plasticity.weight_dependence import Additive, WeightDependence
from snnjax.typing import Array, Key

__all__ = ["PairParams", "PairSTDP", "PairState", "pair_state", "pair_stdp"]


_ADDITIVE = Additive()


class PairParams(NamedTuple):
    """Parameters of pair STDP, scalars.

    Attributes:
        eta_pre: depression per presynaptic spike.
        eta_post: potentiation per postsynaptic spike.
        decay_pre: kept of the presynaptic trace per timestep, `exp(-dt / tau_pre)`.
        decay_post: kept of the postsynaptic trace.
        w_max: upper bound of the weights.
    """

    eta_pre: float = 1e-4
    eta_post: float = 1e-2
    decay_pre: float = 0.9512294  # 20 steps
    decay_post: float = 0.9512294
    w_max: float = 1.0


class PairState(NamedTuple):
    """State of pair STDP: weights `[n, N]`, traces `pre` `[..., n]` and `post` `[..., N]`."""

    weights: Array
    pre: Array
    post: Array


def pair_state(weights: Array, *, batch: tuple[int, ...] = ()) -> PairState:
    """Weights `[n, N]` with traces at rest, for presentations with these batch axes."""
    inputs, neurons = weights.shape
    zeros = jnp.zeros((*batch, 1), weights.dtype)
    return PairState(weights, jnp.tile(zeros, inputs), jnp.tile(zeros, neurons))


def pair_stdp(
    params: PairParams,
    state: PairState,
    spikes: tuple[Array, Array],
    *,
    trace: Trace = latest,
    dependence: WeightDependence = _ADDITIVE,
) -> tuple[PairState, Array]:
    """One timestep of pair STDP on dense spikes (equation above).

    Args:
        params: rates, decays and bound.
        state: weights and traces of the step before.
        spikes: presynaptic `[..., n]` and postsynaptic `[..., N]`, 0 or 1.
        trace: `latest` (nearest neighbours) or `summed` (all to all).
        dependence: how the weight scales its change.

    Returns:
        The new state and its weights.
    """
    pre_spikes, post_spikes = spikes
    pre = trace(state.pre, pre_spikes, params.decay_pre)
    post = trace(state.post, post_spikes, params.decay_post)
    down = outer(pre_spikes, post) * dependence.down(state.weights, params.w_max)
    weights = jnp.clip(state.weights - params.eta_pre * down, 0, params.w_max)
    up = outer(pre, post_spikes) * dependence.up(weights, params.w_max)
    weights = jnp.clip(weights + params.eta_post * up, 0, params.w_max)
    return PairState(weights, pre, post), weights


def outer(pre: Array, post: Array) -> Array:
    """`sum over the batch of pre[i] post[j]`, `[n, N]`."""
    return jnp.tensordot(pre.reshape(-1, pre.shape[-1]), post.reshape(-1, post.shape[-1]), (0, 0))


class PairTraces(NamedTuple):
    """Traces of `PairSTDP`: `pre` `[n]` and `post` `[N]`."""

    pre: Array
    post: Array


@dataclasses.dataclass(frozen=True)
class PairSTDP:
    """Pair STDP on lists of spikes: rows of the inputs that fire, columns of the neurons that fire.

    Equal to `pair_stdp` with nearest-neighbour traces.

    Args:
        params: Rates, decays and bound.
        dependence: How the weight scales its change.
        depress: Whether presynaptic spikes weaken; without, the rule is post-triggered.
    """

    params: PairParams = PairParams()
    dependence: WeightDependence = Additive()
    depress: bool = True

    def rest(self, inputs: int, neurons: int) -> PairTraces:
        """Traces before a presentation."""
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
        """One timestep: traces and weights after it, and how many weights it touched."""
        params = self.params
        pre = latest_of_list(traces.pre, active, params.decay_pre)
        post = latest(traces.post, spikes, params.decay_post)
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

        weights = update_columns(weights, spikes > 0, strengthen, form=form, key=columns_key)
        touched = weights_touched(weights, active if self.depress else None, spikes > 0)
        return PairTraces(pre, post), weights, touched
