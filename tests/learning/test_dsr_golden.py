"""DSR against the authors' code: layers, networks and the pre-activation block."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import losses, nn
from snnjax.learning import RateNeuron, dsr_if_model, dsr_lif_model, rates
from tests.learning import golden

pytestmark = pytest.mark.fast


def neuron(meta, threshold=None):
    options = {
        "threshold": meta["Vth"] if threshold is None else float(threshold),
        "fire_at": meta["alpha"],
        "minimum": meta["Vth_bound"],
    }
    if meta["kind"] == "if":
        model = dsr_if_model(**options)
    else:
        model = dsr_lif_model(**options, tau=meta["tau"], dt=meta["delta_t"])
    return RateNeuron(model, learn=("threshold",))


def load(shared, name):
    arrays, meta = golden.load(shared, name)
    return arrays, {**meta, "kind": "lif" if "lif" in name else "if"}


@pytest.mark.parametrize("name", ["dsr_if_layer_T20", "dsr_lif_layer_T20", "dsr_lif_layer_T5"])
def test_layer(shared, name):
    a, meta = load(shared, name)
    layer = neuron(meta)
    state = golden.initial_state(layer, a["x"].shape[1:])
    grads, gx, outputs, _ = golden.gradients(layer, a["x"], state, lambda o: jnp.sum(o * a["G"]))
    golden.exact(outputs > 0, a["out"] > 0)
    golden.close(outputs, a["out"], atol=golden.FLOAT32)
    golden.close(gx, a["gx"], atol=golden.FLOAT32)
    golden.close(grads.neuron.learned["threshold"][...], a["gV"], atol=golden.FLOAT32)


@pytest.mark.parametrize("name", ["dsr_if_net_T10", "dsr_lif_net_T20"])
def test_network(shared, name):
    """linear - batch norm - neurons, twice; the loss of the weighted rate."""
    a, meta = load(shared, name)
    layers = []
    for at in (0, 3):
        layers += [
            golden.linear(a[f"p.{at}.weight"], a[f"p.{at}.bias"]),
            golden.batch_norm(a[f"p.{at + 1}.weight"], a[f"p.{at + 1}.bias"]),
            neuron(meta, a[f"p.{at + 2}.Vth"]),
        ]
    network = nn.Sequential(*layers)
    decay = layers[-1].decay
    frames = np.broadcast_to(a["x"], (meta["T"], *a["x"].shape))
    state = golden.initial_state(network, frames.shape[1:])
    logits = lambda outputs: rates.mean(outputs, decay=decay)  # noqa: E731

    def loss(outputs):
        values = losses.rate_cross_entropy(logits(outputs)[None], a["y"].astype(int))
        return losses.mean(values)

    grads, gx, outputs, aux = golden.gradients(network, frames, state, loss)
    golden.exact(outputs > 0, a["out1"] > 0)
    golden.close(outputs, a["out1"], atol=golden.FLOAT32)
    values = jax.jit(lambda outputs: (logits(outputs), loss(outputs)))(outputs)
    golden.close(values[0], a["logits"], atol=golden.FLOAT32)
    golden.close(values[1], a["loss"], atol=golden.FLOAT32)
    golden.close(gx.sum(0), a["gx"], atol=golden.FLOAT32)
    for at in (0, 3):
        linear, norm, spiking = grads.layers[at : at + 3]
        golden.close(linear.function.kernel.T, a[f"g.{at}.weight"], atol=golden.FLOAT32)
        golden.close(linear.function.bias[...], a[f"g.{at}.bias"], atol=golden.FLOAT32)
        golden.close(norm.scale[...], a[f"g.{at + 1}.weight"], atol=golden.FLOAT32)
        golden.close(norm.bias[...], a[f"g.{at + 1}.bias"], atol=golden.FLOAT32)
        threshold = spiking.neuron.learned["threshold"][...]
        golden.close(threshold, a[f"g.{at + 2}.Vth"], atol=golden.FLOAT32)
    first = nn.Sequential(*layers[:3])

    @jax.jit
    def run(first, frames):
        state = first.initial_state(frames.shape[1:])
        hidden, _ = first(frames, state, nn.Call(training=True))
        return hidden, rates.mean(hidden, decay=decay)

    hidden, rate = jax.device_get(run(first, frames))
    golden.exact(hidden > 0, a["out0"] > 0)
    golden.close(rate, a["rate0"], atol=golden.FLOAT32)
    mean, var = aux.statistics[1]
    count = meta["T"] * len(a["x"])
    golden.close(mean, a["running_mean0"], atol=golden.FLOAT32)
    # PyTorch's running variance is unbiased.
    expected = (var - 0.9) * count / (count - 1) + 0.9
    golden.close(expected, a["running_var0"], atol=golden.FLOAT32)


@pytest.mark.parametrize("name", ["dsr_if_block_id", "dsr_lif_block"])
def test_block(shared, name):
    """The shortcut starts from the spikes behind the first neurons."""
    a, meta = load(shared, name)
    first = nn.Sequential(
        golden.batch_norm(a["p.bn1.weight"], a["p.bn1.bias"]), neuron(meta, a["p.relu1.Vth"])
    )
    branch = nn.Sequential(
        golden.conv(a["p.conv1.weight"], a["p.conv1.bias"], strides=meta["stride"]),
        golden.batch_norm(a["p.bn2.weight"], a["p.bn2.bias"]),
        neuron(meta, a["p.relu2.Vth"]),
        golden.conv(a["p.conv2.weight"], a["p.conv2.bias"]),
    )
    shortcut = None
    if "p.shortcut.weight" in a:
        shortcut = golden.conv(a["p.shortcut.weight"], a["p.shortcut.bias"], strides=meta["stride"])
    block = nn.Sequential(first, nn.Residual(branch, shortcut=shortcut))
    x = a["x"].transpose(0, 1, 3, 4, 2)
    cotangent = a["G"].transpose(0, 1, 3, 4, 2)
    state = golden.initial_state(block, x.shape[1:])
    grads, gx, outputs, _ = golden.gradients(block, x, state, lambda o: jnp.sum(o * cotangent))
    golden.close(outputs.transpose(0, 1, 4, 2, 3), a["out"], atol=golden.FLOAT32)
    golden.close(gx.transpose(0, 1, 4, 2, 3), a["gx"], atol=golden.FLOAT32)
    (norm1, neuron1), residual = grads.layers[0].layers, grads.layers[1]
    conv1, norm2, neuron2, conv2 = residual.branch.layers
    pairs = [
        (norm1.scale[...], "bn1.weight"),
        (norm1.bias[...], "bn1.bias"),
        (neuron1.neuron.learned["threshold"][...], "relu1.Vth"),
        (golden.oihw(conv1.function.kernel[...]), "conv1.weight"),
        (conv1.function.bias[...], "conv1.bias"),
        (norm2.scale[...], "bn2.weight"),
        (norm2.bias[...], "bn2.bias"),
        (neuron2.neuron.learned["threshold"][...], "relu2.Vth"),
        (golden.oihw(conv2.function.kernel[...]), "conv2.weight"),
        (conv2.function.bias[...], "conv2.bias"),
    ]
    if shortcut is not None:
        function = residual.shortcut.function
        pairs += [
            (golden.oihw(function.kernel[...]), "shortcut.weight"),
            (function.bias[...], "shortcut.bias"),
        ]
    for actual, key in pairs:
        golden.close(actual, a[f"g.{key}"], atol=2 * golden.FLOAT32)


def test_every_golden_file_of_dsr_is_used(shared):
    there = {p.stem for p in shared("golden", "learning_rules").glob("dsr_*.npz")}
    source = pathlib.Path(__file__).read_text()
    assert there
    assert all(f'"{name}"' in source for name in there)
