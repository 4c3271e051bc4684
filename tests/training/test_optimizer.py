"""Weight decay pulls on kernels only; learning rates rise and fall; gradients are bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import nn, training
from tests.training.conftest import make


def marks(network):
    params = nnx.split(network, nnx.Param, ...)[1]
    leaves = jax.tree_util.tree_leaves_with_path(training.decayed(params))
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
    rule = training.adamw(make(), optax.constant_schedule(0.1))
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = rule.update(zeros, rule.init(state.params), state.params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        moved = bool((update != 0).any())
        assert moved == ("kernel" in jax.tree_util.keystr(path))
    del program


@pytest.mark.parametrize("warmup", [0.0, 1.0, 2.5, 10.0])
def test_the_learning_rate_rises_and_falls(warmup):
    experiment = make(warmup_epochs=warmup, epochs=10, learning_rate=0.5)
    rates = np.array([training.warmup_cosine(experiment, 100)(n) for n in range(101)])
    peak = round(10 * warmup)
    assert rates[min(peak, 100)] == pytest.approx(0.5)
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak:]) < 0).all()
    if peak < 100:
        assert rates[-1] == pytest.approx(0, abs=1e-6)


def test_clipping_bounds_the_norm_and_keeps_the_structure_of_the_state():
    params = {"w": jnp.full((3, 3), 100.0)}
    free, bound = (training.clipped(optax.sgd(1.0), norm) for norm in (None, 0.5))
    updates, _ = bound.update(params, bound.init(params), params)
    assert jnp.linalg.norm(updates["w"]) == pytest.approx(0.5)
    # So a run that diverged can be resumed with a bound.
    assert jax.tree.structure(free.init(params)) == jax.tree.structure(bound.init(params))
