"""Wrong options are refused by the constructor that is given them, with the admitted values."""

import pathlib
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import snnjax
from snnjax import losses, memory, metrics, neurons, nn, quantization, readout, viz

pytestmark = pytest.mark.fast

PACKAGE = str(pathlib.Path(snnjax.__file__).parent)
NAN, INF = float("nan"), float("inf")
COUNT = [0, -1, 1.5, "3", True, NAN, [], np.float32(2)]
POSITIVE = [0, -1.0, NAN, INF, "1", None, True]
EPSILON = [-1.0, NAN, INF, "1", None, True]
NUMBER = [NAN, INF, -INF, "1", None]
SHARE = [-0.1, 1.5, NAN, "half"]
FLAG = ["false", 1, 0.0]
CHOICE = ["other", 3, NAN, ["window"]]
LAYER = [jax.nn.relu, lambda x: x, "lif", None, 3, nn.LIF, nn.Sequential, nnx.Linear]
NEURON = [nn.LIF, neurons.lif_model(), "lif", None]
RNGS = [0, None, "seed"]
SCAN = ["store", 3, memory.Strategy()]


def rngs():
    return nnx.Rngs(0)


def make_block(r):
    return nn.Sequential(nn.Linear(4, 4, rngs=r), nn.LIF())


# Constructor, right options, and the wrong values of each option.
CONSTRUCTORS = [
    (nn.Linear, {"inputs": 3, "outputs": 2, "rngs": rngs()},
     {"inputs": COUNT, "outputs": COUNT, "use_bias": FLAG, "rngs": RNGS, "pack": ["bits", 3]}),
    (nn.Conv, {"inputs": 2, "outputs": 2, "rngs": rngs()},
     {"inputs": COUNT, "outputs": COUNT, "kernel": COUNT, "strides": COUNT, "groups": COUNT + [3],
      "use_bias": FLAG, "rngs": RNGS}),
    (nn.ScaledStdConv, {"inputs": 2, "outputs": 2, "rngs": rngs()},
     {"inputs": COUNT, "outputs": COUNT, "kernel": COUNT + [2], "strides": COUNT, "rngs": RNGS}),
    (nn.SubBitConv, {"inputs": 2, "outputs": 2, "bits_per_kernel": 3, "rngs": rngs()},
     {"inputs": COUNT, "outputs": COUNT, "strides": COUNT, "bits_per_kernel": [0, 10, 1.5, "3"],
      "learn_codebook": FLAG, "use_bias": FLAG, "rngs": RNGS}),
    (nn.Fold, {"function": nn.synapses.flatten},
     {"function": [None, 3, nnx.Linear], "keeps_spikes": FLAG}),
    (nn.AvgPool, {}, {"window": COUNT, "strides": [0, -1, 1.5, "2"]}),
    (nn.MaxPool, {}, {"window": COUNT, "strides": [0, -1, 1.5, "2"]}),
    (nn.BatchNorm, {"channels": 3},
     {"channels": COUNT, "over": CHOICE, "groups": COUNT, "momentum": SHARE, "epsilon": EPSILON,
      "gain": NUMBER, "scale": NUMBER}),
    (nn.GroupNorm, {"channels": 4, "groups": 2, "rngs": rngs()},
     {"channels": COUNT, "groups": COUNT + [3], "epsilon": EPSILON, "rngs": RNGS}),
    (nn.LayerNorm, {"channels": 4, "rngs": rngs()},
     {"channels": COUNT, "epsilon": EPSILON, "rngs": RNGS}),
    (nn.Dropout, {"rate": 0.5}, {"rate": [*SHARE, 1.0], "each_step": FLAG}),
    (nn.Neuron, {"model": neurons.lif_model()},
     {"model": ["lif", None, nn.LIF, neurons.lif], "scan": SCAN,
      "learn": ["decay", ("rate",), (3,)]}),
    (nn.LIF, {}, {"scan": SCAN, "learn": ["decay", ("rate",)]}),
    (nn.Recurrent, {"neuron": nn.LIF(), "size": 3, "rngs": rngs()},
     {"neuron": NEURON, "size": COUNT, "gain": NUMBER, "rngs": RNGS}),
    (nn.Grouped, {"neuron": nn.LIF(), "groups": 2}, {"neuron": NEURON, "groups": COUNT}),
    (nn.Shared, {"synapses": [nn.Linear(3, 3, rngs=rngs())], "neuron": nn.LIF()},
     {"synapses": [[], [jax.nn.relu], [nn.LIF]], "neuron": NEURON, "scan": SCAN,
      "shortcuts": [(jax.nn.relu,)]}),
    (nn.PSN, {"timesteps": 4, "rngs": rngs()},
     {"timesteps": COUNT, "order": [0, 5, 1.5, "2"], "rngs": RNGS}),
    (nn.PSN, {"timesteps": 4, "order": 2, "rngs": rngs()}, {"masking": SHARE}),
    (nn.SlidingPSN, {"order": 2}, {"order": COUNT, "scan": SCAN}),
    (nn.ASA, {"timesteps": 4, "rngs": rngs()},
     {"timesteps": COUNT, "reduction": COUNT + [5], "share": [*SHARE, 0, 1], "mode": CHOICE,
      "gate": CHOICE, "rngs": RNGS}),
    (nn.MA, {"kind": "TCA", "timesteps": 4, "channels": 8, "time_reduction": 2, "rngs": rngs()},
     {"kind": CHOICE, "timesteps": COUNT, "channels": COUNT, "time_reduction": COUNT + [5],
      "channel_reduction": COUNT + [9], "relu": FLAG, "rngs": RNGS}),
    (nn.SpikingSelfAttention, {"channels": 4, "heads": 2, "rngs": rngs()},
     {"channels": COUNT, "heads": COUNT + [3], "scale": NUMBER, "threshold": NUMBER,
      "use_bias": FLAG, "spikes_out": FLAG, "rngs": RNGS}),
    (nn.SpikeDrivenAttention, {"channels": 4, "rngs": rngs()},
     {"channels": COUNT, "threshold": NUMBER, "rngs": RNGS}),
    (nn.Disabled, {}, {"threshold": NUMBER}),
    (nn.SharedScale, {"synapse": nn.Linear(3, 3, use_bias=False, rngs=rngs())},
     {"synapse": [nn.LIF(), None, "conv"], "bits": [*COUNT, 1, 9], "decay": [0, 1.5, NAN, "1"],
      "threshold": POSITIVE, "scan": SCAN}),
    (nn.Stacked, {"block": make_block, "depth": 2, "rngs": rngs()},
     {"block": [nn.LIF(), None, "block", lambda r: None], "depth": COUNT, "scan": SCAN,
      "rngs": RNGS}),
    (nn.Reversible, {"f": make_block, "g": make_block, "depth": 2, "rngs": rngs()},
     {"f": [nn.LIF(), None], "g": [nn.LIF(), None], "depth": COUNT, "bits": COUNT, "swap": FLAG,
      "scan": SCAN, "rngs": RNGS}),
    (nn.StaticInput, {"layer": nn.LIF()}, {"layer": LAYER}),
    (nn.Quantized,
     {"layer": nn.Linear(3, 3, rngs=rngs()),
      "plan": quantization.plans.Kernels(quantization.Quantizer(4))},
     {"layer": LAYER, "plan": [None, "int8", 4]}),
    (nn.Residual, {"branch": nn.LIF()},
     {"branch": LAYER, "shortcut": [jax.nn.relu, "identity", 3]}),
    (nn.Sequential, {}, {}),
    (nn.Network, {"body": nn.LIF(), "input_shape": (3,)},
     {"body": LAYER, "input_shape": [3, "3", None, (0,), (-1, 2), (1.5,)], "order": CHOICE,
      "collect": CHOICE, "time_scan": SCAN}),
]  # fmt: skip
CASES = [
    pytest.param(make, right, option, value, id=f"{make.__name__}-{option}-{n}")
    for make, right, wrong in CONSTRUCTORS
    for option, values in wrong.items()
    for n, value in enumerate(values)
]


