"""Contract of layers and networks: explicit state in; outputs, state and statistics out.

    outputs, aux = layer(inputs, state, call)
    state        = layer.initial_state(shape)          shape of one timestep of input, (B, ...)
    placed       = layer.with_memory(request)          optional

Inputs and outputs are time-major, `[T, B, ...]`. A layer holds parameters only and never changes
after `__init__`: membranes and normalisation statistics enter with `state` and leave with `aux`, so
the train step stores them exactly once per step, however often a strategy recomputes.

A layer or a scan whose derivative is not that of its values, backpropagation through time, says so
by the attribute `exact = False`; `is_exact` asks all layers of a network and their scans.

`replace` copies a module with other attributes. `Statistics` of timesteps are joined by
`join_steps`, those of parts of a batch averaged (`mean_over_steps`); diagnostics are maxima
(`max_over_steps`, `stream_use`).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax.memory import Strategy
from snnjax.memory.traces import Traces
from snnjax.neurons.sigma_delta import Range
from snnjax.nn._approximate import approximations
from snnjax.typing import Array, Key, PyTree, Scan

__all__ = [
    "Aux",
    "Call",
    "Layer",
    "InitialState",
    "MemoryRequest",
    "NonFinite",
    "Placed",
    "Repeated",
    "State",
    "Statistics",
    "StepStatistics",
    "StreamPeak",
    "call_statistics",
    "approximations",
    "gather",
    "is_exact",
    "join_steps",
    "layer_name",
    "max_over_steps",
    "mean_over_steps",
    "no_state",
    "prefix_names",
    "refuse_padding",
    "output_shape",
    "place",
    "refuse_whole_windows",
    "repeat_state",
    "replace",
    "same_shape",
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
        """The state with neurons and statistics of `aux`, to continue the sequence.

        The neurons of a new batch start at rest; keep only the statistics for it:
        `net.initial_state(batch, statistics=aux.statistics)`.

        Args:
            aux: by-products of the previous call.
        """
        # Both fields: dropping the statistics would evaluate with those of the first step.
        return self._replace(neurons=aux.state, statistics=aux.statistics)


class InitialState(State):
    """State of a network whose running statistics were never updated; evaluation then warns.

    The mark is a type and no value, so that a compiled function has it, too. It is lost with new
    statistics.
    """

    __slots__ = ()

    def after(self, aux: Aux) -> State:
        """The state with neurons and statistics of `aux`, see `State.after`."""
        pairs = zip(*map(jax.tree.leaves, (self.statistics, aux.statistics)), strict=True)
        # Evaluation returns the statistics unchanged, and a scan must carry one type.
        kind = InitialState if all(old is new for old, new in pairs) else State
        return kind(aux.state, aux.statistics)

    def _replace(self, **fields: Any) -> State:
        return (State if "statistics" in fields else InitialState)(**{**self._asdict(), **fields})


class Statistics(NamedTuple):
    """Running `mean` and (biased) `var` per channel, `[C]`."""

    mean: Array
    var: Array


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["mean", "var"], meta_fields=["momentum"]
)
@dataclasses.dataclass(frozen=True)
class StepStatistics:
    """`Statistics` that move once per timestep, not once per call.

    Attributes:
        mean: running mean per channel, `[C]`.
        var: running variance per channel, `[C]`.
        momentum: weight of the old value in one timestep.
    """

    mean: Array
    var: Array
    # Static: layers that run timestep by timestep need it to join the updates of single steps.
    momentum: float


class Aux(NamedTuple):
    """By-products of a call.

    Attributes:
        state: states of the neurons after the last timestep; `State.neurons` of the next call.
        statistics: running means and variances after the call; `State.statistics` of the next call.
        taps: layer name -> kind -> array, for each kind in `Call.taps`.
        diagnostics: layer name -> peak of a reversible stream during this call, or the examples
            of a stack with neurons that are not finite. Diagnostics are maxima, so they are not
            carried to the next call as the statistics are.
    """

    state: PyTree = ()
    statistics: PyTree = ()
    taps: dict[str, dict[str, Array]] = {}  # noqa: RUF012 (never written)
    diagnostics: Mapping[str, Diagnostic] = {}  # noqa: RUF012 (never written)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["key", "lengths"],
    meta_fields=["training", "taps"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """The options of one call of a layer: a pytree whose leaves are the key and the lengths.

    `training` and `taps` are static, so a call passes through `jax.jit`, `jax.vmap` and every scan
    as an argument, and a layer may branch on them.

    Attributes:
        training: use batch statistics and dropout.
        key: key of the random numbers that layers draw in training, or None.
        taps: kinds of arrays to return in `Aux.taps`, such as `("spikes", "membrane")`.
        lengths: valid timesteps of padded sequences, `[B]`, or None. Only layers that join
            timesteps need them, such as batch norm over the window.
    """

    # Static: layers branch on it, and both branches in one program would double it.
    training: bool
    # Not static: a new key per training step must not retrace.
    key: Key | None = None
    taps: tuple[str, ...] = ()
    lengths: Array | None = None

    def child(self, number: int) -> Call:
        """The call for part `number` of a layer, with the key `fold_in(key, number)`."""
        # Without a key nothing is random, in the parts neither.
        if self.key is None:
            return self
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, number))

    def children(self, number: int) -> Call:
        """One call for a scan over `number` equal blocks, with leaves `[number, ...]`."""
        # Arrays of keys and lengths, which a scan over the blocks takes as its inputs.
        key = None if self.key is None else jax.random.split(self.key, number)
        lengths = None if self.lengths is None else _repeat(number, self.lengths)
        return dataclasses.replace(self, key=key, lengths=lengths)

    def with_taps(self, *taps: str) -> Call:
        """A copy of the call with other taps."""
        return dataclasses.replace(self, taps=taps)


class Layer(Protocol):
    """Any object with these two methods is a layer; there is no base class.

    A layer that uses part of a memory strategy, or maps spikes to spikes, also has the method
    `with_memory(request: MemoryRequest) -> Placed`. A layer that knows the shape of its outputs may
    have the method `infer_shape(state, shape) -> shape | None`, which saves `output_shape` a trace.
    """

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps `[T, B, ...]` to `[T, B, ...]`.

        Args:
            inputs: sequence, `[T, B, ...]`.
            state: state from `initial_state`, or from the `aux` of the previous call.
            call: options of this call.
        """
        ...

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """State at rest; `shape` is that of one timestep of inputs, `(B, ...)`."""
        ...


