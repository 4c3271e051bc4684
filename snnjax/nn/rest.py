"""Blocks at rest: one block's state standing for that of all, so that depth costs no zeros.

A stack of `depth` blocks could hold its membranes at rest as `[depth, ...]` arrays; XLA would then
write all those zeros out before its loop over depth. `Rest` holds one block's, which every block
starts from. What comes out of a call are the blocks' own states, `[depth, ...]`, and goes back in
as such.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.typing import PyTree

__all__ = ["Rest", "expanded", "split"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["block"], meta_fields=["depth"])
@dataclasses.dataclass(frozen=True)
class Rest:
    """The state of `depth` equal blocks at rest.

    A state of your own is given as arrays `[depth, ...]` instead; blocks may make this one anew.

    Attributes:
        block: the state of one.
        depth: how many there are.
    """

    block: PyTree
    depth: int


def expanded(state: PyTree) -> PyTree:
    """The same state with an array `[depth, ...]` in place of each leaf at rest.

    For loops over time, which carry the state and need it in one form.
    """

    def expand(node: Any) -> Any:
        if not isinstance(node, Rest):
            return node
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (node.depth, *leaf.shape)), expanded(node.block)
        )

    return jax.tree.map(expand, state, is_leaf=lambda node: isinstance(node, Rest))


def split(state: PyTree) -> tuple[PyTree, PyTree]:
    """What all blocks start from, and what each starts from: one of the two is None."""
    return (state.block, None) if isinstance(state, Rest) else (None, state)
