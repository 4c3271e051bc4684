"""Runs of feedback networks through `Experiment`: records, checks, devices, formats, strategies."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data, learning, memory, models, training
from snnjax.cli import main
from snnjax.training.sharding import compile_step, make_mesh
from snnjax.training.state import initialize
from snnjax.training.step import eval_step, train_step
from tests.compare import assert_close
from tests.training import micro

solvers = learning.solvers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feedback(training.Experiment):
    """One field of its own.

    Attributes:
        rule: `"ide"`, `"spide"`, `"normed"`, SPIDE with batch norm and `Spectral`, or `"iter"`, IDE
            with the wrong solver of the released code.
    """

    rule: str = "ide"


def network(experiment, rngs):
    spide = {
        "solver": solvers.spiking_ternary(timesteps=100, scale=25.0), "inner": "rates",
        "neuron": learning.lif_rate_model(threshold=1.0, amount=2.0, strict=True),
    }  # fmt: skip
    options = {
        "ide": {"solver": solvers.neumann(iterations=12)},
        "iter": {"solver": solvers.published_iter()},
        "spide": {**spide, "norm": None, "bound": learning.Frobenius},
        "normed": spide,
    }[experiment.rule]
    return models.feedback_net(
        (8, 8, 1), hidden=(16,), timesteps=experiment.timesteps, rngs=rngs, dropout=0.1, **options
    )


def encode(experiment, inputs, key):
    del key
    return data.rescale(inputs, 1 / 4)[None]


def experiment(**fields):
    options = {"timesteps": 5, "batch": 32, "epochs": 1, "learning_rate": 0.02, **fields}
    return Feedback(
        name="feedback", network=network, dataset=micro.dataset, encode=encode,
        optimizer=training.optimizer.sgd, schedule=constant, **options,
    )  # fmt: skip


def constant(experiment, steps):
    del steps
    return lambda step: experiment.learning_rate


@functools.cache
def dataset():
    return micro.dataset(experiment())


def batches(own, number):
    loader = data.Loader(dataset().train, batch_size=own.batch, seed=0)
    return [jax.tree.map(jnp.asarray, loader.batch(i)) for i in range(number)]


def run(own, number=1, mesh=None):
    program, state = initialize(own, steps=10, mesh=mesh)
    step = compile_step(
        functools.partial(train_step, program), make_mesh() if mesh is None else mesh
    )
    found = []
    for batch in batches(own, number):
        state, metrics = step(state, batch)
        found.append(jax.device_get(metrics))
    return program, state, found


@pytest.mark.fast
# SPIDE records what IDE does, and its backward rates.
@pytest.mark.parametrize("rule", [pytest.param("ide", marks=pytest.mark.slow), "spide"])
def test_a_run_learns_and_records_its_solver(rule):
    own = experiment(rule=rule, learning_rate=0.1)
    program, state, found = run(own, 40)
    assert np.mean([m.loss for m in found[-5:]]) < 0.7 * np.mean([m.loss for m in found[:5]])
    last = found[-1].metrics
    assert 0 <= last["solver_residual"] < 0.2
    if rule == "spide":
        assert 0 < last["backward_rate0"] < 0.5
    else:
        assert "backward_rate0" not in last
    evaluate = jax.jit(functools.partial(eval_step, program, rates=True))
    sums = evaluate(state, batches(own, 1)[0])
    assert 0 < sums.rates["equilibrium0/body/lif0"] / sums.weight < 1


@functools.cache
def plain_step():
    """An experiment without batch norm and dropout, and its parameters and metrics after a step."""
    own = dataclasses.replace(experiment(), network=_plain)
    _, one, found = run(own)
    return own, one.params, found


@pytest.mark.fast
def test_parts_share_the_gradient():
    own, params, found = plain_step()
    _, parts, part_metrics = run(dataclasses.replace(own, accumulate=2))
    assert_close(parts.params, params, 1e-5)
    np.testing.assert_allclose(
        part_metrics[0].metrics["solver_residual"], found[0].metrics["solver_residual"], atol=1e-4
    )


# The layer has no part in how devices share a batch, which tests/training/test_devices.py has.
@pytest.mark.slow
def test_devices_share_the_gradient():
    own, params, _ = plain_step()
    _, shared, _ = run(own, mesh=training.sharding.make_mesh(data=2))
    assert_close(jax.device_get(shared.params), jax.device_get(params), 1e-5)


def _plain(experiment, rngs):
    return models.feedback_net(
        (8, 8, 1), hidden=(16,), timesteps=5, rngs=rngs, dropout=0.0, norm=None
    )


@pytest.mark.fast
def test_a_run_may_continue_through_time_with_its_slots():
    """Parameters, slots and statistics are one tree under both derivatives."""
    structures = []
    for strategy in (None, memory.Strategy(time=memory.store)):
        _, state = initialize(experiment(memory=strategy), steps=10)
        saved = (state.params, state.optimizer, state.statistics)
        structures.append(jax.tree.structure(saved))
    assert structures[0] == structures[1]


# Tests of loss scaling train in the format, and the layer is one among others there.
@pytest.mark.slow
def test_narrow_formats_train():
    _, _, found = run(experiment(precision="bfloat16"), 10)
    assert all(m.finite for m in found)
    assert found[-1].loss < found[0].loss


def check(own, **options):
    strategies = [memory.Strategy(), memory.Strategy(time=memory.recompute(2))]
    return training.planning.check_strategies(
        own, dataset=dataset(), strategies=strategies, repeats=0, **options
    )


def test_check_compares_the_gradient_with_backpropagation_through_time():
    """Other gradients are no fault, strategies that claim equality are held to it."""
    reference, implicit, recomputed = check(experiment())
    assert reference.exact and recomputed.exact and not implicit.exact
    assert all(finding.ok for finding in (reference, implicit, recomputed))
    assert implicit.outputs_equal
    assert recomputed.relative < 1e-4 < implicit.relative
    assert implicit.residual < 1e-2
    gaps = implicit.gradients.values()
    assert all(0.2 < gap.norm_ratio < 5 for gap in gaps)


@pytest.mark.slow
def test_the_gradient_grows_towards_that_of_backpropagation_through_time():
    """Cosine of every layer at T = 5, 20, 100."""
    cosines = []
    for timesteps in (5, 20, 100):
        _, implicit, _ = check(experiment(timesteps=timesteps, batch=64))
        cosines.append([gap.cosine for gap in implicit.gradients.values()])
    least = [min(row) for row in cosines]
    assert least == sorted(least), cosines
    assert least[-1] > 0.95


# tests/learning/test_equilibrium.py measures the layer's bytes under both derivatives.
@pytest.mark.slow
def test_plan_lists_it_as_written():
    planned = training.planning.plan(
        experiment(),
        dataset=dataset(),
        strategies=[memory.Strategy(), memory.Strategy(time=memory.store)],
    )
    implicit, store = planned.admitted
    assert implicit.measured.temp_bytes < store.measured.temp_bytes


def test_a_run_is_saved_and_evaluated(tmp_path):
    """Statistics of norms, directions and infos with rates pass through a checkpoint."""
    own = experiment(rule="normed", batch=256, timesteps=3)
    session = training.prepare(own)
    saved = training.Run.create(tmp_path / "run", own, "")
    last = training.fit(session, saved).state
    _, empty = initialize(own, steps=session.steps)
    loaded = training.checkpoints.load_newest(saved.checkpoints, empty, warn=pytest.fail)
    for a, b in zip(*(jax.tree.leaves(s.statistics) for s in (last, loaded)), strict=True):
        np.testing.assert_array_equal(a, b)


FILE = '''"""A feedback network on the digits."""
from tests.learning.test_training import experiment

def config():
    return experiment(rule="{rule}")
'''


@pytest.mark.fast
@pytest.mark.parametrize(
    ("rule", "code"),
    # A test above checks the right solver, without the command line.
    [pytest.param("ide", 0, marks=pytest.mark.slow), ("iter", 1)],
)
def test_the_command_prints_cosines_and_finds_the_wrong_solver(
    rule, code, tmp_path, capsys, monkeypatch
):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).resolve().parents[2]))
    path = tmp_path / f"{rule}.py"
    path.write_text(FILE.format(rule=rule))
    capsys.readouterr()
    command = ["check", str(path), "--strategies", "as written", "--repeats", "1", "--json"]
    assert main(argv=command) == code
    out, err = capsys.readouterr()
    _, row = json.loads(out.splitlines()[-1])["rows"]
    assert not row["exact"] and row["ok"] == (code == 0)
    assert (row["residual"] > 0.2) == (code == 1)
    assert all(gap["norm_ratio"] > 0 for gap in row["gradients"].values())
    assert err.count(", norm x ") == len(row["layers"])
    assert ("FAULT the solver left" in err) == ("learning.Spectral" in err) == (code == 1)
