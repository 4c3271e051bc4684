"""Batch norm in evaluation as a part of the synapse before it, and a flat view of a network.

    norm(W x + b) = W' x + b',     W' = factor W,     b' = factor b + offset
    factor = gain scale / sqrt(var + epsilon),        offset = bias - factor mean

The fold is exact but for rounding: running statistics are constants. A norm without a synapse in
front of it, such as the first one of a pre-activation block, becomes a `Scale`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import nn
from snnjax.nn.contract import Aux, Call, State, layer_name, no_state, same_shape, stateless_result
from snnjax.nn.synapses import Kernel
from snnjax.ops.arguments import as_floating, shorten
from snnjax.ops.rounding import narrow, wide_array, widen
from snnjax.typing import Array, PyTree

__all__ = ["Entry", "Scale", "flatten", "fold_batch_norm", "fold_norms", "is_synapse", "rescaled"]


class Scale(nnx.Module):
    """Elementwise map `y[t] = scale x[t] + bias`, `[T, B, ..., C] -> [T, B, ..., C]`.

    Args:
        scale: a number, or one per channel, `[C]`.
        bias: a number, or one per channel, `[C]`.
    """

    def __init__(self, scale: Array | float, *, bias: Array | float = 0.0):
        self.scale, self.bias = (nnx.Param(wide_array(a)) for a in (scale, bias))
        self.name = "scale"

    initial_state, infer_shape = no_state, same_shape

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Scales every timestep, in the dtype of the inputs."""
        x = widen(as_floating("conversion.Scale", inputs))
        scale, bias = (param[...].astype(x.dtype) for param in (self.scale, self.bias))
        return stateless_result(narrow(x * scale + bias, inputs.dtype))


class Entry(NamedTuple):
    """One layer of a network without its containers.

    Attributes:
        name: name of the layer in taps.
        layer: the layer.
        statistics: its running statistics.
        static: True within `nn.StaticInput`.
    """

    name: str
    layer: Any
    statistics: PyTree = ()
    static: bool = False


def flatten(layer: Any, statistics: PyTree, name: str, *, static: bool = False) -> list[Entry]:
    """Layers in sequence, without `nn.Sequential`, `nn.Stacked` and `nn.StaticInput` around them.

    Args:
        layer: layer to take apart.
        statistics: its running statistics.
        name: its name in taps, empty for the body of a network.
        static: True within `nn.StaticInput`.
    """
    # Exact types: a subclass may call its layers in another way.
    if type(layer) is nn.StaticInput:
        return flatten(layer.layer, statistics, name, static=True)
    if type(layer) is nn.Stacked:
        pick = lambda i: jax.tree.map(lambda leaf: leaf[i], (layer.blocks, statistics))  # noqa: E731
        blocks = [(f"{name}/block{i}".lstrip("/"), *pick(i)) for i in range(layer.depth)]
        return [e for key, part, own in blocks for e in flatten(part, own, key, static=static)]
    if type(layer) is not nn.Sequential:
        return [Entry(name, layer, statistics, static)]
    parts = zip(layer.layers, statistics, strict=True)
    named = [(f"{name}/{layer_name(part, i)}".lstrip("/"), part, own)
             for i, (part, own) in enumerate(parts)]  # fmt: skip
    return [e for key, part, own in named for e in flatten(part, own, key, static=static)]


def joined(entries: Iterable[tuple[Any, bool]]) -> nn.Sequential:
    """Layers in sequence; neighbours within `nn.StaticInput` share one.

    Args:
        entries: pairs of a layer and True if it stands within `nn.StaticInput`.
    """
    layers: list[Any] = []
    for static, group in itertools.groupby(entries, key=lambda entry: entry[1]):
        run = [layer for layer, _ in group]
        layers += [nn.StaticInput(nn.Sequential(*run))] if static else run
    return nn.Sequential(*layers)


def fold_batch_norm(net: nn.Network, statistics: PyTree) -> nn.Network:
    """A network without batch norm, equal in evaluation up to rounding.

    Each norm is multiplied into the `nn.Linear` or `nn.Conv` before it, also through an average
    pool without padding; without one it becomes a layer that scales and shifts channels. Sequences
    in sequences become one and stacked blocks several, so layers may have other names in taps.

    Args:
        net: network of layers in `nn.Sequential`, `nn.Residual`, `nn.Stacked` and `nn.StaticInput`.
        statistics: running statistics of training, `aux.statistics` or the `nn.State` itself.

    Raises:
        ValueError: the statistics are those of another network.

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.
    """
    statistics = network_statistics(net, statistics)
    return nn.replace(net, body=_without_norms(net.body, statistics))


def check_network(net: Any) -> None:
    """Refuses anything but an `nn.Network`.

    Raises:
        TypeError: no network.
    """
    if not isinstance(net, nn.Network):
        raise TypeError(
            f"conversion takes an nn.Network, got {shorten(net)}: nn.Network(body, input_shape)"
        )


