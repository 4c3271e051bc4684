"""The programs beside those of peers: every strategy takes the same first steps."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import conversion, models, nn
from tests.programs import EXPERIMENTS, loaded

PEERS = "benchmarks/peers"


@pytest.fixture(scope="module")
def ours():
    return loaded(f"{PEERS}/ours.py", beside=PEERS)


def losses(ours, workload, variant):
    step, about = ours.network(ours.workloads.problem(workload), variant=variant)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        found = [step() for _ in range(3)]
    assert about()["temporary"] > 0
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["W1-small", "W3R-small"])
def test_strategies_take_the_same_steps(ours, workload):
    first, *rest = (losses(ours, workload, v) for v in ours.VARIANTS if "norm" not in v)
    assert first[2] < first[0]
    for other in rest:
        assert other == pytest.approx(first, rel=1e-5)


@pytest.mark.slow
def test_statistics_of_a_step_are_those_of_time_order(ours):
    alike = ["layer, norm per step", "time", "time, recompute(1)"]
    first, *rest = (losses(ours, "W2-small", variant) for variant in alike)
    for other in rest:
        assert other == pytest.approx(first, rel=1e-4)
    assert losses(ours, "W2-small", "layer")[0] != pytest.approx(first[0], rel=1e-4)


def test_every_program_of_ours_has_a_variant(ours):
    wanted = {
        name for names, *_ in loaded("benchmarks/peers.py").PROGRAMS.values() for name in names
    }
    assert {name for name in wanted if "LIF" not in name} <= set(ours.VARIANTS)


def test_every_peer_of_jax_has_a_program():
    wanted = loaded("benchmarks/peers.py").PROGRAMS.values()
    named = {name for _, _, *lists in wanted for names in lists for name in names}
    assert named == set(loaded(f"{PEERS}/other_jax.py", beside=PEERS).PROGRAMS)


@pytest.mark.parametrize(
    ("workload", "variant", "most"),
    [
        ("W1", "layer, 8 parts", 10.5),
        ("W3", "layer, 8 parts", 10.4),
        pytest.param("W3", "time, recompute(5, sequence), lean", 10.4, marks=pytest.mark.slow),
        pytest.param("W2T4", "time, recompute(1), lean", 112, marks=pytest.mark.slow),
        pytest.param("W2T16", "time, recompute(1), lean", 268, marks=pytest.mark.slow),
    ],
)
def test_temporary_arrays_of_a_step(ours, workload, variant, most):
    """MiB as XLA plans them: the same on every machine."""
    step, about = ours.network(ours.workloads.problem(workload), variant=variant)
    with jax.numpy_dtype_promotion("standard"):
        step()
    assert about()["temporary"] <= most


@pytest.mark.slow
def test_the_program_measures_in_turns(tmp_path):
    file, picture = tmp_path / "found.json", tmp_path / "found.png"
    words = ["--workloads", "W4-small", "--rounds", "2", "--json", file, "--picture", picture]
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "benchmarks" / "peers.py", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = json.loads(file.read_text())["rows"]
    assert json.loads(done.stdout.splitlines()[-1])["rounds"] == 2 and picture.exists()
    assert [row["same"] for row in rows] == ["a"] * len(rows)
    assert all(len(row["steps"]["cpu"]) == 2 for row in rows)


def test_a_converter_gets_the_network_of_the_run(monkeypatch, tmp_path):
    """By its kinds and kernels in a file, in our order of features and in PyTorch's."""
    net = models.vgg(
        stages=((2, 3), (4,)), hidden=(6,), classes=5, input_shape=(6, 6, 1), norm=None, bias=False,
        pool=nn.AvgPool, flatten=True, neuron=conversion.ReLU, rngs=nnx.Rngs(0),
    )  # fmt: skip
    images = np.random.default_rng(0).uniform(size=(8, 6, 6, 1)).astype(np.float32)
    described = loaded("benchmarks/conversion.py", beside="benchmarks").described(net)
    file, labels = tmp_path / "network.npz", np.arange(8) % 5
    given = {"images": images, "calibration": images, "labels": labels, "batch": 4, "timesteps": 3}
    np.savez(file, **given, **described)
    programs, found = loaded(f"{PEERS}/converters.py", beside=PEERS), []
    monkeypatch.setattr(
        programs.workloads, "serve_steps", lambda step, about: found.append((step(), about()))
    )
    programs.ours(file, shift=None)
    x = jnp.asarray(images)
    spiking = conversion.to_spiking(net, thresholds=conversion.calibrate(net, [x]), shift=None)
    logits = conversion.mean_outputs(spiking, x, timesteps=3)[3]
    expected = -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(8), labels])
    ((loss, about),) = found
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert about["accuracy"] == float(np.mean(np.asarray(logits).argmax(-1) == labels))
    _, layers = programs._parts(file)
    linear = [k for kind, k in programs._channels_first(layers) if kind == "linear"]
    features = np.random.default_rng(1).normal(size=(3, 3, 4))
    mixed = features.transpose(2, 0, 1).reshape(-1) @ linear[0]
    np.testing.assert_allclose(mixed, features.reshape(-1) @ described["kernel3"], rtol=1e-5)


def test_the_time_needed_is_the_least_without_a_later_loss():
    program = loaded("rmp_fashion_mnist.py")
    needed = program.needed
    assert program.reached({4: 88.0, 8: 91.0, 16: 89.0}, 90) == 8
    assert program.reached({4: 88.0}, 90) is None
    assert needed({4: 88.0, 8: 91.0, 16: 89.0, 32: 90.0, 64: 91.0}, 90) == 32
    assert needed({4: 91.0, 8: 91.0}, 90) == 4
    assert needed({4: 91.0, 8: 89.0}, 90) is None
