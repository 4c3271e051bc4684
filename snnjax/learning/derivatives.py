"""Two derivatives that keep rates in place of a simulation over time.

    surrogate_vjp    value of a simulation, derivative of another function
    implicit_rate    value of a simulation, derivative of a fixed point

Both run a black box forward, such as a spiking network over T timesteps, and keep nothing of its
steps: the bytes of a gradient do not depend on T. The gradient is *not* that of backpropagation
through time: `exact` is False. It is the gradient of the map that the rates approach, taken at the
simulated rates.

    simulate(params, inputs) -> (outputs, kept)      the forward pass; `kept` has no derivative
    summarize(inputs) -> summary                     linear, such as a mean over time
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax

from snnjax.learning.solvers import Info, Solver, neumann
from snnjax.memory.packing import ArraySpec
from snnjax.ops.trees import combine, partition
from snnjax.typing import PyTree

__all__ = ["ImplicitRate", "SurrogateVJP", "implicit_rate", "surrogate_vjp"]


def _identity(inputs: PyTree) -> PyTree:
    return inputs


def surrogate_vjp(
    simulate: Callable[..., tuple[PyTree, PyTree]],
    surrogate: Callable[..., PyTree],
    *,
    summarize: Callable[[PyTree], PyTree] = _identity,
) -> SurrogateVJP:
    """A function with the values of a simulation and the derivative of a surrogate.

        value         outputs, kept = simulate(params, inputs)
        derivative    that of surrogate(params, summarize(inputs), kept)

    The backward pass keeps `params`, `summarize(inputs)` and `kept`, and evaluates the surrogate
    there. Used layer by layer, spike trains must pass between the layers, not rates: rates would
    turn the network into one without spikes.

    Args:
        simulate: forward pass `(params, inputs) -> (outputs, kept)`; any step, any network.
        surrogate: differentiable `(params, summary, kept) -> outputs`, of the shapes of the
            outputs.
        summarize: linear function of the inputs; the default keeps them as they are.

    Returns:
        The function `(params, inputs) -> (outputs, kept)`. Equal arguments give equal functions, if
        options are bound by `typing.bind`. Its attribute `exact` is False.

    Raises:
        ValueError: the surrogate has outputs of other shapes (on differentiation).

    Reference:
        Meng, Xiao, Yan, Wang, Lin, Luo, "Training High-Performance Low-Latency Spiking Neural
        Networks by Differentiation on Spike Representation", 2022, arXiv:2205.00459.
    """
    return SurrogateVJP(simulate, surrogate, summarize)


@dataclasses.dataclass(frozen=True)
class SurrogateVJP:
    """Function made by `surrogate_vjp`."""

    simulate: Callable[..., tuple[PyTree, PyTree]]
    surrogate: Callable[..., PyTree]
    summarize: Callable[[PyTree], PyTree]
    exact: ClassVar[bool] = False

    def __call__(self, params: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
        """Outputs and kept arrays of the simulation."""
        return _surrogate(self, *partition(params), inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _surrogate(function, params, others, inputs):
    return function.simulate(combine(params, others), inputs)


def _surrogate_forward(function, params, others, inputs):
    outputs, kept = function.simulate(combine(params, others), inputs)
    summary = function.summarize(inputs)
    return (outputs, kept), (params, others, summary, kept, _shapes(inputs))


def _surrogate_backward(function, residuals, cotangents):
    params, others, summary, kept, shapes = residuals

    def run(params, summary):
        return function.surrogate(combine(params, others), summary, kept)

    outputs, pull = jax.vjp(run, params, summary)
    _check_shapes(outputs, cotangents[0], "the surrogate", "the simulation")
    g_params, g_summary = pull(cotangents[0])
    return g_params, None, _transpose(function.summarize, shapes, g_summary)


_surrogate.defvjp(_surrogate_forward, _surrogate_backward)


def implicit_rate(
    fixed_point: Callable[..., PyTree],
    simulate: Callable[..., tuple[PyTree, PyTree]],
    *,
    solver: Callable[..., tuple[PyTree, Info]] | None = None,
    summarize: Callable[[PyTree], PyTree] = _identity,
    at_map: bool = False,
    jacobian: Callable[..., PyTree] | None = None,
) -> ImplicitRate:
    """Rates of a simulation, differentiated as the fixed point `a = f(a)` that they approach.

        value         rates, kept = simulate(params, inputs)
        derivative    beta = J^T beta + g,   J = df/da,   g = dL/da
                      dL/dtheta = beta^T df/dtheta        at the simulated rates

    The backward pass keeps `params`, `summarize(inputs)` and the rates. The equation needs
    |J| < 1 for a unique fixed point; a feedback weight is bounded for it (`learning.Spectral`).

    Args:
        fixed_point: differentiable f, `(params, summary, rates) -> rates`.
        simulate: forward pass `(params, inputs) -> (rates, kept)`; any step, any network.
        solver: solver of the linear equation, see `learning.solvers`; None is `neumann()`.
        summarize: linear function of the inputs; the default keeps them as they are.
        at_map: takes J at `f(a)` instead of `a`, as the released code of IDE does for networks of
            several layers.
        jacobian: function in place of f whose Jacobian the equation takes, such as f with frozen
            normalisation; None is f.

    Returns:
        The function `(params, inputs, *, info=None) -> (rates, kept)`; its attribute `exact` is
        False. If `info` is `Info.zeros(n)`, n the number of layers of a spiking solver and else 0,
        the gradient with respect to it is the solver's `Info`, which exists in the backward pass
        only.

    Raises:
        ValueError: `fixed_point` has outputs of other shapes than the rates (on differentiation).

    Reference:
        Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit
        Differentiation on the Equilibrium State", 2021, arXiv:2109.14247.
    """
    return ImplicitRate(
        fixed_point, simulate, neumann() if solver is None else solver, summarize, at_map,
        fixed_point if jacobian is None else jacobian,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ImplicitRate:
    """Function made by `implicit_rate`."""

    fixed_point: Callable[..., PyTree]
    simulate: Callable[..., tuple[PyTree, PyTree]]
    solver: Solver | Callable[..., tuple[PyTree, Info]]
    summarize: Callable[[PyTree], PyTree]
    at_map: bool
    jacobian: Callable[..., PyTree]
    exact: ClassVar[bool] = False

    def __call__(
        self, params: PyTree, inputs: PyTree, *, info: Info | None = None
    ) -> tuple[PyTree, PyTree]:
        """Rates and kept arrays of the simulation."""
        return _implicit(self, *partition(params), inputs, info)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _implicit(function, params, others, inputs, info):
    del info
    return function.simulate(combine(params, others), inputs)


def _implicit_forward(function, params, others, inputs, info):
    rates, kept = function.simulate(combine(params, others), inputs)
    summary = function.summarize(inputs)
    # `info` is kept for its structure only: None, or zeros.
    return (rates, kept), (params, others, summary, rates, info, _shapes(inputs))


def _implicit_backward(function, residuals, cotangents):
    params, others, summary, rates, info, shapes = residuals

    def run(params, summary, rates):
        return function.fixed_point(combine(params, others), summary, rates)

    image, pull = jax.vjp(run, params, summary, rates)
    _check_shapes(image, rates, "the fixed-point map", "the rates")
    linearized = functools.partial(function.jacobian, combine(params, others), summary)
    _, pull_rates = jax.vjp(linearized, image if function.at_map else rates)
    beta, found = function.solver(lambda b: pull_rates(b)[0], cotangents[0])
    g_params, g_summary, _ = pull(beta)
    g_inputs = _transpose(function.summarize, shapes, g_summary)
    return g_params, None, g_inputs, None if info is None else found


_implicit.defvjp(_implicit_forward, _implicit_backward)


def _shapes(tree: PyTree) -> PyTree:
    # Static nodes: residuals that keep no array.
    return jax.tree.map(ArraySpec.from_array, tree)


def _transpose(summarize, shapes: PyTree, cotangent: PyTree) -> PyTree:
    # By the shapes alone: a linear function has no residuals, and the inputs are not kept.
    is_spec = lambda node: isinstance(node, ArraySpec)  # noqa: E731
    struct = lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype)  # noqa: E731
    inputs = jax.tree.map(struct, shapes, is_leaf=is_spec)
    return jax.linear_transpose(summarize, inputs)(cotangent)[0]


def _check_shapes(actual: PyTree, expected: PyTree, left: str, right: str) -> None:
    shapes = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), tree)
        for tree in (actual, expected)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{left} gives {shapes[0]} and {right} {shapes[1]}: a derivative in place of that of a "
            "simulation needs outputs of the same shapes and dtypes"
        )
