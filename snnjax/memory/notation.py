"""A memory strategy as one value, and its text form.

    Strategy(time=recompute("sqrt"), depth=recompute(1), pack=True)
    "time=recompute(sqrt), depth=recompute(1), pack=True"

`str` writes a strategy as the arguments of the call, `parse_strategy` reads them. Programs pass the
value; the text is for the command line and for the config.json of a run.

A scan of the user's own has a text form too: `mymodule:keep4` where a module can be imported, or
the name under which `register_scan` knows it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Hashable
from typing import Any

from snnjax.memory.packing import Storage
from snnjax.memory.reverse import Reverse, reversal
from snnjax.memory.scans import Recompute, recompute, sequence, store
from snnjax.typing import Scan

__all__ = ["Strategy", "StrategyError", "parse_strategy", "register_scan"]

_WORDS: dict[str, Any] = {"store": store, "sequence": sequence, "reverse": reversal()}
_MAKERS: dict[str, Callable[..., Any]] = {"recompute": recompute, "reverse": reversal}
_REGISTERED: dict[str, Any] = {}

# One text gives one scan, also where a maker returns a new closure on each call: strategies are
# compared by ==, and a network under an unequal strategy is compiled again.
_MADE: dict[tuple[Any, str], Scan] = {}
_TEXTS: dict[Any, str] = {}

# A colon between two names, outside of quotes.
_COLON = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?<=\w):(?=[^\W\d])""", re.DOTALL)


class StrategyError(ValueError):
    """A strategy that a model does not admit; the message says why, and what it does admit."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Memory strategy of a network: the argument `memory` of a model and of an experiment.

    `nn.with_memory` puts it into a network that exists already. The three parts are independent.

    Attributes:
        time: the scan over time: of each neuron in `order="layer"`, of the whole network in
            `order="time"`; None is the network's own.
        depth: the scan over blocks and layers; None is the network's own.
        pack: True (or `"spikes"`) keeps spikes that a derivative needs at one bit each;
            `"bfloat16"` and `"int8"` narrow the real-valued inputs of synapses as well, at the
            error `memory.packed` states.

    Raises:
        ValueError: a scan that is none, or an unknown storage.
    """

    time: Scan | None = None
    depth: Scan | None = None
    pack: bool | Storage = False

    def __post_init__(self):
        for scan in (self.time, self.depth):
            if isinstance(scan, type):
                raise ValueError(f"{scan.__name__} is a class, no scan: write {scan.__name__}()")
            if scan is not None and not callable(scan):
                raise ValueError(f"{scan!r} is no scan")
        if not isinstance(self.pack, bool) and self.pack not in ("spikes", "bfloat16", "int8"):
            raise ValueError(f"pack is True, False, 'bfloat16' or 'int8', not {self.pack!r}")
        if self.pack == "spikes":
            object.__setattr__(self, "pack", True)

    def __str__(self) -> str:
        """The arguments, such as `depth=recompute(1), pack=True`; "as written" without any.

        A scan that another process could not look up (a local function, one of a notebook) is
        written by its bare name, which `parse_strategy` refuses.
        """
        parts = [f"{name}={_text(getattr(self, name))}" for name in ("time", "depth")
                 if getattr(self, name) is not None]  # fmt: skip
        if self.pack:
            parts.append(f"pack={self.pack!r}")
        return ", ".join(parts) or "as written"


def register_scan(name: str, scan: Any) -> None:
    """Gives a scan of your own a name for the text form.

        memory.register_scan("keep4", Keep(4))      # --memory "time=keep4"
        memory.register_scan("keep", Keep)          # --memory "time=keep(4)"

    For scans that cannot be imported, such as those in an experiment's file: the file is executed
    again when its run is resumed, and so registers them again.

    Args:
        name: a word, other than those of the library's scans; registering it again replaces it.
        scan: a scan, or a function or class that makes one from literal arguments.

    Raises:
        ValueError: the name is no word, or taken by the library; `scan` cannot be called.
    """
    if not name.isidentifier() or name in {*_WORDS, *_MAKERS}:
        raise ValueError(
            f"{name!r} cannot name a scan: choose a word other than {', '.join(_WORDS)}, recompute"
        )
    if not callable(scan):
        raise ValueError(f"{scan!r} is no scan and makes none: it cannot be called")
    _REGISTERED[name] = scan


