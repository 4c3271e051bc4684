"""Couplings over depth: on the grid the reversed gradient is the stored one, bit for bit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from tests.compare import assert_equal, largest_error

T, B, HW, C = 2, 2, 6, 4
COMPUTE = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def branch(which, dtype):
    """The `which`-th of a block's halves, as a branch; statistics are its by-product."""

    def run(params, block, x):
        del params
        half, state = block[which]
        outputs, statistics = x, []
        for layer, *own in zip(half.layers, *state, strict=True):
            outputs, aux = layer(outputs, nn.State(*own), nn.Call(training=True))
            outputs = outputs.astype(dtype)  # membranes and statistics stay float32
            statistics.append(aux.statistics)
        return outputs, tuple(statistics)

    return run


BRANCHES = {name: (branch(0, d), branch(1, d)) for name, d in COMPUTE.items()}


@functools.cache
def blocks(depth):
    """Stacked conv-BN-LIF halves with their states."""

    def one(key):
        rngs = nnx.Rngs(key)
        halves = [
            nn.Sequential(nn.LIF(), nn.Conv(C, C, rngs=rngs), nn.BatchNorm(C)) for _ in range(2)
        ]
        return [(half, half.initial_state((B, HW, HW, C))) for half in halves]

    return jax.vmap(one)(jax.random.split(jax.random.key(0), depth))


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradient(scan, coupling, stack, x):
    def loss(stack, x):
        streams = coupling.enter(x, 0.7 * x + 0.1)
        streams, aux = scan(coupling.step, (), streams, stack)
        return jnp.mean(streams.x1**2) + jnp.mean(jnp.sin(streams.x2)), (streams, aux)

    return jax.grad(loss, (0, 1), has_aux=True)(stack, x)


def both(coupling, depth, seed=1):
    stack = blocks(depth)
    x = jax.random.normal(jax.random.key(seed), (T, B, HW, HW, C))
    scans = (memory.reverse(coupling), memory.store)
    return [gradient(scan, coupling, stack, x) for scan in scans]


@pytest.mark.parametrize(
    ("depth", "compute"),
    [
        (4, "float32"),
        # A sum on the grid is one in float32, whatever its terms were computed in.
        pytest.param(4, "bfloat16", marks=pytest.mark.slow),
        *(pytest.param(16, compute, marks=pytest.mark.slow) for compute in COMPUTE),
    ],
)
def test_on_the_grid_the_difference_is_zero(depth, compute):
    reversed_, stored = both(memory.coupling(*BRANCHES[compute]), depth)
    assert_equal(reversed_, stored)


@pytest.mark.slow
@pytest.mark.parametrize("compute", COMPUTE)
@pytest.mark.parametrize("depth", [32, 64])
def test_on_the_grid_the_difference_is_zero_at_depth(depth, compute):
    reversed_, stored = both(memory.coupling(*BRANCHES[compute]), depth)
    assert_equal(reversed_, stored)


def test_the_parallel_form_is_exact_too():
    reversed_, stored = both(memory.coupling(*BRANCHES["float32"], swap=True), 4)
    assert_equal(reversed_, stored)


@pytest.mark.parametrize("swap", [False, True])
def test_the_inverse_gives_the_input_back(swap):
    coupling = memory.coupling(*BRANCHES["float32"], swap=swap)
    block = jax.tree.map(lambda leaf: leaf[0], blocks(1))
    x = jax.random.normal(jax.random.key(3), (T, B, HW, HW, C))
    before = coupling.enter(x, jnp.cos(x))
    after, aux = jax.jit(coupling.step)((), before, block)
    again = jax.jit(coupling)((), after, block, None)
    assert_equal(again, before)
    assert float(aux.peak) == max(float(jnp.abs(s).max()) for s in after)


def test_off_the_grid_it_is_only_nearly_right():
    """So the tests above can fail: without the grid the same nets differ."""
    reversed_, stored = both(memory.coupling(*BRANCHES["float32"], bits=None), 4)
    assert largest_error(reversed_[0], stored[0]) > 0


def test_statistics_leave_once():
    """The running statistics are those of one forward pass, whatever is run again."""
    coupling = memory.coupling(*BRANCHES["float32"])
    (_, (_, aux)), _ = both(coupling, 4)
    stack = blocks(4)
    x = jax.random.normal(jax.random.key(1), (T, B, HW, HW, C))
    streams, step = coupling.enter(x, 0.7 * x + 0.1), jax.jit(coupling.step)
    for i in range(4):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], stack)
        streams, once = step((), streams, block)
        for got, want in zip(
            jax.tree.leaves(aux.f) + jax.tree.leaves(aux.g),
            jax.tree.leaves(once.f) + jax.tree.leaves(once.g),
            strict=True,
        ):
            np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


def test_a_block_may_hold_what_no_branch_reads():
    """Their gradient is zero; shared parameters collect theirs from both branches of all blocks."""

    def scaled(params, block, x):
        return jnp.sin(params["w"] * block["own"] * x), ()

    def shifted(params, block, x):
        del block
        return params["w"] * x + params["n"], ()

    coupling = memory.coupling(scaled, shifted)
    params = {"w": jnp.asarray(0.3), "n": jnp.asarray(1), "spare": jnp.ones(2)}
    stack = {"own": jnp.arange(3.0), "spare": jnp.ones((3, 2)), "count": jnp.arange(3)}
    x = jax.random.normal(jax.random.key(3), (4, 5))

    def of(scan):
        def loss(params, stack, x):
            streams, _ = scan(coupling.step, params, coupling.enter(x, x + 1), stack)
            return jnp.sin(streams.x1 + streams.x2).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2), allow_int=True))(params, stack, x)

    got, want = ([g for g in jax.tree.leaves(of(scan)) if g.dtype == jnp.float32]
                 for scan in (memory.reverse(coupling), memory.store))  # fmt: skip
    assert len(got) == 5
    assert largest_error(got, want) < 1e-6
