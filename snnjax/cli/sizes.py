"""Numbers of bytes, read and written as people do."""

from __future__ import annotations

import re

from snnjax.cli.failures import Failure

__all__ = ["read_size", "spell_size"]

_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def read_size(text: str) -> int:
    """Bytes of `8GiB`, `500 MB`, `1e9`.

    Raises:
        Failure: It is no size above 0.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    try:
        assert match is not None
        size = float(match[1]) * _UNITS[match[2]]
    except (AssertionError, KeyError, ValueError):
        size = 0.0
    if size < 1:
        raise Failure(f"{text!r} is no size: write 8GiB, 500MB or a number of bytes")
    return int(size)


def spell_size(size: float) -> str:
    """`12.3 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
