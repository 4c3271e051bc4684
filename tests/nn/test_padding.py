"""Padded timesteps change nothing in a network: outputs, statistics, gradients, rates, counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import cost, learning, losses, memory, metrics, nn, readout

# Channels fill vectors: XLA:CPU rounds odd rows of narrow matrices in another way.
T, PADDED, B, C = 7, 11, 4, 8
LENGTHS = jnp.array([7, 3, 5, 1], jnp.int32)


def dense(rngs, **options):
    return nn.Sequential(
        nn.Linear(3, C, rngs=rngs), nn.BatchNorm(C, **options), nn.LIF(), nn.Linear(C, 2, rngs=rngs)
    )


def stacked(rngs):
    block = lambda rngs: nn.Sequential(nn.Linear(C, C, rngs=rngs), nn.BatchNorm(C), nn.LIF())  # noqa: E731
    return nn.Sequential(
        nn.Linear(3, C, rngs=rngs), nn.Stacked(block, 2, rngs=rngs), nn.Linear(C, 2, rngs=rngs)
    )


def reversible(rngs):
    def half(rngs):
        return nn.Sequential(nn.LIF(), nn.Linear(C // 2, C // 2, rngs=rngs), nn.BatchNorm(C // 2))

    return nn.Sequential(
        nn.Linear(3, C, rngs=rngs),
        nn.Reversible(half, half, 2, rngs=rngs),
        nn.Linear(C, 2, rngs=rngs),
    )


def coded(rngs):
    return nn.Sequential(
        nn.SigmaDelta(), nn.Linear(3, 2 * C, rngs=rngs), nn.Integrator(C, rngs=rngs),
        nn.Linear(C, 2, rngs=rngs),
    )  # fmt: skip


BODIES = {
    "batch norm": dense,
    "coders": coded,
    "ghost batch norm": functools.partial(dense, groups=2, unbiased=True),
    "stack": stacked,
    "reversible stack": reversible,
}
STRATEGIES = {
    "batch norm": [memory.Strategy(), memory.Strategy(time=memory.recompute(3))],
    "stack": [memory.Strategy(depth=memory.recompute(1))],
}


def make(name):
    return nn.Network(BODIES[name](nnx.Rngs(0)), (3,))


def frames_of(timesteps, fill):
    """The same valid frames, with other values behind their ends."""
    frames = jax.random.normal(jax.random.key(1), (PADDED, B, 3))[:timesteps]
    valid = readout.mask(LENGTHS, timesteps)[..., None]
    return jnp.where(valid, 3 * frames, fill)


def run(net, frames, lengths):
    """Loss, valid outputs, statistics, rates and gradient of a training call."""
    graphdef, params, constants = nn.split(net)

    @jax.jit
    def step(params, frames, lengths):
        def loss(params):
            net = nn.merge(graphdef, params, constants)
            outputs, aux = net(
                frames, net.initial_state(B), training=True, lengths=lengths, taps=("rates",)
            )
            values = losses.rate_cross_entropy(outputs, jnp.arange(B) % 2, lengths=lengths)
            return losses.mean(values), (values, outputs, aux)

        (_, (values, outputs, aux)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        rates = metrics.firing_rates(aux.taps, lengths=lengths)
        return (values, aux.statistics, rates), outputs, gradient

    return jax.device_get(step(params, frames, lengths))


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


# Norms see lengths in the same way in recomputed steps, and in either kind of stack.
SLOW = {("batch norm", 1), ("reversible stack", 0)}
CASES = [
    pytest.param(name, i, marks=pytest.mark.slow if (name, i) in SLOW else ())
    for name in BODIES for i in range(len(STRATEGIES.get(name, [memory.Strategy()])))
]  # fmt: skip


@pytest.mark.parametrize(("name", "number"), CASES)
def test_padding_changes_no_bit_of_a_training_call(name, number):
    net = nn.with_memory(make(name), STRATEGIES.get(name, [memory.Strategy()])[number])
    found, outputs, gradient = run(net, frames_of(T, 0.0), LENGTHS)
    for fill in (0.0, 100.0):
        padded, more, padded_gradient = run(net, frames_of(PADDED, fill), LENGTHS)
        assert bits(padded) == bits(found)
        valid = np.asarray(readout.mask(LENGTHS, T))
        assert more[:T][valid].tobytes() == outputs[valid].tobytes()
        assert bits(padded_gradient) == bits(gradient)
    assert np.abs(jax.tree.leaves(gradient)[0]).max() > 0


def test_statistics_are_those_of_the_valid_timesteps(x64):
    """Against NumPy over the concatenated sequences; the derivative against autodiff of it."""
    x = jax.random.normal(jax.random.key(0), (T, B, 5, C))
    norm = nn.BatchNorm(C, momentum=0.0, unbiased=True)
    call = nn.Call(training=True, lengths=LENGTHS)
    weight = jax.random.normal(jax.random.key(1), x.shape)

    def by_layer(x):
        return norm(x, norm.initial_state((B, 5, C)), call)

    rows = np.concatenate([np.asarray(x[:n, i]).reshape(-1, C) for i, n in enumerate(LENGTHS)])
    outputs, aux = by_layer(x)
    np.testing.assert_allclose(aux.statistics.mean, rows.mean(0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(aux.statistics.var, rows.var(0, ddof=1), rtol=1e-12)
    valid = readout.mask(LENGTHS, T)[..., None, None]

    def by_hand(x):
        count = 5.0 * int(LENGTHS.sum())
        mean = jnp.where(valid, x, 0).sum((0, 1, 2)) / count
        var = jnp.where(valid, (x - mean) ** 2, 0).sum((0, 1, 2)) / count
        return jnp.where(valid, (x - mean) / jnp.sqrt(var + norm.epsilon), 0)

    np.testing.assert_allclose(outputs, by_hand(x), rtol=1e-10, atol=1e-12)
    gradients = [jax.grad(lambda x, f=f: (weight * f(x)).sum())(x)
                 for f in (lambda x: by_layer(x)[0], by_hand)]  # fmt: skip
    np.testing.assert_allclose(*gradients, rtol=1e-8, atol=1e-11)


def test_full_lengths_are_no_lengths():
    net, frames = make("batch norm"), frames_of(T, 0.0)
    (one, *_), (two, *_) = run(net, frames, jnp.full(B, T)), run(net, frames, None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), one, two)


def test_time_order_takes_lengths_in_training_without_statistics():
    body = nn.Sequential(
        nn.Linear(3, C, rngs=nnx.Rngs(0)), nn.LIF(), nn.Linear(C, 2, rngs=nnx.Rngs(1))
    )
    found = run(nn.Network(body, (3,), order="time"), frames_of(T, 0.0), LENGTHS)
    padded = run(nn.Network(body, (3,), order="time"), frames_of(PADDED, 9.0), LENGTHS)
    assert bits(found[0]) == bits(padded[0]) and bits(found[2]) == bits(padded[2])


def call(body, *, training=True, lengths=LENGTHS, shape=(3,), **options):
    net = nn.Network(body, shape, **options)
    frames = jnp.zeros((T, B, *shape))
    return net(frames, net.initial_state(B), training=training, lengths=lengths)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: call(dense(nnx.Rngs(0), over="step")), ValueError, 'over="window"'),
        (lambda: call(nn.PSN(timesteps=T, rngs=nnx.Rngs(0))), ValueError, "one length"),
        (lambda: call(nn.LIF(), order="time", collect="mean"), ValueError, 'collect="all"'),
        (lambda: call(nn.LIF(), lengths=LENGTHS + 1), ValueError, r"\[1, 7\]"),
        (lambda: call(nn.LIF(), lengths=LENGTHS - 1), ValueError, r"\[1, 7\]"),
        (lambda: call(nn.LIF(), lengths=LENGTHS.astype(float)), TypeError, "integers"),
        (lambda: call(nn.LIF(), lengths=LENGTHS[:2]), ValueError, "one per example"),
        (lambda: call(learning.RateNeuron(learning.dsr_if_model())), ValueError, "memory strategy"),
    ],
)
def test_padding_that_would_have_an_effect_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_evaluation_takes_lengths_with_statistics_of_single_steps():
    body = dense(nnx.Rngs(0), over="step")
    outputs, _ = jax.eval_shape(functools.partial(call, body, training=False))
    assert outputs.shape == (T, B, 2)


def test_costs_count_the_valid_timesteps():
    """Of each example the same operations as alone, cut to its length."""
    body = nn.Sequential(
        nn.Linear(3, C, rngs=nnx.Rngs(0)), nn.LIF(), nn.Linear(C, 2, rngs=nnx.Rngs(1))
    )
    net = nn.Network(body, (3,))
    padded = cost.measure(net, frames_of(PADDED, 9.0), lengths=LENGTHS)
    alone = [
        cost.measure(net, frames_of(T, 0.0)[:n, i : i + 1]) for i, n in enumerate(LENGTHS.tolist())
    ]
    fields = ("effective_macs", "effective_acs", "dense", "padded", "active", "inputs")
    for name, layer in padded.connections.items():
        parts = [tally.connections[name] for tally in alone]
        for field in fields:
            assert getattr(layer, field) == sum(getattr(part, field) for part in parts), field
    for name, layer in padded.neurons.items():
        parts = [tally.neurons[name] for tally in alone]
        for field in ("outputs", "active", "updates"):
            assert getattr(layer, field) == sum(getattr(part, field) for part in parts), field


def test_devices_that_share_a_batch_share_the_valid_timesteps(x64):
    """Statistics, outputs and gradient are those of one device, with unlike lengths on the two."""
    x = jax.random.normal(jax.random.key(0), (T, B, C))
    weight = jax.random.normal(jax.random.key(1), x.shape)

    def run(norm, x, weight, lengths):
        graphdef, params, constants = nn.split(norm)

        def loss(params, x):
            own = nn.merge(graphdef, params, constants)
            call = nn.Call(training=True, lengths=lengths)
            outputs, aux = own(x, own.initial_state((B, C)), call)
            return (weight * outputs).sum(), aux.statistics

        (g_params, g_x), statistics = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        g_params = jax.lax.psum(g_params, norm.axes) if norm.axes else g_params
        return jax.tree.leaves(g_params), g_x, statistics

    one = run(nn.BatchNorm(C, unbiased=True), x, weight, LENGTHS)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    cut, whole = jax.P(None, "data"), jax.P()
    mapped = jax.shard_map(
        functools.partial(run, nn.BatchNorm(C, unbiased=True, axes=("data",))), mesh=mesh,
        in_specs=(cut, cut, jax.P("data")), out_specs=(whole, cut, whole), check_vma=False,
    )  # fmt: skip
    two = jax.jit(mapped)(x, weight, LENGTHS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), one, two)
