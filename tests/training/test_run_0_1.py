"""Run directories of version 0.1 are evaluated and resumed; what cannot be read says why."""

import json
import pathlib
import shutil
import tarfile

import pytest

from snnjax import memory, training
from snnjax.memory import notation
from tests.training.conftest import make

FIXTURES = pathlib.Path(__file__).with_name("fixtures")

# Test loss, right test examples of 360, and the training losses of steps 89 to 91: see the
# docstring of fixtures/run_0_1.py.
EXPECTED = {
    "run_0_1": ("0x1.fb477f49f49f5p-1", 260, (0.97707796, 0.80593723, 1.05024838)),
    "run_0_1_bfloat16": ("0x1.e6207f49f49f5p-1", 253, (0.94028270, 0.84512341, 0.98941916)),
}


def unpacked(name, folder):
    with tarfile.open(FIXTURES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return training.Run.open(folder)


# The slow lane has the run in bfloat16: the same files, read by the same code.
@pytest.mark.parametrize(
    "name", ["run_0_1", pytest.param("run_0_1_bfloat16", marks=pytest.mark.slow)]
)
def test_a_run_of_0_1_is_evaluated_and_resumed(name, tmp_path):
    run = unpacked(name, tmp_path / "run")
    loss, right, losses = EXPECTED[name]
    saved = training.config.override(run.experiment(), {"epochs": 3, "log_every": 1})
    session = training.prepare(saved)
    path = training.checkpoints.newest(run.checkpoints)
    # The best one is chosen by the accuracy in the old note.
    assert path is not None and training.checkpoints.best(run.checkpoints) == path
    state = training.checkpoints.load(path, session.state)
    evaluation = session.evaluate(state)
    assert evaluation.loss == pytest.approx(float.fromhex(loss), rel=1e-6)
    assert round(evaluation.accuracy * 360) == right
    result = training.fit(session, run)
    assert result.step == 132
    records = {r["step"]: r["loss"] for r in run.records() if r["kind"] == "train"}
    found = [records[step] for step in (89, 90, 91)]
    assert found[0] == pytest.approx(losses[0], rel=1e-6)
    # Sums of other processors differ in the last bits, which updates and spikes amplify; another
    # batch would differ by a percent.
    assert found == pytest.approx(losses, rel=1e-4)


def test_a_checkpoint_without_digests_is_read_and_says_so(tmp_path):
    run, said = unpacked("run_schema_4", tmp_path / "run"), []
    session = training.prepare(run.experiment(), training=False)
    state = training.checkpoints.load_newest(run.checkpoints, session.state, warn=said.append)
    (warning,) = said
    assert "00000044 has no digests" in warning
    evaluation = session.evaluate(state)
    assert evaluation.loss == pytest.approx(1.5120054, rel=1e-6)
    assert round(evaluation.accuracy * 360) == 178
    # A changed digit in its metadata is damage if an earlier checkpoint fits.
    later, said[:] = run.checkpoints / "00000045", []
    training.checkpoints.save(run.checkpoints, state)
    shutil.copytree(run.checkpoints / "00000044", later)
    file = later / "_CHECKPOINT_METADATA"
    file.write_text(file.read_text().replace("float32[16, 8]", "float32[16, 9]"))
    loaded = training.checkpoints.load_newest(run.checkpoints, session.state, warn=said.append)
    assert int(loaded.step) == 44
    assert "[16, 9]" in said[-1] and "passed over" in said[-1]
    # Another step's under this name.
    file.write_bytes((run.checkpoints / "00000044" / file.name).read_bytes())
    said.clear()
    assert (
        int(training.checkpoints.load_newest(run.checkpoints, session.state, warn=said.append).step)
        == 44
    )
    assert "its state is of step 44" in said[0]


def test_an_experiment_of_0_1_that_fails_names_the_version(tmp_path):
    run = unpacked("run_0_1", tmp_path / "run")
    text = run.source.read_text().replace("timesteps=2,", "timesteps=2, loss=None,")
    run.source.write_text(text)
    versions = json.loads((run.path / "versions.json").read_text())
    versions["packages"]["snnjax"] = "0.0.9"
    (run.path / "versions.json").write_text(json.dumps(versions))
    with pytest.raises(
        training.errors.ExperimentError, match=r"'loss'.*made by snnjax 0\.0\.9.*pip"
    ):
        run.experiment()


MEMORY = "time=recompute(8, inner=whole), depth=recompute(1)"


@pytest.mark.parametrize("version", ["0.1.0", None])
def test_the_word_whole_of_0_1_is_the_scan_sequence(run, version):
    """`memory.whole` of version 0.1 is `memory.sequence`, also in a run without its version."""
    written = run.config()
    run.write_json("config.json", {**written, "memory": MEMORY})
    versions = {"packages": {"snnjax": version}} if version else {}
    run.write_json("versions.json", versions)
    strategy = training.config.override(make(), run.config()).memory
    assert strategy is not None
    assert strategy.time == memory.recompute(8, inner=memory.sequence)
    assert run.config() == {**written, "memory": MEMORY.replace("whole", "sequence")}


def test_a_scan_registered_as_whole_keeps_its_name_since_0_2(run, monkeypatch):
    monkeypatch.setattr(notation, "_REGISTERED", {})
    memory.register_scan("whole", memory.recompute(2))
    run.write_json("config.json", {**run.config(), "memory": "time=whole"})
    run.write_json("versions.json", {"packages": {"snnjax": "0.2.0"}})
    assert run.config()["memory"] == "time=whole"
