"""Equations of a traced function as steps: parameters become numbers, data a chain of nodes.

Equations of parameters alone are computed. An equation on data must be one of `_RULES`; another one
gives a refusal in place of a value, which is raised only if the outputs depend on it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from snnjax.conversion._graph import (
    Constant,
    Data,
    Node,
    Refused,
    Unknown,
    after,
    flattened,
    ordered,
    view,
)
from snnjax.conversion._refusals import describe
from snnjax.conversion._steps import Affine, Clip, Pad, Pool, SpaceMean, Weights

__all__ = ["evaluate"]

Value = Constant | Data | Refused


def evaluate(
    jaxpr: Any,
    constants: Sequence[Value],
    arguments: Sequence[Value],
    *,
    trail: tuple[Any, ...] = (),
) -> list[Value]:
    """Values of the outputs of a traced function.

    Args:
        jaxpr: the function, `jax.extend.core.Jaxpr`.
        constants: values of its constants.
        arguments: values of its arguments.
        trail: the calls around it.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))
    read = lambda v: Constant(v.val) if isinstance(v, Literal) else values[v]  # noqa: E731
    for eqn in jaxpr.eqns:
        results = _equation(eqn, [read(v) for v in eqn.invars], (*trail, eqn))
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _equation(eqn: Any, values: list[Any], trail: tuple[Any, ...]) -> list[Value]:
    """Values of the outputs of an equation."""
    if (inner := _body(eqn, values)) is not None:
        body, arguments = inner
        # A closed function brings its constants, an open one has none.
        own = [Constant(const) for const in getattr(body, "consts", ())]
        return evaluate(getattr(body, "jaxpr", body), own, arguments, trail=trail)
    if all(isinstance(value, Constant) for value in values):
        return _compute(eqn, values)
    for value in values:
        if isinstance(value, Refused):
            return [value] * len(eqn.outvars)
    try:
        rule = _RULES.get(eqn.primitive.name)
        if rule is None:
            raise Unknown("", "")
        return [rule(eqn, *values)]
    except Unknown as error:
        behind = next((v.node.behind for v in values if isinstance(v, Data)), "")
        text = describe(trail, behind=behind, reason=error.reason, cure=error.cure)
        return [Refused(text)] * len(eqn.outvars)


def _body(eqn: Any, values: list[Any]) -> tuple[Any, list[Any]] | None:
    """Function that an equation calls, with its arguments; None if it calls none."""
    name, params = eqn.primitive.name, eqn.params
    if name == "cond" and isinstance(values[0], Constant):
        return params["branches"][int(values[0].value)], values[1:]
    if name in _CALLS:
        return next(params[key] for key in _CALLS[name] if key in params), values
    return None


_CALLS = {
    **dict.fromkeys(("jit", "pjit", "checkpoint", "remat2"), ("jaxpr",)),
    **dict.fromkeys(
        ("closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"),
        ("call_jaxpr", "fun_jaxpr"),
    ),
}


def _compute(eqn: Any, values: list[Constant]) -> list[Value]:
    """Values of an equation of parameters alone."""
    # Calls, whose parameters are no arguments of `bind`, are read into before.
    results = eqn.primitive.bind(*(v.value for v in values), **eqn.params)
    name = next((v.name for v in values if v.name), "")
    results = results if eqn.primitive.multiple_results else [results]
    return [Constant(result, name) for result in results]


def _numbers(constant: Constant) -> np.ndarray:
    # In float64, so that joined maps are rounded once.
    numbers = np.asarray(constant.value).astype(np.float64)
    if np.isnan(numbers).any():
        raise Unknown(f"NaN in {constant.name or 'a constant'}", "train without it")
    return numbers


def _affine(data: Data, scale: Any, shift: Any, behind: str = "") -> Data:
    """`scale x + shift`, by numbers or vectors per channel of the node."""
    node = data.node
    scale, shift = (np.broadcast_to(v, node.shape[-1:]) for v in (scale, shift))
    return dataclasses.replace(
        data, node=after(node, Affine(scale, shift), node.shape, behind=behind)
    )


