"""Synapses: linear and convolutional maps from spikes to currents, the same at every timestep.

Time is folded into the batch, `[T, B, ...] -> [T * B, ...]`, for one large product instead of T
small ones. `Fold` does this for any function or Flax module. For the backward pass, `pack=True`
keeps input spikes at one bit each, and `pack="bfloat16"` or `"int8"` rounds real-valued inputs
(`memory.packing.packed`).

Initializers of kernels are compiled at a low optimization level on a CPU, in a quarter of the time:
a draw runs once and takes milliseconds, its compilation a second for each shape of a kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory, metrics
from snnjax.nn._checks import check_rngs
from snnjax.nn.contract import Aux, Call, MemoryRequest, Placed, State, replace
from snnjax.nn.mixed_precision import Precision
from snnjax.nn.taps import convolution_operations, operations_tap, packing_error
from snnjax.ops.arguments import as_floating, check_counts, check_flags, shorten
from snnjax.ops.convolution import convolution, padding_pairs
from snnjax.ops.rounding import add_bias, is_narrow, narrow, product, promote, widen, widen_to
from snnjax.typing import Array, Key, bind

__all__ = [
    "Conv",
    "Flatten",
    "Fold",
    "Kernel",
    "Linear",
    "fan_in_uniform",
    "he_normal",
    "lecun_normal",
]


# Level 1 draws the bits of the default level 3; level 0 contracts other products and sums.
_OPTIONS = {"xla_backend_optimization_level": 1}


def compile_fast(initializer: Callable[..., Array]) -> Callable[..., Array]:
    """The initializer, compiled at a low optimization level on a CPU; same bits.

    Only for pure initializers: the program of a shape is reused, and so would be the numbers of one
    that draws from a generator of its own.

    Args:
        initializer: `(key, shape, dtype) -> kernel`.
    """
    compiled = jax.jit(initializer, static_argnums=(1, 2), compiler_options=_OPTIONS)

    @functools.wraps(initializer)
    def draw(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        if jax.default_backend() != "cpu":
            return initializer(key, shape, dtype)
        try:
            # Hashable, because shape and dtype are static.
            return compiled(key, tuple(shape), jnp.dtype(dtype))
        except ValueError:
            # An outer jit refuses compiler options; an outer vmap alone accepts them.
            return initializer(key, shape, dtype)

    return draw


he_normal = compile_fast(nnx.initializers.he_normal())
lecun_normal = compile_fast(nnx.initializers.lecun_normal())
fan_in_uniform = compile_fast(nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform"))
"""Uniform within `1 / sqrt(fan in)`: how PyTorch, and so the released code, starts its weights."""


class Fold(nnx.Module):
    """Applies a map of `[N, ...]` to every timestep, `y[t] = function(x[t])`, with N = T * B.

    A module with weights may count its operations by a method `operations`, from `[T, B, ...]` to
    `metrics.operations.Operations`, as `nn.Linear` and the convolutions do. A module that computes
    in the dtype of its inputs, also bfloat16 and float16, declares `follows_inputs = True` and
    takes part in `nn.with_precision`. Other modules get inputs in float32, and their outputs are
    rounded to the dtype of the inputs. A plain function gets the inputs unchanged.

    Args:
        function: a Flax module that holds parameters only, or a comparable function (a plain one,
            or one made by `typing.bind`; not a lambda).
        name: name of the layer in error messages, taps and listings.
        pack: storage of the inputs for the backward pass: True for spikes (exactly 0 or 1) at one
            bit each, or a storage of `memory.packing.packed`.
        keeps_spikes: True if the function maps spikes to spikes, as a maximum does.

    Raises:
        ValueError: an unknown storage.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str = "fold",
        pack: bool | memory.packing.Storage = False,
        keeps_spikes: bool = False,
    ):
        if isinstance(function, type) or not callable(function):
            raise TypeError(
                f"nn.Fold takes a Flax module or a function of [N, ...], got {shorten(function)}"
            )
        check_flags("nn.Fold", keeps_spikes=keeps_spikes)
        self.function, self.name, self.keeps_spikes = function, name, keeps_spikes
        self.pack: memory.packing.Storage | None = "spikes" if pack is True else pack or None
        self.compute: str | None = None  # dtype of inputs and outputs; None for that of the input
        self.traces: memory.traces.Traces | None = (
            None  # derivative at traces of the inputs, of a decay
        )
        if self.pack:
            memory.packing.packed(_call, storage=self.pack)  # raises on an unknown storage

    def with_memory(self, request: MemoryRequest) -> Placed:
        """Stores spikes at one bit each, and real inputs of weights in the strategy's storage.

        Inputs that no derivative needs stay unchanged. Under a rule of traces, weights are
        differentiated at those of their inputs, which are kept in float32.
        """
        pack, spiking = request.strategy.pack, request.spiking and self.keeps_spikes
        weighs = isinstance(self.function, Kernel | nnx.Linear)
        role = "synapse" if weighs else None
        if request.traces is not None and jax.tree.leaves(nnx.state(self, nnx.Param)):
            changed = replace(self, traces=request.traces, pack=None)
            return Placed(changed, spiking, frozenset({"time"}), role)
        storage = "spikes" if request.spiking else pack if weighs and pack is not True else None
        # The derivative of a reshape needs no inputs.
        needs_inputs = weighs or (self.keeps_spikes and self.function is not flatten)
        if not (pack and storage and needs_inputs):
            return Placed(self, spiking, role=role)
        return Placed(replace(self, pack=storage), spiking, frozenset({"pack"}), role)

    def initial_state(self, shape: tuple[int, ...]) -> State:
        """No state, or traces of 0."""
        return State() if self.traces is None else State(jnp.zeros(shape, jnp.float32))

    def __call__(self, inputs: Array, state: State, call: Call) -> tuple[Array, Aux]:
        """Applies the function to every timestep of `[T, B, ...]`."""
        if not self.keeps_spikes:
            # Maxima and reshapes work on every dtype, sums and products do not.
            inputs = as_floating(f"nn.{type(self).__name__} ({self.name})", inputs)
        timesteps, batch = inputs.shape[:2]
        folded = inputs.reshape(timesteps * batch, *inputs.shape[2:])
        # Inputs are rounded before packing, so that the residual is narrow, too.
        if self.compute is not None:
            folded = narrow(folded, self.compute)
        after = ()
        if self.traces is not None:
            before = widen_to(state.neurons, inputs.dtype)
            after, traces = memory.traces.filter_inputs(self.traces.decay, before, inputs)
            traces = traces.reshape(folded.shape).astype(folded.dtype)
            outputs = memory.traces.traced(_call)(self.function, folded, traces)
        elif not self.pack:
            outputs = _call(self.function, folded)
        elif isinstance(self.function, nnx.Module):
            outputs = memory.packing.packed(_call, storage=self.pack)(self.function, folded)
        else:
            # `packed` takes (params, inputs); a plain function has no params to differentiate.
            pure = bind(_ignore_params, function=self.function)
            outputs = memory.packing.packed(pure, storage=self.pack)((), folded)
        # Strategies name this residual: memory.recompute(keep=("currents",)).
        outputs = checkpoint_name(outputs, "currents")
        # On the unfolded inputs: operations are counted per timestep and example.
        taps = operations_tap(self.function, inputs, call.taps)
        if self.pack == "spikes" and "packing" in call.taps:
            taps = {"": taps.get("", {}) | {"packing": packing_error(folded)}}
        return outputs.reshape(timesteps, batch, *outputs.shape[1:]), Aux(after, taps=taps)

    def with_precision(self, precision: Precision) -> Fold:
        """A copy with inputs, outputs and kernel in other dtypes."""
        if not _keeps_dtype(self.function):
            return self
        compute = None if precision.compute == "float32" else precision.compute
        function: Any = self.function
        kernel: Array = function.kernel[...]
        if kernel.dtype != precision.params:
            function = replace(function, kernel=nnx.Param(narrow(kernel, precision.params)))
        return replace(self, function=function, compute=compute)


