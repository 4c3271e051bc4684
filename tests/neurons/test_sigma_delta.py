"""The sigma-delta coder: the authors' numbers, its bound, its Jacobian, its range."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, nn
from snnjax.neurons.sigma_delta import Coder, Range
from tests.compare import AS_USERS_DO
from tests.conftest import shared_folder

pytestmark = pytest.mark.fast


def golden(name):
    with np.load(shared_folder("golden", "learning_rules") / f"{name}.npz") as stored:
        return {key: stored[key] for key in stored.files}


@pytest.mark.parametrize("name", ["rec_coder_b2h0", "rec_coder_b6h3"])
def test_the_authors_numbers(name):
    """Training pass with its statistics, then evaluation with its gradient."""
    data = golden(name)
    meta = json.loads(str(data["meta"]))
    coder = Coder(bits=meta["num_bits"], threshold=meta["threshold"])
    layer = nn.SigmaDelta(coder=coder)

    @jax.jit
    def train(x):
        state = layer.initial_state(x.shape[1:])
        call = nn.Call(training=True, taps=("membrane",))
        return layer(x, state, call)

    x = jnp.asarray(data["x_train"])
    y, aux = train(x)
    np.testing.assert_allclose(y, data["y_train"], rtol=1e-4, atol=1e-5)
    # The file holds the membrane before the code is subtracted.
    np.testing.assert_allclose(aux.taps[""]["membrane"] + y, data["v_train"], rtol=1e-4, atol=1e-5)
    prefixes = [train(x[:n])[1].statistics for n in (1, 2, 20)]
    for known, row in zip(prefixes, data["stats_train"][[0, 1, 19]], strict=True):
        total = 1 - 0.9 ** float(known.count)
        scale = coder.gain(coder.largest(known))
        found = [known.low / total, known.high / total, scale]
        np.testing.assert_allclose(found, row, rtol=1e-4)

    @jax.jit
    def evaluate(x):
        state = nn.State(layer.initial_state(x.shape[1:]).neurons, aux.statistics)
        y, _ = layer(x, state, nn.Call(training=False))
        return jnp.sum(y * data["G"]), y

    (_, y), gradient = jax.value_and_grad(evaluate, has_aux=True)(jnp.asarray(data["x_eval"]))
    np.testing.assert_allclose(coder.largest(aux.statistics), data["M_eval"], rtol=1e-4)
    np.testing.assert_allclose(y, data["y_eval"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, data["gx_eval"], rtol=1e-4, atol=1e-5)


def run(x, **options):
    model = neurons.sigma_delta.sigma_delta_model(**options)
    return memory.store(model, model.params, model.initial_state(x.shape[1:], dtype=x.dtype), x)[1]


def test_the_sum_of_the_code_follows_the_sum_of_the_inputs(x64):
    """Within (h + 1) / g at all times, while nothing is clipped; the bound is nearly reached."""
    x = jnp.asarray(np.random.default_rng(0).uniform(-0.3, 0.3, (400, 1, 5)))
    bound = 4 / float(Coder().gain(jnp.float64(1.0)))
    error = np.abs(np.cumsum(run(x), 0) - np.cumsum(x, 0)).max()
    assert 0.9 * bound < error <= bound


def test_the_jacobian_is_the_identity(x64):
    x = jnp.asarray(np.random.default_rng(1).uniform(-0.3, 0.3, (6, 1, 3)))
    jacobian = jax.jacrev(run)(x).reshape(18, 18)
    np.testing.assert_array_equal(jacobian, np.eye(18))


def test_a_clipped_value_has_no_gradient(x64):
    gradient = jax.grad(lambda x: jnp.sum(run(x)))(jnp.asarray([[[0.4, 1.6]]]))
    np.testing.assert_array_equal(gradient, [[[1.0, 0.0]]])


def test_one_bit_emits_nothing_and_two_bits_are_ternary():
    x = jnp.asarray(np.random.default_rng(2).uniform(-0.9, 0.9, (30, 1, 4)), jnp.float32)
    np.testing.assert_array_equal(run(x, bits=1, threshold=0), jnp.zeros_like(x))
    scale = float(Coder(bits=2).gain(jnp.float32(1)))
    codes = np.unique(np.round(np.asarray(run(x, bits=2, threshold=0)) * scale, 4))
    np.testing.assert_array_equal(codes, [-1, 0, 1])


def test_the_average_without_bias_is_the_direct_formula(x64):
    """M = sum of 0.9^age * extreme over the sum of 0.9^age."""
    coder, x = Coder(), jnp.asarray(np.random.default_rng(3).normal(size=(9, 2, 3)))
    known = Range(*(jnp.zeros(()) for _ in range(3)))
    for values in x:
        known = coder.move(known, values)
    weights = 0.9 ** np.arange(8, -1, -1)
    ends = [np.abs(np.sum(weights * e) / weights.sum()) for e in (x.min((1, 2)), x.max((1, 2)))]
    np.testing.assert_allclose(coder.largest(known), max(ends), rtol=1e-12)


def test_an_unknown_or_silent_range_is_one():
    silent = Range(jnp.zeros(()), jnp.zeros(()), jnp.ones(()))
    for known in (neurons.sigma_delta.unknown_range(), silent):
        assert float(Coder().largest(known)) == 1


def test_a_constant_gate_is_a_leaky_integrator(x64):
    """F = tau: the baseline with decay F and gain 1 - F; the current's gradient is a product."""
    tau, x = 0.8, jnp.abs(jnp.asarray(np.random.default_rng(4).normal(size=(6, 1, 2))))
    gates = jnp.full_like(x, np.log(tau / (1 - tau)))
    make = neurons.integrator.integrator_model

    def currents(model, inputs):
        state = model.initial_state(inputs.shape[1:], dtype=jnp.float64)
        return memory.store(model, model.params, state, inputs)[0].i

    gated = functools.partial(currents, make(weights=0.0, cell="v1"))
    leaky = currents(make(weights=jnp.full(2, tau), cell="leaky"), (1 - tau) * x)
    np.testing.assert_allclose(gated(jnp.concatenate([gates, x], -1)), leaky, rtol=1e-12)
    slope = jax.grad(lambda c: gated(jnp.concatenate([gates, c], -1))[0, 0])(x)[:, 0, 0]
    np.testing.assert_allclose(slope, (1 - tau) * tau ** np.arange(5, -1, -1), rtol=1e-12)


# The check compiles some thirty programs; tests/models/test_recurrent_net.py has both neurons
# under strategies, tests/nn/test_contract.py has their causality.
@pytest.mark.slow
def test_the_coder_and_the_integrators_keep_the_laws_of_neurons():
    """All but an influence of the past: the derivative of the code is the identity."""
    rng = np.random.default_rng(5)
    make = neurons.integrator.integrator_model
    models = [
        (neurons.sigma_delta.sigma_delta_model(largest=2.0), 4),
        (make(weights=jnp.asarray(rng.normal(size=(4, 8)), jnp.float32)), 8),
    ]
    for model, width in models:
        x = jnp.asarray(rng.normal(size=(12, 2, width)), jnp.float32)
        assert not nn.check_model(model, currents=x, compiler_options=AS_USERS_DO)
