"""`snnjax export`: an artifact of a run, its refusals, and checkpoints that hold planted files."""

import gc
import json
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from snnjax import export, readout, training
from snnjax.cli import main
from tests.export.cases import Planted
from tests.training import micro


def call(capsys, *arguments):
    """Exit code, the last line of stdout as JSON, and stderr."""
    capsys.readouterr()
    code = main(argv=[*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(argv=["train", micro.__file__, "--out", str(folder), "--epochs", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def session(trained):
    """Session of an evaluation, and the trained state."""
    session = training.prepare(training.Run.open(trained).experiment(), training=False)
    newest = training.checkpoints.newest(training.Run.open(trained).checkpoints)
    assert newest is not None
    return session, training.checkpoints.load(newest, session.state)


def test_a_window_judges_as_evaluation_does(trained, session, capsys, tmp_path):
    code, said, err = call(capsys, "export", trained, "--out", tmp_path / "a")
    assert code == 0 and "Traceback" not in err
    assert said["kind"] == "window" and said["batch"] == "any" and said["timesteps"] == 2
    assert said["difference"] == 0.0 and said["examples"] == 8, "bit for bit"
    assert said["platforms"] == ["cpu", "cuda", "tpu"] and said["step"] == 5
    assert said["parameters"] == 626 + 2 * 8
    assert said["bytes"] == sum(p.stat().st_size for p in (tmp_path / "a").iterdir())
    artifact = export.load(said["artifact"])
    session, state = session
    test = session.dataset.test
    right = np.argmax(artifact(np.asarray(test.inputs)), -1) == test.labels
    assert right.mean() == pytest.approx(session.evaluate(state).accuracy, abs=1e-9)
    assert artifact.manifest["class_names"] == [str(n) for n in range(10)]
    # What is in the artifact goes back into a state, to be trained on.
    found = export.load_weights(tmp_path / "a" / "weights.safetensors", session.state)
    kernel = lambda s: s.params["body"]["layers"][1]["function"]["kernel"][...]  # noqa: E731
    np.testing.assert_array_equal(kernel(found), kernel(state))


def test_streaming_from_a_run(trained, session, capsys):
    code, said, _ = call(capsys, "export", trained, "--streaming", "--platforms", "cpu")
    assert code == 0 and said["kind"] == "streaming" and said["platforms"] == ["cpu"]
    assert said["artifact"] == str(trained / "export" / "streaming-5")
    assert said["difference"] < 1e-5
    artifact = export.load(said["artifact"])
    session, _ = session
    inputs = np.asarray(session.dataset.test.inputs[:3])
    state, outputs = artifact.initial_state(3), []
    for frame in session.experiment.encode(session.experiment, inputs, None):
        state, one = artifact(state, frame)
        outputs.append(one)
    assert readout.rate(np.stack(outputs)).shape == (3, 10)
    assert "data.rescale" in artifact.manifest["encode"]["source"]


def test_for_another_machine_nothing_is_compared(trained, capsys, tmp_path):
    arguments = ["--out", tmp_path / "a", "--platforms", "cuda", "--batch", "4"]
    code, said, _ = call(capsys, "export", trained, *arguments)
    assert code == 0 and said["batch"] == 4
    assert said["difference"] is None and said["examples"] is None


REFUSALS = {
    "batch": (["--batch", "0"], "--batch is any, or a number"),
    "batch of words": (["--batch", "many"], "--batch is any, or a number"),
    "platform": (["--platforms", "gpu"], "cpu, cuda, rocm, tpu"),
    "checkpoint": (["--checkpoint", "77"], "no checkpoint '77'"),
    "option": (["--streming"], "--streaming"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_gets_one_message_and_leaves_nothing(trained, capsys, tmp_path, name):
    options, needle = REFUSALS[name]
    code, said, err = call(capsys, "export", trained, "--out", tmp_path / "a", *options)
    assert code == 2 and needle in said["error"]
    assert err.endswith(f"snnjax: {said['error']}\n") and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(trained, capsys, tmp_path):
    (tmp_path / "mine").write_text("mine")
    code, said, _ = call(capsys, "export", trained, "--out", tmp_path)
    assert code == 2 and "choose another --out" in said["error"]
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_no_run(capsys, tmp_path):
    code, said, _ = call(capsys, "export", tmp_path / "none")
    assert code == 2 and "is not there" in said["error"]


def forgotten_tasks(test):
    """Orbax forgets the tasks that read other arrays where one cannot be read; they complain here.

    The test collects them, so that they complain in no other one.
    """
    for ignored in ("pytest.PytestUnraisableExceptionWarning", "RuntimeWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{ignored}")(test)
    return test


@pytest.fixture
def planted(tmp_path):
    """Bytes of a pickle, and the file that loading it would write."""
    trace = tmp_path / "trace"
    return pickle.dumps(Planted(trace)), trace


def checkpoint_of(run):
    newest = training.checkpoints.newest(training.Run.open(run).checkpoints)
    assert newest is not None
    return newest


@forgotten_tasks
def test_a_pickle_in_place_of_any_file_of_a_checkpoint_is_not_run(
    trained, session, tmp_path, planted
):
    """With the size that it had too, as far as the pickle is short enough."""
    data, trace = planted
    folder = checkpoint_of(trained)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(files) > 3
    for number, name in enumerate(files):
        copy = tmp_path / str(number) / folder.name
        shutil.copytree(folder, copy)
        size = (copy / name).stat().st_size
        (copy / name).write_bytes(data.ljust(size, b"\0"))
        try:
            training.checkpoints.load(copy, session[0].state)
        except training.errors.CheckpointError as error:
            assert "\n" not in str(error)
        assert not trace.exists(), name
        shutil.rmtree(copy.parent)
    gc.collect()


@forgotten_tasks
# Files beside the arrays are not named anywhere.
@pytest.mark.parametrize(
    "place", [pytest.param("beside", marks=pytest.mark.slow), "instead of the arrays"]
)
def test_the_command_line_survives_a_planted_pickle(trained, capsys, tmp_path, planted, place):
    data, trace = planted
    run = shutil.copytree(trained, tmp_path / "run")
    folder = checkpoint_of(run)
    if place == "beside":
        for name in ("model.pkl", "__init__.py", "checkpoint"):
            (folder / name).write_bytes(data)
    else:
        for path in [p for p in folder.rglob("*") if p.is_file() and "ocdbt" in p.name]:
            path.write_bytes(data)
    code, said, err = call(capsys, "export", run, "--out", tmp_path / "a")
    assert "Traceback" not in err and not trace.exists()
    assert code == (0 if place == "beside" else 2)
    assert place == "beside" or "be read" in said["error"]
    assert (tmp_path / "a").exists() == (place == "beside")
    gc.collect()


def test_a_network_that_learned_by_plasticity_is_refused_by_name(capsys, monkeypatch, tmp_path):
    """Before anything of it is prepared."""
    experiment = pathlib.Path(__file__).parents[1] / "experiments" / "stdp_mnist.py"
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(training.checkpoints, "steps", lambda folder: [1])
    shutil.copy(experiment, run / "experiment.py")
    (run / "config.json").write_text("{}")
    code, said, _ = call(capsys, "export", run)
    assert code == 2 and "learns by plasticity" in said["error"]
