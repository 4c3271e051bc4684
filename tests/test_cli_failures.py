"""Faults of the machine under a run: a full disk, no rights, a closed pipe, a defect."""

import errno
import io
import json
import os
import subprocess
import sys

import jax
import pytest

from snnjax import training
from snnjax.cli import main
from snnjax.cli._failures import describe
from tests.training import micro


def train(capsys, folder, *options):
    code = main(argv=["train", micro.__file__, "--out", str(folder), "--json", *options])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def test_a_full_disk_while_training(capsys, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("snnjax.training.checkpoints.store.begin", full)
    code, said, err = train(capsys, tmp_path / "run")
    assert code == 2 and "disk is full" in said["error"] and "Traceback" not in err


def test_a_full_quota_is_a_full_disk():
    message, code = describe(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)))
    assert code == 2 and "disk is full" in message


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


def test_a_checkpoint_cut_short(capfd, tmp_path):
    """Neither are there lines of the storage library, which writes to the descriptor."""
    folder = tmp_path / "run"
    assert train(capfd, folder)[0] == 0
    for file in (folder / "checkpoints" / "00000010").rglob("d/*"):
        file.write_bytes(b"")
    assert main(argv=["eval", str(folder), "--checkpoint", "10"]) == 2
    out, err = capfd.readouterr()
    assert not out and err.count("\n") == 1 and len(err) < 600
    assert "00000010 cannot be read" in err and "delete that folder" in err
    assert main(argv=["eval", str(folder)]) == 0
    out, err = capfd.readouterr()
    assert "step 5:" in out and err.count("\n") == 1
    assert "00000010 cannot be read" in err and "passed over" in err


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

    monkeypatch.setattr(training, "prepare", broken)
    code, said, err = train(capsys, tmp_path / "a")
    assert code == 70 and "KeyError" in said["error"] and "Traceback" not in err
    code, said, err = train(capsys, tmp_path / "b", "--debug")
    assert code == 70 and "Traceback" in err


PATHS = [
    "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "ELOOP",
    "EIO", "ESTALE", "EBUSY",
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_an_error_of_the_system_is_one_message_with_its_path(name):
    number = getattr(errno, name)
    message, code = describe(OSError(number, os.strerror(number), "runs/mine"))
    assert code == 2 and message.startswith("runs/mine") and "defect" not in message


def test_too_few_file_descriptors_are_not_called_memory():
    words = (
        "RESOURCE_EXHAUSTED: Failed to open: \"/run/x\": Too many open files [os_error_code='24']"
    )
    older = "RESOURCE_EXHAUSTED: Failed to open [OS error 24: Too many open files]"
    outer = training.errors.DamagedCheckpointError("00000010 cannot be read")
    outer.__cause__ = ValueError(words)
    system = OSError(errno.EMFILE, "Too many open files")
    for error in (system, ValueError(words), ValueError(older), outer):
        message, code = describe(error)
        assert code == 2 and "ulimit -n" in message and "memory" not in message
        assert "delete" not in message


def test_an_error_of_the_storage_library_names_its_path():
    words = "PERMISSION_DENIED: Failed to open: \"/run/state/x\": Denied [os_error_code='13']"
    message, code = describe(ValueError(words))
    assert code == 2 and message.startswith("/run/state/x may not be read")


def test_a_defect_while_an_error_was_handled_is_still_a_defect():
    try:
        try:
            open("/nowhere/at/all")  # noqa: SIM115
        except FileNotFoundError:
            raise KeyError("oops") from None
    except KeyError as error:
        assert describe(error)[1] == 70
    hidden = KeyError("oops")
    hidden.__context__ = FileNotFoundError(errno.ENOENT, "No such file", "x")
    assert describe(hidden)[1] == 70


@pytest.mark.parametrize("where", ["sys.exit('no GPU here')", "def config(): sys.exit()"])
def test_an_experiment_that_exits_is_named(capsys, tmp_path, where):
    (tmp_path / "mine.py").write_text(f"import sys\n{where}\n")
    code = main(argv=["train", str(tmp_path / "mine.py")])
    err = capsys.readouterr().err
    assert code == 2 and "sys.exit" in err and ("no GPU here" in err) == ("GPU" in where)


OUTS = {
    "a file in the way": ("file/run", "cannot be made in"),
    "a device": ("/dev/null/run", "cannot be made in"),
    "a long name": ("n" * 300, "too long"),
    "no name": ("", "--out is empty"),
}


@pytest.mark.parametrize("name", OUTS)
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_compiled(
    capsys, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "prepare", None)
    (tmp_path / "file").write_text("")
    path, needle = OUTS[name]
    code, said, _ = train(capsys, path)
    assert code == 2 and needle in said["error"]


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "snnjax", *arguments], text=True, timeout=200, **options
    )


def test_a_closed_pipe_does_not_end_training(tmp_path):
    """As `snnjax train | head -1`."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "snnjax", "train", micro.__file__, "--out", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert "micro: " in running.stdout.readline()
        running.stdout.close()
        err = running.stderr.read()
    assert running.returncode == 0 and err == ""
    assert json.loads((folder / "result.json").read_text())["steps"] == 10


def test_output_that_cannot_be_written_is_named_once():
    with open("/dev/full", "w") as full:
        done = process("info", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the output cannot be written" in done.stderr and "disk" not in done.stderr


# One process shows it; these two import all packages to print on the same path.
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        pytest.param(["info"], marks=pytest.mark.slow),
        pytest.param(["train", "--help"], marks=pytest.mark.slow),
    ],
)
def test_a_pipe_that_is_closed_from_the_start(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = process(*arguments, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("name", ["a\x1b[31mred.py", "a\nb.py", "a\u202eb.py", "\udcff.py", "a\rb"])
def test_names_cannot_drive_the_terminal(capsys, name):
    assert main(argv=["train", name]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err[:-1].isprintable() and "\\" in err


def test_letters_that_a_terminal_lacks_are_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(argv=["eval", "größe"]) == 2
    assert b"gr\\xf6\\xdfe is not there" in stream.buffer.getvalue()


def test_the_shortest_time_to_be_cached_is_that_of_the_user(monkeypatch, tmp_path):
    """JAX reads the variable when it is imported; without it the command chooses a tenth second."""
    from snnjax.cli import _cache

    name, folder = (
        "jax_persistent_cache_min_compile_time_secs",
        jax.config.jax_compilation_cache_dir,
    )
    before = getattr(jax.config, name)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    try:
        for variable, expected in (("7", 7.0), (None, 0.1)):
            jax.config.update(name, 7.0)
            if variable:
                monkeypatch.setenv(name.upper(), variable)
            else:
                monkeypatch.delenv(name.upper())
            _cache.enable(on=True, warn=pytest.fail)
            assert getattr(jax.config, name) == expected
    finally:
        jax.config.update(name, before)
        jax.config.update("jax_compilation_cache_dir", folder)


def test_a_cache_that_cannot_be_written_is_left_out(capsys, tmp_path, monkeypatch):
    from snnjax.cli import _cache

    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/dev/null/cache")
    before, warnings = jax.config.jax_enable_compilation_cache, []
    try:
        _cache.enable(on=True, warn=warnings.append)
        assert not jax.config.jax_enable_compilation_cache
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert len(warnings) == 1 and "JAX_COMPILATION_CACHE_DIR" in warnings[0]
