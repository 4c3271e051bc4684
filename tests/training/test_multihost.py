"""Several real processes on one machine train as one does; what they cannot agree on is refused."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from snnjax import training
from snnjax.training import multihost

ROOT = pathlib.Path(__file__).parents[2]
MICRO = pathlib.Path(__file__).with_name("micro.py")


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def begin(folder, count, *options, devices=1, others=()):
    """Starts `count` processes; `others` are options of all but the first."""
    where, port = {"JAX_NUM_CPU_DEVICES": str(devices)}, free_port()
    started = []
    for number in range(count):
        words = [sys.executable, "-m", "snnjax", "train", *map(str, options), "--json"]
        if count > 1:
            words += ["--coordinator", f"localhost:{port}", "--processes", str(count)]
            words += ["--process", str(number), *(others if number else ())]
        with (folder / f"said{number}").open("w") as out:
            started.append(subprocess.Popen(words, cwd=ROOT, env={**os.environ, **where},
                                            stdout=out, stderr=subprocess.STDOUT))  # fmt: skip
    return started


def said(folder, number=0):
    return (folder / f"said{number}").read_text()


def end(started):
    return [process.wait(timeout=240) for process in started]


def records(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    drop = {"seconds", "examples_per_second", "memory_bytes"}
    return [{k: v for k, v in record.items() if k not in drop} for record in kept]


def options(run):
    return [MICRO, "--out", run, "--epochs", "1", "--batch", "64", "--log-every", "1", "--mesh"]


def train(folder, count, devices):
    assert (
        end(begin(folder, count, *options(folder / "run"), "data=-1", devices=devices))
        == [0] * count
    ), said(folder)
    return records(folder / "run")


def assert_alike(found, expected):
    """The same records but for rounding, which in the end may tip a spike and with it an answer.

    What is compiled for several processes fuses other sums than what is compiled for one.
    """
    assert len(found) > 20
    for record, other in zip(found, expected, strict=True):
        assert record.pop("kind") == other.pop("kind")
        assert record == pytest.approx(other, rel=1e-3, abs=3 / 360)


# Three processes that compile; one mesh over several processes is tested in parts: what each reads
# by test_sharding, how devices share a step by test_devices.
@pytest.mark.slow
def test_two_processes_are_one_with_their_batch(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    alone, together = train(folders[0], 1, 2), train(folders[1], 2, 1)
    assert_alike(together, alone)
    spoken = re.sub(r"\[Gloo\].*\n", "", said(folders[1], 1))
    assert spoken == ""  # only process 0 speaks
    assert json.loads(said(folders[1]).splitlines()[-1])["processes"] == 2


@pytest.mark.slow
def test_four_processes_are_too(tmp_path):
    folders = [tmp_path / name for name in ("one", "four")]
    for folder in folders:
        folder.mkdir()
    assert_alike(train(folders[0], 1, 4), train(folders[1], 4, 1))


@pytest.mark.slow
def test_a_signal_to_any_saves_everywhere_and_another_number_goes_on(tmp_path):
    run = tmp_path / "run"
    started = begin(tmp_path, 2, *options(run), "data=-1", "--epochs", "50")
    while not (run / "metrics.jsonl").exists():
        time.sleep(0.05)
        assert all(process.poll() is None for process in started), said(tmp_path)
    started[1].send_signal(signal.SIGTERM)
    assert end(started) == [143, 143], said(tmp_path) + said(tmp_path, 1)
    step = training.checkpoints.steps(run / "checkpoints")[-1]
    assert f"saved after step {step} of" in said(tmp_path)
    assert len([r for r in records(run) if r["kind"] == "train"]) == step
    resumed = begin(tmp_path, 1, "--resume", run, "--epochs", "2")
    assert end(resumed) == [0] and f"resuming after step {step}" in said(tmp_path)


def test_other_options_than_process_0_are_refused(tmp_path):
    run = tmp_path / "run"
    started = begin(tmp_path, 2, *options(run), "data=-1", others=["--learning-rate", "0.5"])
    codes = end(started)
    assert codes[1] == 2 and codes[0] != 0
    message = "process 1 was given learning_rate 0.5 and process 0 0.01: give all of them the same"
    assert message in said(tmp_path, 1)
    assert not run.exists()


@pytest.mark.fast
@pytest.mark.parametrize(
    "coordinator, count, number, cure",
    [
        (None, 2, 0, "--coordinator HOST:PORT"),
        (None, None, 1, "--coordinator HOST:PORT"),
        ("auto", 2, 0, "leave the others out"),
        ("somewhere", 2, 0, "HOST:PORT of process 0, such as 10.0.0.1:1234"),
        ("host:port", 2, 0, "HOST:PORT"),
        ("host:99999", 2, 0, "HOST:PORT"),
        (":1234", 2, 0, "HOST:PORT"),
        ("host:1234", None, None, "needs --processes N and --process I"),
        ("host:1234", 2, None, "needs --processes N and --process I"),
        ("host:1234", 2, 2, "numbers run from 0 to 1"),
        ("host:1234", 2, -1, "numbers run from 0 to 1"),
        ("host:1234", 0, 0, "numbers run from 0 to 0"),
    ],
)
def test_processes_that_cannot_find_each_other_are_told_why(coordinator, count, number, cure):
    with pytest.raises(training.errors.MeshError, match=re.escape(cure)):
        multihost.connect(coordinator, processes=count, process=number)


@pytest.mark.fast
def test_one_process_decides_for_itself():
    multihost.connect(None)
    assert multihost.is_leader() and multihost.broadcast(lambda: "so") == "so"
    wishes = multihost.AnyProcess(training.sharding.make_mesh())
    assert [wishes(False), wishes(True)] == [False, True]


@pytest.mark.fast
def test_nobody_who_listens_is_told():
    with pytest.raises(training.errors.MeshError, match="process 0 does not listen at localhost:"):
        multihost.connect(f"localhost:{free_port()}", processes=2, process=1, timeout=0)
