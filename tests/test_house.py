"""Structure of the package: layers, imports, names, docstrings, sizes. Enforced over the AST.

A rule is one test over all files, whose failure names every offender: a test per rule and file took
longer to collect and to distribute than to run.
"""

import ast
import functools
import pathlib
import re

import pytest

from tests import structure

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "snnjax"
# A package imports only those of a lower number.
LAYERS = {
    "typing": -1,  # contracts and shape letters, no code of its own
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
    "learning": 3,
    "conversion": 3,
    "models": 4,
    "data": 4,
    "training": 5,
    "viz": 5,
    "cost": 5,
    "redundancy": 5,
    "export": 5,
    "default_experiment": 5,
    "cli": 6,
    "__main__": 6,
}
# Packages of one layer that may import each other, (importer, imported): STDP rules act on neurons,
# a presentation draws its spikes by a code, the derivative of a spike is a primitive of ops, the
# embedded experiment is a training.Experiment, a tandem layer has the derivative of its rate.
NEIGHBOURS = {
    ("plasticity", "neurons"),
    ("plasticity", "encoding"),
    ("surrogate", "ops"),
    ("default_experiment", "training"),
    ("__main__", "cli"),
    ("conversion", "learning"),
}
HEAVY = {
    "PIL", "aedat", "chex", "grain", "h5py", "matplotlib", "orbax", "rich", "sklearn",
    "tensorboardX", "tensorflow", "tensorflow_datasets", "tyro",
}  # fmt: skip
FILES = sorted(p for p in PACKAGE.rglob("*.py"))
FACES = structure.exports(PACKAGE)
LIMIT = 600


# Public beside the submodules that a package names in its `__all__`.
PUBLIC_MODULES = {"ops", "neurons.compat", "training.checkpoints"}
QUESTION = re.compile(r"(What|Whether|Which|How|Who|When)\b")


def names(path):
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def check(rule, paths=FILES):
    """Fails where a rule, a function from a path to faults, finds any; names each with its file."""
    found = {names(path): rule(path) for path in paths}
    lines = [f"{path}: {faults}" for path, faults in found.items() if faults]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def package_of(path):
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


def own_imports(path):
    """`(package, rest of the dotted name)` of every import from this library."""
    for _, name in imports(tree_of(path)):
        root, _, rest = name.partition(".")
        if root == "snnjax" and rest:
            package, _, inner = rest.partition(".")
            yield package, inner


def higher_imports(path):
    """Imports of a package that is not below that of a file."""
    here = package_of(path)
    if here is None:
        return []
    if here not in LAYERS:
        return [f"{here} has no layer: give it one in this test"]
    return [
        f"{here} (layer {LAYERS[here]}) imports {there} (layer {LAYERS[there]})"
        for there in sorted({package for package, _ in own_imports(path) if package in LAYERS})
        if there != here and LAYERS[there] >= LAYERS[here] and (here, there) not in NEIGHBOURS
    ]


def test_a_package_imports_only_lower_layers():
    check(higher_imports)


def deep_imports(path):
    """Imports of names that another package does not offer."""
    here, faces = package_of(path), FACES
    deep = []
    for package, inner in own_imports(path):
        if package == here or package not in faces or not inner:
            continue
        first, _, rest = inner.partition(".")
        # A function may bear the name of its module: only a module named for itself is public.
        named = first in faces[package] and (not rest or first in submodules(package))
        dotted = f"{package}.{inner}"
        listed = any(dotted == name or dotted.startswith(f"{name}.") for name in PUBLIC_MODULES)
        if not named and not listed:
            deep.append(dotted)
    return deep


def test_other_packages_are_imported_by_their_public_names():
    """Across packages, a name or a submodule of `__all__`, or a name of such a submodule."""
    check(deep_imports)


def exported_names(package):
    """Module of a package to the names its `__init__` takes from it; a submodule to its own."""
    for node in ast.walk(tree_of(package / "__init__.py")):
        if isinstance(node, ast.ImportFrom) and node.module:
            taken = {alias.name for alias in node.names}
            module = node.module.rpartition(".")[2]
            if module == package.name:
                yield from ((name, {name}) for name in taken)
            else:
                yield module, taken


