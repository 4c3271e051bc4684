"""One level of a column: the parts' parameters as the released code logs them, shapes, packing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, models, nn
from snnjax.models.t_revsnn import ColumnLevel, pack_columns, shared_tail, upsample_nearest
from tests.compare import assert_equal

SMALL = (96, 192, 384, 512)


def size(module):
    return sum(leaf.size for leaf in jax.tree.leaves(module))


@functools.cache
def level(number, first):
    return jax.eval_shape(
        lambda: ColumnLevel(
            number, SMALL, (2, 2, 1), kernel=5, first=first, norm=nn.BatchNorm, rngs=nnx.Rngs(0)
        )
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("first", "fusions"),
    [(True, (0, 166_272, 664_320, 197_632)), (False, (18_624, 240_384, 861_696, 197_632))],
)
def test_fusions_of_small(first, fusions):
    found = [size((level(n, first).down, level(n, first).up)) for n in range(4)]
    assert found == list(fusions)


@pytest.mark.fast
def test_blocks_of_small_with_what_is_shared():
    tails = [jax.eval_shape(lambda w=w: shared_tail(w, 5, rngs=nnx.Rngs(0))) for w in SMALL]
    assert sum(map(size, tails)) == 1_855_872
    blocks = [
        size((level(n, True).block1, level(n, True).block2, level(n, True).scale, tails[n]))
        for n in range(4)
    ]
    assert blocks == [159_456, 613_824, 2_407_296, 4_258_304]


@pytest.mark.fast
def test_up_repeats_each_pixel():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)
    np.testing.assert_array_equal(upsample_nearest(x, factor=2), x.repeat(2, 1).repeat(2, 2))


def slim():
    return models.t_revsnn(
        channels=(2, 3, 4, 4), kernel=3, stem=((3, 2),), input_shape=(8, 8, 1), columns=2,
        classes=3, rngs=nnx.Rngs(0),
    )  # fmt: skip


@pytest.mark.fast
def test_packing_keeps_spikes_at_one_bit():
    columns = jax.eval_shape(slim).body.columns
    packed = pack_columns(columns, True)
    folds = [m for _, m in nnx.iter_modules(packed) if isinstance(m, nn.Fold)]
    # Per level two depthwise and one narrowing convolution of its own and one that is shared, and
    # those of down (not at level 0) and up (not at the last level, nor in the first column).
    first, later, shared = 4 * 3 + 3, 4 * 3 + 3 + 3, 4
    assert sum(f.pack == "spikes" for f in folds) == first + later + shared
    assert pack_columns(columns, False) is columns


@pytest.mark.slow
def test_packing_changes_no_value():
    net = slim()
    other = nn.with_memory(net, memory.Strategy(pack=True))
    x = jax.random.normal(jax.random.key(0), (1, 2, 8, 8, 1))
    run = jax.jit(lambda net, x: net(x, net.initial_state(2), training=False)[0])
    assert_equal(run(net, x), run(other, x))
