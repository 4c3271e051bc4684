"""What training keeps, as one value: a strategy over time, one over depth, and how spikes are kept.

    Strategy(time=recompute("sqrt"), depth=recompute(1), pack=True)

The three are independent; None leaves a model as it was written. `str` writes a strategy as the
arguments of this call, and `parse_strategy` reads it: the command line and experiments use that.
"""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from snnjax.memory.packing import Storage
from snnjax.memory.reverse import Reverse, reversal
from snnjax.memory.scans import Recompute, recompute, sequence, store
from snnjax.typing import Scan

__all__ = ["Strategy", "StrategyError", "parse_strategy"]


class StrategyError(ValueError):
    """A strategy that a model does not admit; the message says why, and what it does admit."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    """What to keep; give it to a model by `nn.with_memory`, or to an experiment by its name.

    Attributes:
        time: the scan over time: of each neuron in `order="layer"`, of the whole network in
            `order="time"`.
        depth: the scan over blocks and layers.
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
            if scan is not None and not callable(scan):
                raise ValueError(f"{scan!r} is no scan")
        if not isinstance(self.pack, bool) and self.pack not in ("spikes", "bfloat16", "int8"):
            raise ValueError(f"pack is True, False, 'bfloat16' or 'int8', not {self.pack!r}")
        if self.pack == "spikes":
            object.__setattr__(self, "pack", True)

    def __str__(self) -> str:
        """The arguments, such as `depth=recompute(1), pack=True`; "as written" without any."""
        parts = [f"{name}={_scan(getattr(self, name))}" for name in ("time", "depth")
                 if getattr(self, name) is not None]  # fmt: skip
        if self.pack:
            parts.append(f"pack={self.pack!r}")
        return ", ".join(parts) or "as written"


def parse_strategy(text: str) -> Strategy:
    """A strategy from its arguments, as `str` writes them; nothing in it is executed.

    Args:
        text: such as `"time=recompute(8, inner=recompute(1)), depth=reverse, pack=True"`; words
            may stand without quotes, and `reverse` is `reversal()`; `""` and `"as written"` change
            nothing.

    Raises:
        ValueError: it is none, with an example of one.
    """
    if text.strip() in ("", "as written"):
        return Strategy()
    try:
        call = ast.parse(f"strategy({text}\n)", mode="eval").body  # a comment ends with its line
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("every part has a name: time=, depth=, pack=")
        given = {keyword.arg: _read(keyword.value) for keyword in call.keywords}
        if len(given) < len(call.keywords):
            raise ValueError("a part is given twice")
        return Strategy(**given)  # type: ignore[arg-type]
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            f"cannot read the strategy {text!r} ({error}): write it as "
            "'time=recompute(sqrt), depth=recompute(1), pack=True'; scans are store, sequence, "
            "recompute(every, inner=..., keep=(...)) and reverse(refresh=..., inner=...)"
        ) from None


def _read(node: ast.expr) -> Any:
    """The value of one argument: a scan, a constant, a tuple of constants, or a bare word."""
    if isinstance(node, ast.Call):
        maker = {"recompute": recompute, "reverse": reversal}.get(getattr(node.func, "id", ""))
        if maker is None:
            raise ValueError(f"{ast.unparse(node)} is no scan")
        options = {str(keyword.arg): _read(keyword.value) for keyword in node.keywords}
        return maker(*map(_read, node.args), **options)
    if isinstance(node, ast.Tuple):
        return tuple(_read(item) for item in node.elts)
    if isinstance(node, ast.Name):
        if node.id == "recompute":
            raise ValueError("recompute needs its number of steps, recompute(every)")
        return {"store": store, "sequence": sequence, "reverse": reversal()}.get(node.id, node.id)
    if isinstance(node, ast.Constant):
        return node.value
    raise ValueError(f"{ast.unparse(node)} is neither a scan nor a number")


def _scan(scan: Scan) -> str:
    if isinstance(scan, Recompute):
        inner = "" if scan.inner is store else f", inner={_scan(scan.inner)}"
        keep = f", keep={scan.keep!r}" if scan.keep else ""
        return f"recompute({scan.every}{inner}{keep})"
    if isinstance(scan, Reverse) and scan.inverse is None:
        options = [f"refresh={scan.refresh}"] if scan.refresh else []
        options += [f"inner={_scan(scan.inner)}"] if scan.inner else []
        return f"reverse({', '.join(options)})" if options else "reverse"
    return str(getattr(scan, "__name__", scan))
