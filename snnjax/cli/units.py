"""Numbers of bytes, parsed and formatted for people."""

from __future__ import annotations

import re
from decimal import Decimal

from snnjax.cli.failures import Failure

__all__ = ["read_size", "spell_size"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def read_size(text: str) -> int:
    """Parses `8GiB`, `500 MB` or `1e9` to bytes, rounded down.

    Raises:
        Failure: The text is no size from 1 byte to 2^63.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e\+?[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    try:
        assert match is not None
        size = Decimal(match[1]) * _UNITS[match[2]]
    except (ArithmeticError, AssertionError, KeyError):
        size = 0
    if not 1 <= size < 2**63:
        raise Failure(f"{text!r} is no size: write 8GiB, 500MB or a number of bytes")
    return int(size)


def spell_size(size: float) -> str:
    """Formats bytes as `12.3 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
