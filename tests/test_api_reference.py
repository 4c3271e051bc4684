"""The API reference can be made from the docstrings, and has a page for every public module."""

import pathlib
import subprocess
import sys

import pytest

import snnjax

PACKAGE = pathlib.Path(snnjax.__file__).parent


@pytest.mark.slow
def test_every_module_has_a_page(tmp_path):
    pytest.importorskip("pdoc")
    command = [sys.executable, "-m", "pdoc", "snnjax", "-d", "google", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rooms = [p.stem for p in PACKAGE.glob("*.py") if not p.stem.startswith("_")]
    rooms += [p.parent.name for p in PACKAGE.glob("*/__init__.py")]
    missing = [room for room in rooms if not (tmp_path / "snnjax" / f"{room}.html").exists()]
    assert not missing
