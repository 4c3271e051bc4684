"""Memory that a process keeps for its next step.

A step on a CPU frees its large arrays and asks for the same ones a moment later. The C library of
Linux gives each back to the system, and gets it anew as empty pages that the system fills with
zeros when they are touched. Kept, pages are touched once. `experiments/benchmarks/peers.py` shows
what that is worth: from a tenth of a step to a third.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_pages"]

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_pages() -> bool:
    """Lets this process keep memory that it frees; call it before JAX computes anything.

    Freed memory stays with the process, in one heap for all threads: its size is that of its
    largest moment, and more where arrays of many sizes come and go (docs/speed.md). The memory of
    accelerators is not touched. `snnjax train --keep-pages` does it; `GLIBC_TUNABLES` says the same
    from outside.

    Returns:
        Whether it took effect: on Linux with glibc.
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
