"""The two contracts everything else is written against: `Step` and `Scan`.

    Step : (params, state, x)          -> (state, y)     one element of the scanned axis
    Scan : (step, params, state, xs)   -> (state, ys)    a memory strategy

It is the contract of `jax.lax.scan` with the parameters made explicit, so that a strategy may
attach its own derivative (`jax.custom_vjp` cannot differentiate through a closure). A strategy
never changes a value, only what the backward pass keeps, recomputes or reverses.

The same functions serve both axes. Over time `params` are the weights, `state` the membranes and
`xs` the frames; over depth `params` are what all blocks share, `state` is the activations and `xs`
the stacked blocks.

Letters for shapes, used in every docstring: `T` timesteps, `B` batch, `H W` space, `C` channels,
`K` classes. Arrays are time-major and channels-last: `[T, B, H, W, C]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax

Array: TypeAlias = jax.Array
PyTree: TypeAlias = Any
Key: TypeAlias = jax.Array
"""A typed PRNG key, as made by `jax.random.key`."""


class Step(Protocol):
    """One element of the scanned axis: `(params, state, x) -> (state, y)`, a pure function."""

    def __call__(self, params: PyTree, state: PyTree, x: PyTree, /) -> tuple[PyTree, PyTree]:
        """Advances `state` by one element `x` and returns it with the output `y`."""
        ...


class Scan(Protocol):
    """A memory strategy: `(step, params, state, xs) -> (state, ys)`, in value `lax.scan`."""

    def __call__(
        self, step: Step, params: PyTree, state: PyTree, xs: PyTree, /
    ) -> tuple[PyTree, PyTree]:
        """Runs `step` over the leading axis of every leaf of `xs`."""
        ...


@dataclasses.dataclass(frozen=True)
class Bound:
    """A function with its options filled in; equal functions with equal options are equal.

    `functools.partial` compares by identity, so two modules holding equal partials would count as
    different pytrees and retrace. Made by `bind`.
    """

    function: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *args: Any, **more: Any) -> Any:
        """Calls the function with the options, and with more of them."""
        return self.function(*args, **dict(self.options), **more)


def bind(function: Callable[..., Any], /, **options: Any) -> Bound:
    """Fills in the keyword options of a step, as `functools.partial`, but comparable with `==`.

    Example:
        step = bind(neurons.lif, reset=neurons.zero)
        memory.store(step, params, state, currents)
    """
    return Bound(function, tuple(sorted(options.items())))
