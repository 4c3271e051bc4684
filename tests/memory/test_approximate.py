"""Approximate scans: each against an unrolled loop of its paper's rule, and its bytes over time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.memory.checking import is_exact
from tests.compare import assert_close, assert_equal
from tests.memory import test_scan_bytes

T, B = 5, 3


def step(params, state, x):
    """Two layers of LIF neurons, the first with feedback, and a leaky readout; a learned decay."""
    (v, spikes), second, out = state
    current = x @ params["in"] + spikes @ params["back"]
    v, spikes = neurons.lif(neurons.LIFParams(params["decay"], 0.5), v, current)
    second, above = neurons.lif(
        neurons.LIFParams(0.8, 0.5), second, spikes @ params["up"] + params["bias"]
    )
    out = 0.9 * out + above @ params["out"]
    return ((v, spikes), second, out), (out, jnp.sum(spikes))


def arguments(dtype=jnp.float64):
    sizes = {"in": (4, 5), "back": (5, 5), "up": (5, 6), "out": (6, 2), "bias": (6,)}
    keys = jax.random.split(jax.random.key(0), len(sizes) + 1)
    params = {
        name: jax.random.normal(key, shape, dtype) * 0.6
        for key, (name, shape) in zip(keys, sizes.items(), strict=False)
    }
    rest = lambda n: neurons.lif_model().initial_state((B, n), dtype=dtype)  # noqa: E731
    state = (rest(5), jnp.zeros((B, 5), dtype)), rest(6), jnp.zeros((B, 2), dtype)
    xs = jax.random.normal(keys[-1], (T, B, 4), dtype) + 0.3
    # Steps of unequal activity.
    xs *= jnp.asarray([1.0, 0.1, 1.0, 0.1, 1.0], dtype)[:, None, None]
    return {**params, "decay": jnp.asarray(0.7, dtype)}, state, xs


def loss(scan, params, state, xs):
    after, (out, counts) = scan(step, params, state, xs)
    weights = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
    last = sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(after))
    return jnp.sum(weights * out) + jnp.sum(out**2) + last, (after, out, counts)


@functools.partial(jax.jit, static_argnums=0)
def gradient(scan, *own):
    return jax.grad(functools.partial(loss, scan), (0, 1, 2), has_aux=True)(*own)


def loop(cut, chosen=None):
    """Unrolled: the state before the timesteps of `cut` is a constant, and others of `chosen`."""

    def scan(step, params, state, xs):
        rows = []
        for t, x in enumerate(xs):
            state = jax.lax.stop_gradient(state) if t in cut else state
            state, y = step(params, state, x)
            if chosen is not None and t not in chosen:
                state, y = jax.lax.stop_gradient((state, y))
            rows.append(y)
        return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    return scan


CUTS = {
    "sltt": (memory.sltt(), loop(range(1, T))),
    "truncated(2), recomputed within": (
        memory.truncated(2, inner=memory.recompute(1)), loop((2, 4)),
    ),
    "a window that holds all is exact": (memory.truncated(T + 1), loop(())),
    "all steps replayed are exact": (memory.skip(3, 3), loop(())),
    "all steps drawn are sltt": (memory.sltt(steps=T), loop(range(1, T))),
}  # fmt: skip
SLOW = ("all steps drawn are sltt",)  # an unrolled loop compiles for seconds


@pytest.mark.parametrize(
    ("scan", "reference"),
    [pytest.param(*CUTS[n], id=n, marks=pytest.mark.slow if n in SLOW else ()) for n in CUTS],
)
def test_gradients_are_those_of_the_unrolled_rule(x64, scan, reference):
    own = arguments()
    found, values = gradient(scan, *own)
    expected, same = gradient(reference, *own)
    assert_close(values, same, 1e-14)
    assert_close(found, expected, 1e-12)


def draw(key, steps):
    return set(map(int, memory.approximate.Sampled(steps)._draw((key,), T)))


def test_drawn_timesteps_alone_are_differentiated(x64):
    params, state, xs = arguments()
    key = jax.random.key(3)
    chosen = draw(key, 2)
    assert len(chosen) == 2 and chosen != draw(jax.random.key(4), 2)

    def keyed(scan, params, *own):
        return scan(lambda both, *inner: step(both[0], *inner), (params, key), *own)

    by_key = lambda step_, *own: keyed(memory.sltt(steps=2), *own)  # noqa: E731
    found, values = gradient(by_key, params, state, xs)
    expected, same = gradient(loop(range(1, T), chosen), params, state, xs)
    assert_close(values, same, 1e-14)
    assert_close(found, expected, 1e-12)


def test_a_draw_needs_a_key():
    with pytest.raises(ValueError, match="random key of the call"):
        gradient(memory.sltt(steps=2), *arguments(jnp.float32))


def active_steps(every, count, params, state, xs):
    """Per segment the state before it, and its most active timesteps in order."""
    starts, activity = [], []
    for x in xs:
        starts.append(state)
        state, y = step(params, state, x)
        activity.append(sum(float(jnp.sum(jnp.abs(leaf))) for leaf in y))
    chosen = []
    for first in range(0, T, every):
        segment = range(first, min(first + every, T))
        ranked = sorted(segment, key=lambda t: (-activity[t], t))[:count]
        chosen.append((starts[first], sorted(ranked)))
    return chosen


def test_skipped_steps_are_left_out_of_the_replay(x64):
    params, state, xs = arguments()
    found, (after, out, _) = gradient(memory.skip(3, 2), params, state, xs)
    segments = active_steps(3, 2, params, state, xs)
    # The most active steps are not simply the first ones.
    assert [rows for _, rows in segments] != [[0, 1], [3, 4]]
    # Cotangents of the last state and of the outputs, by the formula of `loss`.
    g_state = jax.tree.map(jnp.cos, after)
    weights = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
    g_out = weights + 2 * out
    g_params, g_xs = jax.tree.map(jnp.zeros_like, params), jnp.zeros_like(xs)
    for start, rows in reversed(segments):

        def replay(params, before, x):
            outs = []
            for frame in x:
                before, (y, _) = step(params, before, frame)
                outs.append(y)
            return before, jnp.stack(outs)

        index = jnp.asarray(rows)
        _, pull = jax.vjp(replay, params, start, xs[index])
        own, g_state, g_x = pull((g_state, g_out[index]))
        g_params = jax.tree.map(jnp.add, g_params, own)
        g_xs = g_xs.at[index].set(g_x)
    assert_close(found, (g_params, g_state, g_xs), 1e-12)


def test_without_a_path_through_time_sltt_is_exact(x64):
    """Neurons of decay 0 forget: nothing is cut."""
    forget = lambda params, state, x: (  # noqa: E731
        state, neurons.lif(neurons.LIFParams(0.0, 0.5), neurons.lif_model().initial_state(
            (B, 5), dtype=x.dtype), x @ params)[1],
    )  # fmt: skip
    weights, xs = arguments()[0]["in"], arguments()[2]

    def loss(scan, weights):
        return jnp.sum(jnp.cumsum(scan(forget, weights, (), xs)[1]) ** 2)

    own = [
        jax.grad(functools.partial(loss, scan))(weights) for scan in (memory.sltt(), memory.store)
    ]
    assert_close(*own, 1e-12)


def test_values_are_bit_equal_to_those_of_store_also_under_vmap():
    params, state, xs = arguments(jnp.float32)
    batched = jax.jit(jax.vmap(gradient, (None, None, None, 1)), static_argnums=0)
    pair = jnp.stack([xs, -xs], 1)
    _, expected = batched(memory.store, params, state, pair)
    for scan in (memory.sltt(), memory.skip(3, 2)):
        found, values = batched(scan, params, state, pair)
        assert_equal(values, expected)
        single = gradient(scan, params, state, xs)[0]
        assert_close(jax.tree.map(lambda leaf: leaf[0], found), single, 1e-5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: memory.sltt(steps=0), "steps is a positive integer"),
        (lambda: memory.truncated(True), "steps is a positive integer"),
        (lambda: memory.truncated(2, inner="store"), "inner is a scan"),
        (lambda: memory.skip(4, 5), "replays 5 of every 4 steps"),
        (lambda: memory.Strategy(depth=memory.sltt()), "give time=sltt"),
        (lambda: memory.ottt()(step, *arguments(jnp.float32)), "nn.with_memory"),
    ],
)
def test_wrong_options_name_the_cure(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_bytes_do_not_grow_with_time():
    """Sums in the carry, so that no output `[T, B, K]` exists; the inputs are no temporaries."""
    for scan, cells in ((memory.sltt(), 1), (memory.truncated(8), 8)):
        short, long = (test_scan_bytes.temp_mib(SumsKept(scan), t, True) for t in (16, 4096))
        assert long < short + 1e-3, (scan, short, long)
        # Membranes of a step, beside the parameters' gradient.
        assert long < cells * 0.2 + 0.4


class SumsKept:
    """A scan over `test_scan_bytes.carrying`, whose carry holds the sum of its outputs."""

    def __init__(self, scan):
        self.scan = scan

    def __call__(self, step, *own):
        return self.scan(Carrying(), *own)

    def __hash__(self):
        return hash(self.scan)

    def __eq__(self, other):
        return self.scan == other.scan


class Carrying:
    def __call__(self, *own):
        return test_scan_bytes.carrying(*own)

    def cut_cotangent(self, cotangent, last):
        neurons_, total = cotangent
        return jax.tree.map(lambda g: jnp.where(last, g, jnp.zeros_like(g)), neurons_), total


def test_check_asserts_the_bound_and_tells_each_layer():
    scans = {"sltt": memory.sltt(), "bound": Opposite(0.0), "no bound": Opposite(-1.0)}
    cut, wrong, turned = memory.check(scans, step, *arguments(jnp.float32), repeats=0)
    assert cut.ok and not cut.exact and cut.outputs_equal
    assert 0 < cut.layers["in"].cosine < 0.999 and cut.layers["out"].norm_ratio != 1
    assert len(wrong.faults) == 1 and "below the strategy's bound of 0" in wrong.faults[0]
    assert turned.ok and turned.layers["up"].cosine == pytest.approx(-1)


class Opposite:
    """The gradient with its sign turned, declared as another one."""

    exact = False

    def __init__(self, least_cosine):
        self.least_cosine = least_cosine

    def __call__(self, step, params, state, xs):
        turned = jax.tree.map(lambda p: 2 * jax.lax.stop_gradient(p) - p, params)
        return memory.store(step, turned, state, xs)


def test_a_claim_of_exactness_that_fails_is_a_fault():
    class Claims(Opposite):
        exact = True

    (found,) = memory.check({"claims": Claims(0.0)}, step, *arguments(jnp.float32), repeats=0)
    assert found.exact and "wrong gradient" in found.faults[0]


def test_a_scan_inside_another_makes_it_approximate():
    assert is_exact(memory.recompute(8, inner=memory.sequence)) and is_exact(None)
    assert not is_exact(memory.recompute(8, inner=memory.truncated(2)))
    assert not memory.Strategy(time=memory.ottt()).exact
    assert memory.Strategy(time=memory.store, depth=memory.recompute(1), pack=True).exact
    np.testing.assert_equal(memory.sltt(), memory.truncated(1))
