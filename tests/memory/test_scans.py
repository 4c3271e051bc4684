"""Law 1: a strategy never changes a value. Every scan against every neuron, and against depth.

The neurons run side by side as one step, each with its own parameters, state and inputs: one
compilation then serves a whole row of the table, and a failure still names its neuron.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from snnjax import memory
from tests.compare import AS_USERS_DO, assert_close, assert_equal, largest_error
from tests.neurons.cases import CORE, NEURONS, case

PRIME, TWELVE = 7, 12  # twelve can be cut in many ways without a rest, which compile faster
CASES = {name: case(name, 1, dtype=jnp.float32) for name in NEURONS}
ALL = tuple(NEURONS)
REVERSIBLE = tuple(name for name in NEURONS if CASES[name].inverse is not None)
SEQUENCE = tuple(name for name in NEURONS if CASES[name].sequence is not None)


def step(params, state, x):
    """One timestep of all neurons that `params` names."""
    both = {n: CASES[n].step(params[n], state[n], x[n]) for n in params}
    after = {n: after for n, (after, _) in both.items()}
    named = jax.tree.map(lambda leaf: checkpoint_name(leaf, "membranes"), after)
    return named, {n: y for n, (_, y) in both.items()}


def undo(params, after, x, y):
    """The inverses of all of them."""
    return {n: CASES[n].inverse(params[n], after[n], x[n], y[n]) for n in params}


def sequence(step, params, state, xs):
    """The neurons' own whole-sequence functions in place of a scan of the step."""
    del step
    both = {n: CASES[n].sequence(params[n], state[n], xs[n]) for n in params}
    return {n: after for n, (after, _) in both.items()}, {n: ys for n, (_, ys) in both.items()}


step.sequence = functools.partial(sequence, step)


class Row(NamedTuple):
    scan: Any
    neurons: tuple[str, ...] = ALL
    undone: int = 0  # steps that the inverse undoes in a row
    slow: tuple[str, ...] = ("float32",)

    def among(self, names):
        """The same row with those of its neurons that are among `names`."""
        return self._replace(neurons=tuple(name for name in self.neurons if name in names))


BOTH = ("float64", "float32")
SCANS = {
    "recompute(1)": Row(memory.recompute(1), slow=BOTH),
    "recompute(3)": Row(memory.recompute(3)),
    "recompute(5)": Row(memory.recompute(5), slow=BOTH),
    'recompute("sqrt")': Row(memory.recompute("sqrt"), slow=BOTH),
    "recompute, membranes kept": Row(memory.recompute(3, keep=("membranes",)), slow=BOTH),
    "two levels": Row(memory.recompute(4, inner=memory.recompute(2)), slow=BOTH),
    "three levels": Row(
        memory.recompute(6, inner=memory.recompute(3, inner=memory.recompute(1))), slow=BOTH
    ),
    "reverse(refresh=1)": Row(memory.reverse(undo, refresh=1), REVERSIBLE, 1, slow=BOTH),
    "reverse(refresh=4)": Row(memory.reverse(undo, refresh=4), REVERSIBLE, 4),
    "reverse(refresh=5)": Row(memory.reverse(undo, refresh=5), REVERSIBLE, 5, slow=BOTH),
    "reverse": Row(memory.reverse(undo), REVERSIBLE, TWELVE, slow=BOTH),
    "reverse inside recompute": Row(
        memory.recompute(4, inner=memory.reverse(undo)), REVERSIBLE, 4, slow=BOTH
    ),
    # Of these only the coupled one undoes steps, four at a time. Both kinds of them have tests in
    # float32: tests/neurons/test_lif_scan.py and test_coupled_scan.py.
    "whole sequence": Row(memory.sequence, SEQUENCE, 4),
    "recompute, whole segments": Row(
        memory.recompute(4, inner=memory.sequence), SEQUENCE, 4, slow=BOTH
    ),
}


def side_by_side(names, timesteps, dtype=jnp.float64):
    """The params, state and inputs of all `names`, and cotangents for their outputs in front."""
    cases = {name: case(name, timesteps, dtype=dtype) for name in names}
    rngs = {n: np.random.default_rng(ALL.index(n)) for n in names}
    weights = {n: jnp.asarray(rngs[n].normal(size=cases[n].xs.shape), dtype) for n in names}
    parts = ("params", "state", "xs")
    return weights, *({n: getattr(cases[n], part) for n in names} for part in parts)


def losses(scan, weights, params, state, xs):
    """For each neuron a scalar that sees every output and the last state."""
    after, ys = scan(step, params, state, xs)
    last = {n: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(after[n])) for n in after}
    return {n: jnp.sum(ys[n] * weights[n]) + last[n] for n in ys}, (after, ys)


def loss(scan, *arguments):
    each, outputs = losses(scan, *arguments)
    return sum(each.values()), outputs


OVER = (None, None, None, 1)  # a pair of inputs


def paired(xs):
    return jax.tree.map(lambda x: jnp.stack([x, 1.1 * x - 0.05], 1), xs)


