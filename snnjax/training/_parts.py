"""Parts of a network, chosen by patterns of the names of its arrays.

    body.layers.1.function.kernel     an array: attributes and places from the network on
    body.layers.1.*                   a pattern: * stands for any text, ? for one character
    body.layers.1                     short for body.layers.1.*

These are the names of exported weights. A message about a wrong pattern lists them, and
`snnjax.load(run).arrays` has them with the arrays.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax
from flax import nnx

from snnjax import nn
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.typing import Array, PyTree

__all__ = [
    "arrays",
    "by_name",
    "drawn_names",
    "frozen_names",
    "head_layers",
    "map_named",
    "shorten_names",
    "with_frozen_norms",
]

_SHOWN = 8  # names in a message


def by_name(tree: PyTree) -> dict[str, Any]:
    """Leaves of a tree by name: of statistics, or of a part of `nn.split`."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_named(function: Callable[[str, Any], Any], tree: PyTree) -> PyTree:
    """The tree with `function(name, leaf)` in place of each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(_name(path), leaf), tree)


def arrays(network: nn.Network) -> dict[str, Array]:
    """Parameters and constants of a network by name; an array at two places has its first."""
    _, params, constants = nn.split(network)
    return by_name(params) | by_name(constants)


def drawn_names(network: nn.Network, head: str | None) -> frozenset[str]:
    """Names of the arrays that `head` leaves as the experiment draws them.

    Args:
        network: Network of the experiment.
        head: None for none of them, "new" for those of `head_layers`, or a pattern.

    Raises:
        ExperimentError: The pattern matches nothing, or the last layer cannot be told.
    """
    if head is None:
        return frozenset()
    patterns = head_layers(network) if head == "new" else [head]
    return _matching("head", patterns, arrays(network))


def frozen_names(network: nn.Network, experiment: Experiment) -> frozenset[str]:
    """Names of the parameters that do not learn.

    They are those of layers with the attribute `frozen`, and those that match a pattern of
    `experiment.freeze` and are not newly drawn (`experiment.head`).

    Raises:
        ExperimentError: A pattern matches no parameter, or nothing is left to learn.
    """
    names = by_name(nn.split(network)[1])
    own = [".".join(map(str, p)) for p, m in nnx.iter_modules(network) if _is_frozen(m)]
    frozen = frozenset(name for name in names if any(_matches(name, path) for path in own))
    if not experiment.freeze:
        return frozen
    # "body.*" is the usual pattern of a network whose new last layer learns.
    chosen = _matching("freeze", experiment.freeze, names)
    frozen |= chosen - drawn_names(network, experiment.head)
    if len(frozen) == len(names):
        raise ExperimentError(
            f"freeze {' '.join(experiment.freeze)} leaves nothing to learn: freeze fewer of "
            f"{shorten_names(names)}, or let the last layer learn (--head new)"
        )
    return frozen


def with_frozen_norms(network: nn.Network, frozen: Collection[str]) -> nn.Network:
    """A copy whose batch norms with frozen scale and bias keep their running statistics, too.

    They normalise by these statistics in training as in evaluation: those of the batch would change
    what the frozen layers compute.
    """
    # Attributes are set below, so the modules must be copies.
    copied = nnx.merge(*nnx.split(network))
    for path, module in nnx.iter_modules(copied):
        own = {".".join(map(str, (*path, name))) for name in ("scale", "bias")}
        if isinstance(module, nn.BatchNorm) and own <= set(frozen):
            module.over, module.update = "frozen", "call"
    return copied


def head_layers(network: nn.Network) -> list[str]:
    """Names of the last layer with a kernel and of those behind it, which have its channels.

    Raises:
        ExperimentError: The network is no sequence of layers.
    """
    layer, path, found = network.body, "body", []
    while isinstance(layer, nn.Sequential):
        parts = [by_name(nn.split(part)[1]).values() for part in layer.layers]
        # Neurons may learn a decay per channel, and a norm has a scale: a kernel has two axes.
        places = [i for i, part in enumerate(parts) if any(leaf.ndim > 1 for leaf in part)]
        if not places:
            break
        last = places[-1]
        found += [f"{path}.layers.{i}" for i in range(last + 1, len(parts)) if parts[i]]
        layer, path = layer.layers[last], f"{path}.layers.{last}"
    if path == "body":
        raise ExperimentError(
            f"the last layer of this network cannot be told, since its body is no nn.Sequential "
            f"but {type(network.body).__name__}: name the arrays to draw anew by a pattern, such "
            f'as --head "{next(reversed(arrays(network)), "body.*")}"'
        )
    return [path, *found]


def shorten_names(names: Iterable[str]) -> str:
    """Names for a message: a few, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _is_frozen(module: Any) -> bool:
    return getattr(module, "frozen", False) is True


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, form) for form in (pattern, f"{pattern}.*"))


def _matching(field: str, patterns: Iterable[str], names: Mapping[str, Any]) -> frozenset[str]:
    """Names that match any pattern; each has to match one."""
    found: set[str] = set()
    for pattern in patterns:
        chosen = {name for name in names if _matches(name, pattern)}
        if not chosen:
            kind = "parameter" if field == "freeze" else "array"
            raise ExperimentError(
                f"{field} {pattern!r} matches no {kind} of this network: they are "
                f'{shorten_names(names)}; "body.layers.1.*" is a whole layer'
            )
        found |= chosen
    return frozenset(found)


def _name(path: Any) -> str:
    # As in exported weights: the last entry may be the value of a Flax variable.
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
