"""Plain fields are found, overridden and checked; every refusal names the field."""

import dataclasses

import pytest

from snnjax import memory, training
from tests.training.conftest import make


def test_plain_fields_are_those_of_plain_types():
    names = list(training.config.plain_fields(make()))
    assert "width" in names and "timesteps" in names and "clip_norm" in names
    assert not {"network", "dataset", "encode", "readout", "loss"} & set(names)


def test_values_survive_json():
    import json

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wide(training.Experiment):
        widths: tuple[int, ...] = (3, 4)

    experiment = Wide(name="wide", network=None, dataset=None, encode=None)  # type: ignore
    values = json.loads(json.dumps(training.config.plain_values(experiment)))
    assert training.config.override(experiment, values) == experiment
    training.config.check(experiment)
    with pytest.raises(training.errors.ExperimentError, match="widths"):
        training.config.check(dataclasses.replace(experiment, widths=(1, "2")))


def test_a_strategy_is_a_value_and_is_written_as_its_text():
    lean = memory.Strategy(depth=memory.recompute(1, keep=("currents",)), pack=True)
    experiment = dataclasses.replace(make(), memory=lean)
    assert training.config.plain_values(make())["memory"] is None
    values = training.config.plain_values(experiment)
    assert values["memory"] == "depth=recompute(1, keep=('currents',)), pack=True"
    assert training.config.override(make(), values) == experiment
    assert training.config.override(make(), {"memory": lean}).memory == lean
    assert (
        hash(experiment.memory) == hash(lean)
        and training.config.override(experiment, {}) == experiment
    )
    with pytest.raises(
        training.errors.ExperimentError, match=r"^memory must be.*memory\.parse_strategy"
    ):
        training.config.check(dataclasses.replace(make(), memory="depth=store"))


def test_a_scan_that_no_resumed_run_could_look_up_is_not_written_down(monkeypatch):
    def mine(step, params, state, xs):
        return memory.store(step, params, state, xs)

    experiment = dataclasses.replace(make(), memory=memory.Strategy(time=mine))
    training.config.check(experiment)  # trains in this process all the same
    with pytest.raises(training.errors.ExperimentError, match="memory: time=mine.*register_scan"):
        training.config.plain_values(experiment)
    monkeypatch.setattr(memory.notation, "_REGISTERED", {})
    memory.register_scan("mine", mine)
    values = training.config.plain_values(experiment)
    assert values["memory"] == "time=mine"
    assert training.config.override(make(), values) == experiment


def test_an_unknown_field_is_refused():
    with pytest.raises(training.errors.ExperimentError, match="no field depth"):
        make(depth=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timesteps", 0), ("timesteps", 2.0), ("timesteps", True), ("timesteps", "4"),
        ("batch", 0), ("batch", None), ("eval_batch", 0), ("epochs", 0), ("epochs", 1.5),
        ("learning_rate", 0.0), ("learning_rate", float("nan")), ("learning_rate", -1.0),
        ("clip_norm", 0.0), ("weight_decay", -0.1), ("label_smoothing", 1.0), ("keep", 0),
        ("seed", -1), ("seed", 2**32), ("log_every", 0), ("checkpoint_every", 0),
        ("patience", 0), ("warmup_epochs", -1.0), ("name", ""), ("name", "a/b"), ("name", 3),
        ("memory_scheduler", 1), ("memory", "depth=half"), ("precision", "half"),
        ("precision", "compute=bfloat16, stream=bfloat16"), ("precision", 16),
        ("data_dir", 3), ("mixup", -0.1),
        ("mixup", float("inf")), ("mixup_epochs", -1), ("mixup_epochs", 1.5),
        ("mixup_probability", 1.1), ("mixup_probability", -0.1),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(training.errors.ExperimentError, match=f"^{field}"):
        training.config.check(make(**{field: value}))


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"learning_rate": 1}, {"clip_norm": 1.0}, {"patience": 3}, {"seed": 2**32 - 1},
        {"mixup": 0.5, "mixup_epochs": 0, "mixup_probability": 0.5},
        {"precision": "compute=bfloat16, params=bfloat16"},
    ],
)  # fmt: skip
def test_good_values_pass(fields):
    training.config.check(make(**fields))
