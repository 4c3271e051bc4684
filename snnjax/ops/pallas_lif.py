"""Pallas kernels of neurons with one membrane over a whole sequence, forward and backward.

    forward     h[t] = charge(decay, v[t-1], x[t]);  v[t], s[t] = fire(threshold, h[t])
    backward    the derivative of `neurons.lif_scan`, from `h` alone

Each program owns a block of neurons and loops over time: membranes (and their cotangents in the
backward pass) stay in registers, and every element of a sequence is read or written once. Bytes
moved per neuron and timestep for float32 currents: forward 12 (currents, spikes, membranes) or 8
(without a derivative), backward 12. `lax.scan` also moves the state, whenever the compiler does not
keep it in registers.

The dynamics are arguments, so surrogate, reset and scaling are the expressions of the scan: in
interpret mode spikes and membranes are bit-equal to the scan, and gradients equal up to float32
rounding (tested). A compiler rounds a sum of two products as it fuses them, in the scan and here.

**Unmeasured.** Tests lower these kernels for TPUs (Mosaic) and GPUs (Triton); they have run on
neither. `experiments/benchmarks/lif_kernel.py` measures them.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.ops.derivative import in_kernel
from snnjax.ops.pallas import LANES, block_spec, check_block, tile, tiled_shape, untile
from snnjax.typing import Array

__all__ = ["Dynamics", "Output", "backward", "forward"]

Output = Literal["spikes", "membranes", "bits"]
_BITS = 8


class Dynamics(Protocol):
    """Protocol of a neuron's dynamics: elementwise functions for the kernels."""

    def charge(self, decay: Array, v: Array, x: Array) -> Array:
        """Membrane `h` before the reset, affine in the current `x`."""
        ...

    def fire(self, threshold: Array, h: Array) -> tuple[Array, Array]:
        """Membrane after the reset and spikes, `(v, s)`; differentiable."""
        ...

    def gain(self, decay: Array) -> Any:
        """Derivative `dh/dx`."""
        ...

    def slope(self, decay: Array, v: Array, h: Array) -> Array:
        """Derivative `dh/d(decay)`, from the membranes before and after the charge."""
        ...


