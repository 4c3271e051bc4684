"""Operation counts of a network, from the taps of one forward pass.

`count_operations` is the pass, a pure function to be jitted; `tally` sums its arrays. The network
is measured as it is, with any order and memory strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import metrics, nn, readout
from snnjax.cost._tally import Connection, Neurons, Product, Tally
from snnjax.metrics.operations import checksum
from snnjax.nn.taps import counts as reports_operations
from snnjax.nn.taps import in_order
from snnjax.typing import Array, PyTree

__all__ = [
    "count_operations",
    "is_temporal",
    "layer_kind",
    "measure",
    "settle_statistics",
    "shares_membranes",
    "tally",
    "uncounted_layers",
]

# The membrane is last, so that `_TAPS[:3]` leaves it out.
_TAPS = ("operations", "products", "spikes", "membrane")
_TEMPORAL = ("psn", "masked_psn", "sliding_psn")


def count_operations(
    network: nn.Network,
    statistics: PyTree,
    frames: Array,
    *,
    training: bool = False,
    lengths: Array | None = None,
) -> dict[str, Any]:
    """Counts the operations of each layer on a batch; pure, without sums over examples.

    Args:
        network: Network to measure.
        statistics: Running normalisation statistics, from `initial_state` or from training.
        frames: Inputs `[T, B, *input_shape]`.
        training: Normalises by the statistics of this batch, for an untrained network. The network
            must have no dropout, whose scaling turns spikes into real numbers.
        lengths: Valid timesteps of padded sequences, `[B]`; None is all.

    Returns:
        Small arrays by `"operations"`, `"products"`, `"neurons"` and `"frames"`, for `tally`.
    """
    # Only the norms keep their trained statistics; the neurons start from rest.
    start = network.initial_state(frames.shape[1])._replace(statistics=statistics)
    # Updates of a shared membrane belong to no layer, so the membrane is not tapped.
    taps = _TAPS[:3] if shares_membranes(network) else _TAPS
    _, aux = network(frames, start, training=training, taps=taps, lengths=lengths)
    counts: dict[str, Any] = {"operations": {}, "products": {}, "neurons": {}}
    for name, kinds in aux.taps.items():
        for kind in ("operations", "products"):
            if kind in kinds:
                counts[kind][name] = _without_padding(kinds[kind], lengths)
        if "spikes" in kinds:
            counts["neurons"][name] = _count_neurons(
                name, kinds["spikes"], kinds.get("membrane"), lengths
            )
    # Checksums of the frames tell later which connections read them directly.
    return {**counts, "frames": checksum(frames)}


def settle_statistics(
    network: nn.Network,
    statistics: PyTree,
    frames: Array,
    key: Any,
    *,
    lengths: Array | None = None,
) -> PyTree:
    """Running statistics in the limit of many batches like this one.

    For an untrained network: with the initial mean 0 and variance 1, a deep network mostly does not
    fire at all.

    Args:
        network: Network to measure.
        statistics: Initial running statistics.
        frames: Inputs `[T, B, *input_shape]`.
        key: Random key of the forward pass, for dropout.
        lengths: Valid timesteps of padded sequences, `[B]`; None is all.

    Raises:
        ValueError: Norms have different momenta.
    """
    norms = [m for _, m in nnx.iter_modules(network) if isinstance(m, nn.BatchNorm)]
    momenta = {norm.momentum for norm in norms}
    if len(momenta) > 1:
        raise ValueError(
            f"statistics settle by one momentum, and this network has {sorted(momenta)}: measure a "
            "trained run of it"
        )
    # Up to a discount of early timesteps, norms that move at each timestep settle where norms that
    # move once per call do, whose fraction below is known.
    copied = nnx.merge(*nnx.split(network))
    for _, module in nnx.iter_modules(copied):
        if isinstance(module, nn.BatchNorm):
            module.update = "call"
    kinds = (nn.contract.Statistics, nn.contract.StepStatistics)
    is_norm = lambda node: isinstance(node, kinds)  # noqa: E731
    # One training step moves the statistics by the fraction 1 - momentum of their distance to those
    # of the batch; dividing by it goes the whole distance.
    start = copied.initial_state(
        frames.shape[1], statistics=nn.contract.call_statistics(statistics)
    )
    _, aux = copied(frames, start, training=True, key=key, lengths=lengths)
    fraction = 1 - next(iter(momenta), 0.0)
    extrapolate = lambda old, new: old + (new - old) / fraction  # noqa: E731

    def settle(old: Any, new: Any) -> Any:
        if not is_norm(old):
            return old
        mean, var = extrapolate(old.mean, new.mean), extrapolate(old.var, new.var)
        return jax.tree.unflatten(jax.tree.structure(old), (mean, var))

    return jax.tree.map(settle, statistics, aux.statistics, is_leaf=is_norm)


def measure(
    network: nn.Network,
    frames: Array,
    *,
    statistics: PyTree = None,
    weights: Array | None = None,
    lengths: Array | None = None,
    training: bool = False,
) -> Tally:
    """Runs a network on a batch of frames and sums its operations.

    Args:
        network: Network to measure.
        frames: Inputs `[T, B, *input_shape]`.
        statistics: Running normalisation statistics; None takes the initial ones.
        weights: Weights of the examples, `[B]`; weight 0 is padding and left out, None is all 1.
        lengths: Valid timesteps of padded sequences, `[B]`, which alone are counted; None is all.
        training: Normalises by the statistics of this batch, for an untrained network without
            dropout.

    Returns:
        The operations, for `cost.energy` and `cost.neurobench`.

    Raises:
        ValueError: No example has weight 1.
    """
    if statistics is None:
        statistics = network.initial_state(1).statistics
    # `training` selects Python branches of the layers, so it must be static.
    run = jax.jit(count_operations, static_argnames="training")
    counts = run(network, statistics, frames, training=training, lengths=lengths)
    return tally(network, counts, weights=weights)


def tally(network: nn.Network, counts: Mapping[str, Any], *, weights: Any = None) -> Tally:
    """Sums the operations of a network over the examples of a batch.

    Args:
        network: Measured network.
        counts: Arrays from `count_operations`.
        weights: Weights of the examples, `[B]`; weight 0 is padding and left out, None is all 1.

    Raises:
        ValueError: No example has weight 1.
    """
    # One transfer of the whole tree; the sums below are NumPy's, exact in int64.
    counts = jax.device_get(counts)
    given, batch = counts["frames"].shape
    # `learning.Equilibrium` simulates T timesteps of a constant frame.
    timesteps = max(given, nn.contract.whole_window(network))
    real = np.ones(batch, bool) if weights is None else np.asarray(weights) > 0
    if not real.any():
        raise ValueError("there is no example to measure: give at least one of weight 1")
    shared, frames = shares_membranes(network), counts["frames"]
    operations, products, neurons = (counts[k] for k in ("operations", "products", "neurons"))
    return Tally(
        examples=int(real.sum()),
        timesteps=timesteps,
        connections=in_order(
            {n: Connection.from_operations(f, real, frames) for n, f in operations.items()}
        ),
        products=in_order({n: Product.from_products(f, real) for n, f in products.items()}),
        neurons=in_order({n: _sum_neurons(n, f, real, shared) for n, f in neurons.items()}),
        parameter_bytes=_bytes(nnx.state(network, nnx.Param)),
        # Only sizes are needed: eval_shape allocates no state.
        membrane_bytes=_bytes(jax.eval_shape(lambda: _states(network))),
    )


def shares_membranes(network: nn.Network) -> bool:
    """True if several layers write one membrane, so that its updates belong to no layer."""
    sharing = nn.Shared | nn.Grouped
    return any(isinstance(module, sharing) for _, module in nnx.iter_modules(network))


def uncounted_layers(network: nn.Network) -> list[str]:
    """Names of a user's own layers that hold matrices and do not report their operations."""
    names = []
    for path, module in nnx.iter_modules(network):
        if isinstance(module, nn.Fold) and isinstance(module.function, nnx.Module):
            weights = jax.tree.leaves(nnx.state(module.function, nnx.Param))
            # Vectors are biases and scales of normalisation, which no figure counts.
            if not reports_operations(module.function) and any(leaf.ndim > 1 for leaf in weights):
                flax = isinstance(module.function, nnx.GroupNorm | nnx.LayerNorm)
                normalizes = flax or getattr(module.function, "normalizes", False)
                names += [] if normalizes else ["/".join(map(str, path)) or module.name]
    return names


