"""Reward-modulated STDP: a reward applies the eligibility to the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, plasticity

PARAMS = plasticity.reward.RewardParams(
    plasticity.pair.PairParams(eta_pre=0.01, eta_post=0.02, decay_pre=0.8, decay_post=0.7), 0.9
)


def run(reward, *, pre=(0, 4), post=(2,), steps=10):
    clock = np.arange(steps)
    spikes = [np.isin(clock, times).astype(np.float32)[:, None] for times in (pre, post)]
    return scanned(*spikes, np.asarray(reward, np.float32))


@jax.jit
def scanned(*spikes_and_rewards):
    state = plasticity.reward.reward_state(jnp.full((1, 1), 0.5))
    return memory.store(plasticity.reward.reward_stdp, PARAMS, state, spikes_and_rewards)


def test_a_late_reward_pays_what_is_left():
    reward = np.zeros(10)
    reward[7] = 1.0
    state, weights = run(reward)
    up, down = 0.02 * 0.8**2, 0.01 * 0.7**2  # pre 2 steps before post, pre 2 steps after it
    expected = 0.5 + up * 0.9**5 - down * 0.9**3
    np.testing.assert_allclose(weights[:7, 0, 0], 0.5)
    np.testing.assert_allclose(weights[7:, 0, 0], expected, rtol=1e-6)


def test_no_reward_no_change_and_punishment_is_the_opposite():
    reward = np.zeros(10)
    assert float(run(reward)[0].weights[0, 0]) == 0.5
    reward[5] = 1.0
    paid, taken = (float(run(sign * reward)[0].weights[0, 0]) for sign in (1, -1))
    assert paid - 0.5 == pytest.approx(0.5 - taken, rel=1e-5) and paid > 0.5


def test_weights_stay_in_their_bounds():
    for sign, bound in ((1e3, 1.0), (-1e3, 0.0)):
        assert float(run(np.full(10, sign), pre=(0,))[0].weights[0, 0]) == bound
