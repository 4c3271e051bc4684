"""Conversions by the authors' own code: spikes equal, everything else within their rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import conversion, encoding, neurons, nn, readout
from tests.learning import golden

ATOL = 1e-5  # of the README of the vectors, float32
HIDDEN = slice(None, 2)  # layers whose counts are stored


def close(actual, expected):
    golden.close(actual, expected, atol=ATOL)


def run(net, frames):
    """Outputs `[T, B, K]`, counts and last membranes of the layers."""
    call = jax.jit(
        lambda net, frames: net(
            frames, net.initial_state(frames.shape[1]), training=False, taps=("spikes", "membrane")
        )
    )
    outputs, aux = call(net, frames)
    rows = nn.taps.in_order(aux.taps).values()
    return outputs, [r["spikes"].sum(0) for r in rows], [r["membrane"][-1] for r in rows]


def steps(x, timesteps):
    return encoding.direct(jnp.asarray(x), timesteps=timesteps)


def channels_last(x):
    return np.moveaxis(x, -3, -1)


def channels_first(x):
    return np.moveaxis(np.asarray(x), -1, -3) if x.ndim == 4 else np.asarray(x)


def flat(weight, channels, side):
    """[out, C H W] as [out, H W C]."""
    folded = weight.reshape(-1, channels, side, side)
    return golden.linear(folded.transpose(0, 2, 3, 1).reshape(len(weight), -1))


def mlp(arrays, activations):
    layers = []
    for i in range(3):
        layers.append(golden.linear(arrays[f"W{i}"], arrays.get(f"b{i}")))
        layers += activations[i : i + 1]
    return nn.Network(nn.Sequential(*layers), arrays["x"].shape[1:])


def assert_counts(counts, arrays, key):
    for i, count in enumerate(counts[HIDDEN]):
        # The released code divides sums of theta by theta, which leaves 8.000001 spikes.
        golden.exact(channels_first(count), np.round(arrays[key.format(i)]))


@pytest.mark.parametrize(("name", "timesteps"), [("1", None), ("shift", 8)])
def test_threshold_relu(shared, name, timesteps):
    arrays, meta = golden.load(shared, f"optconv_threlu_{name}")
    layer = conversion.ThresholdReLU(threshold=meta["thresh"], timesteps=timesteps)
    assert meta["shift_relu"] == (timesteps or 0)
    out, pull = jax.vjp(layer.function, jnp.asarray(arrays["x"]))
    golden.exact(out, arrays["out"])
    golden.exact(pull(jnp.asarray(arrays["g"]))[0], arrays["gx"])


@pytest.mark.parametrize("name", ["L2_s2", "L4", "L8"])
@pytest.mark.parametrize(("version", "gradient"), [("new", "clipped"), ("old", "wide")])
def test_qcfs_activation(shared, name, version, gradient):
    arrays, meta = golden.load(shared, f"qcfs_act_{name}")
    function = lambda x, t: conversion.qcfs(x, t, meta["L"], gradient=gradient)  # noqa: E731
    out, pull = jax.vjp(function, jnp.asarray(arrays["x"]), jnp.float32(meta["theta"]))
    gx, gth = pull(jnp.asarray(arrays["g"]))
    close(out, arrays[f"out_{version}"])
    close(gx, arrays[f"gx_{version}"])
    close(gth, arrays[f"gth_{version}"][0])


def second(value):
    """Another file or option of a law, for the slow lane."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["relu", second("threlu")])
def test_optimal_conversion(shared, name):
    arrays, meta = golden.load(shared, f"optconv_mlp_{name}")
    kind = conversion.ThresholdReLU if meta["thresh_relu"] else conversion.ReLU
    net = mlp(arrays, [kind(), kind()])
    thresholds = conversion.calibrate(net, [jnp.asarray(arrays["calib"])])
    found = [thresholds[key] for key in (*conversion.activation_names(net), "outputs")]
    close(found, arrays["thresholds"])
    for t in meta["Ts"]:
        for key, shift in (("shift", "step"), ("noshift", None)):
            options = {"timesteps": t} if shift else {}
            spiking = conversion.to_spiking(
                net, thresholds=thresholds, shift=shift, last="spiking", **options
            )
            outputs, counts, _ = run(spiking, steps(arrays["x"], t))
            close(readout.rate(outputs), arrays[f"out_T{t}_{key}"])
            assert_counts(counts, arrays, f"counts_T{t}_{key}_l{{}}")


