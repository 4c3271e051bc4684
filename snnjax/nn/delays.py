"""Layers with learned delays, per channel or per synapse.

    nn.Delay(size, longest=25, rngs=rngs)                       y[t, i] = x[t - d_i, i]
    nn.DelayedLinear(inputs, outputs, longest=25, rngs=rngs)    y[t, o] = W[i, o] x[t - d_io, i]

A delay d is a parameter, a real number of timesteps. It weighs the inputs of the last D timesteps:

    linear      w_n = 1 - f, w_(n+1) = f            n = floor(d), f = d - n: interpolation
    Gaussian    w_k ~ exp(-(k - d)^2 / (2 width^2)), normalised over the D + 1 lags

Its derivative is that of the line between two neighbouring timesteps, or of the Gaussian, which
sees further while it is wide. The state holds the last D inputs, so that a stream of single
timesteps equals the whole window.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from snnjax import metrics
from snnjax.nn._checks import check_rngs, check_state
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.neuron import Constant
from snnjax.nn.synapses import lecun_normal
from snnjax.nn.taps import lazy_taps
from snnjax.ops.arguments import as_floating, check_counts, check_flags, check_numbers
from snnjax.ops.rounding import add_bias, narrow, widen
from snnjax.ops.variables import map_nodes
from snnjax.typing import Array

__all__ = [
    "Delay",
    "DelayedLinear",
    "PastInputs",
    "lag_weights",
    "sum_over_lags",
    "with_delay_width",
]


def lag_weights(delays: Array, *, longest: int, width: Array | None = None) -> Array:
    """Weights of the lags 0 to `longest` for each delay, `[D + 1, *delays.shape]`.

    The weights of a delay sum to 1. Delays outside of [0, longest] count as the nearest end, with
    the derivative that holds there, so that training can bring them back.

    Args:
        delays: any shape, in timesteps.
        longest: D, at least 1.
        width: standard deviation of a Gaussian kernel in timesteps, a positive scalar; None
            interpolates linearly, with the derivative to the right of an integer delay.
    """
    # The value is clipped and the derivative is not: a clipped delay would never move again.
    d = delays + lax.stop_gradient(jnp.clip(delays, 0, longest) - delays)
    lags = jnp.arange(longest + 1, dtype=d.dtype).reshape(-1, *(1,) * d.ndim)
    if width is not None:
        # The softmax normalises: no underflow leaves a narrow kernel without weights.
        return jax.nn.softmax(-jnp.square((lags - d) / width.astype(d.dtype)) / 2, axis=0)
    # At the last lag the left neighbour holds, since the right one is outside.
    before = jnp.minimum(jnp.floor(lax.stop_gradient(d)), longest - 1)
    share = d - before
    return jnp.where(lags == before, 1 - share, 0) + jnp.where(lags == before + 1, share, 0)


def sum_over_lags(xs: Array, weights: Array) -> Array:
    """Causal sums over past timesteps, `y[t] = sum over k of x[t-k] w[k]`.

    Args:
        xs: the D timesteps before the first one, then T, `[D + T, N, I]`.
        weights: `[D + 1, I, O]`, or `[D + 1, 1, I]` for channels apart.

    Returns:
        `[T, N, O]`, in the dtype of `xs`.
    """
    longest, weights = len(weights) - 1, weights.astype(xs.dtype)
    if weights.shape[1] > 1:
        return lax.conv_general_dilated(
            xs,
            # A convolution in XLA is a correlation: the oldest timestep first.
            weights[::-1],
            window_strides=(1,),
            padding="VALID",
            dimension_numbers=("WNC", "WIO", "WNC"),
        )
    steps = len(xs) - longest

    # Grouped convolutions are slow on CPUs. Recomputed, since the backward pass would keep a copy
    # of the inputs for each lag.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(sums: Array, lag: Array) -> tuple[Array, None]:
        return sums + lax.dynamic_slice_in_dim(xs, longest - lag, steps) * weights[lag], None

    start = jnp.zeros((steps, xs.shape[1], weights.shape[2]), xs.dtype)
    return lax.scan(add, start, jnp.arange(longest + 1))[0]


class PastInputs(NamedTuple):
    """State of a layer with delays: the last D `inputs`, oldest first, `[D, B, ...]`."""

    inputs: Array


class _Delayed(nnx.Module):
    """Part of the layers with delays: delays, width of their kernel, and past inputs."""

    def _start(
        self, owner: str, shape: tuple[int, ...], longest: int, delays: Any, width: Any, rngs: Any
    ) -> None:
        check_counts(owner, longest=longest)
        if delays is None:
            check_rngs(owner, rngs)
            delays = jax.random.uniform(rngs.params(), shape, jnp.float32) * longest
        else:
            _check_delays(owner, delays, longest)
        self.longest = longest
        drawn = jnp.broadcast_to(jnp.asarray(delays, jnp.float32), shape)
        self.delays = nnx.Param(drawn)
        # An array instead of a static number: a schedule of the width must not retrace.
        self.width = None if width is None else _width_constant(width)

    def lags(self) -> Array:
        """Weights of the lags 0 to `longest`, `[D + 1, *delays.shape]`."""
        width = None if self.width is None else jax.lax.stop_gradient(self.width[...])
        return lag_weights(self.delays[...], longest=self.longest, width=width)

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Uses no part of the strategy; outputs count as real numbers."""
        del request
        return Placed(self, role="synapse")

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """No input before the first timestep."""
        return State(PastInputs(jnp.zeros((self.longest, *shape), jnp.float32)))

    def _run(self, inputs: Array, state: State, weights: Array) -> tuple[Array, State]:
        """Sums over lags in at least float32, and the inputs that the next call needs."""
        start = lambda shape: self.initial_state(shape).neurons  # noqa: E731
        check_state(start, state.neurons, inputs.shape[1:])
        xs = widen(inputs)
        xs = jnp.concatenate([state.neurons.inputs.astype(xs.dtype), xs])
        steps, batch, *rest = xs.shape
        outputs = sum_over_lags(xs.reshape(steps, -1, rest[-1]), weights)
        outputs = outputs.reshape(len(inputs), batch, *rest[:-1], outputs.shape[-1])
        return outputs, State(PastInputs(xs[len(inputs) :]))


