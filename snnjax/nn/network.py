"""Network: the outermost module, with its input shape and the order of its loops.

    outputs, aux = net(inputs, state, *, training, key=None)       [T, B, ...] -> [T, B, K]

`order="layer"`: each layer processes the entire sequence, synapses as `[T * B, ...]`; only neurons
scan over time.
`order="time"`: the network is one Step, which a memory strategy scans over the frames. This is also
the streaming form: call it with one frame at a time and carry `aux.state`.
Both compute the same function unless normalisation takes statistics over the window.

`split` and `merge` separate the tree that is differentiated and saved from the rest:

    graphdef, params, constants = nn.split(net)
    net = nn.merge(graphdef, params, constants)

A module carries its memory strategy in its pytree structure, so the gradients of one module under
two strategies are trees that `jax.tree.map` refuses to pair. `params` has names and arrays only:
its gradient, the slots of an optimizer and a checkpoint are the same trees under every strategy.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory
from snnjax.nn._approximate import refuse_untraced
from snnjax.nn._checks import check_key, check_layer, check_scan
from snnjax.nn.contract import (
    Aux,
    Call,
    InitialState,
    Layer,
    MemoryRequest,
    Placed,
    State,
    StreamPeak,
    join_steps,
    max_over_steps,
    place,
    refuse_padding,
    refuse_whole_windows,
    repeat_state,
    replace,
)
from snnjax.nn.normalization import (
    never_updated,
    refuse_step_statistics,
    refuse_window_statistics,
    updates_statistics,
)
from snnjax.nn.taps import reconstruction
from snnjax.ops.arguments import as_floating, check_choice, check_counts, check_flags, shorten
from snnjax.ops.padding import mask
from snnjax.ops.rounding import widen, widen_to
from snnjax.typing import Array, Key, PyTree, Scan

__all__ = ["Network", "merge", "split"]

_NEVER_UPDATED = (
    "this network evaluates with batch-norm statistics that were never updated (mean 0, variance "
    "1): keep the statistics of training, state = state.after(aux), or start from "
    "net.initial_state(batch, statistics=aux.statistics)"
)
_ORDERS = ("layer", "time")
_COLLECT = ("all", "mean", "last")
_TAPS = (
    *("spikes", "membrane", "currents", "threshold", "rates"),  # neurons, see nn.taps
    *("reconstruction", "mask", "attention"),  # reversing scans, nn.ASA, nn.MA
    "packing",  # layers that keep their inputs at one bit each
    *("operations", "products"),  # connections and attention, see nn.taps
)


class Network(nnx.Module):
    """A body of layers with a fixed input shape, run layer by layer or timestep by timestep.

        outputs, aux = net(inputs, state, training=True)       [T, B, *input_shape] -> [T, B, ...]

    Args:
        body: a layer, usually `Sequential`.
        input_shape: shape of one frame of one example, such as `(28, 28, 1)`.
        order: `"layer"` runs each layer over all timesteps, `"time"` scans the network over frames.
        time_scan: memory strategy over time of the network in `"time"` order, such as
            `memory.recompute(k, inner=memory.sequence)`, which runs k timesteps layer by layer. In
            `"layer"` order each layer of neurons has its own `scan`.
        collect: `"all"` returns outputs `[T, B, K]`. In `"time"` order, `"mean"` and `"last"`
            return `[1, B, K]` from the carry, so that `[T, B, K]` never exists; for long windows.
            `readout.rate` of the mean equals that of all outputs up to the order of summation.

    Raises:
        ValueError: an unknown order or `collect`; `time_scan` or `collect` in `"layer"` order; in
            `"time"` order a layer that needs its whole window at once, such as `nn.ASA` or `nn.MA`.
    """

    def __init__(
        self,
        body: Layer,
        input_shape: tuple[int, ...],
        *,
        order: str = "layer",
        time_scan: Scan | None = None,
        collect: str = "all",
    ):
        check_layer("nn.Network", body)
        check_scan("nn.Network", time_scan)
        if not isinstance(input_shape, Sequence) or isinstance(input_shape, str):
            raise TypeError(
                f"nn.Network takes the shape of one frame, such as (28, 28, 1), as input_shape, "
                f"got {shorten(input_shape)}"
            )
        if len(input_shape):
            check_counts("nn.Network", input_shape=tuple(input_shape))
        check_choice("nn.Network", choices=_ORDERS, order=order)
        if order == "layer" and time_scan is not None:
            raise ValueError(
                'in order="layer" a strategy over time belongs to the neurons (nn.LIF(scan=...)); '
                'order="time" scans the network with time_scan'
            )
        check_choice("nn.Network", choices=_COLLECT, collect=collect)
        if order == "layer" and collect != "all":
            raise ValueError(
                f'in order="layer" all outputs exist at once: collect={collect!r} needs '
                'order="time", or take readout.rate of them'
            )
        if order == "time":
            # Checked at construction: the first call may come after a long set-up.
            refuse_whole_windows(body)
        self.body, self.input_shape = body, tuple(input_shape)
        self.order, self.time_scan, self.collect = order, time_scan, collect

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy to the body; in `"time"` order the network itself scans over time.

        Raises:
            ValueError: a reversal over time in `"time"` order; a layer without the traces that the
                strategy asks for.
        """
        strategy, traces = request.strategy, None
        if isinstance(strategy.time, memory.traces.Traces):
            # The rule acts in the synapses; between timesteps no gradient flows.
            traces = strategy.time
            strategy = dataclasses.replace(strategy, time=traces.scan)
        time = strategy.time if self.order == "time" else None
        if time is not None:
            # The network scans over time itself; a layer's own scan inside would see one timestep.
            strategy = dataclasses.replace(strategy, time=None)
        inner = MemoryRequest(strategy, self.order, cut=strategy.depth, traces=traces)
        body = place(self.body, inner)
        changed = replace(self, body=body.layer)
        if traces is not None:
            refuse_untraced(changed, traces)
        if time is None:
            return Placed(changed, taken=body.taken)
        if isinstance(time, memory.Reverse) and time.inverse is None:
            raise ValueError(
                'a network has no inverse over time, which order="time" would need: use '
                'time=recompute(every), or order="layer", where each neuron reverses by itself'
            )
        return Placed(replace(changed, time_scan=time), taken=body.taken | {"time"})

    def initial_state(self, batch: int, *, statistics: PyTree | None = None) -> State:
        """State before a batch, all neurons at rest.

        In `"layer"` order stacked blocks share one state at rest; after a call each has its own.

        Args:
            batch: number of examples, B.
            statistics: running statistics of an earlier call, `aux.statistics`; None for mean 0 and
                variance 1.

        Raises:
            ValueError: `batch` is not positive.
        """
        # A symbolic size, as of an export for any batch, is no integer and at least 1.
        if isinstance(batch, int | float | str | None):
            check_counts("initial_state", batch=batch)
        state = self.body.initial_state((batch, *self.input_shape))
        if statistics is not None:
            state = state._replace(statistics=statistics)
        elif updates_statistics(self.body):
            state = InitialState(*state)
        # A scan over time carries the state, whose structure must not change after the first step.
        return repeat_state(state) if self.order == "time" else state

    def __call__(
        self,
        inputs: Array,
        state: State,
        *,
        training: bool,
        key: Key | None = None,
        taps: tuple[str, ...] = (),
        lengths: Array | None = None,
    ) -> tuple[Array, Aux]:
        """Runs the network over a sequence.

        Args:
            inputs: frames, `[T, B, *input_shape]`.
            state: state from `initial_state(B)`, or `state.after(aux)` of an earlier call.
            training: use batch statistics and dropout.
            key: key of the random numbers of dropout, or None.
            taps: kinds of internal arrays to return in `aux.taps` by layer name. Neurons:
                `"spikes"`, `"membrane"`, `"currents"`, `"threshold"`, `"rates"` (see `nn.taps`);
                reversing scans: `"reconstruction"`, the largest error of a rebuilt state; attention
                on currents: `"mask"`, `"attention"`; synapses: `"operations"`, `"products"`.
            lengths: valid timesteps of padded sequences, `[B]` integers in [1, T], or None. Batch
                norm over the window then ignores the padding. Outputs and taps keep all T
                timesteps: give the lengths to readout, loss and metrics as well.

        Returns:
            Outputs `[T, B, ...]` (`[1, B, ...]` with `collect="mean"` or `"last"`), at least
            float32, and the `nn.Aux` of the call.

        Raises:
            ValueError: inputs of another shape; a state of another batch size; an unknown tap;
                `"time"` order in training with normalisation over the window; lengths with layers
                that need their whole window, or with `collect="mean"` or `"last"`.
        """
        inputs = as_floating("this network", inputs)
        self._check(inputs, state, taps)
        check_flags("this network", training=training)
        check_key("this network", key)
        if lengths is not None:
            self._check_lengths(inputs, lengths, training)
        # A forgotten `state.after(aux)` lowers accuracy without any other sign.
        if not training and never_updated(self.body, state):
            warnings.warn(_NEVER_UPDATED, UserWarning, stacklevel=2)
        if training and self.order == "time":
            refuse_window_statistics(self.body)
        try:
            return self._run(
                inputs, state, Call(training=training, key=key, taps=taps, lengths=lengths)
            )
        except (AssertionError, TypeError, ValueError) as error:
            # Checked only after a failure, since the check traces the network a second time.
            self._explain_state(inputs.shape[1], state, error)
            raise

    def _run(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        if self.order == "layer":
            outputs, aux = self.body(inputs, state, call)
            return widen(outputs), aux
        params = (self.body, state.statistics, call)
        scan = memory.store if self.time_scan is None else self.time_scan
        step, start = Cell(), widen_to(state.neurons, inputs.dtype)
        if self.collect != "all":
            # The carry needs the output's shape before the first step.
            shape = jax.eval_shape(step, params, start, inputs[0])[1][0]
            # Zero is neutral for the mean; the last output overwrites it.
            start = (start, jnp.zeros(shape.shape, shape.dtype))
            step = Collector(step, 1 / len(inputs) if self.collect == "mean" else None)
        after, (outputs, statistics, taps, diagnostics) = scan(step, params, start, inputs)
        if self.collect != "all":
            after, last = after
            # Time stays the first axis, so readouts need no special case.
            outputs = last[None]
        # Each timestep starts from the same running values: joined, they are one update.
        own = state.statistics
        updated = join_steps(own, statistics) if call.training else own
        taps |= reconstruction("network", scan, step, params, start, inputs, call.taps)
        return outputs, Aux(after, updated, taps, max_over_steps(diagnostics))

    def _check(self, inputs: Array, state: State, taps: tuple[str, ...]) -> None:
        if not isinstance(state, State):
            raise TypeError(
                f"the state of a network is an nn.State, got {type(state).__name__}: take it from "
                "initial_state(batch), or state.after(aux)"
            )
        # A string is a sequence of letters, and the error should not list letters as unknown taps.
        if isinstance(taps, str) or set(taps) - set(_TAPS):
            raise ValueError(f"taps must be a tuple of kinds among {_TAPS}, got {taps!r}")
        if inputs.ndim < 2 or tuple(inputs.shape[2:]) != self.input_shape:
            shape = ", ".join(map(str, self.input_shape))
            raise ValueError(
                f"this network takes [T, B, {shape}] (time first, channels last), got "
                f"{list(inputs.shape)}; snnjax.encoding turns batches into sequences"
            )
        if not inputs.shape[0]:
            raise ValueError("the sequence has no timesteps (T = 0)")

    def _check_lengths(self, inputs: Array, lengths: Array, training: bool) -> None:
        mask(lengths, len(inputs))  # checks the lengths
        if lengths.shape != inputs.shape[1:2]:
            raise ValueError(
                f"lengths must be [{inputs.shape[1]}], one per example, got {list(lengths.shape)}"
            )
        if self.collect != "all":
            raise ValueError(
                f'collect={self.collect!r} reads the padding, too: lengths need collect="all" '
                "and a readout that takes them"
            )
        refuse_padding(self.body)
        if training:
            refuse_step_statistics(self.body)

    def _explain_state(self, batch: int, state: State, error: Exception) -> None:
        # Expanded states compare by shape, whether their blocks are at rest or not.
        states = jax.eval_shape(
            lambda: (repeat_state(self.initial_state(batch)), repeat_state(state))
        )
        shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in states]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the state does not fit a batch of {batch}: take it from initial_state({batch}), "
                "or from the aux of a call with that batch"
            ) from error