def layer_kind(name: str) -> str:
    """Kind of the layer that a tap is named after: `lif` for `stack1/block0/lif4`."""
    return name.rsplit("/", 1)[-1].rstrip("0123456789")


def is_temporal(name: str) -> bool:
    """True if a tap belongs to neurons that weigh currents over time, such as `nn.PSN`.

    Args:
        name: Name of a tap of products; products of all other layers are those of attention.
    """
    return layer_kind(name) in _TEMPORAL


def _sum_neurons(name: str, counts: Mapping[str, Any], real: np.ndarray, shared: bool) -> Neurons:
    """Sums the counts of a layer of neurons over the examples of weight 1."""
    total = lambda kind: int(counts[kind][real].sum(dtype=np.int64))  # noqa: E731
    stateful = layer_kind(name) != "disabled"
    defined = stateful and "updates" in counts and not shared
    return Neurons(
        outputs=total("outputs"),
        active=total("active"),
        updates=total("updates") if defined else None,
        spiking=bool(counts["spiking"][real].all()),
        stateful=stateful,
    )


def _without_padding(counts: Any, lengths: Array | None) -> Any:
    """Operations or products `[T, B]` with zeros and True at the padded timesteps."""
    # A connection that runs once serves all timesteps.
    if lengths is None or len(counts.dense) == 1:
        return counts
    valid = readout.mask(lengths, len(counts.dense))
    flags = {"ternary", "binary"}
    # Checksums stay: they tell whether the frames, padding among them, are read directly.
    return counts._replace(
        **{
            name: part | ~valid if name in flags else jnp.where(valid, part, 0)
            for name, part in counts._asdict().items()
            if name != "checksum"
        }
    )


