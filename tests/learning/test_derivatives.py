"""Two derivatives: values of a simulation, gradients of another function, constant bytes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory
from snnjax.learning import implicit_rate, rates, solvers, surrogate_vjp
from snnjax.learning.solvers import Info
from snnjax.surrogate import arctan
from snnjax.typing import bind
from tests.compare import assert_close

N, BATCH, V = 40, 3, 2.0


def clamp_map(params, current, a):
    return rates.clamp((a @ params + current) / V, 0, 1)


def simulate(params, current, *, timesteps=20, decay=1.0):
    """Integrate-and-fire neurons with feedback, no state kept."""

    def step(carry, _):
        u, s, total = carry
        u = u + s @ params + current
        s = arctan()(u - V)
        return (decay * (u - V * s), s, decay * total + s), None

    zero = jnp.zeros_like(current)
    (u, _, total), _ = jax.lax.scan(step, (zero, zero, zero), None, length=timesteps)
    return total / rates.total_weight(timesteps, decay=decay), u


@functools.cache
def problem(norm=0.8, seed=0, batch=BATCH):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(N, N))
    weights *= norm * V / np.linalg.norm(weights, 2)
    return weights, rng.normal(0.4, 0.8, (batch, N)), rng.normal(size=(batch, N))


def unrolled(params, current, iterations=400):
    return jax.lax.fori_loop(
        0, iterations, lambda i, a: clamp_map(params, current, a), jnp.zeros_like(current)
    )


def gradient(function, g):
    loss = lambda *arguments: jnp.sum(function(*arguments) * g)  # noqa: E731
    return jax.jit(jax.grad(loss, argnums=(0, 1)))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("iterations", "bound"), [(5, 1e-2), (10, 3e-4), (30, 2e-12), (100, 1e-14)]
)
def test_implicit_gradient_equals_that_of_the_unrolled_map(x64, iterations, bound):
    """Published: 4e-3, 3e-5, 2e-13, 3e-16 of the gradient after K = 5, 10, 30, 100 products."""
    weights, current, g = map(jnp.asarray, problem())
    # 400 steps of the map are its fixed point, so that only the solver's error is left.
    at_rest = lambda params, current: (unrolled(params, current), ())  # noqa: E731
    rate = implicit_rate(clamp_map, at_rest, solver=solvers.neumann(iterations=iterations))
    actual = gradient(lambda *a: rate(*a)[0], g)(weights, current)
    scanned = lambda p, c: jax.lax.scan(  # noqa: E731
        lambda a, _: (clamp_map(p, c, a), None), jnp.zeros_like(c), None, length=400
    )[0]
    assert_close(actual, gradient(scanned, g)(weights, current), bound)


def test_rate_error_falls_as_one_over_time_and_a_leak_leaves_a_plateau(x64):
    """Specification: T * error constant without a leak; plateau about .33 (1 - decay) with one."""
    weights, current, _ = map(jnp.asarray, problem())
    fixed = unrolled(weights, current)
    error = lambda T, decay: float(  # noqa: E731
        jnp.abs(simulate(weights, current, timesteps=T, decay=decay)[0] - fixed).mean()
    )
    timesteps = [10, 30, 100, 300, 1000]
    slope = np.polyfit(np.log(timesteps), np.log([error(T, 1.0) for T in timesteps]), 1)[0]
    assert abs(slope + 1) < 0.05
    for decay in (0.95, 0.99):
        plateau = error(3000, decay)
        assert 0.2 * (1 - decay) < plateau < 0.5 * (1 - decay)
        assert error(1000, decay) < 1.3 * plateau


def test_gradient_at_spiking_rates_approaches_that_at_the_fixed_point(x64):
    """Cosines of the specification: .965, .992, .998, 1.000 at T = 5, 10, 30, 100."""
    weights, current, g = map(jnp.asarray, problem(batch=64))
    expected = gradient(unrolled_implicit, g)(weights, current)[0].ravel()
    cosines = []
    for timesteps in (5, 10, 30, 100):
        rate = implicit_rate(clamp_map, bind(simulate, timesteps=timesteps))
        actual = gradient(lambda *a, r=rate: r(*a)[0], g)(weights, current)[0].ravel()
        cosines.append(
            float(actual @ expected / jnp.linalg.norm(actual) / jnp.linalg.norm(expected))
        )
    assert cosines == sorted(cosines)
    assert cosines[0] > 0.93
    assert cosines[-1] > 0.998


def unrolled_implicit(params, current):
    return implicit_rate(clamp_map, lambda *a: (unrolled(*a), ()))(params, current)[0]


@pytest.mark.fast
def test_the_gradient_of_info_is_the_solvers_info(x64):
    weights, current, g = map(jnp.asarray, problem())
    for solver, low, high in (
        (solvers.neumann(iterations=30), 0, 1e-6),
        (solvers.neumann(iterations=2), 1e-3, 1),
        (solvers.published_iter(), 0.3, 1),
    ):
        rate = implicit_rate(clamp_map, simulate, solver=solver)
        loss = lambda info, rate=rate: jnp.sum(rate(weights, current, info=info)[0] * g)  # noqa: E731
        info = jax.jit(jax.grad(loss))(Info.zeros(0))
        assert low < info.residual < high
        assert info.iterations == (2 if solver == solvers.neumann(iterations=2) else 30)


@pytest.mark.fast
def test_the_jacobian_may_be_taken_at_the_map(x64):
    """At the fixed point both forms agree; at simulated rates they differ."""
    weights, current, g = map(jnp.asarray, problem())
    for simulation, agree in ((simulate, False), (lambda *a: (unrolled(*a), ()), True)):
        one, other = (
            gradient(
                lambda *a, m=at_map, s=simulation: implicit_rate(clamp_map, s, at_map=m)(*a)[0], g
            )(weights, current)[0]
            for at_map in (False, True)
        )
        assert np.allclose(one, other, atol=1e-12) == agree


def spikes(params, xs):
    """A layer of neurons over [T, B, N]: trains in, trains out."""

    def step(u, x):
        u = u + x @ params
        s = (u >= 1).astype(u.dtype)
        return u - s, s

    last, out = jax.lax.scan(step, jnp.zeros((xs.shape[1], params.shape[1]), xs.dtype), xs)
    return out, last


def clamped_trains(params, mean_input, kept, *, timesteps):
    del kept
    return rates.broadcast_steps(rates.clamp(mean_input @ params, 0, 1), timesteps)


@pytest.mark.fast
def test_surrogate_gradient_is_that_of_the_clamp_network(x64):
    """Two layers of trains, one derivative each: equal to the clamp network at simulated rates."""
    rng = np.random.default_rng(0)
    timesteps = 12
    first, second = (jnp.asarray(rng.normal(0.05, 0.4, (9, 9))) for _ in range(2))
    xs = jnp.asarray(rng.random((timesteps, BATCH, 9)))
    g = jnp.asarray(rng.normal(size=(BATCH, 9)))
    layer = surrogate_vjp(spikes, bind(clamped_trains, timesteps=timesteps), summarize=rates.mean)

    def network(params, xs):
        hidden, _ = layer(params[0], xs)
        return layer(params[1], hidden)[0].mean(0)

    def clamp_network(params, xs, simulated):
        z = rates.clamp(xs.mean(0) @ params[0], 0, 1)
        # The second layer is linearised at the simulated rates of the first.
        hidden = simulated + z - jax.lax.stop_gradient(z)
        return rates.clamp(hidden @ params[1], 0, 1)

    params = (first, second)
    simulated = spikes(first, xs)[0].mean(0)
    actual = gradient(network, g)(params, xs)
    expected = gradient(lambda p, x: clamp_network(p, x, simulated), g)(params, xs)
    assert_close(actual, expected, 1e-14)
    np.testing.assert_array_equal(
        network(params, xs), spikes(second, spikes(first, xs)[0])[0].mean(0)
    )


def temp_bytes(function, *arguments):
    return memory.measure(jax.jit(jax.grad(function)), *arguments).temp_bytes


@pytest.mark.fast
def test_bytes_do_not_depend_on_the_number_of_timesteps():
    """Those of backpropagation through time grow."""
    weights, current, g = (jnp.asarray(a, jnp.float32) for a in problem())
    constant, growing = [], []
    for timesteps in (4, 256):
        run = bind(simulate, timesteps=timesteps)
        rate = implicit_rate(clamp_map, run)
        constant.append(temp_bytes(lambda w, r=rate: jnp.sum(r(w, current)[0] * g), weights))
        growing.append(temp_bytes(lambda w, r=run: jnp.sum(r(w, current)[0] * g), weights))
    assert len(set(constant)) == 1
    assert growing == sorted(set(growing))


@pytest.mark.fast
def test_exactness_is_stated():
    assert not implicit_rate(clamp_map, simulate).exact
    assert not surrogate_vjp(spikes, clamped_trains).exact
    assert implicit_rate(clamp_map, simulate) == implicit_rate(clamp_map, simulate)


@pytest.mark.fast
def test_a_surrogate_of_another_shape_is_refused():
    weights, current, _ = (jnp.asarray(a, jnp.float32) for a in problem())
    rate = implicit_rate(lambda p, c, a: clamp_map(p, c, a)[:, :-1], simulate)
    with pytest.raises(ValueError, match="same shapes"):
        jax.grad(lambda w: rate(w, current)[0].sum())(weights)
    layer = surrogate_vjp(simulate, lambda p, c, kept: (c @ p).sum(0))
    with pytest.raises(ValueError, match="same shapes"):
        jax.grad(lambda w: layer(w, current)[0].sum())(weights)


@pytest.mark.fast
def test_clamp_states_its_derivative_at_the_bounds(x64):
    x = jnp.array([-1.0, 0.0, 0.5, 2.0, 3.0])
    for strict, expected in ((False, [0, 1, 1, 1, 0]), (True, [0, 0, 1, 0, 0])):
        g, high = jax.grad(lambda x, h, s=strict: rates.clamp(x, 0, h, strict=s).sum(), (0, 1))(
            x, 2.0
        )
        np.testing.assert_array_equal(g, expected)
        assert high == 1
    np.testing.assert_array_equal(rates.clamp(x, 0, 2.0), np.clip(x, 0, 2))


@pytest.mark.fast
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_means_weigh_late_timesteps_as_the_membrane_does(x64, decay):
    xs = jax.random.normal(jax.random.key(0), (7, 2, 3))
    total = 0
    for x in xs:
        total = decay * total + x
    expected = total / rates.total_weight(7, decay=decay)
    np.testing.assert_allclose(rates.mean(xs, decay=decay), expected, rtol=1e-12)
    trains = rates.broadcast_steps(expected, 7, decay=decay)
    np.testing.assert_allclose(trains.mean(0), expected, rtol=1e-12)
