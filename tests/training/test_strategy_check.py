"""`check_strategies` passes what is right and names faults planted in a whole network."""

import dataclasses

import jax
import pytest

from snnjax import memory, nn, training
from tests.training import micro, planted

AS_WRITTEN = [memory.Strategy()]


def findings(experiment, **options):
    dataset = training.config.load_dataset(experiment)
    return training.planning.check_strategies(experiment, dataset=dataset, repeats=1, **options)


@pytest.mark.slow
def test_a_sound_network_passes_under_every_strategy():
    found = findings(dataclasses.replace(micro.config(), batch=16))
    names = [finding.name for finding in found]
    assert names[0].startswith("store") and "time=reverse" in names
    assert {"as written", "depth=recompute(1), pack=True"} <= set(names)
    for finding in found:
        assert finding.ok, (finding.name, finding.faults)
        assert finding.outputs_equal and finding.statistics_equal
        assert finding.cosine > 1 - 1e-9 and finding.measured.total_bytes > 0


@pytest.mark.parametrize(
    ("network", "says"),
    [
        # `snnjax check` of tests/test_cli_plan.py finds it in the default lane.
        pytest.param(
            planted.wrong_inverse,
            "wrong inverse: a state rebuilt in lif2 is off by",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            planted.statistics_twice, "statistics were updated twice", marks=pytest.mark.slow
        ),
        pytest.param(planted.dropped_key, "a dropped key", marks=pytest.mark.slow),
    ],
)
def test_planted_faults_are_found_and_named(network, says):
    store, found = findings(planted.experiment(network), strategies=AS_WRITTEN)
    assert store.ok, store.faults
    assert len(found.faults) == 1 and found.faults[0].startswith(says)


def greys(experiment, rngs):
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, rngs=rngs, pack=True))
    return nn.Network(body, (8, 8, 1))


def test_packing_other_inputs_than_spikes_is_a_fault_that_names_the_layer(tmp_path):
    experiment = planted.experiment(greys)
    for found in findings(experiment, strategies=AS_WRITTEN):
        assert not found.ok and found.faults[0].startswith("layer linear1 keeps its inputs")
    run = training.Run.create(tmp_path / "run", experiment, "")
    session = training.prepare(experiment)
    with pytest.raises(training.errors.NotFiniteError, match=r"layer linear1 .*pack=False"):
        training.fit(session, run)


@pytest.mark.slow
def test_a_reversible_stream_tells_the_bits_it_has_left():
    def network(experiment, rngs):
        half = lambda rngs: nn.Sequential(nn.LIF(), nn.Conv(2, 2, rngs=rngs), nn.BatchNorm(2))  # noqa: E731
        stack = nn.Reversible(half, half, 2, rngs=rngs)
        body = nn.Sequential(
            nn.Conv(1, 4, rngs=rngs), stack, nn.LIF(), nn.Flatten(), nn.Linear(256, 10, rngs=rngs)
        )
        return nn.Network(body, (8, 8, 1))

    found = findings(planted.experiment(network), strategies=AS_WRITTEN)
    assert all(finding.ok for finding in found)
    assert found[1].reconstruction == 0 and 5 < found[1].bits_left < 15


def test_strategies_that_are_not_admitted_are_an_error_that_says_why():
    with pytest.raises(training.errors.ExperimentError, match="no nn.Reversible"):
        findings(micro.config(), strategies=[memory.Strategy(depth=memory.reversal())])


def test_the_last_bit_of_a_statistic_is_no_fault():
    """XLA fuses a running mean into other sums in other programs, and rounds it otherwise."""

    def scan(step, params, state, xs):
        after, aux = memory.store(step, params, state, xs)
        nudged = jax.tree.map(lambda leaf: leaf * (1 + 2**-23), aux.statistics)
        return after, aux._replace(statistics=nudged)

    network = lambda experiment, rngs: planted.stacked(rngs, scan)  # noqa: E731
    _, found = findings(planted.experiment(network), strategies=AS_WRITTEN)
    assert found.ok and found.statistics_equal, found.faults


def centered(x):
    return x - 0.1 * x.mean(0, keepdims=True)


@pytest.mark.parametrize("planted_fault", [False, True])
def test_an_example_that_sees_its_batch_in_evaluation_is_found(planted_fault):
    def network(experiment, rngs):
        faulty = [nn.Fold(centered, name="mixing")] * planted_fault
        body = nn.Sequential(
            *(nn.Flatten(), nn.Linear(64, 8, rngs=rngs), nn.BatchNorm(8), *faulty),
            *(nn.LIF(threshold=0.2), nn.Linear(8, 10, rngs=rngs)),
        )
        return nn.Network(body, (8, 8, 1))

    experiment = dataclasses.replace(micro.config(), network=network, batch=4)
    dataset = training.config.load_dataset(experiment)
    found = training.planning.check_independence(experiment, dataset=dataset)
    if planted_fault:
        assert found[0].startswith("lif4: an example depends on its neighbours in the batch")
    else:
        assert found == []