def test_the_rate_map_of_shifted_layers(shared):
    """Rounded constant currents, layer by layer."""
    arrays, meta = golden.load(shared, "optconv_mlp_relu")
    t = meta["Ts"][0]
    h = arrays["x"]
    for i, theta in enumerate(arrays["thresholds"]):
        z = h @ arrays[f"W{i}"].T + arrays[f"b{i}"]
        # Moved by half a step, rounded down, clipped: QCFS of T levels.
        h = np.asarray(conversion.qcfs(jnp.asarray(z), jnp.float32(theta), t))
    close(h, arrays["fake_out_T4"])


def test_optimal_conversion_of_a_convolutional_network(shared):
    arrays, meta = golden.load(shared, "optconv_cnn")
    layers = [
        *(golden.conv(arrays["W0"], arrays["b0"]), conversion.ReLU()),
        *(golden.conv(arrays["W1"], arrays["b1"]), conversion.ReLU()),
        *(nn.AvgPool(), nn.Flatten(), flat(arrays["W2"], 5, 2)),
    ]
    layers[-1] = golden.linear(np.asarray(layers[-1].function.kernel[...]).T, arrays["b2"])
    net = nn.Network(nn.Sequential(*layers), (4, 4, 2))
    thresholds = conversion.calibrate(net, [jnp.asarray(channels_last(arrays["calib"]))])
    close(list(thresholds.values()), np.roll(arrays["thresholds"], 1))
    for t in meta["Ts"]:
        spiking = conversion.to_spiking(
            net, thresholds=thresholds, shift="step", timesteps=t, last="spiking"
        )
        outputs, counts, _ = run(spiking, steps(channels_last(arrays["x"]), t))
        close(readout.rate(outputs), arrays[f"out_T{t}_shift"])
        assert_counts(counts, arrays, f"counts_T{t}_l{{}}")


@pytest.mark.parametrize("name", ["qcfs_mlp_L4", second("qcfs_mlp_L8")])
def test_qcfs_network_trains_and_converts(shared, name):
    arrays, meta = golden.load(shared, name)
    units = [conversion.QCFS(levels=meta["L"], threshold=float(t)) for t in arrays["theta"]]
    net = mlp(arrays, units)
    graphdef, params, constants = nn.split(net)
    x, labels = jnp.asarray(arrays["x"]), arrays["y"].astype(int)

    @jax.jit
    def loss(params, x):
        net = nn.merge(graphdef, params, constants)
        logits = net(x[None], net.initial_state(len(x)), training=True)[0][0]
        return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(len(x)), labels]), logits

    (value, logits), (g, gx) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    close(value, arrays["loss"])
    close(logits, arrays["ann_out"])
    close(gx, arrays["gx"])
    grads = g["body"]["layers"]
    for i in range(3):
        close(grads[2 * i]["function"]["kernel"][...].T, arrays[f"gW{i}"])
        close(grads[2 * i]["function"]["bias"][...], arrays[f"gb{i}"])
    for i in range(2):
        close(grads[2 * i + 1]["threshold"][...], arrays[f"gtheta{i}"][0])
    spiking = conversion.to_spiking(net)
    for t in meta["Ts"]:
        outputs, counts, _ = run(spiking, steps(arrays["x"], t))
        close(readout.rate(outputs), arrays[f"snn_out_T{t}"])
        assert_counts(counts, arrays, f"counts_T{t}_l{{}}")


