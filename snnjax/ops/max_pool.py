"""The maximum over overlapping patches with a derivative that keeps one small number per patch.

    output[n, o, c] = max_t inputs[n, o s + t - l, c]            w(o): the first t that attains it
    gradient[n, x, c] = sum over patches o with o s + w(o) - l = x of cotangent[n, o, c]

with stride `s` and low padding `l`. Autodiff of shifted comparisons keeps a mask per position in
the patch and adds as many gradients of the size of the inputs, all there at once: nine for 3x3.
Here the winner's number is kept, one byte per patch, and the inputs are not. The inputs fall into
blocks of `s * s` positions; a block is reached by few patches, each of its positions through
another tap, so the sum over those patches is one elementwise expression of the inputs' size.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from snnjax.ops import isolate
from snnjax.typing import Array

__all__ = ["Patches", "largest", "search"]


class Patches(NamedTuple):
    """Square patches over images; static and hashable."""

    size: tuple[int, ...]  # `(H, W)` of the inputs
    window: int
    strides: int
    padding: tuple[tuple[int, int], ...]  # `(low, high)` for rows and columns

    @property
    def nobody(self) -> int:
        """A number that no position in the patch has."""
        return self.window**2

    @property
    def outputs(self) -> tuple[int, ...]:
        """Patches per axis."""
        spatial = zip(self.size, self.padding, strict=True)
        return tuple(
            (n + low + high - self.window) // self.strides + 1 for n, (low, high) in spatial
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest(inputs: Array, patches: Patches) -> Array:
    """The maximum over overlapping patches of `[N, H, W, C]`; reverse mode only."""
    return search(inputs, patches)[0]


def search(inputs: Array, patches: Patches) -> tuple[Array, Array]:
    """The maxima, and the number of the first position in the patch that attains each."""
    if any(sum(pad) for pad in patches.padding):
        lowest = jnp.asarray(-jnp.inf, inputs.dtype)
        inputs = jnp.pad(inputs, ((0, 0), *patches.padding, (0, 0)), constant_values=lowest)
    window, strides = patches.window, patches.strides
    number, _, _, channels = inputs.shape
    spans = [(n - 1) * strides + 1 for n in patches.outputs]
    small = jnp.uint8 if patches.nobody < 256 else jnp.int32
    best = winner = None
    for tap in range(window**2):
        start = divmod(tap, window)
        end = (i + span for i, span in zip(start, spans, strict=True))
        shifted = lax.slice(
            inputs, (0, *start, 0), (number, *end, channels), (1, strides, strides, 1)
        )
        if best is None or winner is None:
            best, winner = shifted, jnp.zeros(shifted.shape, small)
            continue
        larger = shifted > best  # strictly: among equals the first one stays
        best = jnp.where(larger, shifted, best)
        winner = jnp.where(larger, jnp.asarray(tap, small), winner)
    assert best is not None and winner is not None, "a window has at least one element"
    return best, winner


def _forward(inputs: Array, patches: Patches) -> tuple[Array, Array]:
    return search(inputs, patches)


def _backward(patches: Patches, winner: Array, cotangent: Array) -> tuple[Array]:
    images, channels = cotangent.shape[0], cotangent.shape[-1]
    whole = jnp.zeros((images, *patches.size, channels), cotangent.dtype)
    # Apart, since XLA:CPU would fuse the search into this, do it again at every position, and keep
    # the inputs for it.
    return (isolate(functools.partial(_spread, patches), whole, winner, cotangent),)


def _spread(patches: Patches, whole: Array, winner: Array, cotangent: Array) -> Array:
    """The gradient, in place of zeros."""
    s, zero = patches.strides, jnp.zeros((), cotangent.dtype)
    rows, columns = (_reach(patches, axis) for axis in (0, 1))
    total = zero
    for (low_i, high_i, tap_i), (low_j, high_j, tap_j) in itertools.product(rows, columns):
        # The number that has to have won at each position of a block; one that nothing has.
        number = tap_i[:, None] * patches.window + tap_j
        number = np.where((tap_i[:, None] < 0) | (tap_j < 0), patches.nobody, number)
        frame = ((0, 0, 0), (low_i, high_i, 0), (low_j, high_j, 0), (0, 0, 0))
        won, g = (
            jnp.expand_dims(lax.pad(a, jnp.zeros((), a.dtype), frame), (2, 4))
            for a in (winner, cotangent)
        )
        number = jnp.asarray(number, winner.dtype).reshape(1, 1, s, 1, s, 1)
        total += jnp.where(won == number, g, zero)
    images, height, _, width, _, channels = total.shape
    total = total.reshape(images, height * s, width * s, channels)
    return whole + total[:, : patches.size[0], : patches.size[1]]


def _reach(patches: Patches, axis: int) -> list[tuple[int, int, np.ndarray]]:
    """How blocks of `s` positions are reached by patches: block `a` by the patch `a - shift`.

    For every shift the frame `(low, high)` that lays patches over blocks, and the tap by which each
    of the `s` positions is reached, -1 for none.
    """
    s, low = patches.strides, patches.padding[axis][0]
    blocks, reached = -(-patches.size[axis] // s), {}
    for position in range(s):
        ahead, first = divmod(position + low, s)
        for k, tap in enumerate(range(first, patches.window, s)):
            reached.setdefault(k - ahead, np.full(s, -1))[position] = tap
    outputs = patches.outputs[axis]
    return [(shift, blocks - outputs - shift, taps) for shift, taps in sorted(reached.items())]


largest.defvjp(_forward, _backward)
