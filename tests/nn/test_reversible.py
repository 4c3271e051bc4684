"""A reversible stack: the same function under every strategy, its reversed gradient exact."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.contract import StreamPeak, max_over_steps, mean_over_steps
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
# Of both forms of a coupling: tests/memory/test_coupling.py.
@pytest.mark.parametrize("swap", [False, pytest.param(True, marks=pytest.mark.slow)])
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


def test_the_peak_is_a_diagnostic():
    _, (outputs, aux) = run()
    peak = aux.diagnostics[""]
    assert float(peak.peak) >= float(jnp.abs(outputs).max())
    assert float(peak.bound) == memory.grid.grid_bound()
    other = StreamPeak(jnp.ones(()), jnp.ones(()) * 4)
    assert float(nn.contract.stream_use(aux.diagnostics | {"b": other})) == 0.25
    assert float(nn.contract.stream_use({})) == 0.0
    _, (_, aux) = run(bits=None)
    assert float(nn.contract.stream_use(aux.diagnostics)) == 0.0


def test_a_peak_over_steps_is_the_largest_and_statistics_are_means():
    peaks = {"a": StreamPeak(jnp.asarray([1.0, 5.0, 2.0]), jnp.full(3, 8.0))}
    assert_equal(max_over_steps(peaks), {"a": StreamPeak(jnp.asarray(5.0), jnp.asarray(8.0))})
    assert_equal(mean_over_steps(jnp.asarray([1.0, 2.0, 3.0])), jnp.asarray(2.0))


def flat(r):
    return nn.Sequential(nn.Linear(2, 2, rngs=r), nn.BatchNorm(2, over="step"))


def stream(r):
    return nn.Reversible(flat, flat, 2, rngs=r)


AROUND = {
    "sequential": (lambda r: nn.Sequential(nn.IF(), stream(r)), "reversible1"),
    "residual": (lambda r: nn.Residual(stream(r)), "branch"),
    "shared": (lambda r: nn.Shared([stream(r), nn.Linear(4, 4, rngs=r)], nn.IF()), "synapse0"),
    "stacked": (lambda r: nn.Stacked(stream, 2, rngs=r), ""),
}


@pytest.mark.parametrize("order", ["layer", "time"])
@pytest.mark.parametrize("name", AROUND)
def test_peaks_of_inner_layers_leave_by_name(name, order):
    make, place = AROUND[name]
    net, frames = nn.Network(make(nnx.Rngs(0)), (4,), order=order), X[:, :, 0, 0, :4]
    aux = jax.jit(lambda net: net(frames, net.initial_state(B), training=True)[1])(net)
    assert set(aux.diagnostics) == {place}
    assert aux.diagnostics[place].peak.shape == ()
    assert 0 < float(nn.contract.stream_use(aux.diagnostics)) < 1


def test_in_a_network_and_in_evaluation():
    net = nn.Network(nn.Sequential(stack(), nn.IF(), nn.GlobalAvgPool()), (HW, HW, C))
    state = net.initial_state(B)
    outputs, aux = net(X, state, training=False)
    assert outputs.shape == (T, B, C)
    assert_equal(aux.statistics, state.statistics)
    assert {"reversible0"} == {
        name for name, entry in aux.diagnostics.items() if isinstance(entry, nn.contract.StreamPeak)
    }


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: nn.Reversible(half, half, 0, rngs=nnx.Rngs(0)), None, "depth must be at least 1"),
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
