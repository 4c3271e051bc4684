"""Runs of converted networks: experiments that wrap the one of a source, and their states.

The file of such a run is that of the source with another `config()`; its network is the source's
with the layers of the spiking one, and its weights are those of the checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from snnjax import conversion, nn
from snnjax.training._parts import arrays, by_name
from snnjax.training._start import with_arrays
from snnjax.training.experiment import FROM_SCRATCH
from snnjax.training.state import TrainState
from snnjax.typing import PyTree

__all__ = ["experiment_text", "spiking_experiment", "with_values"]


def spiking_experiment(source: Any, recipe: conversion.Recipe, *, timesteps: int) -> Any:
    """Experiment of a network converted by a recipe.

    Args:
        source: Experiment of the source network.
        recipe: Options of the conversion.
        timesteps: T.
    """
    network = functools.partial(_network, source=source.network, recipe=recipe)
    return dataclasses.replace(
        source,
        name=f"{source.name}_spiking",
        network=network,
        timesteps=timesteps,
        # Their patterns are of another network.
        **FROM_SCRATCH,
    )


def _network(experiment, rngs, *, source, recipe):
    return recipe.structure(source(experiment, rngs))


def experiment_text(source: str, call: str) -> str:
    """Text of an experiment file that wraps the `config()` of another.

    Args:
        source: Text of the source's file.
        call: Expression of the new experiment, of `source()`, `snnjax.training` and
            `snnjax.conversion`.
    """
    # The default argument is the function above it, which the new name would hide.
    return f'''{source.rstrip()}


def config(source=config):
    """The experiment above, converted."""
    from snnjax import conversion, training  # noqa: F401

    return {call}
'''


def with_values(state: TrainState, network: nn.Network, statistics: PyTree) -> TrainState:
    """A state with the arrays of a network of the same form, in its dtypes and on its devices.

    Args:
        state: State of the experiment.
        network: Network with the layers of the experiment's.
        statistics: Running statistics of the network.
    """
    return with_arrays(state, arrays(network), by_name(statistics))
