"""Check of a strategy: values and gradients compared with those of `store`.

    relative = max|g - g_store| / max|g_store|,    cosine = <g, g_store> / (|g| |g_store|)

The check takes any scan and any step, on any device. Outputs must be bit-equal; for a strategy that
replays a step this requires deterministic kernels. A scan that declares `exact = False` has another
gradient: it is compared layer by layer, and fails only if a cosine is below the scan's own bound,
`least_cosine`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.memory.accounting import MemoryUse, compiled_memory
from snnjax.memory.approximate import approximation, is_exact
from snnjax.memory.reverse import Reverse
from snnjax.memory.scans import store
from snnjax.ops.trees import combine, partition
from snnjax.typing import Array, PyTree, Scan, Step

__all__ = [
    "CheckResult",
    "Difference",
    "approximation",
    "bound_faults",
    "check",
    "check_independence",
    "compare_gradients",
    "compare_layers",
    "is_exact",
    "time_call",
    "unequal_leaves",
]

# An array whose largest gradient is below this fraction of the largest of all is rounding noise.
_NOISE = 1e-5


@dataclasses.dataclass(frozen=True)
class Difference:
    """Difference of a gradient from that of `store`.

    Attributes:
        relative: Largest difference, as a fraction of the largest entry.
        cosine: Cosine of the angle between both gradients.
        norm_ratio: Norm as a fraction of that of `store`.
    """

    relative: float
    cosine: float
    norm_ratio: float = 1.0


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Result of checking one strategy.

    Attributes:
        name: Name of the strategy.
        faults: Faults, one sentence each; empty if there are none.
        outputs_equal: True if outputs and last state are bit-equal to those of `store`.
        gradients: Difference of each array's gradient, by path.
        reconstruction: Largest error of a reconstructed state; None if no state is reconstructed.
        measured: Bytes of the compiled gradient.
        seconds: Median time of a gradient, s.
        statistics_equal: True if normalisation statistics are those of `store`; None without
            statistics.
        bits_left: Binary places between the reversible streams and the bound of their grid.
        layers: Difference of each layer's gradient, all of its arrays together, by path.
        exact: False if the scan or a layer declares another derivative than backpropagation through
            time; equality of gradients is then no criterion.
        residual: Largest residual of the solvers of implicit derivatives, as a fraction of the
            gradient; None without one.
    """

    name: str
    faults: tuple[str, ...]
    outputs_equal: bool
    gradients: Mapping[str, Difference]
    reconstruction: float | None
    measured: MemoryUse
    seconds: float
    statistics_equal: bool | None = None
    bits_left: float | None = None
    exact: bool = True
    residual: float | None = None
    layers: Mapping[str, Difference] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True if no fault was found."""
        return not self.faults

    @property
    def relative(self) -> float:
        """Largest relative difference of any gradient."""
        return max((d.relative for d in self.gradients.values()), default=0.0)

    @property
    def cosine(self) -> float:
        """Smallest cosine of any gradient."""
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
) -> list[CheckResult]:
    """Compares scans with `store`: outputs, gradients, reconstruction, bytes and time.

    The result names each fault: a wrong inverse, wrong by-products (such as statistics), random
    keys dropped in a replay, or any other difference.

    Args:
        scans: Scans by name, such as your own.
        step: Step `(params, state, x) -> (state, y)`.
        params: Parameters of the step.
        state: State before the first step.
        xs: Inputs, including keys if the step draws random numbers.
        bound: Largest accepted relative difference of gradients, in float32.
        tolerance: Largest accepted error of a reconstructed state.
        repeats: Number of timed runs.
        compiler_options: Options of `jax.jit`; take those of the training program.

    Returns:
        One result per scan, in their order.

    Example:
        result, = memory.check({"mine": my_scan}, neurons.lif, params, state, currents)
        assert result.ok, result.faults
    """
    # Bits depend on the compiler options, since XLA fuses some products with sums: both gradients
    # are compiled alike.
    arguments = (params, state, xs)
    expected, _ = time_call(_gradient(store, step, compiler_options), arguments, repeats=1)
    results = []
    for name, scan in scans.items():
        gradient = _gradient(scan, step, compiler_options)
        actual, seconds = time_call(gradient, arguments, repeats=repeats)
        measured = compiled_memory(gradient.lower(*arguments).compile(), None)
        gradients = compare_gradients(actual[1], expected[1])
        faults, reconstruction = [], None
        if isinstance(scan, Reverse):
            reconstruction = float(jax.jit(functools.partial(scan.error, step))(*arguments))
            if not reconstruction <= tolerance:  # NaN fails too
                faults.append(f"wrong inverse: a rebuilt state is off by {reconstruction:.2g}")
        (state_1, ys_1), (state_0, ys_0) = actual[0], expected[0]
        if different := unequal_leaves(ys_1, ys_0):
            faults.append(f"outputs or by-products differ from store's: {', '.join(different)}")
        if different := unequal_leaves(state_1, state_0):
            faults.append(f"the last state differs from store's: {', '.join(different)}")
        # A wrong inverse makes the gradient wrong as well: only the cause is reported.
        worst = max(gradients, key=lambda n: gradients[n].relative, default="")
        layers = compare_layers(actual[1][0], expected[1][0])
        rule = approximation(scan)
        if rule is not None:
            faults += bound_faults(layers, [rule])
        elif not faults and worst and not gradients[worst].relative <= bound:
            faults.append(
                "a dropped key: the replay draws other random numbers than the forward pass"
                if _agrees_without_keys(scan, step, arguments, bound)
                else f"wrong gradient of {worst}, off by {gradients[worst].relative:.2g}"
            )
        equal = not unequal_leaves(actual[0], expected[0])
        results.append(
            CheckResult(
                name, tuple(faults), equal, gradients, reconstruction, measured, seconds,
                exact=rule is None, layers=layers,
            )
        )  # fmt: skip
    return results


def check_independence(
    function: Callable[[Array], Mapping[str, Array]],
    frames: Array,
    *,
    lengths: Array | None = None,
) -> list[str]:
    """Checks that an example's results depend neither on its neighbours nor on its padding.

    The frames of every other example, and then those of the rest, are mirrored along all axes but
    the batch, which keeps their values; after them the frames beyond `lengths` are. The results of
    the examples that were not changed, and those of valid timesteps, must keep every bit. A network
    is checked in evaluation, where batch norm does not join examples.

    Args:
        function: Pure function from frames `[T, B, ...]` to arrays `[T, B, ...]` (without lengths
            also of another number of timesteps) by name, in the order in which they are computed;
            the first one that changes is named.
        frames: Frames, `[T, B, ...]` with B of at least 2.
        lengths: Valid timesteps of each example, `[B]`; None checks no padding.

    Returns:
        One sentence per fault; empty without one.

    Raises:
        ValueError: A batch of fewer than two examples.

    Example:
        def layers(frames):
            state = net.initial_state(frames.shape[1])
            outputs, aux = net(frames, state, training=False, taps=("spikes",))
            return {name: kinds["spikes"] for name, kinds in aux.taps.items()} | {"end": outputs}

        assert not memory.checking.check_independence(layers, frames)
    """
    steps, batch = frames.shape[:2]
    if batch < 2:
        raise ValueError("independence of neighbours needs a batch of at least two examples")
    names: list[str] = []

    @jax.jit
    def run(frames):
        # `jit` sorts a mapping; the order of computation tells which layer is the first.
        results = function(frames)
        names[:] = list(results)
        return list(results.values())

    expected = jax.device_get(run(frames))
    mirrored = jnp.flip(frames, tuple(axis for axis in range(frames.ndim) if axis != 1))
    even = np.broadcast_to(np.arange(batch) % 2 == 0, (steps, batch))
    cases = [(even, "its neighbours in the batch"), (~even, "its neighbours in the batch")]
    if lengths is not None:
        cases.append((np.arange(steps)[:, None] < np.asarray(lengths), "frames of its padding"))
    faults = []
    for kept, cause in cases:
        shape = (steps, batch, *[1] * (frames.ndim - 2))
        actual = jax.device_get(run(jnp.where(kept.reshape(shape), frames, mirrored)))
        for name, a, b in zip(names, actual, expected, strict=True):
            # A mean over time has one row, a simulation of a constant current more than its frames.
            rows = kept[np.minimum(np.arange(len(a)), steps - 1)]
            own, before = a[rows], b[rows]
            if not np.array_equal(own, before, equal_nan=True):
                gap = np.max(np.abs(own.astype(np.float64) - before))
                faults.append(f"{name}: an example depends on {cause}, by up to {gap:.2g}")
                # Later layers read this one.
                break
    return list(dict.fromkeys(faults))


def compare_gradients(actual: PyTree, expected: PyTree) -> dict[str, Difference]:
    """Compares two trees of gradients array by array.

    Args:
        actual: Gradients of a strategy.
        expected: Gradients of `store`.

    Returns:
        Differences by path. A gradient of rounding errors only (largest entry below 1e-5 of that of
        all arrays, such as of a bias before a batch norm) is compared relative to the largest entry
        of all arrays.
    """
    pairs = list(zip(_named(actual), _named(expected), strict=True))
    largest = max((np.abs(b).max(initial=0.0) for _, (_, b) in pairs), default=0.0)
    return {name: _difference(a, b, float(largest)) for (name, a), (_, b) in pairs}


def compare_layers(actual: PyTree, expected: PyTree) -> dict[str, Difference]:
    """Compares two trees of gradients layer by layer.

    Args:
        actual: Gradients of the parameters by a strategy.
        expected: Gradients by `store`.

    Returns:
        Differences by the path of the layer, that of its arrays without their own names.
    """
    layers: dict[str, list[list[np.ndarray]]] = {}
    for (name, a), (_, b) in zip(_named(actual), _named(expected), strict=True):
        owner = name.removesuffix(".value").rpartition(".")[0] or name
        pair = layers.setdefault(owner, [[], []])
        pair[0].append(a.ravel())
        pair[1].append(b.ravel())
    # Cosines of small arrays, such as a bias, say little: a layer is one vector.
    joined = {name: [np.concatenate(part) for part in pair] for name, pair in layers.items()}
    largest = max((np.abs(b).max(initial=0.0) for _, b in joined.values()), default=0.0)
    return {name: _difference(a, b, float(largest)) for name, (a, b) in joined.items()}


def bound_faults(layers: Mapping[str, Difference], scans: Iterable[Any]) -> list[str]:
    """Faults of approximate gradients: values that are not finite, cosines below the bound.

    Args:
        layers: Differences by layer, from `compare_layers`.
        scans: Approximate scans; the least of their bounds holds, none without `least_cosine`.
    """
    wrong = [name for name, gap in layers.items() if not math.isfinite(gap.relative)]
    if wrong:
        return [f"the gradient of {wrong[0]} is not finite"]
    bounds = [getattr(scan, "least_cosine", -1.0) for scan in scans]
    worst = min(layers, key=lambda name: layers[name].cosine, default="")
    # Equal to a bound within the rounding of a cosine is no fault.
    if not bounds or not worst or layers[worst].cosine >= min(bounds) - 1e-9:
        return []
    return [
        f"the gradient of {worst} has the cosine {layers[worst].cosine:.3f} to backpropagation "
        f"through time, below the strategy's bound of {min(bounds):g}: use "
        "memory.truncated(k) with a longer window, or an exact strategy"
    ]


def unequal_leaves(actual: PyTree, expected: PyTree, *, tolerance: float = 0.0) -> list[str]:
    """Paths of the arrays that differ.

    Args:
        actual: Tree of arrays.
        expected: Tree of arrays of the same structure.
        tolerance: Accepted difference as a fraction of the largest entry; 0 is bit equality.
    """

    def differ(a, b):
        return not np.array_equal(a, b) and not _difference(a, b, 0.0).relative <= tolerance

    pairs = zip(_named(actual), _named(expected), strict=True)
    return [name or "outputs" for (name, a), (_, b) in pairs if differ(a, b)]


def time_call(jitted: Callable[..., Any], arguments: tuple[Any, ...], *, repeats: int) -> Any:
    """Calls a jitted function and times repeated calls.

    Args:
        jitted: Jitted function.
        arguments: Its arguments.
        repeats: Number of timed calls after the first one.

    Returns:
        The result on the host, and the median time of the repeated calls, s (NaN for 0 repeats).
    """
    # The first call compiles and is not timed.
    result = jax.block_until_ready(jitted(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(jitted(*arguments))
        times.append(time.perf_counter() - start)
    # The median: one call delayed by another process does not count.
    return jax.device_get(result), statistics.median(times or [math.nan])


def _gradient(scan: Scan, step: Step, compiler_options: Any = None) -> Any:
    """Jitted `(params, state, xs) -> ((state, ys), gradients)` of a weighted sum of all outputs."""

    def loss(inexact, others):
        outputs = scan(step, *combine(inexact, others))
        return sum(_weighted_sum(leaf) for leaf in jax.tree.leaves(partition(outputs)[0])), outputs

    @functools.partial(jax.jit, compiler_options=compiler_options)
    def gradient(*arguments):
        inexact, others = partition(arguments)
        gradients, outputs = jax.grad(loss, has_aux=True)(inexact, others)
        return outputs, gradients

    return gradient


def _weighted_sum(leaf: jax.Array) -> jax.Array:
    # Distinct weights: a plain sum would not notice cotangents that went to the wrong entry.
    weights = jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
    return jnp.sum(leaf.astype(jnp.float32) * weights)


def _agrees_without_keys(scan: Scan, step: Step, arguments: tuple[Any, ...], bound: float) -> bool:
    """True if the gradient is right with all random keys equal; False without keys."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    keys = [leaf for leaf in jax.tree.leaves(arguments) if is_key(jnp.asarray(leaf))]
    if not keys:
        return False
    # With equal keys a replay that draws by the wrong one still draws the same numbers.
    one = keys[0].reshape(-1)[0]
    same = jax.tree.map(
        lambda leaf: jnp.broadcast_to(one, leaf.shape) if is_key(jnp.asarray(leaf)) else leaf,
        arguments,
    )
    gradients = (jax.device_get(_gradient(s, step)(*same)[1]) for s in (scan, store))
    return max(d.relative for d in compare_gradients(*gradients).values()) <= bound


def _named(tree: PyTree) -> list[tuple[str, np.ndarray]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), _plain(x)) for path, x in flat]


def _plain(leaf: Any) -> np.ndarray:
    keys = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


def _difference(actual: np.ndarray, expected: np.ndarray, largest: float) -> Difference:
    # In float64: the norms of large float32 gradients would overflow or round.
    a, b = (x.astype(np.float64).ravel() for x in (actual, expected))
    scale, gap = np.abs(b).max(initial=0.0), np.abs(a - b).max(initial=0.0)
    # Relative to its own size a gradient of pure rounding noise would always look wrong.
    noise = scale <= _NOISE * largest
    scale = largest if noise else scale
    relative = float(gap / scale) if scale else float(gap > 0)
    sizes = np.linalg.norm(a), np.linalg.norm(b)
    if noise or not all(sizes):
        return Difference(relative, 1.0)
    return Difference(relative, float(a @ b / math.prod(sizes)), float(sizes[0] / sizes[1]))
