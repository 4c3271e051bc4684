"""Whether a strategy changes anything: its values and gradients held against those of `store`.

    relative = max|g - g_store| / max|g_store|,    cosine = <g, g_store> / (|g| |g_store|)

Works on a scan or a step of your own, on whatever device is at hand: outputs must be equal bit for
bit there, which for a strategy that runs a step again means that the device repeats itself.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.memory.accounting import Measured, analysed
from snnjax.memory.reverse import Reverse
from snnjax.memory.scans import store
from snnjax.memory.trees import combine, partition
from snnjax.typing import PyTree, Scan, Step

__all__ = ["Checked", "Difference", "check", "compare_gradients", "timed", "unequal"]

_NOISE = 1e-5


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a gradient is from that of `store`.

    Attributes:
        relative: largest difference, as a share of the largest entry.
        cosine: of the angle between the two.
    """

    relative: float
    cosine: float


@dataclasses.dataclass(frozen=True)
class Checked:
    """What was found about one strategy.

    Attributes:
        name: the strategy.
        faults: what is wrong with it, each in a sentence; empty if nothing is.
        outputs_equal: whether outputs and last state are those of `store`, bit for bit.
        gradients: the difference per array, by its path.
        reconstruction: largest error of a rebuilt state; None where nothing is rebuilt.
        measured: bytes of the gradient.
        seconds: a run of it, the median of some.
        statistics_equal: whether normalisation statistics left once, as under `store`; None where
            there are none.
        bits_left: binary places between the reversible streams and the bound of their grid.
    """

    name: str
    faults: tuple[str, ...]
    outputs_equal: bool
    gradients: Mapping[str, Difference]
    reconstruction: float | None
    measured: Measured
    seconds: float
    statistics_equal: bool | None = None
    bits_left: float | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    @property
    def relative(self) -> float:
        """The largest relative difference of any gradient."""
        return max((d.relative for d in self.gradients.values()), default=0.0)

    @property
    def cosine(self) -> float:
        """The smallest cosine of any gradient."""
        return min((d.cosine for d in self.gradients.values()), default=1.0)


def check(
    scans: Mapping[str, Scan],
    step: Step,
    params: PyTree,
    state: PyTree,
    xs: PyTree,
    *,
    bound: float = 1e-5,
    tolerance: float = 1e-2,
    repeats: int = 3,
    compiler_options: Mapping[str, Any] | None = None,
) -> list[Checked]:
    """Holds scans against `store`: outputs, gradients, reconstruction, bytes and time.

    Faults are named: an inverse that does not undo the step, by-products (statistics) that do not
    leave as they should, random keys that a replay does not see again, and any other difference.

    Args:
        scans: by name; your own among them.
        step: `(params, state, x) -> (state, y)`.
        params: its parameters.
        state: before the first step.
        xs: its inputs, keys among them where it draws.
        bound: relative difference of gradients to put up with, in float32.
        tolerance: error of a rebuilt state to put up with.
        repeats: runs to time.
        compiler_options: for `jax.jit`, those of the program that is to run. Bits depend on them:
            XLA fuses some products with sums.

    Returns:
        One finding per scan, in their order.

    Example:
        found, = memory.check({"mine": my_scan}, neurons.lif, params, state, currents)
        assert found.ok, found.faults
    """
    arguments = (params, state, xs)
    expected, _ = timed(_graded(store, step, compiler_options), arguments, repeats=1)
    found = []
    for name, scan in scans.items():
        graded = _graded(scan, step, compiler_options)
        actual, seconds = timed(graded, arguments, repeats=repeats)
        measured = analysed(graded.lower(*arguments).compile(), None)
        gradients = compare_gradients(actual[1], expected[1])
        faults, reconstruction = [], None
        if isinstance(scan, Reverse):
            reconstruction = float(jax.jit(functools.partial(scan.error, step))(*arguments))
            if not reconstruction <= tolerance:
                faults.append(f"wrong inverse: a rebuilt state is off by {reconstruction:.2g}")
        (state_1, ys_1), (state_0, ys_0) = actual[0], expected[0]
        if different := unequal(ys_1, ys_0):
            faults.append(f"outputs or by-products differ from store's: {', '.join(different)}")
        if different := unequal(state_1, state_0):
            faults.append(f"the last state differs from store's: {', '.join(different)}")
        worst = max(gradients, key=lambda n: gradients[n].relative, default="")
        if not faults and worst and not gradients[worst].relative <= bound:
            faults.append(
                "a dropped key: the replay draws other random numbers than the forward pass"
                if _agrees_without_keys(scan, step, arguments, bound)
                else f"wrong gradient of {worst}, off by {gradients[worst].relative:.2g}"
            )
        equal = not unequal(actual[0], expected[0])
        found.append(
            Checked(name, tuple(faults), equal, gradients, reconstruction, measured, seconds)
        )
    return found


