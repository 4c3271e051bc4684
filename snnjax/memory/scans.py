"""Memory strategies as scans of equal values and different residuals.

A strategy scans time (the step is a neuron or a whole cell) or depth (the step is a block, `xs` the
stacked blocks). With S the bytes of one state, R those of one step's residuals, N the length:

    strategy                 kept for the backward pass    forward passes
    store                    N R                           1
    recompute(every=k)       (N / k) S + k R               2
    recompute(every=k, inner=recompute(every=m))
                             (N / k) S + (k / m) S + m R   3

`recompute(every=k, inner=sequence)` replays k steps at once, if the step has a function for a whole
sequence. The `keep` of `recompute` refers to names set by `jax.ad_checkpoint.checkpoint_name`.

Sequences are processed in segments of `every` steps; the last one may be short.
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

from snnjax.memory.accounting import inner_jaxprs
from snnjax.ops.rounding import widen_to
from snnjax.typing import PyTree, Scan, Step

__all__ = [
    "Recompute",
    "match_dtypes",
    "recompute",
    "refuse_unknown",
    "scan_length",
    "scan_segments",
    "slice_steps",
    "store",
    "sequence",
]


def refuse_unknown(names: tuple[str, ...], function: Callable[..., Any], *args: Any) -> None:
    """Checks that the names of kept values occur in a function.

    Raises:
        ValueError: No value in `function(*args)` has one of the names.
    """
    # A misspelt name would silently keep nothing. The forward pass of the derivative is traced,
    # because hand-written rules may name values there.
    traced = jax.make_jaxpr(lambda *args: jax.vjp(function, *args)[0])(*args)
    known = set(_value_names(traced.jaxpr))
    missing = sorted(set(names) - known)
    if missing:
        raise ValueError(
            f"nothing here has the name {', '.join(map(repr, missing))}, which keep= asks for: "
            f"choose among {', '.join(map(repr, sorted(known))) or '(no names)'}"
        )


def _value_names(jaxpr: Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "name":
            yield equation.params["name"]
        for inner in inner_jaxprs(equation.params):
            yield from _value_names(inner)


def scan_length(xs: PyTree) -> int:
    """Length of the leading axis of all leaves.

    Raises:
        ValueError: The lengths differ, or there are no leaves.
    """
    lengths = sorted({jnp.shape(x)[:1] for x in jax.tree.leaves(xs)})
    if len(lengths) != 1 or lengths == [()]:
        # `dynamic_slice` would clamp the shorter leaf to its end without an error.
        axes = [list(length) for length in lengths]
        raise ValueError(f"xs needs arrays of one length along their leading axis, got {axes}")
    return lengths[0][0]


def slice_steps(xs: PyTree, start: Any, length: int) -> PyTree:
    """Slices `xs[start : start + length]` of every leaf; `start` may be traced."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), xs)


def match_dtypes(step: Step, params: PyTree, state: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """Parameters and state in the dtypes that a step gives its state on wider inputs.

    A loop needs a state of one dtype. Inputs in float64 make a float32 state one of float64 after
    the first step: it then starts as one. All other arguments are returned as they are.
    """
    if _bits(xs, max) <= _bits(state, min):
        return params, state
    # Shapes and dtypes of one step; these traces are paid by wider inputs only.
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), xs)
    wide = jnp.dtype(f"float{_bits(xs, max)}")
    # A filter hands its dtype to the membrane one step later, so one step does not tell all.
    for _ in jax.tree.leaves(state):
        try:
            after = jax.eval_shape(step, params, state, first)[0]
        # Under strict promotion dtypes do not mix: everything takes that of the inputs. Any other
        # error comes again from the scan.
        except (TypeError, ValueError):
            return widen_to((params, state), wide)
        if jax.tree.structure(after) != jax.tree.structure(state):
            return params, state
        wider = jax.tree.map(lambda leaf, new: widen_to(leaf, new.dtype), state, after)
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(wider), strict=True)
        if all(jnp.result_type(old) == jnp.result_type(new) for old, new in pairs):
            break
        state = wider
    return params, state


