"""Setting of the C library's malloc that keeps freed memory for the next step.

A step on a CPU frees its large arrays and then allocates arrays of the same sizes. By default glibc
returns each to the system and gets new pages back, which the system fills with zeros on first
access; a process that keeps its pages avoids this. `experiments/benchmarks/peers.py` measures the
gain: a tenth to a third of a step.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_pages"]

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_pages() -> bool:
    """Keeps freed memory in this process; call it before JAX computes anything.

    Freed memory stays with the process, in one heap for all threads. The heap stays at its peak
    size, and grows beyond it if arrays of many sizes alternate (docs/speed.md). Memory of
    accelerators is not affected. `snnjax train --keep-pages` calls this function; the environment
    variable `GLIBC_TUNABLES` has the same effect.

    Returns:
        True if it took effect, which requires Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # No array gets a mapping of its own, nothing is returned to the system, and all threads share
    # one heap: memory freed by one thread then serves the next allocation of any.
    settings = [(_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)]
    # mallopt returns 1 on success; another C library may have it and refuse.
    answers = [mallopt(*setting) for setting in settings]
    return answers == [1] * len(settings)