def _call(module: Callable[..., Any], inputs: Array) -> Array:
    """Applies a map to `[N, ...]`; outputs of a module on narrow inputs have their dtype."""
    if isinstance(module, nnx.Linear) and module.dtype is None:
        return _linear(module, inputs)
    # A module that does not declare `follows_inputs` computes in float32.
    if isinstance(module, nnx.Module) and is_narrow(inputs) and not _keeps_dtype(module):
        return narrow(module(widen(inputs)), inputs.dtype)
    # Strict promotion refuses float32 parameters with float64 inputs, in modules of Flax too.
    if isinstance(module, nnx.Module) and not _keeps_dtype(module) and inputs.dtype == jnp.float64:
        module = widen_to(module, inputs.dtype)
    return module(inputs)


def _linear(module: nnx.Linear, inputs: Array) -> Array:
    """A linear map, in the dtype of the inputs."""
    # `nnx.Linear` casts its own kernel by astype, which a recomputation may round differently.
    kernel = module.kernel[...]
    if not is_narrow(inputs) and inputs.dtype == kernel.dtype:
        return module(inputs)
    bias = None if module.bias is None else module.bias[...]
    return add_bias(product(inputs, promote(kernel, inputs.dtype)), bias, inputs.dtype)


def _keeps_dtype(module: Any) -> bool:
    """True if a module computes in the dtype of its inputs."""
    return getattr(module, "follows_inputs", isinstance(module, nnx.Linear))


def _ignore_params(params: tuple[()], inputs: Array, *, function: Callable[..., Any]) -> Array:
    del params
    return function(inputs)