@dataclasses.dataclass(frozen=True)
class MemoryRequest:
    """A memory strategy, with the facts that a layer needs to use it, for `with_memory`.

    Attributes:
        strategy: memory strategy; fields that are None leave the layer unchanged. In
            `order="time"` its `time` is None, since the network itself scans over time.
        order: order of the network, `"layer"` or `"time"`.
        spiking: True if the layer's inputs are spikes.
        cut: scan over the parts of a `Sequential`; None leaves the sequence in one part.
        traces: rule of the traces of synapses and the decay of the neurons behind the layer; None
            without such a rule.
    """

    strategy: Strategy
    order: str = "layer"
    spiking: bool = False
    cut: Scan | None = None
    traces: Traces | None = None

    def child(self, spiking: bool) -> MemoryRequest:
        """The request for a part of the layer. An inner `Sequential` is not cut.

        Args:
            spiking: True if the inputs of the part are spikes.
        """
        return dataclasses.replace(self, spiking=spiking, cut=None)


class Placed(NamedTuple):
    """Answer of a layer to a `MemoryRequest`: its copy under the strategy.

    Attributes:
        layer: copy of the layer, which shares its parameters.
        spiking: True if the outputs of the layer are spikes.
        taken: fields of the strategy that the layer uses, among `"time"`, `"depth"` and `"pack"`.
            `nn.with_memory` refuses a field that no layer of the network uses.
        role: tells a `Sequential` where it may be cut: between `"neurons"` and the next
            `"synapse"`, around a `"block"`, and around a `"loop"`, which scans its own blocks.
    """

    layer: Any
    spiking: bool = False
    taken: frozenset[str] = frozenset()
    role: Literal["synapse", "neurons", "block", "loop"] | None = None


def place(layer: Any, request: MemoryRequest) -> Placed:
    """Answer of `layer.with_memory(request)`.

    A layer without the method uses no part of the strategy, and its outputs count as real numbers.
    """
    # Layers of other authors need not know of memory strategies.
    own = getattr(layer, "with_memory", None)
    return Placed(layer) if own is None else own(request)


def parts_taken(parts: Iterable[Placed]) -> frozenset[str]:
    """Union of the fields of the strategy that the layers use."""
    return frozenset[str]().union(*(part.taken for part in parts))


def no_state(layer: Any, shape: tuple[int, ...]) -> State:
    """`initial_state` of a layer without state: `initial_state = nn.contract.no_state`."""
    del layer, shape
    return State()


