"""Check that the program of an artifact only computes.

StableHLO is a closed list of array operations with one exception: a `custom_call` names any
function registered in the process, among them the one that calls back into Python. JAX checks these
names on export but not on loading, so this module does. It also refuses operations that exchange
data with the host (`infeed`, `outfeed`, `send`, `recv`) and programs with effects.
"""

from __future__ import annotations

import re
from typing import Any

from snnjax.export.errors import ArtifactError

__all__ = ["check_program"]

_PURE = {
    # Sharding annotations and assertions on symbolic shapes: the compiler removes them.
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
# MLIR prints a call in two ways: `stablehlo.custom_call @name(` and, in generic form,
# `"stablehlo.custom_call"(...) <{..., call_target_name = "name"`.
_TARGET = re.compile(r'custom_call @(?:"([^"]*)"|([\w.$-]+))|call_target_name = "([^"]*)"')


def check_program(exported: Any, subject: str) -> None:
    """Checks a program before any of it runs.

    Args:
        exported: A `jax.export.Exported`.
        subject: First words of the error message.

    Raises:
        ArtifactError: If the program could do more than compute on arrays.
    """
    text = exported.mlir_module()
    targets = {"".join(groups) for groups in _TARGET.findall(text)}
    suspicious = sorted(targets - _PURE)
    # A form of printing that _TARGET does not know must not slip through.
    if len(_CALL.findall(text)) > len(_TARGET.findall(text)):
        suspicious.append("a call without a name")
    suspicious += [name for name in _HOST if f"stablehlo.{name}" in text]
    if exported.ordered_effects or exported.unordered_effects:
        suspicious.append("effects")
    if suspicious:
        raise ArtifactError(
            f"{subject} is refused: its program does more than arithmetic "
            f"({', '.join(suspicious)}), which no network needs: do not run it, or make it anew "
            "from a run you trust"
        )
