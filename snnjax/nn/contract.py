"""Contract of layers and networks: explicit state in, outputs and by-products out.

    outputs, aux = layer(inputs, state, call)
    state        = layer.initial_state(shape)          shape of one timestep of input, (B, ...)
    placed       = layer.with_memory(request)          optional

Inputs and outputs are time-major, `[T, B, ...]`. A layer holds parameters only and is never written
after `__init__`: membranes and normalisation statistics go in with `state` and come out with `aux`,
so that the train step stores them exactly once per step, however often a strategy recomputes.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax.memory import Strategy
from snnjax.typing import Array, Key, PyTree, Scan

__all__ = [
    "Aux",
    "Call",
    "Layer",
    "MemoryRequest",
    "Placed",
    "State",
    "StreamPeak",
    "max_over_steps",
    "mean_over_steps",
    "prefix_names",
    "output_shape",
    "place",
    "refuse_whole_windows",
    "replace",
    "stateless_result",
    "stream_use",
    "parts_taken",
    "whole_window",
]


class State(NamedTuple):
    """State of a layer or network between two calls.

        outputs, aux = net(inputs, state, training=True)
        state = state.after(aux)

    Attributes:
        neurons: states of the neurons before the first timestep.
        statistics: running means and variances of the normalisation layers.
    """

    neurons: PyTree = ()
    statistics: PyTree = ()

    def after(self, aux: Aux) -> State:
        """The state after a call, for the call that continues the sequence.

        For another batch, whose neurons start at rest, keep the statistics only:
        `net.initial_state(batch, statistics=aux.statistics)`.
        """
        return self._replace(neurons=aux.state, statistics=aux.statistics)


class Aux(NamedTuple):
    """By-products of a call.

    Attributes:
        state: states of the neurons after the last timestep; `State.neurons` of the next call.
        statistics: running means and variances after the call; `State.statistics` of the next call.
        taps: layer name -> kind -> array, for each kind in `Call.taps`.
        diagnostics: layer name -> largest value of this call, such as the peak of a reversible
            stream. Maxima, where statistics are means: the next call starts anew.
    """

    state: PyTree = ()
    statistics: PyTree = ()
    taps: dict[str, dict[str, Array]] = {}  # noqa: RUF012 (never written)
    diagnostics: dict[str, StreamPeak] = {}  # noqa: RUF012 (never written)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["training", "taps"]
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """The options of one call of a layer: a pytree whose only leaf is the key.

    `training` and `taps` are static, so a call passes through `jax.jit`, `jax.vmap` and every scan
    as an argument, and a layer may branch on them.

    Attributes:
        training: use batch statistics and dropout.
        key: for the random numbers that layers draw in training, or None.
        taps: kinds of arrays to return in `Aux.taps`, such as `("spikes", "membrane")`.
    """

    training: bool
    key: Key | None = None
    taps: tuple[str, ...] = ()

    def child(self, number: int) -> Call:
        """The call of part `number` of a layer, with a key of its own: `fold_in(key, number)`."""
        if self.key is None:
            return self
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, number))

    def children(self, number: int) -> Call:
        """The calls of `number` equal blocks in one, with keys `[number]`, for a scan over them."""
        if self.key is None:
            return self
        return dataclasses.replace(self, key=jax.random.split(self.key, number))

    def with_taps(self, *taps: str) -> Call:
        """The same call with other taps."""
        return dataclasses.replace(self, taps=taps)


class Layer(Protocol):
    """Any object with these two methods is a layer; there is no base class.

    A third one is optional: `with_memory(request: MemoryRequest) -> Placed`, for a layer that takes
    part of a memory strategy or passes spikes on.
    """

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps `[T, B, ...]` to `[T, B, ...]`.

        Args:
            inputs: the sequence.
            state: from `initial_state`, or from the `aux` of the call before.
            call: the options of this call.
        """
        ...

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """The state at rest, for inputs whose timesteps have this shape, `(B, ...)`."""
        ...


@dataclasses.dataclass(frozen=True)
class MemoryRequest:
    """A memory strategy on its way through the layers, for `layer.with_memory(request)`.

    Attributes:
        strategy: parts that are None leave the layer as written. Over time it is None in
            `order="time"`, where the network takes it as a whole.
        order: of the network.
        spiking: True if the layer's inputs are spikes.
        cut: the scan over the parts of a `Sequential`, or None to leave it whole.
    """

    strategy: Strategy
    order: str = "layer"
    spiking: bool = False
    cut: Scan | None = None

    def child(self, spiking: bool) -> MemoryRequest:
        """The request for a part of the layer: inner sequences are not cut."""
        return dataclasses.replace(self, spiking=spiking, cut=None)


