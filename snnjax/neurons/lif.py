"""The leaky integrate-and-fire neuron (LIF).

    charge   h[t] = decay * v[t-1] + g * x[t]        g = 1, or 1 - decay with `scale_input`
    fire     s[t] = [h[t] >= threshold]              derivative: the surrogate's
    reset    v[t] = h[t] - s[t] * threshold          or another rule of `neurons.reset`
    inverse  v[t-1] = (v[t] + s[t] * threshold - g * x[t]) / decay

`lif` is one timestep, `lif_scan` a whole sequence with a hand-written derivative that keeps only
`h`, `LIFInverse` undoes a step, and `lif_model` combines the three with their parameters. The
integrate-and-fire neuron is a LIF of decay 1 and the parametric LIF one of a computed decay:
`LIFFunction` converts their parameters for the functions of this module.

Reference: Lapicque 1907; the discrete form after Wu, Deng, Li, Zhu, Shi, "Spatio-Temporal
Backpropagation for Training High-Performance Spiking Neural Networks", 2018, arXiv:1706.02609.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.neurons._inverses import (
    LeakInverse,
    check_invertible,
    inverse_or_refusal,
    is_accurate,
    reciprocal,
    smallest,
    undoable_steps,
)
from snnjax.neurons.decay import sum_to
from snnjax.neurons.model import Model, Parameter, Sequence, bind_sequence, check_options
from snnjax.neurons.reset import Reset, subtract
from snnjax.ops.isolate import isolate
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array, bind

__all__ = [
    "LIFFunction",
    "LIFInverse",
    "LIFParams",
    "LIFState",
    "charge",
    "decay_slope",
    "fire_and_reset",
    "input_gain",
    "lif",
    "lif_inverse",
    "lif_model",
    "lif_scan",
    "lif_state",
    "membrane_before",
    "sequence_backward",
    "sequence_forward",
]


class LIFParams(NamedTuple):
    """Parameters of `lif`, each a scalar or an array that broadcasts against one timestep.

    Attributes:
        decay: fraction of the membrane potential kept per timestep, in (0, 1]; see `euler_decay`
            and `exponential_decay`.
        threshold: membrane potential at which the neuron fires.
    """

    decay: Parameter
    threshold: Parameter


class LIFState(NamedTuple):
    """State of `lif`: the membrane potential `v` after the reset, `[B, ...]`."""

    v: Array


def lif_state(shape: tuple[int, ...], *, dtype=jnp.float32) -> LIFState:
    """The state at rest, `v = 0`, for one timestep of currents of shape `(B, ...)`."""
    return LIFState(jnp.zeros(shape, dtype))


def lif(
    params: LIFParams,
    state: LIFState,
    current: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> tuple[LIFState, Array]:
    """One timestep of leaky integrate-and-fire neurons.

        h[t] = decay * v[t-1] + g * x[t]        g = 1, or 1 - decay with `scale_input`
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Args:
        params: `decay` (fraction kept per timestep) and `threshold` (membrane potential).
        state: membrane potential after the last step, `[B, ...]`.
        current: input current, `[B, ...]`, in units of the membrane potential per timestep.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        scale_input: charge with `(1 - decay) * current`, so that a constant current is the fixed
            point of the membrane potential for every decay.

    Returns:
        The new state and the spikes, 0 or 1, `[B, ...]`.

    Reference:
        Wu, Deng, Li, Zhu, Shi, "Spatio-Temporal Backpropagation for Training High-Performance
        Spiking Neural Networks", 2018, arXiv:1706.02609.
    """
    before = state.v
    if reset.delay:
        # The state is the membrane before the reset: the spikes of the last step are recomputed
        # from it, and the reset applies to the decayed membrane, as in snntorch.
        before = reset(params.decay * before, spike(before - params.threshold), params.threshold)
        h = before + input_gain(params.decay, scale_input) * current
        return LIFState(h), spike(h - params.threshold)
    h = charge(params.decay, before, current, scale_input=scale_input)
    v, spikes = fire_and_reset(spike, reset, params.threshold, h)
    return LIFState(v), spikes


def charge(decay: Parameter, v: Array, current: Array, *, scale_input: bool = False) -> Array:
    """The membrane potential before the reset, `h = decay * v + g * current`."""
    # Every pass charges by this one expression: two spellings of it differ in the last bit, which
    # is enough to flip a spike.
    if scale_input:
        # One product: of a sum of two, the compiler may fuse either with the sum.
        return current + decay * (v - current)
    return decay * v + current


def lif_scan(
    params: LIFParams,
    state: LIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
) -> tuple[LIFState, Array]:
    """Whole sequence of `lif`; its derivative keeps only the membrane before the reset.

        h[t] = decay * v[t-1] + g * x[t],    s[t] = [h[t] >= threshold],    v[t] = reset(h[t], s[t])

    Equal in value to `memory.store(lif, params, state, xs)`. With `G_s`, `G_v` the cotangents of
    the spikes and of the membrane after the reset, the backward pass runs from the last step:

        G_h[t]   = G_s[t] * s'(h[t] - threshold) + G_v[t] * dv/dh[t]
        G_x[t]   = g * G_h[t]              G_v[t-1] += decay * G_h[t]
        G_decay += (v[t-1] - x[t] if scale_input else v[t-1]) * G_h[t]

    where spikes, `v` and `x` are recomputed from `h`. It keeps `T` membranes (4 bytes per neuron
    and step in float32), whichever arguments are differentiated, and needs no extra forward pass.
    `memory.store` keeps one membrane per step if the reset subtracts and neither decay nor
    threshold is differentiated, two for a detached hard reset, three for a full one or for
    differentiated parameters, four for both. Second derivatives are exact too, in forward or
    reverse mode over the gradient. Do not use it for forward mode first: use `memory.store(lif,
    ...)`.

    Args:
        params: as for `lif`.
        state: membrane potential before the first step, `[B, ...]`.
        xs: currents, `[T, B, ...]`, in units of the membrane potential per timestep.
        spike: as for `lif`.
        reset: as for `lif`, but not delayed.
        scale_input: as for `lif`; the gradient of `decay` then needs `decay < 1` (it is NaN at 1,
            where the neuron has no input), and its rounding error may grow as `1 / (1 - decay)`.

    Returns:
        The state after the last step and the spikes, `[T, B, ...]`.

    Raises:
        ValueError: the reset is delayed.
        AssertionError: the membranes have another shape than a step's currents.
        TypeError: the first derivative was requested in forward mode (raised by JAX).

    Reference:
        Backpropagation through time. The kernels of spikingjelly 2.0 keep `h` alone, too: Huang,
        Fang, Hao, Ma, Tian, "Towards Lossless Memory-efficient Training of Spiking Neural Networks
        via Gradient Checkpointing and Spike Compression", ICLR 2026.
    """
    if reset.delay:
        raise ValueError(
            "lif_scan keeps one membrane per step and a delayed reset needs two: scan the step "
            "instead, memory.store(lif, ...) or memory.recompute(every)(lif, ...)"
        )
    import chex

    chex.assert_shape(state.v, xs.shape[1:], custom_message="one membrane per current of a step")
    # The dtype of `v + x`: in the dtype of integer currents a decay would be 0.
    dtype = jnp.result_type(state.v, xs)
    params = LIFParams(*(jnp.asarray(p, dtype) for p in params))
    # Cast to one dtype: the loop overwrites the buffer of the currents with spikes or membranes.
    v, xs = state.v.astype(dtype), xs.astype(dtype)
    outputs: Any = _sequence(spike, reset, scale_input, params, v, xs)
    v, spikes = outputs
    return LIFState(v), spikes


def input_gain(decay: Any, scale_input: bool) -> Any:
    """Factor of the current in `charge`: 1, or `1 - decay`."""
    return 1 - decay if scale_input else 1


def decay_slope(decay: Array, v: Array, h: Array, *, scale_input: bool) -> Array:
    """`dh/d(decay)` of `h = charge(decay, v, x)`, computed without `x`.

    With `scale_input` it is `v - x`, where `h - v = (1 - decay) (x - v)` gives `x - v`.
    """
    return (v - h) / (1 - decay) if scale_input else v


def fire_and_reset(
    spike: Surrogate, reset: Reset, threshold: Parameter, h: Array
) -> tuple[Array, Array]:
    """Membrane potential after the reset, and spikes."""
    # One expression for every pass, as for `charge`.
    spikes = spike(h - threshold)
    return reset(h, spikes, threshold), spikes


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sequence(spike, reset, scale_input, params, v, xs):
    if not len(xs):
        return v, xs
    # Without a derivative no membrane is needed: the buffer holds the spikes at once.
    return _scan_in_place(spike, reset, scale_input, params, v, xs, spikes=True)


def sequence_forward(spike, reset, scale_input, params, v, xs):
    """Forward pass: `(last membrane, spikes)` and the residuals `(params, v, hs)`."""
    if not len(xs):
        return (v, xs), (params, v, xs)
    last, hs = _scan_in_place(spike, reset, scale_input, params, v, xs, spikes=False)
    # The spikes follow from the membranes in one elementwise operation, cheaper than a second
    # buffer that the loop writes.
    return (last, spike(hs - params.threshold)), (params, v, hs)


def _scan_in_place(spike, reset, scale_input, params, v, xs, *, spikes):
    """Last membrane, and the spikes or the membranes before the reset."""
    # The results overwrite the buffer of the currents one step behind the read, which XLA updates
    # in place; a loop that fills an array of its own would first write zeros to it.
    charged = functools.partial(charge, params.decay, scale_input=scale_input)
    fire = functools.partial(fire_and_reset, spike, reset, params.threshold)

    def step(carry, t):
        h, seq = carry
        after, fired = fire(h)
        output = fired if spikes else h
        seq = lax.dynamic_update_index_in_dim(seq, output, t - 1, 0)
        x = lax.dynamic_index_in_dim(seq, t, keepdims=False)
        return (charged(after, x), seq), None

    start = (charged(v, xs[0]), _move_to_context_mesh(xs))
    # Unsigned: XLA adds no code for negative indices.
    (h, seq), _ = lax.scan(step, start, jnp.arange(1, len(xs), dtype=jnp.uint32))
    last, fired = fire(h)
    return last, seq.at[-1].set(fired if spikes else h)


def sequence_backward(spike, reset, scale_input, residuals, cotangents):
    """Cotangents of parameters, first membrane and currents, by the equations of `lif_scan`."""
    params, first, hs = residuals
    g_last, g_spikes = cotangents
    gain = input_gain(params.decay, scale_input)
    fire = functools.partial(fire_and_reset, spike, reset)
    # The decay may be an array: its gradient sums over the axes it broadcasts along.
    decay_gradient = functools.partial(_decay_gradient, params.decay, scale_input)
    # A loop over no step has no last membrane to start from.
    if not len(hs):
        return LIFParams(*(jnp.zeros_like(p) for p in params)), g_last, g_spikes
    # XLA inlines a loop of one step; without isolation it would fuse it into its surroundings.
    if len(hs) == 1:
        start = (jnp.zeros_like(params.threshold), g_spikes[0])
        g_threshold, g_h = _isolated_pull(fire, start, params.threshold, hs[0], g_last)
        g_params = LIFParams(decay_gradient(first, hs[0], g_h), g_threshold)
        return g_params, params.decay * g_h, (gain * g_h)[None]

    g_spikes = _move_to_context_mesh(g_spikes)

    def undo(h, g_v, g_s):
        (v, _), pull = jax.vjp(fire, params.threshold, h)
        return v, *pull((g_v, g_s))

    def step(carry, t):
        later, g_h, g_params, g_seq = carry
        # Cotangents of currents overwrite those of spikes, in place as in the forward pass.
        g_seq = lax.dynamic_update_index_in_dim(g_seq, gain * g_h, t + 1, 0)
        h, g_s = (lax.dynamic_index_in_dim(a, t, keepdims=False) for a in (hs, g_seq))
        # One `jax.vjp` gives the membrane after the reset and its pullback: nothing runs twice.
        v, g_threshold, g_before = undo(h, params.decay * g_h, g_s)
        # dh/d(decay) at t+1 needs the membrane after step t, recomputed only here.
        g_decay = decay_gradient(v, later, g_h)
        g_params = LIFParams(g_params.decay + g_decay, g_params.threshold + g_threshold)
        return (h, g_before, g_params, g_seq), None

    _, g_threshold, g_h = undo(hs[-1], g_last, g_spikes[-1])
    g_params = LIFParams(jnp.zeros_like(params.decay), g_threshold)
    before = jnp.arange(len(hs) - 1, dtype=jnp.uint32)
    (later, g_h, g_params, g_seq), _ = lax.scan(
        step, (hs[-1], g_h, g_params, g_spikes), before, reverse=True
    )
    g_decay = g_params.decay + decay_gradient(first, later, g_h)
    return g_params._replace(decay=g_decay), params.decay * g_h, g_seq.at[0].set(gain * g_h)


_sequence.defvjp(sequence_forward, sequence_backward)


def _move_to_context_mesh(sequence):
    """The same array, placed in the mesh of the context if there is one."""
    # An in-place update needs both arrays in one mesh, and only arithmetic moves an array into it.
    return sequence * jnp.ones((), sequence.dtype)


def _decay_gradient(decay, scale_input, v_before, h, g_h):
    slope = decay_slope(decay, v_before, h, scale_input=scale_input)
    return sum_to(slope * g_h, decay.shape)


def _isolated_pull(fire, carry, threshold, h, g_v):
    """Isolated pullback of one step, `(carry, g_spikes)` to `(g_threshold, g_h)`."""
    # XLA:CPU would otherwise duplicate the expression, and the step's forward pass, into each of
    # its readers, and copy `g_v`.

    def pulled(carry, threshold, h, g_v):
        _, pull = jax.vjp(fire, threshold, h)
        return pull((g_v, carry[1]))

    return isolate(pulled, carry, threshold, h, g_v)


@dataclasses.dataclass(frozen=True)
class LIFInverse(LeakInverse):
    """The inverse of `lif` and `li`.

        v[t-1] = (v[t] + s[t] * threshold - g * x[t]) / decay       without the reset if it is none

    Attributes:
        fixed: parameters whose smallest values bound `steps`.
    """

    fixed: tuple[str, ...] = ("decay",)

    def __call__(self, params: Any, after: LIFState, current: Array, outputs: Array) -> LIFState:
        """The state before a step, `[B, ...]`, from the state after it, its current and outputs."""
        return LIFState(membrane_before(self, params, after.v, current, outputs))

    def check(self, params: Any, state: LIFState, steps: int) -> Any:
        """True if these parameters and this state allow to undo so many steps in a row."""
        growth = [[reciprocal(params.decay)]]
        return is_accurate(growth, state, steps, tolerance=self.tolerance)


def membrane_before(inverse: Any, params: Any, v: Array, current: Array, spikes: Array) -> Array:
    """Membrane potential before a step that charges and resets as `lif` does.

    Args:
        inverse: any object with `reset` and `scale_input`.
        params: any object with `decay`, and with `threshold` if the reset subtracts it.
        v: membrane potential after the step, `[B, ...]`.
        current: current of the step that charged the membrane.
        spikes: spikes of the step.
    """
    # Rules are compared, not resets: a detached reset has the same inverse.
    h = v + spikes * params.threshold if inverse.reset.rule == subtract.rule else v
    return (h - input_gain(params.decay, inverse.scale_input) * current) / params.decay


def lif_inverse(
    *,
    decay: float,
    reset: Reset = subtract,
    scale_input: bool = False,
    tolerance: float = 1e-2,
) -> LIFInverse:
    """Makes the inverse of `lif`, for as many steps as float32 allows.

    Args:
        decay: smallest decay of the parameters, which bounds the number of steps,
            `steps = log(tolerance / 2^-23) / log(1 / decay)`: 8 at decay 0.25, 16 at 0.5.
        reset: the step's reset: `subtract` or `none`, detached or not.
        scale_input: as in the step.
        tolerance: largest error of the membrane potential, as a share of its magnitude.

    Returns:
        The inverse, for `memory.reverse(inverse, refresh=inverse.steps)`.

    Raises:
        ValueError: the reset has no inverse, or `decay` is outside (0, 1].
    """
    check_invertible(reset, decay=decay)
    return LIFInverse(reset, scale_input, undoable_steps([[1 / decay]], tolerance), tolerance)


@dataclasses.dataclass(frozen=True)
class LIFFunction:
    """Adapts a whole-sequence function or an inverse of a LIF to a neuron of other parameters.

    Attributes:
        convert: `(params, currents) -> LIFParams`.
        function: function of `(LIFParams, state, currents, ...)`.
        fixed: as for `Model.inverse`, named by the neuron's own parameters.
    """

    convert: Callable[[Any, Array], LIFParams]
    function: Callable[..., Any]
    fixed: tuple[str, ...] = ()

    @property
    def steps(self) -> int | None:
        """Number of steps an inverse can undo in a row; None is any number."""
        return getattr(self.function, "steps", None)

    def __call__(self, params: Any, state: LIFState, current: Array, *outputs: Array) -> Any:
        """Calls the function with converted parameters."""
        return self.function(self.convert(params, current), state, current, *outputs)

    def check(self, params: Any, state: LIFState, steps: int) -> Any:
        """Check of an inverse, see `LIFInverse.check`."""
        inverse: Any = self.function
        return inverse.check(self.convert(params, state.v), state, steps)


def lif_model(
    *,
    decay: Parameter = 0.5,
    threshold: Parameter = 1.0,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
    sequence: Sequence = lif_scan,
) -> Model:
    """Model of leaky integrate-and-fire (LIF) neurons.

        h[t] = decay * v[t-1] + g * x[t]        g = 1, or 1 - decay with `scale_input`
        s[t] = [h[t] >= threshold]              derivative: the surrogate's
        v[t] = h[t] - s[t] * threshold          or another rule of `reset`

    Currents x `[T, B, ...]` in units of the membrane potential per timestep; spikes s `[T, B,
    ...]`, 0 or 1. A learned decay is not kept inside (0, 1]: `plif_model` learns it through a
    sigmoid, with `scale_input=True` by default where it is False here.

    Args:
        decay: fraction of the membrane potential kept per timestep, in (0, 1]; a number, or an
            array that broadcasts against one timestep.
        threshold: membrane potential at which a neuron fires.
        spike: spike function and its surrogate derivative.
        reset: effect of a spike on the membrane potential.
        scale_input: charge with `(1 - decay) * x`.
        sequence: whole-sequence function, `neurons.lif_scan` or the Pallas kernel
            `neurons.lif_kernel`; unused with a delayed reset.

    Reference:
        Wu, Deng, Li, Zhu, Shi, "Spatio-Temporal Backpropagation for Training High-Performance
        Spiking Neural Networks", 2018, arXiv:1706.02609.
    """
    check_options("lif_model", spike=spike, reset=reset, decay=decay, threshold=threshold)
    options: dict[str, Any] = {"spike": spike, "reset": reset, "scale_input": scale_input}
    return Model(
        bind(lif, **options),
        LIFParams(decay, threshold),
        lif_state,
        bind_sequence(sequence, **options),
        inverse_or_refusal(
            lif_inverse, decay=smallest(decay), reset=reset, scale_input=scale_input
        ),
        name="lif",
    )
