"""Every experiment file loads, passes its checks and gives one training step, on stand-in data.

Nothing is computed: the step is traced by its shapes, at the sizes written in the file.
"""

import functools
import pathlib
import re
import runpy

import jax
import numpy as np
import pytest

from snnjax import data, encoding, training
from snnjax.data.image_folder import ImageView
from snnjax.data.lazy import LazyInputs

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
FILES = [p for p in sorted(FOLDER.glob("*.py")) if "def config" in p.read_text()]
RECIPES = (
    "asa_snn_dvs", "dsr_cifar", "dsr_dvs", "dsr_imagenet", "efficient_lif_cifar", "ide_cifar",
    "optimal_cifar", "ptl_cifar", "qcfs_cifar", "rev_resnet_cifar", "rev_sformer_cifar",
    "rev_snn_dvs", "spide_cifar", "spide_dvs", "t_revsnn_dvs", "t_revsnn_imagenet",
)  # fmt: skip
"""The papers' own, which were not run: too long for two cores."""

SLOW = {
    "asa_snn_dvs", "dsr_cifar", "dsr_dvs", "dsr_fashion_mnist", "dsr_imagenet",
    "efficient_lif_cifar", "fsdd_delays", "ide_cifar", "ide_fashion_mnist", "nmnist", "ptl_cifar",
    "qcfs_cifar",
    "qcfs_cifar10", "quantized_fashion_mnist", "rev_resnet_1005", "rev_resnet_cifar",
    "rev_resnet_cifar10", "rev_sformer_cifar", "rev_sformer_fashion_mnist", "rev_snn_dvs",
    "spide_cifar", "spide_dvs", "t_revsnn_dvs", "t_revsnn_fashion_mnist", "t_revsnn_imagenet",
}  # fmt: skip
"""Seconds of tracing each; one of a family stays in the default lane."""

VARIANTS = [
    ("angular_velocity", {"kind": "ann", "recordings": 2}),
    ("asa_snn", {"source": "fashion_mnist", "attention": "half"}),
    ("asa_snn_dvs", {"source": "dvs128_gait_day", "attention": "none"}),
    ("asa_snn_dvs", {"source": "dvs128_gait_night", "attention": "union", "epochs": 100}),
    ("nmnist", {"architecture": "rev_resnet24", "timesteps": 6, "batch": 16}),
    ("efficient_lif_cifar", {"architecture": "vgg16", "sharing": "layer"}),
    ("efficient_lif_cifar", {"compat": True, "sharing": "none", "source": "cifar100"}),
    ("efficient_lif_cifar", {"memory": "time=recompute(5)"}),
    ("fsdd", {"cell": "v1"}),
    ("fsdd", {"cell": "lstm"}),
    ("fsdd", {"lengths": True}),
    ("fsdd_delays", {"delays": "synapses", "width": 1.0}),
    ("fsdd_delays", {"delays": "none"}),
    ("marked_recall", {"cell": "leaky"}),
    ("parallel_digits", {"neuron": "masked_psn"}),
    ("parallel_digits", {"neuron": "sliding_psn"}),
    ("parallel_digits", {"neuron": "reset_free_lif"}),
    ("quantized_fashion_mnist", {"bits": 2, "memory": "depth=recompute(1), pack=True"}),
    ("quantized_fashion_mnist", {"shared_scale": True, "memory": "pack=True"}),
    ("rev_resnet_cifar", {"depth": 37, "source": "cifar100", "milestones": (0.3, 0.6, 0.8)}),
    ("rev_resnet_cifar", {"depth": 109, "bits": None}),
    ("rev_resnet_cifar", {"baseline": True}),
    ("rev_sformer_cifar", {"depth": 4, "source": "cifar100", "heads": 8}),
    ("rev_sformer_cifar", {"baseline": True}),
    ("rev_snn_dvs", {"architecture": "former", "weight_decay": 0.06}),
    ("rev_snn_dvs", {"source": "dvs128_gesture", "epochs": 202, "timesteps": 16}),
    ("rev_snn_dvs", {"baseline": True}),
    ("rev_snn_dvs", {"baseline": True, "architecture": "former"}),
    ("stdp_mnist", {"source": "fashion_mnist", "model": "fspinn"}),
    ("stdp_mnist", {"model": "conductance", "neurons": 20}),
    ("sub_bit_fashion_mnist", {"bits_per_kernel": 0}),
    ("sub_bit_fashion_mnist", {"bits_per_kernel": 4, "pattern_speed": 10.0}),
    ("t_revsnn_imagenet", {"size": "tiny", "batch": 512, "memory": "time=reverse", "bits": 12}),
    ("t_revsnn_dvs", {"source": "dvs128_gesture", "bits": 12, "memory": "time=reverse"}),
    ("ide_mnist", {"source": "nmnist", "decay": 0.95}),
    ("ide_mnist", {"solver": "neumann", "solver_iterations": 2, "timesteps": 4, "batch": 64}),
    ("ide_fashion_mnist", {"memory": "time=recompute(sqrt)"}),
    ("ide_cifar", {"architecture": "cifarnet", "source": "cifar100", "decay": 0.99}),
    ("optimal_cifar", {"architecture": "cifarnet", "source": "cifar100"}),
    ("optimal_cifar", {"architecture": "resnet20"}),
    ("ptl_cifar", {"architecture": "vgg11"}),
    ("qcfs_cifar", {"architecture": "resnet18", "levels": 8}),
    ("qcfs_cifar", {"architecture": "resnet20", "source": "cifar100"}),
    ("spide_mnist", {"architecture": "convnet"}),
    ("spide_mnist", {"architecture": "lenet"}),
    ("spide_cifar", {"architecture": "cifarnet", "source": "cifar100", "backward_scale": 500.0}),
    ("dsr_cifar", {"neuron": "if", "source": "cifar100"}),
    ("dsr_dvs", {"neuron": "if"}),
    ("dsr_mnist", {"neuron": "lif", "timesteps": 20, "equilibrium": False}),
    ("dsr_fashion_mnist", {"neuron": "lif", "memory": "time=store"}),
]

