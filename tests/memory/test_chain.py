"""A chain of unequal functions: the plain loop's values and gradients, whatever it keeps."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory, surrogate
from tests.compare import assert_close, assert_equal

BATCH = 9
WIDTHS = (5, 7, 4, 6, 3, 8, 2)  # of the joints: into the first link, ..., out of the last
spike = surrogate.arctan()


def smooth(own, x):
    weights, _ = own
    y = jnp.tanh(checkpoint_name(x @ weights, "currents"))
    return y, jnp.mean(y**2)


def firing(own, x):
    weights, _ = own
    y = spike(x @ weights - 0.1)
    return y, {"rate": jnp.mean(y)}


def dropping(own, x):
    weights, key = own
    mask = jax.random.bernoulli(key, 0.5, x.shape)
    return jnp.sin(jnp.where(mask, 2 * x, 0) @ weights), (jnp.sum(mask),)


LINKS = (smooth, firing, dropping, firing, smooth, dropping)
SPIKES = (False, False, True, False, True, False)
"""Spikes are the inputs of the third and the fifth link."""
ALONE = (False, True, False, False, False, True)
EACH = memory.recompute(1)
SCANS = {
    "store": memory.store,
    "every link": EACH,
    "every second": memory.recompute(2),
    "every third": memory.recompute(3),
    "the root": memory.recompute("sqrt"),
    "two levels": memory.recompute(3, inner=EACH),
    "three levels": memory.recompute(4, inner=memory.recompute(2, inner=EACH)),
    "currents kept": memory.recompute(3, keep=("currents",)),
}

QUICK = ("store", "every link", "the root", "three levels", "currents kept")


def arguments(dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 2 * len(LINKS) + 1)
    sizes = itertools.pairwise(WIDTHS)
    weights = [jax.random.normal(k, s, dtype) for k, s in zip(keys, sizes, strict=False)]
    owns = list(zip(weights, keys[len(LINKS) :], strict=False))
    return owns, jax.random.normal(keys[-1], (BATCH, WIDTHS[0]), dtype)


def forward(options, weights, keys, x):
    owns = list(zip(weights, keys, strict=True))
    return memory.chain(LINKS, owns, x, **dict(options))


@functools.partial(jax.jit, static_argnums=0)
def everything(options, owns, x):
    weights, keys = map(list, zip(*owns, strict=True))

    def loss(weights, x):
        y, extras = forward(options, weights, keys, x)
        means = [leaf for leaf in jax.tree.leaves(extras) if leaf.dtype == x.dtype]
        return jnp.sum(jnp.sin(y)) + sum(i * m for i, m in enumerate(means)), (y, extras)

    return jax.grad(loss, (0, 1), has_aux=True)(weights, x)


def looped(owns, x):
    extras = []
    for link, own in zip(LINKS, owns, strict=True):
        x, extra = link(own, x)
        extras.append(extra)
    return x, extras


@functools.cache
def expected():
    """The same of a Python loop, written out."""
    owns, x = arguments()
    weights, keys = map(list, zip(*owns, strict=True))

    @jax.jit
    def run(weights, keys, x):
        def loss(weights, x):
            y, extras = looped(list(zip(weights, keys, strict=True)), x)
            means = [leaf for leaf in jax.tree.leaves(extras) if leaf.dtype == x.dtype]
            return jnp.sum(jnp.sin(y)) + sum(i * m for i, m in enumerate(means)), (y, extras)

        return jax.grad(loss, (0, 1), has_aux=True)(weights, x)

    return run(weights, keys, x)


MARKS = {"plain": (), "spikes": (("spikes", SPIKES),), "alone": (("alone", ALONE),)}
MARKS["both"] = MARKS["spikes"] + MARKS["alone"]


def table():
    for name in SCANS:
        for marks in MARKS:
            slow = () if marks == "both" and name in QUICK else pytest.mark.slow
            yield pytest.param(name, marks, marks=slow, id=f"{name}-{marks}")


@pytest.mark.parametrize(("name", "marks"), list(table()))
def test_nothing_but_what_is_kept_changes(x64, name, marks):
    owns, x = arguments()
    gradients, seen = everything((("scan", SCANS[name]), *MARKS[marks]), owns, x)
    want, values = expected()
    assert_equal(seen, values)
    assert_close(gradients, want, 1e-12)
    assert all(float(jnp.abs(g).max()) > 1e-3 for g in jax.tree.leaves(want))


def kept(**options):
    """Residuals of a chain's derivative in float32: shapes by dtype, without parameters."""
    owns, x = arguments(jnp.float32)
    weights, keys = map(list, zip(*owns, strict=True))
    run = lambda weights, x: forward(tuple(options.items()), weights, keys, x)[0]  # noqa: E731
    leaves = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(run, *a)[1], weights, x))
    parameters = [w.shape for w in weights]
    return [(str(leaf.dtype), leaf.shape) for leaf in leaves if leaf.shape not in parameters]


