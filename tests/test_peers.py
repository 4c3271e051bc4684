"""The programs beside those of peers: every strategy takes the same first steps."""

import json
import subprocess
import sys

import jax
import pytest

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
