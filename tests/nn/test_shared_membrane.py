"""Sharing a membrane: one group is the neuron, more are an explicit loop over time and groups.

Inputs and weights are multiples of 1/8 and membranes decay by 1/2, so that every sum is exact and
"equal" is bit for bit, however XLA orders or fuses it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import memory, neurons, nn
from tests.compare import assert_close
from tests.nn.layers import B, T, block, call, dyadic, leaves, rngs, run, sequence, weighted

SHAPE = (B, 3, 3, 12)
FLAT = (B, 6)


def grouped_loop(step, params, state, inputs, groups):
    """The equations of `Grouped`, written out."""
    outputs = []
    for frame in inputs:
        spikes = []
        for currents in jnp.split(frame, groups, axis=-1):
            state, fired = step(params, state, currents)
            spikes.append(fired)
        outputs.append(jnp.concatenate(spikes, -1))
    return state, jnp.stack(outputs)


@pytest.mark.parametrize("neuron", [nn.LIF, nn.ALIF])
def test_one_group_is_the_neuron_itself(neuron):
    inputs = sequence(SHAPE)
    plain, aux = call(neuron(), inputs)
    outputs, grouped = call(nn.Grouped(neuron(), 1), inputs)
    np.testing.assert_array_equal(outputs, plain)
    np.testing.assert_array_equal(leaves(grouped.state), leaves(aux.state))


@pytest.mark.parametrize("groups", [2, 3, 12])
def test_groups_write_one_membrane_in_turn(groups):
    layer, inputs = nn.Grouped(nn.LIF(), groups), dyadic(sequence(SHAPE))
    state = layer.initial_state(SHAPE)
    assert state.neurons.v.shape == (B, 3, 3, 12 // groups)
    outputs, aux = layer(inputs, state, nn.Call(training=True))
    neuron = layer.neuron
    after, expected = grouped_loop(neuron.step, neuron.params(), state.neurons, inputs, groups)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(aux.state.v, after.v)
    assert 0 < outputs.mean() < 1


@pytest.mark.parametrize("scan", [memory.store, memory.recompute(5)])
def test_the_gradient_of_groups_is_that_of_the_loop_under_every_scan(scan):
    inputs = dyadic(sequence(SHAPE))
    layer = nn.Grouped(nn.LIF(scan=scan, learn=("decay", "threshold")), 3)
    plain = run(nn.Grouped(nn.LIF(learn=("decay", "threshold")), 3), inputs)
    result = run(layer, inputs)
    np.testing.assert_array_equal(result.outputs, plain.outputs)
    assert_close(leaves(result.gradients), leaves(plain.gradients), 1e-5)

    def looped(layer, inputs):
        neuron = layer.neuron
        state = layer.initial_state(SHAPE).neurons
        return weighted(grouped_loop(neuron.step, neuron.params(), state, inputs, 3)[1])

    expected = jax.jit(jax.grad(looped, argnums=(0, 1)))(layer, inputs)
    assert_close(leaves(result.gradients), leaves(expected), 1e-5)


def test_the_order_of_groups_matters_and_the_order_within_does_not():
    layer, inputs = nn.Grouped(nn.LIF(), 3), dyadic(sequence(SHAPE))
    outputs, _ = call(layer, inputs)
    cut = np.arange(12).reshape(3, 4)
    within = cut[:, [2, 0, 3, 1]].ravel()
    np.testing.assert_array_equal(call(layer, inputs[..., within])[0], outputs[..., within])
    swapped = cut[[1, 0, 2]].ravel()
    assert (call(layer, inputs[..., swapped])[0] != outputs[..., swapped]).any()


def test_groups_are_tapped_side_by_side():
    layer, inputs = nn.Grouped(nn.LIF(), 3), dyadic(sequence(SHAPE))
    outputs, aux = call(layer, inputs, taps=("spikes", "membrane"))
    seen = aux.taps[""]
    np.testing.assert_array_equal(seen["spikes"], outputs)
    assert seen["membrane"].shape == (T, *SHAPE)
    np.testing.assert_array_equal(seen["membrane"][-1, ..., -4:], aux.state.v)


def test_groups_that_do_not_divide_the_channels_are_an_error():
    with pytest.raises(ValueError, match="12 channels cannot be divided into 5 groups"):
        nn.Grouped(nn.LIF(), 5).initial_state(SHAPE)


def shared(layers, *, scan=None):
    r = rngs()
    synapses = [nn.Linear(6, 6, rngs=r) for _ in range(layers)]
    strong = jax.tree.map(lambda leaf: 3 * leaf, nn.Shared(synapses, nn.LIF(), scan=scan))
    return dyadic(strong)


def shared_loop(layer, inputs):
    """The equations of `Shared`, written out."""
    neuron, state = layer.neuron, layer.initial_state(inputs.shape[1:]).neurons[0]
    outputs = []
    for frame in inputs:
        for synapse in layer.synapses:
            state, frame = neuron.step(neuron.params(), state, synapse.function(frame))
        outputs.append(frame)
    return state, jnp.stack(outputs)


@pytest.mark.fast
@pytest.mark.parametrize("layers", [2, 3])
def test_layers_write_one_membrane_in_turn(layers):
    layer, inputs = shared(layers), dyadic(sequence(FLAT) + 1)
    outputs, aux = call(layer, inputs)
    after, expected = shared_loop(layer, inputs)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(aux.state[0].v, after.v)
    assert len(jax.tree.leaves(layer.initial_state(FLAT).neurons)) == 1
    assert 0 < outputs.mean() < 1


def test_a_group_of_one_layer_is_the_plain_layer():
    layer, inputs = shared(1), dyadic(sequence(FLAT))
    plain = nn.Sequential(layer.synapses[0], layer.neuron)
    result, expected = run(layer, inputs), run(plain, inputs)
    np.testing.assert_array_equal(result.outputs, expected.outputs)
    assert_close(result.gradients[1], expected.gradients[1], 1e-6)


def test_no_scan_changes_a_shared_group():
    inputs = dyadic(sequence(FLAT) + 1)
    stored = run(shared(2), inputs)
    result = run(shared(2, scan=memory.recompute(3)), inputs)
    np.testing.assert_array_equal(result.outputs, stored.outputs)
    assert_close(leaves(result.gradients), leaves(stored.gradients), 1e-5)


def test_shared_statistics_move_towards_the_mean_over_steps():
    norm = nn.BatchNorm(6, over="step", momentum=0.75)
    layer, inputs = nn.Shared([norm], nn.LIF()), sequence(FLAT)
    _, aux = call(layer, inputs, training=True)
    _, alone = call(norm, inputs, training=True)
    assert_close(aux.statistics[0], alone.statistics, 1e-6)
    _, aux = call(layer, inputs)
    np.testing.assert_array_equal(aux.statistics[0].var, 1.0)


def test_shared_layers_are_tapped_one_by_one():
    layer, inputs = shared(2), dyadic(sequence(FLAT) + 1)
    outputs, aux = call(layer, inputs, taps=("spikes", "membrane"))
    assert list(aux.taps) == ["lif0", "lif1"]
    np.testing.assert_array_equal(aux.taps["lif1"]["spikes"], outputs)
    np.testing.assert_array_equal(aux.taps["lif1"]["membrane"][-1], aux.state[0].v)


def test_layers_that_cannot_share_are_an_error():
    with pytest.raises(ValueError, match="at least one layer"):
        nn.Shared([], nn.LIF())
    r = rngs()
    with pytest.raises(ValueError, match="one shape"):
        nn.Shared([nn.Linear(6, 5, rngs=r), nn.Linear(5, 4, rngs=r)], nn.LIF()).initial_state(FLAT)


def test_window_statistics_inside_a_shared_group_are_an_error():
    layer = nn.Shared([block(rngs())], nn.LIF())
    with pytest.raises(ValueError, match="window"):
        call(layer, sequence((B, 8, 8, 2)), training=True)


# Shortcuts, a first layer that runs once, and what is kept.


def residual_blocks(neuron, **options):
    """Two blocks of two layers; the first changes the shape."""
    r = rngs()
    sizes = [(4, 6), (6, 6), (6, 6), (6, 6)]
    synapses = [nn.Linear(*size, rngs=r) for size in sizes]
    shortcuts = [None, nn.Linear(4, 6, rngs=r), None, nn.Sequential()]
    shared = nn.Shared(synapses, neuron, shortcuts=shortcuts, **options)
    return jax.tree.map(lambda leaf: 2 * leaf, shared)


@pytest.mark.fast
def test_shortcuts_are_those_of_residual_blocks():
    """Without memory from call to call (decay 0) a shared membrane is as good as one each."""
    neuron, inputs = nn.LIF(decay=1e-30, reset=neurons.reset.zero), sequence((B, 4)) + 1
    layer = residual_blocks(neuron)
    (a, b, c, d), (_, way, _, identity) = layer.synapses, layer.shortcuts
    plain = nn.Sequential(
        *(nn.Residual(nn.Sequential(a, neuron, b), shortcut=way), neuron),
        *(nn.Residual(nn.Sequential(c, neuron, d), shortcut=identity), neuron),
    )
    result, expected = run(layer, inputs), run(plain, inputs)
    np.testing.assert_array_equal(result.outputs, expected.outputs)
    assert 0 < result.outputs.mean() < 1
    assert_close(result.gradients[1], expected.gradients[1], 1e-5)


def test_shortcuts_that_cannot_be_are_an_error():
    r = rngs()
    linear = [nn.Linear(6, 6, rngs=r) for _ in range(2)]
    with pytest.raises(ValueError, match="one shortcut or None per layer"):
        nn.Shared(linear, nn.LIF(), shortcuts=[None])
    with pytest.raises(ValueError, match="None for the first layer"):
        nn.Shared(linear, nn.LIF(), shortcuts=[nn.Sequential(), None])
    wrong = nn.Shared(linear, nn.LIF(), shortcuts=[None, nn.Linear(6, 1, rngs=r)])
    with pytest.raises(ValueError, match=r"\[2, 6\] and the shortcut \[2, 1\]"):
        call(wrong, sequence(FLAT))


@pytest.mark.parametrize("training", [False, True])
def test_a_first_layer_that_runs_once_leaves_the_loop(training):
    def make(first):
        bare = {"use_bias": False, "rngs": rngs()}
        front = nn.Sequential(nn.Linear(6, 6, **bare), nn.BatchNorm(6, over="step"))
        second = nn.Sequential(nn.Linear(6, 6, **bare), nn.BatchNorm(6, over="step"))
        return nn.Shared([first(front), second], nn.LIF())

    still = jnp.broadcast_to(sequence((4, 6), timesteps=1), (T, 4, 6))
    expected = run(make(lambda layer: layer), still, training=training)
    result = run(make(nn.StaticInput), still, training=training)
    np.testing.assert_array_equal(result.outputs, expected.outputs)
    assert_close(leaves(result.aux.statistics), leaves(expected.aux.statistics), 1e-6)
    assert_close(leaves(result.gradients[0]), leaves(expected.gradients[0]), 2e-5)


def kept(layer, inputs):
    """Shapes of what the backward pass keeps, largest first."""
    state = layer.initial_state(inputs.shape[1:])

    def residuals(layer, inputs, state):
        return jax.vjp(lambda f, *a: f(*a, nn.Call(training=True))[0], layer, inputs, state)[1]

    shapes = [
        leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(residuals, layer, inputs, state))
    ]
    return [shape for shape in shapes if shape[-2:] == (B, 3)]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("neuron", "scan", "membranes"),
    [
        (nn.LIF, memory.store, T * 3 * 2),
        (nn.LIF, memory.recompute(T), 1),
        (nn.LIF, memory.recompute(2), 2),
        (nn.IF, memory.reversal(), 1),
        (functools.partial(nn.LIF, decay=0.25), memory.reversal(), T),
    ],
)
def test_the_backward_pass_keeps_one_membrane(neuron, scan, membranes):
    """Counted among the residuals by their shape: only membranes have half the channels."""
    r = rngs()
    synapses = [nn.Linear(6, 6, rngs=r) for _ in range(3)]
    layer = nn.Shared(synapses, nn.Grouped(neuron(), 2), scan=scan)
    found = sum(np.prod(shape[:-2], dtype=int) for shape in kept(layer, sequence(FLAT)))
    if scan is memory.store:
        assert found >= membranes
    else:  # the one before the first timestep is an argument, and is kept by a reversal, too
        assert found <= membranes + isinstance(scan, memory.Reverse)
