"""Faults of the machine under a run: a full disk, no rights, no memory, a defect."""

import errno
import json
import os
import subprocess
import sys

import pytest

from snnjax import training
from snnjax.cli import main
from snnjax.cli._failures import describe
from tests.training import micro


def train(capsys, folder, *options):
    code = main(argv=["train", micro.__file__, "--out", str(folder), "--json", *options])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_while_training(capsys, tmp_path, monkeypatch, number):
    def full(*args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("snnjax.training.checkpoints.store.begin", full)
    code, said, err = train(capsys, tmp_path / "run")
    assert code == 2 and "disk is full" in said["error"] and "Traceback" not in err


def test_a_full_disk_as_orbax_tells_it():
    inner = ValueError("RESOURCE_EXHAUSTED: Error writing: [OS error 28: No space left on device]")
    outer = RuntimeError("saving failed")
    outer.__cause__ = inner
    assert describe(outer)[1] == 2 and "disk is full" in describe(outer)[0]


@pytest.mark.slow
def test_files_that_cannot_grow(tmp_path):
    """A real limit of the operating system, met by whatever writes first."""
    folder = tmp_path / "run"
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        "from snnjax.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "train", micro.__file__, "--width", "600", "--json",
         "--out", str(folder)],
        capture_output=True, text=True, timeout=200,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": "", "JAX_ENABLE_COMPILATION_CACHE": "0"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "disk is full" in json.loads(done.stdout.splitlines()[-1])["error"]
    assert "Traceback" not in done.stderr


def evaluate(folder, *options):
    command = [sys.executable, "-m", "snnjax", "eval", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_checkpoint_cut_short(capsys, tmp_path):
    folder = tmp_path / "run"
    assert train(capsys, folder)[0] == 0
    for file in (folder / "checkpoints" / "00000010").rglob("d/*"):
        file.write_bytes(b"")
    done = evaluate(folder, "--checkpoint", "10")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and len(done.stderr) < 600
    assert "00000010 cannot be read" in done.stderr and "delete that folder" in done.stderr
    done = evaluate(folder)
    assert done.returncode == 0 and "step 5:" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "00000010 cannot be read" in done.stderr and "passed over" in done.stderr


def test_a_folder_that_may_not_be_written(capsys, tmp_path, monkeypatch):
    def denied(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(training.Run, "create", denied)
    code, said, _ = train(capsys, tmp_path / "run")
    assert code == 2 and "--out" in said["error"]


def test_memory_that_does_not_suffice():
    assert describe(MemoryError())[1] == 2
    message, code = describe(RuntimeError("RESOURCE_EXHAUSTED: out of memory allocating 9 bytes"))
    assert code == 2 and "--batch" in message


def test_a_defect_is_called_one_and_debug_shows_where(capsys, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise KeyError("oops")

    monkeypatch.setattr(training, "fit", broken)
    code, said, err = train(capsys, tmp_path / "a")
    assert code == 70 and "KeyError" in said["error"] and "Traceback" not in err
    code, said, err = train(capsys, tmp_path / "b", "--debug")
    assert code == 70 and "Traceback" in err
