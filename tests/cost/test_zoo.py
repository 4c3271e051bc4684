"""The zoo: every model is in it, at the published number of parameters."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import cost, models
from snnjax.cost.zoo import event_counts, static_images

PUBLISHED = {
    "ms_resnet": 11_173_962,
    "rev_resnet": 10_967_690,
    "spikingformer": 9_320_122,
    "rev_sformer": 9_323_962,
    "spikformer": 9_324_730,  # without the unused layer norms
    "spike_driven_transformer": 10_233_418,  # without the unused weights of heads
    "sew_resnet": 11_689_512,
    "t_revsnn": 32_331_312,
    "efficient_lif_vgg": 14_910_346,
    "efficient_lif_resnet": 26_108_042,
    "angular_velocity_net": 392_736,
    "asa_snn": 2_329_045,
    "asa_snn_five": 1_701_123,
}


@pytest.mark.fast
def test_every_model_is_in_the_zoo():
    made = {
        name
        for name in models.__all__
        if inspect.isfunction(model := getattr(models, name))
        and "Network" in str(inspect.signature(model).return_annotation)
    }
    assert made == set(cost.ZOO)


# The tests of each model count it in the default lane, too.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "rev_resnet" else pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_parameters_are_the_published_ones(name):
    assert cost.ZOO[name].parameters() == PUBLISHED[name]


@pytest.mark.fast
def test_inputs_are_what_they_say():
    key = jax.random.key(0)
    images = static_images(key, 3, 2, (8, 8, 1))
    assert images.shape == (3, 2, 8, 8, 1) and bool((images == images[:1]).all())
    counts = np.asarray(event_counts(key, 20, 2, (32, 32, 2)))
    assert set(np.unique(counts)) == {0, 1, 2, 3} and counts.dtype == np.float32
    np.testing.assert_allclose(counts.mean(), 0.3, atol=0.01)
    np.testing.assert_allclose((counts == 0).mean(), np.exp(-0.3), atol=0.01)


def test_a_case_is_measured():
    network, frames = cost.ZOO["mlp"].draw(seed=0)
    actual = cost.measure(network, frames, training=True)
    assert jnp.shape(frames) == (4, 8, 28, 28, 1) and actual.rate > 0
    assert list(actual.connections) == ["linear1", "linear3"]
    assert actual.connections["linear1"].static