def last_frame(error):
    return traceback.extract_tb(error.__traceback__)[-1].filename


@pytest.mark.parametrize(("make", "right", "option", "value"), CASES)
def test_a_wrong_option_is_refused_where_it_is_written(make, right, option, value):
    with pytest.raises((TypeError, ValueError)) as error:
        make(**{**right, option: value})
    assert last_frame(error.value).startswith(PACKAGE)
    # One line that names the option or the layer, and not the text of a whole module.
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "right", "wrong"), CONSTRUCTORS, ids=lambda x: getattr(x, "__name__", "")
)
def test_the_right_options_are_accepted(make, right, wrong):
    assert wrong is not None and make(**right) is not None


@pytest.mark.parametrize(
    ("layer", "cure"),
    [
        (jax.nn.relu, "nn.Fold"),
        (nn.LIF, r"call it, nn.LIF\(...\)"),
        (nn.MaxPool, r"call it, nn.MaxPool\(...\)"),
        (nn.Dropout, r"call it, nn.Dropout\(...\)"),
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "nn.Fold"),
        ("lif", "nn.Linear"),
        ([nn.LIF()], "nn.Linear"),
    ],
)
def test_anything_but_a_layer_in_a_sequence_is_refused_with_the_cure(layer, cure):
    with pytest.raises(TypeError, match=f"nn.Sequential takes layers, .*{cure}"):
        nn.Sequential(nn.Linear(2, 2, rngs=rngs()), layer)