def compare_gradients(actual: PyTree, expected: PyTree) -> dict[str, Difference]:
    """The difference of each array of two trees of gradients, by its path.

    An array that has no gradient but rounding errors (largest entry below 1e-5 of the largest of
    all arrays, such as a bias in front of a batch norm) is measured against the largest of all.
    """
    pairs = list(zip(_named(actual), _named(expected), strict=True))
    largest = max((np.abs(b).max(initial=0.0) for _, (_, b) in pairs), default=0.0)
    return {name: _difference(a, b, float(largest)) for (name, a), (_, b) in pairs}


def unequal(actual: PyTree, expected: PyTree, *, within: float = 0.0) -> list[str]:
    """Paths of arrays that are not equal bit for bit, or `within` a share of the largest entry."""

    def differ(a, b):
        return not np.array_equal(a, b) and not _difference(a, b, 0.0).relative <= within

    pairs = zip(_named(actual), _named(expected), strict=True)
    return [name or "outputs" for (name, a), (_, b) in pairs if differ(a, b)]


def timed(jitted: Callable[..., Any], arguments: tuple[Any, ...], *, repeats: int) -> Any:
    """The result of a jitted function, and the median seconds of the runs after it (NaN: none)."""
    result = jax.block_until_ready(jitted(*arguments))
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(jitted(*arguments))
        spent.append(time.perf_counter() - began)
    return jax.device_get(result), statistics.median(spent or [math.nan])


def _graded(scan: Scan, step: Step, compiler_options: Any = None) -> Any:
    """`(params, state, xs) -> ((state, ys), gradients)` of a sum in which all entries differ."""

    def loss(smooth, rest):
        outputs = scan(step, *combine(smooth, rest))
        return sum(_weighted(leaf) for leaf in jax.tree.leaves(partition(outputs)[0])), outputs

    @functools.partial(jax.jit, compiler_options=compiler_options)
    def graded(*arguments):
        smooth, rest = partition(arguments)
        gradients, outputs = jax.grad(loss, has_aux=True)(smooth, rest)
        return outputs, gradients

    return graded


def _weighted(leaf: jax.Array) -> jax.Array:
    weights = jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
    return jnp.sum(leaf.astype(jnp.float32) * weights)


def _agrees_without_keys(scan: Scan, step: Step, arguments: tuple[Any, ...], bound: float) -> bool:
    """Whether the gradient is right once all keys are one and the same; False without keys."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    keys = [leaf for leaf in jax.tree.leaves(arguments) if is_key(jnp.asarray(leaf))]
    if not keys:
        return False
    one = keys[0].reshape(-1)[0]
    same = jax.tree.map(
        lambda leaf: jnp.broadcast_to(one, leaf.shape) if is_key(jnp.asarray(leaf)) else leaf,
        arguments,
    )
    gradients = (jax.device_get(_graded(s, step)(*same)[1]) for s in (scan, store))
    return max(d.relative for d in compare_gradients(*gradients).values()) <= bound


def _named(tree: PyTree) -> list[tuple[str, np.ndarray]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), _plain(x)) for path, x in flat]


def _plain(leaf: Any) -> np.ndarray:
    keys = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


def _difference(actual: np.ndarray, expected: np.ndarray, largest: float) -> Difference:
    a, b = (x.astype(np.float64).ravel() for x in (actual, expected))
    scale, gap = np.abs(b).max(initial=0.0), np.abs(a - b).max(initial=0.0)
    noise = scale <= _NOISE * largest
    scale = largest if noise else scale
    relative = float(gap / scale) if scale else float(gap > 0)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return Difference(relative, 1.0 if noise or not norms else float(a @ b / norms))
