"""Which arrays of a model are put on few bits, and how: a function from name to format.

    plan : (name, array) -> Quantizer, QFormat, or None for what stays as it is

A name is the path of an array in its pytree, `body/layers/0/function/kernel`. `Kernels` plans for
the weights of `nn.Conv` and `nn.Linear`, `NeuronParameters` for decays and thresholds, `FirstOf`
for both, and a function of your own for anything else. Plans are frozen and comparable.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from snnjax.quantization.fixed_point import QFormat, straight_through
from snnjax.quantization.quantizer import Quantizer
from snnjax.typing import Array, Key, PyTree

__all__ = ["FirstOf", "Kernels", "NeuronParameters", "Plan", "named_leaves", "quantized"]

Plan: TypeAlias = Callable[[str, Any], "Quantizer | QFormat | None"]


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Plans for arrays called `kernel`: the weights of `nn.Conv`, `nn.Linear` and their kin.

    Attributes:
        quantizer: for each of them.
        skip: names to leave as they are, with wildcards: `("*layers/0/*",)` is the first layer.
    """

    quantizer: Quantizer
    _: dataclasses.KW_ONLY
    skip: tuple[str, ...] = ()

    def __call__(self, name: str, leaf: Any) -> Quantizer | None:
        """The quantizer, for a kernel."""
        chosen = name.rsplit("/", 1)[-1] == "kernel" and leaf.ndim >= 2 and _floating(leaf)
        return self.quantizer if chosen and not _matches(name, self.skip) else None


@dataclasses.dataclass(frozen=True)
class NeuronParameters:
    """Plans for parameters of neurons: learned ones, and arrays of one number per neuron.

    A number that a whole layer shares and does not learn is no array but part of the program: give
    the layer one that is on the grid, `nn.LIF(decay=float(format(jnp.asarray(0.9))))`.

    Attributes:
        format: of the parameters; `QFormat(0, 8)` for decays, which lie in (0, 1).
        skip: names to leave as they are, with wildcards: `("*threshold",)`.
    """

    format: QFormat
    _: dataclasses.KW_ONLY
    skip: tuple[str, ...] = ()

    def __call__(self, name: str, leaf: Any) -> QFormat | None:
        """The format, for a parameter of neurons."""
        chosen = {"learned", "constants"} & set(name.split("/")) and _floating(leaf)
        return self.format if chosen and not _matches(name, self.skip) else None


@dataclasses.dataclass(frozen=True)
class FirstOf:
    """The first of several plans that has one for an array.

    Attributes:
        plans: asked in this order.
    """

    plans: tuple[Plan, ...]

    def __call__(self, name: str, leaf: Any) -> Quantizer | QFormat | None:
        """What the first of them says that is not None."""
        found = (plan(name, leaf) for plan in self.plans)
        return next((way for way in found if way is not None), None)


def quantized(model: PyTree, plan: Plan, *, key: Key | None = None) -> PyTree:
    """The model with the planned arrays on their grids and the others as they are.

    The gradient passes straight through, to the full-precision arrays of the model that came in:
    that is training with weights in the loop of rounding, without any state of its own.

    Args:
        model: any pytree, such as a network.
        plan: see above.
        key: for formats that round stochastically; every array draws its own numbers.

    Returns:
        A model of the same structure, shapes and dtypes.

    Raises:
        ValueError: the plan finds nothing to do; stochastic rounding without a key.
    """
    named, tree = named_leaves(model)
    ways = [plan(name, leaf) for name, leaf in named]
    refuse_nothing(plan, ways)
    keys = [None if key is None else jax.random.fold_in(key, n) for n in range(len(named))]
    triples = zip(named, ways, keys, strict=True)
    leaves = [_rounded(leaf, way, own) for (_, leaf), way, own in triples]
    return jax.tree.unflatten(tree, leaves)


def named_leaves(model: PyTree) -> tuple[list[tuple[str, Any]], Any]:
    """The arrays of a pytree with their names, and its structure."""
    found, tree = jax.tree_util.tree_flatten_with_path(model)
    spell = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    # A parameter of a module is held in a box, which has one field.
    return [(spell(path).removesuffix("/value"), leaf) for path, leaf in found], tree


def refuse_nothing(plan: Plan, ways: list[Any]) -> None:
    """Raises ValueError where a plan chose none of the arrays of a model."""
    if all(way is None for way in ways):
        raise ValueError(
            f"{plan} finds none of the {len(ways)} arrays of this model: a plan of your own is a "
            "function (name, array) -> Quantizer, QFormat or None"
        )


def _rounded(leaf: Array, way: Quantizer | QFormat | None, key: Key | None) -> Array:
    if way is None:
        return leaf
    if isinstance(way, QFormat):
        return straight_through(leaf, way, key=key)
    return way(leaf)


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
