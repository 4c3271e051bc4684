"""A layer that runs once: the layer itself on a still image, at the price of one timestep."""

import jax
import numpy as np
import pytest

from snnjax import nn
from tests.compare import assert_close
from tests.nn.layers import T, call, leaves, rngs, run, sequence, weighted

SHAPE = (2, 4, 4, 2)


def layer():
    return nn.Sequential(nn.Conv(2, 3, rngs=rngs()), nn.BatchNorm(3, over="step", momentum=0.5))


def still():
    return jax.numpy.broadcast_to(sequence(SHAPE, timesteps=1), (T, *SHAPE))


@pytest.mark.fast
@pytest.mark.parametrize("training", [False, True])
def test_of_a_still_image_it_is_the_layer_itself(training):
    expected = run(layer(), still(), training=training)
    result = run(nn.StaticInput(layer()), still(), training=training)
    assert_close(result.outputs, expected.outputs, 1e-6)
    assert_close(leaves(result.aux.statistics), leaves(expected.aux.statistics), 1e-6)
    assert_close(leaves(result.gradients[0]), leaves(expected.gradients[0]), 1e-5)
    # The image's gradient arrives at the first timestep: a sum over time is the same.
    assert_close(result.gradients[1].sum(0), expected.gradients[1].sum(0), 1e-5)


@pytest.mark.fast
@pytest.mark.parametrize(
    "wrap", [lambda stem: [stem, nn.LIF()], lambda stem: [nn.Shared([stem], nn.LIF())]]
)
def test_statistics_move_once_per_call_in_both_orders(wrap):
    """Also with norms that move once per timestep they are called at."""
    moved = []
    for order in ("layer", "time"):
        norm = nn.BatchNorm(3, over="step", update="step", momentum=0.5)
        stem = nn.StaticInput(nn.Sequential(nn.Conv(2, 3, rngs=rngs()), norm))
        net = nn.Network(nn.Sequential(*wrap(stem), nn.Flatten()), SHAPE[1:], order=order)
        state = net.initial_state(SHAPE[0])
        moved.append(leaves(net(still(), state, training=True)[1].statistics))
    assert_close(moved[0], moved[1], 1e-6)
    currents, _ = call(nn.Conv(2, 3, rngs=rngs()), still()[:1])
    # Halfway from 0 towards the mean of the batch, once.
    assert any(np.allclose(m, currents.mean((0, 1, 2, 3)) / 2, atol=1e-6) for m in moved[0])


def test_it_sees_the_first_frame_only():
    inputs = sequence(SHAPE)
    outputs, _ = call(nn.StaticInput(layer()), inputs)
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs[:1], outputs.shape))
    changed, _ = call(nn.StaticInput(layer()), inputs.at[1:].set(0.0))
    np.testing.assert_array_equal(changed, outputs)
    grads = jax.grad(lambda x: weighted(call(nn.StaticInput(layer()), x)[0]))(inputs)
    assert np.abs(grads[0]).max() > 0 and not np.abs(grads[1:]).max()


def test_neurons_inside_are_an_error():
    with pytest.raises(ValueError, match=r"behind nn\.StaticInput"):
        nn.StaticInput(nn.Sequential(layer(), nn.LIF())).initial_state(SHAPE)
