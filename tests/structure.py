"""Measures the structure of the package: sizes, prose, exports, README.

    python tests/structure.py [ROOT]

Code lines hold neither a docstring nor only a comment; a comment counts once per line it stands on.
Exported names are those of `__all__` in the packages and modules directly under `snnjax`. A public
submodule counts once, as a name of its package; sub-packages (`neurons.compat`,
`training.checkpoints`) are public submodules like others, so their names are not counted.
"""

from __future__ import annotations

import ast
import io
import pathlib
import re
import statistics
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef
GOALS = {
    "package files": "<= 235",
    "file lines, median": "170 to 220",
    "file lines, 90th percentile": "<= 600",
    "function lines, median": "6 to 10",
    "docstring lines per code line": "0.50 to 0.60",
    "comments per 100 code lines": ">= 8",
    "exported names": "<= 250",
    "README words": "<= 700",
    "README numbers": "<= 40",
}


def docstring_lines(tree: ast.Module) -> set[int]:
    """Line numbers of all docstrings of a module."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | DEFINITIONS) and ast.get_docstring(node):
            text = node.body[0]
            lines |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def comment_lines(source: str) -> set[int]:
    """Line numbers of all comments but directives to linters."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = (token for token in tokens if token.type == tokenize.COMMENT)
    directive = re.compile(r"#\s*(noqa|type:|fmt:|pyright:)")
    return {token.start[0] for token in comments if not directive.match(token.string)}


def code_lines(source: str, docstrings: set[int]) -> set[int]:
    """Line numbers that hold code."""
    numbered = enumerate(source.splitlines(), 1)
    return {
        n for n, line in numbered
        if line.strip() and not line.strip().startswith("#") and n not in docstrings
    }  # fmt: skip


def function_lengths(tree: ast.Module) -> list[int]:
    """Lines of every function, signature included, docstring left out."""
    lengths = []
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node):
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            lengths.append(lines)
    return lengths


def exports(package: pathlib.Path) -> dict[str, list[str]]:
    """Package or module directly under the root to the names in its `__all__`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        public = not any(part.startswith("_") and part != "__init__" for part in parts)
        if not public or len(parts) > 2 or (len(parts) == 2 and parts[-1] != "__init__"):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                name = ".".join(part for part in parts if part != "__init__")
                found[name] = ast.literal_eval(node.value)
    return found


def measure(root: pathlib.Path = ROOT) -> dict[str, float]:
    """Every figure of `GOALS` for a checkout."""
    package = root / "snnjax"
    sizes, functions, documented, coded, commented = [], [], 0, 0, 0
    for path in package.rglob("*.py"):
        source = path.read_text()
        tree = ast.parse(source)
        docstrings = docstring_lines(tree)
        sizes.append(len(source.splitlines()))
        functions += function_lengths(tree)
        documented += len(docstrings)
        coded += len(code_lines(source, docstrings))
        commented += len(comment_lines(source))
    readme = (root / "README.md").read_text()
    return {
        "package files": len(sizes),
        "file lines, median": statistics.median(sizes),
        "file lines, 90th percentile": statistics.quantiles(sizes, n=10)[-1],
        "function lines, median": statistics.median(functions),
        "docstring lines per code line": documented / coded,
        "comments per 100 code lines": 100 * commented / coded,
        "exported names": sum(map(len, exports(package).values())),
        "README words": len(readme.split()),
        "README numbers": len(re.findall(r"(?<![\w.])\d[\d,.]*", readme)),
    }


def main() -> None:
    """Prints the table, and the exports by package."""
    root = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    for name, value in measure(root).items():
        print(f"{name:32}{value:10.2f}   goal {GOALS[name]}")
    for name, names in exports(root / "snnjax").items():
        print(f"    {name or 'snnjax':28}{len(names):4}")


if __name__ == "__main__":
    main()
