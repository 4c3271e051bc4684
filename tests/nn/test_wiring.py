"""Sequential and Residual: values, states in order, names of taps, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import nn
from snnjax.nn.wiring import layer_name
from tests.nn.layers import FLAT, SPACE, B, T, call, rngs, sequence


@pytest.mark.fast
def test_sequential_is_one_layer_after_the_other():
    r = rngs()
    layers = [nn.Linear(6, 6, rngs=r), nn.LIF(), nn.BatchNorm(6), nn.LIF(decay=0.9)]
    inputs = sequence(FLAT)
    outputs, aux = call(nn.Sequential(*layers), inputs, training=True)
    expected, states, statistics = inputs, [], []
    for layer in layers:
        expected, own = call(layer, expected, training=True)
        states.append(own.state)
        statistics.append(own.statistics)
    np.testing.assert_array_equal(outputs, expected)
    assert jax.tree.structure(aux.state) == jax.tree.structure(tuple(states))
    np.testing.assert_array_equal(aux.state[1].v, states[1].v)
    np.testing.assert_array_equal(aux.statistics[2].mean, statistics[2].mean)


def test_nothing_in_a_sequence_is_the_identity():
    inputs = sequence(FLAT)
    outputs, aux = call(nn.Sequential(), inputs)
    np.testing.assert_array_equal(outputs, inputs)
    assert aux == nn.Aux((), (), {})


def test_states_follow_the_shapes_through_the_layers():
    layer = nn.Sequential(
        nn.Conv(2, 3, rngs=rngs()), nn.LIF(), nn.MaxPool(), nn.IF(), nn.Flatten(), nn.LI()
    )
    neurons = layer.initial_state(SPACE).neurons
    assert [s.v.shape for s in (neurons[1], neurons[3], neurons[5])] == [
        (B, 8, 8, 3), (B, 4, 4, 3), (B, 48)
    ]  # fmt: skip


def test_residual_adds_branch_and_shortcut():
    inputs = sequence(SPACE)
    r = rngs()
    branch, shortcut = nn.Conv(2, 3, rngs=r), nn.Conv(2, 3, kernel=1, rngs=r)
    outputs, _ = call(nn.Residual(branch, shortcut=shortcut), inputs)
    np.testing.assert_array_equal(outputs, call(shortcut, inputs)[0] + call(branch, inputs)[0])
    same = nn.Conv(2, 2, rngs=r)
    np.testing.assert_array_equal(
        call(nn.Residual(same), inputs)[0], inputs + call(same, inputs)[0]
    )


def test_a_residual_that_would_broadcast_is_an_error():
    layer = nn.Residual(nn.Linear(6, 1, rngs=rngs()))
    with pytest.raises(ValueError, match=r"\[4, 2, 1\] and the shortcut \[4, 2, 6\]"):
        call(layer, sequence(FLAT))


def test_taps_are_named_by_the_way_down():
    inner = nn.Sequential(nn.Linear(6, 6, rngs=rngs()), nn.LIF())
    layer = nn.Sequential(nn.LIF(), nn.Residual(inner, shortcut=nn.IF()))
    _, aux = call(layer, sequence(FLAT), taps=("spikes",))
    assert list(aux.taps) == ["lif0", "residual1/branch/lif1", "residual1/shortcut"]
    assert aux.taps["residual1/branch/lif1"]["spikes"].shape == (T, *FLAT)


def test_a_layer_without_a_name_is_called_by_its_class():
    class Plain:
        pass

    assert layer_name(Plain(), 3) == "plain3"
    assert layer_name(nn.LIF(), 0) == "lif0"


def test_each_part_draws_by_a_key_of_its_own():
    assert nn.Call(training=True).child(1) == nn.Call(training=True)
    key = jax.random.key(0)
    own = nn.Call(training=True, key=key)
    drawn = {jax.random.key_data(own.child(i).key).tobytes() for i in range(5)}
    assert len(drawn) == 5
    assert own.child(3).key == jax.random.fold_in(key, 3)
    layer = nn.Residual(nn.Dropout(0.5), shortcut=nn.Dropout(0.5))
    outputs, _ = call(layer, jnp.ones((2, 1, 100)), training=True, key=key)
    assert set(np.unique(outputs)) == {0.0, 2.0, 4.0}
