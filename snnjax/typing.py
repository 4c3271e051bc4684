"""The two contracts of the library: `Step` and `Scan`.

    Step : (params, state, x)          -> (state, y)     one element of the scanned axis
    Scan : (step, params, state, xs)   -> (state, ys)    a memory strategy

A Scan has the contract of `jax.lax.scan` with explicit parameters, so that a strategy can define
its own derivative (`jax.custom_vjp` cannot differentiate through a closure). A strategy never
changes a value, only what the backward pass keeps, recomputes or reverses. One whose gradient is
not that of `lax.scan` says so by the attribute `exact = False`.

The same functions serve both axes. Over time, `params` are the weights, `state` the membranes and
`xs` the frames; over depth, `params` are shared by all blocks, `state` is the activations and `xs`
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
    """A memory strategy: `(step, params, state, xs) -> (state, ys)`, in value `lax.scan`.

    Optional attributes: `exact = False` if the gradient is another one, with `least_cosine`, the
    smallest cosine of a layer's gradient to the exact one that `memory.check` accepts; `inner`, a
    scan within this one; `saves_memory = False` if it keeps no less than `lax.scan`.
    """

    def __call__(
        self, step: Step, params: PyTree, state: PyTree, xs: PyTree, /
    ) -> tuple[PyTree, PyTree]:
        """Runs `step` over the leading axis of every leaf of `xs`."""
        ...


@dataclasses.dataclass(frozen=True)
class Bound:
    """A function with bound options; equal functions with equal options are equal.

    Made by `bind`.
    """

    # `functools.partial` compares by identity: two modules with equal partials would be different
    # pytrees, and `jax.jit` would trace both.

    function: Callable[..., Any]
    # A tuple of pairs, not a dict: static fields of a module must be hashable.
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *args: Any, **more: Any) -> Any:
        """Calls the function with the bound options and further keyword arguments."""
        return self.function(*args, **dict(self.options), **more)


def bind(function: Callable[..., Any], /, **options: Any) -> Bound:
    """Binds keyword options of a step, like `functools.partial`, but comparable with `==`.

    Args:
        function: A step or any other function.
        options: Keyword arguments with hashable values.

    Returns:
        A callable.

    Example:
        step = bind(neurons.lif, reset=neurons.reset.zero)
        memory.store(step, params, state, currents)
    """
    # Sorted, so that the order of the keywords does not matter for equality.
    return Bound(function, tuple(sorted(options.items())))
