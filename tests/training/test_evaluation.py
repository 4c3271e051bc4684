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


# Stacked blocks stream their rates in time as they do layer by layer.
@pytest.mark.parametrize(
    "name",
    ["reversible", pytest.param("ms_resnet", marks=pytest.mark.slow), "grouped", "shared",
     "ms_resnet in time"],
)  # fmt: skip
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


def _clips_experiment(clips, eval_batch=5):
    """Recordings of three events each, as clips; the network sees in which third events are."""
    rng = np.random.default_rng(0)

    def recording():
        t = np.sort(rng.integers(0, 300, 40)).astype(np.int32)
        return np.stack(
            [t, rng.integers(0, 2, 40), *2 * [np.zeros_like(t)]], axis=1, dtype=np.int32
        )

    def dataset(experiment):
        split = data.Split(tuple(recordings), labels)
        parts = data.clips(split, count=3, duration=100)
        whole = data.Dataset("clips", split, parts, 2, ("a", "b"), (1, 2, 2), 1.0, "made up")
        return data.map_inputs(whole, to_frames)

    def to_frames(events, rng):
        if rng is not None:
            events = encoding.slices.random_slice(rng, events, duration=100)
        return encoding.events.frames_by_time(
            events, timesteps=2, height=1, width=2, start=0, duration=100
        )

    recordings, labels = [recording() for _ in range(7)], np.arange(7) % 2
    return training.Experiment(
        name="clips",
        network=lambda experiment, rngs: nn.Network(
            nn.Sequential(nn.Flatten(), nn.Linear(4, 2, rngs=rngs)), input_shape=(1, 2, 2)
        ),
        dataset=dataset,
        encode=lambda experiment, inputs, key: encoding.frames(inputs),
        batch=4,
        eval_batch=eval_batch,
        clips=clips,
        epochs=1,
    )


def test_recordings_are_judged_by_most_of_their_clips():
    session = training.prepare(_clips_experiment(3))
    test = session.dataset.test
    frames = encoding.frames(jnp.asarray(test.inputs.batch(np.arange(21))))
    network = session.program.network(session.state)
    outputs, _ = network(frames, network.initial_state(21), training=False)
    right = (np.asarray(outputs.mean(0)).argmax(-1) == test.labels).reshape(7, 3)
    found = session.evaluate(session.state)
    assert found.accuracy == pytest.approx(np.mean(right.sum(-1) >= 2), abs=1e-6)
    # Clips by themselves give another number here, or this test would show nothing.
    assert abs(found.accuracy - right.mean()) > 1e-3
    state, metrics = session.train(session.state, session.loader.batch(0))
    assert bool(metrics.finite)


def test_test_examples_that_are_no_whole_recordings_are_named():
    with pytest.raises(training.errors.ExperimentError, match="clips"):
        training.prepare(_clips_experiment(4), training=False)