@dataclasses.dataclass(frozen=True)
class Cell:
    """One timestep of a network as a Step; its params are `(body, statistics, call)`."""

    def __call__(self, params: Any, neurons: Any, frame: Array) -> tuple[Any, Any]:
        """One frame `[B, ...]` through the layers."""
        neurons, ys = self.sequence(params, neurons, frame[None])
        return neurons, _first_row(ys)

    def sequence(self, params: Any, neurons: Any, frames: Array) -> tuple[Any, Any]:
        """Frames `[T, B, ...]` through one layer after the other, as `memory.sequence` calls it."""
        body, statistics, call = params
        outputs, aux = body(frames, State(neurons, statistics), call)
        # In evaluation statistics do not change, and T copies of them would be stacked.
        updated = aux.statistics if call.training else ()
        # The neurons are carried, so that their state after the last frame tells the same.
        streams = {k: v for k, v in aux.diagnostics.items() if isinstance(v, StreamPeak)}
        # One row per frame, also of arrays that all frames share: statistics are averaged.
        updated, diagnostics = jax.tree.map(lambda leaf: leaf[None], (updated, streams))
        rows = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (len(frames), *leaf.shape[1:])),
            (updated, aux.taps, diagnostics),
        )
        return aux.state, (widen(outputs), *rows)

    def activity(self, params: Any, neurons: Any, frame: Array) -> tuple[Any, Any, Array]:
        """One frame, with the number of spikes of all layers, see `memory.skip`."""
        body, statistics, call = params
        asked = call.with_taps(*dict.fromkeys((*call.taps, "spikes")))
        after, (outputs, updated, taps, streams) = self((body, statistics, asked), neurons, frame)
        spikes = [kinds["spikes"] for kinds in taps.values() if "spikes" in kinds]
        total = sum((jnp.sum(leaf, dtype=jnp.float32) for leaf in spikes), jnp.float32(0))
        own = {n: {k: v for k, v in kinds.items() if k in call.taps} for n, kinds in taps.items()}
        own = {name: kinds for name, kinds in own.items() if kinds}
        return after, (outputs, updated, own, streams), total


