"""Labels after the fact: which class a neuron answers to, and what a network of them says.

    responses[k, j] = mean spikes of neuron j over the examples of class k
    assignment[j]   = argmax over k of responses[k, j];  -1 where j never fired
    all activity    score[k] = mean spikes of the neurons assigned to k
    proportion      score[k] = sum over j of spikes[j] responses[k, j] / sum of responses[:, j]

The prediction is the class with the highest score, the first of several. Labels are used for
nothing else: assign on training examples, judge on others.

Reference: P. U. Diehl, M. Cook, "Unsupervised learning of digit recognition using
spike-timing-dependent plasticity", 2015 (`all_activity`); the other readout as in H. Hazan et al.,
"BindsNET", 2018, arXiv:1806.01423.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from snnjax.typing import Array

__all__ = ["Responses", "all_activity", "assign", "no_responses", "proportion", "seen"]


class Responses(NamedTuple):
    """Sums from which responses follow.

    Attributes:
        spikes: `[K, N]`, summed over the examples of each class.
        examples: `[K]`, how many there were.
    """

    spikes: Array
    examples: Array

    @property
    def mean(self) -> Array:
        """`[K, N]`, mean spikes per example; 0 for a class that was not seen."""
        return self.spikes / jnp.maximum(self.examples, 1)[:, None]


def no_responses(classes: int, neurons: int) -> Responses:
    """Before the first example."""
    return Responses(jnp.zeros((classes, neurons)), jnp.zeros(classes))


def seen(
    responses: Responses,
    counts: Array,
    labels: Array,
    *,
    weight: Array | None = None,
    kept: float = 1.0,
) -> Responses:
    """Adds examples.

    Args:
        responses: so far.
        counts: spikes, `[B, N]`.
        labels: `[B]`, whole numbers below K.
        weight: `[B]`, 0 leaves an example out; None takes all.
        kept: share of the old sums that still counts, in [0, 1].
    """
    chosen = jax.nn.one_hot(labels, responses.examples.size)
    if weight is not None:
        chosen = chosen * weight[:, None]
    return Responses(
        kept * responses.spikes + chosen.T @ counts, kept * responses.examples + chosen.sum(0)
    )


def assign(responses: Responses) -> Array:
    """The class of each neuron, `[N]`, int32; -1 where it never fired."""
    found = jnp.argmax(responses.mean, axis=0).astype(jnp.int32)
    return jnp.where(responses.spikes.sum(0) > 0, found, -1)


def all_activity(counts: Array, responses: Responses) -> Array:
    """Scores by the mean spikes of the neurons assigned to a class.

    Args:
        counts: spikes, `[B, N]`.
        responses: from which neurons are assigned.

    Returns:
        `[B, K]`; 0 for a class that no neuron was assigned to.
    """
    mine = jax.nn.one_hot(assign(responses), responses.examples.size)  # -1 is no class
    return counts @ mine / jnp.maximum(mine.sum(0), 1)


def proportion(counts: Array, responses: Responses) -> Array:
    """Scores by the spikes of all neurons, each shared out as it answered; `[B, K]`."""
    mean = responses.mean
    total = mean.sum(0)
    return counts @ (mean / jnp.where(total > 0, total, 1)).T
