"""How a step is scanned: a memory strategy is a plain function with the loop's own signature.

    scan(step, params, state, xs) -> (state, ys)

A strategy of your own is ten lines and needs no base class.
"""

from snnjax.memory.accounting import Measured, Residual, analysed, device_peak, measure, residuals
from snnjax.memory.accumulation import accumulate
from snnjax.memory.budget import Candidate, Plan, largest, plan
from snnjax.memory.chain import chain
from snnjax.memory.checking import Checked, Difference, check, compare_gradients, timed, unequal
from snnjax.memory.checkpoint import Replayed, replayed
from snnjax.memory.coupling import Coupling, CouplingAux, Streams, coupling
from snnjax.memory.flops import operations
from snnjax.memory.grid import bits_left, grid_bound, on_grid, stream_peak, watched
from snnjax.memory.notation import Strategy, StrategyError, parse_strategy, register_scan
from snnjax.memory.packing import Packed, Storage, pack, packed, unpack, unpacked
from snnjax.memory.reverse import Reverse, reversal, reverse
from snnjax.memory.scans import Recompute, recompute, sequence, store

__all__ = [
    "Candidate",
    "Checked",
    "Coupling",
    "CouplingAux",
    "Difference",
    "Measured",
    "Packed",
    "Plan",
    "Recompute",
    "Replayed",
    "Residual",
    "Reverse",
    "Storage",
    "Strategy",
    "StrategyError",
    "Streams",
    "accumulate",
    "analysed",
    "bits_left",
    "chain",
    "check",
    "compare_gradients",
    "coupling",
    "device_peak",
    "grid_bound",
    "largest",
    "measure",
    "on_grid",
    "operations",
    "pack",
    "packed",
    "parse_strategy",
    "plan",
    "recompute",
    "register_scan",
    "replayed",
    "residuals",
    "reversal",
    "reverse",
    "store",
    "stream_peak",
    "timed",
    "unequal",
    "unpack",
    "unpacked",
    "watched",
    "sequence",
]
