"""A trained network of activations as a network of integrate-and-fire neurons.

    thresholds = conversion.calibrate(net, batches, statistics=state.statistics)
    spiking = conversion.to_spiking(net, thresholds, statistics=state.statistics)
    logits = conversion.mean_outputs(spiking, images, timesteps=(8, 16, 32))

The rate of an integrate-and-fire neuron with reset by subtraction is its mean current, rounded to a
multiple of 1/T and bounded by 1: a clipped ReLU. The conversion therefore keeps the weights and
changes units only (`conversion.layers`): every activation becomes neurons of threshold 1 that fire
0 or 1, and the thresholds move into the weights.

    layer                                        becomes
    conversion.ReLU, ThresholdReLU, QCFS         nn.IF
    nn.Linear, nn.Conv                           the same, rescaled
    nn.BatchNorm                                 a part of the synapse before it, or a `Scale`
    nn.AvgPool, nn.GlobalAvgPool, nn.Flatten     the same
    nn.Residual, nn.Sequential, nn.StaticInput   the same, with converted parts
    nn.Stacked                                   its blocks, one after the other
    nn.Dropout                                   nothing
    a layer with a method `to_spiking`           its answer
    others                                       refused, with the reason and the cure
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax

from snnjax import nn, surrogate
from snnjax.conversion.activations import Activation, ReLU
from snnjax.conversion.folding import Entry, flatten, joined, network_statistics
from snnjax.conversion.layers import Plan, Units, convert_sequence
from snnjax.neurons import reset as resets
from snnjax.ops.arguments import check_choice, check_counts, check_flags
from snnjax.typing import PyTree

__all__ = ["OUTPUTS", "activation_names", "refuse_unconvertible", "to_spiking"]

OUTPUTS = "outputs"
"""Name of the threshold of the last layer, where it spikes."""

_SHIFTS = ("initial", "step", None)
_LAST = ("linear", "spiking")


def to_spiking(
    net: nn.Network,
    thresholds: Mapping[str, Any] | None = None,
    *,
    statistics: PyTree | None = None,
    reset: resets.Reset = resets.subtract,
    shift: str | None = "initial",
    timesteps: int | None = None,
    last: str = "linear",
    latency: bool = False,
    spike: surrogate.Surrogate = surrogate.arctan(),  # noqa: B008 (frozen)
) -> nn.Network:
    """A trained network with integrate-and-fire neurons in place of its activations.

        source    a_l = f(W_l a_{l-1} + b_l)
        spiking   v[t] = v[t-1] + W'_l s_{l-1}[t] + b'_l - s_l[t],     s_l[t] = [v >= 1]
                  W'_l = W_l theta_{l-1} / theta_l,    b'_l = b_l / theta_l
                  theta_l (mean of s_l) approaches a_l as 1/T, where a_l <= theta_l

    Inputs are the frames of the source at every timestep (`encoding.direct`), or spikes with the
    same mean, `jnp.sign(x) * encoding.poisson(key, jnp.abs(x), timesteps=T)`. Outputs are
    `[T, B, K]` in units of the source, and `readout.rate` of them its logits. The result is an
    `nn.Network` in the order of the source; `mean_outputs` evaluates it in memory that does not
    depend on T.

    The shift makes rates round to the nearest, not down, and reduces the squared error fourfold.
    As an initial membrane of half the threshold its charge is there from the first timestep on, so
    deeper layers respond earlier than with the same charge spread over the window: in networks of
    clipped activations the error is a third or less.

    Args:
        net: network of the layers in the table of this module, in evaluation mode.
        thresholds: theta by the names of the activations in taps (`activation_names`), from
            `calibrate` or `spiking_thresholds`; activations with a bound need none.
        statistics: running statistics of training, for networks with batch norm; `nn.State` or
            `aux.statistics`.
        reset: `neurons.reset.subtract` keeps the charge above the threshold, so that rates are
            exact up to 1/T (RMP-SNN); `neurons.reset.zero` loses it, and the error stays.
        shift: `"initial"`, half a threshold in the membrane at rest; `"step"`, threshold / (2 T)
            per timestep, as released by Deng and Gu; None, neither, nor the shift that a
            `ThresholdReLU(timesteps=)` was trained with, for which the loss by rounding stands.
        timesteps: number T, for `shift="step"` only.
        last: `"linear"`, the last synapse gives its currents; `"spiking"`, neurons of threshold
            `thresholds["outputs"]` follow it, and negative logits become 0.
        latency: neurons fire on the membrane of the step before, strictly above the threshold: each
            layer answers one timestep late (`neurons.integrate_fire_model`).
        spike: spike function, for further training.

    Raises:
        TypeError: no `nn.Network`.
        ValueError: a layer that does not convert; a missing, unknown, zero or NaN threshold;
            missing statistics; `shift="step"` without `timesteps`.

    Reference:
        Deng, Gu, "Optimal Conversion of Conventional Artificial Neural Networks to Spiking Neural
        Networks", 2021, arXiv:2103.00476. Initial membrane and quantised activations: Bu, Fang,
        Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency
        Spiking Neural Networks", 2022, arXiv:2303.04347. Reset by subtraction: Han, Srinivasan,
        Roy, "RMP-SNN: Residual Membrane Potential Neuron for Enabling Deeper High-Accuracy and
        Low-Latency Spiking Neural Network", 2020, arXiv:2003.01811.
    """
    check_choice("conversion.to_spiking", choices=_SHIFTS, shift=shift)
    check_choice("conversion.to_spiking", choices=_LAST, last=last)
    check_flags("conversion.to_spiking", latency=latency)
    if (shift == "step") != (timesteps is not None):
        raise ValueError(
            'the shift per step is a share 1 / (2 T) of the threshold: give shift="step" and '
            "timesteps=T together, or neither"
        )
    if timesteps is not None:
        check_counts("conversion.to_spiking", timesteps=timesteps)
    statistics = network_statistics(net, statistics)
    # First: a missing threshold is of no interest where a layer has to be trained anew.
    refuse_unconvertible(net, statistics)
    entries = flatten(net.body, statistics, "")
    thresholds = dict(thresholds or {})
    _check_names(thresholds, {*activation_names(net), OUTPUTS})
    if last == "spiking":
        entries.append(Entry(OUTPUTS, ReLU()))
    options = {"reset": reset, "latency": latency, "spike": spike}
    neuron = functools.partial(nn.IF, initial=0.5 if shift == "initial" else 0.0, **options)
    plan = Plan(
        thresholds,
        neuron,
        step_shift=1 / (2 * timesteps) if timesteps else 0.0,
        keep_shift=shift is not None,
    )
    layers, _ = convert_sequence(entries, plan, scale=1.0, end=Units())
    return nn.replace(net, body=joined(layers))


def refuse_unconvertible(net: nn.Network, statistics: PyTree) -> None:
    """Refuses networks with a layer that does not convert, whatever their thresholds.

    Args:
        net: the source.
        statistics: its running statistics.

    Raises:
        ValueError: a layer does not convert; the message names it and the cure.
    """
    plan = Plan(dict.fromkeys(activation_names(net), 1.0), nn.IF)

    def converted(net: nn.Network, statistics: PyTree) -> nn.Sequential:
        entries = flatten(net.body, statistics, "")
        return joined(convert_sequence(entries, plan, scale=1.0, end=Units())[0])

    # Abstractly: no weight is multiplied.
    jax.eval_shape(converted, net, statistics)


def activation_names(net: nn.Network) -> dict[str, Activation]:
    """The activations of a network by their names in taps, in order.

    Args:
        net: network of layers in the table of this module.
    """
    statistics = net.initial_state(1).statistics
    return dict(_activations(flatten(net.body, statistics, "")))


def _activations(entries: list[Entry]) -> list[tuple[str, Activation]]:
    found: list[tuple[str, Activation]] = []
    for name, layer, statistics, _ in entries:
        if isinstance(layer, Activation):
            found.append((name, layer))
        if type(layer) is nn.Residual:
            pairs = (("branch", layer.branch), ("shortcut", layer.shortcut))
            for (key, part), own in zip(pairs, statistics, strict=True):
                found += _activations(flatten(part, own, f"{name}/{key}"))
    return found


def _check_names(thresholds: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(thresholds) - known)
    if unknown:
        raise ValueError(
            f"thresholds name {unknown}, and this network has the activations {sorted(known)}: "
            "take them from conversion.calibrate(net, batches) of the same network"
        )