def forward(
    dynamics: Dynamics,
    decay: Array,
    threshold: Array,
    v: Array,
    xs: Array,
    *,
    writes: tuple[Output, ...] = ("spikes",),
    block: int = 1024,
    interpret: bool = False,
    options: Any = None,
) -> tuple[Array, ...]:
    """Runs neurons over a sequence.

    The `"bits"` are `jnp.packbits(spikes != 0, axis=1)`: the first of 8 adjacent neurons is the
    highest bit, and every timestep ends with a whole byte, padded with 0. Thus
    `memory.packing.unpack(bits[t], (N,), dtype)` gives the spikes of a timestep, and if 8 divides
    `N`, `bits.reshape(-1)` is `memory.packing.pack(spikes)`.

    Args:
        dynamics: Dynamics of the neurons.
        decay: Decay per timestep, `[]` or `[N]`.
        threshold: Firing threshold, `[]` or `[N]`.
        v: Membranes before the first timestep, `[N]`; their dtype is that of the computation.
        xs: Currents, `[T, N]` with T and N at least 1; may have fewer bits than `v`.
        writes: Names of the sequences to write, in this order.
        block: Neurons per program, a power of two; on a TPU a multiple of 1024.
        interpret: Runs the kernel as ordinary JAX operations, on any device.
        options: Compiler parameters, see `gpu_options`; None for a TPU.

    Returns:
        The last membranes `[N]`, and for `writes` the spikes `[T, N]` in the dtype of the currents,
        the membranes `h` `[T, N]` in the dtype of `v`, the bits uint8 `[T, ceil(N / 8)]`.

    Raises:
        ValueError: `block` is not a power of two, or below 128.
    """
    check_block(block)
    timesteps, neurons = xs.shape
    operands = [tile(a, block) for a in (decay, threshold, v, xs)]
    rows = operands[2].shape[0]
    shapes = {
        "spikes": tiled_shape(rows, xs.dtype, timesteps=timesteps),
        "membranes": tiled_shape(rows, v.dtype, timesteps=timesteps),
        "bits": tiled_shape(rows, jnp.uint8, timesteps=timesteps, width=LANES // _BITS),
    }
    kernel = functools.partial(_forward_kernel, dynamics, writes)
    results = [tiled_shape(rows, v.dtype), *(shapes[name] for name in writes)]
    last, *sequences = _call(kernel, results, block, interpret, options, {})(*operands)
    untilers = {"bits": _untile_bits}
    pairs = zip(writes, sequences, strict=True)
    sequences = (untilers.get(name, untile)(tiles, neurons) for name, tiles in pairs)
    return untile(last, neurons), *sequences


def backward(
    dynamics: Dynamics,
    decay: Array,
    threshold: Array,
    v: Array,
    hs: Array,
    g_last: Array,
    g_spikes: Array,
    *,
    parameters: bool = True,
    block: int = 1024,
    interpret: bool = False,
    options: Any = None,
) -> tuple[Array, ...]:
    """Pulls cotangents back through `forward`, from the membranes before the reset.

    Args:
        dynamics: Dynamics of the neurons, as for `forward`.
        decay: Decay per timestep, `[]` or `[N]`.
        threshold: Firing threshold, `[]` or `[N]`.
        v: Membranes before the first timestep, `[N]`.
        hs: Membranes before the reset that `forward` wrote, `[T, N]`.
        g_last: Cotangents of the last membranes, `[N]`.
        g_spikes: Cotangents of the spikes, `[T, N]`, in the dtype of the currents.
        parameters: Computes the cotangents of decay and threshold too.
        block: Neurons per program, as for `forward`.
        interpret: Runs the kernel as ordinary JAX operations, on any device.
        options: Compiler parameters, see `gpu_options`; None for a TPU.

    Returns:
        The cotangents of the first membranes `[N]` and of the currents `[T, N]`; with `parameters`
        also those of decay and threshold per neuron, `[N]`, summed over time only.

    Raises:
        ValueError: `block` is not a power of two, or below 128.
    """
    check_block(block)
    timesteps, neurons = hs.shape
    operands = [tile(a, block) for a in (decay, threshold, v, g_last, hs, g_spikes)]
    rows = operands[2].shape[0]
    results = [tiled_shape(rows, v.dtype), tiled_shape(rows, g_spikes.dtype, timesteps=timesteps)]
    results += [tiled_shape(rows, v.dtype)] * (2 if parameters else 0)
    kernel = functools.partial(_backward_kernel, dynamics)
    # The cotangents of the currents overwrite those of the spikes, each read just before.
    call = _call(kernel, results, block, interpret, options, {len(operands) - 1: 1})
    return tuple(untile(a, neurons) for a in call(*operands))


def _call(kernel, results, block, interpret, options, aliases):
    # Imported here: Pallas takes long to import, and few programs run a kernel.
    from jax.experimental import pallas as pl

    def call(*operands):
        return pl.pallas_call(
            kernel,
            out_shape=results,
            # One program per block; the first result holds one membrane per neuron.
            grid=(results[0].shape[0] * LANES // block,),
            in_specs=[block_spec(a, block) for a in operands],
            out_specs=[block_spec(a, block) for a in results],
            input_output_aliases=aliases,
            interpret=interpret,
            compiler_params=options,
        )(*operands)

    return call


@in_kernel()
def _forward_kernel(dynamics, writes, decay_ref, threshold_ref, v_ref, x_ref, last_ref, *refs):
    decay, threshold = decay_ref[...], threshold_ref[...]

    def step(t, v):
        # Narrow currents are widened in registers, not in memory.
        h = dynamics.charge(decay, v, x_ref[t].astype(v.dtype))
        v, spikes = dynamics.fire(threshold, h)
        # Functions, so that the bits are computed only if they are written.
        outputs = {"spikes": lambda: spikes, "membranes": lambda: h, "bits": lambda: _bits(spikes)}
        for name, ref in zip(writes, refs, strict=True):
            ref[t] = outputs[name]().astype(ref.dtype)
        return v

    last_ref[...] = lax.fori_loop(0, x_ref.shape[0], step, v_ref[...])


@in_kernel()
def _backward_kernel(
    dynamics, decay_ref, threshold_ref, v_ref, g_last_ref, h_ref, g_spikes_ref, g_v_ref, g_x_ref,
    *g_params_refs,
):  # fmt: skip
    first, timesteps = v_ref[...], h_ref.shape[0]
    decay = decay_ref[...]
    # A scalar is broadcast first, so that `pull` returns one cotangent per neuron.
    threshold = jnp.broadcast_to(threshold_ref[...], first.shape)
    zeros = jnp.zeros_like(first)

    def accumulate(g_params, v, next_step, g_threshold):
        # The membrane before step t+1 is computed only at t, one trip later in this loop, so the
        # decay's cotangent lags by a step.
        h, g_h = next_step
        g_decay = dynamics.slope(decay, v, h) * g_h
        terms = (g_decay, g_threshold)[: len(g_params)]
        return tuple(g + term for g, term in zip(g_params, terms, strict=True))

    def step(i, carry):
        g_v, next_step, g_params = carry
        t = timesteps - 1 - i
        h, g_s = h_ref[t], g_spikes_ref[t].astype(first.dtype)
        # The membrane after the reset is not stored: recomputing it costs no memory traffic.
        (v, _), pull = jax.vjp(dynamics.fire, threshold, h)
        g_threshold, g_h = pull((g_v, g_s))
        g_x_ref[t] = (dynamics.gain(decay) * g_h).astype(g_x_ref.dtype)
        return decay * g_h, (h, g_h), accumulate(g_params, v, next_step, g_threshold)

    start = (g_last_ref[...], (zeros, zeros), (zeros,) * len(g_params_refs))
    g_v, next_step, g_params = lax.fori_loop(0, timesteps, step, start)
    g_v_ref[...] = g_v
    # The first step's share, still missing by the lag, uses the initial membranes.
    for ref, g in zip(g_params_refs, accumulate(g_params, first, next_step, zeros), strict=True):
        ref[...] = g


def _bits(spikes: Array) -> Array:
    """Packs a block's spikes `[R, 128]` into bytes `[R, 16]`, int32, the first spike highest."""
    position = lax.broadcasted_iota(jnp.int32, spikes.shape, 1) % _BITS
    weighted = spikes.astype(jnp.int32) << (_BITS - 1 - position)
    return jnp.sum(weighted.reshape(spikes.shape[0], -1, _BITS), 2, dtype=jnp.int32)


def _untile_bits(tiles: Array, neurons: int) -> Array:
    """Bytes of the real neurons, `[T, ceil(N / 8)]`."""
    bits, rest = untile(tiles, -(-neurons // _BITS)), neurons % _BITS
    # Neurons that pad a block may fire: their bits in the last byte are cleared.
    return bits.at[:, -1].set(bits[:, -1] & (0xFF00 >> rest & 0xFF)) if rest else bits