def _per_channel(eqn: Any, data: Data, constant: Constant) -> tuple[Data, np.ndarray]:
    """A constant as one number, `[1]`, or a vector per channel of the node."""
    array = _numbers(constant)
    if eqn.outvars[0].aval.shape != data.shape:
        raise Unknown("a broadcast of activations", "give both operands one shape")
    if (array == array.flat[0]).all():
        return data, array.reshape(-1)[:1]
    node, example = data.node, data.shape[1:]
    if data.batch or (array != array[:1]).any():
        raise Unknown("a factor or term per example", "use one number per channel")
    vector = np.empty(math.prod(example))
    features = slice(None) if data.index is None else data.index.reshape(-1)
    vector[features] = np.broadcast_to(array[0], example).reshape(-1)
    rows = vector.reshape(-1, node.shape[-1])
    if (rows == rows[0]).all():
        return data, rows[0]
    if len(data.shape) != 2:
        cure = "use one number per channel, and avg_pool with count_include_pad=True"
        raise Unknown("a factor or term per position", cure)
    return dataclasses.replace(data, node=flattened(data)[0]), vector


def _arithmetic(eqn: Any, a: Any, b: Any, *, constant: Callable[..., Any]) -> Data:
    """A sum, difference, product or quotient with a constant.

    Args:
        eqn: the equation.
        a: first operand.
        b: second operand.
        constant: `(c, is data first) -> (scale, shift)`.
    """
    data, other = (a, b) if isinstance(a, Data) else (b, a)
    if not isinstance(other, Constant):
        raise Unknown("", "")
    data, vector = _per_channel(eqn, data, other)
    return _affine(data, *constant(vector, isinstance(a, Data)), behind=other.name)


def _sum(eqn: Any, a: Any, b: Any, *, sign: int) -> Data:
    if not (isinstance(a, Data) and isinstance(b, Data)):
        shift = lambda c, first: (1, sign * c) if first else (sign, c)  # noqa: E731
        return _arithmetic(eqn, a, b, constant=shift)
    if len(a.shape) == len(b.shape) == 2:
        (left, first), (right, second) = flattened(a), flattened(b)
    else:
        left, right, first, second = a.node, b.node, ordered(a), ordered(b)
    if left.shape != right.shape or not np.array_equal(first, second):
        raise Unknown("a sum of activations of two shapes", "project the shortcut")
    if sign < 0:
        right = _affine(Data(right, right.shape), sign, 0).node
    root = _common_root(left, right)
    behind = left.behind or right.behind
    both = Node(None, (left, right), left.shape, behind, root, root.depth + 1)
    return dataclasses.replace(a, node=both)


def _common_root(a: Node, b: Node) -> Node:
    """Last node through which all paths to both lead."""
    while a is not b:
        a, b = (a, b) if a.depth >= b.depth else (b, a)
        assert a.root is not None
        a = a.root
    return a


def _divided(vector: np.ndarray, first: bool) -> tuple[np.ndarray, int]:
    if not first:
        raise Unknown("a reciprocal of activations", "")
    return 1 / vector, 0


def _bounded(eqn: Any, a: Any, b: Any, *, bound: Callable[[float, float], float]) -> Data:
    """A maximum or minimum with a number; both clip an activation that is clipped already."""
    data, other = (a, b) if isinstance(a, Data) else (b, a)
    if not isinstance(other, Constant):
        raise Unknown("a maximum of two activations", "add the paths, and train again")
    data, vector = _per_channel(eqn, data, other)
    if len(vector) > 1:
        raise Unknown("a bound per channel", "use one bound for all channels")
    node, limit = data.node, float(vector[0])
    old, before = node.step, node
    if isinstance(old, Clip):
        before = node.inputs[0]
    else:
        old = Clip(-math.inf, math.inf, node.behind)
    clip = Clip(bound(old.low, limit), bound(old.high, limit), old.behind)
    return dataclasses.replace(data, node=after(before, clip, node.shape))


def _clamp(eqn: Any, low: Any, data: Any, high: Any) -> Data:
    return _bounded(eqn, _bounded(eqn, data, low, bound=max), high, bound=min)


