"""Wrong values from one seeded generator, for the command line and for the Python interface.

At the command line each is one message and exit code 2, without a traceback or a new file. In
Python each is refused by the library itself: the last frame of the traceback lies in the package.
"""

import dataclasses
import json
import math
import pathlib
import random
import traceback

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import snnjax
from snnjax import (
    data,
    encoding,
    export,
    losses,
    memory,
    metrics,
    models,
    neurons,
    nn,
    readout,
    surrogate,
    training,
)
from snnjax.cli import main
from tests.training import micro

SEED, FAST, ALL = 22, 25, 300
PACKAGE = pathlib.Path(snnjax.__file__).parent
NAN, INFINITY = math.nan, math.inf

# --- values that are wrong for each kind of parameter

TEXTS = [
    "", " ", "x", "1,5", "--", "[/bold]", "[red]", "{", "%s", "\x1b[31m", "a\nb", "\u202e",
    "ß" * 40, "n" * 5000, "None", "[]", "1 2", "0x10", "1e", "\udcff", "'",
]  # fmt: skip
KINDS = {
    "share": [0.0, -0.1, 1.5, NAN, INFINITY, -INFINITY, "half"],  # of (0, 1]
    "filter": [-0.1, 1.5, NAN, INFINITY, "half"],  # of [0, 1]: 0 is a synapse without memory
    "rate": [-0.1, 1.0, 1.5, NAN, INFINITY],  # of [0, 1)
    "positive": [0.0, -1.0, NAN, -INFINITY],
    "count": [0, -1, -7, 2.5, NAN, "three"],
    "spike": ["atan", "sigmoid", 2.0, True],
    "layer": [lambda x: x, jnp.tanh, 3, "LIF", nn.LIF],
    "strategy": ["deph=store", "depth=recompute(", "depth=recompute(0)", "time=", "x", "depth=1"],
    "order": ["times", "", "depth", 3],
    "mesh": ["rows=2", "data", "data=x", "data=2,data=2", "="],
    "text": TEXTS[2:],
}  # fmt: skip


def rngs():
    return nnx.Rngs(0)


def in_sequence(layer):
    return nn.Sequential(nn.Flatten(), layer)


NEURONS = {"decay": "share", "threshold": "positive", "spike": "spike"}
IMAGE = {"input_shape": (8, 8, 1)}
# Function, arguments that it admits, and the kind of each parameter that is made wrong.
API = [
    *[(make, {}, NEURONS) for make in (nn.LIF, nn.PLIF, nn.ALIF, nn.CubaLIF, nn.CoupledLIF)],
    (nn.IF, {}, {"threshold": "positive", "spike": "spike"}),
    (nn.LI, {}, {"decay": "share"}),
    (nn.MALIF, {}, {"decay": "share", "threshold": "positive"}),
    (nn.CubaLIF, {}, {"synaptic_decay": "filter"}),
    (nn.ALIF, {}, {"adaptation_decay": "share"}),
    *[(make, {}, NEURONS) for make in (neurons.lif_model, neurons.plif_model, neurons.alif_model)],
    (neurons.cuba_lif_model, {}, {**NEURONS, "synaptic_decay": "filter"}),
    (neurons.integrate_fire_model, {}, {"threshold": "positive", "spike": "spike"}),
    (nn.SRM, {}, {"threshold": "positive", "spike": "spike"}),
    (nn.AdEx, {}, {"spike": "spike"}),
    (nn.Izhikevich, {}, {"spike": "spike"}),
    (neurons.refractory_model, {"model": neurons.lif_model()}, {"period": "count"}),
    (nn.Integrator, {"size": 3}, {"size": "count"}),
    (nn.Delay, {"size": 3, "longest": 4, "delays": 1.0}, {"size": "count", "longest": "count"}),
    (
        nn.DelayedLinear,
        {"inputs": 3, "outputs": 2, "longest": 4},
        {"inputs": "count", "outputs": "count", "longest": "count"},
    ),
    (models.recurrent_net, {"inputs": 4}, {"hidden": "count", "layers": "count"}),
    (nn.Linear, {"inputs": 4, "outputs": 3}, {"inputs": "count", "outputs": "count"}),
    (nn.Conv, {"inputs": 2, "outputs": 3}, {"inputs": "count", "outputs": "count"}),
    (nn.ScaledStdConv, {"inputs": 2, "outputs": 3}, {"inputs": "count", "outputs": "count"}),
    (nn.BatchNorm, {"channels": 4}, {"channels": "count"}),
    (nn.LayerNorm, {"channels": 4}, {"channels": "count"}),
    (nn.GroupNorm, {"channels": 4, "groups": 2}, {"channels": "count", "groups": "count"}),
    (nn.Dropout, {"rate": 0.1}, {"rate": "rate"}),
    (in_sequence, {"layer": nn.LIF()}, {"layer": "layer"}),
    (models.mlp, {**IMAGE}, {"classes": "count"}),
    (models.conv_net, {**IMAGE, "hidden": 8, "channels": (2, 2)}, {"classes": "count"}),
    (models.vgg, {**IMAGE, "stages": ((2,), (2,))}, {"classes": "count"}),
    (models.ms_resnet, {"depth": 18}, {"classes": "count"}),
    (surrogate.arctan, {}, {"alpha": "positive"}),
    (surrogate.fast_sigmoid, {}, {"alpha": "positive"}),
    (surrogate.sigmoid, {}, {"alpha": "positive"}),
    (surrogate.triangle, {}, {"alpha": "positive"}),
    (surrogate.gaussian, {}, {"sigma": "positive"}),
    (surrogate.exponential, {}, {"height": "positive", "width": "positive"}),
    (surrogate.rectangular, {}, {"width": "positive"}),
    (memory.recompute, {"every": 2}, {"every": "count"}),
    (memory.reversal, {}, {"refresh": "count"}),
    (memory.parse_strategy, {"text": ""}, {"text": "strategy"}),
    (training.sharding.parse_mesh, {"text": ""}, {"text": "mesh"}),
    (encoding.direct, {"inputs": jnp.ones((2, 3))}, {"timesteps": "count"}),
    (encoding.latency, {"inputs": jnp.ones((2, 3))}, {"timesteps": "count"}),
    (encoding.poisson, {"key": jax.random.key(0), "rates": jnp.ones(3)}, {"timesteps": "count"}),
    (encoding.population, {"values": jnp.ones(3)}, {"neurons": "count"}),
    (export.load, {"path": "x"}, {"path": "text"}),
    (export.load_weights, {"path": "x", "like": ()}, {"path": "text"}),
    (training.config.load_experiment, {"path": "x.py"}, {"path": "text"}),
    (training.Run.open, {"path": "x"}, {"path": "text"}),
]
WITH_RNGS = {
    nn.Linear, nn.Conv, nn.ScaledStdConv, nn.LayerNorm, nn.GroupNorm, models.mlp, models.conv_net,
    models.vgg, models.ms_resnet, nn.Integrator, nn.DelayedLinear, models.recurrent_net,
}  # fmt: skip