class Kernel(nnx.Module):
    """Convolution `[N, *space, C] -> [N, *space', C']` with its kernel, for `Conv`."""

    follows_inputs: ClassVar[bool] = True

    def __init__(self, shape, *, strides, padding, groups, use_bias, kernel_init, rngs):
        self.strides, self.padding, self.groups = strides, padding, groups
        # Parameters are float32; nn.with_precision narrows them.
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape[-1], jnp.float32)) if use_bias else None

    def __call__(self, inputs: Array) -> Array:
        """Convolves examples, in the dtype of the inputs."""
        kernel = promote(self.kernel[...], inputs.dtype)
        outputs = convolution(
            inputs, kernel, strides=self.strides, padding=self.padding, groups=self.groups
        )
        return outputs if self.bias is None else add_bias(outputs, self.bias[...], inputs.dtype)

    def operations(self, inputs: Array) -> metrics.operations.Operations:
        """Synaptic operations of inputs `[T, B, *space, C]`."""
        options = {"strides": self.strides, "padding": self.padding, "groups": self.groups}
        return convolution_operations(inputs, self.kernel[...], **options)


def Linear(
    inputs: int,
    outputs: int,
    *,
    rngs: nnx.Rngs,
    use_bias: bool = True,
    kernel_init: Callable[..., Array] = lecun_normal,
    pack: bool | memory.packing.Storage = False,
) -> Fold:
    """Fully connected synapses, `y[t] = x[t] W + b`, a `flax.nnx.Linear` at every timestep.

    Inputs `[T, B, inputs]`, outputs `[T, B, outputs]`.

    Args:
        inputs: number of input features.
        outputs: number of output features.
        rngs: random streams of the weights.
        use_bias: add a bias b, which starts at 0.
        kernel_init: `(key, shape, dtype) -> weights`.
        pack: storage of the inputs for the backward pass, see `Fold`.
    """
    check_counts("nn.Linear", inputs=inputs, outputs=outputs)
    check_flags("nn.Linear", use_bias=use_bias)
    check_rngs("nn.Linear", rngs)
    module = nnx.Linear(inputs, outputs, use_bias=use_bias, kernel_init=kernel_init, rngs=rngs)
    return Fold(module, name="linear", pack=pack)


def Conv(
    inputs: int,
    outputs: int,
    *,
    kernel: int | Sequence[int] = (3, 3),
    rngs: nnx.Rngs,
    strides: int | Sequence[int] = 1,
    padding: str | int | Sequence[tuple[int, int]] = "SAME",
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: Callable[..., Array] = he_normal,
    pack: bool | memory.packing.Storage = False,
) -> Fold:
    """Convolution at every timestep, `[T, B, *space, inputs] -> [T, B, *space', outputs]`.

    The kernel size selects 1D or 2D. The derivative is written by hand in the form that XLA runs
    fast inside loops, see `ops.convolution`.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel: size per spatial axis; one number means a square 2D kernel, `(k,)` is 1D.
        rngs: random streams of the kernel.
        strides: stride per spatial axis.
        padding: `"SAME"`, `"VALID"`, the number of rows and columns added on every side, or pairs
            `(before, after)` per spatial axis. At stride 2 on an even size `"SAME"` pads 3x3 by
            `(0, 1)`, where PyTorch's networks pad by 1 on every side: their kernels need
            `padding=1`.
        groups: number of separate channel groups; `groups=inputs` is depthwise.
        use_bias: add one bias per output channel; False by default, since a normalisation usually
            follows.
        kernel_init: `(key, shape, dtype) -> kernel`.
        pack: storage of the inputs for the backward pass, see `Fold`.

    Raises:
        ValueError: `inputs` or `outputs` is not divisible by `groups`; another form of padding.
    """
    check_counts("nn.Conv", inputs=inputs, outputs=outputs, groups=groups)
    check_counts("nn.Conv", kernel=kernel, strides=strides)
    check_flags("nn.Conv", use_bias=use_bias)
    check_rngs("nn.Conv", rngs)
    # Tuples, since static attributes must be hashable.
    size = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
    if inputs % groups or outputs % groups:
        raise ValueError(
            f"{inputs} input and {outputs} output channels cannot be divided into {groups} groups: "
            "choose a number of groups that divides both"
        )
    shape = (*size, inputs // groups, outputs)
    module = Kernel(
        shape,
        strides=strides if isinstance(strides, int) else tuple(strides),
        padding=padding_pairs(padding, len(size)),
        groups=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        rngs=rngs,
    )
    return Fold(module, name="conv", pack=pack)


def Flatten() -> Fold:
    """Flattens all features, `[T, B, ...] -> [T, B, N]`."""
    return Fold(flatten, name="flatten", keeps_spikes=True)


def flatten(inputs: Array) -> Array:
    """Flattens examples: `[N, ...] -> [N, features]`."""
    return inputs.reshape(inputs.shape[0], -1)