class Placed(NamedTuple):
    """A layer with a memory strategy in it, the answer to a `MemoryRequest`.

    Attributes:
        layer: shares the parameters of the one that was asked.
        spiking: True if its outputs are spikes.
        taken: the parts of the strategy that it uses: `"time"`, `"depth"`, `"pack"`. A part that no
            layer of a network takes is refused.
        role: where a `Sequential` may be cut: in front of a `"synapse"` behind `"neurons"`, around
            a `"block"`, and around a `"loop"`, which scans its own blocks.
    """

    layer: Any
    spiking: bool = False
    taken: frozenset[str] = frozenset()
    role: Literal["synapse", "neurons", "block", "loop"] | None = None


def place(layer: Any, request: MemoryRequest) -> Placed:
    """The layer's own answer; without a method `with_memory` it takes nothing and ends spikes."""
    own = getattr(layer, "with_memory", None)
    return Placed(layer) if own is None else own(request)


def parts_taken(parts: Iterable[Placed]) -> frozenset[str]:
    """Parts of the strategy that any of these layers takes."""
    return frozenset[str]().union(*(part.taken for part in parts))


def stateless_result(outputs: Array) -> tuple[Array, Aux]:
    """The result of a layer without state, statistics or taps."""
    return outputs, Aux()


def output_shape(layer: Layer, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one timestep of output for one of input, `(B, ...)`; nothing is computed."""
    inputs = jax.ShapeDtypeStruct((whole_window(layer), *shape), jnp.float32)
    run = lambda layer, inputs, state: layer(inputs, state, Call(training=False))[0]  # noqa: E731
    return jax.eval_shape(run, layer, inputs, state).shape[1:]


def whole_window(layer: Any) -> int:
    """The timesteps that a layer, or one inside it, must have at once; 1 where none must.

    Such a layer has an attribute `whole_window`.
    """
    child = (getattr(module, "whole_window", 1) for _, module in nnx.iter_modules(layer))
    return max(child, default=1)


def refuse_whole_windows(body: Any) -> None:
    """For networks that run timestep by timestep: no layer inside that needs the window at once.

    Raises:
        ValueError: there is one.
    """
    for _, module in nnx.iter_modules(body):
        timesteps = getattr(module, "whole_window", 1)
        if timesteps > 1:
            raise ValueError(
                f"nn.{type(module).__name__} looks at its whole window of {timesteps} timesteps at "
                'once, and order="time" runs one after the other: use order="layer"'
            )


M = TypeVar("M")
Entry = TypeVar("Entry")


def replace(module: M, **attributes: Any) -> M:
    """A copy of a module with other attributes; as `dataclasses.replace` does for a dataclass.

        quiet = nn.replace(layer, neuron=nn.LIF(threshold=2.0))

    Args:
        module: stays as it is; the copy shares its parameters, and nothing else is touched.
        attributes: the new values.

    Raises:
        AttributeError: the module has no attribute of that name.
    """
    new = copy.copy(module)
    for name, value in attributes.items():
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute {name!r} to replace")
        setattr(new, name, value)
    return new


class StreamPeak(NamedTuple):
    """Largest magnitude in a reversible stream, and the bound below which the stream is exact."""

    peak: Array
    bound: Array


def stream_use(diagnostics: dict[str, StreamPeak]) -> Array:
    """The largest share of its bound that any reversible stream used; 0 without such a stream.

    From 1 on the stream is no longer exact, and a reversed gradient only nearly right.

    Args:
        diagnostics: of a call, `aux.diagnostics`.
    """
    shares = [(found.peak / found.bound).max() for found in diagnostics.values()]
    return jnp.max(jnp.stack(shares)) if shares else jnp.zeros(())


def max_over_steps(diagnostics: PyTree) -> PyTree:
    """Diagnostics of timesteps or blocks, `[n, ...]` leaves, to those of all."""
    return jax.tree.map(lambda leaf: leaf.max(0), diagnostics)


def mean_over_steps(statistics: PyTree) -> PyTree:
    """Statistics of single timesteps, `[T, ...]` leaves, to their mean.

    The mean is exact where all its rows are equal, as those of a frozen norm are.
    """
    return jax.tree.map(lambda leaf: leaf[0] + (leaf - leaf[0]).mean(0), statistics)


def prefix_names(name: str, layers: Mapping[str, Entry]) -> dict[str, Entry]:
    """Taps or diagnostics of a part, by the names that they have in the whole: `name/inner`."""
    return {f"{name}/{inner}".rstrip("/"): found for inner, found in layers.items()}
