"""Rates while evaluating are those of recorded spikes, in stacks and for padded batches too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data, encoding, nn, training
from snnjax.nn.taps import in_order
from tests.nn import networks

EXAMPLES = 5


def experiment(make):
    """A network of `tests.nn.networks`, judged on five examples."""
    shape = make().input_shape
    inputs = np.asarray(1.5 + jax.random.normal(jax.random.key(0), (EXAMPLES, *shape)))
    labels = np.arange(EXAMPLES) % networks.CLASSES
    return training.Experiment(
        name="rates",
        network=lambda experiment, rngs: make(),
        dataset=lambda experiment: data.from_arrays(
            inputs, labels, inputs, labels, input_shape=shape
        ),
        encode=lambda experiment, inputs, key: encoding.direct(inputs, timesteps=3),
        batch=2,
        eval_batch=2,
    )


def recorded(session):
    """Spikes of all test examples, by layer, `[T, 5, ...]`."""
    network, test = session.program.network(session.state), session.dataset.test
    frames = encoding.direct(jnp.asarray(test.take(np.arange(EXAMPLES)).inputs), timesteps=3)
    state = network.initial_state(EXAMPLES)
    _, aux = jax.jit(lambda f: network(f, state, training=False, taps=("spikes",)))(frames)
    return {name: np.asarray(kinds["spikes"]) for name, kinds in aux.taps.items()}


@pytest.mark.parametrize(
    "name", ["reversible", "ms_resnet", "grouped", "shared", "ms_resnet in time"]
)
def test_streamed_rates_are_those_of_recorded_spikes(name):
    session = training.prepare(experiment(networks.NETWORKS[name]), training=False, rates=True)
    found, spikes = session.evaluate(session.state), recorded(session)
    assert list(found.rates) == list(found.neurons) == list(in_order(spikes))
    for layer, train in spikes.items():
        assert found.neurons[layer] == train[0, 0].size
        assert found.rates[layer] == pytest.approx(train.mean(dtype=np.float64), rel=1e-6)
    total = sum(int(train.sum()) for train in spikes.values())
    places = sum(train.size for train in spikes.values())
    assert 0 < total < places
    assert found.nasfr == pytest.approx(total / places, rel=1e-6)


@pytest.mark.fast
def test_layers_that_do_not_spike_have_no_part_in_the_rates():
    make = functools.partial(
        networks._network, lambda r: [nn.Linear(5, networks.CLASSES, rngs=r), nn.LI()], (5,)
    )
    session = training.prepare(experiment(make), training=False, rates=True)
    found = session.evaluate(session.state)
    assert (found.rates, found.neurons, found.nasfr) == ({}, {}, None)
