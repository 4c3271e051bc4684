"""Trained networks are loaded, and new runs start from their weights, with frozen parts."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

import snnjax
from snnjax import conversion, data, nn, training
from snnjax.cli import main
from snnjax.training._start import describe, match_weights, with_arrays
from snnjax.training.errors import CheckpointError, ExperimentError, RunError
from tests.training import micro, rectified, transfer
from tests.training.conftest import make

HIDDEN = ["body.layers.1.function.bias", "body.layers.1.function.kernel"]
NORM = ["body.layers.2.bias", "body.layers.2.scale"]
HEAD = ["body.layers.5.function.bias", "body.layers.5.function.kernel"]


@pytest.fixture(scope="module")
def source(compiled, tmp_path_factory):
    """A trained run of the micro experiment, and its outcome."""
    text = pathlib.Path(micro.__file__).read_text()
    run = training.Run.create(tmp_path_factory.mktemp("runs") / "source", make(), text)
    state = training.sharding.place(compiled.state, compiled.mesh)
    return run, training.fit(dataclasses.replace(compiled, state=state), run)


def call(capsys, *arguments):
    """Exit code, the JSON object, and the lines for people."""
    capsys.readouterr()
    code = main(argv=[*arguments, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def test_a_run_is_loaded_ready_to_call(source):
    run, result = source
    loaded = snnjax.load(run.path)
    test = data.load("digits").test
    predictions = loaded(test.inputs)
    assert predictions.shape == (360, 10) and loaded.step == result.step == 10
    accuracy = np.mean(np.argmax(predictions, -1) == test.labels)
    assert accuracy == pytest.approx(result.evaluation.accuracy, abs=1e-6)
    # The same by hand, on frames.
    frames = loaded.encode(test.inputs[:3])
    outputs, _ = loaded.network(frames, loaded.initial_state(3), training=False)
    np.testing.assert_allclose(outputs.mean(0), predictions[:3], rtol=1e-5, atol=1e-6)
    assert list(loaded.arrays) == [*HIDDEN, *NORM, *HEAD]
    jax.tree.map(np.testing.assert_array_equal, loaded.statistics, result.state.statistics)


def test_checkpoints_and_fields_are_chosen(source):
    run, result = source
    folder = training.checkpoints.step_path(run.checkpoints, 5)
    assert snnjax.load(folder).step == snnjax.load(run, checkpoint=5).step == 5
    assert snnjax.load(run, checkpoint="best").step == result.best_step
    longer = snnjax.load(str(run.path), timesteps=4)
    assert longer.encode(np.zeros((2, 8, 8, 1), np.uint8)).shape == (4, 2, 8, 8, 1)


def test_a_missing_run_or_checkpoint_is_named(source, tmp_path):
    run, _ = source
    with pytest.raises(RunError, match="is not there: give a folder that snnjax train made"):
        snnjax.load(tmp_path / "none")
    with pytest.raises(RunError, match="no checkpoint '7': choose last, best, 5, 10"):
        snnjax.load(run, checkpoint=7)
    empty = training.Run.create(tmp_path / "empty", make(), "")
    with pytest.raises(RunError, match="has no checkpoint yet: snnjax train --resume"):
        snnjax.load(empty)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match=r"snnjax\.export\.load"):
        snnjax.load(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        snnjax.load(run, width=9)
    with pytest.raises(ExperimentError, match="has no field depth"):
        snnjax.load(run, depth=3)


def test_a_converted_run_is_loaded(tmp_path):
    recipe = conversion.Recipe()
    experiment = training.converted.spiking_experiment(
        dataclasses.replace(rectified.config(), hidden=(6,)), recipe, timesteps=4
    )
    text = training.converted.experiment_text(
        pathlib.Path(rectified.__file__).read_text(),
        f"training.converted.spiking_experiment(source(), conversion.{recipe!r}, timesteps=4)",
    )
    run = training.Run.create(tmp_path / "spiking", experiment, text)
    training.checkpoints.save(run.checkpoints, training.initialize(experiment, steps=1)[1])
    loaded = snnjax.load(run)
    assert loaded(np.ones((2, 8, 8, 1), np.uint8)).shape == (2, 10)
    assert loaded.experiment.name == "rectified_spiking"


def test_one_command_learns_a_new_head_on_frozen_layers(source, capsys, tmp_path):
    """Another number of classes, T and strategy; resumed without the source."""
    moved, out = tmp_path / "source", tmp_path / "run"
    shutil.copytree(source[0].path, moved)
    code, said, err = call(
        capsys, "train", transfer.__file__, "--init-from", str(moved), "--freeze", "body.*",
        "--head", "new", "--out", str(out),
    )  # fmt: skip
    assert code == 0, said
    record = said["initialization"]
    assert record == json.loads((out / "initialization.json").read_text())
    assert record["loaded"] == record["frozen"] == [*HIDDEN, *NORM]
    assert record["drawn"] == record["skipped"] == HEAD and record["step"] == 10
    assert record["statistics"] == {"loaded": 2, "drawn": []}
    assert "4 arrays loaded (4 frozen), 2 of running statistics" in err
    assert f"newly drawn: {', '.join(HEAD)}" in err
    assert said["parameters"] == 45  # those of the head alone
    shutil.rmtree(moved)
    before, start, tuned = (
        snnjax.load(source[0]), snnjax.load(out, checkpoint=0), snnjax.load(out)
    )  # fmt: skip
    assert tuned.experiment.timesteps == 3 and tuned(np.zeros((2, 8, 8, 1))).shape == (2, 5)
    assert_frozen(before, tuned)
    assert not np.array_equal(start.arrays[HEAD[1]], tuned.arrays[HEAD[1]])
    code, more, _ = call(capsys, "train", "--resume", str(out), "--epochs", "2")
    assert code == 0 and more["steps"] == 2 * said["steps"] and more["initialization"] == record
    after = snnjax.load(out)
    assert_frozen(before, after)
    assert not np.array_equal(after.arrays[HEAD[1]], tuned.arrays[HEAD[1]])
    code, said, _ = call(capsys, "train", "--resume", str(out), "--freeze", "body.layers.2")
    assert code == 2 and "cannot change freeze" in said["error"]
    assert "--init-from RUN" in said["error"]


def test_the_lines_of_the_guide_do_the_same(source, tmp_path, monkeypatch):
    page = pathlib.Path(__file__).parents[2] / "docs" / "fine_tuning.md"
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert len(block.splitlines()) <= 12
    shutil.copytree(source[0].path, tmp_path / "runs" / "fashion_mnist-0")
    shutil.copy(transfer.__file__, tmp_path / "other.py")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(page), "exec"), {"__name__": "guide"})
    tuned = snnjax.load("runs/other")
    assert_frozen(snnjax.load(source[0]), tuned)
    assert tuned.experiment.init_from == "runs/fashion_mnist-0"


def assert_frozen(before, after):
    for name in (*HIDDEN, *NORM):
        assert np.asarray(before.arrays[name]).tobytes() == np.asarray(after.arrays[name]).tobytes()
    jax.tree.map(np.testing.assert_array_equal, before.statistics, after.statistics)


REFUSALS = {
    "other classes": ({}, r"bias is float32\[10\] there and float32\[5\] here, and 1 more differ: "
                          r"--head new draws the last layer \(body.layers.5\) anew"),
    "other width": ({"width": 9, "head": "new"}, r"--head \"PATTERN\": body.layers.1"),
    "freeze nothing": ({"head": "new", "freeze": ("bodi.*",)}, "'bodi.*' matches no parameter"),
    "no head": ({"head": "tail"}, "'tail' matches no array of this network: they are body"),
    "no run": ({"init_from": "none"}, "none is not there"),
    "no weights": ({"init_from": None, "head": "new"}, "no effect without weights"),
    "all frozen": ({"classes": 10, "freeze": ("body",)}, "leaves nothing to learn"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_does_not_fit_is_refused_before_any_work(source, name, monkeypatch):
    fields, match = REFUSALS[name]
    fields = {"init_from": str(source[0].path), **fields}
    monkeypatch.setattr(training.config, "load_dataset", None)  # would be called next
    with pytest.raises((ExperimentError, RunError), match=match):
        training.prepare(training.config.override(transfer.config(), fields))


def test_frozen_parameters_are_constants_without_slots():
    program, state = training.initialize(make(freeze=("body.layers.1",)), steps=4)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == 626 - 64 * 8 - 8
    whole = training.initialize(make(), steps=4)
    networks = [p.network(s) for p, s in ((program, state), whole)]
    jax.tree.map(np.testing.assert_array_equal, *(nn.split(network)[1] for network in networks))
    slots = [leaf.shape for leaf in jax.tree.leaves(state.optimizer)]
    assert (64, 8) not in slots and (8, 10) in slots
    # A norm of which one array learns has the statistics of the batch.
    for freeze, over in ((NORM[1], "window"), ("body.layers.2", "frozen")):
        program, state = training.initialize(make(freeze=(freeze,)), steps=4)
        assert program.network(state).body.layers[2].over == over


def test_constants_of_the_source_come_along_and_are_named(source):
    """A decay that is an array belongs to the weights; the record names its change."""

    def network(decay):
        def build(experiment, rngs):
            layers = list(micro.network(experiment, rngs).body.layers)
            layers[3] = nn.LIF(decay=np.full(8, decay, np.float32))
            return nn.Network(nn.Sequential(*layers), (8, 8, 1))

        return build

    here, there = (dataclasses.replace(make(), network=network(d)) for d in (0.9, 0.5))
    program, state = training.initialize(there, steps=4)
    loaded = training.loading.Loaded(
        program.network(state), state.statistics, there, program.task, 0, source[0]
    )
    program, state = training.initialize(here, steps=4)
    start = match_weights(loaded, program.network(state), state, here)
    (name,) = start.record["replaced"]
    assert name.startswith("body.layers.3.")
    assert float(loaded.arrays[name][0]) == pytest.approx(0.5)
    network = program.network(with_arrays(state, start.arrays, start.statistics))
    jax.tree.map(np.testing.assert_array_equal, nn.split(network)[2], nn.split(loaded.network)[2])
    assert any(name in line and "--head" in line for line in describe(start.record))


def test_a_run_without_its_first_checkpoint_reads_the_weights_again(compiled, tmp_path):
    experiment = make(init_from="runs/source")
    run = training.Run.create(tmp_path / "run", experiment, "")
    session = dataclasses.replace(compiled, experiment=experiment)
    with pytest.raises(RunError, match="read again from runs/source"):
        training.fit(session, run)
