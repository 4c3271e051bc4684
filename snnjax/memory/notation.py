"""Memory strategy as one value, and its text form.

    Strategy(time=recompute("sqrt"), depth=recompute(1), pack=True)
    "time=recompute(sqrt), depth=recompute(1), pack=True"

`str` writes the arguments of the call, and `parse_strategy` reads them. Programs pass the value;
the text is for the command line and for the config.json of a run. The text form of a user's own
scan is `mymodule:keep4` if another process can import the module, or its name in `register_scan`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Hashable
from typing import Any

from snnjax.memory.approximate import (
    Approximate,
    Sampled,
    Skipped,
    Truncated,
    is_exact,
    skip,
    sltt,
    truncated,
)
from snnjax.memory.packing import Storage
from snnjax.memory.reverse import Reverse, reversal
from snnjax.memory.scans import Recompute, recompute, sequence, store
from snnjax.memory.traces import Traces, eprop, ottt
from snnjax.typing import Scan

__all__ = ["Strategy", "StrategyError", "parse_strategy", "register_scan"]

_WORDS: dict[str, Any] = {
    "store": store,
    "sequence": sequence,
    "reverse": reversal(),
    "sltt": sltt(),
    "ottt": ottt(),
    "eprop": eprop(),
}
_MAKERS: dict[str, Callable[..., Any]] = {
    "recompute": recompute,
    "reverse": reversal,
    "sltt": lambda steps=None: sltt(steps=steps),
    "ottt": ottt,
    "eprop": eprop,
    "truncated": truncated,
    "skip": skip,
}
_REGISTERED: dict[str, Any] = {}

# One text gives one scan, even if a maker returns a new closure on each call: strategies are
# compared by ==, and a network under an unequal strategy is compiled again.
_SCANS: dict[tuple[Any, str], Scan] = {}
_TEXTS: dict[Any, str] = {}

# A colon between two names, outside of quotes.
_COLON = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?<=\w):(?=[^\W\d])""", re.DOTALL)


class StrategyError(ValueError):
    """A model refuses a strategy; the message states the reason and the strategies it admits."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    """Memory strategy of a network: the argument `memory` of a model and of an experiment.

    `nn.with_memory` sets it in an existing network. The three parts are independent.

    Attributes:
        time: Scan over time, of each neuron in `order="layer"` and of the whole network in
            `order="time"`; None keeps the network's own. Approximate ones, such as `sltt()`, act
            here only.
        depth: Scan over blocks and layers; None keeps the network's own.
        pack: True (or `"spikes"`) keeps spikes for the derivative at one bit each; `"bfloat16"` and
            `"int8"` also narrow the real-valued inputs of synapses, with the errors of
            `memory.packing.packed`.

    Raises:
        ValueError: `time` or `depth` is not a scan, `depth` is approximate, or the storage is
            unknown.
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
        if isinstance(self.depth, Approximate | Traces):
            raise ValueError(
                f"{_text(self.depth)} cuts gradients through time, and over depth it would cut "
                f"the network: give time={_text(self.depth)}, and an exact scan for depth"
            )
        # One spelling, so that equal strategies compare equal.
        if self.pack == "spikes":
            object.__setattr__(self, "pack", True)

    @property
    def exact(self) -> bool:
        """True if the gradient is that of backpropagation through time, beside rounding."""
        return is_exact(self.time) and is_exact(self.depth)

    def __str__(self) -> str:
        """The arguments, such as `depth=recompute(1), pack=True`; "as written" if all are None.

        A scan that another process cannot import, such as a local function or one of a notebook, is
        written by its bare name, which `parse_strategy` refuses.
        """
        parts = [f"{name}={_text(getattr(self, name))}" for name in ("time", "depth")
                 if getattr(self, name) is not None]  # fmt: skip
        if self.pack:
            parts.append(f"pack={self.pack!r}")
        return ", ".join(parts) or "as written"


