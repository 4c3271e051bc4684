"""Readout of unsupervised networks: neurons are assigned to classes after learning.

    responses[k, j] = mean spikes of neuron j over the examples of class k
    assignment[j]   = argmax over k of responses[k, j];  -1 where j never fired
    all activity    score[k] = mean spikes of the neurons assigned to k
    proportion      score[k] = sum over j of spikes[j] responses[k, j] / sum of responses[:, j]

The prediction is the class with the highest score, the first of several. Labels serve the readout
only: assign on training examples, evaluate on other examples.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015 (`all_activity`); H. Hazan et al., "BindsNET", 2018,
arXiv:1806.01423 (`proportion`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["Responses", "add_examples", "all_activity", "assign", "empty_responses", "proportion"]


class Responses(NamedTuple):
    """Spike sums per class, from which the mean responses follow.

    Attributes:
        spikes: Spikes summed over the examples of each class, `[K, N]`.
        examples: Number of examples of each class, `[K]`.
    """

    spikes: Array
    examples: Array

    @property
    def mean(self) -> Array:
        """Mean spikes per example, `[K, N]`; 0 for a class without examples."""
        # A class without examples has no spikes either: any divisor but 0 gives 0.
        return self.spikes / jnp.maximum(self.examples, 1)[:, None]


def empty_responses(classes: int, neurons: int) -> Responses:
    """Zero sums for K classes and N neurons, before the first example."""
    return Responses(jnp.zeros((classes, neurons)), jnp.zeros(classes))


def add_examples(
    responses: Responses,
    counts: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    retention: float = 1.0,
) -> Responses:
    """Adds the spike counts of a batch to the sums of its classes.

    Args:
        responses: Sums of the previous examples.
        counts: Spikes of each neuron, `[B, N]`.
        labels: Classes, `[B]`, integers below K.
        weight: Weight of each example, `[B]`; 0 leaves an example out, None counts all.
        retention: Factor on the previous sums, in [0, 1].
    """
    classes = jax.nn.one_hot(labels, responses.examples.size)
    if weight is not None:
        # Scales spikes and examples alike, so that weight 0 leaves the mean unchanged.
        classes = classes * weight[:, None]
    return Responses(
        retention * responses.spikes + classes.T @ counts,
        retention * responses.examples + classes.sum(0),
    )


def assign(responses: Responses) -> Array:
    """Class of each neuron, `[N]`, int32; -1 for a neuron that never fired."""
    classes = jnp.argmax(responses.mean, axis=0).astype(jnp.int32)
    return jnp.where(responses.spikes.sum(0) > 0, classes, -1)


def all_activity(counts: Array, responses: Responses) -> Array:
    """Class scores: mean spikes of the neurons assigned to each class.

    Args:
        counts: Spikes of each neuron, `[B, N]`.
        responses: Sums that assign the neurons to classes.

    Returns:
        Scores, `[B, K]`; 0 for a class without neurons.
    """
    # one_hot maps the -1 of an unassigned neuron to a row of zeros: it votes for no class.
    assigned = jax.nn.one_hot(assign(responses), responses.examples.size)
    return counts @ assigned / jnp.maximum(assigned.sum(0), 1)


def proportion(counts: Array, responses: Responses) -> Array:
    """Class scores: spikes of all neurons, divided among classes by mean response.

    Args:
        counts: Spikes of each neuron, `[B, N]`.
        responses: Sums that give the mean responses.

    Returns:
        Scores, `[B, K]`.
    """
    mean = responses.mean
    # A neuron that never fired has only zero responses: the divisor 1 gives it no vote.
    total = mean.sum(0)
    return counts @ (mean / jnp.where(total > 0, total, 1)).T
