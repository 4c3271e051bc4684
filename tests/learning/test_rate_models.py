"""Rates of simulated neurons beside their maps: published errors, conventions, thresholds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, nn
from snnjax.learning import RateNeuron, dsr_if_model, dsr_lif_model, lif_rate_model, rates
from tests.compare import assert_close


def simulated(model, currents, timesteps):
    """Rates of a constant current, and the map of the model."""

    @jax.jit
    def run(params, currents):
        xs = jnp.broadcast_to(currents, (timesteps, 1, len(currents)))
        state = as_dtype_of(xs, model.model.initial_state(xs.shape[1:]))
        _, out = memory.store(model.model.step, params, state, xs)
        return rates.mean(out, decay=model.decay)[0], model.rate(params, currents, None)

    return jax.device_get(run(model.model.params, currents))


@pytest.mark.fast
@pytest.mark.parametrize(("fire_at", "largest", "signed"), [(0.5, 0.15, 0.0), (1.0, 0.3, -0.09)])
def test_dsr_if_rounds_to_the_nearest_or_down(x64, fire_at, largest, signed):
    """Measured in the specification: T = 20, V = 6, currents from -2 to 8."""
    # Off the multiples of V / T, where rounding decides.
    currents = np.linspace(-2, 8, 2001) + 1.234e-4
    rate, clamped = simulated(dsr_if_model(fire_at=fire_at), currents, 20)
    np.testing.assert_allclose(
        np.abs(rate - clamped).max(), largest, atol=6e-3
    )  # spacing of the currents: .005
    np.testing.assert_allclose((rate - clamped).mean(), signed, atol=2e-3)
    closed = 6 / 20 * np.clip(np.floor(20 * currents / 6 + 1 - fire_at), 0, 20)
    np.testing.assert_allclose(rate, closed, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "timesteps", "expected"),
    [
        ({"fire_at": 1.0}, 20, 0.216),
        ({"fire_at": 0.5}, 20, 0.096),
        ({"fire_at": 0.3}, 20, 0.085),
        ({"fire_at": 0.3}, 200, 0.056),
        ({"fire_at": 0.3, "dt": 0.005, "threshold": 0.03}, 200, 0.009),
    ],
)
def test_dsr_lif_errors_of_the_specification(x64, options, timesteps, expected):
    """The error falls with the length of a timestep, not with their number."""
    currents = np.linspace(-1, 7.2, 1001)
    rate, clamped = simulated(dsr_lif_model(**options), currents, timesteps)
    np.testing.assert_allclose(np.abs(rate - clamped).mean(), expected, atol=0.01)


@pytest.mark.fast
def test_rounding_to_the_nearest_nearly_halves_the_error(x64):
    """SPIDE's resting potential of -V: about .6 of the error of rates rounded down."""
    currents = np.random.default_rng(0).uniform(-0.5, 2.5, 4000)
    errors = []
    for threshold in (1.0, 2.0):
        model = lif_rate_model(threshold=threshold, amount=2.0)
        rate, clamped = simulated(model, currents, 30)
        errors.append(np.abs(rate - clamped).mean())
    assert 0.4 < errors[0] / errors[1] < 0.7


def as_dtype_of(xs, state):
    return jax.tree.map(lambda x: x.astype(xs.dtype), state)


def layered_loss(model, weights, xs, g):
    """Loss of a stack `x -> neuron(x W)` of layers of trains."""
    for w in weights:
        layer, currents = RateNeuron(model), xs @ w
        state = as_dtype_of(xs, layer.initial_state(currents.shape[1:]))
        xs, _ = layer(currents, state, nn.Call(training=True))
    return jnp.sum(rates.mean(xs, decay=model.decay) * g)


@jax.jit
def draw():
    key = jax.random.split(jax.random.key(0), 4)
    weights = [
        jax.random.normal(key[0], (8, 9), jnp.float64),
        jax.random.normal(key[1], (9, 5), jnp.float64),
    ]
    xs = jax.random.uniform(key[2], (20, 6, 8), jnp.float64, -1, 2)
    return weights, xs, jax.random.normal(key[3], (6, 5), jnp.float64)


@pytest.fixture
def problem(x64):
    return draw()


def clamp_loss(model, weights, inputs, simulated, g):
    """The network of rates, linearised at the simulated ones."""
    for w, own in zip(weights, simulated, strict=True):
        rate = model.rate(model.model.params, inputs @ w, None)
        inputs = own + rate - jax.lax.stop_gradient(rate)
    return jnp.sum(inputs * g)


def trains(model, weights, xs):
    found = []
    for w in weights:
        currents = xs @ w
        state = as_dtype_of(xs, model.model.initial_state(currents.shape[1:]))
        _, xs = memory.store(model.model.step, model.model.params, state, currents)
        found.append(xs)
    return found


def both_gradients(model, weights, xs, g):
    """Gradients of the layers of trains and of the clamp network."""

    @jax.jit
    def run(weights, xs):
        means = [rates.mean(train, decay=model.decay) for train in trains(model, weights, xs)]
        first = rates.mean(xs, decay=model.decay)
        return (
            jax.grad(lambda w: layered_loss(model, w, xs, g))(weights),
            jax.grad(lambda w: clamp_loss(model, w, first, means, g))(weights),
        )

    return jax.device_get(run(weights, xs))


