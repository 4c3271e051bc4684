"""Eligibility traces: gradients through the state of the neurons behind a synapse, in O(1) of time.

    a[t] = decay * a[t-1] + s[t]                 trace of the inputs s of a synapse
    dW   = sum over t of delta[t] a[t]           in place of delta[t] s[t]

`delta[t]` is the gradient of the currents at t, through space only. The trace holds the influence
of earlier inputs on a leaky membrane, `dv[t] / dW = sum over u <= t of decay^(t-u) s[u]`, so the
product is the gradient through a chain of leaks without their resets. `ottt` and `eprop` are the
rules, applied to a network by `nn.with_memory`; `traced` is the derivative of one synapse, for
steps of your own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
from jax import lax

from snnjax.memory.approximate import Approximate, Truncated, sltt
from snnjax.ops.trees import combine, partition, value_and_pullback
from snnjax.typing import Array, PyTree

__all__ = ["TracedFunction", "Traces", "eprop", "filter_inputs", "ottt", "traced"]


def ottt() -> Traces:
    """Strategy of online training through time, for feedforward networks of leaky neurons.

        forward     s[t] = those of `store`
        traces      a[t] = decay * a[t-1] + s[t],        decay of the neurons behind the synapse
        gradient    dW = sum over t of delta[t] a[t],    delta[t] through space only, as in `sltt`

    In `order="time"` with S the bytes of one state, A those of the inputs of all synapses at one
    timestep, P those of the parameters' gradient and R those of one step's residuals it keeps S + A
    and needs `S + A + P + R` in the backward pass, at any T, for one extra forward pass. The traces
    are a part of the network's state. In `order="layer"` every layer keeps its traces of all
    timesteps: no bytes are saved there.

    Values are bit-equal to those of `store`. Biases, normalizations and parameters of neurons get
    their gradient through space, as in the released code; a synapse without neurons behind it has
    no memory and the decay 0. This is OTTT_A, one update per window. OTTT_O updates at every
    timestep: call the network on one frame at a time and carry its state, traces included. With
    neurons of decay 0 it equals `sltt`. Bound: `snnjax check` accepts a cosine of each layer's
    gradient of at least 0.

    Do not use it with feedback (`eprop`), with spikes at one bit each (`pack=True`: traces are
    real numbers), or for neurons with more state than a membrane (`truncated`).

    Returns:
        A strategy for `Strategy(time=...)`; equal calls give equal strategies.

    Raises:
        memory.StrategyError: (by `nn.with_memory`) a layer has weights without traces, or the decay
            of its neurons is no constant number; the message names layer and cure.

    Reference:
        Xiao, Meng, Zhang, He, Lin, "Online Training Through Time for Spiking Neural Networks",
        2022, arXiv:2210.04195.
    """
    return Traces("ottt")


def eprop() -> Traces:
    """Strategy of eligibility propagation, for networks with recurrent layers of leaky neurons.

        traces      a[t] = decay * a[t-1] + z[t],           inputs and fed back spikes z
        eligibility e[t] = h'(v[t]) a[t]                    h' the surrogate derivative
        gradient    dW = sum over t of L[t] e[t],           L[t] = dE/ds[t] through space only

    The learning signal L takes the transposed weights of the layers above (symmetric e-prop). A
    leaky readout outside the network, on its outputs, filters L as the paper filters e. Bytes,
    forward passes and values are those of `ottt`, with the traces of the fed back spikes in
    addition; without recurrent layers both are the same rule. With one timestep the gradient is
    that of backpropagation through time. Bound: as for `ottt`.

    Do not use it where errors have to travel through recurrent weights over several timesteps, or
    for adaptive neurons, whose second trace is one number per synapse and example: `truncated`.

    Returns:
        A strategy for `Strategy(time=...)`; equal calls give equal strategies.

    Raises:
        memory.StrategyError: as for `ottt`.

    Reference:
        Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass, "A Solution to the Learning
        Dilemma for Recurrent Networks of Spiking Neurons", Nature Communications 11, 2020.
    """
    return Traces("eprop")


@dataclasses.dataclass(frozen=True)
class Traces:
    """Strategy of traces for the synapses of a network, made by `ottt` and `eprop`.

    Attributes:
        rule: Name of the rule.
        decay: Decay of the neurons behind a layer, set layer by layer.
    """

    exact: ClassVar[bool] = False
    least_cosine: ClassVar[float] = Approximate.least_cosine

    rule: Literal["ottt", "eprop"]
    decay: float = 0.0

    @property
    def scan(self) -> Truncated:
        """Scan of the states, between which no gradient flows."""
        scan = sltt()
        assert isinstance(scan, Truncated)
        return scan

    def __call__(self, step: Any, params: PyTree, state: PyTree, xs: PyTree) -> Any:
        """Refuses, since a step does not tell its synapses."""
        raise ValueError(
            f"memory.{self.rule}() concerns the synapses of a network, and a single scan does not "
            f"know them: nn.with_memory(network, memory.Strategy(time=memory.{self.rule}())), or "
            "memory.traces.traced in a step of your own, under memory.sltt()"
        )


def filter_inputs(decay: float, before: Array, inputs: Array) -> tuple[Array, Array]:
    """Traces of inputs, `a[t] = decay * a[t-1] + s[t]`.

    Args:
        decay: Decay per timestep.
        before: Trace before the first timestep, `[B, ...]`, in float32 or wider.
        inputs: Inputs `[T, B, ...]`.

    Returns:
        The trace after the last timestep, and all traces `[T, B, ...]`.
    """

    def step(trace, x):
        trace = decay * trace + x.astype(trace.dtype)
        return trace, trace

    # Constants of the gradient: nothing is to be kept for their own derivative.
    before, inputs = lax.stop_gradient((before, inputs))
    if len(inputs) == 1:
        after, _ = step(before, inputs[0])
        return after, after[None]
    return lax.scan(step, before, inputs)


def traced(function: Callable[[PyTree, Array], Array]) -> TracedFunction:
    """Wraps a synapse so that its derivative is taken at the traces of its inputs.

        value       function(params, inputs)
        gradient    that of function(params, traces): of params by the traces, of inputs as usual

    Args:
        function: Pure function `(params, inputs) -> currents`, affine in its inputs.

    Returns:
        A function of `(params, inputs, traces)`; traces get no gradient.
    """
    return TracedFunction(function)


@dataclasses.dataclass(frozen=True)
class TracedFunction:
    """Function whose derivative is taken at other inputs, made by `traced`."""

    function: Callable[[PyTree, Array], Array]

    def __call__(self, params: PyTree, inputs: Array, traces: Array) -> Array:
        """Calls the function on the inputs."""
        inexact, others = partition(params)
        return _apply(self.function, inexact, others, inputs, traces)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(function, inexact, others, inputs, traces):
    del traces
    return function(combine(inexact, others), inputs)


def _apply_forward(function, inexact, others, inputs, traces):
    return function(combine(inexact, others), inputs), (inexact, others, traces)


def _apply_backward(function, residuals, cotangents):
    inexact, others, traces = residuals
    params = combine(inexact, others)
    _, (g_params, g_inputs) = value_and_pullback(function, params, traces, cotangents=cotangents)
    return g_params, None, g_inputs, None


_apply.defvjp(_apply_forward, _apply_backward)