def _check_delays(owner: str, delays: Any, longest: int) -> None:
    try:
        check_numbers(owner, least=0, most=longest, delays=delays)
    except ValueError as error:
        raise ValueError(
            f"{error}: a delay beyond the window of {longest} timesteps needs a larger longest="
        ) from None


def _width_constant(width: float | Array) -> Constant:
    check_numbers("nn.Delay", above=0, width=width)
    return Constant(jnp.asarray(width, jnp.float32))


def with_delay_width(network: Any, width: float | Array) -> Any:
    """A copy of a network or layer with another kernel width in every layer with delays.

    Training narrows the kernels, such as from `longest / 2` to 0.5 over the first quarter:
    `nn.with_delay_width(network, width)` at every step, without retracing.

    Args:
        network: network or layer; it stays unchanged and shares its parameters.
        width: standard deviation in timesteps, a number, or a scalar array in a compiled function.
            Layers that interpolate linearly have no width and stay as they are.

    Raises:
        ValueError: a number that is not positive.
    """
    return map_nodes(
        lambda node: replace(node, width=_width_constant(width)),
        network,
        select=lambda node: isinstance(node, _Delayed) and node.width is not None,
    )


class Delay(_Delayed):
    """A learned delay per channel, `[T, B, ..., C] -> [T, B, ..., C]`.

        y[t, i] = (1 - f) x[t - n, i] + f x[t - n - 1, i],    n = floor(d_i), f = d_i - n

    With a `width`, the two neighbours become a Gaussian over all lags, normalised:
    `y[t, i] = sum over k of w_k x[t - k, i]`, `w_k ~ exp(-(k - d_i)^2 / (2 width^2))`. Behind
    neurons the delay is that of their spikes. Inputs before the first timestep are 0.

    Args:
        size: C, number of channels.
        longest: D, longest delay in timesteps; the state holds D inputs.
        delays: initial delays, a number or `[C]`, in [0, D]; None draws uniformly.
        width: standard deviation of a Gaussian kernel, see `with_delay_width`; None interpolates.
        rngs: random streams of the delays; needed only where they are drawn.

    Raises:
        ValueError: a delay beyond the window, or inputs of another width (on a call).

    Reference:
        Hammouamri, Khalfaoui-Hassani, Masquelier, "Learning Delays in Spiking Neural Networks
        using Dilated Convolutions with Learnable Spacings", ICLR 2024, arXiv:2306.17670.
    """

    def __init__(
        self,
        size: int,
        *,
        longest: int,
        delays: float | Array | None = None,
        width: float | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        check_counts("nn.Delay", size=size)
        self.name = "delay"
        self._start("nn.Delay", (size,), longest, delays, width, rngs)

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the inputs."""
        del state
        return tuple(shape)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Delays `[T, B, ..., C]`, in the dtype of the inputs."""
        inputs = as_floating("nn.Delay", inputs)
        _check_width("nn.Delay", inputs, self.delays.shape[0])
        weights = self.lags()
        outputs, after = self._run(inputs, state, weights[:, None])
        taps = lazy_taps(call.taps, operations=lambda: self._operations(inputs, weights))
        return narrow(outputs, inputs.dtype), Aux(after.neurons, taps=taps)

    def _operations(self, inputs: Array, weights: Array) -> metrics.operations.Operations:
        # Each input meets the D + 1 weights of its own channel when it arrives.
        return metrics.operations.synaptic_operations(
            inputs.reshape(*inputs.shape[:2], -1, inputs.shape[-1]),
            weights.T.reshape(1, 1, -1),
            strides=(1,),
            padding=((0, 0),),
            groups=inputs.shape[-1],
        )


class DelayedLinear(_Delayed):
    """Fully connected synapses with a learned delay each, `[T, B, I] -> [T, B, O]`.

        y[t, o] = sum over i of W[i, o] x(t - d[i, o], i) + b[o]

    where `x(t - d)` is interpolated between the two neighbouring timesteps, or with a `width`
    weighed by a Gaussian over all lags, as in `nn.Delay`. It is a convolution over time of D + 1
    steps: its forward pass costs as many products as D + 1 linear maps, whatever the delays.

    Args:
        inputs: I, number of input features.
        outputs: O, number of output features.
        longest: D, longest delay in timesteps; the state holds D inputs.
        delays: initial delays, a number or `[I, O]`, in [0, D]; None draws uniformly.
        width: standard deviation of a Gaussian kernel, see `with_delay_width`; None interpolates.
        use_bias: add a bias b, which starts at 0.
        kernel_init: `(key, shape, dtype) -> weights`.
        rngs: random streams of weights and delays.

    Raises:
        ValueError: a delay beyond the window, or inputs of another width (on a call).

    Reference:
        Hammouamri, Khalfaoui-Hassani, Masquelier, "Learning Delays in Spiking Neural Networks
        using Dilated Convolutions with Learnable Spacings", ICLR 2024, arXiv:2306.17670.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        longest: int,
        delays: float | Array | None = None,
        width: float | None = None,
        use_bias: bool = True,
        kernel_init: Callable[..., Array] = lecun_normal,
        rngs: nnx.Rngs,
    ):
        check_counts("nn.DelayedLinear", inputs=inputs, outputs=outputs)
        check_flags("nn.DelayedLinear", use_bias=use_bias)
        check_rngs("nn.DelayedLinear", rngs)
        self.name = "delayed_linear"
        self.kernel = nnx.Param(kernel_init(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if use_bias else None
        self._start("nn.DelayedLinear", (inputs, outputs), longest, delays, width, rngs)

    def infer_shape(self, state: State, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`(B, O)`."""
        del state
        return (*shape[:-1], self.kernel.shape[1])

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Maps `[T, B, I]` to `[T, B, O]`, in the dtype of the inputs."""
        inputs = as_floating("nn.DelayedLinear", inputs)
        _check_width("nn.DelayedLinear", inputs, self.kernel.shape[0])
        weights = self.lags() * self.kernel[...]
        outputs, after = self._run(inputs, state, weights)
        bias = None if self.bias is None else self.bias[...]
        taps = lazy_taps(call.taps, operations=lambda: self._operations(inputs, weights))
        return add_bias(outputs, bias, inputs.dtype), Aux(after.neurons, taps=taps)

    def _operations(self, inputs: Array, weights: Array) -> metrics.operations.Operations:
        # Counted when an input arrives: it meets one weight per output and lag in use.
        fan = jnp.moveaxis(weights, 0, 1).reshape(inputs.shape[-1], -1)
        return metrics.operations.synaptic_operations(inputs, fan)


def _check_width(owner: str, inputs: Array, width: int) -> None:
    if inputs.ndim < 3 or inputs.shape[-1] != width:
        raise ValueError(
            f"this {owner} takes [T, B, ..., {width}], got {list(inputs.shape)}: make it for "
            f"{inputs.shape[-1]} features"
        )