@functools.partial(jax.jit, static_argnums=0, compiler_options=AS_USERS_DO)
def per_example(scan, weights, params, state, xs):
    """Outputs under jit, outputs and gradients under vmap(grad)."""
    one = functools.partial(loss, scan)
    _, outputs = one(weights, params, state, xs)
    gradients, seen = jax.vmap(jax.grad(one, (1, 2, 3), has_aux=True), OVER)(
        weights, params, state, paired(xs)
    )
    return (outputs, seen), gradients


@functools.partial(jax.jit, static_argnums=0)
def summed(scan, weights, params, state, xs):
    """The gradients under grad(vmap); they are compared to rounding, so they compile fast."""

    def squares(params, state, xs):
        each, _ = jax.vmap(functools.partial(losses, scan), OVER)(weights, params, state, xs)
        return sum(jnp.sum(one**2) for one in each.values())

    return jax.grad(squares, (0, 1, 2))(params, state, paired(xs))


@functools.cache
def run(scan, names, timesteps, dtype=jnp.float64):
    made = side_by_side(names, timesteps, dtype)
    values, gradients = per_example(scan, *made)
    return {"values": values, "vmap(grad)": gradients, "grad(vmap)": summed(scan, *made)}


def assert_same_as_store(row, timesteps, dtype=jnp.float64, *, reference):
    """Values bit for bit; gradients to rounding, that of an inverse as grown as its leak makes it.

    Undoing k steps leaves a membrane wrong by some `eps growth^k`; the surrogate's slope bends by 2
    per unit of membrane at most, and a gradient is a slope times what it goes through. A factor of
    4 holds all of that: 1 is the largest that is met where it comes to more than the base.
    """
    epsilon = float(jnp.finfo(dtype).eps)
    base = {jnp.float64: 1e-12, jnp.float32: 2e-6}[dtype]
    actual = run(row.scan, row.neurons, timesteps, dtype)
    expected = run(memory.store, reference, timesteps, dtype)
    pick = lambda tree: {name: tree[name] for name in row.neurons}  # noqa: E731
    for got, want in zip(actual["values"], expected["values"], strict=True):
        assert_equal(got, tuple(pick(part) for part in want))
    for mode in ("vmap(grad)", "grad(vmap)"):
        for kind, got, want in zip(
            ("params", "state", "xs"), actual[mode], expected[mode], strict=True
        ):
            for name in row.neurons:
                bound = max(base, 4 * epsilon * CASES[name].growth ** row.undone)
                error = largest_error(got[name], want[name])
                assert error <= bound, (
                    f"{name}: gradient of {kind} under {mode} is off by {error}, not {bound}"
                )


def table():
    for name, row in SCANS.items():
        for dtype in BOTH:
            each = getattr(jnp, dtype)
            if dtype not in row.slow:
                yield pytest.param(row.among(CORE), each, CORE, id=f"{name}-{dtype}")
            # 19 neurons take a minute to compile.
            id_ = f"{name}-{dtype}-every neuron"
            yield pytest.param(row, each, ALL, id=id_, marks=pytest.mark.slow)


@pytest.mark.parametrize(("row", "dtype", "reference"), list(table()))
def test_a_strategy_changes_nothing_for_any_neuron(row, dtype, reference):
    with jax.enable_x64(dtype == jnp.float64):
        assert_same_as_store(row, TWELVE, dtype, reference=reference)


def test_every_neuron_is_stepped_and_eight_of_them_can_be_undone():
    assert len(ALL) == len(CASES) > len(REVERSIBLE) == 8


@pytest.mark.fast
# 4 and 5 leave a shorter last segment, 1 and 7 none: one of each is enough in the default lane.
@pytest.mark.parametrize(
    "every", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4)), 5, PRIME]
)
def test_recompute_changes_nothing_whatever_divides_the_length(x64, every):
    row = Row(memory.recompute(every), ("recurrent_lif",))
    assert_same_as_store(row, PRIME, reference=row.neurons)


def test_a_segment_longer_than_the_sequence_is_the_whole_sequence(x64):
    weights, *arguments = side_by_side(("lif",), PRIME)

    def program(scan):
        one = functools.partial(loss, scan, weights)
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


@pytest.mark.fast
def test_keep_refuses_a_name_that_nothing_bears():
    def step(weights, state, x):
        state = jnp.tanh(checkpoint_name(state @ weights + x, "membranes"))
        return state, state

    run = memory.recompute(2, inner=memory.recompute(1), keep=("membrane", "membranes"))
    weights, state, xs = jnp.ones((2, 2)), jnp.ones(2), jnp.ones((3, 2))
    with pytest.raises(ValueError, match="nothing here has the name 'membrane'.*'membranes'"):
        jax.jit(run, static_argnums=0)(step, weights, state, xs)
    with pytest.raises(ValueError, match="no names"):
        run(lambda _, state, x: (state + x, x), (), state, xs)
