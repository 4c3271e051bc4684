"""Max pooling over overlapping patches with a residual of one byte per patch.

    output[n, o, c] = max_t inputs[n, o s + t - l, c]            w(o): the first t of the maximum
    gradient[n, x, c] = sum over patches o with o s + w(o) - l = x of cotangent[n, o, c]

with stride `s` and low padding `l`. Autodiff of shifted comparisons keeps a mask per tap and adds
as many gradients of the size of the inputs, all in memory at once: nine for 3x3. Here the residual
is the winner `w(o)`, one byte per patch, without the inputs. In the backward pass the inputs are
divided into blocks of `s * s` positions. Few patches reach a block, each position through another
tap, so the sum over those patches is one elementwise expression of the size of the inputs.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from snnjax.ops.isolate import isolate
from snnjax.typing import Array

__all__ = ["Patches", "patch_max", "patch_max_and_winner"]


class Patches(NamedTuple):
    """Square patches over images; static and hashable.

    Attributes:
        size: Spatial size of the inputs, `(H, W)`.
        window: Rows and columns of a patch.
        strides: Step between patches.
        padding: Padding `(low, high)` of rows and of columns.
    """

    size: tuple[int, ...]
    window: int
    strides: int
    padding: tuple[tuple[int, int], ...]

    @property
    def no_tap(self) -> int:
        """Tap number that no position in a patch has."""
        return self.window**2

    @property
    def outputs(self) -> tuple[int, ...]:
        """Number of patches per axis."""
        spatial = zip(self.size, self.padding, strict=True)
        return tuple(
            (n + low + high - self.window) // self.strides + 1 for n, (low, high) in spatial
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def patch_max(inputs: Array, patches: Patches) -> Array:
    """Maximum over each patch of `[N, H, W, C]`, `[N, H', W', C]`; reverse mode only."""
    return patch_max_and_winner(inputs, patches)[0]


def patch_max_and_winner(inputs: Array, patches: Patches) -> tuple[Array, Array]:
    """Maximum over each patch, and the first tap of each maximum, both `[N, H', W', C]`."""
    if any(sum(pad) for pad in patches.padding):
        # No input is below -inf, and the first of equal maxima wins: padding wins only against
        # -inf.
        lowest = jnp.asarray(-jnp.inf, inputs.dtype)
        inputs = jnp.pad(inputs, ((0, 0), *patches.padding, (0, 0)), constant_values=lowest)
    window, strides = patches.window, patches.strides
    number, _, _, channels = inputs.shape
    spans = [(n - 1) * strides + 1 for n in patches.outputs]
    # One byte per patch for windows up to 15x15, whose `no_tap` is 225.
    small = jnp.uint8 if patches.no_tap < 256 else jnp.int32
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
        larger = shifted > best  # strictly, so that the first of equal maxima wins
        best = jnp.where(larger, shifted, best)
        winner = jnp.where(larger, jnp.asarray(tap, small), winner)
    assert best is not None and winner is not None, "a window has at least one element"
    return best, winner


def _forward(inputs: Array, patches: Patches) -> tuple[Array, Array]:
    # The residual is the winner alone; the inputs are not kept.
    return patch_max_and_winner(inputs, patches)


def _backward(patches: Patches, winner: Array, cotangent: Array) -> tuple[Array]:
    images, channels = cotangent.shape[0], cotangent.shape[-1]
    zeros = jnp.zeros((images, *patches.size, channels), cotangent.dtype)
    # Isolated, since XLA:CPU would fuse the search into the gradient, repeat it at every position,
    # and keep the inputs for it.
    return (isolate(functools.partial(_scatter, patches), zeros, winner, cotangent),)


def _scatter(patches: Patches, zeros: Array, winner: Array, cotangent: Array) -> Array:
    """Gradient of the inputs, written in place of zeros of their shape."""
    s, zero = patches.strides, jnp.zeros((), cotangent.dtype)
    rows, columns = (_reach(patches, axis) for axis in (0, 1))
    total = zero
    for (low_i, high_i, tap_i), (low_j, high_j, tap_j) in itertools.product(rows, columns):
        # The winner that hands its cotangent to each position of a block; `no_tap` for none.
        number = tap_i[:, None] * patches.window + tap_j
        number = np.where((tap_i[:, None] < 0) | (tap_j < 0), patches.no_tap, number)
        padding = ((0, 0, 0), (low_i, high_i, 0), (low_j, high_j, 0), (0, 0, 0))
        won, g = (
            jnp.expand_dims(lax.pad(a, jnp.zeros((), a.dtype), padding), (2, 4))
            for a in (winner, cotangent)
        )
        number = jnp.asarray(number, winner.dtype).reshape(1, 1, s, 1, s, 1)
        total += jnp.where(won == number, g, zero)
    images, height, _, width, _, channels = total.shape
    total = total.reshape(images, height * s, width * s, channels)
    # Blocks reach beyond the inputs where the stride does not divide their size.
    return zeros + total[:, : patches.size[0], : patches.size[1]]


def _reach(patches: Patches, axis: int) -> list[tuple[int, int, np.ndarray]]:
    """Patches that reach blocks of `s` positions along an axis: block `a` by patch `a - shift`.

    Returns:
        Per shift the padding `(low, high)` that aligns patches with blocks, and the tap through
        which the patch reaches each of the `s` positions, -1 for none.
    """
    s, low = patches.strides, patches.padding[axis][0]
    blocks, reached = -(-patches.size[axis] // s), {}
    for position in range(s):
        ahead, first = divmod(position + low, s)
        for k, tap in enumerate(range(first, patches.window, s)):
            reached.setdefault(k - ahead, np.full(s, -1))[position] = tap
    outputs = patches.outputs[axis]
    return [(shift, blocks - outputs - shift, taps) for shift, taps in sorted(reached.items())]


patch_max.defvjp(_forward, _backward)
