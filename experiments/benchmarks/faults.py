"""Losses of a run that is killed or moved, with damaged files or a full disk.

A small network on the digits, 66 steps, a checkpoint every 6. Each trial starts a run, causes one
fault at a random moment, resumes the run, and compares its end with an undisturbed run. Faults:

    kill       SIGKILL                            of one process, or of one of two
    term       SIGTERM                            of one process, or of one of two
    damaged    SIGKILL, and a random file of the newest checkpoint is deleted or truncated
    full       a disk of a random size (a tmpfs, where mounting is allowed) with free space for the
               resumed run; in half of the trials a random limit on the size of files instead
    device     SIGKILL, and the run resumes on another number of devices or processes
    flip       SIGKILL, and one random bit of a random file of the newest checkpoint changes
    path       SIGKILL of a run below a folder whose name has characters such as [ * ? or :
    several    four starts at the same moment without --out: four runs, all complete
    hangup     SIGHUP, as from a lost terminal
    compiling  SIGINT before the first step, and the same command again
    foreign    SIGKILL, and a user puts files beside and into the checkpoints, which must stay
    unlocked   SIGKILL on a file system without locks, and the run resumes there

A trial passes if the resumed run ends with exit code 0 after all steps and loses at most the steps
since the last complete checkpoint (twice the interval, since one checkpoint may be in progress;
three times, if the newest was damaged or changed). Unless the devices changed, parameters,
optimizer, statistics and keys must equal those of an undisturbed run bit for bit, with equally many
processes: programs compiled for two processes may differ from those for one in the last bit.

Children are forked from a process that has imported everything and used no device, so a trial takes
seconds.

Command: python experiments/benchmarks/faults.py --trials 200 --seed 0
"""

import argparse
import collections
import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

import jax
import numpy as np
import tyro  # noqa: F401  # slow imports come before the fork
from orbax.checkpoint import v1  # noqa: F401

from snnjax import cli, training

EXPERIMENT = '''
"""The digits and a small network."""

import dataclasses

from snnjax import data, encoding, nn, training


def network(experiment, rngs):
    return nn.Network(
        nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32, rngs=rngs), nn.BatchNorm(32), nn.LIF(),
            nn.Dropout(0.1), nn.Linear(32, 10, rngs=rngs),
        ),
        input_shape=(8, 8, 1),
    )


def encode(experiment, inputs, key):
    if key is not None:
        inputs = data.augmentation.random_crop(key, inputs, padding=1)
    return encoding.direct(data.rescale(inputs, 1 / 16), timesteps=2)


def config():
    return training.Experiment(
        name="faults", network=network, dataset=lambda e: data.load("digits"), encode=encode,
        batch=120, eval_batch=120, epochs=6, checkpoint_every=6, log_every=1, keep=3,
    )
'''
STEPS, EVERY = 66, 6
KINDS = (
    "kill", "term", "damaged", "full", "device", "flip", "path", "several", "hangup", "compiling",
    "foreign", "unlocked",
)  # fmt: skip
NAMES = ("[1]", "a*b", "x?y", "back\\slash", "gs:", "\u65e5\u672c", "new\nline", "a [b] {c}")
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
COMPILING = 4.0  # seconds until a first step, about
SIGNALS = {"term": signal.SIGTERM, "hangup": signal.SIGHUP, "compiling": signal.SIGINT}


def fork_child(function, *arguments):
    """Process number of a child that calls a function and exits with its result."""
    if child := os.fork():
        return child
    code = 99
    try:
        code = function(*arguments)
    except KeyboardInterrupt:  # before the command handles it
        code = 128 + signal.SIGINT
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def remove_locks(number):
    """Makes every lock of this process fail, as on a file system that has none."""
    import fcntl

    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    fcntl.flock = flock


