"""A traced function as a graph of steps: parameters become numbers, data a chain of nodes.

Equations of parameters alone are computed. An equation on data must be one of `_RULES`; another one
gives a refusal in place of a value, which is raised only if the outputs depend on it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from snnjax.conversion._refusals import describe
from snnjax.conversion._steps import (
    Affine,
    Branches,
    Clip,
    Flatten,
    Pad,
    Pool,
    SpaceMean,
    Step,
    Weights,
    join,
)

__all__ = ["Constant", "Data", "Refused", "evaluate", "input_data", "path", "resolved"]


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A step on the outputs of other nodes; the inputs have none, a sum of two nodes no step.

    Attributes:
        step: the step, or None.
        inputs: nodes before it.
        shape: shape of the outputs, `(B, *space, C)`.
        behind: name of the last parameter used.
        root: node through which every path from the inputs to this one leads; None for the inputs.
        depth: number of such nodes.
    """

    step: Step | None
    inputs: tuple[Node, ...]
    shape: tuple[int, ...]
    behind: str
    root: Node | None
    depth: int


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A value that does not depend on the inputs, with the name of a parameter in it."""

    value: Any
    name: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Outputs of a node, seen in another shape."""

    node: Node
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Refused:
    """A value that no step gives, with the reason."""

    reason: str


class _Unknown(Exception):
    """An equation that no step expresses: words for it, and the cure."""

    def __init__(self, reason: str = "", cure: str = ""):
        super().__init__(reason)
        self.reason, self.cure = reason, cure


def input_data(shape: tuple[int, ...]) -> Data:
    """The inputs of a network, `(B, *space, C)`."""
    return Data(Node(None, (), shape, "", None, 0), shape)


def _after(data: Data, step: Step, shape: tuple[int, ...], behind: str = "") -> Data:
    """The data after a step."""
    node = data.node
    return Data(Node(step, (node,), shape, behind or node.behind, node, node.depth + 1), shape)


def path(start: Node | None, end: Node, tolerance: float) -> list[Step]:
    """The joined steps from one node to another.

    Args:
        start: node through which all paths to `end` lead.
        end: last node.
        tolerance: see `join`.
    """
    steps = []
    while end is not start and end.inputs:
        if end.step is not None:
            steps.append(end.step)
        else:
            paths = [path(end.root, node, tolerance) for node in end.inputs]
            # The longer path is the branch; a sum does not depend on the order.
            shortcut, branch = sorted(paths, key=len)
            steps.append(Branches(branch, shortcut))
        assert end.root is not None
        end = end.root
    return join(reversed(steps), tolerance=tolerance)


Value = Constant | Data | Refused


