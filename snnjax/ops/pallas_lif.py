"""Neurons with one membrane over a whole sequence, forward and backward, as Pallas kernels.

    forward     h[t] = charge(decay, v[t-1], x[t]);  v[t], s[t] = fire(threshold, h[t])
    backward    the derivative of `neurons.lif_scan`, from `h` alone

Each program owns a block of neurons and loops over time inside: membranes (and in the backward pass
their cotangents) stay in registers, and every element of a sequence is read or written once.
Bytes per neuron and timestep of float32 currents: forward 12 (currents, spikes, membranes) or 8
(without a derivative), backward 12. `lax.scan` moves the state besides, as often as its compiler
does not keep it.

The dynamics come in as functions, so that surrogate, reset and scaling are those of the scan, in
the same expressions: in interpret mode spikes and membranes equal the scan's bit for bit, gradients
to the rounding of float32 (tests). Where a compiler adds two products it rounds one of them as it
happens to fuse, in the scan as here.

**Unmeasured.** That these kernels are lowered for TPUs (Mosaic) and GPUs (Triton) is tested; they
have run on neither. `experiments/benchmarks/lif_kernel.py` measures them.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.ops.pallas_tiles import LANES, block_spec, check_block, flat, like, tiled
from snnjax.typing import Array

__all__ = ["Dynamics", "Output", "backward", "forward"]

Output = Literal["spikes", "membranes", "bits"]
_BITS = 8


class Dynamics(Protocol):
    """What the kernels are told of a neuron; elementwise functions."""

    def charge(self, decay: Array, v: Array, x: Array) -> Array:
        """`h`, the membrane before the reset, affine in the current `x`."""
        ...

    def fire(self, threshold: Array, h: Array) -> tuple[Array, Array]:
        """`(v, s)`: the membrane after the reset and the spikes; differentiable."""
        ...

    def gain(self, decay: Array) -> Any:
        """`dh/dx`."""
        ...

    def slope(self, decay: Array, v: Array, h: Array) -> Array:
        """`dh/d(decay)`, from the membrane before the charge and after it."""
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

    `"bits"` are `jnp.packbits(spikes != 0, axis=1)`: the first of 8 neurons side by side is the
    highest bit, and a timestep ends with a whole byte, filled up with 0. So
    `memory.unpack(bits[t], (N,), dtype)` are the spikes of a timestep, and where 8 divides `N`
    `bits.reshape(-1)` is `memory.pack(spikes)`.

    Args:
        dynamics: of the neurons.
        decay: `[]` or `[N]`.
        threshold: `[]` or `[N]`.
        v: membranes before the first timestep, `[N]`; everything is computed in their dtype.
        xs: currents, `[T, N]` with T and N at least 1; may have fewer bits than `v`.
        writes: which sequences to write, in this order.
        block: neurons per program, a power of two; on a TPU a multiple of 1024.
        interpret: run it as ordinary JAX operations, on any device.
        options: of the compiler, see `gpu_options`; None for a TPU.

    Returns:
        The last membranes `[N]`, and of `writes` the spikes `[T, N]` in the dtype of the currents,
        the membranes `h` `[T, N]` in that of `v`, the bits `[T, ceil(N / 8)]`, uint8.

    Raises:
        ValueError: `block` is no power of two, or below 128.
    """
    check_block(block)
    timesteps, neurons = xs.shape
    operands = [tiled(a, block) for a in (decay, threshold, v, xs)]
    rows = operands[2].shape[0]
    shapes = {
        "spikes": like(rows, xs.dtype, timesteps=timesteps),
        "membranes": like(rows, v.dtype, timesteps=timesteps),
        "bits": like(rows, jnp.uint8, timesteps=timesteps, width=LANES // _BITS),
    }
    kernel = functools.partial(_forward_kernel, dynamics, writes)
    results = [like(rows, v.dtype), *(shapes[name] for name in writes)]
    last, *sequences = _call(kernel, results, block, interpret, options, {})(*operands)
    cut = {"bits": _whole_bytes}
    pairs = zip(writes, sequences, strict=True)
    return flat(last, neurons), *(cut.get(name, flat)(tiles, neurons) for name, tiles in pairs)


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
    """The derivative of `forward`, from the membranes before the reset.

    Args:
        dynamics: as for `forward`.
        decay: as for `forward`.
        threshold: as for `forward`.
        v: as for `forward`.
        hs: the membranes that `forward` wrote, `[T, N]`.
        g_last: cotangents of the last membranes, `[N]`.
        g_spikes: cotangents of the spikes, `[T, N]`, in the dtype of the currents; those of the
            currents take their place in memory.
        parameters: whether to compute the cotangents of decay and threshold too.
        block: as for `forward`.
        interpret: as for `forward`.
        options: as for `forward`.

    Returns:
        The cotangents of the first membranes `[N]` and of the currents `[T, N]`; with `parameters`
        those of decay and threshold `[N]` too, per neuron: summed over time only.

    Raises:
        ValueError: `block` is no power of two, or below 128.
    """
    check_block(block)
    timesteps, neurons = hs.shape
    operands = [tiled(a, block) for a in (decay, threshold, v, g_last, hs, g_spikes)]
    rows = operands[2].shape[0]
    results = [like(rows, v.dtype), like(rows, g_spikes.dtype, timesteps=timesteps)]
    results += [like(rows, v.dtype)] * (2 if parameters else 0)
    kernel = functools.partial(_backward_kernel, dynamics)
    call = _call(kernel, results, block, interpret, options, {len(operands) - 1: 1})
    return tuple(flat(a, neurons) for a in call(*operands))


def _call(kernel, results, block, interpret, options, aliases):
    from jax.experimental import pallas as pl

    def call(*operands):
        return pl.pallas_call(
            kernel,
            out_shape=results,
            grid=(results[0].shape[0] * LANES // block,),
            in_specs=[block_spec(a, block) for a in operands],
            out_specs=[block_spec(a, block) for a in results],
            input_output_aliases=aliases,
            interpret=interpret,
            compiler_params=options,
        )(*operands)

    return call


def _forward_kernel(dynamics, writes, decay_ref, threshold_ref, v_ref, x_ref, last_ref, *refs):
    decay, threshold = decay_ref[...], threshold_ref[...]

    def step(t, v):
        h = dynamics.charge(decay, v, x_ref[t].astype(v.dtype))
        v, spikes = dynamics.fire(threshold, h)
        made = {"spikes": lambda: spikes, "membranes": lambda: h, "bits": lambda: _bits(spikes)}
        for name, ref in zip(writes, refs, strict=True):
            ref[t] = made[name]().astype(ref.dtype)
        return v

    last_ref[...] = lax.fori_loop(0, x_ref.shape[0], step, v_ref[...])


def _backward_kernel(
    dynamics, decay_ref, threshold_ref, v_ref, g_last_ref, h_ref, g_spikes_ref, g_v_ref, g_x_ref,
    *g_params_refs,
):  # fmt: skip
    first, timesteps = v_ref[...], h_ref.shape[0]
    decay = decay_ref[...]
    threshold = jnp.broadcast_to(threshold_ref[...], first.shape)
    nothing = jnp.zeros_like(first)

    def summed(g_params, v, later, g_threshold):
        # The membrane before step t+1 is known only at t, one step further back.
        h, g_h = later
        g_decay = dynamics.slope(decay, v, h) * g_h
        more = (g_decay, g_threshold)[: len(g_params)]
        return tuple(g + m for g, m in zip(g_params, more, strict=True))

    def step(i, carry):
        g_v, later, g_params = carry
        t = timesteps - 1 - i
        h, g_s = h_ref[t], g_spikes_ref[t].astype(first.dtype)
        (v, _), pull = jax.vjp(dynamics.fire, threshold, h)
        g_threshold, g_h = pull((g_v, g_s))
        g_x_ref[t] = (dynamics.gain(decay) * g_h).astype(g_x_ref.dtype)
        return decay * g_h, (h, g_h), summed(g_params, v, later, g_threshold)

    start = (g_last_ref[...], (nothing, nothing), (nothing,) * len(g_params_refs))
    g_v, later, g_params = lax.fori_loop(0, timesteps, step, start)
    g_v_ref[...] = g_v
    for ref, g in zip(g_params_refs, summed(g_params, first, later, nothing), strict=True):
        ref[...] = g


def _bits(spikes: Array) -> Array:
    """A block's spikes `[R, 128]` as `[R, 16]` numbers below 256, the first spike highest."""
    place = lax.broadcasted_iota(jnp.int32, spikes.shape, 1) % _BITS
    weighted = spikes.astype(jnp.int32) << (_BITS - 1 - place)
    return jnp.sum(weighted.reshape(spikes.shape[0], -1, _BITS), 2, dtype=jnp.int32)


def _whole_bytes(tiles: Array, neurons: int) -> Array:
    """`[T, ceil(N / 8)]`; neurons that only fill up a block may fire, their bits are cleared."""
    bits, rest = flat(tiles, -(-neurons // _BITS)), neurons % _BITS
    return bits.at[:, -1].set(bits[:, -1] & (0xFF00 >> rest & 0xFF)) if rest else bits
