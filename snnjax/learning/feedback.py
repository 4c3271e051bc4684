"""Feedback weights of bounded norm, so that the map between rates is a contraction.

    Spectral     w' = clip(g, -bound, bound) w / sigma(w)      sigma: largest singular value (IDE)
    Frobenius    w' = w min(1, bound / |w|)                    (SPIDE)

The papers take a convolution for the matrix of its kernel, outputs by inputs and window. As a map
of images its norm is larger, by up to the root of the window's size, and a network so bounded may
expand: `Spectral(..., norm="map")` bounds the map itself.

Reference: Miyato, Kataoka, Koyama, Yoshida, "Spectral Normalization for Generative Adversarial
Networks", 2018, arXiv:1802.05957; Xiao et al., 2021, arXiv:2109.14247, and 2023, arXiv:2302.00232.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import nn
from snnjax.learning.rates import clamp
from snnjax.nn.contract import Aux, Call, State, no_state, replace
from snnjax.ops.arguments import check_choice
from snnjax.ops.rounding import promote, widen
from snnjax.typing import Array

__all__ = ["Direction", "Frobenius", "Spectral", "transposed_conv", "unit_filters"]

_NORMS = ("matrix", "map")


class Direction(NamedTuple):
    """Running estimate of a left singular vector, `[rows]`; a statistic of `Spectral`."""

    u: Array


class Pattern(NamedTuple):
    """Running estimate of a right singular vector, one input; a statistic of `Spectral`."""

    v: Array


class Spectral(nnx.Module):
    """Synapses of bounded spectral norm, with the signature of the synapses.

        w' = clip(g, -bound, bound) * w / sigma,   sigma = u^T w v
        v <- w^T u / |w^T u|,   u <- w v / |w v|          one step per call, without a derivative

    u is a statistic: it enters with the state and leaves with `aux.statistics`. It is converged in
    `initial_state`, where the released code of IDE starts from a random vector and exceeds the
    bound for the first hundred steps. With `norm="map"`, `w v` and `w^T u` are the synapses and
    their transpose on one input, such as an image, and v is the statistic.

    Args:
        synapse: layer with a kernel and no bias, such as `nn.Linear(..., use_bias=False)`.
        bound: largest norm. Divided by the potential subtracted at a spike, it bounds the
            contraction of one layer.
        norm: `"matrix"` bounds the kernel as a matrix, as the papers do; `"map"` the map of inputs
            of the size that `initial_state` is given, which of a convolution is the larger norm.

    Raises:
        ValueError: the layer has no kernel, or an unknown `norm`.

    Attributes:
        gain: g, learned; it starts at the norm of the weight, at most at the bound.
    """

    def __init__(self, synapse: nn.Fold, *, bound: float = 1.0, norm: str = "matrix"):
        _check_kernel(synapse, bound)
        check_choice("learning.Spectral", choices=_NORMS, norm=norm)
        self.synapse, self.bound, self.norm, self.name = synapse, bound, norm, "spectral"
        # At the bound itself, where `clamp` has a derivative: beyond it g could never return.
        self.gain = nnx.Param(jnp.minimum(matrix_norm(synapse.function), bound))

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """The singular vector of the weight, converged."""
        if self.norm == "matrix":
            return State((), Direction(converge(as_matrix(self.synapse.function))))
        # Not of equal entries: an image without edges may be at right angles to the one of
        # largest gain.
        start = _normalize(jax.random.normal(jax.random.key(0), shape[1:]))
        step = lambda _, v: _map_step(self.synapse.function, v)[1]  # noqa: E731
        return State((), Pattern(jax.lax.fori_loop(0, 100, step, start)))

    def weight(self, direction: Direction | Pattern) -> tuple[Array, Direction | Pattern]:
        """Kernel of bounded norm, and the direction after one step.

        Args:
            direction: statistics of the layer.
        """
        function = self.synapse.function
        kernel, fixed = widen(function.kernel[...]), jax.lax.stop_gradient(function)
        if isinstance(direction, Pattern):
            u, v = _map_step(fixed, direction.v)
            sigma, after = (u * _apply(function, v)).sum(), Pattern(v)
        else:
            vectors = _power_step(as_matrix(fixed), direction.u)
            sigma, after = norm_along(as_matrix(function), vectors), Direction(vectors[0])
        gain = clamp(self.gain[...], -self.bound, jnp.asarray(self.bound, kernel.dtype))
        return gain * kernel / sigma, after

    def weight_norm(self) -> Array:
        """Spectral norm of the bounded kernel as a matrix, or as a map."""
        return jnp.minimum(jnp.abs(self.gain[...]), self.bound)

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """The synapses with the bounded kernel, on `[T, B, ...]`."""
        kernel, direction = self.weight(state.statistics)
        outputs, aux = _with_kernel(self.synapse, kernel)(inputs, State(), call)
        return outputs, aux._replace(statistics=direction)


class Frobenius(nnx.Module):
    """Synapses of bounded Frobenius norm, `w' = w min(1, bound / |w|)`.

    The norm is exact, where the released code of SPIDE estimates it by random probes.

    Args:
        synapse: layer with a kernel, such as `nn.Conv`.
        bound: largest norm.

    Raises:
        ValueError: the layer has no kernel.
    """

    def __init__(self, synapse: nn.Fold, *, bound: float = 2.0):
        _check_kernel(synapse, bound)
        self.synapse, self.bound, self.name = synapse, bound, "frobenius"

    initial_state = no_state

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """The synapses with the bounded kernel, on `[T, B, ...]`."""
        kernel = widen(self.synapse.function.kernel[...])
        return _with_kernel(self.synapse, self.factor(kernel) * kernel)(inputs, State(), call)

    def weight_norm(self) -> Array:
        """Spectral norm of the bounded kernel as a matrix."""
        kernel = widen(self.synapse.function.kernel[...])
        return self.factor(kernel) * matrix_norm(self.synapse.function)

    def factor(self, kernel: Array) -> Array:
        """`min(1, bound / |kernel|)`.

        Args:
            kernel: kernel of the synapses, of any shape.
        """
        norm = jnp.sqrt(jnp.square(kernel).sum())
        # Both branches finite: a weight of zero has no direction, and keeps its gradient.
        return jnp.where(norm > self.bound, self.bound / jnp.where(norm > 0, norm, 1), 1.0)


def transposed_conv(
    inputs: int,
    outputs: int,
    *,
    kernel: int = 3,
    strides: int = 2,
    rngs: nnx.Rngs,
    kernel_init: Any = None,
) -> nn.Fold:
    """Transposed convolution without bias, `[T, B, H, W, C] -> [T, B, s H, s W, D]`.

        y[o, d] = sum_{i, c} x[i, c] kernel[o + p - s i, c, d],   p = (k - 1) / 2

    It enlarges images by the stride, as the gradient of a strided convolution does (PyTorch's
    `ConvTranspose2d` with padding p and output padding s - 1, its kernel mirrored).

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: size k of the square window, odd.
        strides: stride s of both axes.
        rngs: random streams of the kernel.
        kernel_init: `(key, shape, dtype) -> kernel`; None draws unit filters.
    """
    if kernel % 2 == 0 or strides > kernel:
        raise ValueError(
            f"a transposed convolution needs an odd kernel, at least its stride: got {kernel} and "
            f"stride {strides}"
        )
    init = unit_filters if kernel_init is None else kernel_init
    return nn.Fold(
        TransposedKernel((kernel, kernel, inputs, outputs), strides, init, rngs), name="conv"
    )


class TransposedKernel(nnx.Module):
    """Kernel of `transposed_conv`, on `[N, H, W, C]`."""

    follows_inputs = True
    # Rows of the matrix whose norm is bounded: inputs, as in the released code of IDE.
    rows = "inputs"

    def __init__(self, shape, strides, kernel_init, rngs):
        self.strides = strides
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))

    def __call__(self, inputs: Array) -> Array:
        """Transposed convolution of images."""
        kernel = promote(self.kernel[...], inputs.dtype)
        before = kernel.shape[0] // 2
        pads = (before, before + self.strides - 1)
        return jax.lax.conv_general_dilated(
            inputs, kernel, (1, 1), (pads, pads), lhs_dilation=(self.strides,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip


def unit_filters(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Kernel drawn from U(-1, 1), each output filter scaled to unit norm: that of IDE.

    Args:
        key: random key.
        shape: shape of the kernel, output channels last.
        dtype: dtype of the kernel.
    """
    kernel = jax.random.uniform(key, shape, dtype, -1, 1)
    norms = jnp.sqrt(jnp.square(kernel).sum(tuple(range(len(shape) - 1)), keepdims=True))
    return kernel / norms