SMALL = {"angular_velocity": {"recordings": 2}, "moving_dots": {"sequences": 50}}
"""Fields that shorten data drawn by the file itself."""


def recordings(count, size):
    draw = np.random.default_rng(0).integers
    columns = [(0, 1000), (0, size), (0, size), (0, 2)]
    stack = [np.stack([draw(*c, 40, np.int32) for c in columns], 1) for _ in range(count)]
    return [events[np.argsort(events[:, 0])] for events in stack]


def photographs(labels, path):
    """Views of one image, in place of ImageNet's."""
    pytest.importorskip("PIL.Image").new("RGB", (300, 260)).save(path)
    split = data.Split(LazyInputs((path,) * len(labels), ImageView()), labels)
    names = tuple(map(str, range(1000)))
    return data.Dataset("imagenet", split, split, 1000, names, (224, 224, 3), 1 / 255, "")


def stand_in(name, *, folder, data_dir=None):
    """A few examples in the shapes of a data set."""
    del data_dir
    classes = {"cifar100": 100, "dvs128_gesture": 11, "hapt": 6}.get(name, 10)
    classes = 20 if name.startswith("dvs128_gait") else classes
    labels = np.arange(50, dtype=np.int32) % classes
    if name == "qtdb_ecg":
        split = data.Split(np.zeros((50, 1301, 4), "int8"), np.zeros((50, 1301), "int32"))
        return data.Dataset(name, split, split, 6, tuple("abcdef"), (1301, 4), 1.0, "")
    if name == "fsdd":
        split = data.Split(tuple(np.ones((400, 1), "int16") for _ in labels), labels)
        return data.Dataset(name, split, split, 10, tuple("0123456789"), (1,), 2.0**-15, "")
    if name == "imagenet":
        return photographs(labels, folder / "photograph.png")
    shapes = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "hapt": (128, 6)}
    if name in ("nmnist", "cifar10_dvs") or name.startswith("dvs128"):
        size = 34 if name == "nmnist" else 128
        inputs, shape = recordings(len(labels), size), (size, size, 2)
    else:
        assert name in shapes or name.startswith("cifar"), name
        shape = shapes.get(name, (32, 32, 3))
        inputs = np.zeros((len(labels), *shape), "float32" if name == "hapt" else "uint8")
    names = tuple(map(str, range(classes)))
    splits = (inputs, labels, inputs, labels)
    return data.from_arrays(*splits, name=name, class_names=names, input_shape=shape)


@pytest.fixture(autouse=True)
def no_files(monkeypatch, tmp_path):
    real, made = data.load, functools.partial(stand_in, folder=tmp_path)
    load = lambda name, **options: (real if name == "digits" else made)(name, **options)  # noqa: E731
    monkeypatch.setattr(data, "load", load)


