"""Shares of zeros among weights and among activations.

Reference: Yik et al., "The neurobench framework for benchmarking neuromorphic computing algorithms
and systems", Nature Communications 2025, arXiv:2304.04640; the rules are those of its released code
(v2.3.0).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from snnjax.typing import Array

__all__ = ["activation_sparsity", "connection_sparsity"]


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