FRAMES, LABELS = jnp.ones((4, 2, 3)), jnp.zeros(2, int)


def arrays_of_other_shapes(draw):
    """A function of arrays with one array that does not fit the others."""
    other = jnp.ones(draw.choice([(5,), (2, 2, 2), (), (0,)]))
    return draw.choice(
        [
            ("losses.mean", lambda: losses.mean(jnp.ones(3), weights=other)),
            ("losses.cross_entropy", lambda: losses.cross_entropy(jnp.ones((2, 3)), other)),
            ("rate_cross_entropy", lambda: losses.rate_cross_entropy(FRAMES, other)),
            ("readout.rate", lambda: readout.rate(other)),
            ("readout.last", lambda: readout.last(other)),
            ("metrics.accuracy", lambda: metrics.accuracy(jnp.ones((2, 3)), other)),
            ("data.from_arrays", lambda: data.from_arrays(
                jnp.ones((4, 2)), other, jnp.ones((4, 2)), jnp.zeros(4, int))),
            ("smoothing", lambda: losses.cross_entropy(
                jnp.ones((2, 3)), LABELS, label_smoothing=draw.choice(KINDS["rate"]))),
        ]
    )  # fmt: skip


FIELDS = {
    "timesteps": "count", "batch": "count", "epochs": "count", "learning_rate": "positive",
    "label_smoothing": "rate", "clip_norm": "positive", "keep": "count", "seed": "count",
    "name": "number", "precision": "text", "not_finite": "text", "memory": "order",
}  # fmt: skip


def experiment_with(field, value):
    training.config.check(dataclasses.replace(micro.config(), **{field: value}))


def api_case(draw):
    """Description and call of a function with one wrong value."""
    source = draw.random()
    if source < 0.1:
        return arrays_of_other_shapes(draw)
    if source < 0.2:
        field = draw.choice(sorted(FIELDS))
        values = [3, 2.5, NAN] if field == "name" else KINDS[FIELDS[field]]
        # A seed of 0 is right.
        value = draw.choice([v for v in values if not (field == "seed" and v == 0)])
        return f"Experiment({field}={value!r})", lambda: experiment_with(field, value)
    function, arguments, kinds = draw.choice(API)
    name = draw.choice(sorted(kinds))
    value = draw.choice(KINDS[kinds[name]])
    arguments = {**arguments, name: value}
    if function in WITH_RNGS:
        arguments["rngs"] = rngs()
    text = f"{getattr(function, '__name__', function)}({name}={value!r})"[:200]
    return text, lambda: function(**arguments)


def last_frame(error):
    """File of the last frame, without those that JAX hides."""
    return pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)


def check_api(seed, number):
    draw, faults = random.Random(seed), []
    for _ in range(number):
        text, call = api_case(draw)
        try:
            call()
        except Exception as error:
            if not last_frame(error).is_relative_to(PACKAGE):
                faults.append(f"{text}: {type(error).__name__} from {last_frame(error)}: {error}")
            elif not str(error):
                faults.append(f"{text}: no message")
        else:
            faults.append(f"{text}: accepted")
    assert not faults, f"{len(faults)} of {number}:\n" + "\n".join(sorted(set(faults)))


