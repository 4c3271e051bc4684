"""Memory strategies: the residuals that the backward pass keeps, with equal values.

    scan(step, params, state, xs) -> (state, ys)

A strategy is a plain function with the signature of the loop, such as `store`, `recompute(8)` or
`reverse(inverse)`. A strategy of your own takes ten lines and no base class; `check` compares it
with `store`. Strategies with another gradient, such as `sltt()`, say so: `exact` is False. Public
modules hold the parts:

    accounting    bytes of compiled code, residuals, operations
    budget        results of `plan`; search of the largest batch that fits
    checking      results of `check`; comparison of gradients
    packing       residuals in few bits: spikes at one bit each
    grid          dyadic grid, on which reversal is exact
    columns       reversible multi-level columns
    traces        eligibility traces of synapses
"""

from snnjax.memory import accounting, budget, checking, columns, grid, packing, traces
from snnjax.memory.accounting import measure
from snnjax.memory.accumulation import accumulate
from snnjax.memory.approximate import skip, sltt, truncated
from snnjax.memory.budget import plan
from snnjax.memory.chain import chain
from snnjax.memory.checking import check
from snnjax.memory.checkpoint import replay
from snnjax.memory.coupling import CouplingAux, Streams, coupling
from snnjax.memory.notation import Strategy, StrategyError, parse_strategy, register_scan
from snnjax.memory.reverse import Reverse, reversal, reverse
from snnjax.memory.scans import Recompute, recompute, sequence, store
from snnjax.memory.traces import eprop, ottt

__all__ = [
    "CouplingAux",
    "Recompute",
    "Reverse",
    "Strategy",
    "StrategyError",
    "Streams",
    "accounting",
    "accumulate",
    "budget",
    "chain",
    "check",
    "checking",
    "columns",
    "coupling",
    "eprop",
    "grid",
    "measure",
    "ottt",
    "packing",
    "parse_strategy",
    "plan",
    "recompute",
    "register_scan",
    "replay",
    "reversal",
    "reverse",
    "sequence",
    "skip",
    "sltt",
    "store",
    "traces",
    "truncated",
]