def test_a_reversal_without_an_inverse_gives_the_reason():
    model = neurons.Model(
        neurons.lif, neurons.LIFParams(0.5, 1.0), neurons.lif_model().initial_state
    )
    with pytest.raises(ValueError, match="inverse"):
        nn.Neuron(model, scan=memory.reversal())


FRAMES = jnp.ones((3, 2, 4))


def linear_net():
    r = rngs()
    return nn.Network(
        nn.Sequential(nn.Linear(4, 5, rngs=r), nn.LIF(), nn.Linear(5, 2, rngs=r)), (4,)
    )


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32])
def test_spikes_of_other_dtypes_are_cast(dtype):
    net, spikes = linear_net(), np.arange(24).reshape(3, 2, 4) % 2
    state = net.initial_state(2)
    expected, _ = net(jnp.asarray(spikes, jnp.float32), state, training=False)
    found, _ = net(jnp.asarray(spikes.astype(dtype)), state, training=False)
    np.testing.assert_array_equal(expected, found)


def test_a_bool_is_cast_in_a_compiled_function_too():
    net = linear_net()
    spikes = jnp.asarray(np.arange(24).reshape(3, 2, 4) % 2 == 1)
    run = jax.jit(lambda x: net(x, net.initial_state(2), training=False)[0])
    assert run(spikes).dtype == jnp.float32


