"""Operations counted from a trace: products by formula, loops by length, and what a replay adds."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from snnjax import memory
from snnjax.ops.convolution import convolution

pytestmark = pytest.mark.fast

sizes = st.integers(1, 9)
count = memory.accounting.count_operations


def shape(*dimensions):
    return jax.ShapeDtypeStruct(dimensions, jnp.float32)


@settings(max_examples=20, deadline=None)
@given(sizes, sizes, sizes, sizes)
def test_a_dot_product_is_two_per_product_summed(batch, m, k, n):
    assert count(jnp.matmul, shape(m, k), shape(k, n)) == 2 * m * k * n
    batched = count(lax.batch_matmul, shape(batch, m, k), shape(batch, k, n))
    assert batched == batch * 2 * m * k * n
    over_all = count(lambda a, b: jnp.tensordot(a, b, 3), *[shape(m, k, n)] * 2)
    assert over_all == 2 * m * k * n


convolutions = st.fixed_dictionaries(
    {
        "groups": st.integers(1, 3),
        "of": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "kernel": st.sampled_from([(1, 1), (3, 3), (3, 1)]),
        "strides": st.integers(1, 2),
        "padding": st.sampled_from(["SAME", "VALID"]),
    }
    # Depthwise, it is written as shifted products on a CPU, whose moves are counted as well.
).filter(lambda options: options["groups"] == 1 or options["of"] != (1, 1))


def conv_case(groups, of, kernel, strides, padding):
    """The function, the shapes of its arguments and of its outputs, and products per output."""
    channels, outputs = (groups * n for n in of)
    run = functools.partial(convolution, strides=strides, padding=padding, groups=groups)
    arguments = shape(2, 6, 7, channels), shape(*kernel, channels // groups, outputs)
    out = jax.eval_shape(run, *arguments)
    return run, arguments, math.prod(out.shape), math.prod(kernel) * channels // groups


@settings(max_examples=30, deadline=None)
@given(convolutions)
def test_a_convolution_is_two_per_product_summed(options):
    run, arguments, outputs, products = conv_case(**options)
    assert count(run, *arguments) == 2 * outputs * products


@settings(max_examples=15, deadline=None)
@given(convolutions)
def test_a_grouped_convolution_costs_what_its_groups_cost(options):
    run, (x, kernel), *_ = conv_case(**options)
    groups = options["groups"]
    one = shape(*x.shape[:-1], x.shape[-1] // groups)
    single = functools.partial(run, groups=1)
    parts = count(single, one, shape(*kernel.shape[:-1], kernel.shape[-1] // groups))
    assert count(run, x, kernel) == groups * parts


def layered(weights, x):
    for w in weights:
        x = jnp.tanh(x @ w)
    return jnp.sum(x)


@pytest.mark.parametrize("what", ["linear", "convolution"])
def test_a_gradient_costs_about_three_forward_passes(what):
    """One forward; the gradients of inputs and of weights are products of the same size."""
    if what == "linear":
        run, arguments = layered, ([shape(64, 64)] * 3, shape(32, 64))
    else:
        run = lambda x, k: jnp.sum(jnp.tanh(convolution(x, k)))  # noqa: E731
        arguments = shape(4, 16, 16, 32), shape(3, 3, 32, 32)
    ratio = count(jax.grad(run, (0, 1)), *arguments) / count(run, *arguments)
    assert ratio == pytest.approx(3, rel=0.05)


def step(weights, state, x):
    state = jnp.tanh((state + x) @ weights)
    return state, jnp.sum(state)


def scanned(scan, weights, xs):
    return jnp.sum(scan(step, weights, jnp.zeros(xs.shape[1:]), xs)[1])


STEP = shape(64, 64), shape(16, 32, 64)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 50))
def test_a_scan_costs_its_length_times_a_step(length):
    weights, x = STEP[0], shape(length, 32, 64)
    run = functools.partial(memory.store, step)
    once = count(step, weights, shape(32, 64), shape(32, 64))
    assert count(run, weights, shape(32, 64), x) == length * once


def test_recomputing_costs_a_forward_pass_more_per_level():
    def graded(scan):
        return count(jax.grad(functools.partial(scanned, scan)), *STEP)

    forward = count(functools.partial(scanned, memory.store), *STEP)
    base = graded(memory.store)
    each = memory.recompute(1)
    for scan, passes in ((each, 1), (memory.recompute(4), 1), (memory.recompute(4, inner=each), 2)):
        assert graded(scan) - base == pytest.approx(passes * forward, rel=0.05)


def test_operations_that_a_replay_does_not_repeat_are_not_counted():
    """The derivative of a linear step does not look at what it gives out."""

    def linear(weights, state, x):
        return state, jnp.sum(x @ weights, -1)

    def graded(scan):
        run = lambda w, xs: jnp.sum(scan(linear, w, jnp.zeros(()), xs)[1])  # noqa: E731
        return count(jax.value_and_grad(run), *STEP)

    assert graded(memory.recompute(1)) == pytest.approx(graded(memory.store), rel=0.05)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_of_branches_the_larger_counts(m, n):
    branches = [lambda x, k=k: jnp.sum(jnp.ones((k, 8)) @ x) for k in (m, n)]
    costs = [count(branch, shape(8, 8)) for branch in branches]
    run = lambda flag, x: lax.cond(flag, *branches, x)  # noqa: E731
    actual = count(run, jax.ShapeDtypeStruct((), jnp.bool_), shape(8, 8))
    assert max(costs) <= actual <= max(costs) + 2


def test_of_a_while_loop_one_trip_counts():
    body = lambda x: jnp.tanh(x @ x)  # noqa: E731
    run = lambda x: lax.while_loop(lambda x: x[0, 0] < 1, body, x)  # noqa: E731
    assert count(body, shape(9, 9)) <= count(run, shape(9, 9)) <= count(body, shape(9, 9)) + 9


def test_unused_operations_are_not_counted():
    def run(a, b):
        dead = jnp.sin(a @ a) @ a
        alive = b @ b
        return alive, jnp.zeros_like(dead, shape=())

    assert count(run, shape(9, 9), shape(9, 9)) <= 2 * 9**3 + 1


def test_a_hand_written_derivative_counts_once_it_is_used():
    run = lambda x, k: convolution(x, k)  # noqa: E731
    arguments = shape(1, 6, 6, 4), shape(3, 3, 4, 4)
    wrapped = jax.jit(jax.checkpoint(run))
    assert count(wrapped, *arguments) == count(run, *arguments)
    pulled = lambda *a: jax.vjp(run, *a)[1](jnp.ones((1, 6, 6, 4)))  # noqa: E731
    assert count(pulled, *arguments) > 1.9 * count(run, *arguments)


def test_elementwise_operations_are_one_per_element_and_nothing_runs():
    def run(x):
        jax.debug.callback(pytest.fail)
        return jnp.exp(x) + 1

    assert 2 * 35 <= count(run, shape(5, 7)) <= 2 * 35 + 1
    huge = shape(10**6, 10**6)
    assert count(jnp.matmul, huge, huge) == 2e18