def submodules(package):
    """Submodules that the `__init__` of a package imports under their own names."""
    body = tree_of(PACKAGE / package / "__init__.py").body
    nodes = [node for node in body if isinstance(node, ast.ImportFrom)]
    own = [node for node in nodes if node.module == f"snnjax.{package}"]
    return {alias.name for node in own for alias in node.names}


def wrongly_named_modules(package):
    """Public modules of a package with an underscore, and internal ones without."""
    dotted = ".".join(package.relative_to(PACKAGE).parts)
    if dotted in PUBLIC_MODULES:
        return []
    face = set(FACES.get(dotted, ()))
    public = {module for module, taken in exported_names(package) if taken & face}
    modules = {p.stem for p in package.glob("*.py")} - {"__init__"}
    if dotted == "cli":
        public |= {m for m in modules if "\ndef command(" in (package / f"{m}.py").read_text()}
    return sorted(m for m in modules if m.startswith("_") == (m in public))


def test_internal_modules_begin_with_an_underscore():
    """A module is public by a name in its package's `__all__`, or as a command of `cli`."""
    packages = [p.parent for p in FILES if p.name == "__init__.py" and p.parent != PACKAGE]
    check(wrongly_named_modules, packages)


def test_placing_a_strategy_knows_no_layer_type():
    path = PACKAGE / "nn" / "strategy.py"
    source = path.read_text()
    assert len(source.splitlines()) < 100
    checks = re.findall(r"isinstance\([^)]*\)|match \w+:", source)
    layers = set(FACES["nn"])
    assert not [check for check in checks if layers & set(re.findall(r"\w+", check))], checks


def test_kinds_of_experiments_are_told_apart_in_one_module():
    kinds = re.compile(r"isinstance\([^()]*\b(Experiment|Unsupervised)\b[^()]*\)")
    users = {names(path) for path in FILES if kinds.search(path.read_text())}
    assert len(users) <= 1, users


def questions(path):
    """First lines of docstrings that begin with a question word."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, documented)]
    texts = [ast.get_docstring(node) or "" for node in nodes]
    return [text.splitlines()[0] for text in texts if QUESTION.match(text)]


def test_no_docstring_begins_with_a_question_word():
    check(questions)


def public(tree):
    """Public functions, classes and their public methods, with a name each."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


def undocumented(path):
    """Public names without a docstring; the module is one of them."""
    named = [("the module", tree_of(path)), *public(tree_of(path))]
    return [name for name, node in named if not ast.get_docstring(node)]


def test_everything_public_says_what_it_is():
    check(undocumented)


def positional_options(path):
    """Functions and methods with options that can be given by position."""
    tree = tree_of(path)
    functions = [(n, f) for n, f in public(tree) if isinstance(f, ast.FunctionDef)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
            functions += [(node.name, m) for m in methods if m.name in ("__init__", "__call__")]
    return [name for name, f in functions if f.args.defaults]


def test_options_are_keyword_only():
    check(positional_options)


def excess(path):
    """A word on a file that is too long."""
    lines = len(path.read_text().splitlines())
    return f"{lines} lines: find the second idea and give it a file" if lines >= LIMIT else ""


def test_files_are_small():
    check(excess)


def heavy_imports(path):
    """Heavy packages that a file imports with itself, not where it uses them."""
    tree = tree_of(path)
    top = {id(node) for node in tree.body}
    eager = [name for node, name in imports(tree) if id(node) in top]
    return [name for name in eager if name.split(".")[0] in HEAVY]


def test_heavy_packages_are_imported_where_they_are_used():
    check(heavy_imports)


def test_the_tree_of_tests_mirrors_the_package():
    """Every package and module of the top level has a place for its tests."""
    packages = {package_of(path) for path in FILES} - {None, "typing", "default_experiment"}
    packages.discard("__main__")
    present = {p.name for p in (ROOT / "tests").iterdir()}
    missing = [r for r in packages if r not in present and not any(
        n.startswith(f"test_{r}") for n in present
    )]  # fmt: skip
    assert not missing, f"packages without tests: {missing}"


# The second house had 235 files and 250 names; each of the eleven systems and networks since then
# adds about eight of each.
LIMITS = {"package files": 310, "file lines, 90th percentile": 600, "exported names": 340}


def test_the_structure_stays_within_its_limits():
    measured = structure.measure()
    over = {name: measured[name] for name in LIMITS if measured[name] > LIMITS[name]}
    assert not over, f"limits: {LIMITS}"
