"""SPIDE against the authors' code: rates, masks, backward spikes, local weight gradients."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import nn
from snnjax.learning import Equilibrium, RateNeuron, lif_rate_model, solvers
from tests.learning import golden

pytestmark = pytest.mark.fast


def neuron(meta):
    model = lif_rate_model(
        threshold=meta["vth"], amount=meta["vth"] - meta["u_rest"], decay=meta["leak_forward"],
        strict=True,
    )  # fmt: skip
    return RateNeuron(model)


def solver(meta):
    return solvers.spiking_ternary(
        timesteps=meta["T_B"], threshold=meta["vth_back"], rest=meta["u_rest_back"],
        decay=meta.get("leak_backward", 1.0),
    )  # fmt: skip


def weighted(g):
    return lambda outputs: jnp.sum(outputs[0] * g)


def spikes_of(transpose, g, meta):
    """Backward spikes, by the equations, one timestep after the other."""
    threshold, amount = meta["vth_back"], meta["vth_back"] - meta["u_rest_back"]

    def timestep(carry, _):
        u, s = map(list, carry)
        signs = list(s)
        for i in reversed(range(len(g))):
            h = u[i] + g[i] + transpose(tuple(s))[i]
            signs[i] = jnp.where(h >= threshold, 1.0, 0.0) - jnp.where(h <= -threshold, 1.0, 0.0)
            s[i] = amount * signs[i]
            u[i] = meta.get("leak_backward", 1.0) * (h - s[i])
        return (tuple(u), tuple(s)), tuple(signs)

    zeros = tuple(map(jnp.zeros_like, g))
    return jax.lax.scan(timestep, (zeros, zeros), length=meta["T_B"])[1]


FILES = [
    "spide_if_2l",
    pytest.param("spide_if_3l", marks=pytest.mark.slow),
    pytest.param("spide_lif99_2l", marks=pytest.mark.slow),
    "spide_lif95_backIF",
]


def network(a, meta, solver):
    layers = [neuron(meta)]
    depth = sum(key.startswith("a") and key[1:].isdigit() for key in a)
    for i in range(1, depth):
        layers += [golden.linear(a[f"W{i}"], a[f"b{i}"]), neuron(meta)]
    layer = Equilibrium(
        nn.Sequential(*layers), timesteps=meta["T_F"],
        inputs=golden.linear(a["Wx"], a["bx"]), feedback=golden.linear(a["Wfb"]),
        inner="rates", solver=solver,
    )  # fmt: skip
    return layer, depth


@pytest.mark.parametrize("name", FILES)
def test_dense_network(x64, shared, name):
    a, meta = golden.load(shared, name)
    recorder = golden.Recorder(inner=solver(meta), observe=functools.partial(spikes_of, meta=meta))
    layer, depth = network(a, meta, recorder)
    x = a["x"][None]
    state = golden.initial_state(layer, x.shape[1:])
    grads, _, outputs, aux = golden.gradients(
        layer, x, state, weighted(a["g"]), taps=("spikes",), recorder=recorder
    )
    golden.close(outputs[0], a[f"a{depth - 1}"])
    for i in range(depth):
        spikes = aux.taps[f"body/lif{2 * i}"]["spikes"]
        weights = meta["leak_forward"] ** np.arange(meta["T_F"])[::-1]
        rate = np.tensordot(weights / weights.sum(), spikes, 1)
        golden.close(rate, a[f"a{i}"])
        golden.exact((a[f"a{i}"] > 0) & (a[f"a{i}"] < 1), a[f"m{i}"] > 0)
    beta, info, trains = recorder.solution, recorder.info, recorder.observed
    for i in range(depth):
        golden.exact(trains[i], a[f"back_spikes{i}_ours"])
        golden.close(beta[i], a[f"beta{i}_ours"])
        golden.close(np.abs(trains[i]).mean(0), a[f"back_rate{i}"])
        golden.close(info.rates[i], a[f"back_rate{i}"].mean())
    pairs = [
        (grads.inputs.function.kernel.T, "gWx"),
        (grads.inputs.function.bias[...], "gbx"),
        (grads.feedback.function.kernel.T, "gWfb"),
    ]
    for i in range(1, depth):
        function = grads.body.layers[2 * i - 1].function
        pairs += [(function.kernel.T, f"gW{i}"), (function.bias[...], f"gb{i}")]
    for actual, key in pairs:
        golden.close(actual, a[key])


@pytest.mark.parametrize("name", FILES)
def test_the_exact_solution_of_the_masked_equation(x64, shared, name):
    a, meta = golden.load(shared, name)
    recorder = golden.Recorder(iterations=400)
    layer, depth = network(a, meta, recorder)
    x = a["x"][None]
    state = golden.initial_state(layer, x.shape[1:])
    golden.gradients(layer, x, state, weighted(a["g"]), recorder=recorder)
    golden.close(recorder.solution[depth - 1], a["beta_exact_ours"])
    assert recorder.info.residual < 1e-10


def test_convolutions(x64, shared):
    a, meta = golden.load(shared, "spide_conv_if")
    recorder = golden.Recorder(inner=solver(meta))
    body = nn.Sequential(
        neuron(meta), golden.conv(a["W1"], a["b1"], strides=2), neuron(meta),
        golden.conv(a["W2"], a["b2"]), neuron(meta),
    )  # fmt: skip
    layer = Equilibrium(
        body, timesteps=meta["T_F"], inputs=golden.conv(a["Wx"], a["bx"], strides=2),
        feedback=golden.conv_transpose(a["Wfb"]), inner="rates", solver=recorder,
    )  # fmt: skip
    x = golden.images(a["x"])
    state = golden.initial_state(layer, x.shape[1:])
    cotangent = a["g"].transpose(0, 2, 3, 1)
    grads, _, outputs, _ = golden.gradients(layer, x, state, weighted(cotangent), recorder=recorder)
    golden.close(outputs[0].transpose(0, 3, 1, 2), a["a2"])
    for i in range(3):
        golden.close(recorder.info.rates[i], a[f"back_rate{i}"].mean())
    pairs = [("x", grads.inputs), ("1", grads.body.layers[1]), ("2", grads.body.layers[3])]
    for name, fold in pairs:
        golden.close(golden.oihw(fold.function.kernel[...]), a[f"gW{name}"])
        golden.close(fold.function.bias[...], a[f"gb{name}"])
    golden.close(golden.iohw(grads.feedback.function.kernel[...]), a["gWfb"])


def test_every_golden_file_of_spide_is_used(shared):
    there = {p.stem for p in shared("golden", "learning_rules").glob("spide_*.npz")}
    source = pathlib.Path(__file__).read_text()
    assert there
    assert all(f'"{name}"' in source for name in there)
