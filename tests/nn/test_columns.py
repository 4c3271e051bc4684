"""The layer of columns, with levels of one product each: bytes, statistics, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.columns import read_nothing
from tests.compare import assert_close, assert_equal

H, C = 4, (3, 5)


class OneLevel(nnx.Module):
    """Spikes - 1x1 convolution - norm of what is below, and the same of what is above."""

    def __init__(self, number, first, rngs):
        before = C[number - 1] if number else 2
        self.down = self.stage(before, C[number], rngs)
        up = not first and number + 1 < len(C)
        self.up = self.stage(C[number + 1], C[number], rngs) if up else None

    def stage(self, inputs, outputs, rngs):
        conv = nn.Conv(inputs, outputs, kernel=1, rngs=rngs)
        return nn.Sequential(nn.Disabled(), conv, nn.BatchNorm(outputs))

    def initial_state(self, lower, upper):
        up = self.up.initial_state(upper) if self.up else nn.State()
        return nn.State((), (self.down.initial_state(lower).statistics, up.statistics))

    def output_shape(self, lower):
        return (*lower[:-1], self.down.layers[1].function.kernel.shape[-1])

    def __call__(self, tail, lower, upper, state, call):
        rest = ((), (), ())
        own = nn.State(rest, state.statistics[0])
        y, aux = self.down(lower[None], own, call)
        moved = ()
        if self.up:
            own = nn.State(rest, state.statistics[1])
            more, up = self.up(upper[None], own, call.with_taps())
            y, moved = y + more, up.statistics
        y = y + tail(y, nn.State(), call.with_taps())[0]
        return y[0], nn.Aux((), (aux.statistics, moved), aux.taps)


def columns(count=4, **options):
    tail = lambda n, rngs: nn.Conv(C[n], C[n], kernel=1, rngs=rngs)  # noqa: E731
    return nn.Columns(OneLevel, tail, C, count, rngs=nnx.Rngs(0), **options)


def frames(batch=3, timesteps=1):
    return jax.random.normal(jax.random.key(1), (timesteps, batch, H, H, 2))


def loss(layer, x, state):
    _, aux = layer(x, state, nn.Call(training=True))
    return sum(jnp.sum(jnp.sin(c)) for c in aux.state), aux


@functools.partial(jax.jit, static_argnames=("training", "taps"))
def called(layer, x, state, *, training=False, taps=()):
    return layer(x, state, nn.Call(training=training, taps=taps))


def state_of(layer, x):
    return layer.initial_state(x.shape[1:])


def kept(layer, batch):
    """Bytes between the passes, as the derivative holds them: arguments are left out."""
    x = frames(batch)
    run = functools.partial(_only_loss, x=x, state=state_of(layer, x))
    return sum(r.nbytes for r in memory.accounting.residuals(run, layer, largest=10**6))


def _only_loss(layer, x, state):
    return loss(layer, 1.0 * x, state)[0]  # an input that is made, as a stem makes it


def bytes_per_sample(layer):
    """Bytes that grow with the batch; parameters and statistics drop out."""
    return (kept(layer, 6) - kept(layer, 3)) / 3


STATES = 4 * H * H * sum(C)


@pytest.mark.slow
def test_reversing_keeps_the_same_bytes_for_4_8_and_16_columns():
    """On the grid with alpha 1, and with alpha 1/2 as far as the bits go: O(L), not O(L T)."""
    sizes = {
        (count, alpha): bytes_per_sample(
            columns(count, scan=memory.reversal(), bits=5, alpha=alpha, magnitude=4.0)
        )
        for count, alpha in ((4, 0.5), (8, 0.5), (16, 0.5), (16, 1.0))
    }
    assert len(set(sizes.values())) == 1, sizes


@pytest.mark.slow
def test_the_column_mode_keeps_the_boundaries():
    """One more column, one more set of states; store keeps more than that."""
    sizes = [bytes_per_sample(columns(count)) for count in (4, 8, 16)]
    assert sizes[1] - sizes[0] == 4 * STATES
    assert sizes[2] - sizes[1] == 8 * STATES
    stored = [bytes_per_sample(columns(count, scan=memory.store)) for count in (4, 8)]
    assert stored[1] - stored[0] > 3 * (sizes[1] - sizes[0])


graded = jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize(
    "scan",
    [
        # A program of ten seconds each; memory/test_columns.py has a refresh.
        pytest.param(memory.recompute(1), marks=pytest.mark.slow),
        memory.reversal(),
        pytest.param(memory.reversal(refresh=2), marks=pytest.mark.slow),
    ],
    ids=["recompute", "reverse", "refresh"],
)
def test_strategies_agree_and_statistics_move_once(scan):
    layer = columns(bits=12)
    x = frames()
    want, expected = graded(layer.with_scan(memory.store), x, state_of(layer, x))
    got, aux = graded(layer.with_scan(scan), x, state_of(layer, x))
    assert_equal(aux, expected)
    # Of channels that are not in eights XLA rounds sums by program: 1.6e-6 seen.
    assert_close(jax.tree.leaves(got), jax.tree.leaves(want), 5e-6)
    mean = state_of(layer, x).statistics[0][0][0][2].mean
    moved = expected.statistics[0][0][0][2].mean
    spikes, _ = called(nn.Disabled(), x, nn.State(), training=True)
    current, _ = called(layer.first[0].down.layers[1], spikes, nn.State(), training=True)
    assert_close(moved, 0.9 * mean + 0.1 * current.mean((0, 1, 2, 3)), 1e-5)


def test_states_begin_at_zero_and_can_be_carried_on():
    layer, x = columns(2), frames()
    state = state_of(layer, x)
    assert all(not c.any() for c in state.neurons)
    _, aux = called(layer, x, state)
    _, again = called(layer, x, state._replace(neurons=aux.state))
    assert jnp.abs(again.state[0] - aux.state[0]).max() > 1e-3


def test_each_column_may_have_its_own_input_and_what_is_read_comes_in_order():
    layer = columns(3, own_inputs=True, read=lambda top: top.mean((1, 2)))
    x = frames(timesteps=3)
    read, aux = called(layer, x, state_of(layer, x), taps=("spikes",))
    assert read.shape == (3, 3, C[-1])
    assert_close(read[-1], aux.state[-1].mean((1, 2)), 1e-6)
    names = [f"column{t}/level{n}/disabled0" for t in range(3) for n in range(2)]
    assert sorted(aux.taps) == sorted(names)
    np.testing.assert_array_equal(aux.taps["column2/level0/disabled0"]["spikes"][0], x[2] >= 0.5)
    later, _ = called(layer, x.at[2].add(1), state_of(layer, x), taps=("spikes",))
    assert_equal(later[:2], read[:2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "columns must be at least 1"),
        ({"alpha": 0.0}, "discards the state"),
        ({"bits": 12, "alpha": 0.3}, "power of two"),
        ({"bits": 12, "alpha": 2.0}, "power of two"),
        ({"count": 16, "bits": 12}, "need 31 bits where float32 has 24"),
    ],
)
def test_refusals_name_the_cure(options, message):
    with pytest.raises(ValueError, match=message):
        columns(options.pop("count", 4), **options)


def test_the_bound_is_watched_and_counts_the_columns():
    layer, x = columns(4, bits=12), frames()
    _, aux = called(layer, x, state_of(layer, x), training=True)
    assert aux.diagnostics[""].bound == 2.0 ** (24 - 12 - 4)
    assert aux.diagnostics[""].peak >= max(jnp.abs(c).max() for c in aux.state)
    assert read_nothing(x) == ()