def register_scan(name: str, scan: Any) -> None:
    """Registers a scan of your own under a name of the text form.

        memory.register_scan("keep4", Keep(4))      # --memory "time=keep4"
        memory.register_scan("keep", Keep)          # --memory "time=keep(4)"

    Use it for scans that cannot be imported, such as those of an experiment file; resuming a run
    executes this file again and so repeats the registration.

    Args:
        name: Identifier other than the names of the library's scans; a second registration replaces
            the first.
        scan: Scan, or a function or class that makes one from literal arguments.

    Raises:
        ValueError: `name` is not an identifier or is a name of the library; `scan` is not callable.
    """
    if not name.isidentifier() or name in {*_WORDS, *_MAKERS}:
        raise ValueError(
            f"{name!r} cannot name a scan: choose a word other than "
            f"{', '.join(dict.fromkeys([*_WORDS, *_MAKERS]))}"
        )
    if not callable(scan):
        raise ValueError(f"{scan!r} is no scan and makes none: it cannot be called")
    _REGISTERED[name] = scan


def parse_strategy(text: str) -> Strategy:
    """Parses the text form of a strategy, as written by `str`.

    Arguments are literals; nothing else is evaluated. `module:name` imports and thereby executes
    the module, so parse only texts that you trust as you would trust source code.

    Args:
        text: Such as `"time=recompute(8, inner=recompute(1)), depth=reverse, pack=True"` or
            `"depth=mymodule:Keep(4)"`. Words need no quotes; `reverse` means `reversal()`, and the
            bare name of a class calls it without arguments. `""` and `"as written"` give
            `Strategy()`.

    Raises:
        ValueError: the text is not a strategy, or its module cannot be imported; the message has an
            example and names the cure.
    """
    if text.strip() in ("", "as written"):
        return Strategy()
    try:
        # `module:name` is not an expression of Python, `module @ name` is. The line break ends a
        # comment in the text, which would otherwise hide the parenthesis.
        source = _COLON.sub(lambda match: match[1] or "@", text)
        call = ast.parse(f"strategy({source}\n)", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("every part has a name: time=, depth=, pack=")
        parts = {keyword.arg: _read(keyword.value) for keyword in call.keywords}
        if len(parts) < len(call.keywords):
            raise ValueError("a part is given twice")
        return Strategy(**parts)  # type: ignore[arg-type]
    # Deeply nested text exhausts Python's own parser: MemoryError or RecursionError.
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        own = f", {', '.join(_REGISTERED)}" if _REGISTERED else ""
        raise ValueError(
            f"cannot read the strategy {text!r} ({error}): write it as "
            "'time=recompute(sqrt), depth=recompute(1), pack=True'; scans are store, sequence, "
            "recompute(every, inner=..., keep=(...)), reverse(refresh=..., inner=...), approximate "
            f"ones sltt, sltt(steps), truncated(steps), skip(every, steps), ottt, eprop{own}, and "
            "module:name for one of your own"
        ) from None


def _read(node: ast.expr) -> Any:
    """Value of one argument: a scan, a constant, a tuple of constants, or a bare word."""
    match node:
        case ast.BinOp(op=ast.MatMult(), right=ast.Call() as call):
            maker = _import_attribute(node.left, call.func)
            return _call_maker(maker, call, f"{_dotted_name(node.left)}:")
        case ast.BinOp(op=ast.MatMult()):
            value = _import_attribute(node.left, node.right)
            return _scan_or_class(value, f"{_dotted_name(node.left)}:{_dotted_name(node.right)}")
        case ast.Call(func=ast.Name(id=name)) if name in _MAKERS:
            return _MAKERS[name](*map(_read, node.args), **_options(node))
        case ast.Call(func=ast.Name(id=name)) if name in _REGISTERED:
            return _call_maker(_REGISTERED[name], node, "")
        case ast.Call():
            raise ValueError(f"{ast.unparse(node)} is no scan")
        case ast.Tuple():
            return tuple(map(_read, node.elts))
        case ast.Name(id="recompute" | "truncated" | "skip" as name):
            example = {"skip": "skip(8, 4)"}.get(name, f"{name}(8)")
            raise ValueError(f"{name} needs its number of steps, such as {example}")
        case ast.Name(id=name) if name in _REGISTERED:
            return _scan_or_class(_REGISTERED[name], name)
        case ast.Name(id=name):
            return _WORDS.get(name, name)
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
    raise ValueError(f"{ast.unparse(node)} is neither a scan nor a number")


def _options(call: ast.Call) -> dict[str, Any]:
    return {str(keyword.arg): _read(keyword.value) for keyword in call.keywords}


def _dotted_name(node: ast.expr) -> str:
    """Source of a name or of a chain of attributes."""
    names = list(ast.walk(node))
    if not all(isinstance(part, ast.Name | ast.Attribute | ast.Load) for part in names):
        raise ValueError(f"{ast.unparse(node)} is no name: write module:name")
    return ast.unparse(node)


def _import_attribute(module: ast.expr, attribute: ast.expr) -> Any:
    """Imports an attribute of a module, both by dotted name."""
    path, name = _dotted_name(module), _dotted_name(attribute)
    try:
        value: Any = importlib.import_module(path)
    # An import executes the module, which may raise anything.
    except Exception as error:
        raise ValueError(
            f"importing {path} failed, {type(error).__name__}: {error}; install it, or put its "
            "folder on PYTHONPATH"
        ) from None
    for part in name.split("."):
        if not hasattr(value, part):
            raise ValueError(f"{path} has no {name}")
        value = getattr(value, part)
    return value


def _scan_or_class(value: Any, text: str) -> Any:
    """A scan itself, or the scan that a class makes without arguments."""
    if isinstance(value, type):
        return _cached_scan(value, f"{text}()", value)
    return _cached_scan(value, text, lambda: value)


def _call_maker(maker: Any, call: ast.Call, prefix: str) -> Any:
    args, options = list(map(_read, call.args)), _options(call)
    if not callable(maker):
        raise ValueError(f"{ast.unparse(call.func)} makes no scan: it cannot be called")
    return _cached_scan(maker, prefix + ast.unparse(call), lambda: maker(*args, **options))


def _cached_scan(source: Any, text: str, make: Callable[[], Any]) -> Any:
    """The scan of a text, made once; `str` of this scan returns the text."""
    try:
        scan = _SCANS.setdefault((source, text), make())
        _TEXTS[scan] = text
    # A maker of the user's may raise anything, and a scan with lists in it cannot be hashed.
    except Exception as error:
        raise ValueError(f"{text} failed, {type(error).__name__}: {error}") from None
    return scan


def _text(value: Any) -> str:
    """Text of a scan or of an option, the inverse of `_read`."""
    if isinstance(value, Recompute):
        inner = "" if value.inner is store else f", inner={_text(value.inner)}"
        keep = f", keep={value.keep!r}" if value.keep else ""
        return f"recompute({value.every}{inner}{keep})"
    if isinstance(value, Reverse) and value.inverse is None:
        options = [f"refresh={value.refresh}"] if value.refresh else []
        options += [f"inner={_text(value.inner)}"] if value.inner else []
        return f"reverse({', '.join(options)})" if options else "reverse"
    match value:
        case Sampled(steps=steps):
            return f"sltt({steps})"
        case Skipped(every=every, steps=steps):
            return f"skip({every}, {steps})"
        case Truncated(steps=steps, inner=inner) if value != _WORDS["sltt"]:
            more = "" if inner is store else f", inner={_text(inner)}"
            return f"truncated({steps}{more})"
        case Truncated():
            return "sltt"
        case Traces(rule=rule):
            return rule
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})"
    for name, scan in (*_WORDS.items(), *_REGISTERED.items()):
        if value is scan:
            return name
    # Before its class and name: a scan made by a call is written as this call.
    if isinstance(value, Hashable) and (text := _TEXTS.get(value)) is not None:
        return text
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # A dataclass of the user's is written as the call that makes an equal one.
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        options = [f"{name}={_text(getattr(value, name))}" for name in fields]
        return f"{_text(type(value))}({', '.join(options)})"
    name = getattr(value, "__qualname__", None)
    if name and "<" not in name and _importable(value.__module__):  # "<locals>", "<lambda>"
        return f"{value.__module__}:{name}"
    return str(getattr(value, "__name__", value))


def _importable(module: str) -> bool:
    """True if another process can import a module: not a script, notebook or experiment file."""
    # `importlib.util.find_spec` would find those as well, since they are in `sys.modules`.
    top = module.partition(".")[0]
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)
