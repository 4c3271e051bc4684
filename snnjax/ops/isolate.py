"""Isolation: a computation that XLA:CPU runs alone, so that only its working set is in memory.

    isolate(function, carry, *rest) == function(carry, *rest)

XLA:CPU schedules a program for concurrency: everything whose inputs are ready starts at once. Two
pullbacks in a row then hold both working sets, and an optimization barrier between them does not
help, because XLA removes it before it schedules. A loop is one instruction with its own schedule
inside, so `function` becomes the body of a loop of one trip, whose length is hidden from the
compiler, which would otherwise inline it.

The carry of a loop is updated in place, so a result that replaces an argument costs no memory:
streams in place of streams, gradients in place of parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from snnjax.typing import PyTree

__all__ = ["isolate", "one_trip"]


def isolate(function: Callable[..., PyTree], carry: PyTree, *rest: PyTree) -> PyTree:
    """Calls a function, on a CPU with nothing else computed meanwhile.

    Args:
        function: Function `(carry, *rest) -> carry` that keeps tree, shapes and dtypes. Everything
            to differentiate must be among its arguments, not in its closure.
        carry: Arguments that the result replaces in place.
        *rest: Arguments that are only read.

    Returns:
        `function(carry, *rest)`. The derivative is that of the plain call, in any mode and order,
        and is not isolated.
    """
    # Other devices get the plain call: their compilers schedule for memory, and a loop there would
    # wait for the host at each trip.
    # Both branches are traced; under `jax.jit` the second finds the trace of the first.
    function = jax.jit(function, inline=True)
    loop = functools.partial(one_trip, function)
    return lax.platform_dependent(carry, *rest, cpu=loop, default=function)


# Reverse mode cannot differentiate a loop of unknown length; it can the plain call.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _one_trip(function, carry, rest):
    # Behind the barrier the number of trips is no constant, so XLA cannot inline the loop.
    trips = lax.optimization_barrier(jnp.int32(1))

    def body(state):
        trip, carry = state

        # XLA hoists expressions independent of the trip out of the loop: the barrier ties them to
        # it.
        def tie(leaf):
            return lax.optimization_barrier((trip, leaf))[1]

        carry, args = jax.tree.map(tie, (carry, rest))
        return trip + 1, function(carry, *args)

    return lax.while_loop(lambda state: state[0] < trips, body, (jnp.int32(0), carry))[1]


@_one_trip.defjvp
def _one_trip_jvp(function, primals, tangents):
    return jax.jvp(lambda carry, rest: function(carry, *rest), primals, tangents)


def one_trip(function: Callable[..., PyTree], carry: PyTree, *rest: PyTree) -> PyTree:
    """Calls a function in a loop of one trip on every device: `isolate` for CPU-only code."""
    return _one_trip(function, carry, rest)
