"""A reversible stack: the same function under every strategy, its reversed gradient exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.contract import mean_over_steps
from tests.compare import assert_close, assert_equal

T, B, HW, C, DEPTH = 3, 2, 4, 8, 6
X = jax.random.normal(jax.random.key(5), (T, B, HW, HW, C))


def half(rngs):
    return nn.Sequential(nn.LIF(), nn.Conv(C // 2, C // 2, rngs=rngs), nn.BatchNorm(C // 2))


def dropping(rngs):
    return nn.Sequential(*half(rngs).layers, nn.Dropout(0.1))


def wider(rngs):
    return nn.Conv(C // 2, C, rngs=rngs)


def stack(branch=half, **options):
    return nn.Reversible(branch, branch, DEPTH, rngs=nnx.Rngs(0), **options)


@jax.jit
def gradient(layer, x, state):
    def loss(layer, x):
        outputs, aux = layer(
            x, state, nn.Call(training=True, key=jax.random.key(1), taps=("spikes",))
        )
        return jnp.mean(jnp.sin(outputs)), (outputs, aux)

    return jax.grad(loss, (0, 1), has_aux=True)(layer, x)


def run(**options):
    layer = stack(**options)
    (of_layer, of_x), seen = gradient(layer, X, layer.initial_state((B, HW, HW, C)))
    return (jax.tree.leaves(of_layer), of_x), seen


@pytest.mark.fast
@pytest.mark.parametrize("swap", [False, True])
def test_reversing_equals_storing(swap):
    """Outputs, statistics and spikes bit for bit, so every replay saw the bits of the forward pass.

    The gradients are those of the same bits; XLA may fuse the two programs otherwise.
    """
    got, seen = run(swap=swap)
    want, expected = run(swap=swap, scan=memory.store)
    assert_equal(seen, expected)
    assert_close(got, want, 2e-6)


def test_a_replay_draws_the_same_mask():
    got, seen = run(branch=dropping)
    want, expected = run(branch=dropping, scan=memory.store)
    assert_equal(seen, expected)
    assert_close(got, want, 2e-6)


def test_recomputing_equals_storing():
    got, seen = run(scan=memory.recompute(every=2))
    want, expected = run(scan=memory.store)
    assert_equal(seen, expected)
    assert_close(got, want, 1e-5)


def test_taps_name_every_branch():
    _, (_, aux) = run()
    assert set(aux.taps) == {f"block{i}/{b}/lif0" for i in range(DEPTH) for b in "fg"}
    assert aux.taps["block2/g/lif0"]["spikes"].shape == (T, B, HW, HW, C // 2)


def test_the_peak_leaves_with_the_statistics():
    _, (outputs, aux) = run()
    _, peak = aux.statistics
    assert float(peak.peak) >= float(jnp.abs(outputs).max())
    assert float(peak.bound) == memory.grid.grid_bound()
    use = nn.stream_use({"a": aux.statistics, "b": nn.StreamPeak(jnp.ones(()), jnp.ones(()) * 4)})
    assert float(use) == 0.25
    assert float(nn.stream_use(())) == 0.0
    _, (_, aux) = run(bits=None)
    assert float(nn.stream_use(aux.statistics)) == 0.0


def test_a_peak_over_steps_is_the_largest():
    peaks = nn.StreamPeak(jnp.asarray([1.0, 5.0, 2.0]), jnp.full(3, 8.0))
    joined = mean_over_steps((peaks, jnp.asarray([1.0, 2.0, 3.0])))
    assert_equal(joined, (nn.StreamPeak(jnp.asarray(5.0), jnp.asarray(8.0)), jnp.asarray(2.0)))


def test_in_a_network_and_in_evaluation():
    net = nn.Network(nn.Sequential(stack(), nn.IF(), nn.GlobalAvgPool()), (HW, HW, C))
    state = net.initial_state(B)
    outputs, aux = net(X, state, training=False)
    assert outputs.shape == (T, B, C)
    before, after = (jax.tree.leaves(s) for s in (state.statistics, aux.statistics))
    # Running statistics stand still; the peak is of this call.
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(changed) == 1


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: nn.Reversible(half, half, 0, rngs=nnx.Rngs(0)), None, "at least one block"),
        (stack, (B, HW, HW, 7), "in two"),
        (
            lambda: nn.Reversible(half, wider, 2, rngs=nnx.Rngs(0)),
            (B, HW, HW, C),
            "keep the shape",
        ),
    ],
)
def test_errors_name_the_cure(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make().initial_state(shape)
