"""Extensions: a neuron, a layer, a memory strategy and a task of one's own, in 15 lines at most.

Each is a function or a class that knows nothing of the library's internals, and works wherever one
of the library's own does: in networks, under every strategy, and on the command line.
"""

import dataclasses
import inspect
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from snnjax import cli, data, memory, neurons, nn, surrogate, training
from tests.training import micro

HERE = "tests.test_extensions"
BATCH, TIMESTEPS = 3, 6


# A neuron is a pure function of one timestep, its parameters and its resting state. The inverse is
# optional: with it the neuron can be reversed in time.
class HalvingParams(NamedTuple):
    decay: Any


def halving(params, v, current):
    h = params.decay * v + current
    spikes = surrogate.arctan()(h - 1.0)
    return h * (1 - 0.5 * spikes), spikes


def double(params, after, current, spikes):
    return (after / (1 - 0.5 * spikes) - current) / params.decay


# A layer has explicit state, and returns what it leaves behind.
class Change(nnx.Module):
    """The change of its input per timestep, times a learned gain."""

    def __init__(self, features):
        self.gain = nnx.Param(jnp.ones(features))

    def initial_state(self, shape):
        return nn.State(jnp.zeros(shape))

    def __call__(self, inputs, state, call):
        before = jnp.concatenate([state.neurons[None], inputs[:-1]])
        return self.gain * (inputs - before), nn.Aux(inputs[-1])


# A memory strategy is a scan: it decides which residuals the backward pass keeps.
def step_by_step(step, params, state, xs):
    replayed = jax.checkpoint(step)
    return lax.scan(lambda state, x: replayed(params, state, x), state, xs)


# A task is a loss per example; metrics, and the metric of the best checkpoint, are optional.
@dataclasses.dataclass(frozen=True, kw_only=True)
class Absolute(training.task.Task):
    best = "within"
    lowest = False

    def loss(self, outputs, targets, *, lengths=None):
        return jnp.abs(self.predict(outputs, lengths=lengths) - targets).sum(-1)

    def metrics(self, predictions, targets, *, lengths=None):
        return {"within": jnp.all(jnp.abs(predictions - targets) < 0.5, -1).astype("float32")}


EXTENSIONS = {
    "neuron": (HalvingParams, halving, double),
    "layer": (Change,),
    "strategy": (step_by_step,),
    "task": (Absolute,),
}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_its_definition_has_at_most_15_lines(kind):
    sources = [inspect.getsource(part) for part in EXTENSIONS[kind]]
    assert sum(len(source.splitlines()) for source in sources) <= 15


MODEL = neurons.Model(halving, HalvingParams(decay=0.9), jnp.zeros, inverse=double)


def test_the_neuron_obeys_the_laws_under_every_scan():
    assert nn.check_model(MODEL) == []


def test_a_wrong_inverse_of_the_neuron_is_named():
    wrong = dataclasses.replace(MODEL, inverse=lambda params, after, current, spikes: after)
    assert any("reverse" in fault for fault in nn.check_model(wrong))


def network(*layers, order="layer"):
    """Linear, the layers, Linear, for inputs of 4 numbers per timestep."""
    rngs = nnx.Rngs(0)
    ends = nn.Linear(4, 8, rngs=rngs), nn.Linear(8, 2, rngs=rngs)
    return nn.Network(nn.Sequential(ends[0], *layers, ends[1]), (4,), order=order)


def gradient(net):
    """Gradient of a loss of the outputs with respect to the network's parameters."""
    frames = jax.random.normal(jax.random.key(1), (TIMESTEPS, BATCH, 4))
    graphdef, params, constants = nn.split(net)

    def loss(params, constants):
        net = nn.merge(graphdef, params, constants)
        outputs, _ = net(frames, net.initial_state(BATCH), training=True)
        return jnp.square(outputs).mean()

    return jax.jit(jax.grad(loss))(params, constants)


def assert_same_gradient(net, strategy):
    differences = memory.checking.compare_gradients(
        jax.device_get(gradient(nn.with_memory(net, strategy))), jax.device_get(gradient(net))
    )
    assert differences and max(d.relative for d in differences.values()) < 1e-5


