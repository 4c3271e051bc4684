"""Freed memory that a process keeps for its next step.

A step on a CPU frees its large arrays and allocates the same ones a moment later. By default the C
library of Linux returns each to the system, and gets it back as empty pages that the system fills
with zeros on first touch. Kept pages are touched once. `experiments/benchmarks/peers.py` measures
the gain: a tenth to a third of a step.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_pages"]

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_pages() -> bool:
    """Keeps freed memory in this process; call it before JAX computes anything.

    Freed memory stays with the process, in one heap for all threads: its size is that of its
    largest moment, and larger if arrays of many sizes alternate (docs/speed.md). Memory of
    accelerators is not affected. `snnjax train --keep-pages` calls it; `GLIBC_TUNABLES` does the
    same from outside.

    Returns:
        True if it took effect: on Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # No array is mapped by itself, nothing goes back, and no thread has a heap of its own.
    settings = [(_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)]
    answers = [mallopt(*setting) for setting in settings]
    return answers == [1] * len(settings)