def _bits(tree: PyTree, choose: Callable[..., int]) -> int:
    """Bits of the widest or narrowest floating leaf, 0 or 64 without one."""
    dtypes = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
    bits = [jnp.finfo(d).bits for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    return choose(bits, default=0 if choose is max else 64)  # type: ignore[call-arg]


def scan_segments(
    segment: Callable[..., tuple[PyTree, PyTree, PyTree]],
    carry: PyTree,
    length: int,
    every: int,
    *,
    inputs: PyTree = None,
    last: PyTree = None,
    reverse: bool = False,
) -> tuple[PyTree, PyTree, PyTree]:
    """Scans a function over the segments of a sequence.

    Args:
        segment: Function `(carry, start, input, size) -> (carry, ys, end)` of the steps `start` to
            `start + size`; `ys` has `size` rows.
        carry: Carry before the first segment (before the last one, with `reverse`).
        length: Number of steps.
        every: Steps in a full segment.
        inputs: Inputs of the full segments, stacked.
        last: Input of the short segment.
        reverse: Scans from the last segment to the first.

    Returns:
        The carry after all segments, `ys` of all steps, `[length, ...]`, and the `end`s of the full
        segments, stacked.
    """
    full, short = divmod(length, every)

    # Over the numbers of the segments: slicing or reshaping a sequence before a scan copies it, a
    # slice inside the loop does not.
    def run_segment(carry, x):
        carry, ys, end = segment(carry, x[0] * every, x[1], every)
        return carry, (ys, end)

    # The short segment runs outside the loop: padding the inputs to equal segments would copy them.
    final: PyTree = None
    if short and reverse:
        carry, final, _ = segment(carry, full * every, last, short)
    carry, (ys, ends) = lax.scan(run_segment, carry, (jnp.arange(full), inputs), reverse=reverse)
    ys = jax.tree.map(lambda y: y.reshape(full * every, *y.shape[2:]), ys)
    if short and not reverse:
        carry, final, _ = segment(carry, full * every, last, short)
    if short:
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, final)
    return carry, ys, ends


