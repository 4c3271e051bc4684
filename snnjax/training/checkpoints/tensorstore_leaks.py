"""Workaround for a leak of TensorStore that costs about 20 kB per checkpoint.

Each conversion of a C++ value to Python in TensorStore (0.1.80 to 0.1.86 at least) keeps a
reference to every key and value. While saving, Orbax converts the location of each array and,
twice, a table of metrics that it only logs. `avoid` replaces both conversions; the first one by the
same value.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

__all__ = ["avoid"]


@functools.cache
def avoid() -> None:
    """Avoids the leak in this process, where the installed version has it."""
    import tensorstore

    Spec = tensorstore.KvStore.Spec
    value = Spec({"driver": "file", "path": "/leak/"}).to_json()["path"]
    # Held by this variable and by the call; any other reference will never be released.
    if sys.getrefcount(value) <= 2:
        return
    convert, collect = Spec.to_json, tensorstore.experimental_collect_matching_metrics

    def to_json(self: Any, *arguments: Any, **options: Any) -> Any:
        plain = {"driver": "file", "path": self.path}
        if not arguments and not options and self == Spec(plain):
            return plain
        return convert(self, *arguments, **options)

    def collect_metrics(*arguments: Any, **options: Any) -> Any:
        # For Orbax only: a user's own code gets its metrics.
        caller = sys._getframe(1).f_globals.get("__name__", "")
        return [] if caller.startswith("orbax.") else collect(*arguments, **options)

    Spec.to_json = to_json
    tensorstore.experimental_collect_matching_metrics = collect_metrics
