"""Weight decay pulls on kernels only; learning rates rise and fall; gradients are bounded."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import nn, training
from tests.training.conftest import make


def marks(network):
    params = nn.split(network)[1]
    leaves = jax.tree_util.tree_leaves_with_path(training.optimizer.decay_mask(params))
    return {jax.tree_util.keystr(path): mark for path, mark in leaves}


def test_decay_pulls_on_kernels_only():
    rngs = nnx.Rngs(0)
    block = lambda rngs: nn.Sequential(nn.Conv(4, 4, rngs=rngs), nn.BatchNorm(4), nn.PLIF())  # noqa: E731
    network = nn.Network(
        nn.Sequential(
            nn.Conv(1, 4, rngs=rngs, use_bias=True),
            nn.BatchNorm(4),
            nn.Stacked(block, 2, rngs=rngs),
            nn.Flatten(),
            nn.Linear(16, 3, rngs=rngs),
        ),
        input_shape=(2, 2, 1),
    )
    found = marks(network)
    assert any("blocks" in name for name in found)
    for name, mark in found.items():
        assert mark == ("kernel" in name), name


def test_decay_moves_kernels_without_a_gradient():
    program, state = training.initialize(make(), steps=10)
    rule = training.optimizer.adamw(make(), optax.constant_schedule(0.1))
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    with jax.numpy_dtype_promotion("standard"):
        updates = jax.jit(lambda p, g: rule.update(g, rule.init(p), p)[0])(state.params, zeros)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        moved = bool((update != 0).any())
        assert moved == ("kernel" in jax.tree_util.keystr(path))
    del program


@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.5, 10.0])
def test_the_learning_rate_rises_and_falls(warmup):
    experiment = make(warmup_epochs=warmup, epochs=10, learning_rate=0.5)
    rates = np.array([training.optimizer.warmup_cosine(experiment, 100)(n) for n in range(101)])
    peak = round(10 * warmup)
    assert rates[min(peak, 100)] == pytest.approx(0.5)
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()
    if peak < 100:
        assert rates[-1] == pytest.approx(0, abs=1e-6)


def test_the_learning_rate_stays_at_its_floor_while_it_cools_down():
    experiment = make(warmup_epochs=2.0, epochs=20, learning_rate=0.5)
    schedule = training.optimizer.warmup_cosine(
        experiment, 200, start=0.1, floor=0.05, cooldown_epochs=5
    )
    rates = np.array([schedule(n) for n in range(201)])
    np.testing.assert_allclose(rates[:21], np.linspace(0.1, 0.5, 21), rtol=1e-6)
    half = 0.05 + 0.45 * (1 + np.cos(np.pi * np.arange(131) / 130)) / 2
    np.testing.assert_allclose(rates[20:151], half, rtol=1e-5)
    np.testing.assert_allclose(rates[150:], 0.05, rtol=1e-6)
    cold = training.optimizer.warmup_cosine(make(warmup_epochs=0.0, epochs=20), 200, floor=0.001)
    assert cold(0) == pytest.approx(1e-2) and cold(200) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="leave nothing of 20"):
        training.optimizer.warmup_cosine(
            make(warmup_epochs=0.0, epochs=20), 200, cooldown_epochs=20
        )


def test_milestones_multiply():
    experiment = make(epochs=200, learning_rate=0.1, warmup_epochs=0.0)
    schedule = training.optimizer.multistep(experiment, 2000, milestones=(0.5, 0.75))
    rates = [float(schedule(n)) for n in (0, 999, 1000, 1499, 1500, 1999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    short = training.optimizer.multistep(experiment, 2, milestones=(0.45, 0.55), factor=0.5)
    assert [float(short(n)) for n in (0, 1)] == pytest.approx([0.1, 0.025])
    with pytest.raises(ValueError, match="divide epochs by 200"):
        training.optimizer.multistep(experiment, 2000, milestones=(100, 150))


def test_multistep_takes_the_milestones_of_the_experiment():
    fields = {"learning_rate": 1.0, "warmup_epochs": 0.0, "epochs": 10, "milestones": (0.5,)}
    schedule = training.optimizer.multistep(types.SimpleNamespace(**fields), 100)
    assert [float(schedule(step)) for step in (49, 51)] == pytest.approx([1.0, 0.1])


def test_milestones_follow_a_warm_up():
    experiment = make(epochs=10, learning_rate=0.1, warmup_epochs=0.5)
    schedule = training.optimizer.multistep(experiment, 100, milestones=(0.2,))
    rates = [float(jax.jit(schedule)(n)) for n in (0, 2, 5, 19, 20, 99)]
    assert rates == pytest.approx([0.0, 0.04, 0.1, 0.1, 0.01, 0.01])


def followed(rule, params, gradients):
    slots = rule.init(params)
    for gradient in gradients:
        updates, slots = rule.update(gradient, slots, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_couples_its_decay(nesterov):
    """Against a loop: the decay joins the gradient, then the momentum."""
    draws = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    p, v = draws[0].copy(), 0.0
    for g in draws[1:]:
        g = g + 0.3 * p
        v = 0.9 * v + g
        p = p - 0.1 * (g + 0.9 * v if nesterov else v)
    rule = training.optimizer.sgd(
        make(weight_decay=0.3), optax.constant_schedule(0.1), nesterov=nesterov
    )
    start = {"kernel": jnp.asarray(draws[0])}
    with jax.numpy_dtype_promotion("standard"):
        found = followed(rule, start, [{"kernel": jnp.asarray(g)} for g in draws[1:]])
    np.testing.assert_allclose(found["kernel"], p, rtol=1e-5)


def test_sgd_decays_kernels_or_what_it_is_told():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    schedule = optax.constant_schedule(1.0)
    with jax.numpy_dtype_promotion("standard"):
        kernels = followed(
            training.optimizer.sgd(make(weight_decay=0.1), schedule), params, [zeros]
        )
        every = training.optimizer.sgd(make(weight_decay=0.1), schedule, decays=lambda params: True)
        both = followed(every, params, [zeros])
    assert (kernels["kernel"] < 1).all() and (kernels["bias"] == 1).all()
    assert (both["kernel"] < 1).all() and (both["bias"] < 1).all()


def test_lamb_steps_as_far_as_the_parameters_are_long():
    params = {"kernel": jnp.full((4, 4), 3.0), "bias": jnp.full(4, 0.5)}
    gradient = {"kernel": jnp.full((4, 4), 1e-3), "bias": jnp.full(4, 10.0)}
    rule = training.optimizer.lamb(make(weight_decay=0.0), optax.constant_schedule(0.01))
    with jax.numpy_dtype_promotion("standard"):
        updates = jax.jit(lambda p, g: rule.update(g, rule.init(p), p)[0])(params, gradient)
    for name, update in updates.items():
        norms = [float(jnp.linalg.norm(x.ravel())) for x in (update, params[name])]
        assert norms[0] == pytest.approx(0.01 * norms[1], rel=1e-4)


def test_adaptive_clipping_bounds_each_unit_by_its_own_size():
    params = {"w": jnp.array([[3.0, 30.0], [4.0, 40.0]]), "b": jnp.zeros(2)}
    gradient = {"w": jnp.array([[0.6, 0.6], [0.8, 0.8]]), "b": jnp.array([3.0, 4.0])}
    rule = training.optimizer.adaptive_clip(0.1)
    clipped, _ = rule.update(gradient, rule.init(params), params)
    # The first column is as large as 0.1 * 5 allows, the second far below 0.1 * 50.
    np.testing.assert_allclose(clipped["w"], [[0.3, 0.6], [0.4, 0.8]], rtol=1e-6)
    assert jnp.linalg.norm(clipped["b"]) == pytest.approx(0.1 * 1e-3, rel=1e-5)
    still, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(still))


def test_clipping_bounds_the_norm_and_keeps_the_structure_of_the_state():
    params = {"w": jnp.full((3, 3), 100.0)}
    free, bound = (training.optimizer.with_clipping(optax.sgd(1.0), norm) for norm in (None, 0.5))
    updates, _ = bound.update(params, bound.init(params), params)
    assert jnp.linalg.norm(updates["w"]) == pytest.approx(0.5)
    # So a run that diverged can be resumed with a bound.
    assert jax.tree.structure(free.init(params)) == jax.tree.structure(bound.init(params))
