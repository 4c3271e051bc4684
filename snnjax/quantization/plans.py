"""Quantization plans: functions that choose a format for each array of a model by its name.

    plan : (name, array) -> Quantizer, QFormat, or None to leave the array in full precision

A name is the path of an array in its pytree, `body/layers/0/function/kernel`. `Kernels` plans for
the weights of `nn.Conv` and `nn.Linear`, `NeuronParameters` for decays and thresholds, `FirstOf`
combines plans, and a function of your own covers every other case. Plans are frozen and comparable.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from snnjax.ops.variables import Structure, flatten_with_path
from snnjax.quantization.fixed_point import QFormat, straight_through
from snnjax.quantization.quantizer import Quantizer
from snnjax.typing import Array, Key, PyTree

__all__ = ["FirstOf", "Kernels", "NeuronParameters", "Plan", "named_leaves", "quantize"]

Plan: TypeAlias = Callable[[str, Any], "Quantizer | QFormat | None"]
"""Choice of a format, `(name, array) -> Quantizer, QFormat or None`."""


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Plan for arrays named `kernel`: the weights of `nn.Conv`, `nn.Linear` and similar layers.

    Attributes:
        quantizer: Quantizer of every kernel.
        skip: Names to leave in full precision, with wildcards: `("*layers/0/*",)` is the first
            layer.
    """

    quantizer: Quantizer
    _: dataclasses.KW_ONLY
    skip: tuple[str, ...] = ()

    def __call__(self, name: str, leaf: Any) -> Quantizer | None:
        """Quantizer of a kernel; None for other arrays."""
        # A vector has no output axis and so no scale per channel.
        kernel = name.rsplit("/", 1)[-1] == "kernel" and leaf.ndim >= 2 and _floating(leaf)
        return self.quantizer if kernel and not _matches(name, self.skip) else None


@dataclasses.dataclass(frozen=True)
class NeuronParameters:
    """Plan for neuron parameters: learned parameters, and arrays with one number per neuron.

    A constant shared by a whole layer is part of the program, not an array: give the layer a value
    on the grid, `nn.LIF(decay=float(format(jnp.asarray(0.9))))`.

    Attributes:
        format: Format of the parameters; `QFormat(0, 8)` for decays, which lie in (0, 1).
        skip: Names to leave in full precision, with wildcards: `("*threshold",)`.
    """

    format: QFormat
    _: dataclasses.KW_ONLY
    skip: tuple[str, ...] = ()

    def __call__(self, name: str, leaf: Any) -> QFormat | None:
        """Format of a neuron parameter; None for other arrays."""
        # `nn.Neuron` holds its parameters in two dicts of these names.
        parameter = {"learned", "constants"} & set(name.split("/")) and _floating(leaf)
        return self.format if parameter and not _matches(name, self.skip) else None


@dataclasses.dataclass(frozen=True)
class FirstOf:
    """Plan that takes the first format which a list of plans has for an array.

    Attributes:
        plans: Plans in order of precedence.
    """

    plans: tuple[Plan, ...]

    def __call__(self, name: str, leaf: Any) -> Quantizer | QFormat | None:
        """First format other than None; None if no plan has one."""
        formats = (plan(name, leaf) for plan in self.plans)
        return next((format for format in formats if format is not None), None)


def quantize(model: PyTree, plan: Plan, *, key: Key | None = None) -> PyTree:
    """Rounds the planned arrays of a model to their grids and keeps the others.

    The gradient passes straight through to the full-precision arrays of `model`. Called in the
    forward pass, this is quantization-aware training without any state of its own.

    Args:
        model: Any pytree of arrays, such as a network.
        plan: Choice of a format for each array, see `Plan`.
        key: Random key of formats that round stochastically, folded with the number of each array.

    Returns:
        A model of the same structure, shapes and dtypes.

    Raises:
        ValueError: The plan chooses no array, or stochastic rounding without a key.
    """
    named, structure = named_leaves(model)
    formats = [plan(name, leaf) for name, leaf in named]
    refuse_empty(plan, formats)
    # By the number of each array, as in `store`, so that both round alike.
    keys = [None if key is None else jax.random.fold_in(key, n) for n in range(len(named))]
    triples = zip(named, formats, keys, strict=True)
    leaves = [_round_leaf(leaf, format, leaf_key) for (_, leaf), format, leaf_key in triples]
    return structure.unflatten(leaves)


def named_leaves(model: PyTree) -> tuple[list[tuple[str, Any]], Structure]:
    """Arrays of a pytree with their names, and the structure of the pytree.

    A variable at several places has one entry, under the name of the first one.
    """
    paths, structure = flatten_with_path(model)
    spell = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    # An `nnx.Variable` is a pytree node of one field, `value`: no part of the parameter's name.
    return [(spell(path).removesuffix("/value"), leaf) for path, leaf in paths], structure


def refuse_empty(plan: Plan, formats: list[Any]) -> None:
    """Raises ValueError if a plan chose no array of a model."""
    # A misspelt name would otherwise leave the whole model in full precision without a word.
    if all(format is None for format in formats):
        raise ValueError(
            f"{plan} chooses none of the {len(formats)} arrays of this model: a plan of your own "
            "is a function (name, array) -> Quantizer, QFormat or None"
        )


def _round_leaf(leaf: Array, format: Quantizer | QFormat | None, key: Key | None) -> Array:
    if format is None:
        return leaf
    if isinstance(format, QFormat):
        return straight_through(leaf, format, key=key)
    return format(leaf)


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
