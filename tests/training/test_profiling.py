"""Bytes of memory, and traces of some steps."""

import gzip
import json
import re
import subprocess
import sys

import jax
import pytest

from snnjax import training
from snnjax.cli import main
from snnjax.training import _profiling as profiling
from tests.training import micro
from tests.training.test_loop import fresh


class Device:
    def __init__(self, **stats):
        self.stats = stats or None

    def memory_stats(self):
        return self.stats


def test_the_window_lies_behind_the_first_steps():
    assert profiling.window(0, 100) == range(5, 15)
    assert profiling.window(40, 100) == range(45, 55)
    assert profiling.window(0, 12) == range(5, 12)


@pytest.mark.parametrize("stop", [0, 1, 3, 5, 6])
def test_a_short_run_has_a_window_too(stop):
    steps = profiling.window(0, stop)
    assert len(steps) == min(stop, 1) and set(steps) <= set(range(stop))


def test_devices_are_asked_before_the_process():
    devices = [Device(peak_bytes_in_use=5), Device(peak_bytes_in_use=7), Device(other=9)]
    assert profiling.memory_bytes(devices) == 7


@pytest.mark.slow
def test_a_process_holds_what_it_allocates():
    program = """
import numpy as np
from snnjax.training import _profiling as profiling

class Device:
    def memory_stats(self):
        return None

before = profiling.memory_bytes([Device()])
held = np.ones(before // 8 + 2**20)  # more than it ever had
after = profiling.memory_bytes([Device()])
assert after > held.nbytes and 2**24 < before < 2**40, (before, after)
"""
    # This process may hold gigabytes by now, which would have to be allocated once more.
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_a_run_that_ends_inside_its_window_still_has_a_trace(compiled, run, tmp_path):
    calls = iter([False] * 6 + [True])
    assert training.fit(fresh(compiled), run, profile=True, stop=lambda: next(calls)).step == 7
    assert list(run.profile.rglob("perfetto_trace.json.gz"))
    jax.profiler.start_trace(str(tmp_path))  # refused while another one is running
    jax.profiler.stop_trace()


def test_nothing_is_traced_unasked(compiled, run):
    training.fit(fresh(compiled), run)
    assert not run.profile.exists()


def test_the_command_traces_some_steps_and_says_where_and_how_much(capsys, tmp_path):
    folder = tmp_path / "run"
    code = main(argv=["train", micro.__file__, "--out", str(folder), "--json", "--profile"])
    out, err = capsys.readouterr()
    assert code == 0 and json.loads(out.splitlines()[-1])["profile"] == str(folder / "profile")
    assert f"profile: {folder / 'profile'}" in err and "perfetto" in err
    line = [line for line in err.splitlines() if "step 10/10" in line][-1]
    assert re.search(r" steps/s  [0-9.]+ [MG]B  0:00 to go", line)
    (trace,) = (folder / "profile").rglob("*.xplane.pb")  # what TensorBoard opens
    (page,) = (folder / "profile").rglob("perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(page.read_bytes()))["traceEvents"]
    steps = [e["args"]["step_num"] for e in events if e.get("name") == "train" and "args" in e]
    assert sorted(map(int, steps)) == [5, 6, 7, 8, 9]
    assert trace.stat().st_size > 1000