@dataclasses.dataclass(frozen=True)
class Collector:
    """A cell that reduces its outputs in the carry: `a <- a + share * y`, or `a <- y`.

    Attributes:
        cell: one timestep of the network.
        share: weight of one timestep in the mean, 1 / T; None keeps the last output.
    """

    cell: Cell
    share: float | None

    def __call__(self, params: Any, state: Any, frame: Array) -> tuple[Any, Any]:
        """One frame; the scanned outputs are statistics, taps and diagnostics only."""
        state, ys = self.sequence(params, state, frame[None])
        return state, _first_row(ys)

    def sequence(self, params: Any, state: Any, frames: Array) -> tuple[Any, Any]:
        """Frames `[T, B, ...]` through one layer after the other."""
        neurons, collected = state
        return self._collect(collected, *self.cell.sequence(params, neurons, frames))

    def activity(self, params: Any, state: Any, frame: Array) -> tuple[Any, Any, Array]:
        """One frame, with the number of spikes of all layers, see `memory.skip`."""
        neurons, collected = state
        neurons, ys, total = self.cell.activity(params, neurons, frame)
        after, ys = self._collect(collected, neurons, jax.tree.map(lambda leaf: leaf[None], ys))
        return after, _first_row(ys), total

    def _collect(self, collected: Array, neurons: Any, ys: Any) -> tuple[Any, Any]:
        outputs, *rows = ys
        if self.share is None:
            return (neurons, outputs[-1]), ((), *rows)
        return (neurons, collected + self.share * outputs.sum(0)), ((), *rows)

    def cut_cotangent(self, cotangent: Any, last: Any) -> Any:
        """Cotangent of the carry where an approximate scan cuts the gradient through neurons."""
        neurons, collected = cotangent
        cut = lambda leaf: jnp.where(last, leaf, jnp.zeros_like(leaf))  # noqa: E731
        # Every timestep adds to the mean alike; the last output is that of the last one.
        kept = cut(collected) if self.share is None else collected
        return jax.tree.map(cut, neurons), kept