def _dense(eqn: Any, a: Any, b: Any) -> Data:
    """A product with a kernel over the channels, or over all features."""
    (left, right), batch = eqn.params["dimension_numbers"]
    first = isinstance(a, Data)
    data, kernel, axes, rows = (a, b, left, right) if first else (b, a, right, left)
    if not isinstance(kernel, Constant) or any(map(len, batch)):
        raise Unknown("a product of two activations", "use linear layers")
    numbers = np.moveaxis(_numbers(kernel), rows, range(len(rows)))
    if numbers.ndim != len(rows) + 1:
        raise Unknown("a product with several output axes", "give the layer one axis of features")
    numbers = numbers.reshape(-1, numbers.shape[-1])
    if len(axes) == len(data.shape) - 1 and data.batch not in axes:
        row = data.features().transpose(_without(data.batch, axes)).reshape(-1)
        node, index = flattened(Data(data.node, (data.shape[data.batch], len(row)), row))
        rows_of_node = np.empty_like(numbers)
        rows_of_node[index] = numbers
        numbers = rows_of_node
    elif first and tuple(axes) == (len(data.shape) - 1,) and ordered(data)[-1] == axes[0]:
        node = data.node
    else:
        raise Unknown("a product over some axes", "sum over the channels, or over all features")
    shape = (*node.shape[:-1], numbers.shape[-1])
    node = after(node, Weights(numbers, np.zeros(shape[-1])), shape, behind=kernel.name)
    # A kernel on the left puts the examples last.
    return Data(node, shape) if first else Data(node, shape[::-1], batch=1)


def _convolution(eqn: Any, data: Any, kernel: Any) -> Data:
    if not (isinstance(data, Data) and isinstance(kernel, Constant)):
        raise Unknown("a convolution by activations", "use a kernel of parameters")
    params, order, array = eqn.params, ordered(data), _numbers(kernel)
    inputs, weights, outputs = params["dimension_numbers"]
    space = tuple(range(1, array.ndim - 1))
    if tuple(order[axis] for axis in inputs) != (0, array.ndim - 1, *space):
        raise Unknown("a convolution with channels first", "give inputs with channels last")
    if {*params["rhs_dilation"], *params["lhs_dilation"], params["batch_group_count"]} != {1}:
        kind = "dilated" if set(params["lhs_dilation"]) == {1} else "transposed"
        raise Unknown(f"{kind} convolution", "use convolutions without dilation, and train again")
    if not 1 <= len(space) <= 2:
        raise Unknown(f"convolution over {len(space)} axes", "use one or two axes of space")
    step = Weights(
        array.transpose(*weights[2:], weights[1], weights[0]),
        np.zeros(array.shape[weights[0]]),
        tuple(params["window_strides"]),
        _pairs(params["padding"]),
        params["feature_group_count"],
    )
    last = (outputs[0], *outputs[2:], outputs[1])
    shape = tuple(eqn.outvars[0].aval.shape[axis] for axis in last)
    node = after(data.node, step, shape, behind=kernel.name)
    return view(node, tuple(np.argsort(last).tolist()))


def _pairs(padding: Any) -> tuple[tuple[int, int], ...]:
    return tuple((int(low), int(high)) for low, high in padding)


def _window_sum(eqn: Any, data: Data) -> Data:
    params, node = eqn.params, data.node
    # Equinox pools images of one more axis, which has one element.
    window = params["window_dimensions"]
    units = [a for a, n in enumerate(data.shape) if a and n == window[a] == 1]
    added = units[: max(0, len(data.shape) - len(node.shape))]
    kept = [axis for axis in range(len(data.shape)) if axis not in added]
    order = ordered(_reshaped(data, tuple(data.shape[axis] for axis in kept)))
    sort = lambda entries: tuple(entries[kept[order.index(n)]] for n in range(len(order)))  # noqa: E731
    (batch, *window, channel), pads = sort(window), sort(params["padding"])
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    outside = (batch, channel) != (1, 1) or any((*pads[0], *pads[-1]))
    if outside or dilations != {1} or not 1 <= len(window) <= 2:
        raise Unknown("a sum over windows", "pool over one or two axes of space")
    strides, shape = sort(params["window_strides"])[1:-1], sort(eqn.outvars[0].aval.shape)
    step = Pool(tuple(window), strides, _pairs(pads[1:-1]), shape[-1])
    pooled = _reshaped(view(after(node, step, shape), order), eqn.outvars[0].aval.shape)
    # The division that makes it a mean follows as an equation of its own.
    return _affine(pooled, math.prod(window), 0)


