"""Firing rates, in spikes per neuron and timestep, of layers and of a whole network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from snnjax.metrics.average import weighted_mean
from snnjax.typing import Array

__all__ = ["firing_rates", "nasfr"]


def firing_rates(
    taps: Mapping[str, Array | Mapping[str, Array]], *, weights: Array | None = None
) -> dict[str, Array]:
    """Mean firing rate of each layer, from the taps of a forward pass.

        r = 1/(T N sum_b w[b]) sum over t, b, i of w[b] s[t, b, i]

    A rate of 0 marks a dead layer; near 1 a layer fires always and its timing carries no
    information.

    Args:
        taps: Layer name -> spikes `[T, B, ...]`, or a mapping with the entry "spikes"; layers
            without spikes are ignored. Empty taps give an empty result.
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        Layer name -> scalar, float32, in spikes per neuron and timestep; the order of `taps`.

    Raises:
        ValueError: If no layer taps spikes, or spikes have fewer than two axes.

    Example:
        >>> outputs, aux = net(frames, state, training=False, taps=("spikes",))
        >>> firing_rates(aux.taps)
        {'lif2': Array(0.11, dtype=float32), 'lif5': Array(0.07, dtype=float32)}
    """
    spikes = {}
    for name, tap in taps.items():
        if not isinstance(tap, Mapping):
            spikes[name] = tap
        elif "spikes" in tap:
            spikes[name] = tap["spikes"]
    if taps and not spikes:
        raise ValueError(
            f"no layer of {sorted(taps)} taps its spikes: ask the network for taps=('spikes',)"
        )
    return {name: _firing_rate(name, train, weights) for name, train in spikes.items()}


def nasfr(rates: Mapping[str, Any], neurons: Mapping[str, int]) -> Any:
    """Network average spiking firing rate: the mean over all neurons of all layers.

        NASFR = sum_l r_l N_l / sum_l N_l = spikes / (T examples sum_l N_l)

    Unlike a mean of layer rates, it weighs layers by their number of neurons. Layers whose outputs
    are not spikes have no rate and are left out.

    Args:
        rates: Layer name -> spikes per neuron and timestep, see `firing_rates`.
        neurons: Layer name -> number of neurons.

    Returns:
        Spikes per neuron and timestep, of the type of the rates.

    Raises:
        ValueError: If there are no layers, or the two mappings name different ones.

    Reference:
        Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks", ICCV
        2023, arXiv:2308.08227 (as defined in its released code).

    Example:
        >>> nasfr({"conv": 0.1, "head": 0.4}, {"conv": 300, "head": 100})
        0.175
    """
    if set(rates) != set(neurons) or not rates:
        raise ValueError(
            f"rates of {sorted(rates)} and neurons of {sorted(neurons)}: give the same layers in "
            "both, those that spike, and at least one"
        )
    return sum(rates[name] * float(neurons[name]) for name in rates) / float(sum(neurons.values()))


def _firing_rate(name: str, spikes: Array, weights: Array | None) -> Array:
    spikes = jnp.asarray(spikes)
    if spikes.ndim < 2:
        raise ValueError(f"spikes of {name!r} must be [T, B, ...], got {list(spikes.shape)}")
    # Per example first: the mean over the batch is weighted.
    axes = (0, *range(2, spikes.ndim))
    return weighted_mean(jnp.mean(spikes, axis=axes, dtype=jnp.float32), weights)
