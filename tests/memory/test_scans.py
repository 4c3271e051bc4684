"""Law 1: a strategy never changes a value. Every scan against every neuron, and against depth.

The neurons run side by side as one step, each with its own parameters, state and inputs: one
compilation then serves the whole table, and a failure still names its neuron.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory
from tests.compare import assert_close, assert_equal, largest_error
from tests.neurons.cases import NEURONS, case

PRIME, EVEN = 7, 8
SLOW = pytest.mark.slow


@functools.cache
def side_by_side(names, timesteps, dtype=jnp.float64):
    """One step that runs all `names`, and its params, state, inputs and output cotangents."""
    cases = {name: case(name, timesteps, dtype=dtype) for name in names}

    def step(params, state, x):
        both = {name: cases[name].step(params[name], state[name], x[name]) for name in names}
        return {n: new for n, (new, _) in both.items()}, {n: y for n, (_, y) in both.items()}

    rng = np.random.default_rng(5)
    weights = {n: jnp.asarray(rng.normal(size=cases[n].xs.shape), dtype) for n in names}
    columns = ({n: cases[n][i] for n in names} for i in (1, 2, 3))
    return step, (weights, *columns)


def loss(scan, step, weights, params, state, xs):
    """A scalar that sees every output and the last state."""
    state, ys = scan(step, params, state, xs)
    last = sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(state))
    return sum(jax.tree.leaves(jax.tree.map(lambda y, w: jnp.sum(y * w), ys, weights))) + last, (
        state,
        ys,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def everything(scan, step, weights, params, state, xs):
    """Outputs under jit, the gradients under vmap(grad) and under grad(vmap)."""
    one = functools.partial(loss, scan, step)
    pair = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x - 0.05], 1), xs)
    over = (None, None, None, 1)

    def mean(params, state, xs):
        losses, _ = jax.vmap(one, over)(weights, params, state, xs)
        return jnp.sum(losses**2)

    _, outputs = one(weights, params, state, xs)
    per_example, seen = jax.vmap(jax.grad(one, (1, 2, 3), has_aux=True), over)(
        weights, params, state, pair
    )
    summed = jax.grad(mean, (0, 1, 2))(params, state, pair)
    return {"values": (outputs, seen), "vmap(grad)": per_example, "grad(vmap)": summed}


@functools.cache
def run(scan, names, timesteps, dtype=jnp.float64):
    step, arguments = side_by_side(names, timesteps, dtype)
    return everything(scan, step, *arguments)


def assert_same_as_store(scan, names, timesteps, bound, dtype=jnp.float64):
    actual, expected = (run(s, names, timesteps, dtype) for s in (scan, memory.store))
    assert_equal(actual["values"], expected["values"])
    for mode in ("vmap(grad)", "grad(vmap)"):
        for kind, got, want in zip(
            ("params", "state", "xs"), actual[mode], expected[mode], strict=True
        ):
            for name in names:
                error = largest_error(got[name], want[name])
                assert error <= bound, f"{name}: gradient of {kind} under {mode} is off by {error}"


@pytest.mark.parametrize("every", [3, *(pytest.param(k, marks=SLOW) for k in (1, 4, 5, PRIME))])
def test_recompute_changes_nothing_for_any_neuron(x64, every):
    assert_same_as_store(memory.recompute(every), tuple(NEURONS), PRIME, 1e-12)


@pytest.mark.parametrize("timesteps", [PRIME, EVEN])
@pytest.mark.parametrize("every", [1, 4, 5, "T"])
def test_recompute_changes_nothing_whatever_divides_the_length(x64, every, timesteps):
    scan = memory.recompute(timesteps if every == "T" else every)
    assert_same_as_store(scan, ("recurrent_lif",), timesteps, 1e-12)


@pytest.mark.fast
def test_recompute_changes_nothing_in_float32():
    assert_same_as_store(memory.recompute(3), ("lif",), PRIME, 1e-5, jnp.float32)


def test_a_segment_longer_than_the_sequence_is_the_whole_sequence(x64):
    step, (weights, *arguments) = side_by_side(tuple(NEURONS), PRIME)

    def program(scan):
        one = functools.partial(loss, scan, step, weights)
        return str(jax.make_jaxpr(jax.grad(one, (0, 1, 2), has_aux=True))(*arguments))

    assert program(memory.recompute(PRIME + 3)) == program(memory.recompute(PRIME))


# The depth axis: the blocks are xs, nothing is shared, a statistic leaves each block.


def block(params, activation, weights):
    del params
    inner, outer = weights
    branch = jnp.tanh(activation @ inner)
    return activation + branch @ outer, jnp.mean(branch**2)


@pytest.mark.parametrize("every", [2, 3])
def test_recompute_over_depth(x64, every):
    rng = np.random.default_rng(0)
    blocks = tuple(jnp.asarray(rng.normal(size=s) / 2) for s in ((5, 4, 6), (5, 6, 4)))
    activation = jnp.asarray(rng.normal(size=(3, 4)))

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.value_and_grad, argnums=(1, 2), has_aux=True)
    def stack(scan, activation, blocks):
        outputs = scan(block, (), activation, blocks)
        return jnp.sum(outputs[0] ** 2) + jnp.sum(outputs[1]), outputs

    (_, outputs), gradients = stack(memory.recompute(every), activation, blocks)
    (_, expected), expected_gradients = stack(memory.store, activation, blocks)
    assert_equal(outputs, expected)
    assert_close(gradients, expected_gradients, 1e-12)


# A whole cell as the step: two layers, dropout by a key that is an input, and labels that are
# integers.


def cell(params, state, inputs):
    current, label, key = inputs
    first, second = params
    names = ("lif", "alif")
    steps = [case(name, 1, n=n, dtype=current.dtype) for name, n in zip(names, (4, 3), strict=True)]
    state_1, spikes = steps[0].step(first[0], state[0], current @ first[1])
    kept = spikes * jax.random.bernoulli(key, 0.7, spikes.shape).astype(spikes.dtype)
    state_2, spikes = steps[1].step(second[0], state[1], kept @ second[1])
    onehot = jax.nn.one_hot(label, spikes.shape[-1], dtype=spikes.dtype)
    return (state_1, state_2), (spikes, jnp.sum(onehot * spikes), label)


def cell_arguments():
    rng = np.random.default_rng(1)
    layers = [case("lif", PRIME, n=4), case("alif", PRIME, n=3)]
    weights = [jnp.asarray(rng.normal(size=s)) for s in ((5, 4), (4, 3))]
    params = tuple((layer.params, w) for layer, w in zip(layers, weights, strict=True))
    keys = jax.random.split(jax.random.key(0), PRIME)
    xs = (
        jnp.asarray(rng.normal(size=(PRIME, 2, 5))),
        jnp.arange(2 * PRIME).reshape(-1, 2) % 3,
        keys,
    )
    return params, tuple(layer.state for layer in layers), xs


@pytest.mark.parametrize("every", [3])
def test_recompute_over_a_whole_cell_with_labels_and_keys(x64, every):
    @functools.partial(jax.jit, static_argnums=0)
    def forward(scan, params, state, xs):
        outputs, pull = jax.vjp(functools.partial(scan, cell), params, state, xs)
        cotangents = jax.tree.map(
            lambda y: jnp.cos(y) if jnp.issubdtype(y.dtype, jnp.floating) else y, outputs
        )
        ones = jax.tree.map(lambda y: np.zeros(y.shape, jax.dtypes.float0), outputs)
        seeds = jax.tree.map(
            lambda y, c, z: c if jnp.issubdtype(y.dtype, jnp.floating) else z,
            outputs,
            cotangents,
            ones,
        )
        g_params, g_state, (g_current, g_label, g_key) = pull(seeds)
        assert g_label.dtype == g_key.dtype == jax.dtypes.float0
        return outputs, (g_params, g_state, g_current)

    outputs, gradients = forward(memory.recompute(every), *cell_arguments())
    expected, expected_gradients = forward(memory.store, *cell_arguments())
    assert_equal(outputs, expected)
    assert largest_error(expected_gradients[0], jax.tree.map(jnp.zeros_like, gradients[0])) > 0.1
    assert_close(gradients, expected_gradients, 1e-12)


def test_no_steps_at_all_leave_the_state():
    state, ys = memory.recompute(4)(
        block, (), jnp.ones((2, 4)), (jnp.ones((0, 4, 6)), jnp.ones((0, 6, 4)))
    )
    assert_equal(state, jnp.ones((2, 4)))
    assert ys.shape == (0,)


@pytest.mark.parametrize("scan", [memory.store, memory.recompute(3)])
def test_inputs_of_different_lengths_are_refused(scan):
    xs = (jnp.ones((6, 4, 6)), jnp.ones((5, 6, 4)))
    with pytest.raises(ValueError, match="6.*5|5.*6"):
        scan(block, (), jnp.ones((2, 4)), xs)


@pytest.mark.parametrize("scan", [memory.store, memory.recompute(3)])
def test_inputs_without_arrays_are_refused(scan):
    with pytest.raises(ValueError):
        scan(lambda params, state, x: (state, x), (), jnp.ones(()), ())


@pytest.mark.fast
@pytest.mark.parametrize("every", [0, -1, 2.0, True, None])
def test_recompute_refuses_what_is_not_a_length(every):
    with pytest.raises(ValueError, match="square root"):
        memory.recompute(every)


@pytest.mark.fast
def test_scans_compare_and_hash_by_their_arguments():
    assert memory.recompute(3) == memory.recompute(3) != memory.recompute(4)
    assert hash(memory.recompute(3)) == hash(memory.recompute(3))


@pytest.mark.fast
def test_store_works_in_forward_mode_and_recompute_too(x64):
    made = case("lif")
    for scan in (memory.store, memory.recompute(3)):

        def total(xs, scan=scan):
            return jnp.sum(scan(made.step, made.params, made.state, xs)[1])

        forward = jax.jvp(total, (made.xs,), (jnp.ones_like(made.xs),))[1]
        assert_close(forward, jnp.sum(jax.grad(total)(made.xs)), 1e-12)