@pytest.mark.parametrize(
    "scan", [memory.recompute(4), memory.reversal()], ids=["recompute", "reverse"]
)
def test_the_neuron_is_a_layer_with_learned_parameters(scan):
    layer = nn.Neuron(MODEL, learn=("decay",))
    leaves = jax.tree.leaves(gradient(network(layer)))
    assert len(leaves) == 5 and all(np.abs(leaf).max() > 0 for leaf in leaves)
    assert_same_gradient(network(layer), memory.Strategy(time=scan))


@pytest.mark.parametrize("order", ["layer", "time"])
def test_the_layer_runs_in_a_network_under_a_strategy(order):
    net = network(Change(8), nn.LIF(), order=order)
    assert_same_gradient(net, memory.Strategy(time=memory.recompute(2)))


@pytest.mark.parametrize("middle", ["the library's", "one's own"])
def test_a_strategy_that_no_layer_takes_is_refused(middle):
    net = network(nn.LIF() if middle == "the library's" else Change(8))
    strategy = memory.Strategy(depth=memory.reversal())
    with pytest.raises(memory.StrategyError) as error:
        nn.with_memory(net, strategy)
    assert str(error.value) == (
        "no layer of this network uses depth (depth=reverse): it has no nn.Reversible or "
        "nn.Stacked blocks to reverse or scan: use memory.recompute(every)"
    )


def test_the_strategy_equals_store():
    currents = jax.random.normal(jax.random.key(2), (TIMESTEPS, BATCH, 8))
    model = neurons.lif_model(decay=0.9)
    params = jax.tree.map(jnp.asarray, model.params)
    state = model.initial_state((BATCH, 8))
    result, *_ = memory.check({"mine": step_by_step}, model.step, params, state, currents)
    assert result.ok, result.faults


def test_an_experiment_trains_with_the_strategy_as_a_value(tmp_path):
    strategy = memory.Strategy(time=step_by_step)
    experiment = dataclasses.replace(micro.config(), memory=strategy, width=4, epochs=1)
    session = training.prepare(experiment)
    run = training.Run.create(tmp_path / "run", experiment, "")
    assert training.fit(session, run).step == session.steps
    assert run.config()["memory"] == f"time={HERE}:step_by_step"
    assert training.config.override(experiment, run.config()).memory == strategy


@pytest.fixture
def snnjax(capsys):
    """Runs a command of `snnjax` and returns its JSON object."""

    def run(*arguments):
        assert cli.main(argv=[*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.parametrize("command", ["check", "plan"])
def test_the_command_line_knows_the_strategy_by_module_and_name(snnjax, command):
    text = f"time={HERE}:step_by_step"
    own = {"check": ("--repeats", 0), "plan": ("--budget", "1GB")}[command]
    result = snnjax(
        command, micro.__file__, "--batch", 256, "--width", 4, "--strategies", text, *own
    )
    row = result["rows"][-1]
    assert row["strategy"] == text and row["ok"]


def config():
    """An experiment with the task: mean and range of short series, from their values in turn."""

    def dataset(experiment):
        series = np.random.default_rng(0).normal(0, 1, (64, 6)).astype(np.float32)
        targets = np.stack([series.mean(1), np.ptp(series, 1)], 1)
        arrays = series[:48], targets[:48], series[48:], targets[48:]
        return data.from_arrays(*arrays, name="series")

    def encode(experiment, inputs, key):
        return inputs.T[:, :, None]

    def series_network(experiment, rngs):
        layers = nn.Linear(1, 8, rngs=rngs), nn.LIF(), nn.Linear(8, 2, rngs=rngs)
        return nn.Network(nn.Sequential(*layers), (1,))

    return training.Experiment(
        name="series", network=series_network, dataset=dataset, encode=encode, batch=16,
        eval_batch=16, epochs=2, log_every=1, task=lambda e: Absolute(readout=e.readout),
    )  # fmt: skip


def test_the_task_trains_on_the_command_line(snnjax, tmp_path):
    path, run = tmp_path / "series.py", tmp_path / "run"
    path.write_text(f"from {HERE} import config\n")
    trained = snnjax("train", path, "--out", run)
    assert 0 <= trained["test_within"] <= trained["best_test_within"] <= 1
    assert "test_accuracy" not in trained
    assert snnjax("eval", run)["test_within"] == trained["test_within"]
    records = training.Run.open(run).records()
    assert {"loss", "within"} <= set(records[0]) and "accuracy" not in records[0]