def network_statistics(net: nn.Network, statistics: PyTree | None) -> PyTree:
    """Running statistics of a network, from an `nn.State`, a tree or, without a norm, None.

    Raises:
        TypeError: no network.
        ValueError: there are batch norms and no statistics, or those of another network.
    """
    check_network(net)
    expected = jax.eval_shape(lambda: net.initial_state(1)).statistics
    if statistics is None:
        if jax.tree.leaves(expected):
            raise ValueError(
                "this network has batch norms, whose running means and variances belong to the "
                "conversion: give statistics=state.statistics (aux.statistics of the last step)"
            )
        return expected
    statistics = statistics.statistics if isinstance(statistics, State) else statistics
    shapes = [jax.tree.map(lambda a: a.shape, tree) for tree in (statistics, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "the statistics do not fit this network: give those of its own training, "
            "state.statistics or aux.statistics"
        )
    return statistics


def _without_norms(layer: Any, statistics: PyTree) -> Any:
    if type(layer) is nn.Residual:
        parts = zip((layer.branch, layer.shortcut), statistics, strict=True)
        branch, shortcut = (_without_norms(part, own) for part, own in parts)
        return nn.replace(layer, branch=branch, shortcut=shortcut)
    entries = flatten(layer, statistics, "")
    if len(entries) == 1 and entries[0].layer is layer and not isinstance(layer, nn.BatchNorm):
        return layer
    parts = [(_without_norms(e.layer, e.statistics), e.static) for e in fold_norms(entries)]
    return joined(parts)


def fold_norms(entries: list[Entry]) -> list[Entry]:
    """Layers in sequence with each batch norm in the synapse before it, or as a `Scale`."""
    folded: list[Entry] = []
    for entry in entries:
        if not isinstance(entry.layer, nn.BatchNorm):
            folded.append(entry)
            continue
        factor, offset = _affine(entry.layer, entry.statistics)
        at = _synapse_before(folded)
        if at is None:
            folded.append(entry._replace(layer=Scale(factor, bias=offset), statistics=()))
        else:
            layer = rescaled(folded[at].layer, kernel=factor, bias=factor, offset=offset)
            folded[at] = folded[at]._replace(layer=layer)
    return folded


def _affine(norm: nn.BatchNorm, statistics: Any) -> tuple[Array, Array]:
    """Factor and offset per channel of a norm in evaluation."""
    scale, bias = (p[...].astype(statistics.var.dtype) for p in (norm.scale, norm.bias))
    factor = norm.gain * scale / jnp.sqrt(statistics.var + norm.epsilon)
    return factor, bias - factor * statistics.mean


def _synapse_before(entries: list[Entry]) -> int | None:
    """Position of the synapse whose channels are those of the last outputs."""
    for at in range(len(entries) - 1, -1, -1):
        layer = entries[at].layer
        if is_synapse(layer):
            return at
        # Means over pixels of one channel each, and of all of them: zeros of a padding would be
        # scaled, but not shifted.
        if not (is_global_pool(layer) or is_average_pool(layer, padded=False)):
            return None
    return None


def is_synapse(layer: Any) -> bool:
    """True for `nn.Linear` and `nn.Conv`, with their own kernel and no other's."""
    # Exact types: the kernel of a subclass is made from other parameters.
    return isinstance(layer, nn.Fold) and type(layer.function) in (nnx.Linear, Kernel)


def is_average_pool(layer: Any, *, padded: bool = True) -> bool:
    """True for `nn.AvgPool`; with `padded=False` only where no zeros enter the means."""
    function: Any = getattr(layer, "function", None)
    if getattr(function, "function", None) is not nn.AvgPool().function.function:
        return False
    padding = dict(function.options)["padding"]
    zeros = not isinstance(padding, str) and not any(map(sum, padding))
    return padded or padding == "VALID" or zeros


def is_global_pool(layer: Any) -> bool:
    """True for `nn.GlobalAvgPool`."""
    return getattr(layer, "function", None) is nn.GlobalAvgPool().function


def is_flatten(layer: Any) -> bool:
    """True for `nn.Flatten`."""
    return getattr(layer, "function", None) is nn.Flatten().function


def rescaled(
    synapse: nn.Fold, *, kernel: Any = 1.0, bias: Any = 1.0, offset: Any = None
) -> nn.Fold:
    """A copy of a synapse with other weights, `W' = kernel W`, `b' = bias b + offset`.

    Args:
        synapse: an `nn.Linear` or `nn.Conv`.
        kernel: factor of the weights, a number or one per output channel.
        bias: factor of the bias, likewise.
        offset: added to the bias, which a synapse without one gets; None adds nothing.
    """
    old: Any = synapse.function
    weights = _scaled(old.kernel[...], kernel)
    before = None if old.bias is None else old.bias[...]
    after = None if before is None else _scaled(before, bias)
    if offset is not None:
        rows = jnp.broadcast_to(wide_array(offset), weights.shape[-1:])
        after = rows if after is None else after + rows.astype(after.dtype)
    new = jax.eval_shape(lambda: _made(old, weights.shape, use_bias=after is not None))
    # Shapes alone come from the constructor: drawing weights to replace them would take time.
    new.function.kernel = nnx.Param(weights)
    if after is not None:
        new.function.bias = nnx.Param(after)
    return nn.replace(synapse, function=new.function)


def _scaled(array: Array, factor: Any) -> Array:
    wide = widen(array)
    return narrow(wide * jnp.asarray(factor).astype(wide.dtype), array.dtype)


def _made(old: Any, shape: tuple[int, ...], *, use_bias: bool) -> nn.Fold:
    """A synapse of the same kind, for its structure."""
    inputs, outputs = shape[-2:]
    if isinstance(old, nnx.Linear):
        return nn.Linear(inputs, outputs, use_bias=use_bias, rngs=nnx.Rngs(0))
    return nn.Conv(
        inputs * old.groups, outputs, kernel=shape[:-2], strides=old.strides, padding=old.padding,
        groups=old.groups, use_bias=use_bias, rngs=nnx.Rngs(0),
    )  # fmt: skip
