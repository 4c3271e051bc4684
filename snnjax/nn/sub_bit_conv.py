"""Convolution with sub-bit kernels: 3x3 binary kernels from a small codebook.

    y[t, b, o, d] = s_d sum over c, i of b_dc[i] x[t, b, o + offset i, c],    b_dc in P, |P| = 2^tau

with latent kernels, a codebook and straight-through gradients as in `snnjax.quantization.sub_bit`.
The scale multiplies last, so that sums over spikes are integers, exact in float32 for any order of
summation: recomputation, a stored network and other convolution algorithms give the same spikes. A
batch norm behind the layer cancels a positive scale per channel, which could also be folded into a
threshold (`quantization.sub_bit_lookup`).

Reference: Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate
Binary Neural Networks", ICCV 2021, arXiv:2110.09195. There activations are signs; here they are
spikes, and only the weights are binarised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from snnjax import memory, metrics
from snnjax.nn._checks import check_rngs
from snnjax.nn.neuron import Constant
from snnjax.nn.synapses import Fold, Kernel, he_normal
from snnjax.nn.taps import convolution_operations
from snnjax.ops.arguments import check_counts, check_flags
from snnjax.ops.convolution import convolution, padding_pairs
from snnjax.ops.variables import map_nodes
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
    """Convolution `[N, H, W, C] -> [N, H', W', D]` with kernels from a codebook.

    As a subclass of `Kernel` it is a synapse for memory strategies, which pack its inputs. It
    computes in float32 in every precision, since its integer sums are not exact in bfloat16.
    """

    # Integer counts above 256 are not exact in bfloat16.
    follows_inputs: ClassVar[bool] = False

    def __init__(self, inputs, outputs, *, bits_per_kernel, learn_codebook, rngs, **options):
        # The codebook comes first, since it checks the number of bits.
        codebook = random_codebook(rngs.params(), bits_per_kernel=bits_per_kernel)
        super().__init__((3, 3, inputs, outputs), groups=1, rngs=rngs, **options)
        # A codebook of all patterns has nothing to learn. Weight decay skips `learned`.
        learns = learn_codebook and bits_per_kernel < FULL_BITS
        self.learned = nnx.Dict({"codebook": nnx.Param(codebook)} if learns else {})
        self.constants = nnx.Dict({} if learns else {"codebook": Constant(codebook)})

    def codebook(self) -> Codebook:
        """Patterns, latent patterns and their memory; without a gradient if not learned."""
        # Separate attributes, since optimizer and weight decay select parameters by name.
        if "codebook" in self.learned:
            return self.learned["codebook"].get_value()
        return jax.lax.stop_gradient(self.constants["codebook"].get_value())

    def signs(self) -> Array:
        """Binary kernel, -1 or 1, `[3, 3, C, D]`."""
        codebook = self.codebook()
        chosen = straight_through_kernels(
            split_kernels(self.kernel[...]), used_patterns(codebook), codebook.latent
        )
        return join_kernels(chosen)

    def __call__(self, inputs: Array) -> Array:
        """Convolves `[N, H, W, C]` to `[N, H', W', D]`."""
        scale = output_scale(split_kernels(self.kernel[...]))
        return _scaled_convolution(self, inputs, self.signs(), scale)

    def operations(self, inputs: Array) -> metrics.operations.Operations:
        """Synaptic operations of inputs `[T, B, H, W, C]`; no weight is zero."""
        return _operations(self, inputs, self.signs())


class StoredKernel(Kernel):
    """Stored form of a `SubBitKernel`: packed pattern numbers, codebook, scales and bias.

    Every call unpacks the kernel. For inference only, since there are no latent kernels.

    Args:
        trained: kernel to store.
    """

    follows_inputs: ClassVar[bool] = False

    def __init__(self, trained: SubBitKernel):
        self.strides, self.padding, self.groups = trained.strides, trained.padding, 1
        # Latent patterns are dropped: inference needs the binary ones only.
        patterns = used_patterns(trained.codebook())
        self.stored = Constant(store_kernels(trained.kernel[...], patterns))
        self.bias = None if trained.bias is None else Constant(trained.bias[...])

    @property
    def kernels(self) -> SubBitKernels:
        """Packed arrays; `kernels.nbytes` is their size in bytes."""
        return self.stored.get_value()

    def __call__(self, inputs: Array) -> Array:
        """Convolves `[N, H, W, C]` to `[N, H', W', D]`, with the values of the trained kernel."""
        return _scaled_convolution(self, inputs, self.kernels.kernel(), self.kernels.scale)

    def operations(self, inputs: Array) -> metrics.operations.Operations:
        """Synaptic operations of inputs `[T, B, H, W, C]`."""
        return _operations(self, inputs, self.kernels.kernel())


def _scaled_convolution(layer: Any, inputs: Array, signs: Array, scale: Array) -> Array:
    signs, scale = signs.astype(inputs.dtype), scale.astype(inputs.dtype)
    # Integer sums first, then the scale: exact for any order of summation.
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
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    use_bias: bool = False,
    kernel_init: Callable[..., Array] = he_normal,
    pack: bool | memory.packing.Storage = False,
) -> Fold:
    """A 3x3 convolution with less than one bit per weight, `[T, B, H, W, C] -> [T, B, H', W', D]`.

        y[t, b, o, d] = s_d sum over c, i of b_dc[i] x[t, b, o + offset i, c],    b_dc in P

    P is a codebook of `2^tau` binary 3x3 patterns. The trained layer has `9 C D` latent float32
    parameters, and `18 2^tau` for a learned codebook. Its stored form (`with_stored_kernels`) has
    `tau C D` bits, the codebook and D scales. The search for patterns runs once per call for all
    timesteps, but at every timestep in `order="time"`: use the stored form for streaming.

    Gradients learn the patterns. A refinement keeps all patterns different: use
    `quantization.sub_bit.with_refinement(...)` as the optimizer, or call
    `quantization.sub_bit.refine_all` between steps. Without it two patterns may coincide, which
    only wastes an entry.

    Args:
        inputs: number of input channels, C.
        outputs: number of output channels, D.
        bits_per_kernel: tau, 1 to 9; 9 is a plain binary convolution, 5 means 0.56 bits per weight.
        rngs: random streams of codebook and kernels.
        learn_codebook: False keeps the initial random patterns.
        strides: stride per spatial axis.
        padding: as for `nn.Conv`: `"SAME"`, `"VALID"`, an integer, or pairs `(before, after)`.
        use_bias: add one bias per output channel.
        kernel_init: `(key, shape, dtype) -> latent kernels`; entries beyond 1 in magnitude get no
            gradient.
        pack: storage of the inputs for the backward pass, see `Fold`.

    Raises:
        ValueError: `bits_per_kernel` is not an integer from 1 to 9; another form of padding.

    Reference:
        Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate Binary
        Neural Networks", ICCV 2021, arXiv:2110.09195.
    """
    check_counts("nn.SubBitConv", inputs=inputs, outputs=outputs, strides=strides)
    check_flags("nn.SubBitConv", learn_codebook=learn_codebook, use_bias=use_bias)
    check_rngs("nn.SubBitConv", rngs)
    module = SubBitKernel(
        inputs,
        outputs,
        bits_per_kernel=bits_per_kernel,
        learn_codebook=learn_codebook,
        strides=strides if isinstance(strides, int) else tuple(strides),
        padding=padding_pairs(padding, 2),
        use_bias=use_bias,
        kernel_init=kernel_init,
        rngs=rngs,
    )
    return Fold(module, name="sub_bit_conv", pack=pack)


def with_stored_kernels(layer: Any) -> Any:
    """A copy of a layer or network with every sub-bit convolution in its stored form.

    Outputs for spikes are equal bit for bit. For inference only.

    Args:
        layer: layer or network; it stays unchanged and shares its other parameters.
    """
    # A kernel is replaced as a whole, so the traversal must not enter it.
    return map_nodes(_store, layer, select=lambda node: isinstance(node, SubBitKernel))


def _store(node: SubBitKernel) -> StoredKernel:
    if jnp.ndim(node.kernel[...]) > 4:
        # Blocks of a stack have an extra leading axis and are stored one by one.
        return jax.vmap(_store)(node)
    return StoredKernel(node)