def evaluate(
    jaxpr: Any, constants: Sequence[Value], arguments: Sequence[Value], trail: tuple[Any, ...] = ()
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
    known = all(isinstance(value, Constant) for value in values)
    if (inner := _body(eqn, values)) is not None:
        body, arguments = inner
        # A closed function brings its constants, an open one has none.
        own = [Constant(const) for const in getattr(body, "consts", ())]
        return evaluate(getattr(body, "jaxpr", body), own, arguments, trail)
    if known:
        return _compute(eqn, values)
    for value in values:
        if isinstance(value, Refused):
            return [value] * len(eqn.outvars)
    try:
        rule = _RULES.get(eqn.primitive.name)
        if rule is None:
            raise _Unknown
        return [rule(eqn, *values)]
    except _Unknown as error:
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
    return np.asarray(constant.value).astype(np.float64)


def resolved(data: Data) -> Data:
    """Data in the shape of its node, after a flattening if need be."""
    batch, *rest = data.node.shape
    if data.shape == data.node.shape:
        return data
    if data.shape == (batch, math.prod(rest)):
        return _after(data, Flatten(math.prod(rest[:-1])), data.shape)
    raise _Unknown(
        f"a reshape from {_listed(data.node.shape)} to {_listed(data.shape)}",
        "flatten all features of an example at once, and give examples their final shape",
    )


def _listed(shape: tuple[int, ...]) -> str:
    return f"[B, {', '.join(map(str, shape[1:]))}]"


def _affine(data: Data, scale: Any, shift: Any, behind: str = "") -> Data:
    """`scale x + shift`, by numbers or vectors per channel."""
    scale, shift = (np.broadcast_to(v, data.node.shape[-1:]) for v in (scale, shift))
    step = Affine(scale, shift, len(data.node.shape) - 2)
    return dataclasses.replace(_after(data, step, data.node.shape, behind), shape=data.shape)


def _per_channel(eqn: Any, data: Data, constant: Constant) -> tuple[Data, np.ndarray]:
    """A constant as a number or a vector per channel of the node."""
    array = _numbers(constant)
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    if eqn.outvars[0].aval.shape != data.shape:
        raise _Unknown("a broadcast of activations", "give both operands one shape")
    if (rows != rows[0]).any():
        cure = "use one number per channel, and avg_pool with count_include_pad=True"
        raise _Unknown("a factor or term per position", cure)
    vector = rows[0]
    if (vector == vector[0]).all():
        return data, vector[:1]
    # A vector of channels stays one in other views, such as [B, 1, 1, C].
    return data if data.shape[-1] == data.node.shape[-1] else resolved(data), vector


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
        raise _Unknown
    data, vector = _per_channel(eqn, data, other)
    return _affine(data, *constant(vector, isinstance(a, Data)), behind=other.name)


def _sum(eqn: Any, a: Any, b: Any, *, sign: int) -> Data:
    if not (isinstance(a, Data) and isinstance(b, Data)):
        shift = lambda c, first: (1, sign * c) if first else (sign, c)  # noqa: E731
        return _arithmetic(eqn, a, b, constant=shift)
    a, b = resolved(a), resolved(b)
    if a.shape != b.shape:
        raise _Unknown("a sum of activations of two shapes", "project the shortcut")
    if sign < 0:
        b = _affine(b, sign, 0)
    root = _common_root(a.node, b.node)
    inputs, behind = (a.node, b.node), a.node.behind or b.node.behind
    return Data(Node(None, inputs, a.shape, behind, root, root.depth + 1), a.shape)


def _common_root(a: Node, b: Node) -> Node:
    """Last node through which all paths to both lead."""
    while a is not b:
        a, b = (a, b) if a.depth >= b.depth else (b, a)
        assert a.root is not None
        a = a.root
    return a


def _divided(vector: np.ndarray, first: bool) -> tuple[np.ndarray, int]:
    if not first:
        raise _Unknown("a reciprocal of activations", "")
    return 1 / vector, 0


def _bounded(eqn: Any, a: Any, b: Any, *, bound: Callable[[float, float], float]) -> Data:
    """A maximum or minimum with a number; both clip an activation that is clipped already."""
    data, other = (a, b) if isinstance(a, Data) else (b, a)
    if not isinstance(other, Constant):
        raise _Unknown("a maximum of two activations", "add the paths, and train again")
    data, vector = _per_channel(eqn, data, other)
    if len(vector) > 1:
        raise _Unknown("a bound per channel", "use one bound for all channels")
    node, step = data.node, data.node.step
    if not isinstance(step, Clip):
        step, before = Clip(-math.inf, math.inf), data
    else:
        before = Data(node.inputs[0], node.inputs[0].shape)
    limit = float(vector[0])
    clip = Clip(bound(step.low, limit), bound(step.high, limit))
    return dataclasses.replace(_after(before, clip, node.shape), shape=data.shape)


def _clamp(eqn: Any, low: Any, data: Any, high: Any) -> Data:
    return _bounded(eqn, _bounded(eqn, data, low, bound=max), high, bound=min)


def _dense(eqn: Any, data: Any, kernel: Any) -> Data:
    (axes, rows), batch = eqn.params["dimension_numbers"]
    if not (isinstance(data, Data) and isinstance(kernel, Constant)) or any(map(len, batch)):
        both = isinstance(data, Data) and isinstance(kernel, Data)
        cure = "use linear layers" if both else "write x @ kernel, with examples first"
        raise _Unknown("a product of two activations" if both else "a product kernel @ x", cure)
    numbers = np.moveaxis(_numbers(kernel), rows, range(len(rows)))
    if tuple(axes) == tuple(range(1, len(data.shape))):
        data = Data(data.node, (data.shape[0], math.prod(data.shape[1:])))
    elif tuple(axes) != (len(data.shape) - 1,):
        raise _Unknown("a product over some axes", "sum over the channels, or over all features")
    if numbers.ndim != len(rows) + 1:
        raise _Unknown("a product with several output axes", "give the layer one axis of features")
    data, numbers = resolved(data), numbers.reshape(-1, numbers.shape[-1])
    weights = Weights(numbers, np.zeros(numbers.shape[-1]))
    return _after(data, weights, (*data.shape[:-1], numbers.shape[-1]), kernel.name)


def _convolution(eqn: Any, data: Any, kernel: Any) -> Data:
    if not (isinstance(data, Data) and isinstance(kernel, Constant)):
        raise _Unknown("a convolution by activations", "use a kernel of parameters")
    params, data, array = eqn.params, resolved(data), _numbers(kernel)
    last, space = array.ndim - 1, tuple(range(1, array.ndim - 1))
    inputs, weights, outputs = params["dimension_numbers"]
    if tuple(inputs) != (0, last, *space) or tuple(outputs) != tuple(inputs):
        raise _Unknown("a convolution with channels first", "put the channels last")
    if {*params["rhs_dilation"], *params["lhs_dilation"], params["batch_group_count"]} != {1}:
        kind = "dilated" if set(params["lhs_dilation"]) == {1} else "transposed"
        raise _Unknown(f"{kind} convolution", "use convolutions without dilation, and train again")
    if not 1 <= len(space) <= 2:
        raise _Unknown(f"convolution over {len(space)} axes", "use one or two axes of space")
    step = Weights(
        array.transpose(*weights[2:], weights[1], weights[0]),
        np.zeros(array.shape[weights[0]]),
        tuple(params["window_strides"]),
        _pairs(params["padding"]),
        params["feature_group_count"],
    )
    return _after(data, step, eqn.outvars[0].aval.shape, kernel.name)


def _pairs(padding: Any) -> tuple[tuple[int, int], ...]:
    return tuple((int(low), int(high)) for low, high in padding)


def _window_sum(eqn: Any, data: Data) -> Data:
    params, data = eqn.params, resolved(data)
    (batch, *window, channel), pads = params["window_dimensions"], _pairs(params["padding"])
    dilations = {*params["base_dilation"], *params["window_dilation"]}
    outside = (batch, channel) != (1, 1) or any((*pads[0], *pads[-1]))
    if outside or dilations != {1} or not 1 <= len(window) <= 2:
        raise _Unknown("a sum over windows", "pool over one or two axes of space")
    strides = tuple(params["window_strides"][1:-1])
    step = Pool(tuple(window), strides, pads[1:-1], data.shape[-1])
    pooled = _after(data, step, eqn.outvars[0].aval.shape)
    # The division that makes it a mean follows as an equation of its own.
    return _affine(pooled, math.prod(window), 0)


def _reduced(eqn: Any, data: Data) -> Data:
    data, axes = resolved(data), tuple(eqn.params["axes"])
    if 0 in axes:
        raise _Unknown("a sum over the batch", "evaluate by running statistics")
    if axes != tuple(range(1, len(data.shape) - 1)) or not axes:
        raise _Unknown("a sum over some axes", "take the mean over all axes of space at once")
    count = math.prod(data.shape[1:-1])
    return _affine(_after(data, SpaceMean(), (data.shape[0], data.shape[-1])), count, 0)


def _padded(eqn: Any, data: Any, value: Any) -> Data:
    config = eqn.params["padding_config"]
    zero = isinstance(value, Constant) and not _numbers(value).any()
    pads = _pairs(entry[:2] for entry in config)
    outside = any((*pads[0], *pads[-1])) or any(n < 0 for pair in pads for n in pair)
    if not zero or outside or any(entry[2] for entry in config):
        raise _Unknown("padding by other than zeros around space", "pad space by zeros")
    return _after(resolved(data), Pad(pads[1:-1]), eqn.outvars[0].aval.shape)


def _viewed(eqn: Any, data: Data) -> Data:
    """A reshape that keeps the examples and the order of features."""
    shape = eqn.outvars[0].aval.shape
    if math.prod(shape) != math.prod(data.shape) or shape[0] != data.shape[0]:
        raise _Unknown("a reshape or broadcast across examples", "keep the batch the first axis")
    return Data(data.node, shape)


def _transposed(eqn: Any, data: Data) -> Data:
    order = [axis for axis in eqn.params["permutation"] if data.shape[axis] != 1]
    if order != sorted(order):
        raise _Unknown("a transposition", "keep time and batch first and channels last")
    return _viewed(eqn, data)


def _cast(eqn: Any, data: Data) -> Data:
    old, new = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    if not jnp.issubdtype(new, jnp.floating) or jnp.finfo(new).bits < jnp.finfo(old).bits:
        cure = f"build the module with dtype={old}, and give it the same variables"
        raise _Unknown(f"a computation in {np.dtype(new).name}", cure)
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
