"""AdEx, Izhikevich and refractory neurons: loops over the equations, and known behaviour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, nn
from tests.compare import assert_close

pytestmark = pytest.mark.fast


def run(model, x, dtype=jnp.float64):
    state = model.initial_state(x.shape[1:], dtype=dtype)
    return memory.store(model, model.params, state, jnp.asarray(x, dtype))


def test_adex_is_the_loop(x64):
    """The published cell at 1 nA, in steps of 0.1 ms."""
    state, spikes = run(neurons.adex_model(), np.full((1500, 1, 1), 1000.0))
    v, w, expected = -70.6, 0.0, []
    for _ in range(1500):
        rise = 30 * 2 * np.exp((min(v, 20.0) + 50.4) / 2)
        h = v + 0.1 / 281 * (-30 * (v + 70.6) + rise - w + 1000.0)
        w += 0.1 / 144 * (4 * (v + 70.6) - w)
        v = h
        expected.append(h >= 20)
        if h >= 20:
            v, w = -70.6, w + 80.5
    np.testing.assert_array_equal(spikes[:, 0, 0], expected)
    np.testing.assert_allclose([state.v[0, 0], state.w[0, 0]], [v, w], rtol=1e-9)
    gaps = np.diff(np.flatnonzero(expected))
    # Adaptation: intervals grow.
    assert len(gaps) > 4 and np.all(np.diff(gaps) >= 0) and gaps[-1] > gaps[0]


def test_adex_is_finite_in_float32():
    """The upswing is 1e15 times a step, and the reset still exact."""
    model = neurons.adex_model()
    x = jnp.full((300, 1, 2), 2000.0)

    def total(x):
        state, spikes = memory.store(model, model.params, model.initial_state((1, 2)), x)
        return jnp.sum(spikes) + jnp.sum(state.v), spikes

    gradient, spikes = jax.grad(total, has_aux=True)(x)
    assert spikes.sum() > 4 and bool(jnp.isfinite(gradient).all())


def test_izhikevich_is_the_loop(x64):
    """The published regular spiking cell at 10, with its half steps."""
    state, spikes = run(neurons.izhikevich_model(), np.full((200, 1, 1), 10.0))
    v, u, expected = -65.0, -13.0, []
    for _ in range(200):
        for _ in range(2):
            v += 0.5 * (0.04 * v**2 + 5 * v + 140 - u + 10)
        u += 0.02 * (0.2 * v - u)
        expected.append(v >= 30)
        if v >= 30:
            v, u = -65.0, u + 8
    np.testing.assert_array_equal(spikes[:, 0, 0], expected)
    np.testing.assert_allclose([state.v[0, 0], state.u[0, 0]], [v, u], rtol=1e-9)
    assert 4 < sum(expected) < 20


def test_a_neuron_rests_after_a_spike(x64):
    """Period 2 at a current that fires at every step: one spike in three, the membrane held."""
    model = neurons.refractory_model(neurons.lif_model(decay=0.5), period=2)
    state, spikes = run(model, np.full((7, 1, 1), 1.25))
    np.testing.assert_array_equal(spikes[:, 0, 0], [1, 0, 0, 1, 0, 0, 1])
    # 1.25 - 1, held; 0.125 + 1.25 - 1, held; 0.1875 + 1.25 - 1.
    np.testing.assert_allclose(state.neuron.v, 0.4375)
    free = run(neurons.lif_model(decay=0.5), np.full((7, 1, 1), 1.25))[1]
    assert free.sum() == 7


def test_the_period_is_a_layer_and_learns_under_the_names_of_the_neuron():
    model = neurons.refractory_model(neurons.lif_model(), period=1)
    layer = nn.Neuron(model, learn=("decay",), scan=memory.recompute(2))
    x = jnp.ones((5, 1, 2))
    call = nn.Call(training=False, taps=("membrane", "threshold"))
    spikes, aux = layer(x, layer.initial_state((1, 2)), call)
    np.testing.assert_array_equal(spikes[:, 0, 0], [1, 0, 1, 0, 1])
    assert aux.taps[""]["membrane"].shape == x.shape and layer.name == "refractory_lif"


def test_one_decay_per_neuron_is_learned():
    start = jnp.asarray([0.2, 0.5, 0.9])
    layer, twin = nn.PLIF(decay=start), nn.LIF(decay=start, scale_input=True)
    x = jnp.asarray(np.random.default_rng(0).normal(0.8, 1.0, (6, 2, 3)), jnp.float32)

    def total(layer):
        spikes, _ = layer(x, layer.initial_state((2, 3)), nn.Call(training=True))
        return jnp.sum(spikes * jnp.cos(jnp.arange(36.0)).reshape(6, 2, 3)), spikes

    (_, spikes), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(layer)
    assert_close(neurons.plif_model(decay=start).params.w, jnp.log((1 - start) / start), 1e-6)
    w = gradient.learned["w"][...]
    assert w.shape == (3,) and bool(jnp.all(w != 0)) and len(np.unique(w)) == 3
    np.testing.assert_array_equal(spikes, total(twin)[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: neurons.plif_model(decay=jnp.asarray([0.5, 1.0])), r"inside \(0, 1\)"),
        (lambda: neurons.refractory_model(neurons.li_model(), period=1), "have no spikes"),
        (
            lambda: neurons.refractory_model(neurons.lif_model(), period=0),
            "period must be at least",
        ),
        (lambda: neurons.adex_model(dt=10.0), r"dt \* conductance / capacitance must lie"),
        (lambda: neurons.adex_model(slope=0.0), "slope must be above 0"),
        (lambda: neurons.izhikevich_model(dt=3.0), "give substeps"),
        (lambda: nn.AdEx(scan=memory.reversal()), r"forgets its membrane.*recompute\(every"),
        (lambda: nn.Izhikevich(scan=memory.reversal()), r"forgets its membrane.*recompute"),
        (
            lambda: nn.Neuron(
                neurons.refractory_model(neurons.lif_model(), period=1), scan=memory.reversal()
            ),
            r"discards currents.*recompute\(every",
        ),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_without_one_entry_per_neuron_is_refused():
    def step(params, state, current):
        return (state[0] + current, state[1] + 1), (current > 0).astype(current.dtype)

    own = neurons.Model(step, (), lambda shape: (jnp.zeros(shape), jnp.zeros(())))
    model = neurons.refractory_model(own, period=1)
    with pytest.raises(ValueError, match="one entry per neuron"):
        memory.store(model, (), model.initial_state((1, 4)), jnp.ones((2, 1, 4)))
