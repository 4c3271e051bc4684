"""The scans: what the backward pass keeps of a step's sequence, with the same values under each.

Both serve time (a neuron, or a whole cell as the step) and depth (a block as the step, stacked
blocks as `xs`). With S the bytes of one state, R the bytes of one step's residuals, N the length:

    strategy                 kept for the backward pass    forward passes
    store                    N R                           1
    recompute(every=k)       (N / k) S + k R               2
    recompute(every=k, inner=recompute(every=m))
                             (N / k) S + (k / m) S + m R   3

`recompute(every=k, inner=sequence)` replays k steps by the step's whole-sequence function.

Sequences in segments of `every` steps, the last one possibly short, without copying the inputs.

Slicing or reshaping a sequence in front of a scan is a copy of it; a slice taken inside the loop is
not. So a loop over segments runs over their numbers.

Names that a step gives to values, by `jax.ad_checkpoint.checkpoint_name`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr

from snnjax.memory.flops import parts
from snnjax.typing import PyTree, Scan, Step

__all__ = [
    "Recompute",
    "length_of",
    "over_segments",
    "piece",
    "recompute",
    "refuse_unknown",
    "store",
    "sequence",
]


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


def length_of(xs: PyTree) -> int:
    """Length of the leading axis of every leaf.

    Raises:
        ValueError: the leaves differ in it, or there are none.
    """
    lengths = sorted({jnp.shape(x)[:1] for x in jax.tree.leaves(xs)})
    if len(lengths) != 1 or lengths == [()]:
        # Slicing would clamp the shorter leaf to its end without a word.
        found = [list(length) for length in lengths]
        raise ValueError(f"xs needs arrays of one length along their leading axis, got {found}")
    return lengths[0][0]


def piece(xs: PyTree, start: Any, length: int) -> PyTree:
    """`xs[start : start + length]` of every leaf; `start` may be traced."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), xs)


def over_segments(
    segment: Callable[..., tuple[PyTree, PyTree, PyTree]],
    carry: PyTree,
    length: int,
    every: int,
    *,
    given: PyTree = None,
    last: PyTree = None,
    reverse: bool = False,
) -> tuple[PyTree, PyTree, PyTree]:
    """Runs a function over the segments of a sequence of `length` steps.

    Args:
        segment: `(carry, start, given, size) -> (carry, ys, mark)`, for the steps `start` to
            `start + size`; `ys` has `size` rows.
        carry: before the first segment (before the last one, with `reverse`).
        length: steps in all.
        every: steps in a whole segment.
        given: something for every whole segment, stacked.
        last: the same for the short one.
        reverse: from the last segment to the first.

    Returns:
        The carry after all segments, `ys` of all steps, `[length, ...]`, and the marks of the whole
        segments, stacked.
    """
    whole, short = divmod(length, every)

    def one(carry, x):
        carry, ys, mark = segment(carry, x[0] * every, x[1], every)
        return carry, (ys, mark)

    final: PyTree = None
    if short and reverse:
        carry, final, _ = segment(carry, whole * every, last, short)
    carry, (ys, marks) = lax.scan(one, carry, (jnp.arange(whole), given), reverse=reverse)
    ys = jax.tree.map(lambda y: y.reshape(whole * every, *y.shape[2:]), ys)
    if short and not reverse:
        carry, final, _ = segment(carry, whole * every, last, short)
    if short:
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, final)
    return carry, ys, marks


