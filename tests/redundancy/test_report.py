"""Reports: the rates are those that evaluation streams; features, classes and shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import data, models, redundancy, training
from snnjax.redundancy._histogram import Bins
from snnjax.redundancy.sums import Sums
from tests.models.test_t_revsnn import slim
from tests.models.transformers import TINY
from tests.nn import networks
from tests.redundancy.test_sums import look, measure
from tests.training.test_evaluation import EXAMPLES, experiment

T = 2


def sums(spikes, examples=4, analog=False, threshold=True):
    """Of a layer whose potentials are half below and half above its threshold of 0.5."""
    counts = np.zeros(len(Bins()), np.int64)
    counts[[Bins().below_threshold - 1, Bins().below_threshold]] = 10
    return Sums(examples, np.asarray(spikes), analog, counts, counts, 0.5, threshold)


@pytest.fixture
def actual():
    maps = np.zeros((T, 3, 3, 4), int)
    maps[..., 1] = 4  # always alight, everywhere
    maps[0, 1, 1, 2] = 4  # an object, in the first timestep
    maps[:, 0, 0, 3] = 1
    return redundancy.report({"lif3": sums(maps), "li20": sums([[1], [1]], analog=True),
                              "head12": sums([[4, 0], [2, 0]])})  # fmt: skip


@pytest.mark.fast
def test_features_have_a_class_per_timestep_and_channel(actual):
    layer = actual.layers["lif3"]
    np.testing.assert_array_equal(layer.classes, [[0, 2, 1, 1], [0, 2, 0, 1]])
    np.testing.assert_array_equal(layer.channel_classes, [0, 2, 1, 1])
    assert layer.shares == {"null": 3 / 8, "normal": 3 / 8, "noise": 2 / 8}
    assert layer.channel_shares == {"null": 0.25, "normal": 0.5, "noise": 0.25}
    assert layer.features[0, 1, 1, 2] == 1.0 and layer.features[1, 0, 0, 3] == 0.25
    np.testing.assert_array_equal(actual.layers["head12"].classes, [[2, 0], [1, 0]])


@pytest.mark.fast
def test_rates_are_counts_over_neurons_timesteps_and_examples(actual):
    assert list(actual.layers) == ["lif3", "head12"]
    assert actual.neurons == {"lif3": 36, "head12": 2} and actual.analog_layers == ("li20",)
    spikes = {"lif3": 4 * 18 + 4 + 2, "head12": 6}
    assert actual.rates == {k: n / (4 * T * actual.neurons[k]) for k, n in spikes.items()}
    assert actual.nasfr == pytest.approx(sum(spikes.values()) / (4 * T * 38), rel=1e-12)
    layer = actual.layers["lif3"]
    assert layer.rates_over_time.mean() == pytest.approx(layer.rate, rel=1e-7)
    assert layer.currents.share_above == 0.5 and layer.currents.threshold == 0.5


@pytest.mark.fast
def test_a_threshold_that_is_not_known_gives_no_share():
    layer = redundancy.report({"own": sums([[1]], threshold=False)}).layers["own"]
    assert layer.currents.share_above is None and layer.rate == 0.25


@pytest.mark.fast
def test_nothing_to_report_is_an_error():
    with pytest.raises(ValueError, match=r"no layer spikes \(of \['li'\]\)"):
        redundancy.report({"li": sums([[1]], analog=True)})
    with pytest.raises(ValueError, match="weight 0"):
        redundancy.report({"lif": sums([[0]], examples=0)})


def test_recorded_spikes_give_the_rates_that_evaluation_streams():
    """Two ways to one number: streamed while evaluating, and from recorded spikes."""
    session = training.prepare(experiment(networks.recurrent), training=False, rates=True)
    streamed, test = session.evaluate(session.state), session.dataset.test
    (batch,) = data.evaluation_batches(test, batch_size=EXAMPLES)
    frames = session.experiment.encode(session.experiment, jnp.asarray(batch.inputs), None)
    _, aux = look(session.program.network(session.state), frames)
    recorded = redundancy.report(redundancy.add(None, measure(aux.taps)))
    assert recorded.neurons == streamed.neurons
    for layer, rate in streamed.rates.items():
        spikes = np.asarray(aux.taps[layer]["spikes"])
        assert recorded.rates[layer] == int(spikes.sum()) / spikes.size
        assert rate == pytest.approx(recorded.rates[layer], rel=1e-6)
    assert streamed.nasfr == pytest.approx(recorded.nasfr, rel=1e-6)
    assert 0 < recorded.nasfr < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rev_sformer", "spikingformer", "t_revsnn", "efficient_lif"])
def test_every_family_can_be_looked_at(name):
    """Tokens, columns, shared membranes: every neuron is counted, and rates are counts."""
    rngs = nnx.Rngs(0)
    network = {
        "rev_sformer": lambda: models.rev_sformer(depth=2, rngs=rngs, **TINY),
        "spikingformer": lambda: models.spikingformer(depth=2, rngs=rngs, **TINY),
        "t_revsnn": slim,
        "efficient_lif": lambda: models.efficient_lif_vgg(
            stages=((4, 4),), sharing="both", classes=3, input_shape=(8, 8, 2), rngs=rngs
        ),
    }[name]()
    timesteps = 1 if name == "t_revsnn" else T
    inputs = 1 + jax.random.normal(jax.random.key(0), (timesteps, 2, *network.input_shape))
    _, aux = look(network, inputs)
    actual = redundancy.report(redundancy.add(None, measure(aux.taps)))
    spikes = {layer: np.asarray(kinds["spikes"]) for layer, kinds in aux.taps.items()}
    assert set(actual.layers) == set(spikes) and not actual.analog_layers
    assert actual.rates == {layer: spikes[layer].mean(dtype=float) for layer in actual.layers}
    total = sum(s.size for s in spikes.values())
    assert actual.nasfr == pytest.approx(sum(s.sum() for s in spikes.values()) / total, rel=1e-9)


def report(**spikes):
    return redundancy.report({name: sums(np.asarray(s)) for name, s in spikes.items()})


def test_layers_correspond_by_their_order_and_the_change_is_in_per_cent():
    before, after = report(lif3=[[4, 4]], lif5=[[2]]), report(lif4=[[1, 1]], lif6=[[0]])
    actual = redundancy.compare(before, after)
    assert actual.pairs == (("lif3", "lif4"), ("lif5", "lif6"))
    assert actual.nasfr_change == pytest.approx(100 * (2 / 10 - 1))


def test_other_networks_have_no_layers_that_correspond():
    actual = redundancy.compare(report(a=[[4, 4]]), report(b=[[4, 4, 4]]))
    assert actual.pairs == () and actual.nasfr_change == pytest.approx(0.0)


def test_a_silent_network_can_be_no_measure():
    assert redundancy.compare(report(a=[[0]]), report(a=[[1]])).nasfr_change is None
