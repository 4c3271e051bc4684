"""Tandem layers against the authors' code, and their defining properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import neurons, nn
from snnjax.conversion import tandem
from snnjax.nn.contract import Call, State, Statistics
from tests.learning import golden

EVAL, TRAIN = Call(training=False), Call(training=True)


def layer_of(arrays, meta, synapse):
    norm = nn.BatchNorm(len(arrays["gamma"]), momentum=0.1, unbiased=True, epsilon=1e-4)
    norm.scale, norm.bias = (nnx.Param(jnp.asarray(arrays[k])) for k in ("gamma", "beta"))
    late = neurons.reset.delayed(neurons.reset.subtract)
    leaky = nn.LIF(decay=meta.get("leak", 1.0), reset=late) if meta.get("neuron") == "LIF" else None
    return tandem.Tandem(
        synapse, norm, timesteps=meta["T"], threshold=meta["vthr"], epsilon=False, neuron=leaky
    )


def run(layer, trains, statistics, cotangent, *, training):
    """Outputs, statistics after the call, and the gradient of the weighted counts."""
    graph, params, rest = nn.split(layer)
    start = layer.initial_state(trains.shape[1:])._replace(statistics=statistics)
    call = TRAIN if training else EVAL

    def loss(params, trains):
        outputs, aux = nn.merge(graph, params, rest)(trains, start, call)
        return jnp.sum(outputs.sum(0) * cotangent), (outputs, aux.statistics)

    grads, (outputs, moved) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, trains)
    return outputs, moved, *grads


FILES = [
    ("tandem_dense_train", True),
    ("tandem_dense_lif_eval", False),
    ("ptl_dense_train", True),
    ("ptl_dense_eval", False),
]


@pytest.mark.parametrize(("name", "training"), FILES)
def test_dense_layers_equal_the_authors(shared, x64, name, training):
    a, meta = golden.load(shared, name)
    layer = layer_of(a, meta, golden.linear(a["W"], a["b"]))
    before = Statistics(*(jnp.asarray(a[f"running_{k}0"]) for k in ("mean", "var")))
    trains = jnp.asarray(a["spikes_in"]).swapaxes(0, 1)
    outputs, moved, grads, g_in = run(layer, trains, before, a["g"], training=training)
    golden.exact(outputs.swapaxes(0, 1), a["spikes_out"])
    golden.close(moved.mean, a["running_mean1"])
    golden.close(moved.var, a["running_var1"])
    golden.close(grads["synapse"]["function"]["kernel"][...].T, a["gW"], atol=1e-5)
    golden.close(grads["synapse"]["function"]["bias"][...], a["gb"], atol=1e-5)
    golden.close(grads["norm"]["scale"][...], a["ggamma"], atol=1e-5)
    golden.close(grads["norm"]["bias"][...], a["gbeta"])
    for row in g_in:
        golden.close(row, a["gcounts_in"])
    if "ann_out" in a:
        counts = trains.sum(0, keepdims=True)
        start = State((), before)
        rectified, _ = layer.rectify(counts, start, TRAIN if training else EVAL)
        golden.close(rectified[0], a["ann_out"])


def test_a_convolution_equals_the_authors(shared, x64):
    a, meta = golden.load(shared, "ptl_conv_train")
    layer = layer_of(a, meta, golden.conv(a["W"], a["b"], strides=2))
    trains = jnp.asarray(a["spikes_in"]).transpose(1, 0, 3, 4, 2)
    before = layer.initial_state(trains.shape[1:]).statistics
    last = lambda x: np.moveaxis(x, -3, -1)  # noqa: E731
    outputs, moved, grads, g_in = run(layer, trains, before, last(a["g"]), training=True)
    golden.exact(outputs.sum(0), last(a["counts_out"]))
    golden.close(moved.mean, a["running_mean1"])
    golden.close(moved.var, a["running_var1"])
    kernel = grads["synapse"]["function"]["kernel"][...]
    golden.close(kernel.transpose(3, 2, 0, 1), a["gW"], atol=1e-5)
    golden.close(grads["synapse"]["function"]["bias"][...], a["gb"], atol=1e-5)
    golden.close(grads["norm"]["scale"][...], a["ggamma"], atol=1e-5)
    golden.close(grads["norm"]["bias"][...], a["gbeta"])
    golden.close(g_in[0], last(a["gcounts_in"]))


def small(*, timesteps=10, norm=True, **options):
    synapse = nn.Linear(6, 5, rngs=nnx.Rngs(0))
    options = {"threshold": 0.3, "height": 0.7, **options}
    return tandem.Tandem(synapse, nn.BatchNorm(5) if norm else None, timesteps=timesteps, **options)


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_the_rectified_layer_at_the_counts_bit_for_bit(training):
    layer, call = small(), TRAIN if training else EVAL
    graph, params, rest = nn.split(layer)
    trains = jax.random.bernoulli(jax.random.key(0), 0.4, (10, 7, 6)).astype(jnp.float32)
    weights = jax.random.normal(jax.random.key(1), (7, 5))
    start = layer.initial_state((7, 6))

    def of_trains(params, trains):
        outputs, _ = nn.merge(graph, params, rest)(trains, start, call)
        return jnp.sum(outputs.sum(0) * weights)

    def of_counts(params, counts):
        outputs, _ = nn.merge(graph, params, rest).rectify(counts, start, call)
        return jnp.sum(outputs[0] * weights)

    mine, mine_in = jax.grad(of_trains, (0, 1))(params, trains)
    other, other_in = jax.grad(of_counts, (0, 1))(params, trains.sum(0, keepdims=True))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(other))
    jax.tree.map(golden.exact, mine, other)
    for row in mine_in:
        golden.exact(row, other_in[0])


@functools.partial(jax.jit, static_argnums=(2,))
def counts_of(threshold, rows, timesteps):
    # One input and one neuron per example: its currents are the rows.
    layer = tandem.Tandem(golden.linear(jnp.ones((1, 1))), None, timesteps=timesteps)
    layer.threshold = tandem.Fixed(threshold)
    outputs, _ = layer(rows, layer.initial_state(rows.shape[1:]), EVAL)
    return outputs.sum(0)


@pytest.mark.parametrize("timesteps", [1, 3, 8, 16])
def test_the_count_of_a_drive_that_does_not_grow(x64, timesteps):
    """`clip(floor(z / threshold), 0, T)` for a burst, a constant and a falling current.

    A count at T is the least of `floor(S_s / threshold) + T - s` over s, where S_s is the charge up
    to s: that of an end, s = 0 or T, if S is concave. A late burst gives one spike.
    """
    draw = np.random.default_rng(timesteps)
    threshold = draw.uniform(0.1, 2.0)
    # Away from a whole number of thresholds, where rounding alone decides.
    z = (draw.integers(-3, timesteps + 3, 400) + draw.uniform(0.01, 0.99, 400)) * threshold
    expected = np.clip(np.floor(z / threshold), 0, timesteps)
    falling = -np.sort(-draw.uniform(size=(timesteps, 400)), axis=0)
    shares = {
        "constant": np.full((timesteps, 400), 1 / timesteps),
        "burst": np.eye(timesteps)[0][:, None] * np.ones(400),
        "falling": falling / falling.sum(0),
    }
    for kind, share in shares.items():
        found = counts_of(jnp.asarray(threshold), jnp.asarray(share * z)[..., None], timesteps)
        np.testing.assert_array_equal(found[..., 0], expected, err_msg=kind)
    late = np.eye(timesteps)[-1][:, None] * z
    found = counts_of(jnp.asarray(threshold), jnp.asarray(late)[..., None], timesteps)
    np.testing.assert_array_equal(found[..., 0], np.clip(expected, 0, 1))


def test_an_image_is_an_impulse_whose_bias_is_spread_over_time():
    layer = small(norm=False, timesteps=4)
    layer.synapse.function.bias = nnx.Param(jnp.linspace(-1, 1, 5))
    image = jax.random.uniform(jax.random.key(2), (1, 3, 6))
    padded = jnp.concatenate([image, jnp.zeros((3, 3, 6))])
    start = layer.initial_state((3, 6))
    golden.exact(layer(image, start, EVAL)[0], layer(padded, start, EVAL)[0])
    with pytest.raises(ValueError, match="over 4 timesteps, got 3: give all"):
        layer(padded[:3], start, EVAL)


def test_a_frozen_layer_neither_learns_nor_drifts():
    layer = small(frozen=True)
    trains = jnp.ones((10, 4, 6)) * jax.random.uniform(jax.random.key(3), (4, 6))
    before = layer.initial_state((4, 6)).statistics
    _, moved, grads, g_in = run(layer, trains, before, 1.0, training=True)
    jax.tree.map(golden.exact, moved, before)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((grads, g_in)))
    assert any(
        np.any(leaf)
        for leaf in jax.tree.leaves(run(small(), trains, before, 1.0, training=True)[2])
    )


def test_without_timesteps_the_layer_is_the_rectified_one_at_the_weighted_counts():
    layer = small(timesteps=None)
    trains = jax.random.bernoulli(jax.random.key(0), 0.4, (10, 7, 6)).astype(jnp.float32)
    start = layer.initial_state((7, 6))
    outputs, _ = layer(trains, start, EVAL)
    kernel = layer.synapse.function.kernel[...]
    expected = np.maximum(
        0.7 * np.asarray(trains.sum(0)) @ np.asarray(kernel) / np.sqrt(1 + 1e-5), 0
    )
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5, atol=1e-6)
    assert nn.contract.is_exact(layer) and not nn.contract.is_exact(small())


def test_the_backward_pass_keeps_counts_whatever_the_number_of_timesteps():
    kept = []
    for timesteps in (4, 64):
        layer = small(timesteps=timesteps)
        graph, params, rest = nn.split(layer)
        trains, start = jnp.ones((timesteps, 7, 6)), layer.initial_state((7, 6))
        run = lambda p, x: nn.merge(graph, p, rest)(x, start, TRAIN)[0]  # noqa: B023, E731
        pullback = jax.vjp(run, params, trains)[1]
        kept.append(sum(leaf.nbytes for leaf in jax.tree.leaves(pullback)))
    assert kept[0] == kept[1] > 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": float("nan")}, "threshold must"),
        ({"timesteps": 0}, "timesteps must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        small(**options)


def test_other_layers_are_refused():
    with pytest.raises(TypeError, match="takes nn.Linear"):
        tandem.Tandem(nn.Flatten(), None)
    with pytest.raises(TypeError, match="folds nn.BatchNorm"):
        tandem.Tandem(nn.Linear(2, 2, rngs=nnx.Rngs(0)), nn.LayerNorm(2, rngs=nnx.Rngs(0)))
