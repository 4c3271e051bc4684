"""Room for compiled programs among the memory maps of the process.

Linux bounds the memory maps of a process (`vm.max_map_count`, usually 65,530). On a CPU a compiled
program keeps some of them, 18 for a small one and 870 for the gradient of RevSResNet37, as long as
its jitted function lives or JAX's caches hold it. Without a free map XLA's compiler prints "LLVM compilation error: Cannot allocate memory"
and returns a program without some of its code. The process then ends by a segmentation fault, often
while the persistent cache writes that program (jax 0.10.2).
"""

from __future__ import annotations

import gc
import math
import warnings
from pathlib import Path

import jax

__all__ = ["make_room"]

_USED, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
# Half leaves room for the other programs of a run. Above nine tenths the next ones may get none.
_CLEARED_ABOVE, _WARNED_ABOVE = 0.5, 0.9


def make_room() -> None:
    """Frees the programs in JAX's caches if the process has used half of its memory maps.

    `training.sharding.compile_step`, `memory.measure` and `memory.plan` call it. A program of its
    own that compiles thousands of shapes or networks calls it between them. Freed programs are
    compiled again on their next call. Does nothing where the system has no such limit.
    """
    if _share() <= _CLEARED_ABOVE:
        return
    jax.clear_caches()
    # Programs in reference cycles are freed by the collector only.
    gc.collect()
    if (share := _share()) <= _WARNED_ABOVE:
        return
    # Without writes the persistent cache, the first to fail, takes no further memory.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    warnings.warn(
        f"{share:.0%} of this process' memory maps are used, and without a free one XLA crashes: "
        "drop compiled functions and sessions that are not needed, compile in several processes, "
        "or raise vm.max_map_count; programs are no longer written to the cache",
        RuntimeWarning,
        stacklevel=2,
    )


def _share() -> float:
    """Used share of the memory maps; 0 where there is no limit."""
    try:
        return _USED.read_bytes().count(b"\n") / int(_LIMIT.read_text())
    except (OSError, ValueError):
        return 0.0