def _first_row(rows: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], rows)


def split(module: Any, *, frozen: Collection[str] = ()) -> tuple[Any, PyTree, PyTree]:
    """Splits a network or layer into structure, parameters and constants.

    A layer at several places has its parameters once, and its gradient is the sum over the places;
    as a tree, by `jax.grad` of the module itself, it would be one layer per place.

        def loss(params, frames, labels):
            net = nn.merge(graphdef, params, constants)
            outputs, aux = net(frames, net.initial_state(len(labels)), training=True)
            return losses.mean(losses.rate_cross_entropy(outputs, labels)), aux.statistics

        gradient, statistics = jax.grad(loss, has_aux=True)(params, frames, labels)

    Args:
        module: an `nn.Network`, or any other module.
        frozen: names of parameters that do not learn and join the constants, such as
            `body.layers.1.function.kernel`.

    Returns:
        `graphdef`, the module without its arrays, hashable (the memory strategy is a part of it);
        `params`, its `nnx.Param`s, to be differentiated; `constants`, its other arrays, such as
        decays that are not learned.
    """
    learned: Any = nnx.Param
    if frozen:
        learned = nnx.All(nnx.Param, lambda path, _: ".".join(map(str, path)) not in frozen)
    graphdef, params, constants = nnx.split(module, learned, ...)
    return graphdef, params, constants


def merge(graphdef: Any, params: PyTree, constants: PyTree) -> Any:
    """Puts together what `split` took apart.

    Args:
        graphdef: of the network, or of the same one under another memory strategy.
        params: as `split` gives them, or after an update.
        constants: as `split` gives them.
    """
    return nnx.merge(graphdef, params, constants)