def traced(experiment):
    """Metrics of one step and outputs in evaluation, as shapes, and the data set."""
    training.config.check(experiment)
    dataset = training.config.load_dataset(experiment)
    one = data.Loader(dataset.train, batch_size=1).batch(0)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((experiment.batch, *x.shape[1:]), x.dtype), one
    )
    programs = []

    def begin():
        program, state = training.initialize(experiment, steps=10 * experiment.epochs)
        programs.append(program)
        return state

    state = jax.eval_shape(begin)
    (program,) = programs

    def judge(state, batch):
        frames = experiment.encode(experiment, batch.inputs, None)
        network = program.network(state)
        return network(frames, network.initial_state(experiment.batch), training=False)[0]

    after, metrics = jax.eval_shape(functools.partial(training.train_step, program), state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    return metrics, jax.eval_shape(judge, state, batch), dataset


def assert_learns(experiment):
    """One step of an experiment that learns by plasticity."""
    training.config.check(experiment)
    dataset = training.config.load_dataset(experiment)
    one = data.Loader(dataset.train, batch_size=1).batch(0)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((experiment.batch, *x.shape[1:]), x.dtype), one
    )
    learner, state = training.unsupervised.initialize(experiment, classes=dataset.classes)
    after, metrics = jax.eval_shape(
        functools.partial(training.unsupervised.train_step, learner), state, shapes
    )
    assert metrics.loss.shape == () and metrics.loss.dtype == np.float32
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), after, state)
    assert all(jax.tree.leaves(same))


def assert_trains(experiment):
    if experiment.learns_by == "plasticity":
        assert_learns(experiment)
        return
    metrics, outputs, dataset = traced(experiment)
    assert metrics.loss.shape == () and metrics.loss.dtype == np.float32
    size = dataset.classes or dataset.train.labels.shape[-1]
    assert outputs.ndim == 3 and outputs.shape[1:] == (experiment.batch, size)


def config_of(name, **fields):
    return training.config.override(training.config.load_experiment(FOLDER / f"{name}.py"), fields)


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow) if p.stem in SLOW else p for p in FILES],
    ids=lambda p: p.stem,
)
def test_an_experiment_gives_a_training_step(path):
    assert_trains(config_of(path.stem, **SMALL.get(path.stem, {})))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fields"), VARIANTS, ids=lambda v: str(v))
def test_a_variant_gives_a_training_step(name, fields):
    assert_trains(config_of(name, **fields))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("rev_sformer_cifar", {"depth": 1, "width": 16, "heads": 2, "batch": 8}),
        ("rev_snn_dvs", {"batch": 2, "timesteps": 2}),
    ],
)
def test_a_recipe_takes_steps(name, fields):
    """Augmentation, mixup, schedule and optimizer together, in numbers."""
    experiment = config_of(name, **fields)
    dataset = training.config.load_dataset(experiment)
    loader = data.Loader(dataset.train, batch_size=experiment.batch)
    program, state = training.initialize(experiment, steps=20 * experiment.epochs)
    step = jax.jit(functools.partial(training.train_step, program))
    before = state
    for number in range(3):
        state, metrics = step(state, loader.batch(number))
        assert metrics.finite and metrics.gradient_norm > 0
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, state.params)
    assert np.mean(jax.tree.leaves(moved)) > 0.9


@pytest.mark.slow  # two epochs, half a minute
def test_moving_dots_are_learned():
    """Spike response neurons beat the mean of the targets, which is 0.95 away."""
    session = training.prepare(config_of("moving_dots", epochs=2))
    state = session.state
    for number in range(session.steps):
        state, _ = session.train(state, session.loader.batch(number))
    targets = session.dataset.test.labels[:, 0]
    mean = session.dataset.train.labels[:, 0].mean(0)
    baseline = np.linalg.norm(targets - mean, axis=-1).mean()
    assert 0.9 < baseline < 1.0
    assert session.evaluate(state).loss < 0.75 * baseline


@pytest.mark.fast
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_experiment_says_what_it_needs_and_what_to_expect(path):
    training.config.check(training.config.load_experiment(path))
    doc = path.read_text().split('"""')[1]
    for word in ("Hardware:", "Time:", "Expected:", "Command:"):
        assert word in doc or "default_experiment" in doc, word
    if path.stem in RECIPES:
        assert "published" in doc and "not run (needs a GPU)" in doc and "Left out:" in doc


@pytest.mark.fast
@pytest.mark.parametrize("name", RECIPES)
def test_command_lines_name_fields_of_the_experiment(name):
    """Fields in the docstring of a recipe are fields of its experiment."""
    experiment = config_of(name)
    doc = (FOLDER / f"{name}.py").read_text().split('"""')[1]
    # The options of `snnjax convert` are its own.
    doc = "\n".join(line for line in doc.splitlines() if "snnjax convert" not in line)
    for option in re.findall(r"--([a-z][a-z-]*)", doc):
        assert option.replace("-", "_") in training.config.plain_fields(experiment), option


