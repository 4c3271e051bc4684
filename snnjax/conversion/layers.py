"""Rules by which the layers of a source network become layers of a spiking one.

Spikes are 0 or 1 and thresholds are 1. The units of an activation therefore differ between the two
networks, and each connection carries them:

    source value = scale * (value - offset)             `Units`

Neurons of threshold theta give `Units(theta)`, and want currents in `Units(theta)`, too. A synapse
takes inputs in any units and gives outputs in those that the next neurons want: its kernel is
multiplied by theta before / theta behind, its bias by 1 / theta behind. Pools and reshapes pass
units on; where nothing else can change them, a `Scale` does.

A layer of your own takes part by a method `to_spiking(request: Request) -> Converted`, an
activation of your own by inheriting from `activations.Activation`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from snnjax import nn
from snnjax.conversion.activations import Activation
from snnjax.conversion.folding import (
    Entry,
    Scale,
    flatten,
    fold_norms,
    is_average_pool,
    is_flatten,
    is_global_pool,
    is_synapse,
    joined,
    rescaled,
)
from snnjax.ops.arguments import is_traced
from snnjax.typing import PyTree

__all__ = ["Converted", "Plan", "Request", "Units"]

_CURES = {
    "maxpool": "the maximum of spikes is not that of their rates: train with nn.AvgPool",
    "groupnorm": "it divides by the deviation of each example, which spikes do not carry: train "
    "with nn.BatchNorm, whose running statistics fold into the weights",
    "scaled_conv": "its kernel is made from other parameters: train with nn.Conv",
    "softmax": "rates of spikes are not normalised: leave it out, a loss and an argmax take logits",
    "relu": "as a plain function it has no threshold: use conversion.ReLU()",
    "attention": "a product of activations is none of their rates: train a spiking network with "
    "nn.SpikingSelfAttention directly",
    "neurons": "it spikes already: build the source with an activation, neuron=conversion.ReLU",
    "blocks": "its blocks share one program: build them with nn.Sequential and nn.Residual",
    "smooth": "it is no rate of integrate-and-fire neurons: train with conversion.ReLU() or "
    "conversion.QCFS()",
    "unknown": "there is no rule for it: give it a method to_spiking(request), see "
    "conversion.layers",
}
# Kinds of layers that are refused, by the names of their classes and functions.
_KINDS = {
    "maxpool": "maxpool", "max_pool": "maxpool",
    "groupnorm": "groupnorm", "layernorm": "groupnorm",
    "scaled_conv": "scaled_conv", "sub_bit_conv": "scaled_conv", "SharedScale": "scaled_conv",
    "softmax": "softmax", "log_softmax": "softmax", "relu": "relu",
    "ASA": "attention", "MA": "attention", "ChannelMask": "attention",
    "MALIF": "neurons", "Neuron": "neurons", "Recurrent": "neurons", "Disabled": "neurons",
    "PSN": "neurons", "SlidingPSN": "neurons", "ResetFreeLIF": "neurons", "RateNeuron": "neurons",
    "Reversible": "blocks", "Columns": "blocks", "Shared": "blocks",
    "Grouped": "blocks",
    "tanh": "smooth", "sigmoid": "smooth", "gelu": "smooth", "silu": "smooth", "elu": "smooth",
    "leaky_relu": "smooth", "softplus": "smooth",
}  # fmt: skip


class Units(NamedTuple):
    """Units of an activation in the spiking network, source value = scale * (value - offset)."""

    scale: Any = 1.0
    offset: Any = 0.0


class Converted(NamedTuple):
    """Answer to a `Request`.

    Attributes:
        layer: layer of the spiking network; None for no layer.
        units: units of its outputs.
    """

    layer: Any
    units: Units


@dataclasses.dataclass(frozen=True)
class Plan:
    """Decisions that hold for a whole network.

    Attributes:
        thresholds: threshold of the neurons, by the name of the activation that they replace.
        neuron: `() -> layer` of neurons of threshold 1.
        step_shift: current that is added at every timestep, as a share of the threshold.
        keep_shift: keeps the shift that an activation was trained with.
        units: units of the currents by name, made once.
    """

    thresholds: Mapping[str, Any]
    neuron: Callable[[], nn.Neuron]
    step_shift: float = 0.0
    keep_shift: bool = True
    units: dict[str, Units] = dataclasses.field(default_factory=dict)

    def threshold(self, name: str, layer: Activation) -> Any:
        """Threshold of the neurons in place of an activation.

        Raises:
            ValueError: there is none, or it is no positive number.
        """
        found = self.thresholds.get(name, layer.bound())
        if found is None:
            raise ValueError(
                f"{name} has no threshold: give thresholds=conversion.calibrate(net, batches)"
            )
        if is_traced(found):
            return found
        # NumPy: under a trace the functions of JAX would make known numbers unknown.
        number = np.asarray(found)
        number = number.astype(np.promote_types(number.dtype, np.float32))
        if number.ndim or not (np.isfinite(number) and number > 0):
            raise ValueError(
                f"the threshold of {name} must be one positive number, got {found}: no input of "
                "the calibration made this layer active, so calibrate on other or more inputs, at "
                "a higher percentile"
            )
        # Numbers stay numbers: they are constants of the network, arrays are measured or trained.
        return found if isinstance(found, int | float) else number

    def currents(self, name: str, layer: Activation) -> Units:
        """Units in which the neurons in place of an activation want their currents."""
        # One object per layer: units of equal values, but of two layers, are not the same.
        if name not in self.units:
            theta = self.threshold(name, layer)
            shift = layer.shift() / theta if self.keep_shift and layer.shift() else 0.0
            self.units[name] = Units(theta, self.step_shift - shift)
        return self.units[name]


@dataclasses.dataclass(frozen=True)
class Request:
    """The facts that a layer needs to become one of a spiking network.

    Attributes:
        name: name of the layer in the taps of the source network.
        scale: units of the inputs, source inputs = scale * inputs.
        wanted: units in which the next layer wants the outputs; None for any. A layer that cannot
            give them answers with its own.
        statistics: running statistics of the layer.
        plan: decisions for the whole network.
    """

    name: str
    scale: Any
    wanted: Units | None
    statistics: PyTree
    plan: Plan


def convert(layer: Any, request: Request) -> Converted:
    """The layer of the spiking network in place of one of the source.

    Raises:
        ValueError: the layer does not convert; the message names it and the cure.
    """
    own = getattr(layer, "to_spiking", None)
    return _rule(layer, request) if own is None else own(request)


@functools.singledispatch
def _rule(layer: Any, request: Request) -> Converted:
    raise ValueError(_refusal(layer, request.name))


@_rule.register
def _activation(layer: Activation, request):
    theta = request.plan.currents(request.name, layer).scale
    return Converted(request.plan.neuron(), Units(theta))


@_rule.register
def _fold(layer: nn.Fold, request):
    if is_synapse(layer):
        scale, offset = request.wanted or Units()
        # Where the shift is zero, a synapse without a bias stays one.
        added = None if isinstance(offset, float) and offset == 0 else offset
        new = rescaled(layer, kernel=request.scale / scale, bias=1 / scale, offset=added)
        return Converted(new, Units(scale, offset))
    if not _passes_units(layer):
        raise ValueError(_refusal(layer, request.name))
    return Converted(layer, Units(request.scale))


@_rule.register
def _dropout(layer: nn.Dropout, request):
    del layer
    # A mask would silence neurons of the spiking network, whose rates it no longer regularises.
    return Converted(None, Units(request.scale))


@_rule.register
def _scale(layer: Scale, request):
    scale, offset = request.wanted or Units()
    factor, bias = (param[...] for param in (layer.scale, layer.bias))
    new = Scale(factor * (request.scale / scale), bias=bias / scale + offset)
    return Converted(new, Units(scale, offset))


@_rule.register
def _residual(layer: nn.Residual, request):
    # A subclass joins by another function: products of rates are not rates of products.
    if type(layer) is not nn.Residual:
        raise ValueError(_refusal(layer, request.name))
    # A sum needs both parts in one unit; the offset of the sum is that of one of them.
    units = request.wanted or Units()
    ends = (units, Units(units.scale))
    parts = []
    pairs = (("branch", layer.branch), ("shortcut", layer.shortcut))
    for (key, part), own, end in zip(pairs, request.statistics, ends, strict=True):
        entries = flatten(part, own, f"{request.name}/{key}")
        parts.append(convert_sequence(entries, request.plan, scale=request.scale, end=end)[0])
    new = nn.Residual(joined(parts[0]), shortcut=joined(parts[1]))
    return Converted(new, units)


def convert_sequence(
    entries: list[Entry], plan: Plan, *, scale: Any, end: Units | None
) -> tuple[list[tuple[Any, bool]], Units]:
    """Layers of the spiking network in place of layers in sequence.

    Args:
        entries: layers of the source; their batch norms are folded here.
        plan: decisions for the whole network.
        scale: units of the inputs.
        end: units of the last outputs; None for any.

    Returns:
        Pairs of a layer and True if it stands within `nn.StaticInput`; units of the last outputs.
    """
    entries, layers, units = fold_norms(entries), [], Units(scale)
    constant = True

    def add(layer: Any, static: bool) -> None:
        nonlocal constant
        # Behind neurons nothing is equal at all timesteps.
        constant = constant and not _has_neurons(layer)
        layers.append((layer, static and constant))

    for at, entry in enumerate(entries):
        if isinstance(entry.layer, Activation):
            wanted = plan.currents(entry.name, entry.layer)
            if (adapter := _adapter(units, wanted)) is not None:
                add(adapter, entry.static)
        wants = _wanted(entries[at + 1 :], plan, end)
        request = Request(entry.name, units.scale, wants, entry.statistics, plan)
        layer, units = convert(entry.layer, request)
        if layer is not None:
            add(layer, entry.static)
    if end is not None and (adapter := _adapter(units, end)) is not None:
        add(adapter, False)
        units = end
    return layers, units


def _wanted(following: list[Entry], plan: Plan, end: Units | None) -> Units | None:
    """Units that the next layer which does not pass them on wants."""
    pooled = False
    for entry in following:
        if isinstance(entry.layer, Activation):
            wanted = plan.currents(entry.name, entry.layer)
            # Zeros of a padding would dilute an offset.
            return Units(wanted.scale) if pooled else wanted
        if not _passes_units(entry.layer):
            return None
        pooled = pooled or not isinstance(entry.layer, nn.Dropout)
    return end if end is None or not pooled else Units(end.scale)


def _passes_units(layer: Any) -> bool:
    pools = is_average_pool(layer) or is_global_pool(layer) or is_flatten(layer)
    return pools or isinstance(layer, nn.Dropout)


def _adapter(units: Units, wanted: Units) -> Scale | None:
    """Layer from units to others; None where they are equal."""
    if all(_equal(a, b) for a, b in zip(units, wanted, strict=True)):
        return None
    factor = units.scale / wanted.scale
    return Scale(factor, bias=wanted.offset - factor * units.offset)


def _equal(a: Any, b: Any) -> bool:
    # Only constants compare by value: a network has the same layers whatever was measured.
    return a is b or (isinstance(a, int | float) and isinstance(b, int | float) and a == b)


def _has_neurons(layer: Any) -> bool:
    return any(isinstance(module, nn.Neuron) for _, module in nnx.iter_modules(layer))


def _refusal(layer: Any, name: str) -> str:
    """Message of a layer that does not convert, with the cure."""
    function = getattr(layer, "function", None)
    inner = getattr(function, "function", function)
    keys = (
        *(kind.__name__ for kind in type(layer).__mro__),
        getattr(layer, "name", ""),
        getattr(inner, "__name__", type(inner).__name__),
    )
    kind = next((_KINDS[key] for key in keys if key in _KINDS), "unknown")
    shown = f"{type(layer).__name__} ({keys[-1]})" if kind == "unknown" else type(layer).__name__
    return f"{name or 'the body'} ({shown}) does not convert: {_CURES[kind]}"