def _check_kernel(synapse: Any, bound: float) -> None:
    function = getattr(synapse, "function", None)
    if not hasattr(function, "kernel") or getattr(function, "bias", None) is not None:
        raise ValueError(
            "a bounded weight needs synapses with a kernel and no bias: give "
            "nn.Linear(..., use_bias=False), nn.Conv or learning.transposed_conv"
        )
    if not bound > 0:
        raise ValueError(f"the bound of a norm is positive, got {bound}")


def as_matrix(function: Any) -> Array:
    """Kernel as a matrix: outputs by inputs and window, or the reverse for a transposed one."""
    kernel = widen(function.kernel[...])
    if getattr(function, "rows", "outputs") == "inputs":
        return jnp.moveaxis(kernel, -2, 0).reshape(kernel.shape[-2], -1)
    return kernel.reshape(-1, kernel.shape[-1]).T


def _power_step(matrix: Array, u: Array) -> tuple[Array, Array]:
    v = _normalize(matrix.T @ u)
    return _normalize(matrix @ v), v


def converge(matrix: Array) -> Array:
    """Left singular vector of the largest singular value."""
    # From equal entries plus the largest row: no random stream, and no start at right angles.
    start = _normalize(1 + jnp.abs(matrix).sum(1))
    step = lambda _, u: _power_step(matrix, u)[0]  # noqa: E731
    return jax.lax.fori_loop(0, 100, step, start)