def run_training(log, arguments, limit, without_locks):
    """Exit code of `snnjax train`, with its output in a file, in the folder of that file."""
    os.chdir(log.parent)
    if without_locks:
        remove_locks(without_locks)
    words = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(words, 1)
    os.dup2(words, 2)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    # Without `argv`, as the command itself: it then ends at once on a signal before training.
    sys.argv = ["snnjax", "train", *arguments]
    return cli.main()


def start(folder, what, processes=1, mesh="data=2", limit=None, without_locks=None, log="log"):
    """Starts the processes of one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = []
    for number in range(processes):
        several = ["--coordinator", f"localhost:{port}", "--processes", str(processes),
                   "--process", str(number)] if processes > 1 else []  # fmt: skip
        arguments = [*what, "--mesh", mesh, *several]
        children.append(
            fork_child(run_training, folder / f"{log}{number}", arguments, limit, without_locks)
        )
    return children


def exit_codes(children, seconds=600):
    """Exit codes, negative for signals; kills children that do not end."""
    codes, until = {}, time.monotonic() + seconds
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in children]


def digest(run):
    """Fingerprint of the newest checkpoint, and its step; computed in a child."""
    reader, writer = os.pipe()

    def work():
        opened = training.Run.open(run)
        _, state = training.initialize(opened.experiment(), steps=STEPS)
        newest = training.checkpoints.newest(opened.checkpoints)
        state = training.checkpoints.load(
            newest, training.sharding.place(state, training.sharding.make_mesh())
        )
        words = hashlib.sha256()
        for leaf in jax.tree.leaves(state):
            key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            words.update(np.asarray(jax.random.key_data(leaf) if key else leaf).tobytes())
        os.write(writer, f"{words.hexdigest()} {int(state.step)}".encode())
        return 0

    exit_codes([fork_child(work)])
    os.close(writer)
    with os.fdopen(reader) as pipe:
        found, step = pipe.read().split() or ("nothing to be read", "-1")
    return found, int(step)


def recorded_steps(run):
    """Recorded steps."""
    with contextlib.suppress(OSError):
        return sum('"train"' in line for line in (run / "metrics.jsonl").read_text().splitlines())
    return 0


def saved_steps(run):
    """Steps of the checkpoints."""
    return training.checkpoints.steps(run / "checkpoints")


def wait_for(run, step, children, checkpoints=0):
    """Waits for numbers of recorded steps and written checkpoints, or for the end of the run."""
    while recorded_steps(run) < step or len(saved_steps(run)) < checkpoints:
        with contextlib.suppress(ChildProcessError):
            done = [os.waitid(os.P_PID, c, os.WEXITED | os.WNOHANG | os.WNOWAIT) for c in children]
            if any(done):
                return
        time.sleep(0.005)


def damage(run, draw):
    """Deletes or truncates a file of the newest checkpoint."""
    newest = run / "checkpoints" / f"{saved_steps(run)[-1]:08}"
    file = draw.choice(sorted(f for f in newest.rglob("*") if f.is_file() and f.stat().st_size))
    if draw.random() < 0.5:
        file.unlink()
    else:
        os.truncate(file, draw.randrange(file.stat().st_size))
    return str(file.relative_to(newest))


def flip(run, draw):
    """Changes one bit of a file of the newest checkpoint."""
    newest = run / "checkpoints" / f"{saved_steps(run)[-1]:08}"
    file = draw.choice(sorted(f for f in newest.rglob("*") if f.is_file() and f.stat().st_size))
    content, place = bytearray(file.read_bytes()), draw.randrange(file.stat().st_size)
    content[place] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))
    return str(file.relative_to(newest))


def add_foreign(run):
    """Files of a user, by path."""
    folder = run / "checkpoints"
    paths = [run / "notes.txt", folder / "notes.txt", folder / "backup" / "best", folder / "2026"]
    paths += [folder / "00000440-copy" / "state", folder / f"{saved_steps(run)[0]:08}" / "why.md"]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"mine {number}")
    return {f"mine {number}" for number in range(len(paths))}


def texts(run):
    """Contents of all small files below a folder that may be a user's."""
    files = [f for f in run.rglob("*") if f.is_file() and f.stat().st_size < 20]
    return {file.read_bytes().decode(errors="replace") for file in files}