@pytest.mark.fast
def test_dsr_if_gradient_equals_that_of_the_clamp_network(problem):
    """To the last bits of float64: with equal weights of all timesteps the two are one."""
    assert_close(*both_gradients(dsr_if_model(threshold=2.0), *problem), 1e-14)


@pytest.mark.fast
@pytest.mark.parametrize("uniform", [True, False], ids=["published", "weighted"])
def test_both_conventions_of_dsr_lif(problem, uniform):
    """The weighted one is the gradient of the clamp network; the published one about 1.08 of it."""
    model = dsr_lif_model(threshold=0.3, uniform_gradient=uniform)
    actual, expected = both_gradients(model, *problem)
    if not uniform:
        assert_close(actual, expected, 1e-13)
        return
    last, other = actual[1].ravel(), expected[1].ravel()
    ratio = np.linalg.norm(last) / np.linalg.norm(other)
    cosine = last @ other / np.linalg.norm(last) / np.linalg.norm(other)
    w = model.decay ** np.arange(20)
    assert abs(20 * np.sum(w**2) / np.sum(w) ** 2 - 1.0818) < 1e-3
    np.testing.assert_allclose(ratio, 1.0818, rtol=0.03)
    assert cosine > 0.99


@pytest.mark.fast
@pytest.mark.parametrize("dt", [None, 0.05])
def test_the_threshold_learns_from_saturated_units_alone(x64, dt):
    """dV is the sum of their cotangents, for LIF times dt; the exact factor would be 1 / dt."""
    model = dsr_if_model(threshold=2.0) if dt is None else dsr_lif_model(threshold=0.3, dt=dt)
    layer = RateNeuron(model, learn=("threshold",))
    g = np.array([1.0, 10.0, 100.0], np.float32)
    top = 2.0 if dt is None else 0.3 / dt
    xs = np.broadcast_to(np.array([-1.0, top / 2, 2 * top], np.float32), (20, 1, 3))

    def loss(layer):
        outputs, _ = layer(xs, layer.initial_state((1, 3)), nn.Call(training=True))
        return jnp.sum(outputs.mean(0)[0] * g)

    gradient = jax.jit(jax.grad(loss))(layer).neuron.learned["threshold"][...]
    # The published rule takes T times the weighted mean of cotangents that are all g / T here.
    np.testing.assert_allclose(gradient, 100.0 * (1 if dt is None else dt), rtol=1e-5)


@pytest.mark.fast
def test_thresholds_are_bounded_below_and_may_return(x64):
    model = dsr_if_model(threshold=-3.0, minimum=0.5)
    _, clamped = simulated(model, np.array([0.2, 7.0]), 4)
    np.testing.assert_allclose(clamped, [0.2, 0.5])
    nine = np.full(1, 9.0)
    slope = jax.jit(
        jax.grad(lambda v: model.rate(model.model.params._replace(threshold=v), nine, None)[0])
    )
    assert slope(-3.0) == 1


@pytest.mark.fast
def test_a_layer_keeps_one_mean_current_whatever_the_number_of_timesteps():
    layer = RateNeuron(dsr_lif_model())

    def kept(timesteps):
        xs = jnp.ones((timesteps, 16, 32))
        run = lambda layer, xs: layer(xs, layer.initial_state((16, 32)), nn.Call(training=True))[0]  # noqa: E731
        found = memory.accounting.residuals(run, layer, xs)
        return sum(r.nbytes for r in found)

    assert kept(4) == kept(64)


@pytest.mark.fast
def test_a_strategy_over_time_makes_the_layer_exact():
    """Backpropagation through time under the strategy: same values, another gradient."""
    layer = RateNeuron(lif_rate_model(threshold=1.0))
    network = nn.Network(nn.Sequential(layer), (6,))
    through_time = nn.with_memory(network, memory.Strategy(time=memory.store))
    xs = np.random.default_rng(0).uniform(-0.5, 1.5, (12, 3, 6)).astype(np.float32)

    @jax.jit
    def gradient(net, xs):
        def loss(xs):
            outputs = net(xs, net.initial_state(3), training=True)[0]
            return jnp.sum(outputs**2 * jnp.arange(12.0)[:, None, None]), outputs

        return jax.grad(loss, has_aux=True)(xs)

    (rate, outputs), (exact, same) = (gradient(net, xs) for net in (network, through_time))
    np.testing.assert_array_equal(outputs, same)
    assert not layer.exact
    assert through_time.body.layers[0].exact
    # The rate's own: equal at all timesteps.
    np.testing.assert_allclose(rate, np.broadcast_to(rate[:1], xs.shape), rtol=1e-6)
    assert not np.allclose(exact, np.broadcast_to(exact[:1], xs.shape))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lif_rate_model(threshold=0.0), "threshold > 0"),
        (lambda: lif_rate_model(decay=1.5), r"decay in \(0, 1\]"),
        (lambda: dsr_if_model(fire_at=0.0), r"\(0, 1\]"),
        (lambda: dsr_lif_model(dt=-1.0), "positive times"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
