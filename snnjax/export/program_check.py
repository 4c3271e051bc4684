"""What the program of an artifact may do: compute, and nothing else.

StableHLO is a closed list of operations on arrays, with one way out: a `custom_call` names any
function that the process has registered, among them the one that calls back into Python. JAX looks
at these names when it exports and not when it loads, so it is done here. Operations that exchange
data with the host (`infeed`, `outfeed`, `send`, `recv`) and effects are refused too.
"""

from __future__ import annotations

import re
from typing import Any

from snnjax.export.errors import ArtifactError

__all__ = ["refuse_more_than_arithmetic"]

_PURE = {
    # Where arrays lie, and what is known of symbolic shapes: nothing is left of them to call.
    *("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "shape_assertion"),
    *("stablehlo.dynamic_reduce_window", "stablehlo.dynamic_rng_bit_generator"),
    *("stablehlo.dynamic_top_k", "stablehlo.dynamic_approx_top_k", "ApproxTopK"),
    # Operations that XLA expands by itself.
    *("mhlo.topk", "mhlo.erf", "chlo.top_k", "chlo.erf"),
    # Random bits on a GPU.
    *("cu_threefry2x32_ffi", "hip_threefry2x32_ffi"),
}
_HOST = ("infeed", "outfeed", "send", "recv")
_CALL = re.compile(r"stablehlo\.custom_call\b")
# The two ways in which MLIR prints one: `stablehlo.custom_call @name(` and, of an operation that it
# finds odd, `"stablehlo.custom_call"(...) <{..., call_target_name = "name"`.
_TARGET = re.compile(r'custom_call @(?:"([^"]*)"|([\w.$-]+))|call_target_name = "([^"]*)"')


def refuse_more_than_arithmetic(exported: Any, what: str) -> None:
    """Looks through a program before anything of it runs.

    Args:
        exported: A `jax.export.Exported`.
        what: How the message begins.

    Raises:
        ArtifactError: It could do more than compute on arrays.
    """
    text = exported.mlir_module()
    targets = {"".join(found) for found in _TARGET.findall(text)}
    strange = sorted(targets - _PURE)
    if len(_CALL.findall(text)) > len(_TARGET.findall(text)):
        strange.append("a call without a name")
    strange += [name for name in _HOST if f"stablehlo.{name}" in text]
    if exported.ordered_effects or exported.unordered_effects:
        strange.append("effects")
    if strange:
        raise ArtifactError(
            f"{what} is refused: its program does more than arithmetic ({', '.join(strange)}), "
            "which a network needs not: do not run it, or make it anew from a run you trust"
        )