def several(folder, draw, expected):
    """Four runs started at the same moment, without a name."""
    del draw
    (folder / "faults.py").write_text(EXPERIMENT)
    os.environ["JAX_NUM_CPU_DEVICES"] = "4"
    began = [start(folder, [str(folder / "faults.py")], log=f"log{n}-") for n in range(4)]
    codes = exit_codes([child for children in began for child in children])
    runs = sorted((folder / "runs").iterdir())
    same = [digest(run) == (expected, STEPS) for run in runs]
    return {
        "kind": "several", "processes": 1, "codes": codes, "lost": 0, "start": 0,
        "same": all(same), "passed": codes == [0] * 4 and len(runs) == 4 and all(same),
    }  # fmt: skip


def mount_tmpfs(folder, size):
    """True if a tmpfs could be mounted at a folder."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "snnjax", str(folder)]
    with contextlib.suppress(OSError):
        if subprocess.run(words, capture_output=True).returncode == 0:
            return True
    folder.rmdir()
    return False


def trial(folder, kind, draw, expected):
    """Runs one trial; returns its record, a dict with `passed`."""
    processes = draw.choice([1, 1, 2]) if kind in ("kill", "term", "device") else 1
    mesh = "data=2" if processes == 1 else "data=-1"
    if kind == "several":
        return several(folder, draw, expected[1])
    parent = folder / (draw.choice(NAMES) if kind == "path" else "plain")
    parent.mkdir()
    run, experiment = parent / "run", folder / "faults.py"
    experiment.write_text(EXPERIMENT)
    locks = draw.choice(NO_LOCKS) if kind == "unlocked" else None
    limit = draw.randrange(2_000, 40_000) if kind == "full" else None
    small = limit is not None and draw.random() < 0.5 and mount_tmpfs(run, 15 * limit)
    limit = None if small else limit
    os.environ["JAX_NUM_CPU_DEVICES"] = "4" if processes == 1 else "1"
    began = [str(experiment), "--out", str(run)]
    # Compilation is to be interrupted there; elsewhere it would only take time.
    fresh = ["--no-cache"] if kind == "compiling" else []
    children = start(folder, [*began, *fresh], processes, mesh, limit, locks)
    told, expected = (
        {"kind": "disk" if small else kind, "processes": processes},
        expected[processes],
    )
    if kind != "full":
        # A run whose only checkpoint is damaged is refused, so the fault needs a second one.
        if kind != "compiling":
            two = 2 * (kind in ("damaged", "flip", "foreign"))
            wait_for(run, draw.randrange(EVERY + 1, STEPS - 6), children, two)
        time.sleep(draw.random() * (COMPILING if kind == "compiling" else 0.2))
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(children), SIGNALS.get(kind, signal.SIGKILL))
    told["codes"] = exit_codes(children)
    before, had = recorded_steps(run), saved_steps(run)
    if small:
        subprocess.run(["mount", "-o", "remount,size=64m", str(run)], check=True)
    if kind in ("damaged", "flip"):
        told["file"] = (flip if kind == "flip" else damage)(run, draw)
    mine = add_foreign(run) if kind == "foreign" else set()
    if kind == "compiling":
        return told | again(folder, run, began, told["codes"], expected)
    if not (run / "config.json").exists():  # the disk was full before the run directory existed
        return told | {"passed": kind == "full" and not had, "lost": 0, "start": 0, "same": None}
    if kind == "device":
        processes, mesh = draw.choice([(1, "data=4"), (1, "fsdp=2"), (1, "data=1"), (2, "data=-1")])
        os.environ["JAX_NUM_CPU_DEVICES"] = "4" if processes == 1 else "1"
    codes = exit_codes(start(folder, ["--resume", str(run)], processes, mesh, None, locks))
    words = (folder / "log0").read_text()
    spoken = [line for line in words.splitlines() if "resuming after step" in line]
    begun = int(spoken[-1].split("step")[1]) if spoken else 0
    found, step = digest(run)
    lost, same = max(before - begun, 0), found == expected
    # A full disk may have prevented every checkpoint: all steps since the start are lost.
    most = {"damaged": 3 * EVERY, "flip": 3 * EVERY, "full": STEPS}.get(kind, 2 * EVERY) + 2
    most = 0 if kind in ("term", "hangup") else most
    warned = {"flip": "passed over", "unlocked": "no locks"}.get(kind, "")
    ok = mine <= texts(run) and warned in words
    ok = ok and codes == [0] * processes and step == STEPS and lost <= most
    ok = ok and (same or kind == "device")
    return told | {"passed": ok, "lost": lost, "start": begun, "same": same, "resumed": codes}


def again(folder, run, began, codes, expected):
    """Outcome of a run that was stopped before its first step, or soon after, and started again."""
    saved = bool(saved_steps(run))
    what = ["--resume", str(run)] if (run / "config.json").exists() else began
    resumed = exit_codes(start(folder, what))
    found, step = digest(run)
    words = (folder / "log0").read_text()
    ok = codes in ([128 + signal.SIGINT], [0]) and resumed == [0] and step == STEPS
    return {
        "passed": ok and found == expected and "Traceback" not in words, "lost": 0,
        "start": int(saved), "same": found == expected, "resumed": resumed,
    }  # fmt: skip


def reference_digest(root, processes):
    """Fingerprint of an undisturbed run."""
    folder = root / f"undisturbed{processes}"
    folder.mkdir()
    (folder / "faults.py").write_text(EXPERIMENT)
    os.environ["JAX_NUM_CPU_DEVICES"] = "4" if processes == 1 else "1"
    began = [str(folder / "faults.py"), "--out", str(folder / "run")]
    mesh = "data=2" if processes == 1 else "data=-1"
    assert exit_codes(start(folder, began, processes, mesh)) == [0] * processes
    found, step = digest(folder / "run")
    assert step == STEPS, f"{step} steps"
    return found


def main():
    """Runs the trials and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    options = parser.parse_args()
    draw, rows = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "cache")
        expected = {processes: reference_digest(root, processes) for processes in (1, 2)}
        for number in range(options.trials):
            folder = root / str(number)
            folder.mkdir()
            row = trial(folder, KINDS[number % len(KINDS)], draw, expected)
            if row["kind"] == "disk":
                subprocess.run(["umount", str(folder / "plain" / "run")], check=True)
            rows.append(row)
            print(number, json.dumps(row), flush=True)
            if not row["passed"]:
                print((folder / "log0").read_text()[-3000:])
            shutil.rmtree(folder)
    conclude(rows, options.json)


def conclude(rows, path):
    """Prints the table by kind; exit code 1 if a trial failed."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["kind"], row["processes"]].append(row)
    said = io.StringIO()
    print(f"{'fault':10}{'processes':>10}{'trials':>8}{'resumed':>9}{'same bits':>11}{'lost':>6}",
          file=said)  # fmt: skip
    for (kind, processes), group in sorted(groups.items()):
        same = sum(bool(row["same"]) for row in group)
        lost = max(row["lost"] for row in group)
        passed = sum(row["passed"] for row in group)
        print(f"{kind:10}{processes:10}{len(group):8}{passed:9}{same:11}{lost:6}", file=said)
    print(said.getvalue(), end="")
    if path:
        pathlib.Path(path).write_text(json.dumps(rows, indent=1))
    sys.exit(0 if all(row["passed"] for row in rows) else 1)


if __name__ == "__main__":
    main()