def _reshaped(data: Data, shape: tuple[int, ...]) -> Data:
    index = None if data.index is None else data.index.reshape(shape[1:])
    return dataclasses.replace(data, shape=tuple(shape), index=index)


def _reduced(eqn: Any, data: Data) -> Data:
    order = ordered(data)
    axes, shape = {order[axis] for axis in eqn.params["axes"]}, data.node.shape
    if 0 in axes:
        raise Unknown("a sum over the batch", "evaluate by running statistics")
    if axes != set(range(1, len(shape) - 1)) or not axes:
        raise Unknown("a sum over some axes", "take the mean over all axes of space at once")
    mean = after(data.node, SpaceMean(), (shape[0], shape[-1]))
    return _affine(Data(mean, mean.shape), math.prod(shape[1:-1]), 0)


def _padded(eqn: Any, data: Any, value: Any) -> Data:
    if not (isinstance(data, Data) and isinstance(value, Constant)):
        raise Unknown("padding by activations", "pad space by zeros")
    order, config = ordered(data), eqn.params["padding_config"]
    pads = _pairs(config[order.index(n)][:2] for n in range(len(order)))
    zero = not _numbers(value).any()
    outside = any((*pads[0], *pads[-1])) or any(n < 0 for pair in pads for n in pair)
    if not zero or outside or any(entry[2] for entry in config):
        raise Unknown("padding by other than zeros around space", "pad space by zeros")
    shape = tuple(n + sum(pair) for n, pair in zip(data.node.shape, pads, strict=True))
    return view(after(data.node, Pad(pads[1:-1]), shape), order)


def _viewed(eqn: Any, data: Data) -> Data:
    """A reshape that keeps the examples."""
    shape = tuple(eqn.outvars[0].aval.shape)
    if math.prod(shape) != math.prod(data.shape) or shape[0] != data.shape[0] or data.batch:
        raise Unknown("a reshape or broadcast across examples", "keep the batch the first axis")
    return _reshaped(data, shape)


def _transposed(eqn: Any, data: Data) -> Data:
    axes = eqn.params["permutation"]
    rest = _without(data.batch, axes)
    index = data.index if rest == sorted(rest) else data.features().transpose(rest)
    shape = tuple(data.shape[axis] for axis in axes)
    return Data(data.node, shape, index, axes.index(data.batch))


def _without(batch: int, axes: Sequence[int]) -> list[int]:
    """The axes but that of the batch, numbered without it."""
    return [axis - (axis > batch) for axis in axes if axis != batch]


def _cast(eqn: Any, data: Data) -> Data:
    old, new = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    if not jnp.issubdtype(new, jnp.floating) or jnp.finfo(new).bits < jnp.finfo(old).bits:
        cure = f"build the module with dtype={old}, and give it the same variables"
        raise Unknown(f"a computation in {np.dtype(new).name}", cure)
    return data


_RULES: dict[str, Callable[..., Data]] = {
    "add": functools.partial(_sum, sign=1),
    "add_any": functools.partial(_sum, sign=1),
    "sub": functools.partial(_sum, sign=-1),
    "neg": lambda eqn, data: _affine(data, -1, 0),
    "mul": functools.partial(_arithmetic, constant=lambda c, first: (c, 0)),
    "div": functools.partial(_arithmetic, constant=_divided),
    "max": functools.partial(_bounded, bound=max),
    "min": functools.partial(_bounded, bound=min),
    "clamp": _clamp,
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "reduce_window_sum": _window_sum,
    "reduce_sum": _reduced,
    "pad": _padded,
    "transpose": _transposed,
    "convert_element_type": _cast,
    **dict.fromkeys(("reshape", "squeeze", "expand_dims", "broadcast_in_dim"), _viewed),
    **dict.fromkeys(
        ("copy", "copy_p", "stop_gradient", "name", "sharding_constraint"), lambda eqn, data: data
    ),
}
