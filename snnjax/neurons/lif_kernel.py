"""The leaky integrate-and-fire neuron over a whole sequence, by a Pallas kernel.

`lif_kernel` is `lif_scan` with the loop over time inside one kernel (`ops.pallas_lif`) on GPUs and
TPUs, and `lif_scan` itself on every other device. `lif_kernel_packed` also returns the spikes as
bits. In a layer (`nn.IF` and `nn.PLIF` take it, too):

    nn.LIF(sequence=neurons.lif_kernel)

**Opt-in and unmeasured.** Tests compare the kernels with the scan in interpret mode and lower them
for TPUs and GPUs, but they have not run on either. Measure before you rely on them, with
`experiments/benchmarks/lif_kernel.py`.

On GPUs the kernels use Pallas' Triton backend, which JAX 0.11 and later deprecate with a warning;
without that backend the scan runs. Under a mesh use `jax.shard_map` with `check_vma=False`, as
`snnjax.training` does: XLA cannot partition a kernel. Export such a program once per device type.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from snnjax.neurons.decay import sum_to
from snnjax.neurons.lif import (
    LIFParams,
    LIFState,
    charge,
    decay_slope,
    fire_and_reset,
    input_gain,
    sequence_backward,
    sequence_forward,
)
from snnjax.neurons.reset import Reset, subtract
from snnjax.ops import pallas, pallas_lif
from snnjax.ops.derivative import refuse_second_derivative
from snnjax.surrogate import Surrogate, arctan
from snnjax.typing import Array

__all__ = ["lif_kernel", "lif_kernel_packed"]


def lif_kernel(
    params: LIFParams,
    state: LIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
    block: int = 1024,
    interpret: bool = False,
) -> tuple[LIFState, Array]:
    """Whole sequence of `lif` in one kernel; equations and kept bytes are those of `lif_scan`.

        h[t] = decay * v[t-1] + g * x[t],    s[t] = [h[t] >= threshold],    v[t] = reset(h[t], s[t])

    In interpret mode spikes and membranes equal those of `lif_scan` bit for bit. Gradients of
    currents and initial membrane are equal too if every operation rounds by itself; XLA:CPU fuses
    some `a * b + c`, so the last bit of a gradient, also of `lif_scan`, depends on the other
    gradients of the program. Gradients of decay and threshold agree to rounding: the kernel sums
    them over time first, `lif_scan` over neurons first. On a GPU or TPU `decay * v + x` may round
    once instead of twice, which changes the last bit of the membrane and can flip a spike at the
    threshold.

    The kernel reads bfloat16 and float16 currents without a float32 copy, keeps membranes in the
    state's dtype, and writes spikes and gradients in the currents' dtype: the values of `nn` layers
    in mixed precision, with fewer bytes moved (`lif_scan` alone returns float32 spikes).

    Blocks partition the flattened neurons. If the block does not divide their number, each array is
    copied to a padded one. Array parameters are broadcast over the batch once per sequence;
    gradients of parameters, where requested, are written once per neuron. A TPU holds a block of
    all T timesteps in vector memory: 4 KiB per timestep and array for 1024 neurons, enough for some
    hundreds of timesteps.

    Args:
        params: as for `lif`.
        state: membrane potential before the first step, `[B, ...]`.
        xs: currents, `[T, B, ...]`, in units of the membrane potential per timestep.
        spike: as for `lif`.
        reset: as for `lif`, but not delayed.
        scale_input: as for `lif_scan`.
        block: neurons per program of the kernel, a power of two from 128; on a TPU from 1024.
        interpret: run the kernel as ordinary JAX operations on any device, for tests (slow).

    Returns:
        The state after the last step and the spikes, `[T, B, ...]`.

    Raises:
        ValueError: the reset is delayed; `block` is not a power of two from 128.
        AssertionError: the membranes have another shape than a step's currents.
        TypeError: forward-mode differentiation (raised by JAX) or a second derivative was
            requested.

    Reference:
        As for `lif_scan`. The multi-step neurons of spikingjelly loop over time in one CUDA kernel,
        too: Fang et al., "SpikingJelly: An open-source machine learning infrastructure platform for
        spike-based intelligence", 2023, arXiv:2310.16620.
    """
    dynamics = _Dynamics(spike, reset, scale_input)
    last, (spikes,) = _run(dynamics, ("spikes",), (block, interpret), params, state, xs)
    return LIFState(last), spikes


def lif_kernel_packed(
    params: LIFParams,
    state: LIFState,
    xs: Array,
    *,
    spike: Surrogate = arctan(),
    reset: Reset = subtract,
    scale_input: bool = False,
    block: int = 1024,
    interpret: bool = False,
) -> tuple[LIFState, tuple[Array, Array]]:
    """Variant of `lif_kernel` that also returns the spikes as bits, one per neuron and timestep.

    A synapse can keep the bits in place of its inputs (`memory.packing.unpack_straight_through`).
    The GPU kernel writes them with the spikes; elsewhere XLA packs the spikes afterwards.

    Arguments and errors are those of `lif_kernel`.

    Returns:
        The state after the last step, and `(spikes, bits)`: spikes `[T, B, ...]`, and bits
        `[T, ceil(N / 8)]` (uint8) of the N neurons of a timestep. The spikes of one timestep are
        `memory.packing.unpack(bits[t], spikes.shape[1:], dtype)`; where 8 divides N,
        `bits.reshape(-1)` is `memory.packing.pack(spikes)`. No gradient flows through the bits.

    Example:
        state, (spikes, bits) = lif_kernel_packed(params, state, currents)
        kept = bits.reshape(-1)      # 8 divides N
        unpack = memory.packing.unpack_straight_through
        layer = jax.checkpoint(lambda kept, spikes: f(unpack(kept, spikes)))
        outputs = layer(kept, spikes)
    """
    dynamics = _Dynamics(spike, reset, scale_input)
    last, outputs = _run(dynamics, ("spikes", "bits"), (block, interpret), params, state, xs)
    return LIFState(last), outputs


_NO_SECOND = "lif_kernel has no second derivative: use sequence=neurons.lif_scan"


@dataclasses.dataclass(frozen=True)
class _Dynamics:
    """Expressions of `lif_scan` in the form of `pallas_lif.Dynamics`."""

    spike: Surrogate
    reset: Reset
    scale_input: bool

    def charge(self, decay, v, x):
        return charge(decay, v, x, scale_input=self.scale_input)

    def fire(self, threshold, h):
        return fire_and_reset(self.spike, self.reset, threshold, h)

    def gain(self, decay):
        return input_gain(decay, self.scale_input)

    def slope(self, decay, v, h):
        return decay_slope(decay, v, h, scale_input=self.scale_input)


def _run(dynamics, writes, launch, params, state, xs) -> Any:
    # Imported here: chex takes long to import, and only this check needs it.
    import chex

    if dynamics.reset.delay:
        raise ValueError(
            "lif_kernel keeps one membrane per step and a delayed reset needs two: scan the step "
            "instead, memory.store(lif, ...) or memory.recompute(every)(lif, ...)"
        )
    pallas.check_block(launch[0])
    chex.assert_shape(state.v, xs.shape[1:], custom_message="one membrane per current of a step")
    # Narrow currents stay narrow, half the bytes to read; the kernel widens them in registers.
    dtype = state.v.dtype if _narrower(xs, state.v) else jnp.result_type(state.v, xs)
    # Any other dtype becomes that of `v + x`: in the dtype of integer currents a decay would be 0.
    xs = xs if _narrower(xs, state.v) else xs.astype(dtype)
    params = LIFParams(*(jnp.asarray(p, dtype) for p in params))
    outputs: Any = _sequence(dynamics, writes, launch, params, state.v, xs)
    return outputs


def _narrower(xs: Array, v: Array) -> bool:
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in (xs, v)):
        return False
    return jnp.finfo(xs.dtype).bits < jnp.finfo(v.dtype).bits


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sequence(dynamics, writes, launch, params, v, xs):
    last, *outputs = _forward(dynamics, writes, launch, params, v, xs)
    return last, tuple(outputs)


def _sequence_forward(dynamics, writes, launch, params, v, xs):
    # Symbolic zeros: the kernel writes gradients of parameters only if one is differentiated.
    learned = () if any(p.perturbed for p in params) else None
    params, v, xs = LIFParams(*(p.value for p in params)), v.value, xs.value
    params, v, xs = refuse_second_derivative((params, v, xs), _NO_SECOND)
    last, *outputs, hs = _forward(dynamics, (*writes, "membranes"), launch, params, v, xs)
    return (last, tuple(outputs)), (params, v, hs, learned)


def _sequence_backward(dynamics, writes, launch, residuals, cotangents):
    del writes
    params, v, hs, learned = residuals
    # No gradient flows through the bits.
    g_last, (g_spikes, *_) = cotangents
    # The kernel reads arrays, so symbolic zeros must become zeros.
    g_last, g_spikes = _instantiate(g_last), _instantiate(g_spikes)
    kernel = functools.partial(_backward_kernel, dynamics, learned is not None)
    plain = functools.partial(_backward_scan, dynamics)
    return _by_device(launch, kernel, plain, params, v, hs, g_last, g_spikes)


def _instantiate(cotangent: Any) -> Array:
    if not isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return cotangent
    like: Any = cotangent.aval
    return jnp.zeros(like.shape, like.dtype)


_sequence.defvjp(_sequence_forward, _sequence_backward, symbolic_zeros=True)


def _forward(dynamics, writes, launch, params, v, xs):
    kernel = functools.partial(_forward_kernel, dynamics, writes)
    plain = functools.partial(_forward_scan, dynamics, writes)
    return _by_device(launch, kernel, plain, params, v, xs)


def _by_device(launch, kernel, plain, params, v, sequence, *more):
    if not sequence.size:  # no timestep or no neuron: Pallas has no empty grid
        return plain(params, v, sequence, *more)
    block, interpret = launch
    operands = (params, v, sequence, *more)
    return pallas.by_device(kernel, plain, *operands, block=block, interpret=interpret)


def _forward_kernel(dynamics, writes, params, v, xs, **options):
    # Packing moves single lanes, which a TPU kernel cannot: there XLA packs the spikes afterwards.
    kernel_writes: list[Any] = [w for w in writes if w != "bits" or options["options"] is not None]
    last, *outputs = pallas_lif.forward(
        dynamics, _flat(params.decay, v), _flat(params.threshold, v), v.reshape(-1),
        xs.reshape(len(xs), -1), writes=tuple(kernel_writes), **options,
    )  # fmt: skip
    arrays: dict[str, Any] = dict(zip(kernel_writes, outputs, strict=True))
    bits = arrays.pop("bits", None)
    if "bits" in writes and bits is None:
        bits = _pack(arrays["spikes"])
    arrays = {name: a.reshape(xs.shape) for name, a in arrays.items()} | {"bits": bits}
    return last.reshape(v.shape), *(arrays[w] for w in writes)


def _forward_scan(dynamics, writes, params, v, xs):
    spike, reset, scale_input = dynamics.spike, dynamics.reset, dynamics.scale_input
    # The scan computes in one dtype; the kernel widens its currents in registers.
    (last, spikes), (*_, hs) = sequence_forward(
        spike, reset, scale_input, params, v, xs.astype(v.dtype)
    )
    arrays = {"spikes": spikes.astype(xs.dtype), "membranes": hs}
    if "bits" in writes:
        arrays["bits"] = _pack(spikes.reshape(len(xs), -1))
    return last, *(arrays[w] for w in writes)


def _pack(spikes: Array) -> Array:
    # One row of bytes per timestep: the bits of a timestep can be sliced out.
    return jnp.packbits(spikes != 0, axis=1)


def _backward_kernel(dynamics, learned, params, v, hs, g_last, g_spikes, **options):
    g_v, g_xs, *each = pallas_lif.backward(
        dynamics, _flat(params.decay, v), _flat(params.threshold, v), v.reshape(-1),
        hs.reshape(len(hs), -1), g_last.reshape(-1), g_spikes.reshape(len(hs), -1),
        parameters=learned, **options,
    )  # fmt: skip
    # A custom rule returns a cotangent for every argument, also for constant parameters.
    g_params = jax.tree.map(jnp.zeros_like, params)
    # Gradients of parameters cost one extra array each, so the kernel writes them on request.
    if learned:
        pairs = zip(each, params, strict=True)
        g_params = LIFParams(*(sum_to(g.reshape(v.shape), p.shape) for g, p in pairs))
    return g_params, g_v.reshape(v.shape), g_xs.reshape(-1, *v.shape)


def _backward_scan(dynamics, params, v, hs, g_last, g_spikes):
    spike, reset, scale_input = dynamics.spike, dynamics.reset, dynamics.scale_input
    cotangents = g_last, g_spikes.astype(hs.dtype)
    kept = params, v, hs
    g_params, g_v, g_xs = sequence_backward(spike, reset, scale_input, kept, cotangents)
    return g_params, g_v, g_xs.astype(g_spikes.dtype)


def _flat(parameter: Array, v: Array) -> Array:
    """One entry per neuron of the batch; a scalar stays a scalar."""
    return jnp.broadcast_to(parameter, v.shape).reshape(-1) if parameter.ndim else parameter
