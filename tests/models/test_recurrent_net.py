"""Improved recurrence dynamics: the authors' numbers, the laws, orders and strategies."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from snnjax import memory, models, nn
from tests.compare import assert_close, assert_equal
from tests.conftest import shared_folder
from tests.models.sizes import count

GOLDEN = {"leaky": "rec_traditional", "v1": "rec_v1", "v2": "rec_v2"}
per_step = functools.partial(nn.BatchNorm, over="step")


def golden(name):
    folder = shared_folder("golden", "learning_rules")
    with np.load(folder / f"{name}.npz") as stored:
        return {key: stored[key] for key in stored.files}


def stack(data, prefix, index, norms):
    """One array of the gate and candidate norms of the authors, gate first."""
    return np.concatenate([data[f"{prefix}.{name}.{index}"] for name in norms])


def norms_of(cell):
    return ("bn_ws",) if cell == "leaky" else ("bn_zs", "bn_cs")


def network_of(cell, data, **options):
    meta = json.loads(str(data["meta"]))
    hidden, inputs = data["y_l0"].shape[-1], data["x"].shape[-1]
    return models.recurrent_net(
        inputs, hidden=hidden, classes=data["logp"].shape[-1], cell=cell,
        bits=meta["num_bits"], threshold=meta["threshold"], rngs=nnx.Rngs(0), **options,
    )  # fmt: skip


def authors(cell, data, prefix):
    """Parameters of the authors, or their gradients, in the layout of `params_of`."""
    arrays = []
    for i in range(2):
        arrays.append(data[f"{prefix}.linear_ws.{i}.weight"].T)
        arrays += [
            np.concatenate([data[f"{prefix}.{norm}.{i}.{part}"] for norm in norms_of(cell)])
            for part in ("weight", "bias")
        ]
        if cell == "leaky":
            arrays.append(data[f"{prefix}.taus.{i}"])
        if cell == "v2":
            arrays.append(data[f"{prefix}.linear_us.{i}.weight"].T)
    arrays.append(data[f"{prefix}.final_linear.weight"].T)
    return [*arrays, data[f"{prefix}.final_bn.weight"], data[f"{prefix}.final_bn.bias"]]


def params_of(net):
    """Variables in the order of `authors`."""
    layers, found = net.body.layers, []
    for start in (1, 4):
        linear, norm, cell = layers[start : start + 3]
        found += [linear.function.kernel, norm.scale, norm.bias]
        found += [] if cell.weights is None else [cell.weights]
    return [*found, layers[7].function.kernel, layers[8].scale, layers[8].bias]


def statistics_of(cell, data, like):
    """Running statistics of the authors, in the layout of the network."""

    def tracked(name):
        keys = ("tracked_min_biased", "tracked_max_biased", "iter_count")
        return type(like[0])(*(jnp.asarray(data[f"b.{name}.{key}"].reshape(())) for key in keys))

    def norm(*names):
        return nn.contract.Statistics(
            *(
                jnp.concatenate([jnp.asarray(data[f"b.{n}.running_{part}"]) for n in names])
                for part in ("mean", "var")
            )
        )

    rows = [tracked("fsq_x")]
    for i in range(2):
        rows += [(), norm(*(f"{n}.{i}" for n in norms_of(cell))), tracked(f"fsq_hs.{i}")]
    return (*rows, (), norm("final_bn"))


def loss(net, x, labels, state):
    logits, aux = net(x, state, training=False)
    logp = jax.nn.log_softmax(logits)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), (logp, aux)


@pytest.mark.parametrize("cell", GOLDEN)
def test_the_authors_numbers(cell):
    """Outputs, spikes of all coders and every gradient; evaluation mode, as the files hold it."""
    data = golden(GOLDEN[cell])
    net = network_of(cell, data)
    for variable, array in zip(params_of(net), authors(cell, data, "p"), strict=True):
        variable[...] = jnp.asarray(array)
    x, labels = jnp.asarray(data["x"]), jnp.asarray(data["y"].reshape(data["x"].shape[:2]))
    state = net.initial_state(x.shape[1])
    state = nn.State(state.neurons, statistics_of(cell, data, state.statistics))
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (value, (logp, aux)), (to_net, to_x) = run(net, x, labels, state)
    np.testing.assert_allclose(value, data["loss"], rtol=1e-4)
    np.testing.assert_allclose(logp, data["logp"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_x, data["gx"], rtol=1e-4, atol=1e-5)
    for got, want in zip(params_of(to_net), authors(cell, data, "g"), strict=True):
        np.testing.assert_allclose(got[...], want, rtol=1e-4, atol=1e-5)
    assert_equal(aux.statistics, state.statistics)
    taps = jax.jit(lambda n: n(x, state, training=False, taps=("spikes",))[1].taps)(net)
    seen = [taps[name]["spikes"] for name in nn.taps.in_order(taps)]
    for got, name in zip(seen, ("y_in", "y_l0", "y_l1"), strict=True):
        np.testing.assert_allclose(got, data[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(got != 0, data[name] != 0)


T, B, D, H = 7, 4, 3, 5
X = jax.random.normal(jax.random.key(3), (T, B, D))


def build(cell="v2", **options):
    options = {"norm": per_step, "dropout": 0.3, **options}
    return models.recurrent_net(D, hidden=H, classes=2, cell=cell, rngs=nnx.Rngs(1), **options)


@functools.partial(jax.jit, static_argnames="training")
def graded(net, x, state, training=True):
    def total(net, x):
        outputs, aux = net(x, state, training=training, key=jax.random.key(5))
        return jnp.sum(outputs**2 * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)), (
            outputs,
            aux,
        )

    return jax.grad(total, (0, 1), has_aux=True)(net, x)


VARIANTS = {
    "recompute": {"memory": memory.Strategy(time=memory.recompute(3))},
    "time order": {"order": "time"},
    "time order, recompute": {
        "order": "time",
        "memory": memory.Strategy(time=memory.recompute(3)),
    },
    "depth": {"memory": memory.Strategy(depth=memory.recompute(1))},
}


@functools.cache
def plain(cell):
    net = build(cell)
    return graded(net, X, net.initial_state(B))


@pytest.mark.parametrize(
    "variant",
    [
        # Both of the first two at once.
        pytest.param("recompute", marks=pytest.mark.slow),
        pytest.param("time order", marks=pytest.mark.slow),
        "time order, recompute",
        # No blocks are stacked here; tests/models/test_models.py has an MLP under depth.
        pytest.param("depth", marks=pytest.mark.slow),
    ],
)
def test_orders_and_strategies_are_the_same_function(variant):
    """In training: ranges move from step to step, masks are drawn, and nothing depends on how."""
    gradients, (outputs, aux) = plain("v2")
    net = build("v2", **VARIANTS[variant])
    again, (found, after) = graded(net, X, net.initial_state(B))
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-5)
    for got, want in zip(
        jax.tree.leaves(after.statistics), jax.tree.leaves(aux.statistics), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    for got, want in zip(jax.tree.leaves(again), jax.tree.leaves(gradients), strict=True):
        assert np.abs(want).max() > 0
        np.testing.assert_allclose(got, want, atol=1e-4 * float(jnp.abs(want).max()))


# A leak is a gate that is constant.
@pytest.mark.parametrize("cell", [pytest.param("leaky", marks=pytest.mark.slow), "v1"])
def test_the_associative_scan_equals_the_scan(x64, cell):
    """In float64, outputs, statistics and gradients; those of the parameters are float32."""
    x, nets = jnp.asarray(X, jnp.float64), (build(cell), build(cell, parallel=True))
    results = [graded(net, x, net.initial_state(B)) for net in nets]
    (to_net, to_x), (outputs, aux) = results[1]
    (wanted, to_inputs), (expected, before) = results[0]
    assert_close((to_x, outputs, aux.statistics), (to_inputs, expected, before.statistics), 1e-9)
    assert_close(jax.tree.leaves(to_net), jax.tree.leaves(wanted), 1e-6)


@functools.partial(jax.jit, static_argnames="training")
def forward(net, x, state, training):
    return net(x, state, training=training)


def test_a_stream_equals_the_window_in_training_and_in_evaluation():
    net = build("v2", order="time", dropout=0.0)
    for training in (True, False):
        state = net.initial_state(B, statistics=plain("v2")[1][1].statistics)
        whole, last = forward(net, X, state, training)
        parts = []
        for part in (X[:3], X[3:6], X[6:]):
            outputs, aux = forward(net, part, state, training)
            state = state.after(aux)
            parts.append(outputs)
        np.testing.assert_allclose(jnp.concatenate(parts), whole, rtol=1e-5, atol=1e-5)
        ranges = [s[i] for s in (aux.statistics, last.statistics) for i in (0, 3, 6)]
        for got, want in zip(ranges[:3], ranges[3:], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.fast
def test_ranges_count_timesteps_and_stay_in_evaluation():
    _, (_, aux) = plain("v2")
    assert float(aux.statistics[0].count) == T
    net = build("v2")
    state = net.initial_state(B, statistics=aux.statistics)
    _, after = net(X, state, training=False)
    assert_equal(after.statistics, state.statistics)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": memory.Strategy(time=memory.reversal())}, r"no inverse.*recompute\(every"),
        ({"parallel": True}, r'use cell="v1"'),
        ({"cell": "v3"}, "cell must be one of leaky, v1, v2"),
        ({"bits": 0}, "bits must be at least 1"),
        ({"dropout": 1.0}, "rate must lie"),
    ],
)
def test_errors_name_the_cure(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.fast
def test_parameters():
    """Closed form; the published networks have 2 layers of 550."""
    d, h, k = 40, 550, 1953

    def expected(cell):
        rows = h if cell == "leaky" else 2 * h
        own = {"leaky": h, "v1": 0, "v2": 2 * h * h}[cell]
        return sum(width * rows + 2 * rows + own for width in (d, h)) + h * k + 2 * k

    for cell in GOLDEN:
        make = lambda: models.recurrent_net(d, classes=k, cell=cell, rngs=nnx.Rngs(0))  # noqa: B023, E731
        assert count(make) == expected(cell)


@pytest.mark.fast
def test_multiplications_are_counted_once():
    """One product per nonzero spike and weight, feedback of every layer included, and the gates."""
    net = build("v2", dropout=0.0)
    state = net.initial_state(B, statistics=plain("v2")[1][1].statistics)
    kinds = ("operations", "products", "spikes")
    taps = jax.jit(lambda x: net(x, state, training=False, taps=kinds)[1].taps)(X)
    taps = {name: taps[name] for name in nn.taps.in_order(taps)}
    active = {k: np.sum(v["spikes"] != 0, -1) for k, v in taps.items() if "spikes" in v}
    previous = np.concatenate([np.zeros((1, B), int), active["v2_integrator6"][:-1]])
    found = {k: np.asarray(v["operations"].effective) for k, v in taps.items() if "operations" in v}
    np.testing.assert_array_equal(found["linear1"], 2 * H * active["sigma_delta0"])
    np.testing.assert_array_equal(found["linear4"], 2 * H * active["v2_integrator3"])
    np.testing.assert_array_equal(found["v2_integrator6"], 2 * H * previous)
    assert previous.sum() > 0
    np.testing.assert_array_equal(taps["v2_integrator3"]["products"].effective, 2 * H)


RECALL = {"timesteps": 30, "batch": 64, "symbols": 4, "steps": 300}


def recall(key):
    """A symbol per frame; the label is the one that a flag marked in the first fifth."""
    timesteps, batch, symbols, _ = RECALL.values()
    drawn, place = jax.random.split(key)
    shown = jax.random.randint(drawn, (timesteps, batch), 0, symbols)
    flag = jax.nn.one_hot(jax.random.randint(place, (batch,), 0, timesteps // 5), timesteps, axis=0)
    x = jnp.concatenate([jax.nn.one_hot(shown, symbols), flag[..., None]], -1)
    return x, jnp.sum(shown * flag.astype(int), 0)


def accuracy_after_training(cell):
    timesteps, batch, symbols, steps = RECALL.values()
    net = models.recurrent_net(
        symbols + 1, hidden=32, classes=symbols, cell=cell, gain=1.0, rngs=nnx.Rngs(0)
    )
    graphdef, params, rest = nn.split(net)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-3))

    def run(params, statistics, key, training):
        x, labels = recall(key)
        own = nn.merge(graphdef, params, rest)
        start = own.initial_state(batch, statistics=statistics)
        logits, aux = own(x, start, training=training)
        late = logits[timesteps // 2 :]
        wanted = jnp.broadcast_to(labels, late.shape[:2])
        losses = optax.softmax_cross_entropy_with_integer_labels(late, wanted)
        return losses.mean(), (aux.statistics, jnp.mean(logits[-1].argmax(-1) == labels))

    @jax.jit
    def step(params, slots, statistics, key):
        own = jax.grad(lambda p: run(p, statistics, key, True), has_aux=True)
        gradients, (statistics, _) = own(params)
        with jax.numpy_dtype_promotion("standard"):  # Optax counts its steps in integers
            updates, slots = optimizer.update(gradients, slots)
        return optax.apply_updates(params, updates), slots, statistics

    slots, statistics = optimizer.init(params), net.initial_state(batch).statistics
    for number in range(steps):
        key = jax.random.fold_in(jax.random.key(1), number)
        params, slots, statistics = step(params, slots, statistics, key)
    evaluate = jax.jit(functools.partial(run, training=False))
    return float(evaluate(params, statistics, jax.random.key(2))[1][1])


@pytest.mark.slow
def test_a_gate_recalls_what_a_leak_does_not():
    """Measured: 1.0 and 0.41, chance 0.25; a linear current cannot let the flag select.

    At the published gain of the feedback, sqrt(2), one of three runs ended at 0.42.
    """
    assert accuracy_after_training("v2") > 0.9
    assert accuracy_after_training("leaky") < 0.6
