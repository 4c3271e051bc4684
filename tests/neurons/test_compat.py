"""The peers' golden vectors, reproduced by the converters: spikes, membranes and gradients."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, surrogate
from snnjax.typing import bind
from tests.compare import AS_USERS_DO, assert_close, assert_equal
from tests.oracle import neurons as oracle

BOUND = 1e-5  # of the largest entry, float32 against float32 of another framework


def spikingjelly(meta):
    names = ("decay_input", "v_threshold", "v_reset", "detach_reset")
    options = {name: meta[name] for name in names}
    spike = surrogate.arctan(alpha=meta["alpha"])
    if meta["neuron"] == "ParametricLIFNode":
        return neurons.compat.spikingjelly_plif(init_tau=2.0, spike=spike, **options)
    return neurons.compat.spikingjelly_lif(tau=meta["tau"], spike=spike, **options)


def snntorch(meta):
    options = {name: meta[name] for name in ("threshold", "reset_mechanism")}
    if meta["neuron"] == "Synaptic":
        spike = surrogate.arctan(alpha=meta["surrogate_alpha"])
        return neurons.compat.snntorch_synaptic(meta["alpha"], meta["beta"], spike=spike, **options)
    spike = surrogate.arctan(alpha=meta["alpha"])
    options["reset_delay"] = meta["reset_delay"]
    return neurons.compat.snntorch_leaky(meta["beta"], spike=spike, **options)


def norse(meta):
    names = ("tau_mem_inv", "v_leak", "v_th", "v_reset", "dt")
    return neurons.compat.norse_lif_box(**{name: meta[name] for name in names})


PEERS = {"spikingjelly": spikingjelly, "snntorch": snntorch, "norse": norse}
RESETS = ("vreset0.0", "vreset-0.25", "vresetNone")
FILES = (
    *(
        f"sj_lif_tau2.0_decay{decay}_{reset}_detach{detach}"
        for decay in (0, 1)
        for reset in RESETS
        for detach in (0, 1)
    ),
    "sj_plif_detach0",
    *(
        f"snn_leaky_{rule}_delay{d}_beta0.9"
        for rule in ("subtract", "zero", "none")
        for d in (0, 1)
    ),
    "snn_synaptic_subtract",
    "norse_lif_box_super",
)
NETWORK = "sj_net_fc"


def load(shared, name):
    with np.load(shared("golden") / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def with_membrane(step):
    """The step that also returns its membrane."""

    def observed(params, state, x):
        state, spikes = step(params, state, x)
        return state, (spikes, state.v)

    return observed


@pytest.mark.parametrize("name", FILES)
def test_the_neuron_of_a_peer_is_reproduced(shared, name):
    arrays, meta = load(shared, name)
    neuron = PEERS[meta["peer"]](meta)
    state = neuron.initial_state(arrays["x"].shape[1:])
    g, gv = jnp.asarray(arrays["g"]), jnp.asarray(arrays["gv"])

    def loss(params, xs, scan):
        last, spikes = scan(params, state, xs)
        return jnp.sum(spikes * g) + jnp.sum((last.v + neuron.rest) * gv), (last, spikes)

    @functools.partial(jax.jit, compiler_options=AS_USERS_DO)
    def everything(params, xs):
        _, (_, membranes) = memory.store(with_membrane(neuron.step), params, state, xs)
        gradient = jax.grad(loss, (0, 1), has_aux=True)
        return membranes, [gradient(params, xs, scan) for scan in scans]

    scans = [functools.partial(memory.store, neuron.step)]
    scans += [] if neuron.sequence is None else [neuron.sequence]
    membranes, runs = everything(neuron.params, jnp.asarray(arrays["x"]))
    assert_close(membranes + neuron.rest, arrays["v" if "v" in arrays else "mem"], BOUND)
    for (g_params, g_xs), (last, spikes) in runs:
        np.testing.assert_array_equal(spikes, arrays["s"])
        assert_equal(last.v, membranes[-1])
        assert_close(g_xs, arrays["gx"], BOUND)
        for key, field in (("gw", "w"), ("gbeta", "decay"), ("gthr", "threshold")):
            if key in arrays:
                assert_close(getattr(g_params, field), arrays[key], BOUND)


def test_only_delayed_and_filtered_neurons_have_no_whole_sequence_function(shared):
    names = [n for n in FILES if PEERS[(m := load(shared, n)[1])["peer"]](m).sequence is None]
    assert names == [n for n in FILES if "delay1" in n or "synaptic" in n]


def test_a_network_of_spikingjelly_is_reproduced(shared):
    arrays, meta = load(shared, NETWORK)
    neuron = neurons.compat.spikingjelly_lif(
        tau=meta["tau"],
        decay_input=meta["decay_input"],
        v_reset=meta["v_reset"],
        detach_reset=meta["detach_reset"],
        spike=surrogate.arctan(alpha=meta["alpha"]),
    )
    layers = ("0", "2")
    params = {
        k: jnp.asarray(arrays[f"p.{k}"]) for n in layers for k in (f"{n}.weight", f"{n}.bias")
    }
    labels = jnp.asarray(arrays["y"].astype(np.int32))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, spikes):
        trains = []
        for n in layers:
            currents = spikes @ params[f"{n}.weight"].T + params[f"{n}.bias"]
            state = neuron.initial_state(currents.shape[1:])
            _, spikes = neuron.sequence(neuron.params, state, currents)
            trains.append(spikes)
        log = jax.nn.log_softmax(jnp.mean(spikes, 0))
        return -jnp.mean(jnp.take_along_axis(log, labels[:, None], 1)), trains

    (value, trains), gradients = loss(params, jnp.asarray(arrays["x"]))
    np.testing.assert_array_equal(trains[0], arrays["s0"])
    np.testing.assert_array_equal(trains[1], arrays["s1"])
    assert_close(value, arrays["loss"], BOUND)
    assert_close(gradients, {k: arrays[f"g.{k}"] for k in params}, BOUND)


def test_no_golden_neuron_is_left_out(shared):
    # Networks with convolutions belong to the tests of the layers.
    there = {path.stem for path in shared("golden").glob("*.npz")}
    assert {n for n in there if not n.startswith("sj_net")} == set(FILES)
    assert NETWORK in there


def test_an_integrate_and_fire_of_spikingjelly_is_a_lif_that_never_leaks():
    xs = jnp.asarray(np.random.default_rng(0).normal(0.2, 0.6, (7, 2, 3)), jnp.float32)
    for options in ({"v_reset": -0.25}, {"v_reset": None, "detach_reset": True}):
        leaky = neurons.compat.spikingjelly_lif(tau=float("inf"), decay_input=False, **options)
        perfect = neurons.compat.spikingjelly_if(**options)
        assert leaky.rest == perfect.rest == (options["v_reset"] or 0.0)
        runs = [
            scan(n.params, n.initial_state((2, 3)), xs)
            for n in (leaky, perfect)
            for scan in (functools.partial(memory.store, n.step), n.sequence)
        ]
        for run in runs[1:]:
            assert_equal(run, runs[0])


def test_spyx_is_the_delayed_reset_one_step_late(x64):
    xs = np.random.default_rng(3).normal(0.3, 0.7, (9, 2, 3))
    late = neurons.compat.spyx_lif(0.8, dtype=jnp.float64)
    spike = surrogate.strict(surrogate.fast_sigmoid(alpha=25.0))
    state = late.initial_state((2, 3), dtype=jnp.float64)
    last, spikes = memory.store(late.step, late.params, state, jnp.asarray(xs))
    expected, membranes = oracle.spyx_lif(xs, 0.8, 1.0)
    np.testing.assert_array_equal(spikes, expected)
    assert_close(last.v, membranes[-1], 1e-12)

    def loss(xs, step, shift):
        _, s = memory.store(step, late.params, state, xs)
        return jnp.sum(jnp.cos(jnp.arange(8.0))[:, None, None] * s[shift : 8 + shift])

    delayed = bind(neurons.lif, spike=spike, reset=neurons.reset.delayed(neurons.reset.subtract))
    _, early = memory.store(delayed, late.params, state, jnp.asarray(xs))
    np.testing.assert_array_equal(spikes[1:], early[:-1])
    gradients = [
        jax.grad(loss)(jnp.asarray(xs), late.step, 1),
        jax.grad(loss)(jnp.asarray(xs), delayed, 0),
    ]
    assert_close(gradients[0], gradients[1], 1e-12)


@pytest.mark.fast
def test_membranes_of_norse_are_shifted_by_the_leak_potential(x64):
    options = {"tau_mem_inv": 300.0, "v_leak": 0.2, "v_th": 0.9, "v_reset": -0.1}
    neuron = neurons.compat.norse_lif_box(dtype=jnp.float64, **options)
    xs = np.random.default_rng(2).normal(0.8, 0.9, (7, 2, 3))
    state = neuron.initial_state((2, 3), dtype=jnp.float64)
    observed = with_membrane(neuron.step)
    _, (spikes, ours) = memory.store(observed, neuron.params, state, jnp.asarray(xs))
    v, decay = np.full((2, 3), options["v_leak"]), 0.3
    for t, x in enumerate(xs):
        v = v + decay * (x + options["v_leak"] - v)
        fired = v > options["v_th"]
        v = np.where(fired, options["v_reset"], v)
        np.testing.assert_array_equal(spikes[t], fired)
        assert_close(ours[t] + neuron.rest, v, 1e-12)
    assert np.sum(spikes) > 0


@pytest.mark.fast
@pytest.mark.parametrize(("first", "equal"), [(1.9, True), (2.5, False)])
def test_snntorch_without_delay_is_equal_below_twice_the_threshold(first, equal):
    neuron = neurons.compat.snntorch_leaky(0.9, reset_delay=False)
    xs = (first, 0.0, 0.3)
    _, spikes = memory.store(
        neuron.step, neuron.params, neuron.initial_state((1,)), jnp.asarray(xs)[:, None]
    )
    theirs, v = [], 0.0
    for x in xs:
        again = v > 1.0
        v = 0.9 * v + x - again
        theirs.append(v > 1.0)
        v -= theirs[-1] - float(again)
    assert np.array_equal(spikes[:, 0], theirs) == equal


@pytest.mark.fast
def test_converters_give_equal_hashable_steps_for_equal_arguments():
    makers = (
        neurons.compat.spikingjelly_lif,
        neurons.compat.spikingjelly_plif,
        neurons.compat.spikingjelly_if,
        functools.partial(neurons.compat.snntorch_leaky, 0.9),
        functools.partial(neurons.compat.snntorch_synaptic, 0.7, 0.9),
        neurons.compat.norse_lif_box,
        functools.partial(neurons.compat.spyx_lif, 0.9),
    )
    for make in makers:
        assert make().step == make().step and hash(make().step) == hash(make().step)
    assert len({make().step for make in makers}) == len(makers)
    assert (
        neurons.compat.spikingjelly_lif(detach_reset=True).step
        != neurons.compat.spikingjelly_lif().step
    )


@pytest.mark.fast
def test_defaults_are_the_peers_defaults():
    lif = neurons.compat.spikingjelly_lif()
    options = dict(lif.step.options)
    assert (float(lif.params.decay), float(lif.params.threshold)) == (0.5, 1.0)
    assert options["spike"] == surrogate.sigmoid(alpha=4.0)
    assert options["reset"] == neurons.reset.zero and options["scale_input"]
    leaky = dict(neurons.compat.snntorch_leaky(0.9).step.options)
    assert leaky["reset"] == neurons.reset.delayed(neurons.reset.detached(neurons.reset.subtract))
    assert leaky["spike"] == surrogate.strict(surrogate.arctan(alpha=2.0))
    assert float(neurons.compat.spikingjelly_plif().params.w) == 0.0
    assert float(neurons.compat.snntorch_leaky(1.5).params.decay) == 1.0
    np.testing.assert_allclose(neurons.compat.norse_lif_box().params.decay, 0.9, rtol=1e-6)


@pytest.mark.fast
def test_errors_name_the_cure():
    with pytest.raises(ValueError, match="subtract, zero, none"):
        neurons.compat.snntorch_leaky(0.9, reset_mechanism="soft")
    with pytest.raises(ValueError, match="exponential_decay"):
        neurons.compat.spikingjelly_lif(tau=0.5)
    with pytest.raises(ValueError, match="smaller dt"):
        neurons.compat.norse_lif_box(tau_mem_inv=2000.0)
