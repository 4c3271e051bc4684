"""Stacked blocks: equal to a Python loop, under every strategy over depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, nn
from tests.compare import assert_close
from tests.nn.layers import SPACE, T, block, call, leaves, rngs, run, sequence

DEPTH = 3


def stack(scan=memory.store, make=block):
    return nn.Stacked(make, DEPTH, rngs=rngs(), scan=scan)


def parts(layer):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], layer.blocks) for i in range(layer.depth)]


def unrolled(layer):
    """The same blocks in a Python loop."""
    return nn.Sequential(*parts(layer))


def stacked_leaves(tree):
    """Leaves of a Sequential of equal blocks, one row per block."""
    rows = [leaves(part) for part in tree]
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.fast
@pytest.mark.parametrize("training", [True, False])
def test_a_stack_is_the_loop_over_its_blocks_under_every_strategy(training):
    inputs = sequence(SPACE)
    loop = run(unrolled(stack()), inputs, training=training)
    to_loop = stacked_leaves(loop.gradients[0].layers)
    for scan in (memory.store, memory.recompute(2)) if training else (memory.store,):
        result = run(stack(scan), inputs, training=training)
        np.testing.assert_array_equal(result.outputs, loop.outputs)
        assert_close(result.gradients[1], loop.gradients[1], 1e-5)
        assert_close(leaves(result.gradients[0]), to_loop, 1e-5)
        assert_close(leaves(result.aux.state), stacked_leaves(loop.aux.state), 1e-6)
        assert_close(leaves(result.aux.statistics), stacked_leaves(loop.aux.statistics), 1e-6)


def test_strategies_over_depth_give_one_gradient():
    inputs = sequence(SPACE)
    stored = run(stack(), inputs, training=True)
    for every in (1, 2):
        result = run(stack(memory.recompute(every)), inputs, training=True)
        np.testing.assert_array_equal(result.outputs, stored.outputs)
        assert_close(leaves(result.gradients), leaves(stored.gradients), 1e-6)


def test_blocks_have_parameters_of_their_own():
    kernel = stack().blocks.layers[0].function.kernel[...]
    assert kernel.shape == (DEPTH, 3, 3, 2, 2)
    assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 0


def test_blocks_draw_masks_of_their_own_and_a_replay_draws_the_same():
    def dropout(scan):
        layer = stack(scan, lambda r: nn.Dropout(0.5))
        return call(layer, jnp.ones((T, 1, 200)), training=True, key=jax.random.key(0))[0]

    outputs = dropout(memory.store)
    assert set(np.unique(outputs)) == {0.0, 2.0**DEPTH}
    assert 0.05 < np.mean(np.asarray(outputs) > 0) < 0.22
    np.testing.assert_array_equal(dropout(memory.recompute(2)), outputs)


def test_taps_are_named_by_block_and_hold_what_the_block_fired():
    layer, inputs = stack(), sequence(SPACE)
    outputs, aux = call(layer, inputs, taps=("spikes",))
    assert list(aux.taps) == [f"block{i}/lif2" for i in range(DEPTH)]
    np.testing.assert_array_equal(aux.taps["block2/lif2"]["spikes"], outputs)
    first, _ = call(parts(layer)[0], inputs)
    np.testing.assert_array_equal(aux.taps["block0/lif2"]["spikes"], first)


def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="depth must be at least 1"):
        nn.Stacked(block, 0, rngs=rngs())
    widening = nn.Stacked(lambda r: nn.Conv(2, 3, rngs=r), 2, rngs=rngs())
    with pytest.raises(ValueError, match=r"\(2, 8, 8, 2\) became \(2, 8, 8, 3\)"):
        widening.initial_state(SPACE)
