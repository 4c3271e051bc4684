"""Sums of spikes and histograms over the batches of a data set, exact because they are counts.

Tapped spikes `[T, B, ...]` are summed over the examples, and time remains the first axis. (The
released code of the paper reshapes `[T, B, ...]` to `[B, T, ...]` without a transpose, which mixes
timesteps and examples in its pictures.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.redundancy._histogram import Bins, count
from snnjax.typing import Array

__all__ = ["TAPS", "Sums", "add", "measure"]

TAPS = ("spikes", "currents", "membrane", "threshold")
"""Taps to request from a network for `measure`."""


class Sums(NamedTuple):
    """Sums of one layer over a set of examples.

    Attributes:
        examples: Number of examples.
        spikes: Spikes at each position and timestep, `[T, ..., C]`.
        analog: True if any output was neither 0 nor 1, so that the layer does not spike.
        currents: Counts of the input currents after attention, `[len(bins)]`.
        membrane: Counts of the membrane potentials after the reset, `[len(bins)]`.
        unit: Mean threshold; 1 if the neurons have no known threshold.
        threshold: True if the neurons have a known threshold.
    """

    examples: Any
    spikes: Any
    analog: Any
    currents: Any
    membrane: Any
    unit: Any
    threshold: Any


def measure(
    taps: Mapping[str, Mapping[str, Array]],
    *,
    weights: Array | None = None,
    bins: Bins = Bins(),  # noqa: B008 (frozen)
) -> dict[str, Sums]:
    """Sums one batch; a pure function, to be jitted together with the network.

    Args:
        taps: `aux.taps` of a call with `taps=TAPS`.
        weights: Weights of the examples, `[B]`: 1, or 0 for padding; None is all 1.
        bins: Bins of the histograms of currents and membrane potentials.

    Returns:
        Sums by layer.

    Raises:
        ValueError: The taps of a layer lack its currents or membrane potentials.
    """
    neurons = {name: kinds for name, kinds in taps.items() if "spikes" in kinds}
    missing = {kind for kinds in neurons.values() for kind in TAPS[:3] if kind not in kinds}
    if missing:
        raise ValueError(f"the taps hold no {sorted(missing)}: ask for taps=redundancy.TAPS")
    return {name: _layer(kinds, weights, bins) for name, kinds in neurons.items()}


def add(total: Mapping[str, Sums] | None, part: Mapping[str, Sums]) -> dict[str, Sums]:
    """Adds the sums of a batch to the running total, on the host.

    Args:
        total: Total of the previous batches; None before the first one.
        part: Sums of one batch, from `measure` on the same network.

    Returns:
        The new total by layer, in 64-bit integers.

    Raises:
        ValueError: The layers of `part` differ from those of `total`.
    """
    new = {name: _to_int64(sums) for name, sums in jax.device_get(dict(part)).items()}
    if total is None:
        return new
    if set(total) != set(new):
        raise ValueError(f"sums of {sorted(total)} and of {sorted(new)}: add those of one network")
    return {name: _add_layer(total[name], sums) for name, sums in new.items()}


def _layer(kinds: Mapping[str, Array], weights: Array | None, bins: Bins) -> Sums:
    spikes = kinds["spikes"]
    weights = jnp.ones(spikes.shape[1]) if weights is None else weights
    counted = (weights != 0).reshape(-1, *(1,) * (spikes.ndim - 2))
    threshold = kinds.get("threshold", jnp.ones((1,) * spikes.ndim))
    unit = jnp.mean(jnp.abs(threshold.astype(jnp.float32)))
    # The bins divide by the unit: thresholds of zero fall back on a unit of 1.
    unit = jnp.where(unit > 0, unit, 1)
    potentials = [kinds[kind].astype(jnp.float32) for kind in ("currents", "membrane")]
    # Coupled neurons share one membrane, so it has fewer channels than the thresholds: it is
    # compared with the first of them.
    thresholds = [threshold[..., : v.shape[-1]].astype(jnp.float32) for v in potentials]
    pairs = zip(potentials, thresholds, strict=True)
    currents, membrane = (count(v, t, unit, weights, bins) for v, t in pairs)
    return Sums(
        examples=jnp.sum(weights != 0),
        # Padding is masked before the sum, so that integer counts remain exact.
        spikes=jnp.sum((spikes != 0) & counted, axis=1, dtype=jnp.int32),
        analog=jnp.any((spikes != 0) & (spikes != 1) & counted),
        currents=currents,
        membrane=membrane,
        unit=unit,
        threshold=jnp.asarray("threshold" in kinds),
    )


def _to_int64(sums: Sums) -> Sums:
    # int32 counts of one batch would overflow over a data set, and JAX has no int64 by default.
    wide = lambda leaf: np.asarray(leaf).astype(np.int64)  # noqa: E731
    return sums._replace(
        examples=int(sums.examples),
        spikes=wide(sums.spikes),
        currents=wide(sums.currents),
        membrane=wide(sums.membrane),
    )


def _add_layer(a: Sums, b: Sums) -> Sums:
    # `unit` and `threshold` are properties of the network, not sums.
    return b._replace(
        examples=a.examples + b.examples,
        spikes=a.spikes + b.spikes,
        analog=a.analog | b.analog,
        currents=a.currents + b.currents,
        membrane=a.membrane + b.membrane,
    )
