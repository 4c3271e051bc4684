"""Programs that wait for a GPU: they run at a small size, and say so when numbers do not agree."""

import json
import sys

import jax.numpy as jnp
import pytest

from snnjax import training
from tests.programs import loaded


def run(module, monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", [module.__file__, "--small", *words])
    module.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_a_reversible_step_is_timed_under_every_strategy(monkeypatch, capsys):
    speed = loaded("benchmarks/reversible_speed.py")
    found = run(speed, monkeypatch, capsys)
    stored, recomputed, reversed_ = found["rows"]
    for row in found["rows"]:
        assert row["loss"] == stored["loss"]
        assert row["gradient_norm"] == pytest.approx(stored["gradient_norm"], rel=1e-5)
        assert len(row["all_seconds"]) == 3 and 0 < row["seconds"] <= max(row["all_seconds"])
    assert stored["ratio"] == 1
    assert stored["temp_bytes"] > recomputed["temp_bytes"] > reversed_["temp_bytes"]
    assert found["devices"] and found["packages"]["jax"]


def pretended(speed, losses):
    """Compiles nothing: a step whose loss depends on the strategy."""

    def compiled(experiment, strategy, dataset):
        zero = jnp.zeros(())
        metrics = training.step.TrainMetrics(losses[strategy], {"accuracy": zero}, *[zero] * 5)
        seen = {"strategy": strategy, "temp_bytes": 0}
        return speed.Case(experiment, lambda state, batch: (state, metrics), seen)

    return compiled


@pytest.mark.fast
@pytest.mark.parametrize("off, refused", [(0, False), (1e-7, False), (1e-5, True)])
def test_a_strategy_that_changes_the_loss_is_told(monkeypatch, capsys, off, refused):
    speed = loaded("benchmarks/reversible_speed.py")
    losses = dict.fromkeys(speed.STRATEGIES, 2.0) | {"depth=reverse": 2.0 * (1 + off)}
    monkeypatch.setattr(speed, "compile_case", pretended(speed, losses))
    monkeypatch.setattr(speed, "first_state", lambda case: jnp.zeros(()))
    if not refused:
        assert len(run(speed, monkeypatch, capsys)["rows"]) == 3
        return
    with pytest.raises(SystemExit, match="depth=store's under depth=reverse: on a GPU try") as end:
        run(speed, monkeypatch, capsys)
    assert end.value.code != 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]


@pytest.mark.fast
def test_strategies_take_turns_in_beginning():
    speed, order = loaded("benchmarks/reversible_speed.py"), []

    def case(name):
        return speed.Case(None, lambda state, batch: (state, order.append(name)), {})

    cases = [case(name) for name in "abc"]
    speed.first_state = lambda case: None
    speed.take_turns(cases, None, rounds=2, calls=1)
    assert "".join(order) == "abcbcacab"
    assert [len(case.seconds) for case in cases] == [2, 2, 2]


@pytest.mark.fast
def test_a_layer_of_pytorch_that_cannot_run_is_left_out(monkeypatch, capsys):
    kernel = loaded("benchmarks/lif_kernel.py")
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    made = kernel.arrays((2, 1, 8), "float32")
    assert kernel.torch_layers(made, small=True) == {}
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(" is left out: ")[0] for line in said] == ["torch_loop", "spikingjelly"]
    assert kernel.torch_layers(made, small=True) == {}
    assert capsys.readouterr().err == ""  # once is enough
