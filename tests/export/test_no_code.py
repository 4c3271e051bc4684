"""Loading runs no code: no unpickling, and a planted pickle remains bytes."""

import ast
import pathlib
import pickle
import shutil

import pytest

from snnjax import export
from tests.export import cases

pytestmark = pytest.mark.fast
PACKAGE = pathlib.Path(export.__file__).parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))
LOADERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CALLS = {"eval", "exec", "compile", "__import__"}


def found(tree):
    """Names in a module that could turn bytes into code or arbitrary objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in LOADERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LOADERS:
            yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from {node.func.id} & CALLS
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield from ["allow_pickle"] * (ast.unparse(node.value) != "False")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_in_the_package_unpickles_or_evaluates(path):
    assert not list(found(ast.parse(path.read_text())))


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from marshal import loads", "eval(x)", "np.load(f, allow_pickle=True)"],
)
def test_it_would_be_found(text):
    assert list(found(ast.parse(text)))


@pytest.fixture
def planted(tmp_path):
    """Bytes of a pickle, and the file that unpickling would write."""
    trace = tmp_path / "trace"
    data = pickle.dumps(cases.Planted(trace))
    pickle.loads(data).close()
    assert trace.exists(), "it would write, if anybody loaded it"
    trace.unlink()
    return data, trace


@pytest.mark.parametrize("digests", ["as they were", "made to fit"])
@pytest.mark.parametrize("kind", ["window", "streaming"])
def test_a_pickle_in_place_of_any_file_is_refused_and_not_run(
    tmp_path, window, streaming, planted, kind, digests
):
    data, trace = planted
    artifact = {"window": window, "streaming": streaming}[kind]
    for name in sorted(path.name for path in artifact.iterdir()):
        copy = shutil.copytree(artifact, tmp_path / name)
        if digests == "made to fit" and name != "manifest.json":
            cases.replace_file(copy, name, data)
        else:
            (copy / name).write_bytes(data)
        with pytest.raises(export.ArtifactError) as error:
            export.load(copy)
        assert name in str(error.value) or "program" in str(error.value)
        assert not trace.exists(), name


def test_a_pickle_beside_the_files_is_not_opened(copy, planted):
    data, trace = planted
    for name in ("model.pkl", "__init__.py", "weights.pt", "conftest.py"):
        (copy / name).write_bytes(data)
    export.load(copy)
    assert not trace.exists()


def test_a_pickle_instead_of_weights_is_refused_and_not_run(tmp_path, planted):
    data, trace = planted
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(export.ArtifactError, match="no file of weights"):
        export.load_weights(path, cases.network())
    assert not trace.exists()
