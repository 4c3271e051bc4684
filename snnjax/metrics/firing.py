"""Firing rates: spikes per neuron and timestep, of layers and of the network as a whole."""

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
    """The mean firing rate of each layer, from the taps of a forward pass.

        r = 1/(T N sum_b w[b]) sum over t, b, i of w[b] s[t, b, i]

    A dead layer shows 0; near 1 a layer fires always and its timing says nothing.

    Args:
        taps: Layer name to spikes `[T, B, ...]`, or to a mapping that holds them as "spikes";
            layers that tap something else are left out. Empty taps give an empty result.
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.

    Returns:
        Layer name to a scalar, float32, spikes per neuron and timestep; the order of `taps`.

    Raises:
        ValueError: If no layer taps its spikes, or spikes have fewer than two axes.

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
    """The network average spiking firing rate: every neuron of every layer counts once.

        NASFR = sum_l r_l N_l / sum_l N_l = spikes / (T examples sum_l N_l)

    Unlike the mean of the layers' rates, a large layer weighs more than a small one. Layers whose
    outputs are no spikes have no rate and no part in it.

    Args:
        rates: Layer name to spikes per neuron and timestep, see `firing_rates`.
        neurons: Layer name to the number of its neurons.

    Returns:
        Spikes per neuron and timestep, a number of the kind that the rates are.

    Raises:
        ValueError: If there are no layers, or the two name different ones.

    Reference:
        Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks", ICCV
        2023, arXiv:2308.08227; the definition is that of its released code.

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
    axes = (0, *range(2, spikes.ndim))
    return weighted_mean(jnp.mean(spikes, axis=axes, dtype=jnp.float32), weights)
