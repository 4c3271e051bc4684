"""The house: floors, docstrings, keyword-only options, small files. Enforced over the AST."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "snnjax"
FLOORS = {
    "typing": -1,  # the ground: contracts and letters, no code of its own
    "surrogate": 0,
    "ops": 0,
    "neurons": 1,
    "memory": 1,
    "encoding": 1,
    "readout": 1,
    "losses": 1,
    "metrics": 1,
    "quantization": 1,
    "plasticity": 1,
    "nn": 2,
    "models": 3,
    "data": 3,
    "training": 4,
    "viz": 4,
    "cost": 4,
    "redundancy": 4,
    "export": 4,
    "default_experiment": 4,
    "cli": 5,
    "__main__": 5,
}
# Rooms of one floor that may look into each other, (from, to): STDP rules act on neurons, and a
# presentation draws its spikes by a code; the embedded experiment is written in terms of the
# training room's Experiment.
NEIGHBOURS = {
    ("plasticity", "neurons"),
    ("plasticity", "encoding"),
    ("default_experiment", "training"),
    ("__main__", "cli"),
}
HEAVY = {
    "PIL", "aedat", "chex", "grain", "matplotlib", "orbax", "rich", "sklearn", "tensorboardX",
    "tensorflow", "tensorflow_datasets", "tyro",
}  # fmt: skip
FILES = sorted(p for p in PACKAGE.rglob("*.py"))
LIMIT = 600


def room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return None if parts == ("__init__",) else parts[0]


def imports(tree):
    """Dotted names imported anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def rooms_imported(path):
    for _, name in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "snnjax" and len(parts) > 1 and parts[1] in FLOORS:
            yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_room_has_a_floor_and_imports_only_lower_ones(path):
    here = room(path)
    if here is None:
        return
    assert here in FLOORS, f"{here} is no room of the house: give it a floor in this test"
    for there in set(rooms_imported(path)) - {here}:
        allowed = FLOORS[there] < FLOORS[here] or (here, there) in NEIGHBOURS
        assert allowed, f"{here} (F{FLOORS[here]}) imports {there} (F{FLOORS[there]})"


def public(tree):
    """Public functions, classes and their public methods, with a name each."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_everything_public_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a file opens with what it is"
    bare = [name for name, node in public(tree) if not ast.get_docstring(node)]
    assert not bare, f"without a docstring: {bare}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_options_are_keyword_only(path):
    tree = ast.parse(path.read_text())
    functions = [(n, f) for n, f in public(tree) if isinstance(f, ast.FunctionDef)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
            functions += [(node.name, m) for m in methods if m.name in ("__init__", "__call__")]
    positional = [name for name, f in functions if f.args.defaults]
    assert not positional, f"options that can be given by position: {positional}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small(path):
    lines = len(path.read_text().splitlines())
    assert lines < LIMIT, f"{lines} lines: find the second idea and give it a file"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    eager = [name for node, name in imports(tree) if id(node) in top]
    heavy = [name for name in eager if name.split(".")[0] in HEAVY]
    assert not heavy, f"imported with the module: {heavy}"


def test_the_tree_of_tests_mirrors_the_package():
    """One noun, one file, one test file: every room has a place for its tests."""
    rooms = {room(path) for path in FILES} - {None, "typing", "default_experiment"}
    rooms.discard("__main__")
    names = {p.name for p in (ROOT / "tests").iterdir()}
    missing = [r for r in rooms if r not in names and not any(
        n.startswith(f"test_{r}") for n in names
    )]  # fmt: skip
    assert not missing, f"rooms without tests: {missing}"
