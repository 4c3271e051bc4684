"""A reversible stream that reaches the bound of its grid stops the run, with the state saved."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from snnjax import data, encoding, nn, training
from snnjax.training import checkpoints


def half(rngs):
    return nn.Sequential(nn.LIF(), nn.Linear(16, 16, rngs=rngs))


def network(experiment, rngs):
    del experiment
    layers = [nn.Flatten(), nn.Linear(64, 32, rngs=rngs)]
    layers += [nn.Reversible(half, half, 2, rngs=rngs, bits=22), nn.Linear(32, 10, rngs=rngs)]
    return nn.Network(nn.Sequential(*layers), (8, 8, 1))


def encode(experiment, inputs, key):
    del key
    return encoding.direct(inputs.astype(jnp.float32), timesteps=experiment.timesteps)


def test_the_run_stops_and_says_why(tmp_path):
    experiment = training.Experiment(
        name="bound",
        network=network,
        dataset=lambda experiment: data.load("digits"),
        encode=encode,
        timesteps=2,
        batch=32,
        epochs=1,
    )
    session = training.prepare(experiment)
    start = jax.device_get(nnx.to_pure_dict(session.state.params))
    run = training.Run.create(tmp_path / "run", experiment, "# made by a test")
    with pytest.raises(training.errors.StreamBoundError, match="bits="):
        training.fit(session, run)
    _, like = training.initialize(experiment, steps=1)
    saved = checkpoints.load(checkpoints.newest(run.checkpoints), like)
    assert int(saved.step) == 0
    same = jax.tree.map(lambda a, b: bool((a == b).all()), nnx.to_pure_dict(saved.params), start)
    assert all(jax.tree.leaves(same))
