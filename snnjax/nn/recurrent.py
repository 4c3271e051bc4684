"""A layer of neurons with all-to-all feedback: `x'[t] = x[t] + s[t-1] @ weights`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from snnjax import memory, metrics, neurons
from snnjax.nn._checks import check_rngs, check_state
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.mixed_precision import Precision
from snnjax.nn.neuron import Neuron, check_neuron, run
from snnjax.nn.taps import lazy_taps
from snnjax.ops.arguments import as_floating, check_counts, check_numbers
from snnjax.ops.rounding import is_narrow, narrow, product, promote
from snnjax.typing import Array, Scan, bind

__all__ = ["Recurrent", "refuse_reversal"]


class Recurrent(nnx.Module):
    """A layer of N neurons with all-to-all feedback through learned `weights`, `[N, N]`.

        x'[t] = x[t] + s[t-1] @ weights
        v[t], s[t] = step(params, v[t-1], x'[t])         step: that of the neuron

    Currents x `[T, B, N]` in units of the membrane potential per timestep; spikes s `[T, B, N]`,
    with s[-1] = 0; state v of the neurons.

    Args:
        neuron: layer of `N` neurons, such as `nn.LIF()`; its scan runs the loop with feedback.
        size: `N`, number of neurons.
        rngs: random streams of the weights, drawn orthogonal and scaled by `gain`.
        gain: initial scale of the feedback.

    Raises:
        ValueError: the neuron's scan reverses: the spikes of the previous timestep are unknown
            in the backward direction.
    """

    def __init__(self, neuron: Neuron, size: int, *, rngs: nnx.Rngs, gain: float = 0.5):
        check_neuron("nn.Recurrent", neuron)
        check_counts("nn.Recurrent", size=size)
        check_numbers("nn.Recurrent", gain=gain)
        check_rngs("nn.Recurrent", rngs)
        refuse_reversal(neuron.scan)
        self.neuron, self.name = neuron, f"recurrent_{neuron.name}"
        # Orthogonal weights keep the norm of the feedback over many timesteps.
        draw = nnx.initializers.orthogonal(gain)
        self.weights = nnx.Param(draw(rngs.params(), (size, size), jnp.float32))
        self.compute = "float32"  # dtype of spikes and weights in the feedback
        self.traces: memory.traces.Traces | None = (
            None  # derivative at traces of the spikes, of a decay
        )

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Applies the strategy over time to the loop with feedback.

        Raises:
            ValueError: a reversing strategy; `memory.ottt()`, a rule for feedforward synapses.
        """
        refuse_reversal(request.strategy.time)
        placed = self.neuron.with_memory(request)
        changed = replace(self, neuron=placed.layer)
        if request.traces is not None:
            if request.traces.rule != "eprop":
                raise ValueError(
                    f"memory.{request.traces.rule}() has no rule for feedback: use memory.eprop(), "
                    "or memory.sltt() or memory.truncated(k)"
                )
            # The fed back spikes charge the layer's own neurons.
            own = dataclasses.replace(request.traces, decay=self.neuron.leak())
            changed = replace(changed, traces=own)
        return placed._replace(layer=changed)

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """Neurons at rest, and silent outputs before the first timestep."""
        return State(self._model().initial_state(shape))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps currents `[T, B, N]` to spikes `[T, B, N]`."""
        model = self._model()
        inputs = as_floating("nn.Recurrent", inputs)
        if inputs.shape[-1] != self.weights.shape[-1]:
            size = self.weights.shape[-1]
            raise ValueError(
                f"this layer has {size} neurons and got currents {list(inputs.shape)}: put "
                f"nn.Linear({inputs.shape[-1]}, {size}, rngs=rngs) in front of it"
            )
        check_state(model.initial_state, state.neurons, inputs.shape[1:])
        params = model.params._replace(neuron=self.neuron.params())
        outputs, aux = run(
            model.step, params, state.neurons, inputs,
            scan=self.neuron.scan, taps=call.taps, spiking=model.spiking,
        )  # fmt: skip
        # Synapses count the spikes they receive, those of the previous timestep.
        before = state.neurons if self.traces is None else state.neurons.layer
        fed_back = lambda: jnp.concatenate([before.outputs[None], outputs[:-1]])  # noqa: E731
        taps = lazy_taps(call.taps, operations=lambda: self.operations(fed_back()))
        kinds = aux.taps.get("", {}) | taps.get("", {})
        return outputs, aux._replace(taps={"": kinds} if kinds else {})

    def _model(self) -> neurons.Model:
        options: dict[str, Any] = {}
        if self.compute != "float32" or is_narrow(self.weights[...]):
            # `bind` gives comparable functions, so that equal layers compile once.
            options = {"connection": bind(_narrow_dense, compute=self.compute)}
        model = neurons.recurrent_model(self.neuron.model, self.weights[...], **options)
        if self.traces is None:
            return model
        return dataclasses.replace(
            model,
            step=_TracedFeedback(model.step, self.traces.decay),
            initial_state=bind(_untouched, inner=model.initial_state),
        )

    def with_precision(self, precision: Precision) -> Recurrent:
        """A copy that computes the feedback, and stores its weights, in other dtypes."""
        weights = self.weights
        if weights.dtype != precision.params:
            weights = nnx.Param(narrow(weights[...], precision.params))
        return replace(self, weights=weights, compute=precision.compute)

    def operations(self, fed_back: Array) -> metrics.operations.Operations:
        """Synaptic operations of the feedback.

        Args:
            fed_back: spikes of the previous timestep, `[T, B, N]`.
        """
        return metrics.operations.synaptic_operations(fed_back, self.weights[...])


class TracedState(NamedTuple):
    """State of a recurrent layer, and the trace of its outputs, `[B, N]`."""

    layer: Any
    trace: Array


@dataclasses.dataclass(frozen=True)
class _TracedFeedback:
    """Step of a neuron with feedback whose weights learn by traces of the outputs."""

    step: Any
    decay: float

    def __call__(self, params: Any, state: TracedState, current: Array) -> tuple[TracedState, Any]:
        (before, trace), connection = state, memory.traces.traced(self.step.connection)
        after, traces = memory.traces.filter_inputs(self.decay, trace, before.outputs[None])
        # The trace stands beside the outputs, where `neurons.Recurrent` gives the outputs alone.
        inner = dataclasses.replace(
            self.step, connection=lambda weights, outputs: connection(weights, outputs, traces[0])
        )
        layer, outputs = inner(params, before, current)
        return TracedState(layer, after), outputs


def _untouched(shape: tuple[int, ...], *, inner: Any, **options: Any) -> TracedState:
    return TracedState(inner(shape, **options), jnp.zeros(shape, jnp.float32))


def _narrow_dense(weights: Array, outputs: Array, *, compute: str) -> Array:
    """`outputs @ weights` with operands of dtype `compute` and a float32 result."""
    return product(narrow(outputs, compute), promote(weights, compute))


def refuse_reversal(scan: Scan | None) -> None:
    """Refuses a reversing scan for neurons with feedback.

    Raises:
        ValueError: the scan reverses.
    """
    if isinstance(scan, memory.Reverse):
        raise ValueError(
            "neurons with feedback have no inverse, since the spikes of the previous timestep are "
            "unknown in the backward direction: use memory.recompute(every)"
        )
