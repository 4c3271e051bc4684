"""How a step is scanned: a memory strategy is a plain function with the loop's own signature.

    scan(step, params, state, xs) -> (state, ys)

A strategy of your own is ten lines and needs no base class.
"""

from snnjax.memory.scans import Recompute, recompute, store

__all__ = ["Recompute", "recompute", "store"]
