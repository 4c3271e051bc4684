"""The leaky integrator against its closed form: a weighted sum over the past."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons.li import LIParams
from snnjax.neurons.lif import lif_state
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal
from tests.oracle import neurons as oracle

pytestmark = pytest.mark.fast
T, B, N = 7, 2, 3


def run(xs, decay, scale_input=False):
    step = bind(neurons.li, scale_input=scale_input)
    rest = lif_state(xs.shape[1:], dtype=xs.dtype)
    return memory.store(step, LIParams(decay), rest, xs)


@pytest.mark.parametrize("scale_input", [False, True])
@pytest.mark.parametrize("decay", [0.3, 0.9, 1.0])
def test_equals_the_weighted_sum(x64, decay, scale_input):
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(T, B, N)))
    state, outputs = run(xs, decay, scale_input)
    assert_close(outputs, oracle.li(np.asarray(xs), decay, scale_input=scale_input), 1e-13)
    assert_equal(state.v, outputs[-1])


def test_it_is_linear(x64):
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(rng.normal(size=(T, B, N))) for _ in range(2))
    assert_close(run(x + 3 * y, 0.8)[1], run(x, 0.8)[1] + 3 * run(y, 0.8)[1], 1e-13)


def test_one_decay_per_neuron_acts_on_its_own_neuron(x64):
    xs = jnp.asarray(np.random.default_rng(2).normal(size=(T, B, N)))
    decays = jnp.asarray([0.2, 0.5, 0.9])
    _, together = run(xs, decays)
    for n in range(N):
        assert_close(together[..., n], run(xs, decays[n])[1][..., n], 1e-14)