def parse_strategy(text: str) -> Strategy:
    """Reads a strategy from its arguments, as `str` writes them.

    Only literals are evaluated. `module:name` imports the module, which executes it: read texts
    from a command line or a run directory you trust, as you would execute their source.

    Args:
        text: such as `"time=recompute(8, inner=recompute(1)), depth=reverse, pack=True"` or
            `"depth=mymodule:Keep(4)"`. Words may stand without quotes; `reverse` is `reversal()`,
            and a class of your own by itself is made without arguments. `""` and `"as written"`
            change nothing.

    Raises:
        ValueError: the text is no strategy, or a module of it cannot be imported; the message has
            an example and the cure.
    """
    if text.strip() in ("", "as written"):
        return Strategy()
    try:
        # `module:name` is no expression of Python, `module @ name` is; a comment ends with its line
        source = _COLON.sub(lambda found: found[1] or "@", text)
        call = ast.parse(f"strategy({source}\n)", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("every part has a name: time=, depth=, pack=")
        given = {keyword.arg: _read(keyword.value) for keyword in call.keywords}
        if len(given) < len(call.keywords):
            raise ValueError("a part is given twice")
        return Strategy(**given)  # type: ignore[arg-type]
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        own = f", {', '.join(_REGISTERED)}" if _REGISTERED else ""
        raise ValueError(
            f"cannot read the strategy {text!r} ({error}): write it as "
            "'time=recompute(sqrt), depth=recompute(1), pack=True'; scans are store, sequence, "
            f"recompute(every, inner=..., keep=(...)), reverse(refresh=..., inner=...){own}, and "
            "module:name for one of your own"
        ) from None


def _read(node: ast.expr) -> Any:
    """Value of one argument: a scan, a constant, a tuple of constants, or a bare word."""
    match node:
        case ast.BinOp(op=ast.MatMult(), right=ast.Call() as call):
            return _made(_imported(node.left, call.func), call, f"{_path(node.left)}:")
        case ast.BinOp(op=ast.MatMult()):
            found = _imported(node.left, node.right)
            return _named(found, f"{_path(node.left)}:{_path(node.right)}")
        case ast.Call(func=ast.Name(id=name)) if name in _MAKERS:
            return _MAKERS[name](*map(_read, node.args), **_options(node))
        case ast.Call(func=ast.Name(id=name)) if name in _REGISTERED:
            return _made(_REGISTERED[name], node, "")
        case ast.Call():
            raise ValueError(f"{ast.unparse(node)} is no scan")
        case ast.Tuple():
            return tuple(map(_read, node.elts))
        case ast.Name(id="recompute"):
            raise ValueError("recompute needs its number of steps, recompute(every)")
        case ast.Name(id=name) if name in _REGISTERED:
            return _named(_REGISTERED[name], name)
        case ast.Name(id=name):
            return _WORDS.get(name, name)
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    raise ValueError(f"{ast.unparse(node)} is neither a scan nor a number")


def _options(call: ast.Call) -> dict[str, Any]:
    return {str(keyword.arg): _read(keyword.value) for keyword in call.keywords}


def _path(node: ast.expr) -> str:
    """Dotted name that a node spells."""
    names = list(ast.walk(node))
    if not all(isinstance(part, ast.Name | ast.Attribute | ast.Load) for part in names):
        raise ValueError(f"{ast.unparse(node)} is no name: write module:name")
    return ast.unparse(node)


def _imported(module: ast.expr, name: ast.expr) -> Any:
    """Attribute of a module, both by dotted name."""
    where, what = _path(module), _path(name)
    try:
        found: Any = importlib.import_module(where)
    except Exception as error:
        raise ValueError(
            f"importing {where} failed, {type(error).__name__}: {error}; install it, or put its "
            "folder on PYTHONPATH"
        ) from None
    for part in what.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{where} has no {what}")
        found = getattr(found, part)
    return found


def _named(found: Any, text: str) -> Any:
    """A scan by its name alone, or made by a class without arguments."""
    if isinstance(found, type):
        return _remembered(found, f"{text}()", found)
    return _remembered(found, text, lambda: found)


def _made(maker: Any, call: ast.Call, prefix: str) -> Any:
    args, options = list(map(_read, call.args)), _options(call)
    if not callable(maker):
        raise ValueError(f"{ast.unparse(call.func)} makes no scan: it cannot be called")
    return _remembered(maker, prefix + ast.unparse(call), lambda: maker(*args, **options))


def _remembered(source: Any, text: str, make: Callable[[], Any]) -> Any:
    """The scan that a text stands for, which `str` writes as that text from now on."""
    try:
        made = _MADE.setdefault((source, text), make())
        _TEXTS[made] = text
    except Exception as error:
        raise ValueError(f"{text} failed, {type(error).__name__}: {error}") from None
    return made


def _text(value: Any) -> str:
    """A scan, or an option of one, as `_read` reads it."""
    if isinstance(value, Recompute):
        inner = "" if value.inner is store else f", inner={_text(value.inner)}"
        keep = f", keep={value.keep!r}" if value.keep else ""
        return f"recompute({value.every}{inner}{keep})"
    if isinstance(value, Reverse) and value.inverse is None:
        options = [f"refresh={value.refresh}"] if value.refresh else []
        options += [f"inner={_text(value.inner)}"] if value.inner else []
        return f"reverse({', '.join(options)})" if options else "reverse"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})"
    for name, scan in (*_WORDS.items(), *_REGISTERED.items()):
        if value is scan:
            return name
    if isinstance(value, Hashable) and (text := _TEXTS.get(value)) is not None:
        return text
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        options = [f"{name}={_text(getattr(value, name))}" for name in fields]
        return f"{_text(type(value))}({', '.join(options)})"
    name = getattr(value, "__qualname__", None)
    if name and "<" not in name and _importable(value.__module__):  # "<locals>", "<lambda>"
        return f"{value.__module__}:{name}"
    return str(getattr(value, "__name__", value))


def _importable(module: str) -> bool:
    """True if another process could import a module: no script, notebook or experiment file."""
    # `importlib.util.find_spec` would find those as well, since they are in `sys.modules`.
    top = module.partition(".")[0]
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)
