"""Reward-modulated STDP: changes of the pair rule accumulate until a reward applies them.

    e[t] = decay_e e[t-1] + (eta_post pre s_post - eta_pre s_pre post)       eligibility, [n, N]
    w[t] = clip(w[t-1] + reward[t] e[t], 0, w_max)

with the traces of `plasticity.pair`. A reward of 0 changes no weight, a negative one reverses the
sign of the change.

Reference: E. M. Izhikevich, "Solving the distal reward problem through linkage of STDP and dopamine
signaling", 2007; R. V. Florian, "Reinforcement learning through modulation of
spike-timing-dependent synaptic plasticity", 2007.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from snnjax.plasticity.pair import PairParams, outer
from snnjax.plasticity.traces import Trace, all_to_all
from snnjax.typing import Array

__all__ = ["RewardParams", "RewardState", "reward_state", "reward_stdp"]


class RewardParams(NamedTuple):
    """Parameters of the pair rule, and the decay of the eligibility per timestep."""

    pair: PairParams = PairParams()
    decay_eligibility: float = 0.99


class RewardState(NamedTuple):
    """Weights and `eligibility` `[n, N]`, traces `pre` `[..., n]` and `post` `[..., N]`."""

    weights: Array
    eligibility: Array
    pre: Array
    post: Array


def reward_state(weights: Array, *, batch: tuple[int, ...] = ()) -> RewardState:
    """State with weights `[n, N]`, zero eligibility and zero traces with the axes `batch`."""
    inputs, neurons = weights.shape
    pre, post = jnp.zeros((*batch, inputs)), jnp.zeros((*batch, neurons))
    return RewardState(weights, jnp.zeros_like(weights), pre, post)


def reward_stdp(
    params: RewardParams,
    state: RewardState,
    x: tuple[Array, Array, Array],
    *,
    trace: Trace = all_to_all,
) -> tuple[RewardState, Array]:
    """Applies one timestep of reward-modulated STDP to dense spikes.

        e <- decay_e e + (eta_post pre s_post - eta_pre s_pre post)
        w <- clip(w + reward e, 0, w_max)

    Args:
        params: Learning rates, decays and upper bound.
        state: State after the previous timestep.
        x: Presynaptic spikes `[..., n]`, postsynaptic spikes `[..., N]` and the reward, a scalar.
        trace: Trace update, `traces.all_to_all` or `traces.nearest_neighbour`.

    Returns:
        The new state and its weights, `[n, N]`.
    """
    pre_spikes, post_spikes, reward = x
    rule = params.pair
    pre = trace(state.pre, pre_spikes, rule.decay_pre)
    post = trace(state.post, post_spikes, rule.decay_post)
    # The change does not depend on the weights, so depression and potentiation need no order,
    # unlike in `pair_stdp`.
    change = rule.eta_post * outer(pre, post_spikes) - rule.eta_pre * outer(pre_spikes, post)
    eligibility = params.decay_eligibility * state.eligibility + change
    # The eligibility includes this timestep: a reward given at a spike counts that spike.
    weights = jnp.clip(state.weights + reward * eligibility, 0, rule.w_max)
    return RewardState(weights, eligibility, pre, post), weights
