"""How much of a network is zero, and how often its membranes move.

Reference: Yik et al., "The neurobench framework for benchmarking neuromorphic computing algorithms
and systems", Nature Communications 2025, arXiv:2304.04640; the rules are those of its released code
(v2.3.0).
"""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from snnjax.typing import Array

__all__ = ["activation_sparsity", "connection_sparsity", "membrane_updates", "neuron_operations"]

# Model -> reset -> operations per update of one membrane, as the released code has them.
_NEURON_OPERATIONS = {
    "leaky": {"subtract": 4, "zero": 4},
    "synaptic": {"subtract": 6, "zero": 8},
    "lapicque": {"subtract": 11, "zero": 11},
    "alpha": {"subtract": 18, "zero": 24},
}


def connection_sparsity(weights: Iterable[Array]) -> float:
    """The share of weights that are exactly zero, rounded to 4 decimals.

        zeros / weights,  over all arrays together

    Args:
        weights: of linear maps and convolutions, and of recurrent layers; their biases are not
            counted, and neither are norms.

    Raises:
        ValueError: there are no weights.
    """
    arrays = [np.asarray(array) for array in weights]
    total = sum(array.size for array in arrays)
    if not total:
        raise ValueError("connection_sparsity needs at least one array of weights, got none")
    zeros = sum(array.size - int(np.count_nonzero(array)) for array in arrays)
    return round(zeros / total, 4)


def activation_sparsity(spikes: Iterable[Array]) -> float:
    """The share of outputs of neurons that are zero, of all layers, timesteps and examples.

        1 - nonzero / outputs

    Layers weigh by their neurons: it is `1 - nasfr`, and not one minus the mean of their rates.

    Args:
        spikes: of each layer, of any shape.

    Returns:
        In [0, 1]; 0 where there is nothing to count.
    """
    arrays = [np.asarray(array) for array in spikes]
    total = sum(array.size for array in arrays)
    zeros = sum(array.size - int(np.count_nonzero(array)) for array in arrays)
    return zeros / total if total else 0.0


def membrane_updates(membrane: Array) -> Array:
    """How often a membrane differs from what it was one timestep before.

        N + sum over t >= 1, i of [v[t, i] != v[t-1, i]],    N neurons; the first step counts all

    Args:
        membrane: `[T, B, ...]`, after the reset.

    Returns:
        `[B]`, uint32.
    """
    axes = (0, *range(2, membrane.ndim))
    moved = jnp.sum(membrane[1:] != membrane[:-1], axes, dtype=jnp.uint32)
    return moved + np.uint32(np.prod(membrane.shape[2:], dtype=np.int64))


def neuron_operations(updates: float, *, model: str = "leaky", reset: str = "subtract") -> float:
    """Operations of neurons, a fixed number per update of a membrane.

    Args:
        updates: of membranes, see `membrane_updates`; or all of them, for the dense number.
        model: `"leaky"` (4), `"synaptic"` (6 or 8), `"lapicque"` (11), `"alpha"` (18 or 24).
        reset: `"subtract"` or `"zero"`.

    Raises:
        ValueError: an unknown model or reset: for others the metric is not defined.
    """
    if model not in _NEURON_OPERATIONS or reset not in _NEURON_OPERATIONS[model]:
        raise ValueError(
            f"neuron operations are defined for {', '.join(_NEURON_OPERATIONS)} with reset "
            f"subtract or zero, not for {model!r} with {reset!r}: leave them out for such neurons"
        )
    return updates * _NEURON_OPERATIONS[model][reset]
