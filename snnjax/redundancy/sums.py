"""What is summed up over the batches of a data set: counts, so that sums are exact.

Spikes come as they are tapped, `[T, B, ...]`, and are summed over the examples where they stand:
time stays the first axis. (The released code of the paper turns `[T, B, ...]` into `[B, T, ...]` by
reshaping it without a transpose, which mixes timesteps and examples in its pictures.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.redundancy.histogram import Bins, count
from snnjax.typing import Array

__all__ = ["TAPS", "Sums", "add", "measure"]

TAPS = ("spikes", "currents", "membrane", "threshold")
"""What to ask a network for."""


class Sums(NamedTuple):
    """Of one layer, over some examples.

    Attributes:
        examples: How many.
        spikes: `[T, ..., C]`, spikes at each place and timestep over all examples.
        analog: Whether any output was neither 0 nor 1: the layer does not spike.
        currents: `[len(bins)]`, counts of what comes in, after attention.
        membrane: `[len(bins)]`, counts of potentials after the reset.
        unit: The mean threshold; 1 where the neurons have none that is known.
        threshold: Whether they have one.
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
    """Sums up one batch; pure, to be jitted together with the network.

    Args:
        taps: `aux.taps` of a network that was asked for `TAPS`.
        weights: `[B]`, 1 for an example, 0 for padding; None is all 1.
        bins: Where currents and membranes are counted.

    Returns:
        By layer.

    Raises:
        ValueError: A layer shows its spikes but not its currents and membranes.
    """
    neurons = {name: kinds for name, kinds in taps.items() if "spikes" in kinds}
    missing = {kind for kinds in neurons.values() for kind in TAPS[:3] if kind not in kinds}
    if missing:
        raise ValueError(f"the taps hold no {sorted(missing)}: ask for taps=redundancy.TAPS")
    return {name: _layer(kinds, weights, bins) for name, kinds in neurons.items()}


def add(total: Mapping[str, Sums] | None, part: Mapping[str, Sums]) -> dict[str, Sums]:
    """Adds the sums of a batch to those before, on the host and in 64 bits.

    Args:
        total: What this function returned before; None before the first batch.
        part: From `measure`, of the same network.

    Raises:
        ValueError: The layers are others.
    """
    new = {name: _widened(sums) for name, sums in jax.device_get(dict(part)).items()}
    if total is None:
        return new
    if set(total) != set(new):
        raise ValueError(f"sums of {sorted(total)} and of {sorted(new)}: add those of one network")
    return {name: _added(total[name], sums) for name, sums in new.items()}


def _layer(kinds: Mapping[str, Array], weights: Array | None, bins: Bins) -> Sums:
    spikes = kinds["spikes"]
    weights = jnp.ones(spikes.shape[1]) if weights is None else weights
    counted = (weights != 0).reshape(-1, *(1,) * (spikes.ndim - 2))
    threshold = kinds.get("threshold", jnp.ones((1,) * spikes.ndim))
    unit = jnp.mean(jnp.abs(threshold.astype(jnp.float32)))
    unit = jnp.where(unit > 0, unit, 1)
    kept = [kinds[kind].astype(jnp.float32) for kind in ("currents", "membrane")]
    # Two coupled neurons have one membrane between them: it is held against their first threshold.
    held = [threshold[..., : v.shape[-1]].astype(jnp.float32) for v in kept]
    currents, membrane = (count(v, t, unit, weights, bins) for v, t in zip(kept, held, strict=True))
    return Sums(
        examples=jnp.sum(weights != 0),
        spikes=jnp.sum((spikes != 0) & counted, axis=1, dtype=jnp.int32),
        analog=jnp.any((spikes != 0) & (spikes != 1) & counted),
        currents=currents,
        membrane=membrane,
        unit=unit,
        threshold=jnp.asarray("threshold" in kinds),
    )


def _widened(sums: Sums) -> Sums:
    wide = lambda leaf: np.asarray(leaf).astype(np.int64)  # noqa: E731
    return sums._replace(
        examples=int(sums.examples),
        spikes=wide(sums.spikes),
        currents=wide(sums.currents),
        membrane=wide(sums.membrane),
    )


def _added(a: Sums, b: Sums) -> Sums:
    return b._replace(
        examples=a.examples + b.examples,
        spikes=a.spikes + b.spikes,
        analog=a.analog | b.analog,
        currents=a.currents + b.currents,
        membrane=a.membrane + b.membrane,
    )
