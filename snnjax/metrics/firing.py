"""Firing rates in spikes per neuron and timestep, and sparsity: shares of zeros.

Reference for sparsity: Yik et al., "The neurobench framework for benchmarking neuromorphic
computing algorithms and systems", Nature Communications 2025, arXiv:2304.04640; the rules are those
of its released code (v2.3.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from snnjax.metrics.accuracy import example_weights, weighted_mean
from snnjax.ops.arguments import is_traced
from snnjax.ops.padding import mask, time_mean
from snnjax.typing import Array

__all__ = ["activation_sparsity", "connection_sparsity", "firing_rates", "nasfr"]


def firing_rates(
    taps: Mapping[str, Array | Mapping[str, Array]],
    *,
    weights: Array | None = None,
    lengths: Array | None = None,
) -> dict[str, Array]:
    """Mean firing rate of each layer, from the taps of a forward pass.

        r = 1/(T N sum_b w[b]) sum over t, b, i of w[b] s[t, b, i]

    A rate of 0 marks a dead layer; near 1 a layer fires always and its timing carries no
    information. A layer with an output other than 0 and 1, such as a leaky integrator, has no rate
    and is left out; in a compiled function, where values are unknown, its rate is NaN.

    Args:
        taps: Layer name -> spikes `[T, B, ...]`, or a mapping with the entry "spikes", or "rates"
            `[T, B]` beside "analog"; layers without them are ignored. Empty taps give an empty
            result.
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.
        lengths: `[B]` integers, valid timesteps of padded sequences, each in place of T; None is
            all T.

    Returns:
        Layer name -> scalar, float32, in spikes per neuron and timestep; the order of `taps`.

    Raises:
        ValueError: If no layer taps spikes, or spikes have fewer than two axes.

    Example:
        >>> outputs, aux = net(frames, state, training=False, taps=("spikes",))
        >>> firing_rates(aux.taps)
        {'lif2': Array(0.11, dtype=float32), 'lif5': Array(0.07, dtype=float32)}
    """
    rates = {}
    for name, tap in taps.items():
        kinds = tap if isinstance(tap, Mapping) else {"spikes": tap}
        if "spikes" in kinds:
            rates[name] = _firing_rate(name, kinds["spikes"], weights, lengths)
        elif "rates" in kinds:
            analog = jnp.any(_without_padding(kinds.get("analog", False), lengths))
            mean = weighted_mean(time_mean(kinds["rates"], lengths), weights)
            rates[name] = jnp.where(analog, jnp.nan, mean)
    if taps and not rates:
        raise ValueError(
            f"no layer of {sorted(taps)} taps its spikes: ask the network for taps=('spikes',)"
        )
    return {name: rate for name, rate in rates.items() if not _is_nan(rate)}


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
        ValueError: If there are no layers, the two mappings name different ones, or a rate is
            outside [0, 1].

    Reference:
        Yao, Hu, Zhao, Wang, Zhang, Xu, Li, "Inherent Redundancy in Spiking Neural Networks", ICCV
        2023, arXiv:2308.08227 (as defined in its released code).

    Example:
        >>> nasfr({"conv": 0.1, "head": 0.4}, {"conv": 300, "head": 100})
        0.175
    """
    _check_rates(rates)
    if set(rates) != set(neurons) or not rates:
        raise ValueError(
            f"rates of {sorted(rates)} and neurons of {sorted(neurons)}: give the same layers in "
            "both, those that spike, and at least one"
        )
    # By neurons: a mean of the layers' rates would weigh small layers like large ones.
    return sum(rates[name] * float(neurons[name]) for name in rates) / float(sum(neurons.values()))


def _firing_rate(name: str, spikes: Array, weights: Array | None, lengths: Array | None) -> Array:
    spikes = jnp.asarray(spikes)
    if spikes.ndim < 2:
        raise ValueError(f"spikes of {name!r} must be [T, B, ...], got {list(spikes.shape)}")
    # In float32: a 16-bit mean over many neurons would lose single spikes.
    spikes = spikes.astype(jnp.float32)
    # Per example first: the mean over the batch is weighted.
    if lengths is None:
        axes = (0, *range(2, spikes.ndim))
        rates = jnp.mean(spikes, axis=axes)
        binary = jnp.all((spikes == 0) | (spikes == 1), axis=axes)
    else:
        axes = tuple(range(2, spikes.ndim))
        rates = time_mean(jnp.mean(spikes, axis=axes), lengths)
        analog = jnp.any((spikes != 0) & (spikes != 1), axis=axes)
        binary = ~jnp.any(_without_padding(analog, lengths), axis=0)
    # Values of padding do not matter, also not here.
    weighed = example_weights(weights, spikes.shape[1:2]) != 0
    return jnp.where(jnp.all(binary | ~weighed), weighted_mean(rates, weights), jnp.nan)


def _without_padding(marks: Any, lengths: Array | None) -> Any:
    """Marks `[T, B]` of valid timesteps only."""
    return marks if lengths is None else marks & mask(lengths, len(marks))


def _is_nan(rate: Array) -> bool:
    """True if a rate is known to be NaN."""
    return not is_traced(rate) and bool(jnp.isnan(rate))


def _check_rates(rates: Mapping[str, Any]) -> None:
    """Refuses numbers that are no firing rates.

    Args:
        rates: Layer name -> spikes per neuron and timestep.

    Raises:
        ValueError: A known rate is outside [0, 1], or NaN.
    """
    for name, rate in rates.items():
        if not is_traced(rate) and not bool(np.all((rate >= 0) & (rate <= 1))):
            raise ValueError(
                f"a firing rate lies between 0 and 1 spikes per timestep, and {name!r} has "
                f"{float(np.max(rate)):.3g}: its outputs are not spikes, so leave it out, as "
                "metrics.firing_rates(aux.taps) does"
            )


def connection_sparsity(weights: Iterable[Array]) -> float:
    """Share of weights that are exactly zero, rounded to 4 decimals as NeuroBench does.

        zeros / weights,  over all arrays together

    Args:
        weights: Weights of linear maps, convolutions and recurrent layers, without biases and
            normalization parameters.

    Returns:
        A share in [0, 1].

    Raises:
        ValueError: If there are no weights.
    """
    # Counted by NumPy on the host, exact for any number of weights.
    arrays = [np.asarray(array) for array in weights]
    total = sum(array.size for array in arrays)
    if not total:
        raise ValueError("connection_sparsity needs at least one array of weights, got none")
    zeros = sum(array.size - int(np.count_nonzero(array)) for array in arrays)
    return round(zeros / total, 4)


def activation_sparsity(spikes: Iterable[Array]) -> float:
    """Share of zeros among the outputs of neurons, over all layers, timesteps and examples.

        1 - nonzero / outputs

    It weighs layers by their number of neurons: it is `1 - nasfr`, not one minus the mean rate.

    Args:
        spikes: Outputs of each layer, of any shape.

    Returns:
        A share in [0, 1]; 0 if there are no outputs.
    """
    arrays = [np.asarray(array) for array in spikes]
    total = sum(array.size for array in arrays)
    zeros = sum(array.size - int(np.count_nonzero(array)) for array in arrays)
    return zeros / total if total else 0.0
