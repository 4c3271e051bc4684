"""Neurons in rows of 128, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.ops.pallas_tiles import block_spec, tile, tiled_shape, untile

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("shape", [(1,), (128,), (300,), (3, 1), (2, 257)])
def test_cut_and_put_together_again(shape):
    array = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    tiles = tile(array, 256)
    assert tiles.shape[:-2] == shape[:-1]
    assert (tiles.shape[-2] % 2, tiles.shape[-1]) == (0, 128)
    np.testing.assert_array_equal(untile(tiles, shape[-1]), array)
    np.testing.assert_array_equal(tiles.reshape(*shape[:-1], -1)[..., shape[-1] :], 0)


def test_neurons_that_fill_blocks_are_not_copied():
    def text(neurons):
        return str(jax.make_jaxpr(lambda a: tile(a, 128))(jnp.zeros((3, neurons))))

    assert "pad" not in text(256)
    assert "pad" in text(255)


def test_one_number_is_seen_by_every_program():
    one = tile(jnp.float32(3.0), 1024)
    spec = block_spec(one, 1024)
    assert one.shape == spec.block_shape == (1, 1)
    assert spec.index_map(5) == (0, 0)


def test_a_program_sees_its_neurons_over_all_timesteps():
    spec = block_spec(tiled_shape(16, jnp.uint8, timesteps=7, width=16), 1024)
    assert spec.block_shape == (7, 8, 16)
    assert spec.index_map(1) == (0, 1, 0)
    assert block_spec(tiled_shape(16, jnp.float32), 512).block_shape == (4, 128)
