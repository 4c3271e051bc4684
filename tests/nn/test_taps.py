"""Taps: what is looked at is what is there, and looking at rates costs no memory over the depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import memory, nn
from snnjax.nn.taps import in_order
from tests.nn.layers import FLAT, LAYERS, SPACE, B, T, call, rngs, sequence

KINDS = ("spikes", "membrane", "currents", "threshold", "rates")
NEURONS = ["if", "lif", "plif", "alif", "cubalif", "recurrent", "grouped"]


@pytest.mark.parametrize("name", [*NEURONS, "coupledlif", "li", "shared", "stacked", "residual"])
def test_all_kinds_fit_each_other_and_change_nothing(name):
    make, shape = LAYERS[name]
    layer, inputs = make(), sequence(shape)
    outputs, aux = call(layer, inputs, taps=KINDS)
    np.testing.assert_array_equal(outputs, call(layer, inputs)[0])
    assert aux.taps
    for seen in aux.taps.values():
        spikes = np.asarray(seen["spikes"])
        assert seen["currents"].shape == spikes.shape
        # Two coupled neurons have one output each and one membrane between them.
        assert seen["membrane"].size * (1 + (name == "coupledlif")) == spikes.size
        axes = tuple(range(2, spikes.ndim))
        np.testing.assert_allclose(seen["rates"], spikes.mean(axes), rtol=1e-6)
        np.testing.assert_array_equal(seen["analog"], ~np.isin(spikes, (0, 1)).all(axes))
        assert seen["analog"].any() == (name in ("li", "coupledlif"))
        if name == "li":
            assert "threshold" not in seen
        else:
            np.testing.assert_array_equal(
                np.broadcast_to(seen["threshold"], spikes.shape), np.float32(1.0)
            )


@pytest.mark.fast
@pytest.mark.parametrize("name", NEURONS)
def test_currents_of_neurons_are_what_comes_in(name):
    make, shape = LAYERS[name]
    inputs = sequence(shape)
    _, aux = call(make(), inputs, taps=("currents",))
    assert set(aux.taps[""]) == {"currents"}
    np.testing.assert_array_equal(aux.taps[""]["currents"], inputs)


@pytest.mark.fast
def test_disabled_neurons_show_the_same_kinds():
    x = jnp.asarray([[0.2, 0.5, 0.9, 0.1]])[None]
    _, aux = nn.Disabled()(x, nn.State(), nn.Call(training=False, taps=KINDS))
    seen = aux.taps[""]
    np.testing.assert_array_equal(seen["currents"], x)
    np.testing.assert_array_equal(seen["threshold"], [[[0.5]]])
    np.testing.assert_array_equal(seen["rates"], [[0.5]])


def test_currents_are_those_behind_the_attention():
    asa, lif = nn.ASA(T, rngs=rngs()), nn.LIF()
    inputs = sequence(SPACE)
    _, aux = call(nn.Sequential(asa, lif), inputs, taps=("currents", "spikes"))
    weighed, _ = call(asa, inputs)
    np.testing.assert_array_equal(aux.taps["lif1"]["currents"], weighed)
    np.testing.assert_array_equal(aux.taps["lif1"]["spikes"], call(lif, weighed)[0])


def test_currents_of_a_shared_membrane_are_each_layers_own():
    synapses = [nn.Linear(6, 6, rngs=nnx.Rngs(i)) for i in range(2)]
    inputs = sequence(FLAT)
    _, aux = call(nn.Shared(synapses, nn.LIF()), inputs, taps=("currents", "spikes"))
    first, second = aux.taps["lif0"], aux.taps["lif1"]
    np.testing.assert_allclose(first["currents"], call(synapses[0], inputs)[0], atol=1e-6)
    np.testing.assert_allclose(second["currents"], call(synapses[1], first["spikes"])[0], atol=1e-6)


def test_the_threshold_of_a_channel_group_stands_for_all_groups():
    threshold = jnp.asarray([0.5, 2.0])
    layer = nn.Grouped(nn.LIF(threshold=threshold), 2)
    _, aux = call(layer, sequence((B, 3, 4)), taps=("threshold",))
    assert aux.taps[""]["threshold"].shape == (T, 1, 1, 4)
    np.testing.assert_array_equal(aux.taps[""]["threshold"][1, 0, 0], [0.5, 2.0, 0.5, 2.0])


def test_blocks_of_a_stack_show_their_own_thresholds():
    stack = nn.Stacked(lambda r: nn.Sequential(nn.LIF(learn=("threshold",))), 2, rngs=rngs())
    stack = jax.tree.map(lambda leaf: leaf * jnp.asarray([1.0, 3.0]), stack)
    _, aux = call(stack, sequence(FLAT), taps=("threshold",))
    seen = {name: kinds["threshold"] for name, kinds in aux.taps.items()}
    assert {name: float(leaf[0, 0, 0]) for name, leaf in seen.items()} == {
        "block0/lif0": 1.0, "block1/lif0": 3.0,
    }  # fmt: skip


def test_grouped_neurons_show_how_well_they_are_rebuilt():
    layer = nn.Grouped(nn.IF(scan=memory.reversal()), 2)
    _, aux = call(layer, sequence(FLAT), taps=("reconstruction", "rates"))
    assert aux.taps[""]["reconstruction"].shape == (1,)
    assert float(aux.taps[""]["reconstruction"][0]) < 1e-5
    assert aux.taps[""]["rates"].shape == (T, B)


def test_both_orders_show_the_same():
    seen = {}
    for order in ("layer", "time"):
        body = nn.Sequential(nn.Stacked(half, 2, rngs=rngs()), nn.LIF(decay=0.5))
        net = nn.Network(body, FLAT[1:], order=order)
        run = lambda net, x, state: net(x, state, training=False, taps=KINDS)[1].taps  # noqa: E731
        seen[order] = jax.jit(run)(net, sequence(FLAT), net.initial_state(B))
    assert set(seen["layer"]) == set(seen["time"]) and len(seen["time"]) == 3
    for name, kinds in seen["layer"].items():
        for kind, leaf in kinds.items():
            np.testing.assert_allclose(seen["time"][name][kind], leaf, atol=1e-5, err_msg=name)


def half(rngs):
    return nn.Sequential(nn.LIF(), nn.Linear(6, 6, rngs=rngs), nn.BatchNorm(6))


def test_rates_cost_the_bytes_of_the_rates_and_nothing_of_the_size_of_the_spikes():
    depth, batch = 16, 64

    def temporary(taps):
        net = nn.Network(nn.Stacked(half, depth, rngs=rngs()), FLAT[1:])
        run = lambda net, x, state: net(x, state, training=False, taps=taps)  # noqa: E731
        inputs, state = jnp.zeros((T, batch, *FLAT[1:])), net.initial_state(batch)
        compiled = jax.jit(run).lower(net, inputs, state).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    rates = T * batch * (4 + 1)  # of a block: a float32 and a bool per timestep and example
    # Those of all blocks and of the one at hand, which has more spikes than that.
    assert rates < T * batch * FLAT[-1] // 2 * 4
    assert temporary(("rates",)) - temporary(()) <= (depth + 1) * rates


@pytest.mark.fast
def test_layers_stand_in_the_order_of_the_network():
    layers = [nn.Linear(6, 6, rngs=rngs()), nn.Residual(nn.Sequential(nn.LIF()))]
    body = nn.Sequential(*layers, nn.Stacked(half, 11, rngs=rngs()), *[nn.IF() for _ in range(8)])
    names = []

    @jax.jit
    def run(x):
        taps = call.__wrapped__(body, x, taps=("rates",))[1].taps
        names.extend(taps)
        return taps

    jitted = run(sequence(FLAT))
    assert names[:2] == ["residual1/branch/lif0", "stack2/block0/lif0"] and names[-1] == "if10"
    assert list(jitted) != names and list(in_order(jitted)) == names