def same_shape(layer: Any, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`infer_shape` of a layer whose outputs have the shape of its inputs.

    It stands in the class of `__call__`: `infer_shape = nn.contract.same_shape`.
    """
    del layer, state
    return tuple(shape)


def stateless_result(outputs: Array) -> tuple[Array, Aux]:
    """Return value of a layer without state, statistics or taps: `(outputs, Aux())`."""
    return outputs, Aux()


def output_shape(layer: Layer, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one timestep of outputs: `layer.infer_shape`, or by abstract evaluation.

    Args:
        layer: layer to evaluate.
        state: state of the layer.
        shape: shape of one timestep of inputs, `(B, ...)`.
    """
    if _infers_shape(layer) and (inferred := layer.infer_shape(state, shape)) is not None:  # type: ignore[attr-defined]
        return inferred
    # A layer on the whole window refuses fewer timesteps than it was made for.
    inputs = jax.ShapeDtypeStruct((whole_window(layer), *shape), jnp.float32)
    return jax.eval_shape(_evaluate, layer, inputs, state).shape[1:]


def _evaluate(layer: Layer, inputs: Array, state: State) -> Array:
    # One function for all layers: JAX then traces equal layers on equal shapes once, however often
    # nested layers infer their shapes.
    return layer(inputs, state, Call(training=False))[0]


def _infers_shape(layer: Any) -> bool:
    """True if `infer_shape` belongs to the layer's own `__call__`, not to that of a base class."""
    known = {"__call__", "infer_shape"}
    owners = (vars(c) for c in type(layer).__mro__ if known & vars(c).keys())
    return "infer_shape" in next(owners, {})


def whole_window(layer: Any) -> int:
    """Number of timesteps that a layer or one of its parts needs at once; 1 if it may stream.

    A layer that needs its whole window, such as `nn.ASA`, has the attribute `whole_window`.
    """
    windows = (getattr(module, "whole_window", 1) for _, module in nnx.iter_modules(layer))
    return max(windows, default=1)


def is_exact(network: Any) -> bool:
    """True unless a layer or a scan declares another derivative, `exact = False`."""
    modules = [module for _, module in nnx.iter_modules(network)]
    return all(getattr(module, "exact", True) for module in modules) and not approximations(network)


def refuse_whole_windows(body: Any) -> None:
    """Refuses layers that need all timesteps at once, in a network that runs step by step.

    Args:
        body: module to search.

    Raises:
        ValueError: a layer in `body` needs its whole window.
    """
    for _, module in nnx.iter_modules(body):
        timesteps = getattr(module, "whole_window", 1)
        if timesteps > 1:
            raise ValueError(
                f"nn.{type(module).__name__} needs its whole window of {timesteps} timesteps "
                'at once, and order="time" runs them one by one: use order="layer"'
            )


def refuse_padding(body: Any) -> None:
    """Refuses layers whose valid timesteps would depend on padded ones behind them.

    Args:
        body: module to search.

    Raises:
        ValueError: a layer in `body` needs its whole window.
    """
    if whole_window(body) > 1:
        raise ValueError(
            "a layer of this network joins all timesteps of its window, padded ones, too: give "
            "sequences of one length without lengths, or use layers that run step by step"
        )


M = TypeVar("M")
Entry = TypeVar("Entry")


def replace(module: M, **attributes: Any) -> M:
    """A copy of a module with new values of attributes, as `dataclasses.replace` for dataclasses.

        quiet = nn.replace(layer, neuron=nn.LIF(threshold=2.0))

    Args:
        module: module to copy; it stays unchanged and shares its parameters with the copy.
        attributes: new values by attribute name.

    Raises:
        AttributeError: the module has no attribute of that name.
    """
    # A shallow copy shares the Variables of the parameters; nnx.clone would create new ones.
    new = copy.copy(module)
    for name, value in attributes.items():
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute {name!r} to replace")
        # The copy is not built by __init__, so checks there do not run again.
        setattr(new, name, value)
    return new


class NonFinite(NamedTuple):
    """Examples of a stack in which a neuron ends with NaN or an infinity, bool `[B]`."""

    examples: Array


class StreamPeak(NamedTuple):
    """Largest magnitude of a reversible stream, and the bound below which reversal is exact."""

    peak: Array
    bound: Array


Diagnostic: TypeAlias = StreamPeak | NonFinite


def stream_use(diagnostics: Mapping[str, Diagnostic]) -> Array:
    """Largest ratio of peak to bound over all reversible streams; 0 without a stream.

    At a ratio of 1 or more the grid overflows the mantissa: the inverse, and with it the reversed
    gradient, is only approximate.

    Args:
        diagnostics: `aux.diagnostics` of a call.
    """
    entries = [entry for entry in diagnostics.values() if isinstance(entry, StreamPeak)]
    shares = [(entry.peak / entry.bound).max() for entry in entries]
    return jnp.max(jnp.stack(shares)) if shares else jnp.zeros(())


def max_over_steps(diagnostics: PyTree) -> PyTree:
    """Maxima of diagnostics over the first axis, that of timesteps or blocks."""
    return jax.tree.map(lambda leaf: leaf.max(0), diagnostics)


def mean_over_steps(statistics: PyTree) -> PyTree:
    """Means of statistics over the first axis, that of timesteps.

    The mean of equal rows, such as those of a frozen norm, is exact.
    """
    # A plain mean of T equal rows may differ from them in the last bit.
    return jax.tree.map(lambda leaf: leaf[0] + (leaf - leaf[0]).mean(0), statistics)


def layer_name(layer: Any, number: int) -> str:
    """Name of a layer in taps, its kind and position, such as `lif1`."""
    return f"{getattr(layer, 'name', type(layer).__name__.lower())}{number}"


def join_steps(before: PyTree, rows: PyTree) -> PyTree:
    """Running statistics after T timesteps that each started from the same values.

        Statistics        before + mean over t of (rows[t] - before)
        StepStatistics    before + sum over t of m^(T-1-t) (rows[t] - before),   as T calls in order
        Range             rows[T-1]: the neurons carry it from step to step

    Args:
        before: statistics before the first timestep.
        rows: statistics after one update from `before` by each timestep, with leaves `[T, ...]`.
    """

    def join(old: Any, new: Any) -> Any:
        if isinstance(old, Range):
            return jax.tree.map(lambda leaf: leaf[-1], new)
        if not isinstance(old, StepStatistics):
            return mean_over_steps(new)

        def discount(start: Array, leaf: Array) -> Array:
            steps = jnp.arange(len(leaf) - 1, -1, -1, dtype=leaf.dtype)
            return start + jnp.tensordot(old.momentum**steps, leaf - start, 1)

        return jax.tree.map(discount, old, new)

    own = lambda node: isinstance(node, StepStatistics | Range)  # noqa: E731
    return jax.tree.map(join, before, rows, is_leaf=own)


def call_statistics(statistics: PyTree) -> PyTree:
    """The statistics with `Statistics` in place of `StepStatistics`: T equal calls move them once.

    Args:
        statistics: statistics of a layer.
    """
    own = lambda node: isinstance(node, StepStatistics)  # noqa: E731
    once = lambda node: Statistics(node.mean, node.var) if own(node) else node  # noqa: E731
    return jax.tree.map(once, statistics, is_leaf=own)


def prefix_names(name: str, layers: Mapping[str, Entry]) -> dict[str, Entry]:
    """Taps or diagnostics of a part under the names `name/inner`.

    Args:
        name: name of the part.
        layers: entries by their names in the part; the empty name is the part itself.
    """
    # The empty name is the part itself, without a slash.
    return {f"{name}/{inner}".rstrip("/"): found for inner, found in layers.items()}


def gather(parts: list[tuple[str, Aux]]) -> Aux:
    """`Aux` of a group of layers: states and statistics as tuples, taps by `part/layer`.

    Args:
        parts: name and `Aux` of each part, in order.
    """
    taps, diagnostics = {}, {}
    for name, aux in parts:
        taps |= prefix_names(name, aux.taps)
        diagnostics |= prefix_names(name, aux.diagnostics)
    auxes = [aux for _, aux in parts]
    states, statistics = tuple(a.state for a in auxes), tuple(a.statistics for a in auxes)
    return Aux(states, statistics, taps, diagnostics)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["block"], meta_fields=["depth"])
@dataclasses.dataclass(frozen=True)
class Repeated:
    """State at rest of `depth` equal blocks, held once.

    XLA would write `[depth, ...]` zeros to memory before its loop over depth. A state other than
    that at rest is passed as arrays `[depth, ...]` instead. Layers may rebuild the state at rest
    inside their loop and ignore the values held here.

    Attributes:
        block: state of one block.
        depth: number of blocks.
    """

    block: PyTree
    depth: int


def repeat_state(state: PyTree) -> PyTree:
    """The state with every `Repeated` expanded to arrays `[depth, ...]`.

    A loop over time carries the state, whose structure must not change after the first step.
    """

    def expand(node: Any) -> Any:
        if not isinstance(node, Repeated):
            return node
        # Inner stacks first: a stack within a stack has two leading axes.
        return jax.tree.map(functools.partial(_repeat, node.depth), repeat_state(node.block))

    return jax.tree.map(expand, state, is_leaf=lambda node: isinstance(node, Repeated))


def _repeat(depth: int, leaf: Any) -> Any:
    return jnp.broadcast_to(leaf, (depth, *leaf.shape))