def qcfs_conv(arrays, meta):
    units = [conversion.QCFS(levels=meta["L"], threshold=float(t)) for t in arrays["theta"]]
    norms = [golden.batch_norm(arrays[f"bn{i}_gamma"], arrays[f"bn{i}_beta"]) for i in (1, 2)]
    last = flat(arrays["Wfc"], 5, 2)
    net = nn.Network(
        nn.Sequential(
            *(golden.conv(arrays["W1"]), norms[0], units[0], nn.AvgPool()),
            *(golden.conv(arrays["W2"]), norms[1], units[1], nn.Flatten()),
            golden.linear(np.asarray(last.function.kernel[...]).T, arrays["bfc"]),
        ),
        (4, 4, 2),
    )
    rows = [
        golden.statistics(*(jnp.asarray(arrays[f"bn{i}_{key}"]) for key in ("mean", "var")))
        for i in (1, 2)
    ]
    return net, ((), rows[0], (), (), (), rows[1], (), (), ())


def test_qcfs_with_batch_norm(shared):
    arrays, meta = golden.load(shared, "qcfs_conv_L4")
    net, statistics = qcfs_conv(arrays, meta)
    x = channels_last(arrays["x"])
    folded = conversion.fold_batch_norm(net, statistics)
    assert not [m for _, m in nnx.iter_modules(folded) if isinstance(m, nn.BatchNorm)]
    for one, own in ((net, statistics), (folded, None)):
        state = one.initial_state(len(x), statistics=own)
        call = jax.jit(lambda net, x, state: net(x, state, training=False)[0][0])
        close(call(one, jnp.asarray(x)[None], state), arrays["ann_out"])
    spiking = conversion.to_spiking(net, statistics=statistics)
    for t in meta["Ts"]:
        outputs, counts, _ = run(spiking, steps(x, t))
        close(readout.rate(outputs), arrays[f"snn_out_T{t}"])
        assert_counts(counts, arrays, f"counts_T{t}_l{{}}")


def test_hybrid_thresholds_and_its_latency(shared):
    """Theirs are relative: binary spikes and unchanged weights, so ours are products of theirs."""
    arrays, meta = golden.load(shared, "rmp_hybrid_T40")
    net = nn.Network(
        nn.Sequential(
            *(golden.conv(arrays["W0"]), conversion.ReLU()),
            *(golden.conv(arrays["W1"]), conversion.ReLU(), nn.AvgPool(), nn.Flatten()),
            *(flat(arrays["W2"], 5, 2), conversion.ReLU(), golden.linear(arrays["W3"])),
        ),
        (4, 4, 2),
    )
    frames = jnp.asarray(channels_last(arrays["spikes_in"]))
    options = {"latency": True, "shift": None}
    thresholds = conversion.spiking_thresholds(net, frames, **options)
    close(list(thresholds.values()), np.cumprod(arrays["thresholds"]))
    relative = arrays["thresholds"] * meta["scaling_factor"]
    scaled = dict(zip(thresholds, np.cumprod(relative), strict=True))
    outputs, counts, membranes = run(
        conversion.to_spiking(net, thresholds=scaled, **options), frames
    )
    close(outputs.sum(0) / np.prod(relative), arrays["out_mem"])
    for i, (count, v) in enumerate(zip(counts, membranes, strict=True)):
        golden.exact(channels_first(count), arrays[f"counts{i}_ours"])
        close(channels_first(v) * relative[i], arrays[f"mem{i}"])


@pytest.mark.parametrize("beta", [second(1.0), 0.8])
@pytest.mark.parametrize("name", ["soft", "hard"])
def test_residual_membrane_potential_and_hard_reset(x64, shared, name, beta):
    arrays, meta = golden.load(shared, "rmp_ours_T64")
    net = mlp(arrays, [conversion.ReLU(), conversion.ReLU()])
    thresholds = conversion.calibrate(net, [jnp.asarray(arrays["calib"])])
    close([thresholds[f"relu{i}"] for i in (1, 3)], arrays["thresholds"])
    scaled = {key: value * beta for key, value in thresholds.items()}
    reset = {"soft": neurons.reset.subtract, "hard": neurons.reset.zero}[name]
    spiking = conversion.to_spiking(net, thresholds=scaled, reset=reset, shift=None)
    outputs, counts, membranes = run(spiking, steps(arrays["x"], meta["T"]))
    key = f"{name}_beta{beta}"
    close(readout.rate(outputs), arrays[f"out_{key}"])
    assert_counts(counts, arrays, f"counts{{}}_{key}")
    close(membranes[0] * scaled["relu1"], arrays[f"v0_{key}"])
