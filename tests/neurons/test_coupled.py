"""The coupled node: its equations as loops, its inverse in spite of a hard reset, its refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, surrogate
from snnjax.neurons import coupled_lif
from snnjax.neurons.coupled import (
    CoupledLIFParams,
    CoupledLIFState,
    coupled_lif_inverse,
    coupled_lif_state,
)
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal

B, C = 64, 16
COUPLINGS = [(alpha, beta) for alpha in (0.5, 1.0) for beta in (0.5, 1.0)]


def arguments(alpha, beta, timesteps, *, dtype=jnp.float32, decay=0.5):
    rng = np.random.default_rng(3)
    params = CoupledLIFParams(*(jnp.asarray(p, dtype) for p in (decay, 0.7, alpha, beta)))
    state = CoupledLIFState(*jnp.asarray(rng.normal(0, 0.5, (2, B, C // 2)), dtype))
    return params, state, jnp.asarray(rng.normal(0.3, 1.0, (timesteps, B, C)), dtype)


def loops(x, v, decay, threshold, alpha, beta):
    """One neuron of each group, one scalar at a time; `x` and `v` hold a number per group."""
    v1, v2 = v
    outputs = []
    for x1, x2 in x:
        m1 = v1 + (x1 - v1) * (1 - decay)
        s1 = 1.0 if m1 >= threshold else 0.0
        y1 = s1 + beta * x2
        w1 = (0.0 if s1 else m1) + alpha * v2
        m2 = w1 + (y1 - w1) * (1 - decay)
        s2 = 1.0 if m2 >= threshold else 0.0
        y2 = s2 + beta * x1
        w2 = (0.0 if s2 else m2) + alpha * v1
        v1, v2 = w1, w2
        outputs.append((y1, y2))
    return (v1, v2), np.array(outputs)


@pytest.mark.parametrize(("alpha", "beta"), COUPLINGS)
def test_equals_the_loops(x64, alpha, beta):
    params, state, xs = arguments(alpha, beta, 8, dtype=jnp.float64, decay=0.6)
    after, ys = memory.store(coupled_lif, params, state, xs)
    half = C // 2
    for b in range(2):
        for c in range(half):
            pair = np.asarray(xs)[:, b, [c, half + c]]
            start = [float(v[b, c]) for v in state]
            end, outputs = loops(pair, start, 0.6, 0.7, alpha, beta)
            assert_close(ys[:, b, [c, half + c]], outputs, 1e-13)
            assert_close([v[b, c] for v in after], list(end), 1e-13)


def undone(params, state, xs, inverse):
    """Errors of the membranes after 1, 2, ... steps back, and the largest magnitude met."""

    def forward(state, x):
        after, y = coupled_lif(params, state, x)
        return after, (state, y)

    def back(after, inputs):
        before = inverse(params, after, *inputs)
        return before, before

    last, (states, ys) = jax.lax.scan(forward, state, xs)
    _, again = jax.lax.scan(back, last, (xs, ys), reverse=True)
    off = jnp.stack(jax.tree.map(lambda a, b: jnp.abs(a - b).max((1, 2)), again, states)).max(0)
    met = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves((states, last, xs, ys)))
    return np.asarray(off)[::-1], met


@pytest.mark.parametrize(("alpha", "beta"), COUPLINGS)
def test_eight_steps_are_undone_in_float64(x64, alpha, beta):
    made = arguments(alpha, beta, 8, dtype=jnp.float64)
    errors, _ = undone(*made, coupled_lif_inverse(decay=0.5, alpha=alpha))
    assert errors.max() < 1e-9


def growth(decay, alpha, k):
    """Of an error in the worst case, neither group firing, k steps back."""
    e = np.ones(2)
    for _ in range(k):
        e1 = (e[1] + decay * e[0]) / alpha
        e = np.array([e1, (e[0] + decay * e1) / alpha])
    return e.max()


@pytest.mark.parametrize("decay", [0.25, 0.5])
@pytest.mark.parametrize(("alpha", "beta"), COUPLINGS)
def test_the_error_stays_below_its_bound(alpha, beta, decay):
    """k steps back it is at most `2^-23 growth(k)` of the largest magnitude met, in float32."""
    errors, met = undone(
        *arguments(alpha, beta, 8, decay=decay), coupled_lif_inverse(decay=decay, alpha=alpha)
    )
    for k, error in enumerate(errors, 1):
        assert error <= 2.0**-23 * growth(decay, alpha, k) * met, f"{k} steps back"
    # The bound is no empty one: of the growth it allows, most is there.
    assert errors[7] / errors[3] > 0.3 * growth(decay, alpha, 8) / growth(decay, alpha, 4)


@pytest.mark.parametrize(("decay", "alpha"), [(0.25, 0.5), (0.5, 0.5), (0.5, 1.0), (0.9, 0.4)])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_steps_are_as_many_as_the_tolerance_allows(decay, alpha, tolerance):
    steps = coupled_lif_inverse(decay=decay, alpha=alpha, tolerance=tolerance).steps
    bounds = [2.0**-23 * growth(decay, alpha, k) for k in (steps, steps + 1)]
    assert bounds[0] <= tolerance < bounds[1]


def test_too_many_steps_are_refused_with_the_cure():
    inverse = coupled_lif_inverse(decay=0.5, alpha=0.5)
    assert inverse.steps == 8
    with pytest.raises(ValueError, match="refresh=8"):
        memory.reverse(inverse)(coupled_lif, *arguments(0.5, 0.5, 9))


@pytest.mark.parametrize("options", [{"decay": 1.1}, {"decay": -0.1}, {"alpha": 0.0}])
def test_a_step_without_an_inverse_is_refused(options):
    with pytest.raises(ValueError, match="alpha > 0"):
        coupled_lif_inverse(**{"decay": 0.5, "alpha": 0.5, **options})
    with pytest.raises(ValueError, match="memory.recompute"):
        coupled_lif_inverse(decay=0.5, alpha=1e-4)


def test_the_outputs_are_no_spikes():
    _, ys = memory.store(coupled_lif, *arguments(0.5, 0.5, 8))
    assert not np.isin(ys, (0, 1)).any()


def test_the_membranes_stay_bounded_where_decay_and_alpha_are_below_one():
    """|v| <= (1 - decay) max(|x|, |y|) / (1 - decay - alpha), with |y| <= 1 + beta |x|."""
    params, state, xs = arguments(0.4, 1.0, 500)
    after, _ = memory.store(coupled_lif, params, state, -jnp.abs(xs))
    largest = 1 + float(jnp.abs(xs).max())
    assert max(float(jnp.abs(v).max()) for v in after) <= 0.5 * largest / (1 - 0.5 - 0.4)
    strong = params._replace(alpha=jnp.float32(1))
    unbounded, _ = memory.store(coupled_lif, strong, state, -jnp.abs(xs[:50]))
    assert float(jnp.abs(unbounded.v1).max()) > 1e6


def test_no_gradient_goes_through_the_reset():
    """The first group's next membrane feels its own input where it does not fire, and no other."""
    params, state, xs = arguments(0.5, 0.5, 1)
    gradient = jax.grad(lambda x: jnp.sum(coupled_lif(params, state, x)[0].v1))(xs[0])
    m1 = 0.5 * state.v1 + 0.5 * xs[0, :, : C // 2]
    expected = jnp.where(m1 < 0.7, 0.5, 0.0)
    assert_close(gradient, jnp.concatenate([expected, jnp.zeros_like(expected)], -1), 1e-6)


def test_an_odd_number_of_channels_is_refused_with_the_cure():
    params, state, _ = arguments(0.5, 0.5, 1)
    for refused in (
        functools.partial(coupled_lif_state, (2, 5)),
        functools.partial(coupled_lif, params, state, jnp.ones((B, 5))),
    ):
        with pytest.raises(ValueError, match="even number"):
            refused()


def test_the_resting_state():
    state = coupled_lif_state((2, 3, 6), dtype=jnp.bfloat16)
    assert_equal(state, CoupledLIFState(*(jnp.zeros((2, 3, 3), jnp.bfloat16),) * 2))


def test_equal_arguments_give_equal_steps_and_inverses():
    step = lambda alpha: bind(coupled_lif, spike=surrogate.arctan(alpha=alpha))  # noqa: E731
    assert step(2.0) == step(2.0) != step(3.0)
    one, two = (coupled_lif_inverse(decay=0.5, alpha=0.5) for _ in range(2))
    assert one == two and hash(one) == hash(two)
