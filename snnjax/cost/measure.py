"""Counting what a network does: one forward pass that looks at taps.

`counted` is the pass, a pure function to be jitted; `tally` sums up what it gives. A network is
measured as it is, whatever its order and memory strategy: connections count where they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import metrics, nn
from snnjax.cost.tally import Connection, Neurons, Product, Tally
from snnjax.metrics.operations import checksum
from snnjax.nn import in_order
from snnjax.typing import Array, PyTree

__all__ = ["counted", "kind_of", "measure", "over_time", "settled", "shares_membranes", "tally"]

_TAPS = ("operations", "products", "spikes", "membrane")
_OVER_TIME = ("psn", "masked_psn", "sliding_psn")


def counted(
    network: nn.Network, statistics: PyTree, frames: Array, *, training: bool = False
) -> dict[str, Any]:
    """What each layer does with a batch, as small arrays; pure, nothing is summed over examples.

    Args:
        network: any.
        statistics: running normalisation statistics, of `initial_state` or of training.
        frames: `[T, B, *input_shape]`.
        training: normalise by the statistics of this batch, for a network that has none yet.
            Dropout would make numbers of spikes: such a network must have none.

    Returns:
        `{"operations", "products", "neurons", "frames"}`, for `tally`.
    """
    start = network.initial_state(frames.shape[1])._replace(statistics=statistics)
    # Of a shared membrane there are no updates to count.
    taps = _TAPS[:3] if shares_membranes(network) else _TAPS
    _, aux = network(frames, start, training=training, taps=taps)
    found: dict[str, Any] = {"operations": {}, "products": {}, "neurons": {}}
    for name, kinds in aux.taps.items():
        for kind in ("operations", "products"):
            found[kind] |= {name: kinds[kind]} if kind in kinds else {}
        if "spikes" in kinds:
            found["neurons"][name] = _neurons(name, kinds["spikes"], kinds.get("membrane"))
    return {**found, "frames": checksum(frames)}


def _neurons(name: str, spikes: Array, membrane: Array | None) -> dict[str, Array]:
    axes = (0, *range(2, spikes.ndim))
    number = np.prod([spikes.shape[axis] for axis in axes], dtype=np.int64)
    columns = [(spikes != 0).astype(jnp.uint32), ((spikes != 0) & (spikes != 1)).astype(jnp.uint32)]
    add = lambda a, b: [x + y for x, y in zip(a, b, strict=True)]  # noqa: E731
    # One reduction, as in `metrics.synaptic_operations`: compiling takes most of the time.
    active, analog = jax.lax.reduce(columns, [np.uint32(0)] * 2, add, axes)
    found = {
        "active": active,
        "outputs": jnp.full(spikes.shape[1], np.uint32(number)),
        "spiking": analog == 0,
    }
    if membrane is None or kind_of(name) == "turned_off":
        return found
    return found | {"updates": metrics.membrane_updates(membrane)}


def settled(network: nn.Network, statistics: PyTree, frames: Array, key: Any) -> PyTree:
    """Statistics as they would be if every batch were like this one.

    For a network that has not been trained: with the mean 0 and the variance 1 that statistics
    start with, a deep one mostly does not fire at all. One step moves them by a known share of the
    way, `1 - momentum`; this goes all of it.

    Raises:
        ValueError: norms of different momentum: there is no one share.
    """
    norms = [m for _, m in nnx.iter_modules(network) if isinstance(m, nn.BatchNorm)]
    momenta = {norm.momentum for norm in norms}
    if len(momenta) > 1:
        raise ValueError(
            f"statistics settle by one momentum, and this network has {sorted(momenta)}: measure a "
            "trained run of it"
        )
    start = network.initial_state(frames.shape[1])._replace(statistics=statistics)
    _, aux = network(frames, start, training=True, key=key)
    share = 1 - next(iter(momenta), 0.0)
    far = lambda old, new: old + (new - old) / share  # noqa: E731
    is_norm = lambda node: isinstance(node, nn.Statistics)  # noqa: E731
    return jax.tree.map(
        lambda old, new: jax.tree.map(far, old, new) if is_norm(old) else old,
        statistics,
        aux.statistics,
        is_leaf=is_norm,
    )


def measure(
    network: nn.Network,
    frames: Array,
    *,
    statistics: PyTree = None,
    weights: Array | None = None,
    training: bool = False,
) -> Tally:
    """Runs a network on a batch of frames and sums up what it did.

    Args:
        network: any.
        frames: `[T, B, *input_shape]`.
        statistics: running statistics; None are fresh ones.
        weights: as for `tally`.
        training: as for `counted`.
    """
    if statistics is None:
        statistics = network.initial_state(1).statistics
    run = jax.jit(counted, static_argnames="training")
    return tally(network, run(network, statistics, frames, training=training), weights=weights)


def tally(network: nn.Network, counts: Mapping[str, Any], *, weights: Any = None) -> Tally:
    """Sums of what a network did with a batch.

    Args:
        network: that was measured.
        counts: from `counted`.
        weights: `[B]`, 0 for padding, which is left out; None is all 1.

    Raises:
        ValueError: there is no example.
    """
    counts = jax.device_get(counts)
    timesteps, batch = counts["frames"].shape
    real = np.ones(batch, bool) if weights is None else np.asarray(weights) > 0
    if not real.any():
        raise ValueError("there is no example to measure: give at least one of weight 1")
    shared, frames = shares_membranes(network), counts["frames"]
    operations, products, neurons = (counts[k] for k in ("operations", "products", "neurons"))
    return Tally(
        examples=int(real.sum()),
        timesteps=timesteps,
        connections=in_order({n: Connection.of(f, real, frames) for n, f in operations.items()}),
        products=in_order({n: Product.of(f, real) for n, f in products.items()}),
        neurons=in_order({n: _summed(n, f, real, shared) for n, f in neurons.items()}),
        parameter_bytes=_bytes(nnx.state(network, nnx.Param)),
        membrane_bytes=_bytes(jax.eval_shape(lambda: _states(network))),
    )


def shares_membranes(network: nn.Network) -> bool:
    """Whether a membrane is written by several layers, so that its updates are no layer's own."""
    wired = nn.Shared | nn.Grouped
    return any(isinstance(module, wired) for _, module in nnx.iter_modules(network))


def kind_of(name: str) -> str:
    """The kind of layer that a tap's name ends with: `stack1/block0/lif4` is a `lif`."""
    return name.rsplit("/", 1)[-1].rstrip("0123456789")


def over_time(name: str) -> bool:
    """Whether products are those of neurons that weigh currents over time, `nn.PSN` and its kin.

    Args:
        name: of a tap; products of another layer are those of attention.
    """
    return kind_of(name) in _OVER_TIME


def _summed(name: str, found: Mapping[str, Any], real: np.ndarray, shared: bool) -> Neurons:
    whole = lambda kind: int(found[kind][real].sum(dtype=np.int64))  # noqa: E731
    stateful = kind_of(name) != "turned_off"
    defined = stateful and "updates" in found and not shared
    return Neurons(
        outputs=whole("outputs"),
        active=whole("active"),
        updates=whole("updates") if defined else None,
        spiking=bool(found["spiking"][real].all()),
        stateful=stateful,
    )


def _states(network: nn.Network) -> PyTree:
    return nn.repeat_state(network.initial_state(1).neurons)


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
