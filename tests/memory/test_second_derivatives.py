"""Second derivatives: right for every neuron under every scan, in every order of modes, or refused.

The reference is `lax.scan` with spikes `H(u) + A(u) - stop_gradient(A(u))`, A the antiderivative of
the slope: plain operations, which JAX differentiates to any order.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, surrogate
from snnjax.surrogate import Surrogate
from tests.compare import largest_error
from tests.memory.test_scans import ALL, CASES, SCANS, Row, side_by_side, step

FEW = ("lif", "recurrent_lif")  # a neuron alone, and one that its own spikes come back to

LENGTH = 4
# The hand-written derivative of this neuron keeps its spikes as bits.
REFUSING = {"whole sequence": ("coupled_lif",), "recompute, whole segments": ("coupled_lif",)}
# Recomputed steps are steps that were stored once: the slow lane has those that are stored.
TABLE = {"store": Row(memory.store, slow=("float64",)), **SCANS}


# The antiderivatives of the slopes that the neurons of the table have.
ANTIDERIVATIVES = {
    surrogate.arctan().slope: lambda u, alpha: jnp.arctan(jnp.pi / 2 * alpha * u) / jnp.pi,
    surrogate.fast_sigmoid().slope: lambda u, alpha: u / (1 + alpha * jnp.abs(u)),
    surrogate.exponential(height=1.0, width=1.0).slope: lambda u, height, width: (
        jnp.sign(u) * height * width * (1 - jnp.exp(-jnp.abs(u) / width))
    ),
}


def plain_spike(spike, u):
    smooth = ANTIDERIVATIVES[spike.slope](u, *spike.parameters)
    fired = (u > 0 if spike.strict else u >= 0).astype(u.dtype)
    return fired + (smooth - jax.lax.stop_gradient(smooth))


def plain(step, params, state, xs):
    return jax.lax.scan(functools.partial(step, params), state, xs)


def loss(scan, arguments):
    """A smooth function of all outputs and the last state, not linear in any."""
    after, ys = scan(step, *arguments)
    total = 0.0
    for name, spikes in ys.items():
        rates = jnp.cumsum(spikes, 0)
        total += jnp.sum(jnp.sin(0.7 * spikes + 0.4 * rates**2))
        total += sum(jnp.sum(jnp.cos(leaf) * leaf) for leaf in jax.tree.leaves(after[name]))
    return total


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def products(scan, arguments, direction):
    """Hessian-vector products by the orders of modes."""
    one = functools.partial(loss, scan)
    gradient = jax.grad(one)
    return {
        "reverse over reverse": jax.grad(lambda a: dot(gradient(a), direction))(arguments),
        "forward over reverse": jax.jvp(gradient, (arguments,), (direction,))[1],
    }


@functools.cache
def every_argument():
    """Params, state and inputs of all neurons, and a direction."""
    _, *parts = side_by_side(ALL, LENGTH)
    rng = np.random.default_rng(3)
    return tuple(parts), jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), tuple(parts))


def arguments(names):
    return tuple(tuple({n: part[n] for n in names} for part in parts) for parts in every_argument())


@functools.cache
def expected(names):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Surrogate, "__call__", plain_spike)
        return jax.jit(functools.partial(products, plain))(*arguments(names))


def rows():
    for name, row in TABLE.items():
        if "float64" not in row.slow:
            yield pytest.param(name, row.among(FEW), FEW, id=name)
        # 19 neurons take minutes to compile.
        yield pytest.param(name, row, ALL, id=f"{name}-every neuron", marks=pytest.mark.slow)


@pytest.mark.parametrize(("name", "row", "reference"), list(rows()))
def test_a_second_derivative_is_that_of_plain_operations(x64, name, row, reference):
    names = tuple(n for n in row.neurons if n not in REFUSING.get(name, ()))
    actual = jax.jit(functools.partial(products, row.scan))(*arguments(names))
    wanted = expected(reference)
    for mode, trees in actual.items():
        for kind, got, want in zip(("params", "state", "xs"), trees, wanted[mode], strict=True):
            for neuron in names:
                # As in test_scans: an inverse has the rounding error of its leak.
                bound = max(1e-12, 16 * 2.0**-52 * CASES[neuron].growth ** min(row.undone, LENGTH))
                error = largest_error(got[neuron], want[neuron])
                assert error <= bound, f"{neuron}, {kind}, {mode}: off by {error}, not {bound}"
