"""Planning: the cheapest strategy that fits, by the bytes of the step itself; and what fits."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnjax import memory, neurons
from snnjax.memory import Strategy, StrategyError
from snnjax.memory.accounting import MemoryUse
from snnjax.memory.budget import Candidate, Plan
from snnjax.neurons.lif import lif_state

B, N, T = 16, 64, 49

# Choosing, of made-up measurements.

numbers = st.integers(0, 50)
candidates = st.builds(
    lambda every, total, operations, refused: Candidate(
        Strategy(time=memory.recompute(every)),
        None if refused else MemoryUse(total // 3, 5, total - total // 3, 5),
        float(operations),
        "it says why" if refused else None,
    ),
    st.integers(1, 9), numbers, st.integers(0, 3), st.booleans(),
)  # fmt: skip
plans = st.lists(candidates, min_size=1, max_size=8).map(lambda actual: Plan(tuple(actual), 2.0))
plans = plans.filter(lambda actual: actual.admitted)


@pytest.mark.fast
@given(plans, st.integers(0, 60))
def test_the_cheapest_that_fits_is_chosen_and_of_equals_the_leanest(plan, budget):
    fitting = [c for c in plan.candidates if c.measured and c.measured.total_bytes <= budget]
    chosen = plan.choose(budget)
    if not fitting:
        assert chosen is None
        return
    assert chosen in fitting
    for other in fitting:
        assert chosen.operations <= other.operations
        if chosen.operations == other.operations:
            assert chosen.measured.total_bytes <= other.measured.total_bytes


@pytest.mark.fast
@given(plans, st.integers(0, 60))
def test_missing_bytes_are_exact(plan, budget):
    missing = plan.missing(budget)
    assert (missing == 0) == (plan.choose(budget) is not None)
    assert plan.choose(budget + missing) is not None
    if missing:
        assert plan.choose(budget + missing - 1) is None
    assert plan.leanest.measured.total_bytes == min(c.measured.total_bytes for c in plan.admitted)


@pytest.mark.fast
@given(plans)
def test_extra_passes_are_counted_from_the_cheapest(plan):
    passes = [plan.extra_passes(c) for c in plan.admitted]
    assert min(passes) == 0
    cheapest = min(c.operations for c in plan.admitted)
    assert passes == [(c.operations - cheapest) / 2 for c in plan.admitted]
    assert Plan(plan.candidates).extra_passes(plan.admitted[0]) is None


@pytest.mark.fast
@given(plans, st.integers(0, 60))
def test_another_gradient_is_chosen_only_where_it_is_asked_for(plan, budget):
    sltt = Candidate(Strategy(time=memory.sltt()), MemoryUse(0, 0, 0, 0), -1.0)
    more = dataclasses.replace(plan, candidates=(*plan.candidates, sltt))
    assert more.choose(budget) == plan.choose(budget) and more.leanest == plan.leanest
    assert more.missing(budget) == plan.missing(budget)
    asked = dataclasses.replace(more, approximate=True)
    assert asked.choose(budget) == sltt and asked.leanest.measured.total_bytes == 0
    alone = Plan((sltt,), 2.0)
    assert alone.choose(budget) is None and alone.leanest == sltt


# Measuring.


def step(weights, state, x):
    currents = x + jnp.tanh(state.v) @ weights
    state, spikes = neurons.lif(neurons.LIFParams(0.5, 1.0), state, currents)
    return state, jnp.sum(spikes)


def loss(scan, weights, xs):
    return jnp.sum(scan(step, weights, lif_state((B, N)), xs)[1])


def build(strategy):
    """The gradient of a layer of LIF neurons with feedback, which has no inverse."""
    if isinstance(strategy.time, memory.Reverse):
        raise StrategyError("it cannot be reversed: use memory.recompute(every)")
    scan = strategy.time or memory.store
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((N, N), (T, B, 1))]
    return jax.jit(jax.value_and_grad(functools.partial(loss, scan))), shapes


STRATEGIES = [
    Strategy(),
    Strategy(time=memory.reversal()),
    Strategy(time=memory.recompute("sqrt")),
    Strategy(time=memory.recompute("sqrt", inner=memory.recompute(1))),
]


@pytest.fixture(scope="module")
def planned():
    reported = []
    forward = memory.accounting.count_operations(
        functools.partial(loss, memory.store), *build(Strategy())[1]
    )
    plan = memory.plan(build, STRATEGIES, forward=forward, samples=B, report=reported.append)
    return plan, reported


def test_planned_memory_is_that_of_the_compiled_step(planned):
    """Nothing is estimated: the bytes are those of the step compiled by itself."""
    plan, _ = planned
    assert [c.strategy for c in plan.candidates] == STRATEGIES
    for candidate in plan.admitted:
        jitted, shapes = build(candidate.strategy)
        assert candidate.measured == memory.measure(jitted, *shapes, samples=B)
        assert candidate.operations == memory.accounting.count_operations(jitted, *shapes)


def test_a_refusal_carries_its_reason(planned):
    plan, _ = planned
    refused = plan.candidates[1]
    assert refused.measured is None and refused.refused.startswith("it cannot be reversed")
    assert all(c.refused is None for c in plan.admitted) and len(plan.admitted) == 3


def test_each_is_reported_once(planned):
    plan, reported = planned
    assert sorted(map(str, reported)) == sorted(map(str, plan.candidates))


def test_a_smaller_budget_costs_more_passes(planned):
    plan, _ = planned
    stored, root, leanest = plan.admitted
    assert plan.leanest is leanest
    assert leanest.measured.total_bytes < root.measured.total_bytes
    assert 2 * root.measured.total_bytes < stored.measured.total_bytes
    assert plan.choose(math.inf) is stored and plan.extra_passes(stored) == 0
    assert plan.choose(leanest.measured.total_bytes) is leanest
    assert plan.extra_passes(root) == pytest.approx(1, rel=0.2)
    assert plan.extra_passes(leanest) == pytest.approx(2, rel=0.2)
    assert plan.choose(leanest.measured.total_bytes - 1) is None


@pytest.mark.fast
def test_no_strategy_at_all_is_an_error_with_every_reason():
    def refuse(strategy):
        raise StrategyError(f"not with {strategy}")

    with pytest.raises(StrategyError, match="no strategy is admitted.*time=recompute.*time=rev"):
        memory.plan(refuse, STRATEGIES[1:])
    with pytest.raises(ValueError, match="no strategy is admitted"):
        memory.plan(build, [])


@pytest.mark.fast
@pytest.mark.parametrize("error", [TypeError("a defect"), ValueError("a shape that does not fit")])
def test_a_failure_for_another_reason_is_not_taken_for_a_refusal(error):
    def fail(strategy):
        raise error

    with pytest.raises(type(error), match=str(error)) as raised:
        memory.plan(fail, STRATEGIES)
    assert not isinstance(raised.value, StrategyError)


# The largest number that fits, of made-up bytes.


def straight(base, slope):
    return lambda n: base + slope * n


def convex(base, slope, bend):
    return lambda n: base + slope * n + bend * n * n


def stairs(base, slope, width):
    """As XLA pads: the same for a number and the next ones, up to a multiple of the width."""
    return lambda n: base + slope * (-(-n // width)) * width


small = st.integers(1, 10**4)
functions = {
    "straight": st.builds(straight, st.integers(0, 10**9), small),
    "convex": st.builds(convex, st.integers(0, 10**9), small, small),
    "stairs": st.builds(stairs, st.integers(0, 10**9), small, st.sampled_from([8, 64, 1000])),
}
LIMIT = 2**24


def true_maximum(bytes_of, budget, limit):
    """By halving; the bytes do not fall."""
    low, high = 0, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bytes_of(middle) <= budget else (low, middle)
    return low


def actual(bytes_of, budget, **options):
    """Result of `largest_fit`, and the numbers it measured."""
    tried = []

    def measured(n):
        tried.append(n)
        return bytes_of(n)

    return memory.budget.largest_fit(measured, budget, **options), tried


def bits(n):
    return math.ceil(math.log2(max(n, 1)))


@pytest.mark.fast
@pytest.mark.parametrize("kind", functions)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_largest_that_fits_is_found_in_few_measurements(kind, data):
    bytes_of = data.draw(functions[kind])
    budget = data.draw(st.integers(0, 10**12))
    start = data.draw(st.integers(1, 10**5))
    value, tried = actual(bytes_of, budget, start=start)
    assert value == true_maximum(bytes_of, budget, LIMIT)
    assert len(set(tried)) == len(tried) and 1 <= min(tried) <= max(tried) <= LIMIT
    # Two guesses by a line and one halving, for each bit between the start and the value, and for
    # each of the interval that is left then.
    way, interval = bits(-(-value // start)), bits(max(start, 16 * value))
    assert len(tried) <= 3 * (way + interval + 2)
    for i, n in enumerate(tried[1:], 1):  # nothing huge is compiled on the way
        fits = [m for m in tried[:i] if bytes_of(m) <= budget]
        assert n <= max(start, 16 * max(fits, default=0))


@pytest.mark.fast
@settings(max_examples=200, deadline=None)
@given(functions["straight"], st.integers(0, 10**12), st.floats(0.3, 3))
def test_a_line_takes_four_measurements_from_a_start_nearby(bytes_of, budget, near):
    best = true_maximum(bytes_of, budget, LIMIT)
    value, tried = actual(bytes_of, budget, start=max(1, int(near * best)))
    assert value == best
    assert len(tried) <= 4


@pytest.mark.fast
@given(st.integers(1, 300), st.integers(1, 1000), st.integers(1, 50))
def test_the_limit_is_not_exceeded_and_reached_where_it_fits(limit, start, slope):
    value, tried = actual(straight(0, slope), 10**9, start=start, limit=limit)
    assert value == limit == max(tried)
    value, tried = actual(lambda n: 7, 7, start=start, limit=limit)
    assert value == limit == max(tried) and len(tried) <= 2 + bits(limit)


@pytest.mark.fast
@given(st.integers(1, 10**6), st.integers(1, 1000))
def test_nothing_fits(start, slope):
    value, tried = actual(straight(10, slope), 10, start=start)
    assert value == 0 and 1 in tried
    assert len(tried) <= 3 * (bits(start) + 2)
