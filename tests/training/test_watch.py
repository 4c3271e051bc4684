"""NaN and infinities in data and membranes are noticed, with the batch, the example and the layer.

NaN exceeds no threshold: a neuron that was given one is silent for ever, and loss, gradient and
accuracy are finite.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data, encoding, nn, training
from snnjax.cli import _failures
from snnjax.training._nonfinite import Guard
from snnjax.training._watch import Watch
from tests.nn import networks
from tests.training.conftest import assert_same_bits

EXAMPLES, BATCH, BAD = 8, 4, 5
MARK = 100.0  # an input that the code below turns into another number


def encode(experiment, inputs, key, *, value):
    """Constant currents; those of marked examples are `value`."""
    frames = jnp.where(inputs == MARK, value, inputs)
    return encoding.direct(frames, timesteps=3)


def hidden(experiment, rngs):
    """A network whose readout is silent and finite, whatever its inputs are."""
    layers = [nn.Linear(5, 6, rngs=rngs), nn.LIF(), nn.Linear(6, 3, rngs=rngs)]
    return nn.Network(nn.Sequential(*layers), (5,))


def experiment(*, value=np.nan, network=hidden, shape=(5,), marked="train", **fields):
    rng = np.random.default_rng(0)
    inputs = rng.normal(1.0, 0.3, (EXAMPLES, *shape)).astype(np.float32)
    wrong = inputs.copy()
    wrong[BAD] = MARK
    labels = np.arange(EXAMPLES) % 3
    train, test = (wrong, inputs) if marked == "train" else (inputs, wrong)
    if marked == "none":
        train, test = inputs, inputs
    options = {"batch": BATCH, "eval_batch": BATCH, "epochs": 2, "warmup_epochs": 0.0, **fields}
    return training.Experiment(
        name="watched",
        network=network,
        dataset=lambda e: data.from_arrays(train, labels, test, labels, input_shape=shape),
        encode=functools.partial(encode, value=value),
        **options,
    )


@functools.cache
def prepared(**fields):
    """A session for several tests, which leave its state alone."""
    return training.prepare(experiment(**fields))


def first_steps(session):
    """Metrics of one epoch, with the state before and after each step."""
    state = jax.tree.map(jnp.copy, session.state)
    for number in range(session.loader.steps_per_epoch):
        before = jax.tree.map(jnp.copy, state)
        batch = training.sharding.feed(session.loader, number, session.mesh)
        state, metrics = session.train(state, batch)
        yield number, before, state, jax.device_get(metrics)


@pytest.mark.parametrize(
    "fields",
    # The watch of a mixed batch is that of one batch more.
    [{}, {"accumulate": 2}, pytest.param({"mixup": 0.4}, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_step_names_the_example_of_its_batch_and_changes_nothing(fields):
    session = prepared(**fields)
    found = []
    for number, before, after, metrics in first_steps(session):
        indices, _ = session.loader.indices(number)
        if BAD not in indices:
            assert metrics.finite and metrics.watch.fault() is None
            continue
        fault = metrics.watch.fault()
        partners = {BAD} if not fields.get("mixup") else {BAD, indices[::-1].tolist()[-1]}
        assert fault.place == "inputs" and not metrics.finite
        if not fields.get("mixup"):
            assert int(indices[fault.example]) in partners
        found.append(number)
        assert_same_bits(before.params, after.params)
        assert not after.finite
        break
    assert found


def test_the_loss_of_silent_neurons_is_finite():
    """The sample of the fault: loss and accuracy alone tell nothing."""
    metrics = [metrics for *_, metrics in first_steps(prepared())]
    assert np.isfinite([m.loss for m in metrics]).all()
    assert not all(m.finite for m in metrics)


def test_a_run_stops_with_the_example_and_advises_no_learning_rate(tmp_path):
    session = prepared()
    run = training.Run.create(tmp_path / "run", session.experiment, "")
    copied = jax.tree.map(jnp.copy, session.state)
    with pytest.raises(training.errors.NotFiniteError) as error:
        training.fit(dataclasses.replace(session, state=copied), run)
    said = str(error.value)
    assert "the inputs of example" in said and f"number {BAD} of the training examples" in said
    assert "learning rate" not in said and "--learning-rate" not in said
    assert "encode(experiment, inputs, key)" in said and "not_finite" in said
    assert _failures.describe(error.value)[1] == 1


def test_such_batches_can_be_left_out(tmp_path):
    one = experiment(not_finite="skip")
    run = training.Run.create(tmp_path / "run", one, "")
    result = training.fit(training.prepare(one), run)
    assert result.step == 4 and 0 <= result.evaluation.accuracy <= 1
    assert sum(record.get("skipped", 0) for record in run.records()) == 2


def test_evaluation_of_nan_reports_no_accuracy(tmp_path):
    one = experiment(marked="test")
    session = training.prepare(one, training=False)
    with pytest.raises(training.errors.EvaluationError) as error:
        session.evaluate(session.state)
    said = str(error.value)
    example, batch = BAD % BATCH, BAD // BATCH
    assert f"inputs of example {example} of batch {batch} (number {BAD} of the test" in said
    assert "learning rate" not in said
    assert _failures.describe(error.value)[1] == 1


def test_steps_before_a_failed_evaluation_are_saved(tmp_path):
    one = experiment(marked="test")
    run = training.Run.create(tmp_path / "run", one, "")
    session = training.prepare(one)
    with pytest.raises(training.errors.EvaluationError):
        training.fit(session, run)
    _, empty = training.initialize(one, steps=session.steps)
    assert int(training.checkpoints.load_newest(run.checkpoints, empty, warn=print).step) == 2


def test_padding_is_not_watched():
    one = experiment(marked="test", eval_batch=3)
    session = training.prepare(one, training=False)
    # The last batch repeats the first examples at weight 0; here they are the faulty ones.
    batch = session.evaluation_loader.batch(2)
    assert batch.weights.tolist() == [1, 1, 0]
    inputs = batch.inputs.copy()
    inputs[2] = np.nan
    metrics = session.eval(session.state, batch._replace(inputs=inputs))
    assert metrics.watch.fault() is None and bool(jnp.isfinite(metrics.loss))
    inputs[1] = np.nan
    assert session.eval(session.state, batch._replace(inputs=inputs)).watch.fault().example == 1


def test_a_code_of_spikes_hides_nothing():
    """NaN in the inputs of a code that compares with random numbers gives frames of zeros."""

    def coded(experiment, inputs, key):
        return encoding.direct((inputs > 0.5).astype(jnp.float32), timesteps=3)

    one = experiment(marked="none")
    one = training.config.override(one, {})
    session = training.prepare(
        training.Experiment(**{**vars(one), "encode": coded}), training=False
    )
    batch = session.evaluation_loader.batch(0)
    inputs = batch.inputs.copy()
    inputs[2, 0] = np.nan
    fault = session.eval(session.state, batch._replace(inputs=inputs)).watch.fault()
    assert (fault.place, fault.example) == ("inputs", 2)


# Networks whose neurons stand where others have them, too: those of ms_resnet in time.
ALIKE = ("vgg", "averaging", "vgg in time", "ms_resnet")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ())
        for name in networks.NETWORKS
    ],
)
def test_a_membrane_is_named_by_its_layer_and_example(name):
    """Inputs are finite, and a sum of the first layer overflows for one example."""
    shape = networks.NETWORKS[name]().input_shape
    one = experiment(
        marked="test", value=3e38, shape=shape,
        network=lambda e, rngs: networks.NETWORKS[name](),
    )  # fmt: skip
    session = training.prepare(one, training=False)
    with pytest.raises(training.errors.EvaluationError) as error:
        session.evaluate(session.state)
    said = str(error.value)
    assert f"in example {BAD % BATCH} of batch {BAD // BATCH} (number {BAD} of" in said
    layers = {"recurrent": "recurrent_lif1", "grouped": "grouped_lif1", "shared": "lif1"}
    expected = layers.get(name)
    assert f"membranes of layer {expected}" in said if expected else "membranes of layer" in said


@pytest.mark.parametrize(
    "name",
    # Two kinds of stacks in the other order, and one in the slow lane.
    [
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("ms_resnet", "ms_resnet in time")),
        "reversible",
    ],
)
def test_blocks_of_a_stack_report_for_themselves(name):
    network = networks.NETWORKS[name]()
    inputs = networks.inputs_of(network)

    @jax.jit
    def row(inputs, neurons):
        state = network.initial_state(networks.B)._replace(neurons=neurons)
        _, aux = network(inputs, state, training=True, key=jax.random.key(0))
        from snnjax.training._watch import neuron_places, watch

        return watch(neuron_places(network, networks.B, aux), networks.B)

    start = nn.contract.repeat_state(network.initial_state(networks.B)).neurons
    assert row(inputs, start).fault() is None
    paths = jax.tree_util.tree_leaves_with_path(start)
    for path, leaf in paths:
        axis = leaf.shape.index(networks.B) if leaf.ndim == 4 else 1
        index = [slice(None)] * leaf.ndim
        index[axis] = 1
        index[-1] = 0
        poisoned = jax.tree_util.tree_map_with_path(
            lambda p, x, path=path, index=tuple(index): (
                x.at[index].set(jnp.nan) if p == path else x
            ),
            start,
        )
        fault = row(inputs, poisoned).fault()
        assert fault is not None and fault.example == 1, path


def test_targets_are_watched_and_named(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(EXAMPLES, 5)).astype(np.float32)
    targets = rng.normal(size=(EXAMPLES, 3)).astype(np.float32)
    one = training.Experiment(
        name="regression",
        network=hidden,
        dataset=lambda e: data.from_arrays(inputs, targets, inputs, targets, input_shape=(5,)),
        encode=functools.partial(encode, value=0.0),
        task=training.task.regression,
        batch=BATCH,
    )
    session = training.prepare(one)
    batch = training.sharding.feed(session.loader, 0, session.mesh)
    labels = batch.labels.at[2, 1].set(jnp.inf)
    _, metrics = session.train(session.state, batch._replace(labels=labels))
    guard = Guard(one, loader=session.loader)
    with pytest.raises(training.errors.NotFiniteError, match="targets of example 2") as error:
        guard.admits(1, jax.device_get(metrics))
    assert error.value.in_data and "learning" not in guard.cure(error=error.value)


def test_a_bad_example_is_no_overflow_of_float16(tmp_path):
    one = experiment(precision="float16")
    run = training.Run.create(tmp_path / "run", one, "")
    with pytest.raises(training.errors.NotFiniteError, match="the inputs of example"):
        training.fit(training.prepare(one), run)


def test_integer_inputs_cost_no_check():
    batch = data.Batch(jnp.zeros((2, 3), jnp.uint8), jnp.zeros(2, jnp.int32), jnp.ones(2))
    from snnjax.training._watch import data_places

    assert [place[0] for place in data_places(batch, jnp.zeros((1, 2, 3)))] == ["inputs"]


def test_the_first_layer_is_named_before_later_ones_and_data_before_layers():
    first = jnp.array([3, 1, 2], jnp.int32)
    assert Watch(first, ("lif10", "lif2", "targets")).fault().place == "targets"
    assert Watch(first[:2], ("lif10", "lif2")).fault().place == "lif2"


def test_numbers_of_parts_are_those_of_the_batch():
    """Part i holds the examples i, i + parts, ...; a row without a fault stays one."""
    none = np.iinfo(np.int32).max
    rows = [Watch(jnp.array([1, none], jnp.int32), ("a", "b")).renumber(4, i) for i in range(4)]
    first = jnp.stack([row.first for row in rows])
    assert first[:, 0].tolist() == [4, 5, 6, 7] and first[:, 1].tolist() == [none] * 4
    assert Watch(first, ("a", "b")).join().first.tolist() == [4, none]


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_devices_that_share_a_batch_name_the_example_of_the_batch():
    mesh = training.sharding.make_mesh(data=2)
    session = training.prepare(experiment(marked="none"), mesh=mesh)
    for example in range(BATCH):
        batch = session.loader.batch(0)
        inputs = batch.inputs.copy()
        inputs[example] = np.nan
        batch = training.sharding.shard_batch(batch._replace(inputs=inputs), mesh)
        assert session.eval(session.state, batch).watch.fault().example == example
        state = jax.tree.map(jnp.copy, session.state)
        assert session.train(state, batch)[1].watch.fault().example == example