def _states(network: nn.Network) -> PyTree:
    return nn.contract.repeat_state(network.initial_state(1).neurons)


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _count_neurons(
    name: str, spikes: Array, membrane: Array | None, lengths: Array | None
) -> dict[str, Array]:
    """Counts per example of a layer of neurons."""
    axes = (0, *range(2, spikes.ndim))
    number = np.prod([spikes.shape[axis] for axis in axes], dtype=np.int64)
    outputs = jnp.full(spikes.shape[1], np.uint32(number))
    if lengths is not None:
        valid = readout.mask(lengths, len(spikes)).reshape(
            *spikes.shape[:2], *[1] * (len(axes) - 1)
        )
        spikes = jnp.where(valid, spikes, 0)
        outputs = np.uint32(number // len(spikes)) * lengths.astype(jnp.uint32)
    columns = [(spikes != 0).astype(jnp.uint32), ((spikes != 0) & (spikes != 1)).astype(jnp.uint32)]
    add = lambda a, b: [x + y for x, y in zip(a, b, strict=True)]  # noqa: E731
    # One reduction, as in `metrics.operations.synaptic_operations`: compilation dominates the time.
    active, analog = jax.lax.reduce(columns, [np.uint32(0)] * 2, add, axes)
    counts = {
        "active": active,
        "outputs": outputs,
        "spiking": analog == 0,
    }
    if membrane is None or layer_kind(name) == "disabled":
        return counts
    return counts | {"updates": metrics.operations.membrane_updates(membrane, lengths=lengths)}