LAYERS = {
    "linear": lambda: nn.Linear(4, 4, rngs=rngs()),
    "conv": lambda: nn.Conv(2, 2, rngs=rngs()),
    "avgpool": nn.AvgPool,
    "globalavgpool": nn.GlobalAvgPool,
    "batchnorm": lambda: nn.BatchNorm(2),
    "groupnorm": lambda: nn.GroupNorm(2, 2, rngs=rngs()),
    "layernorm": lambda: nn.LayerNorm(2, rngs=rngs()),
    "dropout": lambda: nn.Dropout(0.5),
    "lif": nn.LIF,
    "recurrent": lambda: nn.Recurrent(nn.LIF(), 2, rngs=rngs()),
    "disabled": nn.Disabled,
    "psn": lambda: nn.PSN(3, rngs=rngs()),
    "sliding": lambda: nn.SlidingPSN(order=2),
    "reset_free": nn.ResetFreeLIF,
    "asa": lambda: nn.ASA(3, rngs=rngs()),
    "ma": lambda: nn.MA("TCA", 3, 2, time_reduction=3, channel_reduction=2, rngs=rngs()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_images_of_integers_are_refused_with_the_cure(name):
    """Also by layers whose outputs have the dtype of the inputs: they would be truncated."""
    flat = name in ("linear", "recurrent")
    shape = (3, 2, 4) if name == "linear" else (3, 2, 2) if flat else (3, 2, 4, 4, 2)
    images = jnp.full(shape, 200, jnp.uint8)
    layer = LAYERS[name]()
    state = layer.initial_state(shape[1:])
    with pytest.raises(TypeError, match="uint8: data.rescale"):
        layer(images, state, nn.Call(training=False))


def test_a_network_takes_integers_of_a_compiled_function_for_images():
    net = linear_net()
    with pytest.raises(TypeError, match="data.rescale"):
        jax.jit(lambda x: net(x, net.initial_state(2), training=False)[0])(
            jnp.ones((3, 2, 4), jnp.uint8)
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": [[1.0]]}, TypeError, "takes an array"),
        ({"inputs": "frames"}, TypeError, "takes an array"),
        ({"inputs": jnp.ones((3, 2, 5))}, ValueError, r"takes \[T, B, 4\]"),
        ({"inputs": jnp.ones((0, 2, 4))}, ValueError, "no timesteps"),
        ({"state": None}, TypeError, "is an nn.State"),
        ({"state": ()}, TypeError, "is an nn.State"),
        ({"training": "no"}, TypeError, "must be True or False"),
        ({"training": 1}, TypeError, "must be True or False"),
        ({"key": 0}, TypeError, r"key=jax.random.key\(0\)"),
        ({"taps": "spikes"}, ValueError, "tuple of kinds"),
        ({"taps": ("spike",)}, ValueError, "tuple of kinds"),
    ],
)
def test_wrong_arguments_of_a_call_are_refused(arguments, error, message):
    net = linear_net()
    call = {"inputs": FRAMES, "state": net.initial_state(2), "training": False, **arguments}
    inputs, state = call.pop("inputs"), call.pop("state")
    with pytest.raises(error, match=message) as found:
        net(inputs, state, **call)
    assert last_frame(found.value).startswith(PACKAGE)


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("order", ["layer", "time"])
def test_a_state_of_another_batch_is_refused(batch, order):
    """A batch of 1 would broadcast."""
    net = nn.replace(linear_net(), order=order)
    with pytest.raises(ValueError, match="state"):
        net(FRAMES, net.initial_state(batch), training=False)


@pytest.mark.parametrize("name", ["lif", "recurrent", "reset_free", "sliding"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_layer_refuses_a_state_of_another_batch(name, batch):
    layer = LAYERS[name]()
    with pytest.raises(ValueError, match="initial_state of this batch"):
        layer(jnp.ones((3, 2, 2)), layer.initial_state((batch, 2)), nn.Call(training=False))


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", None, True])
def test_a_batch_is_an_integer(batch):
    with pytest.raises((TypeError, ValueError), match="batch must be"):
        linear_net().initial_state(batch)


def test_strategies_and_precisions_are_values_and_no_texts():
    with pytest.raises(TypeError, match="parse_precision"):
        nn.with_precision(linear_net(), "bfloat16")
    with pytest.raises(TypeError, match="memory.Strategy"):
        nn.with_memory(linear_net(), memory.recompute(1))


OUTPUTS, LABELS = jnp.ones((3, 2, 4)), jnp.array([0, 1])
FUNCTIONS = [
    (losses.cross_entropy, (OUTPUTS[0], LABELS), {"label_smoothing": [*SHARE, 1.0, None]}),
    (losses.rate_cross_entropy, (OUTPUTS, LABELS), {"label_smoothing": [*SHARE, 1.0, None]}),
    (losses.temporal_cross_entropy, (OUTPUTS, LABELS),
     {"regularization": [*SHARE, None], "phi": NUMBER, "label_smoothing": [*SHARE, 1.0]}),
    (losses.rate_mse, (OUTPUTS, LABELS), {"correct": NUMBER, "incorrect": NUMBER}),
    (losses.spike_rate_penalty, (OUTPUTS,),
     {"lower": [-1.0, 2.0, NAN, "0"], "upper": [-1.0, NAN, "1"]}),
    (losses.mean, (OUTPUTS[0, :, 0],),
     {"weights": [jnp.ones(3), jnp.array([1.0, -1.0]), jnp.array([1.0, NAN])]}),
    (metrics.accuracy, (OUTPUTS[0], LABELS),
     {"weights": [jnp.ones(3), jnp.array([1.0, -1.0]), jnp.array([1.0, NAN])]}),
    (metrics.top_k_accuracy, (OUTPUTS[0], LABELS), {"k": [*COUNT, 5]}),
    (metrics.clip_accuracy, (OUTPUTS[0], LABELS), {"clips": [*COUNT, 3]}),
    (readout.rate, (OUTPUTS,),
     {"lengths": [jnp.array([0, 1]), jnp.array([4, 1]), jnp.array([1.0, 2.0]),
                  jnp.array([[1, 2]])]}),
    (readout.last, (OUTPUTS,), {"lengths": [jnp.array([0, 1]), jnp.array([4, 1])]}),
    (readout.weighted_rate, (OUTPUTS, jnp.ones(3)), {"lengths": [jnp.array([0, 1])]}),
    (readout.max_membrane, (OUTPUTS,), {"lengths": [jnp.array([0, 1])]}),
    (viz.firing_rates, (), {"rates": [{"li": -1.44}, {"li": 1.5}, {"li": NAN}, {}]}),
    (viz.raster, (), {"spikes": [np.full((3, 2), -1.44), np.full((3, 2), NAN), np.ones(3)]}),
    (metrics.nasfr, (), {"rates": [{"li": -1.44}, {"li": NAN}]}),
]  # fmt: skip
CALLS = [
    pytest.param(function, arguments, option, value, id=f"{function.__name__}-{option}-{n}")
    for function, arguments, wrong in FUNCTIONS
    for option, values in wrong.items()
    for n, value in enumerate(values)
]


@pytest.mark.parametrize(("function", "arguments", "option", "value"), CALLS)
def test_a_wrong_option_of_a_loss_or_metric_is_refused(function, arguments, option, value):
    more = {"neurons": {"li": 3}} if function is metrics.nasfr else {}
    with pytest.raises((TypeError, ValueError)) as error:
        function(*arguments, **{option: value}, **more)
    assert last_frame(error.value).startswith(PACKAGE)
