"""Convolution with sub-bit kernels: 3x3 binary kernels out of a small codebook.

    y[t, b, o, d] = s_d sum over c, i of b_dc[i] x[t, b, o + place i, c],     b_dc in P, |P| = 2^tau

with latent kernels, a codebook and straight-through gradients as in `snnjax.quantization.sub_bit`.
The scale is multiplied last, so that sums over spikes are whole numbers: exact in float32
whatever the order of summation, so that a replay, a stored network or another algorithm for the
convolution makes the same spikes. A positive scale of each channel vanishes in a batch norm behind
it, and could go into a threshold (`quantization.sub_bit_lookup`).

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195. There activations are binary by a sign; here
they are spikes, and only weights are made binary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, metrics
from snnjax.nn.initialization import he_normal
from snnjax.nn.neuron import Constant
from snnjax.nn.synapses import Fold, Kernel
from snnjax.nn.taps import convolution_operations
from snnjax.ops.convolution import convolution
from snnjax.quantization.sub_bit import (
    FULL_BITS,
    Codebook,
    join_kernels,
    output_scale,
    random_codebook,
    split_kernels,
    straight_through_kernels,
    used_patterns,
)
from snnjax.quantization.sub_bit_lookup import SubBitKernels, store_kernels
from snnjax.typing import Array

__all__ = ["StoredKernel", "SubBitConv", "SubBitKernel", "with_stored_kernels"]


class SubBitKernel(Kernel):
    """A convolution `[N, H, W, C] -> [N, H', W', D]` by kernels of a codebook.

    A `Kernel`, so that memory strategies cut in front of it and pack its inputs. It computes in
    float32 whatever the precision: its sums are whole numbers there, and would not be in bfloat16.
    """

    follows_inputs: ClassVar[bool] = False

    def __init__(self, inputs, outputs, *, bits_per_kernel, learn_codebook, rngs, **options):
        # The codebook first: it refuses a wrong number of bits before anything is drawn.
        codebook = random_codebook(rngs.params(), bits_per_kernel=bits_per_kernel)
        super().__init__((3, 3, inputs, outputs), groups=1, rngs=rngs, **options)
        # With all patterns there is nothing to choose. Weight decay skips `learned`.
        learns = learn_codebook and bits_per_kernel < FULL_BITS
        self.learned = nnx.Dict({"codebook": nnx.Param(codebook)} if learns else {})
        self.constants = nnx.Dict({} if learns else {"codebook": Constant(codebook)})

    def codebook(self) -> Codebook:
        """Its patterns, latent ones and memory; without a gradient where they are not learned."""
        if "codebook" in self.learned:
            return self.learned["codebook"].get_value()
        return jax.lax.stop_gradient(self.constants["codebook"].get_value())

    def signs(self) -> Array:
        """The binary kernel, -1 or 1, `[3, 3, C, D]`."""
        codebook = self.codebook()
        chosen = straight_through_kernels(
            split_kernels(self.kernel[...]), used_patterns(codebook), codebook.latent
        )
        return join_kernels(chosen)

    def __call__(self, inputs: Array) -> Array:
        """`[N, H, W, C]` to `[N, H', W', D]`."""
        scale = output_scale(split_kernels(self.kernel[...]))
        return _scaled_convolution(self, inputs, self.signs(), scale)

    def operations(self, inputs: Array) -> metrics.operations.Operations:
        """Synaptic operations on `[T, B, H, W, C]`; no weight is zero."""
        return _operations(self, inputs, self.signs())


class StoredKernel(Kernel):
    """A `SubBitKernel` as it is stored: packed numbers, codebook, scales and a bias.

    It unpacks them on every call. For inference: there are no latent kernels to train.

    Args:
        trained: the kernel to store.
    """

    follows_inputs: ClassVar[bool] = False

    def __init__(self, trained: SubBitKernel):
        self.strides, self.padding, self.groups = trained.strides, trained.padding, 1
        patterns = used_patterns(trained.codebook())
        self.stored = Constant(store_kernels(trained.kernel[...], patterns))
        self.bias = None if trained.bias is None else Constant(trained.bias[...])

    @property
    def kernels(self) -> SubBitKernels:
        """The packed arrays; `kernels.nbytes` is their size."""
        return self.stored.get_value()

    def __call__(self, inputs: Array) -> Array:
        """`[N, H, W, C]` to `[N, H', W', D]`, as before it was stored."""
        return _scaled_convolution(self, inputs, self.kernels.kernel(), self.kernels.scale)

    def operations(self, inputs: Array) -> metrics.operations.Operations:
        """Synaptic operations on `[T, B, H, W, C]`, as before it was stored."""
        return _operations(self, inputs, self.kernels.kernel())


def _scaled_convolution(layer: Any, inputs: Array, signs: Array, scale: Array) -> Array:
    signs, scale = signs.astype(inputs.dtype), scale.astype(inputs.dtype)
    counts = convolution(inputs, signs, strides=layer.strides, padding=layer.padding)
    outputs = counts * scale
    return outputs if layer.bias is None else outputs + layer.bias[...].astype(inputs.dtype)


def _operations(layer: Any, inputs: Array, signs: Array) -> metrics.operations.Operations:
    return convolution_operations(inputs, signs, strides=layer.strides, padding=layer.padding)


def SubBitConv(
    inputs: int,
    outputs: int,
    *,
    bits_per_kernel: int,
    rngs: nnx.Rngs,
    learn_codebook: bool = True,
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
    use_bias: bool = False,
    kernel_init: Callable[..., Array] = he_normal,
    pack: bool | memory.Storage = False,
) -> Fold:
    """A 3x3 `nn.Conv` of less than a bit for each weight, `[T, B, H, W, C] -> [T, B, H', W', D]`.

    In training it holds latent float32 kernels, `9 C D` parameters, and if the codebook is learned
    `18 2^tau` for it; stored (`with_stored_kernels`) `tau C D` bits, the codebook and D scales. The
    search for patterns runs once per call, for all timesteps; in `order="time"` that is at every
    timestep, so stream from the stored form.

    Which patterns are used is learned by gradient, and refined by a rule that makes sure that all
    of them differ: give `quantization.sub_bit.with_refinement(...)` as the optimizer, or call
    `quantization.sub_bit.refine_all` between steps. Without, two patterns may become one, which
    wastes an entry and harms nothing else.

    Args:
        inputs: channels in.
        outputs: channels out.
        bits_per_kernel: tau: `2^tau` patterns; 9 is a plain binary convolution, 5 is 0.56 bit for
            each weight.
        rngs: for the codebook and the kernels.
        learn_codebook: False keeps the random patterns of the beginning.
        strides: step per spatial axis.
        padding: `"SAME"`, `"VALID"` or pairs `(before, after)` per spatial axis.
        use_bias: add one bias per output channel.
        kernel_init: `(key, shape, dtype) -> latent kernels`; where they exceed 1 they get no
            gradient.
        pack: how to keep the inputs for the backward pass, see `Fold`.

    Raises:
        ValueError: `bits_per_kernel` is not a whole number from 1 to 9.
    """
    module = SubBitKernel(
        inputs,
        outputs,
        bits_per_kernel=bits_per_kernel,
        learn_codebook=learn_codebook,
        strides=strides if isinstance(strides, int) else tuple(strides),
        padding=padding if isinstance(padding, str) else tuple(map(tuple, padding)),
        use_bias=use_bias,
        kernel_init=kernel_init,
        rngs=rngs,
    )
    return Fold(module, name="sub_bit_conv", pack=pack)


def with_stored_kernels(layer: Any) -> Any:
    """The same layer or network, with every sub-bit convolution in its stored form.

    Of spikes it gives the same outputs, bit for bit. For inference only; blocks of a stack are
    stored one by one.

    Args:
        layer: stays as it is; the result shares its other parameters.
    """
    is_kernel = lambda node: isinstance(node, SubBitKernel)  # noqa: E731
    return jax.tree.map(
        lambda node: _store(node) if is_kernel(node) else node, layer, is_leaf=is_kernel
    )


def _store(node: SubBitKernel) -> StoredKernel:
    if jnp.ndim(node.kernel[...]) > 4:
        return jax.vmap(_store)(node)
    return StoredKernel(node)
