"""Spike lists: independent Poisson trains, padding without spikes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import encoding

RATES = jnp.array([0.5, 0.0, 0.02, 1.5])


def trains(key, *, timesteps=400, slots=16, rates=RATES):
    lists = encoding.spike_lists.poisson_lists(key, rates, timesteps=timesteps, slots=slots)
    # Out of range, the padding is a row of zeros.
    return lists, jax.nn.one_hot(lists, len(rates), dtype=jnp.float32).sum(-2)


def test_counts_have_the_mean_and_the_variance_of_poisson_trains():
    keys = jax.random.split(jax.random.key(0), 100)
    counts = np.asarray(jax.vmap(lambda k: trains(k)[1].sum(0))(keys))
    mean = 400 * np.asarray(RATES)
    error = np.sqrt(mean / 100) + 1e-9
    assert np.all(abs(counts.mean(0) - mean) < 5 * error)
    assert counts[:, 1].max() == 0  # rate 0 never fires
    assert counts[:, 3].var() == pytest.approx(mean[3], rel=0.5)


def test_steps_and_inputs_are_independent():
    _, spikes = trains(jax.random.key(1), timesteps=20_000)
    spikes = np.asarray(spikes)
    assert abs(np.corrcoef(spikes[:, 0], spikes[:, 3])[0, 1]) < 0.04
    assert abs(np.corrcoef(spikes[:-1, 3], spikes[1:, 3])[0, 1]) < 0.04


def test_spikes_come_first_and_padding_after():
    lists, _ = trains(jax.random.key(2))
    there = np.asarray(lists) < len(RATES)
    assert there.any() and not there.all()
    assert np.all(there[:, :-1] >= there[:, 1:])
    assert lists.dtype == jnp.int32


def test_no_rate_no_spike():
    lists, spikes = trains(jax.random.key(3), rates=jnp.zeros(4))
    assert np.all(np.asarray(lists) == 4) and not np.asarray(spikes).any()


def test_the_same_key_gives_the_same_spikes():
    one, two, other = (trains(jax.random.key(k))[0] for k in (4, 4, 5))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


@pytest.mark.parametrize("total", [0.1, 3.0, 40.0])
def test_slots_hold_all_but_the_share(total):
    slots = encoding.spike_lists.spike_slots(total, overflow=1e-4)
    drawn = np.random.default_rng(0).poisson(total, 200_000)
    assert (drawn > slots).mean() <= 3e-4
    assert (drawn > slots - 2).mean() > 1e-4  # two less would not do


def test_a_full_timestep_loses_its_last_spikes():
    lists, spikes = trains(jax.random.key(6), slots=1)
    assert lists.shape == (400, 1) and np.asarray(spikes).sum(-1).max() == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timesteps": 0}, "timesteps"),
        ({"slots": 0}, "slots"),
        ({"rates": jnp.ones((2, 3))}, "jax.vmap over"),
        ({"rates": jnp.ones(0)}, "jax.vmap over"),
        ({"rates": jnp.array([1.0, -1.0])}, "at least 0"),
        ({"rates": jnp.array([1.0, jnp.nan])}, "finite"),
        ({"rates": jnp.array([1.0, jnp.inf])}, "finite"),
    ],
)
def test_bad_arguments_name_the_cure(change, words):
    options = {"rates": RATES, "timesteps": 3, "slots": 3} | change
    rates = options.pop("rates")
    with pytest.raises(ValueError, match=words):
        encoding.spike_lists.poisson_lists(jax.random.key(0), rates, **options)


def test_slots_of_a_huge_rate_are_counted_at_once():
    # exp(-total) is 0 from 746 on; counting to 10^12 would take days.
    assert encoding.spike_lists.spike_slots(1e12) == 10**12 + 20 * 10**6 + 20
    with pytest.raises(TypeError, match="random.key"):
        encoding.spike_lists.poisson_lists(jax.random.PRNGKey(0), RATES, timesteps=3, slots=3)


@pytest.mark.parametrize(("total", "overflow"), [(-1.0, 0.1), (float("nan"), 0.1), (1.0, 0.0)])
def test_spike_slots_refuses_nonsense(total, overflow):
    with pytest.raises(ValueError, match="spikes per timestep|share"):
        encoding.spike_lists.spike_slots(total, overflow=overflow)
