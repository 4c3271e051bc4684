"""Spike response neurons and SLAYER's rule: the authors' numbers, kernels against recurrences."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.neurons.srm import Response
from tests.conftest import shared_folder

pytestmark = pytest.mark.fast
T = 60


def golden(name):
    with np.load(shared_folder("golden", "learning_rules") / f"{name}.npz") as stored:
        return {key: stored[key] for key in stored.files}


def test_the_authors_kernels():
    data = golden("slayer_kernels")
    for name in ("1", "2", "4", "8", "10"):
        found = Response("alpha", float(name)).cut(longest=100).kernel()
        np.testing.assert_allclose(found, data[f"srm_tau{name}"], rtol=1e-4, atol=1e-5)
    names = [name for name in data if name.startswith("ref_")]
    assert len(names) == 9
    for name in names:
        _, kind, theta, tau = name.split("_")
        theta, tau = float(theta[5:]), float(tau[3:])
        shape = "exponential" if kind == "ang" else "alpha"
        found = -2 * theta * Response(shape, tau).cut(scale=2 * theta).kernel()
        np.testing.assert_allclose(found, data[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tau", "length", "total"), [(2, 16, 5.304), (4, 31, 10.771), (8, 62, 21.631)]
)
def test_lengths_and_sums_of_the_truncated_kernel(tau, length, total):
    kernel = Response("alpha", tau).cut().kernel()
    assert len(kernel) == length
    assert kernel.sum() == pytest.approx(total, abs=5e-4)


def rolled(response, x):
    """The response over time to `[T, B, N]`."""

    def step(state, x):
        return response.push(state, x), response.read(state)

    return jax.lax.scan(step, response.rest(x.shape[1:], x.dtype), x)[1]


@pytest.mark.parametrize("shape", ["alpha", "exponential"])
@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_the_recurrence_is_the_kernel_without_an_end(x64, shape, tau):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(T, 1, 2)))
    kernel = Response(shape, tau).kernel(length=T)
    convolved = np.stack([np.convolve(x[:, 0, i], kernel)[:T] for i in range(2)], -1)[:, None]
    np.testing.assert_allclose(rolled(Response(shape, tau), x), convolved, atol=1e-12)
    truncated = rolled(Response(shape, tau, T), x)
    np.testing.assert_allclose(truncated, convolved, atol=1e-12)


def test_the_derivative_of_the_filter_is_the_correlation(x64):
    response = Response("alpha", 4.0).cut()
    x, g = jnp.asarray(np.random.default_rng(1).normal(size=(2, T, 1, 1)))
    gradient = jax.grad(lambda x: jnp.sum(rolled(response, x) * g))(x)[:, 0, 0]
    kernel = response.kernel()
    correlated = [
        sum(kernel[j] * g[t + j, 0, 0] for j in range(len(kernel)) if t + j < T) for t in range(T)
    ]
    np.testing.assert_allclose(gradient, correlated, rtol=1e-10)


def srm_of(layer, *, official, steps):
    theta, width = layer["theta"], layer["tauRho"] * layer["theta"]
    height = layer["scaleRho"] / (width if official else theta)
    return neurons.srm.srm_model(
        threshold=theta,
        tau=layer["tauSr"],
        refractory_tau=layer["tauRef"],
        refractory="alpha" if official else "exponential",
        refractory_scale=layer["scaleRef"],
        longest=steps,
        spike=surrogate.exponential(height=height, width=width),
    )


@pytest.mark.parametrize("name", ["slayer_ang_2l_T50", "slayer_official_2l_T60"])
def test_the_authors_numbers(name):
    """Membranes, spikes and gradients of two dense layers."""
    data = golden(name)
    meta = json.loads(str(data["meta"]))
    official, steps = "official" in name, meta["T"]
    models = [srm_of(meta[f"layer{i}"], official=official, steps=steps) for i in (1, 2)]

    def with_membrane(model):
        def step(params, state, current):
            state, spikes = model.step(params, state, current)
            return state, (spikes, state.v)

        return step

    @jax.jit
    def run(x, first, second):
        seen, signal = [], x
        for model, weights in zip(models, (first, second), strict=True):
            current = signal @ weights.T
            state = model.initial_state(current.shape[1:])
            _, (signal, u) = memory.store(with_membrane(model), model.params, state, current)
            seen += [signal, u]
        return jnp.sum(signal * jnp.moveaxis(data["G"], -1, 0)), seen

    arguments = jnp.moveaxis(jnp.asarray(data["x"]), -1, 0), data["W1"], data["W2"]
    gradients, seen = jax.grad(run, (0, 1, 2), has_aux=True)(*arguments)
    s1, u1, s2, u2 = (jnp.moveaxis(a, 0, -1) for a in seen)
    np.testing.assert_array_equal(s1, data["s1"])
    np.testing.assert_array_equal(s2, data["s2"])
    np.testing.assert_allclose(u1, data["u1"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(u2, data["u2"], rtol=1e-4, atol=1e-5)
    for got, name in zip(gradients[1:], ("gW1", "gW2"), strict=True):
        np.testing.assert_allclose(got, data[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.moveaxis(gradients[0], 0, -1), data["gx"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("refractory", ["alpha", "exponential"])
def test_without_an_end_both_forms_fire_alike(x64, refractory):
    x = jnp.asarray(np.random.default_rng(2).normal(0.1, 0.3, size=(T, 2, 4)))
    trains = []
    for kernel in ("recurrence", "truncated"):
        model = neurons.srm.srm_model(
            threshold=0.4, tau=2.0, refractory_tau=2.0, refractory=refractory, kernel=kernel
        )
        if kernel == "truncated":  # to the end of the window
            options = dict(model.step.options)
            for part in ("response", "refractory"):
                short = options[part]
                options[part] = Response(short.shape, short.tau, T + 1)
            step = neurons.srm.bind(neurons.srm.srm, **options)
            rest = neurons.srm.bind(
                model.initial_state.function, response=options["response"],
                refractory=options["refractory"],
            )  # fmt: skip
        else:
            step, rest = model.step, model.initial_state
        trains.append(memory.store(step, model.params, rest((2, 4), dtype=jnp.float64), x)[1])
    np.testing.assert_array_equal(*trains)
    assert 0.05 < float(trains[0].mean()) < 0.5


def test_no_gradient_passes_the_refractory_response(x64):
    """A spike that prevents another one has no part in its gradient."""
    model = neurons.srm.srm_model(threshold=0.5, tau=1.0, kernel="recurrence")
    x = jnp.zeros((4, 1, 1)).at[0].set(1.0)
    kernel = np.asarray(Response("alpha", 1.0).kernel(length=4))
    step = lambda s, x: model.step(model.params, s, x)  # noqa: E731

    def fired(x):
        return jax.lax.scan(step, model.initial_state((1, 1), dtype=jnp.float64), x)[1]

    slope = jax.jacrev(lambda x: fired(x)[:, 0, 0])(x)[:, 0, 0, 0]
    potential, recovery = np.zeros(4), np.zeros(4)
    for t in range(4):
        potential[t] = kernel[t] - recovery[t]
        if potential[t] >= 0.5:
            recovery[t:] += kernel[: 4 - t]
    expected = kernel / 0.5 * np.exp(-np.abs(potential - 0.5) / 0.5)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "exact"}, "kernel must be one of truncated, recurrence"),
        ({"refractory": "none"}, "refractory must be one of alpha, exponential"),
        ({"tau": 0.0}, "tau must be above 0"),
        ({"threshold": jnp.ones(3)}, r"spike=surrogate\.exponential"),
    ],
)
def test_errors_name_the_cure(options, message):
    with pytest.raises(ValueError, match=message):
        neurons.srm.srm_model(**options)
