"""A network as a graph of steps, and the shapes in which a traced function sees its nodes.

inputs -- step -- step -- sum -- step          a node per step; every node knows its root, so that
          |_______________|                    the paths between two nodes are nested sums
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np

from snnjax.conversion._steps import Branches, Flatten, Step, join

__all__ = ["Constant", "Data", "Node", "Refused", "Unknown", "after", "flattened", "input_data"]
__all__ += ["ordered", "path", "reshape_error", "view"]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A step on the outputs of other nodes; the inputs have none, a sum of two nodes no step.

    Attributes:
        step: the step, or None.
        inputs: nodes before it.
        shape: shape of the outputs, `(B, *space, C)`.
        behind: name of the last parameter used.
        root: node through which every path from the inputs to this one leads; None for the inputs.
        depth: number of such nodes.
    """

    step: Step | None
    inputs: tuple[Node, ...]
    shape: tuple[int, ...]
    behind: str
    root: Node | None
    depth: int


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A value that does not depend on the inputs, with the name of a parameter in it."""

    value: Any
    name: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Outputs of a node, with their axes in another order or shape.

    Attributes:
        node: the node.
        shape: shape in the traced function.
        index: number of the node's feature at each position but the batch, `shape` without it; None
            if they are in order.
        batch: axis of the batch.
    """

    node: Node
    shape: tuple[int, ...]
    index: np.ndarray | None = None
    batch: int = 0

    @property
    def order(self) -> tuple[int, ...] | None:
        """Axis of the node at each axis; None if no order of axes gives this shape."""
        if self.index is None and self.shape == self.node.shape:
            return tuple(range(len(self.shape)))
        index = self.features()
        for axes in itertools.permutations(range(1, len(self.node.shape))):
            other = view(self.node, (0, *axes))
            if other.shape == self.shape and np.array_equal(other.features(), index):
                return (0, *axes)
        return None

    def features(self) -> np.ndarray:
        """Number of the node's feature at each position but the batch."""
        if self.index is not None:
            return self.index
        example = [n for axis, n in enumerate(self.shape) if axis != self.batch]
        return _numbered(self.node.shape[1:]).reshape(example)


@dataclasses.dataclass(frozen=True, eq=False)
class Refused:
    """A value that no step gives, with the reason."""

    reason: str


class Unknown(Exception):
    """An equation that no step expresses: words for it, and the cure."""

    def __init__(self, reason: str, cure: str):
        super().__init__(reason)
        self.reason, self.cure = reason, cure


@functools.cache
def _numbered(shape: tuple[int, ...]) -> np.ndarray:
    # Kept, since every layer of one shape needs it.
    return np.arange(math.prod(shape)).reshape(shape)


def view(node: Node, order: tuple[int, ...]) -> Data:
    """Outputs of a node whose axis `order[i]` is seen at i; the batch is first."""
    shape = tuple(node.shape[axis] for axis in order)
    if order == tuple(range(len(order))):
        return Data(node, shape)
    return Data(node, shape, _numbered(node.shape[1:]).transpose([n - 1 for n in order[1:]]))


def input_data(shape: tuple[int, ...]) -> Data:
    """The inputs of a network, `(B, *space, C)`."""
    return Data(Node(None, (), shape, "", None, 0), shape)


def after(node: Node, step: Step, shape: tuple[int, ...], *, behind: str = "") -> Node:
    """The node of a step on the outputs of another; `behind` names a parameter of the step."""
    return Node(step, (node,), shape, behind or node.behind, node, node.depth + 1)


def path(start: Node | None, end: Node, tolerance: float) -> list[Step]:
    """The joined steps from one node to another.

    Args:
        start: node through which all paths to `end` lead.
        end: last node.
        tolerance: see `join`.
    """
    steps = []
    while end is not start and end.inputs:
        if end.step is not None:
            steps.append(end.step)
        else:
            paths = [path(end.root, node, tolerance) for node in end.inputs]
            # The longer path is the branch; a sum does not depend on the order.
            shortcut, branch = sorted(paths, key=len)
            steps.append(Branches(branch, shortcut))
        assert end.root is not None
        end = end.root
    return join(reversed(steps), tolerance=tolerance)


def flattened(data: Data) -> tuple[Node, np.ndarray]:
    """The node of all features in a row, and the feature that the data have at each position.

    Raises:
        Unknown: data other than `[B, features]`.
    """
    node = data.node
    if data.batch or len(data.shape) != 2:
        raise reshape_error(data)
    if len(node.shape) > 2:
        flat = (node.shape[0], math.prod(node.shape[1:]))
        node = after(node, Flatten(math.prod(node.shape[1:-1])), flat)
    return node, data.features()


def ordered(data: Data) -> tuple[int, ...]:
    """Axis of the node at each axis of the data.

    Raises:
        Unknown: data in another shape.
    """
    order = None if data.batch else data.order
    if order is None:
        raise reshape_error(data)
    return order


def reshape_error(data: Data) -> Unknown:
    """The refusal of data in a shape that no layer takes."""
    old, new = (f"[B, {', '.join(map(str, shape[1:]))}]" for shape in (data.node.shape, data.shape))
    cure = "flatten all features of an example at once, and give examples their final shape"
    return Unknown(f"a reshape from {old} to {new}", cure)