def store(step: Step, params: PyTree, state: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """Scan that keeps every residual of every step: plain `lax.scan`.

        state[n], y[n] = step(params, state[n-1], x[n]),    n = 1..N

    It keeps N R bytes for N steps with R bytes of residuals each, and needs one forward pass. It is
    the fastest strategy wherever it fits, and the reference of all others. It works in forward mode
    too. Do not use it for sequences or stacks whose N R bytes exceed the memory.

    Args:
        step: Step `(params, state, x) -> (state, y)`.
        params: Parameters shared by all steps; differentiable.
        state: State before the first step.
        xs: Inputs, stacked along the leading axis of every leaf, `[N, ...]`.

    Returns:
        The state after the last step, and the outputs `[N, ...]`.
    """
    params, state = match_dtypes(step, params, state, xs)
    try:
        return lax.scan(lambda s, x: step(params, s, x), state, xs)
    except TypeError as error:
        _explain_state(step, params, state, xs, error)
        raise


def _explain_state(step: Step, params: PyTree, state: PyTree, xs: PyTree, error: Exception) -> None:
    """Raises a clear error if the step changes shapes or dtypes of its state."""
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[1:], jnp.result_type(x)), xs)
    before, after = (
        jax.tree_util.tree_leaves_with_path(jax.eval_shape(lambda s: s, tree))
        for tree in (state, jax.eval_shape(step, params, state, first)[0])
    )
    if [path for path, _ in before] != [path for path, _ in after]:
        raise TypeError(
            "a step returns a state of the structure that it takes, and this one returns "
            f"{[jax.tree_util.keystr(path) for path, _ in after]} for "
            f"{[jax.tree_util.keystr(path) for path, _ in before]}"
        ) from error
    for (path, old), (_, new) in zip(before, after, strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise TypeError(
                f"the state{jax.tree_util.keystr(path)} is {old.dtype}{list(old.shape)} before a "
                f"step and {new.dtype}{list(new.shape)} after it: make the state for these inputs, "
                "such as initial_state(xs.shape[1:])"
            ) from error


def sequence(step: Step, params: PyTree, state: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """Scan by the step's whole-sequence function, `step.sequence(params, state, xs)`, or `store`.

    A network in `order="time"` runs a sequence layer by layer, each synapse as one product over all
    frames. `recompute(k, inner=sequence)` of such a network keeps as many bytes as `recompute(k)`
    and computes products k times as large: faster on a CPU if the products of one timestep are
    small. A large product may round differently from k small ones, as in `order="layer"`. The
    sequence of a neuron has a hand-written derivative and the values of `store`, bit for bit. The
    step's function determines the kept bytes.

    Args:
        step: Step `(params, state, x) -> (state, y)`; its attribute `sequence`, if not None, is a
            function `(params, state, xs) -> (state, ys)`, equal in value to scanning the step.
        params: Parameters shared by all steps; differentiable.
        state: State before the first step.
        xs: Inputs, `[N, ...]`.

    Returns:
        The state after the last step, and the outputs `[N, ...]`.
    """
    function = getattr(step, "sequence", None)
    if function is None:
        return store(step, params, state, xs)
    params, state = match_dtypes(step, params, state, xs)
    return function(params, state, xs)


def recompute(
    every: int | Literal["sqrt"], *, inner: Scan = store, keep: tuple[str, ...] = ()
) -> Scan:
    """Scan that keeps the state every `every` steps and replays the steps between.

        forward    state[n], y[n] = step(params, state[n-1], x[n])
        backward   per segment, last first: replay it from its kept state, then its derivative

    With S the bytes of one state and R the residuals of one step, it keeps

        (N / every) S + every R

    instead of the N R of `store`, for one extra forward pass; another `inner` replaces `every R` by
    its own bytes of one segment. An interval near `sqrt(N)` balances both terms;
    `every=1` recomputes each step from its own state (`N S + R`). Levels nest, each for one extra
    pass: `recompute(every=64, inner=recompute(every=8))` keeps `(N / 64) S + 8 S + 8 R`. Any length
    works: the last segment may be short, and only its outputs are copied.

    Values are bit-equal to those of `store`, and gradients equal up to the order in which the
    gradient of the parameters is summed over segments (float32: relative 1e-5 with `inner=store`;
    float64: 1e-12 for any nesting of `recompute`).

    Do not use it where the parameters dominate the memory: each level of scanning holds one more
    accumulator of their gradient. For a bare LIF `neurons.lif_scan` is as lean at no extra pass.

    Args:
        every: Length of a segment, in steps; `"sqrt"` is the root of the length, rounded up.
        inner: Strategy within a segment during its replay; `sequence` if the step's whole-sequence
            function is faster than step by step.
        keep: Names of values to keep at every step instead of recomputing them, as set by
            `jax.ad_checkpoint.checkpoint_name`. The layers of `snnjax.nn` name the outputs of
            neurons `"spikes"` and those of synapses `"currents"`, and `nn.Sequential` names the
            output of a layer after the layer, such as `"linear0"`. Keeping currents avoids the
            second pass of products and convolutions.

    Returns:
        A scan; equal arguments give equal scans.

    Raises:
        ValueError: `every` is not a positive integer or `"sqrt"`; `inner` is not a scan; `keep` is
            not a tuple of names or (when called) has a name that does not occur in the step.

    Reference:
        Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016,
        arXiv:1604.06174.
    """
    # `True` is an int, but no number of steps.
    number = isinstance(every, int) and not isinstance(every, bool) and every >= 1
    if not number and every != "sqrt":
        raise ValueError(
            f"recompute(every) needs a positive integer number of steps, got {every!r}; about the "
            'square root of the length keeps least: every="sqrt"'
        )
    if not callable(inner):
        raise ValueError(f"inner is a scan, such as memory.recompute(1), not {inner!r}")
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise ValueError(f"keep is a tuple of names, such as ('currents',), not {keep!r}")
    return Recompute(every, inner, tuple(keep))


@dataclasses.dataclass(frozen=True)
class Recompute:
    """Recomputing scan, made by `recompute`.

    Attributes:
        every: Length of a segment, in steps, or `"sqrt"`.
        inner: Strategy within a segment.
        keep: Names of values kept at every step.
    """

    every: int | Literal["sqrt"]
    inner: Scan = store
    keep: tuple[str, ...] = ()

    def __call__(
        self, step: Step, params: PyTree, state: PyTree, xs: PyTree
    ) -> tuple[PyTree, PyTree]:
        """Runs `step` over `xs`, keeping the state every `every` steps."""
        length = scan_length(xs)
        if length == 0:
            return store(step, params, state, xs)
        params, state = match_dtypes(step, params, state, xs)
        # The root rounded up, in integers: a float root of a large square may round down.
        every = math.isqrt(length - 1) + 1 if self.every == "sqrt" else self.every

        def segment(params, state, xs, start, size):
            return self.inner(step, params, state, slice_steps(xs, start, size))

        if self.keep:
            first = slice_steps(xs, 0, min(every, length))
            refuse_unknown(self.keep, functools.partial(self.inner, step), params, state, first)
        policy = jax.checkpoint_policies.save_only_these_names(*self.keep) if self.keep else None
        # prevent_cse is for unrolled code: the loop over segments prevents the elimination itself,
        # and its barriers would cost time.
        checkpointed = jax.checkpoint(segment, prevent_cse=False, policy=policy, static_argnums=4)
        state, ys, _ = scan_segments(
            lambda state, start, _, size: (*checkpointed(params, state, xs, start, size), ()),
            state,
            length,
            min(every, length),
        )
        return state, ys
