"""Blocks at rest share one state: the same function as blocks of zeros, without the zeros."""

import jax
import jax.numpy as jnp
import pytest

from snnjax import memory, nn
from snnjax.nn.contract import Repeated
from tests.compare import assert_equal
from tests.nn.layers import B, T, rngs, sequence

SHAPE = (B, 4, 4, 4)


def half(r):
    return nn.Sequential(nn.LIF(), nn.Conv(2, 2, rngs=r), nn.BatchNorm(2, gain=2.0))


def wide(r):
    return nn.Residual(nn.Sequential(nn.LIF(), nn.Conv(4, 4, rngs=r)))


STACKS = {
    "stacked": lambda depth=3: nn.Stacked(wide, depth, scan=memory.recompute(1), rngs=rngs()),
    "reversible": lambda depth=3: nn.Reversible(half, half, depth, rngs=rngs()),
    "nested": lambda depth=3: nn.Stacked(
        lambda r: nn.Reversible(half, half, 2, rngs=r), depth, rngs=rngs()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["nested", *(pytest.param(n, marks=pytest.mark.slow) for n in STACKS if n != "nested")],
)
def test_rest_is_zeros_for_every_block(name):
    layer, inputs = STACKS[name](), sequence(SHAPE)
    state = layer.initial_state(SHAPE)
    assert isinstance(state.neurons, Repeated)
    explicit = nn.contract.repeat_state(state)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(explicit.neurons))

    @jax.jit
    def run(layer, state):
        loss = lambda layer: jnp.sum(jnp.sin(layer(inputs, state, nn.Call(training=True))[0]))  # noqa: E731
        return layer(inputs, state, nn.Call(training=True)), jax.grad(loss)(layer)

    assert_equal(run(layer, state), run(layer, explicit))
    _, aux = layer(inputs, state, nn.Call(training=True))
    layer(inputs, state.after(aux), nn.Call(training=True))  # and goes on from there


def temp_bytes(name, depth):
    layer = STACKS[name](depth)

    def loss(layer, inputs):
        state = layer.initial_state((4, 16, 16, 4))
        outputs, aux = layer(inputs, state, nn.Call(training=True))
        return jnp.sum(outputs**2), aux.statistics

    inputs = jax.ShapeDtypeStruct((T, 4, 16, 16, 4), jnp.float32)
    graded = jax.value_and_grad(loss, (0, 1), has_aux=True)
    return memory.measure(graded, layer, inputs).temp_bytes


def test_reversed_depth_costs_no_membranes():
    membrane = 4 * 16 * 16 * 2 * 4
    per_block = (temp_bytes("reversible", 16) - temp_bytes("reversible", 8)) / 8
    assert per_block < membrane / 8  # parameters and statistics, no state