@pytest.mark.fast
def test_symmetries_of_a_stream_are_those_of_its_camera():
    """A camera rolled by quarter turns, and one before a mirrored photograph."""
    file = runpy.run_path(str(FOLDER / "angular_velocity.py"))
    # Multiples of the renderer's blocks of 3 pixels, so that a mirror image has the same blocks.
    image = np.random.default_rng(0).uniform(0, 1, (24, 36))
    velocity = np.array([3.0, 1.0, 4.0])

    def frames(turn, image, velocity):
        events = data.rotation.render(
            image, np.tile(velocity, (20, 1)), orientation=turn, height=6, width=6, contrast=0.02
        )
        return encoding.events.frames_by_time(
            events, timesteps=4, height=6, width=6, start=0, duration=20_000
        )

    first = frames(np.eye(3), image, velocity)
    assert first.sum() > 50
    inputs, targets = file["symmetries"](first[None], np.tile(velocity, (1, 4, 1)))
    roll = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    for number in range(8):
        turn = np.linalg.matrix_power(roll, number // 2)
        scene, axes = (image[:, ::-1], velocity * (1, -1, -1)) if number % 2 else (image, velocity)
        np.testing.assert_allclose(targets[number], np.tile(axes @ turn, (4, 1)), atol=1e-12)
        np.testing.assert_array_equal(inputs[number], frames(turn, scene, axes @ turn))


@pytest.mark.fast
def test_recipes_are_those_of_the_papers():
    epochs = {
        "rev_resnet_cifar": (0, 99, 101, 151),
        "rev_sformer_cifar": (0, 20, 305),
        "rev_snn_dvs": (0, 10, 100),
        "t_revsnn_dvs": (0, 20, 300),
        "t_revsnn_imagenet": (0, 20, 300),
        "efficient_lif_cifar": (0, 150, 300),
        "asa_snn_dvs": (0, 100, 200),
        "dsr_cifar": (0, 101, 200),
        "dsr_dvs": (0, 153, 300),
        "dsr_imagenet": (0, 45, 90),
        "ide_cifar": (0, 49, 51, 76),
        "optimal_cifar": (0, 99, 101, 141),
        "ptl_cifar": (0, 99),
        "qcfs_cifar": (0, 150, 300),
        "spide_cifar": (0, 49, 51, 76),
        "spide_dvs": (0, 49, 51),
    }
    assert set(epochs) == set(RECIPES)
    rates = {}
    for name in RECIPES:
        experiment = config_of(name)
        schedule = experiment.schedule(experiment, 10 * experiment.epochs)
        rates[name] = [float(schedule(10 * epoch)) for epoch in epochs[name]]
    close = functools.partial(pytest.approx, rel=1e-4, abs=1e-9)
    assert rates["rev_resnet_cifar"] == close([0.1, 0.1, 0.01, 0.001])
    assert rates["rev_sformer_cifar"] == close([1e-5, 5e-4, 1e-5])
    assert rates["rev_snn_dvs"] == close([1e-5, 1e-3, 1e-5])
    assert rates["t_revsnn_dvs"] == close([1e-5 / 16, 2e-3 / 16, 1e-6 / 16])
    assert rates["t_revsnn_imagenet"] == close([4e-5, 8e-3, 4e-6])
    assert rates["efficient_lif_cifar"] == close([0.1, 0.05, 0.0])
    assert rates["asa_snn_dvs"] == close([1e-4, 5.05e-5, 1e-6])
    assert rates["dsr_cifar"] == pytest.approx([0.0, 0.05, 0.0], abs=1e-3)
    assert rates["dsr_dvs"] == pytest.approx([0.0, 0.025, 0.0], abs=1e-3)
    assert rates["dsr_imagenet"] == pytest.approx([0.0, 5e-4, 0.0], abs=1e-5)
    assert rates["ide_cifar"] == rates["spide_cifar"] == close([0.0, 0.05, 0.005, 0.0005])
    assert rates["optimal_cifar"] == close([1e-3, 1e-3, 1e-4, 1e-5])
    assert rates["qcfs_cifar"] == close([0.1, 0.05, 0.0])
    assert rates["ptl_cifar"] == close([1e-3, 1e-3])
    assert rates["spide_dvs"] == close([0.05, 0.05, 0.005])