# --- the command line

NUMBERS = ["", "x", "nan", "inf", "1,5", "--", "1e999", "0x10", "[1]", "9" * 5000, "None", "\x1b"]
WORDS = [
    "",
    "\x1b[31mred",
    "a\nb",
    "[/bold]",
    "[red]",
    "{0}",
    "%s",
    "ß",
    "\udcff",
    "../..",
    "n" * 5000,
]
COUNTS = [*NUMBERS, "0", "-1", "1.5", "true"]
POSITIVE = [*NUMBERS, "0", "-1"]
PATHS = [
    "",
    "nowhere",
    "/dev/null",
    "/dev/null/x",
    "n" * 5000,
    "a\nb",
    "\x1b]0;x\x07",
    "\udcff",
    "[x]*",
]
OPTIONS = {
    "--timesteps": COUNTS, "--batch": COUNTS, "--epochs": COUNTS, "--width": NUMBERS,
    "--accumulate": COUNTS, "--log-every": COUNTS, "--keep": COUNTS, "--checkpoint-every": COUNTS,
    "--learning-rate": POSITIVE, "--weight-decay": [*NUMBERS, "-1"], "--mixup": [*NUMBERS, "-1"],
    "--label-smoothing": [*NUMBERS, "1", "-0.5"], "--seed": [*NUMBERS, "-1", str(2**40)],
    "--precision": [w for w in WORDS if w], "--not-finite": WORDS, "--name": ["", "a/b", "a\0b"],
    "--memory": [*[w for w in WORDS if w], "depth=recompute(0)", "depth=reverse", "time=store,"],
    "--mesh": [*[w for w in WORDS if w], "data=0", "data=9999", "rows=2", "data=-2"],
    "--processes": [*[n for n in NUMBERS if n != "None"], "2"],
    "--coordinator": [*[w for w in WORDS if w], "here", "here:x"],
    "--out": ["", "/dev/null/x", "n" * 5000, "taken"], "--resume": PATHS, "--data-dir": [],
}  # fmt: skip
PATH_COMMANDS = ("eval", "show", "redundancy", "export", "cost")
OTHERS = [
    ["plan", micro.__file__, "--budget"], ["check", micro.__file__, "--strategies"],
    ["memory", micro.__file__, "--timesteps"], ["memory", micro.__file__, "--strategies"],
    ["cost", "--models"], ["plan", micro.__file__, "--budget", "1GB", "--largest"],
    ["fspinn", "search", micro.__file__, "--grid"], ["check", micro.__file__, "--repeats"],
]  # fmt: skip


def cli_case(draw):
    """Arguments with one fault."""
    source = draw.random()
    if source < 0.5:
        name = draw.choice(sorted(name for name, values in OPTIONS.items() if values))
        value = draw.choice(OPTIONS[name])
        file = [] if name == "--resume" else [micro.__file__]
        return ["train", *file, *([name, value] if draw.random() < 0.5 else [f"{name}={value}"])]
    if source < 0.65:
        return [draw.choice(PATH_COMMANDS), draw.choice(PATHS)]
    if source < 0.8:
        return [*draw.choice(OTHERS), draw.choice([word for word in WORDS if word.strip()])]
    if source < 0.9:
        return ["train", draw.choice(PATHS)]
    words = [*PATH_COMMANDS, "train", "plan", "check", "memory", "info", "fspinn", "fly", "\x1b"]
    return [draw.choice(words), f"--{draw.choice(TEXTS[2:])}", draw.choice(TEXTS)]


def check_cli(seed, number, capsys, folder):
    draw, faults = random.Random(seed), []
    (folder / "taken").mkdir()
    (folder / "taken" / "file").write_text("")
    before = sorted(folder.rglob("*"))
    for _ in range(number):
        arguments = cli_case(draw)
        capsys.readouterr()
        try:
            code = main(argv=[*arguments, "--json"])
        except BaseException as error:
            faults.append(f"{arguments}: {type(error).__name__} {error}")
            continue
        out, err = capsys.readouterr()
        said = json.loads(out.splitlines()[-1])
        fault = (
            f"code {code}" if code != 2 or said["exit_code"] != 2
            else "traceback" if "Traceback" in err
            else "not one line" if err.count("\n") != 1 or not err[:-1].isprintable()
            else "new files" if sorted(folder.rglob("*")) != before
            else None
        )  # fmt: skip
        if fault:
            faults.append(f"{[a[:40] for a in arguments]}: {fault}: {err[:200]!r}")
            before = sorted(folder.rglob("*"))
    assert not faults, f"{len(faults)} of {number}:\n" + "\n".join(sorted(set(faults)))


def test_wrong_values_in_python_are_refused_by_the_library():
    check_api(SEED, FAST)


@pytest.mark.slow
def test_wrong_values_in_python_are_refused_by_the_library_all():
    check_api(SEED + 1, ALL)


def test_wrong_words_at_the_command_line_are_one_message(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_cli(SEED, FAST, capsys, tmp_path)


@pytest.mark.slow
def test_wrong_words_at_the_command_line_are_one_message_all(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_cli(SEED + 1, ALL, capsys, tmp_path)
