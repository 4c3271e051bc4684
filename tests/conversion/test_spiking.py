"""Converted networks: exact rates, wiring, memory, streams, refusals, layers of one's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import conversion, cost, encoding, memory, models, neurons, nn, readout
from snnjax.conversion.layers import Converted, Units
from snnjax.nn.contract import State, Statistics, stateless_result
from snnjax.ops.rounding import widen_to
from tests.compare import assert_close, assert_equal
from tests.conversion import sources
from tests.learning import golden

SHAPE = (8, 8, 1)
ONE = np.ones((1, 1), np.float32)


def single(activation, size=1):
    """One identity synapse and an activation."""
    return nn.Network(
        nn.Sequential(golden.linear(np.eye(size, dtype=np.float32)), activation), (size,)
    )


def rates(net, x, timesteps):
    return conversion.mean_outputs(net, x, timesteps=timesteps)[timesteps]


def pictures(count=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=(count, *SHAPE)), jnp.float32)


def moved(net, seed=1):
    """Running statistics off their initial values."""
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(net.initial_state(1).statistics)
    return tree.unflatten(
        [x + jnp.asarray(rng.uniform(0.1, 0.5, x.shape), x.dtype) for x in leaves]
    )


@functools.cache
def conv_net():
    neuron = lambda: conversion.QCFS(threshold=1.0)  # noqa: E731
    return models.conv_net(
        SHAPE,
        channels=(4, 4),
        hidden=6,
        rngs=nnx.Rngs(0),
        neuron=neuron,
        pool=nn.AvgPool,
        dropout=0.2,
    )


@functools.cache
def spiking_conv_net():
    return conversion.to_spiking(conv_net(), statistics=moved(conv_net()))


# Rates


@pytest.mark.parametrize("levels", [2, 4, 8])
def test_rates_over_as_many_timesteps_as_levels_are_qcfs(levels):
    net = single(conversion.QCFS(levels=levels, threshold=0.7))
    x = jnp.asarray(np.random.default_rng(0).uniform(-0.3, 1.2, (500, 1)), jnp.float32)
    spiking = conversion.to_spiking(net)
    frames = encoding.direct(x, timesteps=levels)
    _, aux = spiking(frames, spiking.initial_state(500), training=False, taps=("spikes",))
    fired = jnp.float32(0.7) * readout.rate(aux.taps["if1"]["spikes"])
    assert np.abs(fired - sources.logits(net, x)).max() == 0.0


def test_transfer_curves_of_soft_and_hard_reset():
    """Reset by subtraction: rate x, error below 1/T; to zero: 1 / ceil(1 / x)."""
    net, timesteps = single(conversion.ThresholdReLU()), 500
    # Off 1/n, where rounding decides on the timestep of a spike.
    x = np.linspace(0.02, 0.99, 98) + 1.23e-3
    soft, hard = (
        rates(
            conversion.to_spiking(net, shift=None, **o),
            jnp.asarray(x[:, None], jnp.float32),
            timesteps,
        )
        for o in ({}, {"reset": neurons.reset.zero})
    )
    assert np.abs(soft[:, 0] - x).max() <= 1 / timesteps
    period = np.ceil(1 / x)
    np.testing.assert_allclose(hard[:, 0], np.floor(timesteps / period) / timesteps, atol=1e-6)
    assert np.abs(hard[:, 0] - x).max() > 0.4


def test_no_charge_is_lost_but_by_a_hard_reset(x64):
    xs = jnp.asarray(np.random.default_rng(0).uniform(0, 0.8, (40, 2, 3)))
    for reset, initial in (("subtract", 0.0), ("subtract", 0.5), ("zero", 0.0)):
        model = neurons.integrate_fire_model(reset=getattr(neurons.reset, reset), initial=initial)
        start = model.initial_state((2, 3), dtype=jnp.float64)
        after, spikes = model.sequence(model.params, start, xs)
        kept, given = after.v + spikes.sum(0), initial + xs.sum(0)
        if reset == "subtract":
            np.testing.assert_allclose(kept, given, rtol=1e-13)
        else:
            assert (kept < given - 0.5).all()


def test_latency_is_one_timestep_per_layer():
    net = sources.trained("threshold")
    x = sources.images("test", 4)[0]
    late = conversion.to_spiking(net, latency=True)
    frames = encoding.direct(x, timesteps=3)
    _, aux = late(frames, late.initial_state(4), training=False, taps=("spikes", "currents"))
    first, second = nn.taps.in_order(aux.taps).values()
    assert not first["spikes"][0].any() and first["spikes"][1].any()
    # Nothing but the bias reaches the second layer before its inputs fire.
    assert not (second["currents"][0] - second["currents"][0][:1]).any()
    many = conversion.mean_outputs(late, x, timesteps=256)[256]
    np.testing.assert_allclose(many, sources.logits(net, x), atol=0.4)


def test_signed_poisson_spikes_have_the_mean_of_the_input():
    x, timesteps = jnp.asarray([[-0.8, -0.1, 0.0, 0.3, 1.0]]), 400
    spikes = jnp.sign(x) * encoding.poisson(jax.random.key(0), jnp.abs(x), timesteps=timesteps)
    assert set(np.unique(spikes)) <= {-1.0, 0.0, 1.0}
    # Four standard deviations of the mean.
    bound = 4 * np.sqrt(np.abs(x) * (1 - np.abs(x)) / timesteps)
    assert (np.abs(spikes.mean(0) - x) <= bound).all()
    net = single(conversion.ThresholdReLU(), 5)
    found, _ = conversion.to_spiking(net)(
        spikes, conversion.to_spiking(net).initial_state(1), training=False
    )
    np.testing.assert_allclose(found.mean(0), np.maximum(x, 0), atol=0.1)


# Thresholds


def test_a_threshold_depends_on_no_later_layer():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(5, 4)), jnp.float32)
    weights = [rng.normal(size=(4, 4)).astype(np.float32) for _ in range(3)]

    def net(last):
        layers = [(golden.linear(w), conversion.ReLU()) for w in (*weights[:2], last)]
        return nn.Network(nn.Sequential(*(part for pair in layers for part in pair)), (4,))

    one, other = (
        conversion.spiking_thresholds(net(w), x, timesteps=20) for w in (weights[2], 7 * weights[2])
    )
    assert [one[k] == other[k] for k in one] == [True, True, False]
    half = conversion.spiking_thresholds(net(weights[2]), x, timesteps=20, scale=0.5)
    assert_equal(half, {key: 0.5 * value for key, value in one.items()})
    lower = conversion.spiking_thresholds(net(weights[2]), x, timesteps=20, percentile=90)
    assert lower["relu1"] < one["relu1"]
    frames = encoding.direct(x, timesteps=20)
    assert_equal(conversion.spiking_thresholds(net(weights[2]), frames), one)


def test_calibration_takes_maxima_over_all_batches_or_mean_percentiles():
    net = single(conversion.ReLU(), 2)
    batches = [jnp.asarray([[1.0, 2.0], [3.0, -4.0]]), jnp.asarray([[5.0, 0.5]])]
    found = conversion.calibrate(net, batches)
    assert found == {"outputs": 5, "relu1": 5}
    found = conversion.calibrate(net, batches, percentile=50)
    expected = np.mean([np.percentile([1, 2, 3, 0], 50), np.percentile([5, 0.5], 50)])
    assert found["relu1"] == pytest.approx(expected)


# Wiring


def test_batch_norm_folds_exactly(x64):
    x = pictures().astype(jnp.float64)
    net, statistics = widen_to((conv_net(), moved(conv_net())), x.dtype)
    folded = conversion.fold_batch_norm(net, statistics)
    assert not any(
        isinstance(m, nn.BatchNorm | conversion.Scale) for _, m in nnx.iter_modules(folded)
    )
    assert_close(sources.logits(folded, x), sources.logits(net, x, statistics), 1e-12)


def residual(activation):
    """A static stem, blocks with both shortcuts, and a stack of pre-activation blocks."""
    rngs = nnx.Rngs(0)
    conv = functools.partial(nn.Conv, rngs=rngs)
    block = nn.Residual(
        nn.Sequential(conv(2, 2), nn.BatchNorm(2), activation(), conv(2, 2), nn.BatchNorm(2))
    )
    change = nn.Residual(
        nn.Sequential(conv(2, 3, strides=2), activation()),
        shortcut=nn.Sequential(conv(2, 3, kernel=1, strides=2), nn.BatchNorm(3)),
    )
    before = lambda rngs: nn.Residual(  # noqa: E731
        nn.Sequential(nn.BatchNorm(3), activation(), nn.Conv(3, 3, rngs=rngs))
    )
    return nn.Network(
        nn.Sequential(
            nn.StaticInput(nn.Sequential(conv(1, 2), nn.BatchNorm(2), activation())),
            *(block, activation(), change, nn.Stacked(before, 2, rngs=rngs), activation()),
            *(nn.GlobalAvgPool(), nn.Linear(3, 4, rngs=rngs)),
        ),
        SHAPE,
    )


# With the shift per step the network alone is another one: two more programs.
@pytest.mark.parametrize(
    ("shift", "options"),
    [("initial", {}), pytest.param("step", {"timesteps": 512}, marks=pytest.mark.slow)],
)
def test_residual_static_and_stacked_layers_converge_to_the_source(shift, options):
    net, x = residual(conversion.ReLU), pictures()
    statistics = moved(net)
    thresholds = conversion.calibrate(net, [x], statistics=statistics)
    names = list(conversion.activation_names(net))
    assert sorted(thresholds) == sorted([*names, "outputs"])
    assert names[0] == "once0/relu2" and "stack4/block1/branch/relu1" in names
    expected = sources.logits(net, x, statistics)
    spiking = conversion.to_spiking(
        net, thresholds=thresholds, statistics=statistics, shift=shift, **options
    )
    errors = {t: np.abs(y - expected).mean() for t, y in
              conversion.mean_outputs(spiking, x, timesteps=(64, 512)).items()}  # fmt: skip
    scale = np.abs(expected).mean()
    assert errors[512] < 0.05 * scale and errors[512] < 0.4 * errors[64], errors
    # Layers in front of the first neurons are still computed once.
    assert isinstance(spiking.body.layers[0], nn.StaticInput)
    folded = conversion.fold_batch_norm(net, statistics)
    assert_close(sources.logits(folded, x), expected, 1e-5)


def test_a_synapse_without_a_bias_stays_one_and_an_unpadded_pool_lets_a_norm_pass():
    layers = spiking_conv_net().body.layers
    assert [layer.name for layer in layers] == [
        *("conv", "avgpool", "if", "conv", "avgpool", "if", "flatten", "linear", "if", "linear")
    ]
    net = nn.Network(
        nn.Sequential(
            nn.Conv(1, 2, rngs=nnx.Rngs(0)), nn.AvgPool(padding=1), conversion.ThresholdReLU()
        ),
        SHAPE,
    )
    assert conversion.to_spiking(net).body.layers[0].function.bias is None
    stepped = conversion.to_spiking(net, shift="step", timesteps=4).body.layers
    # Zeros of the padding would dilute the shift.
    assert [layer.name for layer in stepped] == ["conv", "avgpool", "scale", "if", "scale"][:4]


# Inference


def test_memory_does_not_depend_on_the_number_of_timesteps():
    net, x = spiking_conv_net(), pictures()
    run = lambda t: jax.jit(lambda net, x: conversion.mean_outputs(net, x, timesteps=t))  # noqa: E731
    sizes = [run(t).lower(net, x).compile().memory_analysis().temp_size_in_bytes for t in (4, 512)]
    assert sizes[0] == sizes[1] > 0
    # The same for frames: the network itself keeps no timestep.
    timed = nn.replace(net, order="time", collect="mean")
    call = jax.jit(lambda net, frames: net(frames, net.initial_state(3), training=False)[0])
    sizes = [
        call.lower(timed, jax.ShapeDtypeStruct((t, *x.shape), x.dtype)).compile()
        .memory_analysis().temp_size_in_bytes
        for t in (4, 512)
    ]  # fmt: skip
    assert sizes[0] == sizes[1]


def test_a_stream_equals_the_window_bit_for_bit():
    net, x = spiking_conv_net(), pictures()
    frames = encoding.direct(x, timesteps=6) * jnp.linspace(0.2, 1, 6)[:, None, None, None, None]
    timed = nn.replace(net, order="time")
    call = jax.jit(lambda net, frames, state: net(frames, state, training=False))
    window, aux = call(timed, frames, timed.initial_state(3))
    state, outputs = timed.initial_state(3), []
    for frame in frames:
        one, step = call(timed, frame[None], state)
        state, outputs = state.after(step), [*outputs, one[0]]
    assert_equal(jnp.stack(outputs), window)
    assert_equal(state.neurons, aux.state)


def test_several_windows_by_one_run_equal_a_readout_of_each():
    net, x = spiking_conv_net(), pictures()
    found = conversion.mean_outputs(net, x, timesteps=(7, 2))
    assert list(found) == [2, 7]
    call = jax.jit(lambda net, frames: net(frames, net.initial_state(3), training=False)[0])
    outputs = call(net, encoding.direct(x, timesteps=7))
    for t, logits in found.items():
        assert_close(logits, readout.rate(outputs[:t]), 1e-6)


def test_the_result_is_an_ordinary_network():
    """Binary spikes: counted as accumulations, packed and reversed in further training."""
    net, frames = spiking_conv_net(), encoding.direct(pictures(), timesteps=4)
    tally = cost.measure(net, frames)
    found = {name: (c.binary, c.effective_macs > 0) for name, c in tally.connections.items()}
    # Means of spikes in front of the second convolution are no spikes, so it follows its pool.
    assert found == {"conv0": (False, True), "conv3": (True, False), "linear7": (True, False),
                     "linear9": (True, False)}  # fmt: skip
    assert all(layer.spiking for layer in tally.neurons.values())

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(graphdef, params, constants):
        def loss(params):
            net = nn.merge(graphdef, params, constants)
            return jnp.sum(jnp.square(net(frames, net.initial_state(3), training=True)[0]))

        return jax.grad(loss)(params)

    saving = nn.with_memory(net, memory.Strategy(time=memory.reversal(), pack=True))
    assert_close(gradient(*nn.split(saving)), gradient(*nn.split(net)), 1e-5)


# Refusals


def refused(*layers, shape=SHAPE):
    return nn.Network(nn.Sequential(*layers), shape)


def make(name):
    rngs = nnx.Rngs(0)
    return {
        "maxpool0": lambda: nn.MaxPool(),
        "layernorm0": lambda: nn.LayerNorm(1, rngs=rngs),
        "groupnorm0": lambda: nn.GroupNorm(1, 1, rngs=rngs),
        "lif0": lambda: nn.LIF(),
        "scaled_conv0": lambda: nn.ScaledStdConv(1, 1, rngs=rngs),
        "softmax": lambda: nn.Fold(jax.nn.softmax),
        "gelu": lambda: nn.Fold(jax.nn.gelu),
        "relu function": lambda: nn.Fold(jax.nn.relu),
        "own": lambda: nn.Fold(jnp.square),
    }[name]()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maxpool0", r"maxpool0 \(Fold\) does not convert: .*train with nn\.AvgPool"),
        ("layernorm0", r"layernorm0 .*train with nn\.BatchNorm"),
        ("groupnorm0", r"groupnorm0 .*train with nn\.BatchNorm"),
        ("lif0", r"lif0 \(Neuron\) .*neuron=conversion\.ReLU"),
        ("scaled_conv0", r"scaled_conv0 .*train with nn\.Conv"),
        ("softmax", r"fold0 .*leave it out"),
        ("gelu", r"fold0 .*conversion\.QCFS"),
        ("relu function", r"fold0 .*use conversion\.ReLU\(\)"),
        ("own", r"fold0 \(Fold \(.*\)\) .*a method to_spiking"),
    ],
)
def test_layers_that_do_not_convert_are_named_with_the_cure(name, message):
    net = refused(make(name))
    with pytest.raises(ValueError, match=message):
        conversion.to_spiking(net)
    # Before a pass over the data, too.
    with pytest.raises(ValueError, match=message):
        conversion.calibrate(net, iter(()))


def test_a_layer_deep_inside_is_named_by_its_tap():
    inner = nn.Residual(nn.Sequential(nn.MaxPool(window=1), conversion.ReLU()))
    with pytest.raises(ValueError, match="sequential0/residual0/branch/maxpool0"):
        conversion.to_spiking(refused(nn.Sequential(inner)))


def test_thresholds_are_checked():
    net = refused(nn.Conv(1, 1, rngs=nnx.Rngs(0)), conversion.ReLU())
    with pytest.raises(ValueError, match="relu1 has no threshold: give thresholds=conversion.cal"):
        conversion.to_spiking(net)
    for value in (0.0, -1.0, np.nan, np.inf, np.ones(3)):
        with pytest.raises(ValueError, match="threshold of relu1 must be one positive number"):
            conversion.to_spiking(net, thresholds={"relu1": value})
    with pytest.raises(ValueError, match=r"thresholds name \['relu7'\]"):
        conversion.to_spiking(net, thresholds={"relu7": 1.0})
    with pytest.raises(ValueError, match="needs at least one batch"):
        conversion.calibrate(net, [])
    with pytest.raises(TypeError, match="batches of inputs alone, got"):
        conversion.calibrate(net, [(pictures(), np.zeros(3))])
    with pytest.raises(ValueError, match='give shift="step" and timesteps=T together'):
        conversion.to_spiking(net, thresholds={"relu1": 1.0}, shift="step")
    with pytest.raises(ValueError, match="outputs has no threshold"):
        conversion.to_spiking(net, thresholds={"relu1": 1.0}, last="spiking")
    with pytest.raises(TypeError, match=r"conversion takes an nn\.Network, got"):
        conversion.to_spiking(net.body)


def test_statistics_are_checked():
    net = conv_net()
    with pytest.raises(ValueError, match="give statistics=state.statistics"):
        conversion.to_spiking(net)
    with pytest.raises(ValueError, match="do not fit this network"):
        conversion.to_spiking(net, statistics=(Statistics(jnp.zeros(3), jnp.ones(3)),))
    state = net.initial_state(2, statistics=moved(net))
    whole = conversion.to_spiking(net, statistics=state)
    assert jax.tree.structure(whole) == jax.tree.structure(spiking_conv_net())


# Layers of one's own


class Halved(nnx.Module):
    """`y = x / 2`, which passes units on."""

    name = "halved"

    def initial_state(self, shape):
        return State()

    def __call__(self, inputs, state, call):
        return stateless_result(inputs / 2)

    def to_spiking(self, request):
        return Converted(self, Units(request.scale))


class Capped(conversion.activations.Activation):
    """`min(max(x, 0), 6)`."""

    name = "relu6"

    def function(self, x):
        return conversion.threshold_relu(x, 6.0)

    def bound(self):
        return 6.0


def test_layers_of_ones_own_take_part():
    w = np.asarray([[3.0, -2.0], [1.0, 4.0]], np.float32)
    net = refused(
        golden.linear(w), Capped(), Halved(), golden.linear(w, np.ones(2, np.float32)), Halved(),
        shape=(2,),
    )  # fmt: skip
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 2)), jnp.float32)
    spiking = conversion.to_spiking(net)
    np.testing.assert_allclose(rates(spiking, x, 512), sources.logits(net, x), atol=0.05)
