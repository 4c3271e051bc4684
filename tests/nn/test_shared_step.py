"""A membrane that is handed on, and the way back to each call's.

Inputs and weights are multiples of 1/8 where "equal" is bit for bit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, nn
from snnjax.neurons.lif import LIFState
from tests.compare import assert_close
from tests.nn.layers import B, T, call, dyadic, leaves, rngs, run, sequence, weighted

FLAT, LAYERS = (B, 6), 3
SOFT = {"decay": 0.25, "scale_input": True, "reset": neurons.reset.detached(neurons.reset.subtract)}


def group(neuron, *, layers=LAYERS, scale=3.0, **options):
    r = rngs()
    synapses = [nn.Linear(6, 6, rngs=r) for _ in range(layers)]
    return jax.tree.map(lambda leaf: scale * leaf, nn.Shared(synapses, neuron, **options))


def both(neuron):
    return nn.Grouped(neuron, 2)


def long_scan(layer, inputs, state):
    """The equations over every timestep, layer and channel group, written out."""
    neuron = layer.neuron
    cell, groups = (neuron.neuron, neuron.groups) if isinstance(neuron, nn.Grouped) else (neuron, 1)
    outputs = []
    for frame in inputs:
        entered = [None, frame]
        for number, synapse in enumerate(layer.synapses):
            x = synapse.function(entered[-1])
            if len(layer.shortcuts) and layer.shortcuts[number] is not None:
                x = x + entered[-2]
            spikes = []
            for part in jnp.split(x, groups, axis=-1):
                state, fired = cell.step(cell.params(), state, part)
                spikes.append(fired)
            entered.append(jnp.concatenate(spikes, -1))
        outputs.append(entered[-1])
    return jnp.stack(outputs)


def gradients(function, *args):
    """The outputs, and the gradients of a weighted sum of them."""

    def loss(*args):
        outputs = function(*args)
        return weighted(outputs), outputs

    grads, outputs = jax.jit(jax.grad(loss, argnums=range(len(args)), has_aux=True))(*args)
    return outputs, grads


SCANS = {
    "store": (SOFT, memory.store),
    "recompute": (SOFT, memory.recompute(T)),
    "recompute in levels": (SOFT, memory.recompute(3, inner=memory.recompute(1))),
    "reverse with a refresh": (SOFT, memory.reversal()),
    "reverse without a leak": ({"decay": 1.0}, memory.reversal()),
}
SHORTCUTS = {"plain": (), "residual": [None, None, nn.Sequential()]}


def table():
    """Each row is a compilation in float64: the default lane has those with shortcuts."""
    for name in SCANS:
        for ways in SHORTCUTS:
            slow = ways == "plain" or name in ("store", "recompute in levels")
            yield pytest.param(name, ways, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("name", "ways"), list(table()))
def test_the_gradient_is_that_of_the_long_scan(name, ways, x64):
    """Float64, over layers and channel groups at once; undone leaks as far as they are undone."""
    options, scan = SCANS[name]
    layer = group(both(nn.LIF(**options)), scan=scan, shortcuts=SHORTCUTS[ways])
    layer, inputs = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (layer, sequence(FLAT)))
    membrane = jnp.full((B, 3), 0.3)
    state = nn.State((LIFState(membrane), ((),) * 6 if ways == "residual" else ((),) * 3))
    state = state._replace(statistics=state.neurons[1])

    def through(layer, inputs, membrane):
        start = state._replace(neurons=(LIFState(membrane), state.neurons[1]))
        return layer(inputs, start, nn.Call(training=True))[0]

    expected = lambda layer, x, v: long_scan(layer, x, LIFState(v))  # noqa: E731
    args = (layer, inputs, membrane)
    outputs, result = gradients(through, *args)
    wanted_outputs, wanted = gradients(expected, *args)
    np.testing.assert_array_equal(outputs, wanted_outputs)
    assert 0 < outputs.mean() < 1
    bound = 1e-11 if name == "reverse with a refresh" else 1e-12  # six calls at 0.25: 4^6 roundings
    assert_close(leaves(result), leaves(wanted), bound)


@pytest.mark.fast
def test_a_membrane_without_a_leak_is_rebuilt_over_hundreds_of_calls():
    """Float32, 240 calls in a row, none refreshed: error below 1e-5 and the gradient of store."""
    layer = group(both(nn.IF()), scan=memory.reversal(), scale=1.0)
    inputs = sequence(FLAT, timesteps=40)
    outputs, aux = call(layer, inputs, taps=("reconstruction",))
    assert 40 * LAYERS * 2 >= 100
    assert 0 < aux.taps[""]["reconstruction"][0] < 1e-5
    assert 0 < outputs.mean() < 1
    result, stored = run(layer, inputs), run(group(both(nn.IF()), scale=1.0), inputs)
    np.testing.assert_array_equal(result.outputs, stored.outputs)
    assert_close(leaves(result.gradients), leaves(stored.gradients), 1e-4)


def test_on_multiples_of_an_eighth_nothing_is_lost_on_the_way_back():
    layer = dyadic(group(both(nn.IF()), scan=memory.reversal()))
    inputs = dyadic(sequence(FLAT, timesteps=20))
    _, aux = call(layer, inputs, taps=("reconstruction", "spikes"))
    assert aux.taps[""]["reconstruction"][0] == 0.0
    assert set(aux.taps) == {"", "if0", "if1", "if2"}
    stored = dyadic(group(both(nn.IF())))
    result, expected = run(layer, inputs), run(stored, inputs)
    assert_close(leaves(result.gradients), leaves(expected.gradients), 1e-6)


def test_a_spike_that_rounding_would_flip_is_not_flipped():
    """A membrane exactly at the threshold, and a frame of which a rebuilt one falls below it."""
    layer = nn.Shared([nn.Sequential(), nn.Linear(1, 1, rngs=rngs())], nn.IF())
    layer.synapses[1].function.kernel = type(layer.synapses[1].function.kernel)(jnp.ones((1, 1)))
    tenths = jnp.full((30, 1, 1), 0.1)
    expected = run(layer, tenths)
    reversing = nn.Shared(list(layer.synapses), nn.IF(), scan=memory.reversal())
    assert_close(leaves(run(reversing, tenths).gradients), leaves(expected.gradients), 1e-4)


@pytest.mark.fast
def test_a_leak_is_undone_no_more_often_than_float32_allows():
    """Eight calls at a decay of 0.25: refreshed in time, or refused."""
    layer = group(nn.LIF(**SOFT), layers=4, scan=memory.reversal())
    assert layer.inverse()[1] == 2  # timesteps of four calls
    call(layer, sequence(FLAT))
    asked = group(nn.LIF(**SOFT), layers=4, scan=memory.reversal(refresh=3))
    with pytest.raises(ValueError, match="refresh=2"):
        jax.grad(lambda x: call(asked, x)[0].sum())(sequence(FLAT))
    with pytest.raises(ValueError, match=r"9 times per timestep.*8 updates.*recompute"):
        group(nn.LIF(**SOFT), layers=9, scan=memory.reversal())
    with pytest.raises(ValueError, match="10 times per timestep"):
        group(both(nn.LIF(**SOFT)), layers=5, scan=memory.reversal())


def test_neurons_that_cannot_be_undone_are_refused():
    for neuron, message in (
        (nn.LIF(reset=neurons.reset.zero), "hard"),
        (nn.PLIF(), "learned"),
        (nn.CoupledLIF(), "no inverse"),
    ):
        with pytest.raises(ValueError, match=message):
            group(neuron, scan=memory.reversal())


def test_the_error_of_a_refreshed_membrane_is_bounded():
    layer = group(both(nn.LIF(**SOFT)), scan=memory.reversal())
    _, aux = call(layer, sequence(FLAT, timesteps=20), taps=("reconstruction",))
    assert aux.taps[""]["reconstruction"][0] < 4**6 * 1e-6
