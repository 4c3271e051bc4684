"""Run directories of version 0.1 are evaluated and resumed; what cannot be read says why."""

import json
import pathlib
import tarfile

import pytest

from snnjax import training

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


@pytest.mark.parametrize("name", EXPECTED)
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
    assert [records[step] for step in (89, 90, 91)] == pytest.approx(losses, rel=1e-6)


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