def joints(actual):
    """Numbers of the links in front of which a float array of a joint's shape is kept."""
    shapes = {("float32", (BATCH, width)): i for i, width in enumerate(WIDTHS)}
    return sorted({shapes[leaf] for leaf in actual if leaf in shapes})


@pytest.mark.fast
@pytest.mark.parametrize(
    ("scan", "starts"),
    [(EACH, [0, 1, 2, 3, 4, 5]), (memory.recompute(2), [0, 2, 4]), (memory.recompute(3), [0, 3]),
     (memory.recompute("sqrt"), [0, 3]), (memory.recompute(4, inner=EACH), [0, 4])],
)  # fmt: skip
def test_joints_and_the_bits_of_spikes_are_kept(scan, starts):
    """Of all segments but the last, which is differentiated before anything else happens."""
    *starts, last = starts
    before = lambda actual: [i for i in joints(actual) if i < last]  # noqa: E731
    assert before(kept(scan=scan)) == starts
    actual = kept(scan=scan, spikes=SPIKES)
    packed = [i for i in starts if SPIKES[i]]
    assert before(actual) == [i for i in starts if i not in packed]
    bits = [shape for dtype, shape in actual if dtype == "uint8"][: len(packed)]
    assert bits == [(math.ceil(BATCH * WIDTHS[i] / 8),) for i in packed]


@pytest.mark.fast
@pytest.mark.parametrize("every", [6, 99])
def test_one_segment_is_not_computed_again(every):
    assert sorted(kept(scan=memory.recompute(every))) == sorted(kept(scan=memory.store))


@pytest.mark.fast
def test_store_keeps_what_the_loop_keeps():
    owns, x = arguments(jnp.float32)
    weights, keys = map(list, zip(*owns, strict=True))
    run = lambda weights, x: looped(list(zip(weights, keys, strict=True)), x)[0]  # noqa: E731
    leaves = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(run, *a)[1], weights, x))
    plain = sorted((str(leaf.dtype), leaf.shape) for leaf in leaves)
    parameters = [w.shape for w in weights]
    for scan in (None, memory.store):
        assert sorted(kept(scan=scan)) == [leaf for leaf in plain if leaf[1] not in parameters]


@pytest.mark.fast
@settings(max_examples=40, deadline=None)
@given(
    alone=st.lists(st.booleans(), min_size=1, max_size=9),
    every=st.integers(1, 5) | st.just("sqrt"),
)
def test_parts_are_as_long_as_asked_and_never_reach_around_what_stands_alone(alone, every):
    """Counted in the trace: a part is one `checkpoint` of so many links, but for the last."""
    links = [lambda own, x: (jnp.tanh(x), own)] * len(alone)
    owns = list(map(float, range(len(alone))))
    scan = memory.recompute(every, keep=("nothing",))
    run = lambda x: memory.chain(links, owns, x, scan=scan, alone=alone)[0]  # noqa: E731
    equations = jax.make_jaxpr(run)(jnp.ones(2)).jaxpr.eqns
    sizes = [len(e.params["jaxpr"].eqns) if "jaxpr" in e.params else 0 for e in equations]
    length = math.ceil(math.sqrt(alone.count(False))) if every == "sqrt" else every
    want = []
    for single, run_ in itertools.groupby(alone):
        count = len(list(run_))
        whole, rest = divmod(count, 1 if single else length)
        want += [0] * count if single else [length] * whole + [rest] * bool(rest)
    if not alone[-1]:
        want += [0] * want.pop()
    assert sizes == want


@pytest.mark.fast
def test_links_that_keep_a_name_keep_it_through_a_replay():
    def link(own, x):
        currents = checkpoint_name(jnp.sin(x @ own), "currents")
        return jnp.tanh(currents), ()

    def run(scan, weights, x):
        return memory.chain([link] * 4, weights, x, scan=scan)[0]

    weights, x = [jnp.ones((5, 5))] * 4, jnp.ones((BATCH, 5))

    def named(scan):
        shapes = jax.eval_shape(lambda *a: jax.vjp(functools.partial(run, scan), *a)[1], weights, x)
        return sum(leaf.shape == (BATCH, 5) for leaf in jax.tree.leaves(shapes))

    assert named(memory.recompute(2, keep=("currents",))) == named(memory.recompute(2)) + 2


@pytest.mark.fast
@pytest.mark.parametrize(
    "scan", [memory.reversal(), memory.reverse(lambda *a: a), lambda *a: memory.store(*a)]
)
def test_a_scan_that_needs_equal_links_is_refused_with_the_cure(scan):
    owns, x = arguments(jnp.float32)
    for given_ in (scan, memory.recompute(2, inner=scan)):
        with pytest.raises(ValueError, match=r"memory.recompute\(every\).*nn.Stacked"):
            memory.chain(LINKS, owns, x, scan=given_)


@pytest.mark.fast
def test_an_empty_chain_is_the_identity():
    x = jnp.ones(3)
    for scan in (None, EACH, memory.recompute("sqrt")):
        assert memory.chain([], [], x, scan=scan) == (x, [])
