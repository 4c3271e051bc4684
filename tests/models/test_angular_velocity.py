"""Angular velocity of a rotating event camera: the published network and the authors' numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import losses, memory, metrics, models, nn
from snnjax.models.angular_velocity_net import Stage
from tests.conftest import shared_folder
from tests.models.sizes import count


@pytest.mark.fast
def test_the_published_network_has_the_published_size():
    make = lambda: models.angular_velocity_net(rngs=nnx.Rngs(0))  # noqa: E731
    assert count(make) == 392_736


@pytest.mark.fast
def test_the_published_sizes_of_the_convolutions():
    net = jax.eval_shape(lambda: models.angular_velocity_net(rngs=nnx.Rngs(0)))
    shapes, shape = [], (1, *net.input_shape)
    for layer in net.body.layers:
        state = jax.eval_shape(lambda: layer.initial_state(shape))  # noqa: B023 (called at once)
        shape = nn.contract.output_shape(layer, state, shape)
        shapes.append(shape[1:])
    expected = [(89, 119, 16), (44, 59, 32), (21, 29, 64), (10, 14, 128), (8, 12, 256)]
    assert shapes[1:10:2] == expected and shapes[-1] == (3,)


def golden():
    with np.load(shared_folder("golden", "learning_rules") / "angvel_mini.npz") as stored:
        return {key: stored[key] for key in stored.files}


def mini(meta, **options):
    def stage(channels, own):
        return Stage(channels, 2, own["theta"], own["tauSr"], own["tauRef"], own["scaleRho"])

    stages = (stage(3, meta["layer1"]), stage(4, meta["layer2"]))
    return models.angular_velocity_net(
        input_shape=(9, 9, 2), stages=stages, rngs=nnx.Rngs(0), **options
    )


def test_the_authors_numbers():
    data = golden()
    meta = json.loads(str(data["meta"]))
    net = mini(meta)
    kernels = [net.body.layers[i].function.kernel for i in (0, 2, 5)]
    arrays = [np.transpose(data[f"W{i}"], (2, 3, 1, 0)) for i in (1, 2)]
    for kernel, array in zip(kernels, [*arrays, data["Wfc"].T], strict=True):
        kernel[...] = jnp.asarray(array)
    x = jnp.asarray(np.transpose(data["x"], (4, 0, 2, 3, 1)))
    y = jnp.asarray(np.transpose(data["y"], (0, 2, 1)))

    def loss(net, x):
        outputs, aux = net(x, net.initial_state(2), training=True, taps=("spikes", "membrane"))
        return losses.mean(losses.distance(outputs, y, start=meta["t0"])), (outputs, aux.taps)

    graded = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (value, (outputs, taps)), (to_net, to_x) = graded(net, x)
    for name, i in (("srm1", 1), ("srm3", 2)):
        spikes, membrane = (
            jnp.moveaxis(taps[name][k], (0, -1), (-1, 1)) for k in ("spikes", "membrane")
        )
        np.testing.assert_array_equal(spikes, data[f"s{i}"])
        np.testing.assert_allclose(membrane, data[f"u{i}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.moveaxis(outputs, 0, -1), data["out"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, data["loss"], rtol=1e-4)
    relative = metrics.median_relative_error(outputs, y)
    np.testing.assert_allclose(relative, data["median_relative_error"], rtol=1e-4)
    grads = [to_net.body.layers[i].function.kernel[...] for i in (0, 2, 5)]
    wanted = [np.transpose(data[f"gW{i}"], (2, 3, 1, 0)) for i in (1, 2)]
    for got, want in zip(grads, [*wanted, data["gWfc"].T], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        np.transpose(to_x, (1, 4, 2, 3, 0)), data["gx"], rtol=1e-4, atol=1e-5
    )


T, B = 12, 2
SMALL = (Stage(3, 2, 0.05, 2.0, 1.0, 1.0),)
X = (jax.random.uniform(jax.random.key(0), (T, B, 8, 8, 2)) < 0.3).astype(jnp.float32)


@jax.jit
def graded(net, state):
    def total(net):
        outputs, aux = net(X, state, training=True)
        return jnp.sum(outputs**2), outputs

    return jax.grad(total, has_aux=True)(net)


# The kernel that is cut has a longer state; neurons/test_srm.py compares the two.
@pytest.mark.parametrize(
    "kernel", [pytest.param("truncated", marks=pytest.mark.slow), "recurrence"]
)
def test_orders_and_strategies_are_the_same_function(kernel):
    replayed = memory.Strategy(time=memory.recompute(5))
    results = []
    for options in ({}, {"memory": replayed}, {"order": "time", "memory": replayed}):
        net = models.angular_velocity_net(
            input_shape=(8, 8, 2), stages=SMALL, kernel=kernel, rngs=nnx.Rngs(1), **options
        )
        results.append(graded(net, net.initial_state(B)))
    gradients, outputs = results[0]
    for again, found in results[1:]:
        np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-6)
        for got, want in zip(jax.tree.leaves(again), jax.tree.leaves(gradients), strict=True):
            assert np.abs(want).max() > 0
            np.testing.assert_allclose(got, want, atol=1e-4 * float(np.abs(want).max()))


@pytest.mark.fast
def test_outputs_before_the_start_have_no_gradient(x64):
    rng = np.random.default_rng(0)
    outputs, targets = (
        jnp.asarray(rng.normal(size=(6, 2, 3))),
        jnp.asarray(rng.normal(size=(2, 6, 3))),
    )
    # The gradient of a root is infinite at 0, and 0 here.
    outputs = outputs.at[4, 0].set(targets[0, 4])
    value, gradient = jax.value_and_grad(lambda o: jnp.sum(losses.distance(o, targets, start=3)))(
        outputs
    )
    difference = np.asarray(outputs)[3:] - np.swapaxes(targets, 0, 1)[3:]
    lengths = np.linalg.norm(difference, axis=-1)
    assert value == pytest.approx(lengths.mean(0).sum())
    np.testing.assert_array_equal(gradient[:3], 0)
    expected = difference / np.where(lengths > 0, lengths, 1)[..., None] / 3
    np.testing.assert_allclose(gradient[3:], expected, rtol=1e-12)
    np.testing.assert_array_equal(gradient[4, 0], 0)


@pytest.mark.fast
def test_a_padded_sequence_counts_from_the_start_to_its_end():
    outputs, targets = jnp.ones((6, 2, 3)).at[4:, 0].set(jnp.nan), jnp.zeros((2, 6, 3))
    outputs = outputs.at[3, 0].set(3.0)
    lengths = jnp.array([4, 6])
    found = losses.distance(outputs, targets, start=2, lengths=lengths)
    np.testing.assert_allclose(found, [2 * 3**0.5, 3**0.5], rtol=1e-6)
    median = metrics.median_relative_error(outputs, targets + 1, lengths=lengths)
    assert float(median) == 0.0


@pytest.mark.fast
def test_short_targets_and_padding_do_not_count():
    targets = jnp.asarray([[[1.0, 0.0], [0.0, 2.0], [1e-3, 0.0]], [[1.0, 0.0]] * 3])
    outputs = (
        jnp.swapaxes(targets, 0, 1) * jnp.asarray([[1.5, 9.0], [1.1, 9.0], [7.0, 9.0]])[..., None]
    )
    found = metrics.median_relative_error(outputs, targets, weights=jnp.asarray([1.0, 0.0]))
    assert float(found) == pytest.approx(0.3, rel=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.distance(jnp.ones((4, 2, 3)), jnp.ones((4, 2, 3))), r"\[B, T, D\]"),
        (
            lambda: losses.distance(jnp.ones((4, 2, 3)), jnp.ones((2, 4, 3)), start=4),
            "leaves nothing",
        ),
        (
            lambda: losses.distance(
                jnp.ones((4, 2, 3)), jnp.ones((2, 4, 3)), start=2, lengths=jnp.array([4, 2])
            ),
            "a sequence of 2 timesteps: give one below",
        ),
        (
            lambda: metrics.median_relative_error(jnp.ones((4, 2, 3)), jnp.ones((2, 3))),
            "one target",
        ),
        (
            lambda: models.angular_velocity_net(input_shape=(20, 20, 2), rngs=nnx.Rngs(0)),
            "too small for convolution 4",
        ),
    ],
)
def test_errors_name_the_cure(call, message):
    with pytest.raises(ValueError, match=message):
        call()
