"""Undoing a neuron's steps: the error grows as its decays say, and what forgets is refused."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons
from snnjax.neurons import LIFParams
from snnjax.neurons.alif import ALIFParams, alif_inverse, alif_state
from snnjax.neurons.cuba_lif import CubaLIFParams, cuba_lif_inverse, cuba_lif_state
from snnjax.neurons.integrate_fire import IFParams
from snnjax.neurons.li import LIParams
from snnjax.neurons.lif import LIFState, lif_inverse, lif_state
from snnjax.neurons.plif import PLIFParams, plif_weight
from snnjax.typing import bind
from tests.compare import assert_close, assert_equal

pytestmark = pytest.mark.fast
SHAPE = (64, 8)
EPSILON = 2.0**-23


class Row(NamedTuple):
    growth: Any  # what one step back makes of the errors of the state's parts
    make: Any
    step: Any
    params: Any
    initial: Any = lif_state


def lif(decay, **options):
    make = functools.partial(lif_inverse, decay=decay, **options)
    return Row([[1 / decay]], make, bind(neurons.lif, **options), LIFParams(decay, 1.0))


def inside(model, **bounds):
    """Makes the inverse of a neuron that converts its parameters to those of a LIF."""
    return lambda **options: dataclasses.replace(
        model.inverse, function=lif_inverse(**{**bounds, **options})
    )


def alif(decay, adaptation_decay):
    return Row(
        [[1 / decay, 0], [0, 1 / adaptation_decay]],
        functools.partial(alif_inverse, decay=decay, adaptation_decay=adaptation_decay),
        neurons.alif,
        ALIFParams(decay, 1.0, adaptation_decay, 0.2),
        alif_state,
    )


def cuba_lif(decay, synaptic_decay, **options):
    gain = 1 - decay if options else 1
    return Row(
        [[1 / decay, gain / decay], [0, 1 / synaptic_decay]],
        functools.partial(cuba_lif_inverse, decay=decay, synaptic_decay=synaptic_decay, **options),
        bind(neurons.cuba_lif, **options),
        CubaLIFParams(decay, synaptic_decay, 0.5),
        cuba_lif_state,
    )


LEAKY = {
    "lif 0.25": lif(0.25),
    "lif 0.5": lif(0.5),
    "lif 0.9": lif(0.9),
    "lif scaled": lif(0.5, scale_input=True),
    "lif without reset": lif(0.5, reset=neurons.reset.none),
    "plif": Row(
        [[2]],
        inside(neurons.plif_model(decay=0.5), decay=0.5, scale_input=True),
        neurons.plif,
        PLIFParams(plif_weight(0.5), 0.5),
    ),
    "li": Row(
        [[2]],
        functools.partial(lif_inverse, decay=0.5, reset=neurons.reset.none),
        neurons.li,
        LIParams(0.5),
    ),
    "alif, membrane faster": alif(0.5, 0.9),
    "alif, adaptation faster": alif(0.9, 0.5),
    "cuba_lif, membrane faster": cuba_lif(0.5, 0.9),
    "cuba_lif, synapse faster": cuba_lif(0.9, 0.5),
    "cuba_lif scaled": cuba_lif(0.5, 0.5, scale_input=True),
}
STEADY = Row(
    [[1]],
    inside(neurons.integrate_fire_model(), decay=1.0),
    neurons.integrate_fire,
    IFParams(1.0),
)


def error_bound(row, k):
    return EPSILON * np.linalg.matrix_power(np.array(row.growth), k).sum(1).max()


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def undone(row, timesteps):
    """Errors of the state after 1, 2, ... steps back, relative to the largest magnitude met."""
    xs = np.random.default_rng(0).normal(0.4, 0.8, (timesteps, *SHAPE))
    xs = jnp.asarray(xs, jnp.float32)

    def forward(state, x):
        after, y = row.step(row.params, state, x)
        return after, (state, y)

    def back(after, inputs):
        before = row.make()(row.params, after, *inputs)
        return before, before

    last, (states, ys) = jax.lax.scan(forward, row.initial(SHAPE), xs)
    _, again = jax.lax.scan(back, last, (xs, ys), reverse=True)
    scale = largest((states, last)) + largest(xs)
    off = jax.tree.map(lambda a, b: jnp.abs(a - b).max((1, 2)) / scale, again, states)
    return np.max(jax.tree.leaves(off), axis=0)[::-1]


@pytest.mark.parametrize("name", LEAKY)
def test_the_error_of_a_leak_stays_below_its_bound(name):
    """k steps back it is at most `2^-23 |growth^k|` of the largest magnitude met."""
    row = LEAKY[name]
    for k, error in enumerate(undone(row, row.make().steps), 1):
        assert error <= error_bound(row, k), f"{k} steps back"


def test_without_a_leak_the_error_does_not_grow():
    assert undone(STEADY, 500).max() < 4 * EPSILON


@pytest.mark.parametrize("name", LEAKY)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_steps_are_as_many_as_the_tolerance_allows(name, tolerance):
    row = LEAKY[name]
    steps = row.make(tolerance=tolerance).steps
    assert error_bound(row, steps) <= tolerance < error_bound(row, steps + 1)


def test_the_faster_leak_decides():
    steps = {name: row.make().steps for name, row in LEAKY.items()}
    assert steps["lif 0.25"] == 8 and steps["lif 0.5"] == 16
    assert steps["alif, membrane faster"] == steps["alif, adaptation faster"] == 16
    # The synaptic current's error comes into the membrane on top.
    assert 10 < steps["cuba_lif scaled"] < 16
    assert STEADY.make().steps is None
    assert lif_inverse(decay=1.0).steps is None


@pytest.mark.parametrize(
    "reset",
    [neurons.reset.zero, neurons.reset.to(0.1), neurons.reset.delayed(neurons.reset.subtract)],
)
@pytest.mark.parametrize(
    "name", ["lif 0.5", "plif", "alif, membrane faster", "cuba_lif, membrane faster", None]
)
def test_a_neuron_that_forgets_has_no_inverse(name, reset):
    row = LEAKY.get(name, STEADY)
    with pytest.raises(ValueError, match=r"neurons\.reset\.subtract.*memory\.recompute"):
        row.make(reset=reset)


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.01])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lif_inverse, "decay"),
        (functools.partial(alif_inverse, adaptation_decay=0.5), "decay"),
        (functools.partial(alif_inverse, decay=0.5), "adaptation_decay"),
        (functools.partial(cuba_lif_inverse, synaptic_decay=0.5), "decay"),
        (functools.partial(cuba_lif_inverse, decay=0.5), "synaptic_decay"),
    ],
)
def test_a_decay_lies_above_0_and_up_to_1(make, name, decay):
    with pytest.raises(ValueError, match=rf"{name} lies in \(0, 1\]"):
        make(**{name: decay})


def test_a_neuron_that_forgets_at_once_is_refused():
    with pytest.raises(ValueError, match="memory.recompute"):
        lif_inverse(decay=1e-6)


@pytest.mark.parametrize("name", LEAKY)
def test_equal_arguments_give_equal_inverses(name):
    make = LEAKY[name].make
    assert make() == make() and hash(make()) == hash(make())
    made = make()
    scaled = getattr(made, "function", made).scale_input
    assert made != make(scale_input=not scaled)


def test_detaching_the_reset_changes_no_inverse():
    row, detached = lif(0.5), lif(0.5, reset=neurons.reset.detached(neurons.reset.subtract))
    state, x = LIFState(jnp.ones(SHAPE)), jnp.full(SHAPE, 0.6)
    after, spikes = row.step(row.params, state, x)
    before = [r.make()(row.params, after, x, spikes) for r in (row, detached)]
    assert_equal(*before)
    assert_close(before[0], state, 1e-6)


# An inverse knows the dtype and the actual parameters of a call.


def gradients(model, params, scan, dtype, *, jit):
    xs = jnp.asarray(np.random.default_rng(0).normal(0.4, 0.6, (24, 2, 4)), dtype)
    state = model.initial_state((2, 4), dtype=dtype)

    def loss(params):
        _, ys = scan(model.step, params, state, xs)
        return jnp.sum(jnp.sin(ys) * jnp.arange(24, dtype=dtype).reshape(-1, 1, 1))

    gradient = jax.jit(jax.grad(loss)) if jit else jax.grad(loss)
    return gradient(jax.tree.map(lambda p: jnp.asarray(p, dtype), params))


# name: (model, parameters that decay too fast for its inverse)
DECLARED = {
    "lif": (neurons.lif_model(decay=0.9), LIFParams(0.5, 1.0)),
    "li": (neurons.li_model(decay=0.9), LIParams(0.5)),
    "plif": (neurons.plif_model(decay=0.9), PLIFParams(plif_weight(0.5), 1.0)),
    "alif": (
        neurons.alif_model(decay=0.9, adaptation_decay=0.9),
        ALIFParams(0.9, 1.0, 0.5, 0.2),
    ),
    "cuba_lif": (
        neurons.cuba_lif_model(decay=0.9, synaptic_decay=0.9),
        CubaLIFParams(0.9, 0.5, 1.0),
    ),
    "coupled_lif": (
        neurons.coupled_lif_model(),
        neurons.coupled_lif_model().params._replace(alpha=0.2),
    ),
}


def reversing(model):
    return memory.reverse(model.inverse, refresh=model.inverse.steps)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", DECLARED)
def test_parameters_that_decay_faster_than_declared_never_give_a_wrong_gradient(name, jit):
    model, params = DECLARED[name]
    if jit:  # traced values are known to the program alone
        found = gradients(model, params, reversing(model), jnp.float32, jit=True)
        assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(found))
    else:
        with pytest.raises(ValueError, match=r"cannot undo .*memory\.recompute"):
            gradients(model, params, reversing(model), jnp.float32, jit=False)
    # A refresh that these parameters allow gives their gradient.
    often = memory.reverse(model.inverse, refresh=4)
    close = (gradients(model, params, s, jnp.float32, jit=jit) for s in (often, memory.store))
    assert_close(*close, 2e-3)


@pytest.mark.parametrize("name", DECLARED)
def test_the_parameters_it_was_made_for_are_as_before(name):
    model, _ = DECLARED[name]
    close = (
        gradients(model, model.params, scan, jnp.float32, jit=True)
        for scan in (reversing(model), memory.store)
    )
    assert_close(*close, 1e-2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["if", *DECLARED])
def test_a_narrow_membrane_is_not_undone(name, dtype):
    model = neurons.integrate_fire_model() if name == "if" else DECLARED[name][0]
    with pytest.raises(ValueError, match=r"state in \w+16 cannot be undone.*float32"):
        gradients(model, model.params, reversing(model), dtype, jit=True)


def test_nor_one_that_an_inverse_of_ones_own_undoes():
    def step(decay, v, x):
        return decay * v + x, v

    scan = memory.reverse(lambda decay, after, x, y: (after - x) / decay)
    with pytest.raises(ValueError, match="state in bfloat16 cannot be undone"):
        scan(step, jnp.bfloat16(0.9), jnp.zeros(3, jnp.bfloat16), jnp.zeros((4, 3), jnp.bfloat16))
