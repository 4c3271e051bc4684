"""Artifacts that several tests read; none of them writes to them."""

import shutil

import pytest

from snnjax import export
from tests.export import cases


@pytest.fixture(scope="session")
def source():
    return cases.source()


@pytest.fixture(scope="session")
def window(tmp_path_factory, source):
    return export.save(tmp_path_factory.mktemp("export") / "window", source)


@pytest.fixture(scope="session")
def streaming(tmp_path_factory, source):
    return export.save(tmp_path_factory.mktemp("export") / "streaming", source, streaming=True)


@pytest.fixture
def copy(tmp_path, window):
    """Copy of a window artifact for damaging."""
    return shutil.copytree(window, tmp_path / "copy")
