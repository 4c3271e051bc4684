"""A computation that XLA:CPU runs by itself, so that its working set is its own.

    isolate(function, carry, *rest) == function(carry, *rest)

XLA:CPU orders a program for concurrency: what does not wait for data starts at once. Two pullbacks
in a row then hold both working sets, and an optimization barrier between them does not help, since
it is gone before the order is made. A loop is one instruction, with an order of its own inside. So
`function` becomes the body of a loop of one trip; the compiler would write it out if it could see
that it is one.

As in every loop of XLA the carry is updated in place, so what replaces an array there costs
nothing: give the streams and get the streams, give parameters and get their gradients.
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
    """Calls a function; on a CPU such that nothing else is computed meanwhile.

    Other devices get the call itself: their compilers order for memory, and would wait for the host
    to learn whether the loop goes on.

    Args:
        function: `(carry, *rest) -> carry`, of the same tree, shapes and dtypes; what is
            differentiated must be among its arguments, not in its closure.
        carry: updated in place.
        rest: what is only read.

    Returns:
        `function(carry, *rest)`. The derivative is that of the call, in any mode and order, and is
        not computed apart.
    """
    loop = functools.partial(one_trip, function)
    return lax.platform_dependent(carry, *rest, cpu=loop, default=function)


# A loop of a length that is not known cannot be differentiated backwards, the call can.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _one_trip(function, carry, rest):
    trips = lax.optimization_barrier(jnp.int32(1))

    def body(state):
        trip, carry = state

        # What does not depend on the trip would be computed in front of the loop.
        def bound(leaf):
            return lax.optimization_barrier((trip, leaf))[1]

        carry, args = jax.tree.map(bound, (carry, rest))
        return trip + 1, function(carry, *args)

    return lax.while_loop(lambda state: state[0] < trips, body, (jnp.int32(0), carry))[1]


@_one_trip.defjvp
def _one_trip_jvp(function, primals, tangents):
    return jax.jvp(lambda carry, rest: function(carry, *rest), primals, tangents)


def one_trip(function: Callable[..., PyTree], carry: PyTree, *rest: PyTree) -> PyTree:
    """`isolate` for code that is for a CPU anyway: the loop, whatever the device."""
    return _one_trip(function, carry, rest)