def _map_step(function: Any, v: Array) -> tuple[Array, Array]:
    """One step of the power iteration of a linear map: left and right singular vector."""
    outputs, transpose = jax.vjp(lambda v: _apply(function, v), v)
    u = _normalize(outputs)
    return u, _normalize(transpose(u)[0])


def _apply(function: Any, v: Array) -> Array:
    """A map of `[N, ...]` on one input."""
    return function(v[None])[0]


def _normalize(x: Array) -> Array:
    return x / jnp.maximum(jnp.sqrt(jnp.square(x).sum()), 1e-12)


def norm_along(matrix: Array, vectors: Any) -> Array:
    """Norm of a matrix along singular vectors `(u, v)`, or along u alone."""
    u, v = vectors if isinstance(vectors, tuple) else (vectors, _normalize(matrix.T @ vectors))
    return u @ matrix @ v


def weight_norm(layer: Any) -> Array | None:
    """Norm of a weight: `layer.weight_norm()`, or `matrix_norm`; None without a kernel.

    Of a convolution it is a lower bound of the norm of the map: inputs of a single window reach it.
    """
    if hasattr(layer, "weight_norm"):
        return layer.weight_norm()
    function = getattr(layer, "function", None)
    return matrix_norm(function) if hasattr(function, "kernel") else None


def matrix_norm(function: Any) -> Array:
    """Largest singular value of a kernel as a matrix, see `as_matrix`."""
    matrix = as_matrix(function)
    return norm_along(matrix, converge(matrix))


def _with_kernel(synapse: Any, kernel: Array) -> Any:
    # Rebuilt first: inside a scan Flax refuses to change a module, also a copy, made outside.
    function = jax.tree.map(lambda leaf: leaf, synapse.function)
    function.kernel = nnx.Param(kernel)
    return replace(jax.tree.map(lambda leaf: leaf, synapse), function=function)
