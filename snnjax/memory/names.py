"""Names that a step gives to values, by `jax.ad_checkpoint.checkpoint_name`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr

from snnjax.memory.operations import parts

__all__ = ["refuse_unknown"]


def refuse_unknown(names: tuple[str, ...], function: Callable[..., Any], *args: Any) -> None:
    """For a recomputation that is to keep named values: a name that nothing bears keeps nothing.

    Traces the forward pass of the derivative, where hand-written rules may name values too.

    Raises:
        ValueError: nothing in `function(*args)` has one of the names.
    """
    traced = jax.make_jaxpr(lambda *args: jax.vjp(function, *args)[0])(*args)
    found = set(_named(traced.jaxpr))
    missing = sorted(set(names) - found)
    if missing:
        raise ValueError(
            f"nothing here has the name {', '.join(map(repr, missing))}, which keep= asks for: "
            f"it has {', '.join(map(repr, sorted(found))) or 'no names'}"
        )


def _named(jaxpr: Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "name":
            yield equation.params["name"]
        for part in parts(equation.params):
            yield from _named(part)