def store(step: Step, params: PyTree, state: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """Plain `lax.scan`: keeps every residual of every step, `N R` bytes; one forward pass.

    The fastest strategy wherever its memory fits, and the reference every other one is tested
    against. Works in forward mode too.

    Args:
        step: `(params, state, x) -> (state, y)`.
        params: what every step shares; differentiable.
        state: the state before the first step.
        xs: the inputs, stacked along the leading axis of every leaf, `[N, ...]`.

    Returns:
        The state after the last step, and the outputs `[N, ...]`.
    """
    return lax.scan(lambda s, x: step(params, s, x), state, xs)


def sequence(step: Step, params: PyTree, state: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """The step's whole-sequence function, `step.sequence(params, state, xs)`; else `store`.

    A network in `order="time"` runs a sequence layer by layer, each synapse as one product over all
    frames. `recompute(k, inner=sequence)` of such a network keeps as many bytes as `recompute(k)`,
    with products k times as large: faster on a CPU where the products of one timestep are small. A
    large product may round differently from k small ones, as in `order="layer"`. The sequence of a
    neuron is a hand-written derivative, whose values are those of `store`, bit for bit. The step's
    function determines the kept bytes.

    Args:
        step: `(params, state, x) -> (state, y)`; its attribute `sequence`, if not None, is
            `(params, state, xs) -> (state, ys)`, equal in value to scanning the step.
        params: parameters shared by all steps; differentiable.
        state: the state before the first step.
        xs: the inputs, `[N, ...]`.

    Returns:
        The state after the last step, and the outputs `[N, ...]`.
    """
    function = getattr(step, "sequence", None)
    if function is None:
        return store(step, params, state, xs)
    return function(params, state, xs)


def recompute(
    every: int | Literal["sqrt"], *, inner: Scan = store, keep: tuple[str, ...] = ()
) -> Scan:
    """Keeps the state every `every` steps and replays the steps between from it.

    Kept: `(N / every) S` states, plus what `inner` keeps of the one segment being replayed, `every
    R` with `store`; one extra forward pass per level. `every` near `sqrt(N)` balances the two
    terms; `every=1` recomputes each step from its own state (`N S`, and one `R`). Levels nest:
    `recompute(every=64, inner=recompute(every=8))` keeps `(N / 64) S + 8 S + 8 R` for two extra
    passes. Any length is served: the last segment may be short, and nothing is padded or copied
    for it but the outputs' last piece.

    The values are those of `store`, bit for bit; so are the gradients, up to the order in which
    the parameters' gradient is summed over segments (float32: relative 1e-5 with `inner=store`;
    float64: 1e-12 for any nesting of `recompute`).

    Do not use it where the parameters dominate the memory: each level of scanning holds one more
    accumulator of their gradient. For a bare LIF `neurons.lif_scan` is as lean and costs nothing.

    Args:
        every: length of a segment, in steps; `"sqrt"` takes the root of the length, rounded up.
        inner: the strategy within a segment while it is replayed; `sequence` where the
            step has a faster way through a segment than step by step.
        keep: names of values to keep at every step instead of computing them again, as given by
            `jax.ad_checkpoint.checkpoint_name`. The layers of `snnjax.nn` name `"spikes"` (what
            neurons give out) and `"currents"` (what synapses give out), and what a layer of an
            `nn.Sequential` gives out has the name of that layer, such as `"linear0"`. Keeping
            currents spares the second pass of products and convolutions.

    Returns:
        A scan; equal arguments give equal scans.

    Raises:
        ValueError: `every` is not a positive whole number or `"sqrt"`; `inner` is no scan, or
            `keep` no tuple of names, or, when run, names what nothing in the step is called.

    Reference:
        Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016,
        arXiv:1604.06174.
    """
    number = isinstance(every, int) and not isinstance(every, bool) and every >= 1
    if not number and every != "sqrt":
        raise ValueError(
            f"recompute(every) needs a positive whole number of steps, got {every!r}; about the "
            'square root of the length keeps least: every="sqrt"'
        )
    if not callable(inner):
        raise ValueError(f"inner is a scan, such as memory.recompute(1), not {inner!r}")
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise ValueError(f"keep is a tuple of names, such as ('currents',), not {keep!r}")
    return Recompute(every, inner, tuple(keep))


@dataclasses.dataclass(frozen=True)
class Recompute:
    """The scan made by `recompute`.

    Attributes:
        every: length of a segment, in steps, or `"sqrt"`.
        inner: the strategy within a segment.
        keep: names of values that are kept all the same.
    """

    every: int | Literal["sqrt"]
    inner: Scan = store
    keep: tuple[str, ...] = ()

    def __call__(
        self, step: Step, params: PyTree, state: PyTree, xs: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs `step` over `xs`, keeping the state every `every` steps."""
        length = length_of(xs)
        if length == 0:
            return store(step, params, state, xs)
        every = math.isqrt(length - 1) + 1 if self.every == "sqrt" else self.every

        def segment(params, state, xs, start, size):
            return self.inner(step, params, state, piece(xs, start, size))

        if self.keep:
            first = piece(xs, 0, min(every, length))
            refuse_unknown(self.keep, functools.partial(self.inner, step), params, state, first)
        policy = jax.checkpoint_policies.save_only_these_names(*self.keep) if self.keep else None
        replayed = jax.checkpoint(segment, prevent_cse=False, policy=policy, static_argnums=4)
        state, ys, _ = over_segments(
            lambda state, start, _, size: (*replayed(params, state, xs, start, size), ()),
            state,
            length,
            min(every, length),
        )
        return state, ys
