"""Two devices compute what one computes."""

import os
import subprocess
import sys

import jax
import pytest

from snnjax import training
from tests.training.conftest import make

TWO_DEVICES = """
import jax, numpy as np
from snnjax import training
from tests.training import micro
assert len(jax.devices()) == 2
losses, accuracies = [], []
for devices in (jax.devices()[:1], jax.devices()):
    session = training.prepare(micro.config(), mesh=training.make_mesh(devices=devices))
    state = session.state
    for step in range(3):
        batch = training.sharded(session.loader.batch(step), session.mesh)
        state, metrics = session.train(state, batch)
    losses.append(float(metrics.loss))
    accuracies.append(session.evaluate(state).accuracy)
assert state.step.sharding.device_set == set(jax.devices())
np.testing.assert_allclose(*losses, rtol=1e-4)
np.testing.assert_allclose(*accuracies, atol=3 / 360)  # a sum in another order may tip a spike
"""


def test_two_devices_compute_what_one_computes():
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, env=env,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_batch_that_cannot_be_cut_is_refused():
    mesh = training.make_mesh()

    class Two:
        size = 2
        devices = mesh.devices

    with pytest.raises(training.ExperimentError, match="255 cannot be cut evenly over 2"):
        training.prepare(make(batch=255), mesh=Two())  # type: ignore


def test_a_placed_state_has_buffers_of_its_own():
    mesh = training.make_mesh()
    one = jax.numpy.ones(3)
    placed = training.place((one, one), mesh)
    assert placed[0].unsafe_buffer_pointer() != placed[1].unsafe_buffer_pointer()
