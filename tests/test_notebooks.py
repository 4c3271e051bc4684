"""Every notebook runs from top to bottom, and is kept without outputs."""

import ast
import importlib
import json
import pathlib

import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.fast
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_stripped_and_imports_are_public(path):
    """Notebooks run in the slow lane only: a name that is gone shows here."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells
    assert not any(c["outputs"] or c["execution_count"] for c in cells)
    lines = [line for c in cells for line in c["source"] if not line.startswith("%")]
    tree, modules = ast.parse("\n".join(map(str.rstrip, lines))), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("snnjax"):
            package = importlib.import_module(node.module)
            modules |= {n.asname or n.name: getattr(package, n.name) for n in node.names}
    assert modules
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in modules:
            assert not node.attr.startswith("_") and hasattr(modules[node.value.id], node.attr)


@pytest.mark.slow  # a kernel each, which compiles and trains
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
# The Jupyter stack warns about its own event loop and transport; notebooks assert by themselves.
@pytest.mark.filterwarnings("default")
def test_it_runs(path):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    client.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
