"""Thresholds of a spiking network: statistics of the source, or of the spiking network itself.

    calibrate             maxima or percentiles of the source's activations, one pass
    spiking_thresholds    maxima of the currents, layer by layer, with the layers before it spiking

A threshold at the largest activation loses nothing above it, and a few large ones make every rate
small; a percentile clips them. Activations with a bound (`ThresholdReLU`, `QCFS`) need neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from snnjax import nn
from snnjax.conversion.folding import network_statistics
from snnjax.conversion.simulation import accumulate
from snnjax.conversion.spiking import (
    OUTPUTS,
    activation_names,
    refuse_unconvertible,
    to_spiking,
)
from snnjax.nn.taps import in_order
from snnjax.ops.arguments import as_floating, check_counts, check_numbers, shorten
from snnjax.typing import Array, PyTree

__all__ = ["calibrate", "spiking_thresholds"]


def calibrate(
    net: nn.Network,
    batches: Iterable[Array],
    *,
    statistics: PyTree | None = None,
    percentile: float = 100.0,
) -> dict[str, Array]:
    """Thresholds from the activations of the source on examples, for `to_spiking`.

        theta_l = max over batches of max a_l             percentile=100
        theta_l = mean over batches of percentile(a_l)    else

    A percentile is that of all activations of a layer in a batch, zeros included.

    Args:
        net: the source.
        batches: batches of training inputs `[B, *input_shape]`, as the network takes them.
        statistics: running statistics of training, for networks with batch norm.
        percentile: in (0, 100]; 99.9 is usual for networks of ReLUs.

    Returns:
        Thresholds by the names of the activations, and the largest logit as `"outputs"`, for
        `to_spiking(last="spiking")`.

    Raises:
        ValueError: no batch; missing statistics; a percentile out of range; a layer that does not
            convert.

    Reference:
        Diehl, Neil, Binas, Cook, Liu, Pfeiffer, "Fast-classifying, high-accuracy spiking deep
        networks through weight and threshold balancing", IJCNN 2015 (maxima). Rueckauer, Lungu, Hu,
        Pfeiffer, Liu, "Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven
        Networks for Image Classification", Frontiers in Neuroscience, 2017 (percentiles).
    """
    check_numbers("conversion.calibrate", above=0, most=100, percentile=percentile)
    # Before the pass over the examples, which may take long.
    refuse_unconvertible(net)
    statistics = network_statistics(net, statistics)
    # Arguments, not closures: weights in a closure would become constants of the program.
    run = jax.jit(_activations, static_argnames="percentile")
    total: dict[str, Array] = {}
    count = 0
    for batch in batches:
        inputs = as_floating("conversion.calibrate", _only_inputs(batch))
        found = run(net, statistics, inputs, percentile=percentile)
        combine = jnp.maximum if percentile == 100 else jnp.add
        total = jax.tree.map(combine, total, found) if total else found
        count += 1
    if not count:
        raise ValueError("calibration needs at least one batch of training inputs: got none")
    share = 1 if percentile == 100 else count
    return in_order({name: value / share for name, value in total.items()})


def spiking_thresholds(
    net: nn.Network,
    inputs: Array,
    *,
    timesteps: int | None = None,
    statistics: PyTree | None = None,
    percentile: float = 100.0,
    scale: float = 1.0,
    **options: Any,
) -> dict[str, Array]:
    """Thresholds from the currents of the spiking network, layer by layer.

        theta_l = max over t of percentile(W_l theta_{l-1} s_{l-1}[t] + b_l)

    Layer l sees the spikes of the layers before it at their own, unscaled thresholds; layers behind
    it have no effect. Each layer takes one run of the network, which keeps a maximum and no
    timestep; they share one program.

    Args:
        net: the source.
        inputs: frames `[T, B, *input_shape]`, such as Poisson spikes; with `timesteps` one batch
            `[B, *input_shape]`, constant over time.
        timesteps: number T for a constant input; None takes frames.
        statistics: running statistics of training, for networks with batch norm.
        percentile: of the currents of one timestep, in (0, 100].
        scale: factor of all thresholds in the end; 0.7 in the released code for short windows.
        options: options of `to_spiking`, for the network that spikes here.

    Returns:
        Thresholds by the names of the activations.

    Reference:
        Sengupta, Ye, Wang, Liu, Roy, "Going Deeper in Spiking Neural Networks: VGG and Residual
        Architectures", 2019, arXiv:1802.02627; as used by Rathi, Srinivasan, Panda, Roy, "Enabling
        Deep Spiking Neural Networks with Hybrid Conversion and Spike Timing Dependent
        Backpropagation", 2020, arXiv:2005.01807, and for RMP-SNN, arXiv:2003.01811.
    """
    owner = "conversion.spiking_thresholds"
    check_numbers(owner, above=0, most=100, percentile=percentile)
    check_numbers(owner, above=0, scale=scale)
    statistics, names = network_statistics(net, statistics), list(activation_names(net))
    inputs = as_floating(owner, inputs)
    if timesteps is not None:
        check_counts(owner, timesteps=timesteps)

    @jax.jit
    def currents(net, statistics, inputs, thresholds, place):
        spiking = to_spiking(net, thresholds=thresholds, statistics=statistics, **options)

        def largest(own, peak, x):
            # A percentile sorts: only that of the layer in question.
            return jax.lax.cond(
                own == place, lambda: jnp.maximum(peak, _percentile(x, percentile)), lambda: peak
            )

        peaks = accumulate(spiking, inputs, timesteps, ("currents",), largest, reduced=True)
        return jnp.stack([kinds["currents"] for kinds in peaks.values()])[place]

    # At threshold 1 the currents of a layer are in units of the source.
    thresholds = dict.fromkeys(names, jnp.ones(()))
    for place, name in enumerate(names):
        thresholds[name] = currents(net, statistics, inputs, thresholds, place)
    return {name: value * scale for name, value in thresholds.items()}


def _activations(net, statistics, inputs, *, percentile):
    start = net.initial_state(inputs.shape[0], statistics=statistics)
    outputs, aux = net(inputs[None], start, training=False, taps=("spikes",))
    names = activation_names(net)
    found = {name: _percentile(aux.taps[name]["spikes"], percentile) for name in names}
    return found | {OUTPUTS: outputs.max()}


def _percentile(x: Array, percentile: float) -> Array:
    # A maximum needs no sorting.
    return x.max() if percentile == 100 else jnp.percentile(x, percentile)


def _only_inputs(batch: Any) -> Any:
    if isinstance(batch, tuple | list | dict):
        raise TypeError(
            f"calibration takes batches of inputs alone, got {shorten(batch)}: give "
            "(images for images, _ in batches)"
        )
    return batch
