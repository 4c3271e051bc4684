"""A real process, killed or asked to stop at any moment, loses nothing and ends as it says."""

import contextlib
import json
import os
import pathlib
import pty
import random
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from snnjax import training
from snnjax.cli import main
from snnjax.cli._signals import Listener, listening
from tests.training import micro
from tests.training.conftest import assert_same_bits

OPTIONS = ["--epochs", "18", "--checkpoint-every", "7", "--eval-every", "10", "--log-every", "1"]
STEPS = 90


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    with contextlib.redirect_stdout(sys.stderr):
        assert main(argv=["train", micro.__file__, "--out", str(folder), *OPTIONS]) == 0
    return folder


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "snnjax", "train", micro.__file__, "--out", str(folder), *OPTIONS],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy(),
    )  # fmt: skip


def wait_for_step(process, folder, step):
    """Returns once a record of that step was written."""
    metrics, deadline = pathlib.Path(folder) / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it ended before step {step}: {process.communicate()}"
        if metrics.exists() and metrics.read_bytes().count(b'"train"') >= step:
            return
        time.sleep(0.001)
    process.kill()
    raise TimeoutError(f"no step {step}: {process.communicate()}")


def final_state(folder):
    run = training.Run.open(folder)
    _, state = training.initialize(run.experiment(), steps=STEPS)
    path = training.checkpoints.newest(run.checkpoints)
    assert path.name == f"{STEPS:08}"
    return training.checkpoints.load(path, state)


def resume_and_compare(folder, straight):
    assert main(argv=["train", "--resume", str(folder)]) == 0
    assert_same_bits(final_state(folder), final_state(straight))
    timed = {"seconds", "examples_per_second", "memory_bytes"}
    strip = lambda r: {k: v for k, v in r.items() if k not in timed}  # noqa: E731
    mine, theirs = (training.Run.open(f).records() for f in (folder, straight))
    assert [strip(r) for r in mine] == [strip(r) for r in theirs]


# tests/training/test_loop.py resumes from a checkpoint older than the records, as after it.
@pytest.mark.slow
def test_kill_9_at_a_random_step_changes_no_bit(straight, tmp_path):
    step = random.randrange(1, 40)
    print(f"killed at step {step}")
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_step(process, folder, step)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    reached = training.checkpoints.steps(training.Run.open(folder).checkpoints)
    assert not reached or reached[-1] < STEPS
    resume_and_compare(folder, straight)


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
)
def test_being_asked_to_stop_saves_and_says_how_to_go_on(straight, tmp_path, number, code):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_step(process, folder, random.randrange(1, 40))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and not err
    assert f"resume with: snnjax train --resume {folder}" in out
    records = training.Run.open(folder).records()
    newest = training.checkpoints.newest(folder / "checkpoints")
    assert int(newest.name) == records[-1]["step"] < STEPS
    resume_and_compare(folder, straight)


IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "snnjax", "train", *sys.argv[1:]])
"""


# Another signal on the path of SIGTERM; tests/test_cli_failures.py closes a pipe in training.
@pytest.mark.slow
def test_a_lost_terminal_saves(straight, tmp_path):
    """The kernel sends SIGHUP, and every later write to the terminal fails."""
    folder = tmp_path / "run"
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, micro.__file__, "--out", str(folder), *OPTIONS],
        stdin=end, stdout=end, stderr=end, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    closing = threading.Event()
    reader = threading.Thread(target=read_until, args=(terminal, closing))
    reader.start()
    wait_for_step(process, folder, random.randrange(1, 40))
    closing.set()
    reader.join()
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    records = training.Run.open(folder).records()
    newest = training.checkpoints.newest(folder / "checkpoints")
    assert int(newest.name) == records[-1]["step"] < STEPS
    resume_and_compare(folder, straight)


def read_until(terminal, closing):
    """Reads a terminal, or its process would wait for room."""
    while not closing.is_set():
        if select.select([terminal], [], [], 0.01)[0]:
            os.read(terminal, 2**16)


def test_before_the_first_step_there_is_nothing_to_save(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(training, "prepare", interrupted)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    folder = tmp_path / "run"
    assert main(argv=["train", micro.__file__, "--out", str(folder), "--json"]) == 143
    out, err = capsys.readouterr()
    assert "nothing was saved" in err and json.loads(out.splitlines()[-1])["exit_code"] == 143
    assert not folder.exists()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def wait_for_handlers(process):
    """Returns once the process handles SIGTERM, which Python by itself does not."""
    status, deadline = pathlib.Path(f"/proc/{process.pid}/status"), time.monotonic() + 60
    while time.monotonic() < deadline:
        caught = status.read_text().partition("SigCgt:")[2].split()[0]
        if int(caught, 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)
    raise TimeoutError("no handler")


def interrupt(folder, number, seconds):
    """Exit code, output and seconds until the end of a run, signalled after a time."""
    command = [sys.executable, "-m", "snnjax", "train", micro.__file__, "--no-cache"]
    process = subprocess.Popen(
        [*command, "--out", str(folder), "--epochs", "2000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_handlers(process)
    time.sleep(seconds)
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err, time.monotonic() - began


def assert_ended_as_asked(folder, number, seconds):
    code, text, _ = interrupt(folder, number, seconds)
    assert code == 128 + number, (code, text)
    assert "Traceback" not in text and "defect" not in text
    if "nothing was saved" in text:
        assert not folder.exists()
    else:
        assert f"resume with: snnjax train --resume {folder}" in text
        assert training.checkpoints.newest(folder / "checkpoints") is not None


needs_proc = pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")


# While JAX is imported an exception from a handler was swallowed, or crashed an extension module.
@needs_proc
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_before_the_first_step_ends_the_command_at_once(tmp_path, name):
    seconds = random.uniform(0, 1.5)
    print(f"{name} after {seconds:.3f} s")
    assert_ended_as_asked(tmp_path / "run", signal.Signals[name], seconds)


@needs_proc
@pytest.mark.slow
def test_ctrl_c_at_fifty_moments_from_the_start_to_the_first_steps(tmp_path):
    draw = random.Random(8)
    for trial in range(50):
        assert_ended_as_asked(tmp_path / str(trial), signal.SIGINT, draw.uniform(0, 6))


REDIRECTED = """
import contextlib, io, os, signal, sys, time
from snnjax import cli
from snnjax.cli import info

def command(arguments, screen):
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

info.command = command
sys.argv = ["snnjax", "info", "--json"]
sys.exit(cli.main())
"""


def test_the_message_arrives_although_the_main_thread_redirects_its_streams():
    """As the parser of options does: its messages are collected."""
    ended = subprocess.run(
        [sys.executable, "-c", REDIRECTED], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 130 and "SIGINT" in ended.stderr
    assert json.loads(ended.stdout)["exit_code"] == 130


def test_an_ignored_signal_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening(Listener()):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) != before
    finally:
        signal.signal(signal.SIGHUP, before)
