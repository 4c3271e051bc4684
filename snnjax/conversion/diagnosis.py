"""The error of a conversion, layer by layer: the layer and the cause that cost the accuracy.

With a the activation of the source, z its input, r the firing rate in the spiking network, theta
the threshold, and the rate of neurons that get the constant current z / theta,

    R(z) = clip(floor(T (z / theta + offset) + v[0]), 0, T) / T

where `v[0]` is the initial membrane and `offset` the shift per step, the error of a layer is a sum:

    theta r - a  =  clip(a, 0, theta) - a           clipping: activations above the threshold
                 +  theta R(z) - clip(a, 0, theta)  quantization: rates are multiples of 1 / T
                 +  theta (R(z') - R(z))            inherited: the mean current z' has the errors of
                                                    the layers before
                 +  theta (r - R(z'))               unevenness: the same spikes at other times

Unevenness is also the charge that a hard reset loses, and the time lost by `latency`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from snnjax import nn
from snnjax.conversion.folding import network_statistics
from snnjax.conversion.layers import Plan
from snnjax.conversion.simulation import accumulate
from snnjax.conversion.spiking import activation_names, to_spiking
from snnjax.ops.arguments import as_floating, check_counts
from snnjax.typing import Array, PyTree

__all__ = ["LayerError", "layer_errors"]


class LayerError(NamedTuple):
    """Error of one layer, as means of magnitudes over examples and neurons, in units of the source.

    The parts add up with their signs, so the mean magnitudes add up to at least `total`.

    Attributes:
        name: name of the activation in the source.
        threshold: threshold theta of the neurons.
        activation: mean of |a|, to compare with.
        total: mean of |theta r - a|.
        clipping: mean of |clip(a, 0, theta) - a|.
        quantization: mean of |theta R(z) - clip(a, 0, theta)|.
        inherited: mean of |theta (R(z') - R(z))|.
        unevenness: mean of |theta (r - R(z'))|.
    """

    name: str
    threshold: float
    activation: float
    total: float
    clipping: float
    quantization: float
    inherited: float
    unevenness: float


def layer_errors(
    net: nn.Network,
    inputs: Array,
    *,
    timesteps: int,
    thresholds: Mapping[str, Any] | None = None,
    statistics: PyTree | None = None,
    shift: str | None = "initial",
    **options: Any,
) -> list[LayerError]:
    """Errors of a converted network by layer and cause, on one batch of constant inputs.

    The equations are those of the module `conversion.diagnosis`.

    Args:
        net: the source.
        inputs: examples `[B, *input_shape]`, constant over time.
        timesteps: number T of timesteps.
        thresholds: as for `to_spiking`.
        statistics: as for `to_spiking`.
        shift: as for `to_spiking`.
        options: further options of `to_spiking`.

    Returns:
        One record per activation, in order.

    Raises:
        ValueError: as `to_spiking`.

    Reference:
        The three causes: Bu, Fang, Ding, Dai, Yu, Huang, "Optimal ANN-SNN Conversion for
        High-accuracy and Ultra-low-latency Spiking Neural Networks", 2022, arXiv:2303.04347. The
        inherited part is split from their unevenness here.
    """
    check_counts("conversion.layer_errors", timesteps=timesteps)
    statistics = network_statistics(net, statistics)
    step = {"timesteps": timesteps} if shift == "step" else {}
    shared: dict[str, Any] = {"thresholds": thresholds, "statistics": statistics, "shift": shift}
    spiking = to_spiking(net, **shared, **step, **options)
    plan = Plan(thresholds or {}, nn.IF, step_shift=0.5 / timesteps if step else 0.0,
                keep_shift=shift is not None)  # fmt: skip
    layers = activation_names(net)
    units = {name: tuple(plan.currents(name, layer)) for name, layer in layers.items()}
    start = 0.5 if shift == "initial" else 0.0
    inputs = as_floating("conversion.layer_errors", inputs)

    @jax.jit
    def errors(net, spiking, statistics, units, inputs):
        state = net.initial_state(inputs.shape[0], statistics=statistics)
        _, aux = net(inputs[None], state, training=False, taps=("spikes", "currents"))
        sums = accumulate(
            spiking, inputs, timesteps, ("spikes", "currents"), lambda _, total, x: total + x
        )
        # Both networks have their layers in one order, under other names. Neurons of
        # `last="spiking"` come last and stand for no activation.
        return {
            name: _parts(aux.taps[name], units[name], timesteps, start, **own)
            for name, own in zip(layers, sums.values(), strict=False)
        }

    found = jax.device_get(errors(net, spiking, statistics, units, inputs))
    return [LayerError(name, *map(float, found[name])) for name in layers]


def _parts(taps, units, timesteps, start, *, spikes, currents):
    """Numbers of a `LayerError` behind its name, from sums over time."""
    theta, offset = units
    a, z = taps["spikes"][0], taps["currents"][0]
    theta = jnp.asarray(theta, a.dtype)

    def rate(charge):
        return theta * jnp.clip(jnp.floor(charge + start), 0, timesteps) / timesteps

    clipped = jnp.clip(a, 0, theta)
    ideal, given = rate(timesteps * (z / theta + offset)), rate(currents)
    fired = theta * spikes / timesteps
    parts = (a, fired - a, clipped - a, ideal - clipped, given - ideal, fired - given)
    return (theta, *(jnp.mean(jnp.abs(part)) for part in parts))
