"""Initial weights from another run: which arrays are loaded, and which are newly drawn.

    experiment = dataclasses.replace(experiment, init_from="runs/x", freeze=("body.*",), head="new")

The run keeps the record of it as initialization.json:

    {"source", "experiment", "step",       folder and name of the other run, step of its checkpoint
     "loaded": [...], "frozen": [...],     names of arrays; the frozen ones, all of them parameters
     "drawn": [...], "skipped": [...],     drawn here; of the other run, and not taken over
     "replaced": [...],                    loaded constants whose values differ from those here
     "statistics": {"loaded": 4, "drawn": [...]}}
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import nn
from snnjax.training._parts import (
    arrays,
    by_name,
    drawn_names,
    frozen_names,
    head_layers,
    map_named,
    shorten_names,
)
from snnjax.training.errors import ExperimentError
from snnjax.training.experiment import Experiment
from snnjax.training.loading import Loaded, load
from snnjax.training.state import TrainState, initialize
from snnjax.typing import Array

__all__ = ["NAME", "Start", "describe", "match_weights", "read_start", "with_arrays"]

NAME = "initialization.json"


class Start(NamedTuple):
    """Arrays of another run, for the initial state.

    Attributes:
        arrays: Loaded parameters and constants by name.
        statistics: Loaded running statistics by name.
        record: Content of initialization.json.
    """

    arrays: Mapping[str, Array]
    statistics: Mapping[str, Array]
    record: dict[str, Any]


def read_start(experiment: Any, *, warn: Callable[[str], None]) -> Start | None:
    """Reads the run of the field `init_from`; None without one.

    Args:
        experiment: Experiment of any kind.
        warn: Called with a sentence about each skipped damaged checkpoint of the source.

    Raises:
        RunError: There is no such run, or it has no checkpoint.
        ExperimentError: Arrays of the network have no counterpart there; the message names the
            cure.
    """
    # Experiments that learn by plasticity lack the field.
    if (source := getattr(experiment, "init_from", None)) is None:
        return None
    loaded = load(source, warn=warn)
    program, state = initialize(experiment, steps=experiment.epochs)
    return match_weights(loaded, program.network(state), state, experiment)


def with_arrays(
    state: TrainState, values: Mapping[str, Array], statistics: Mapping[str, Array]
) -> TrainState:
    """A state with arrays and statistics by name, in its dtypes and on its devices.

    Args:
        state: The state; leaves without a new value stay.
        values: New parameters and constants.
        statistics: New running statistics.
    """

    def put(new: Mapping[str, Array], name: str, old: Array) -> Array:
        # A device of another run may be gone: the sharding is that of the old array.
        return jax.device_put(new[name].astype(old.dtype), old.sharding) if name in new else old

    return state._replace(
        params=map_named(lambda name, old: put(values, name, old), state.params),
        constants=map_named(lambda name, old: put(values, name, old), state.constants),
        statistics=map_named(lambda name, old: put(statistics, name, old), state.statistics),
    )


def match_weights(
    loaded: Loaded, network: nn.Network, state: TrainState, experiment: Experiment
) -> Start:
    """Pairs the arrays of two networks by name.

    Args:
        loaded: The other run.
        network: Network of the experiment.
        state: Its initial state.
        experiment: The experiment, whose `head` names the arrays that are not taken over.

    Raises:
        ExperimentError: An array has no counterpart of its shape.
    """
    there, here = loaded.arrays, arrays(network)
    drawn = drawn_names(network, experiment.head)
    wrong = {
        name: f"{_shape(there.get(name))} there and {_shape(own)} here"
        for name, own in here.items()
        if name not in drawn and not _fits(there.get(name), own)
    }
    if wrong:
        raise _refusal(loaded, network, wrong)
    values = {name: there[name] for name in here if name not in drawn}
    own, before = by_name(state.statistics), by_name(loaded.statistics)
    statistics = {name: before[name] for name in own if _fits(before.get(name), own[name])}
    constants, frozen = by_name(nn.split(network)[2]), frozen_names(network, experiment)
    return Start(
        values,
        statistics,
        {
            # Complete, as the present folder of a later reader may be another.
            "source": str(loaded.run.path.resolve()),
            "experiment": loaded.experiment.name,
            "step": loaded.step,
            "loaded": list(values),
            "frozen": [name for name in here if name in frozen],
            "drawn": [name for name in here if name in drawn],
            "skipped": [name for name in there if name not in values],
            "replaced": [n for n in values if n in constants and not _same(values[n], here[n])],
            "statistics": {
                "loaded": len(statistics),
                "drawn": [name for name in own if name not in statistics],
            },
        },
    )


def _fits(there: Array | None, here: Array) -> bool:
    """True if an array can take the place of another: same shape, and both real or one dtype."""
    if there is None or there.shape != here.shape:
        return False
    floating = (jnp.issubdtype(x.dtype, jnp.floating) for x in (there, here))
    return all(floating) or there.dtype == here.dtype


def _same(there: Array, here: Array) -> bool:
    return np.array_equal(np.asarray(there.astype(here.dtype)), np.asarray(here), equal_nan=True)


def _shape(array: Array | None) -> str:
    return "absent" if array is None else f"{array.dtype}{list(array.shape)}"


def _refusal(loaded: Loaded, network: nn.Network, wrong: Mapping[str, str]) -> ExperimentError:
    first = next(iter(wrong))
    more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
    text = (
        f"the weights of {loaded.run.path} do not fit this network: {first} is {wrong[first]}{more}"
    )
    cure = (
        "give the options of the source that shape its network, or draw these arrays anew by a "
        f'pattern of their names, --head "PATTERN": {shorten_names(wrong)}'
    )
    # The last layer is what usually differs, by its number of classes.
    with contextlib.suppress(ExperimentError):
        if set(wrong) <= drawn_names(network, "new"):
            cure = f"--head new draws the last layer ({head_layers(network)[0]}) anew"
    return ExperimentError(f"{text}: {cure}")


def describe(record: Mapping[str, Any]) -> list[str]:
    """Lines about a record, for people."""
    frozen = f" ({len(record['frozen'])} frozen)" if record["frozen"] else ""
    statistics = record["statistics"]
    lines = [
        f"from {record['source']}, step {record['step']}: {len(record['loaded'])} arrays loaded"
        f"{frozen}, {statistics['loaded']} of running statistics"
    ]
    for key, text in _TEXTS.items():
        if record[key]:
            lines.append(f"  {text}: {shorten_names(record[key])}")
    if statistics["drawn"]:
        lines.append(f"  new statistics: {shorten_names(statistics['drawn'])}")
    return lines


_TEXTS = {
    "drawn": "newly drawn",
    "skipped": "not taken over",
    "replaced": "constants of the source, in place of others here (--head keeps those)",
}
