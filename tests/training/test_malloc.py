"""Pages that are kept are not faulted in again."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.fast
PROGRAM = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from snnjax.training.malloc import keep_pages
    if not keep_pages():
        sys.exit(3)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23, np.float64).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("pages are kept on Linux with glibc only")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_an_array_of_the_same_size_takes_the_same_pages():
    kept, given_back = faults("keep"), faults("give back")
    assert kept < 100 < given_back  # 64 MiB are 16,384 pages, or 32 huge ones


def test_elsewhere_nothing_is_done(monkeypatch):
    from snnjax.training import malloc

    monkeypatch.setattr(sys, "platform", "darwin")
    assert malloc.keep_pages() is False
