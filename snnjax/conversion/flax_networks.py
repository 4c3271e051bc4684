"""Networks of plain Flax, or any function of parameters, as source networks of a conversion.

A class of Flax computes what its `__call__` says, which the order of its attributes does not tell.
So the call is traced, and its equations are read: those of parameters alone are computed, those on
the data become layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from snnjax import nn
from snnjax.conversion._graph import Constant, Node, Refused, flattened, input_data, path
from snnjax.conversion._rules import evaluate
from snnjax.conversion._steps import build
from snnjax.ops.arguments import check_counts, shorten
from snnjax.typing import Array, PyTree

__all__ = ["from_flax", "from_function"]

# A prime that no usual axis has: a reshape then tells the examples from the features.
_BATCH = 97
_NEVER_UPDATED = (
    "this network evaluates with batch-norm statistics that were never updated (mean 0): give the "
    "ones of training, variables with its batch_stats or the module that was trained"
)


def from_flax(
    module: nnx.Module | linen.Module,
    *,
    input_shape: tuple[int, ...],
    variables: PyTree = None,
    **call_options: Any,
) -> nn.Network:
    """A trained Flax network as a source network, which `calibrate` and `to_spiking` take.

        net = conversion.from_flax(nnx_module, input_shape=(28, 28, 1))
        net = conversion.from_flax(
            linen_module, variables=variables, input_shape=(28, 28, 1), train=False
        )

    The outputs `[T, B, ...]` are those of the module in evaluation, up to rounding. Parameters are
    copies in the dtype of the module's; those used twice become two.

        in the module                                           in the network
        Dense, Linear, Einsum or `@` with a kernel              nn.Linear
        Conv over one or two axes, with strides, groups, pads   nn.Conv
        a bias; BatchNorm; a factor or term per channel         joined with the kernel beside it
        avg_pool with zeros in the mean                         nn.AvgPool, else a depthwise nn.Conv
        mean over all of space                                  nn.GlobalAvgPool
        reshape to `[B, features]`                              nn.Flatten
        relu, maximum(x, 0)                                     conversion.ReLU
        relu6, clip(x, 0, c), minimum(relu(x), c)               conversion.ThresholdReLU
        a sum of two paths                                      nn.Residual
        dropout, checkpoint, jit                                nothing

    Other orders of axes inside, as `jax.vmap` makes them, convert too. Everything else is refused,
    such as max pooling, softmax, layer norm, attention, other activations, dilated convolutions,
    inputs with channels first, and loops (`lax.scan`).

    Args:
        module: NNX module, or linen module with its variables. Its call takes `[B, *input_shape]`
            and returns the logits. An NNX module is evaluated (`module.eval()`) on a copy.
        input_shape: shape of one example, such as `(28, 28, 1)`.
        variables: variables of a linen module, `{"params": ..., "batch_stats": ...}`.
        **call_options: options of the call in evaluation, such as `train=False`.

    Warns:
        UserWarning: a batch norm whose running mean is 0 in every channel.

    Raises:
        TypeError: no module, or variables that are missing or not expected.
        ValueError: an operation that does not convert, named with its place and the cure; a module
            that fails on inputs of this shape, or without an option of evaluation.
    """
    if isinstance(module, nn.Network):
        raise TypeError("conversion.from_flax: an nn.Network is a source network already")
    if not isinstance(module, linen.Module | nnx.Module):
        raise TypeError(
            "conversion.from_flax takes a module of flax.nnx or flax.linen, got "
            f"{shorten(module)}: conversion.from_function takes functions"
        )
    parts: Callable[..., Any] = _linen_parts if isinstance(module, linen.Module) else _nnx_parts
    apply, params, statistics = parts(module, variables, call_options)
    if _never_updated(statistics):
        warnings.warn(_NEVER_UPDATED, UserWarning, stacklevel=2)
    return from_function(apply, params, input_shape=input_shape)


def from_function(
    function: Callable[[PyTree, Array], Array], params: PyTree, *, input_shape: tuple[int, ...]
) -> nn.Network:
    """A function of parameters and inputs as a source network, see `from_flax`.

    A module of Equinox takes one example with channels first:

        arrays, static = equinox.partition(module, equinox.is_array)
        call = lambda p, x: jax.vmap(equinox.combine(p, static))(x.transpose(0, 3, 1, 2))
        net = conversion.from_function(call, arrays, input_shape=(28, 28, 1))

    Args:
        function: `(params, inputs [B, *input_shape]) -> outputs [B, ...]` in evaluation, of `jax`
            operations.
        params: its parameters, a pytree of arrays.
        input_shape: shape of one example.

    Raises:
        ValueError: as `from_flax`.
    """
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str):
        raise TypeError(
            "conversion takes the shape of one example, such as (28, 28, 1), as input_shape, got "
            f"{shorten(input_shape)}"
        )
    check_counts("conversion", input_shape=tuple(input_shape))
    shape = (_BATCH, *input_shape)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    dtype = _widest([leaf for _, leaf in leaves])
    closed = _trace(function, params, jax.ShapeDtypeStruct(shape, dtype))
    arguments = [Constant(leaf, _name(place)) for place, leaf in leaves]
    constants = [Constant(const) for const in closed.consts]
    results = evaluate(closed.jaxpr, constants, [*arguments, input_data(shape)])
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    return nn.Network(build(path(None, _output(results), tolerance), dtype), input_shape)


def _linen_parts(module: linen.Module, variables: PyTree, options: dict[str, Any]) -> Any:
    """Function, parameters and statistics of a linen module."""
    if variables is None:
        raise TypeError(
            "conversion.from_flax: a linen module keeps no parameters, give its variables too, "
            "from_flax(module, variables=variables, ...)"
        )
    if variables and "params" not in variables:
        raise TypeError(
            "conversion.from_flax takes all variables of a linen module, "
            f'{{"params": ..., "batch_stats": ...}}, got {sorted(variables)}'
        )
    apply = lambda own, x: module.apply(own, x, **options)  # noqa: E731
    return apply, variables, variables.get("batch_stats", {})


def _nnx_parts(module: nnx.Module, variables: PyTree, options: dict[str, Any]) -> Any:
    """Function, parameters and statistics of an NNX module in evaluation."""
    if variables is not None:
        raise TypeError(
            "conversion.from_flax: an NNX module has its parameters: leave out the variables"
        )
    copy: Any = nnx.clone(module)
    # On a copy, since it changes attributes of the module.
    copy.eval()
    graphdef, params = nnx.split(copy)
    apply = lambda own, x: nnx.merge(graphdef, own)(x, **options)  # noqa: E731
    return apply, params, nnx.state(copy, nnx.BatchStat)


def _widest(leaves: list[Any]) -> Any:
    """Dtype of the widest floating parameters, at least float32."""
    dtypes = [leaf.dtype for leaf in leaves if hasattr(leaf, "dtype")]
    floating = [np.dtype(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return max([np.dtype(np.float32), *floating], key=lambda dtype: dtype.itemsize)


def _trace(function: Callable[..., Any], params: PyTree, inputs: jax.ShapeDtypeStruct) -> Any:
    """Equations of the function.

    Raises:
        ValueError: the function fails.
    """
    try:
        # Flax itself divides by integers, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return jax.make_jaxpr(function)(params, inputs)
    except Exception as error:
        # Any library may raise here, each with classes of its own.
        lines = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"the network fails on inputs [B, {', '.join(map(str, inputs.shape[1:]))}] "
            f"({type(error).__name__}: {lines[0][:160]}): give the shape of one example as "
            "input_shape, channels last, all collections of its variables, and the options of "
            "evaluation, such as train=False"
        ) from error


def _output(results: list[Any]) -> Node:
    """The node whose outputs a network returns.

    Raises:
        ValueError: it returns something else, or an operation on the way does not convert.
    """
    if len(results) != 1:
        raise ValueError(
            f"the network returns {len(results)} arrays: return the logits alone, or select them "
            "in a function for conversion.from_function"
        )
    (result,) = results
    if isinstance(result, Refused):
        raise ValueError(result.reason)
    if isinstance(result, Constant):
        raise ValueError("the outputs do not depend on the inputs: return the logits")
    node, ordered = result.node, result.batch == 0
    if ordered and len(result.shape) == 2:
        node, index = flattened(result)
        ordered = np.array_equal(index, np.arange(len(index)))
    elif ordered:
        ordered = result.order == tuple(range(len(result.shape)))
    if not ordered:
        shape = ", ".join(map(str, node.shape[1:]))
        raise ValueError(
            f"the outputs are [B, {shape}] in another shape or order: return them as the last "
            "layer gives them, or as [B, features]"
        )
    return node


def _never_updated(statistics: PyTree) -> bool:
    """True if the running mean of a batch norm is 0 in every channel."""
    leaves = jax.tree_util.tree_leaves_with_path(statistics)
    return any(_name(place).endswith("mean") and not np.any(leaf) for place, leaf in leaves)


def _name(place: Any) -> str:
    """Path of a parameter as the user writes it."""
    name = jax.tree_util.keystr(place, simple=True, separator=".")
    return name.removeprefix("params.").removesuffix(".value")
