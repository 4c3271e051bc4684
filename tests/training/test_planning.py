"""A plan for a whole experiment: what fits is measured, on the step that training runs."""

import dataclasses
import functools

import numpy as np
import pytest
from flax import nnx

from snnjax import data, encoding, memory, models, nn, training

SIDE, CLASSES, LONG = 10, 3, 256
per_step = functools.partial(nn.BatchNorm, over="step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Long(training.Experiment):
    """Many timesteps of noise."""

    widths: tuple[int, ...] = (6, 6)
    side: int = SIDE
    order: str = "time"


def vgg(experiment, rngs):
    first, *rest = experiment.widths
    shape = (experiment.side, experiment.side, 1)
    return models.vgg(
        stages=((first, first), *((width,) for width in rest)), classes=CLASSES, input_shape=shape,
        norm=per_step, order=experiment.order, rngs=rngs,
    )  # fmt: skip


def ms_resnet(experiment, rngs):
    shape = (experiment.side, experiment.side, 1)
    return models.ms_resnet(
        blocks=(2,) * (len(experiment.widths) - 1), widths=experiment.widths[1:],
        classes=CLASSES, input_shape=shape, norm=per_step, order=experiment.order, rngs=rngs,
    )  # fmt: skip


def dataset(experiment):
    rng = np.random.default_rng(0)
    images = rng.random((24, experiment.side, experiment.side, 1), np.float32)
    labels = np.arange(24) % CLASSES
    return data.from_arrays(images, labels, images[:6], labels[:6], name="noise")


def encode(experiment, inputs, key):
    return encoding.direct(inputs, timesteps=experiment.timesteps)


def long(network, **fields):
    return Long(
        name="long", network=network, dataset=dataset, encode=encode, timesteps=LONG, batch=4,
        **fields,
    )  # fmt: skip


def planned(experiment, strategies=None, **options):
    noise = training.config.load_dataset(experiment)
    return training.planning.plan(experiment, dataset=noise, strategies=strategies, **options)


def bytes_of(experiment, strategy):
    noise = training.config.load_dataset(experiment)
    step, arguments = training.planning.training_step(experiment, strategy, dataset=noise)
    return memory.measure(step, *arguments).total_bytes


STRATEGIES = [
    memory.parse_strategy(text)
    for text in ("", "time=reverse", "time=recompute(sqrt)",
                 "time=recompute(sqrt, inner=recompute(1))")
]  # fmt: skip
NETWORKS = {"vgg": vgg, "ms_resnet": ms_resnet}
TRIED = {"vgg": STRATEGIES, "ms_resnet": [*STRATEGIES[:2], STRATEGIES[3]]}
PERCENT = (100, 50, 25, 10)


@functools.cache
def plan_of(name):
    """One plan for all budgets of a network, and what was reported on the way."""
    reported = []
    return planned(long(NETWORKS[name]), TRIED[name], report=reported.append), reported


# A plan compiles a step per strategy. Tests of memory budgets choose from made-up sizes, and
# `snnjax plan` lists what fits and what is refused on a smaller network.
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_strategy_is_found_for_each_share_of_the_memory(name):
    """Over 256 timesteps a tenth of the memory is enough, and a kilobyte is not."""
    plan, _ = plan_of(name)
    whole = plan.admitted[0].measured.total_bytes
    chosen = [plan.choose(whole * percent / 100) for percent in PERCENT]
    assert chosen[0].strategy == memory.Strategy()
    for percent, candidate in zip(PERCENT, chosen, strict=True):
        assert candidate.measured.total_bytes <= whole * percent / 100
    passes = [plan.extra_passes(candidate) for candidate in chosen]
    assert passes == sorted(passes) and passes[0] == 0 and 1 < passes[-1] < 3
    assert plan.choose(1000) is None
    assert plan.missing(1000) == chosen[-1].measured.total_bytes - 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_refused_strategies_are_reported(name):
    plan, reported = plan_of(name)
    assert len(plan.admitted) == len(TRIED[name]) - 1
    refused = plan.candidates[1]
    assert refused.strategy == STRATEGIES[1] and "no inverse over time" in refused.refused
    assert sorted(map(str, reported)) == sorted(map(str, plan.candidates))


def test_the_chosen_strategy_needs_the_planned_memory():
    """Read off the step that a session compiled for training."""
    chosen = small_plan().leanest
    session = training.prepare(training.planning.with_strategy(SMALL, chosen.strategy))
    assert (
        memory.accounting.compiled_memory(session.train, session.experiment.batch)
        == chosen.measured
    )


def perceptron(experiment, rngs):
    shape = (experiment.side, experiment.side, 1)
    return models.mlp(shape, hidden=experiment.widths, classes=CLASSES, rngs=rngs)


SMALL = dataclasses.replace(long(perceptron), timesteps=4, batch=16)
PACKED = [memory.Strategy(), memory.parse_strategy("depth=recompute(1), pack=True")]


@functools.cache
def small_plan():
    return planned(SMALL, PACKED)


@pytest.mark.slow
@pytest.mark.parametrize("field", ["batch", "timesteps"])
def test_the_largest_value_that_fits_does_and_one_more_does_not(field):
    plan, noise = small_plan(), training.config.load_dataset(SMALL)
    budget = 4 * plan.leanest.measured.total_bytes
    strategy, value = training.planning.largest(SMALL, field, budget, plan, dataset=noise)
    assert value > getattr(SMALL, field) and strategy in PACKED
    fits, over = (training.config.override(SMALL, {field: n}) for n in (value, value + 1))
    assert bytes_of(fits, strategy) <= budget
    for other in PACKED:  # nor with another strategy
        assert bytes_of(over, other) > budget


def test_the_largest_value_is_none_where_nothing_fits():
    plan, noise = small_plan(), training.config.load_dataset(SMALL)
    strategy, value = training.planning.largest(SMALL, "batch", 1000, plan, dataset=noise)
    assert value == 0 and strategy in PACKED


@pytest.mark.fast
@pytest.mark.parametrize("field", ["depth", "learning_rate", "memory", "name", "patience"])
def test_only_a_whole_number_can_be_enlarged(field):
    with pytest.raises(training.errors.ExperimentError, match=f"no integer field '{field}'.*batch"):
        training.planning.integer_field(SMALL, field)
    assert training.planning.integer_field(SMALL, "side") == SIDE


@pytest.mark.fast
def test_a_strategy_replaces_that_of_the_experiment_and_as_written_leaves_it():
    experiment = dataclasses.replace(SMALL, memory=memory.Strategy(pack=True))
    assert training.planning.with_strategy(experiment, memory.Strategy()) is experiment
    assert training.planning.with_strategy(experiment, PACKED[1]).memory == PACKED[1]
    nameless = memory.Strategy(time=lambda *arguments: memory.store(*arguments))
    assert training.planning.with_strategy(experiment, nameless).memory is nameless
    offered = training.planning.network_strategies(SMALL)
    assert offered == nn.candidates(perceptron(SMALL, nnx.Rngs(0)))


@pytest.mark.fast
def test_an_experiment_that_fails_is_not_taken_for_a_strategy_that_is_refused():
    def broken(*arguments):
        raise ValueError("a defect of its own")

    noise = training.config.load_dataset(SMALL)
    for part in ("network", "encode", "optimizer"):
        experiment = dataclasses.replace(SMALL, **{part: broken})
        with pytest.raises(training.errors.ExperimentError, match=f"{part}.* a defect of its own"):
            training.planning.plan(experiment, dataset=noise, strategies=[memory.Strategy()])
    wide = dataclasses.replace(SMALL, encode=lambda e, x, key: encode(e, x, key)[..., :2, :])
    with pytest.raises(training.errors.ExperimentError, match="the network failed.*time first"):
        training.planning.plan(wide, dataset=noise, strategies=[memory.Strategy()])
    with pytest.raises(memory.StrategyError, match="no strategy is admitted.*nn.Reversible"):
        training.planning.plan(
            SMALL, dataset=noise, strategies=[memory.parse_strategy("depth=reverse")]
        )


@pytest.mark.slow
@pytest.mark.parametrize("order", ["layer", "time"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_menu_on_larger_networks(name, order):
    experiment = long(NETWORKS[name], widths=(8, 8, 16), side=16, order=order)
    plan = planned(experiment)
    assert (
        len(plan.admitted)
        == len(plan.candidates)
        == len(training.planning.network_strategies(experiment))
    )
    whole, least = plan.admitted[0].measured, plan.leanest.measured
    share = {"time": 10, "layer": 4 / 3}[order]
    assert share * least.total_bytes < whole.total_bytes
    for percent in (100, 100 / share):
        chosen = plan.choose(whole.total_bytes * percent / 100)
        assert bytes_of(experiment, chosen.strategy) == chosen.measured.total_bytes
        assert chosen.measured.total_bytes <= whole.total_bytes * percent / 100
