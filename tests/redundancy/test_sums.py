"""Sums over batches: exact, in whatever batches; time stays time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import nn, redundancy
from snnjax.redundancy._histogram import Bins
from tests.nn import networks

EXAMPLES = 5


def look(network, inputs):
    """Outputs and taps for examples `[T, B, ...]`."""
    state = network.initial_state(inputs.shape[1])
    run = lambda net, x, state: net(x, state, training=False, taps=redundancy.TAPS)  # noqa: E731
    return jax.jit(run)(network, inputs, state)


measure = jax.jit(redundancy.measure)


def ramp():
    """Currents that reach the threshold at the last timestep, and only for the last examples."""
    time = jnp.arange(1.0, 4.0)[:, None] * jnp.asarray([1.0, 1.0, 2.0, 2.0])
    return jnp.broadcast_to(time[..., None] / 6, (3, 4, 2))


@pytest.mark.fast
def test_time_and_examples_are_not_mixed():
    """The pitfall of the released code: `[T, B]` reshaped to `[B, T]` is not its transpose."""
    _, aux = look(nn.Network(nn.Sequential(nn.LIF(decay=1e-30)), (2,)), ramp())
    spikes = np.asarray(aux.taps["lif0"]["spikes"])
    sums = measure(aux.taps)["lif0"]
    np.testing.assert_array_equal(sums.spikes, [[0, 0], [0, 0], [2, 2]])
    layer = redundancy.report(redundancy.add(None, {"lif0": sums})).layers["lif0"]
    np.testing.assert_allclose(layer.rates_over_time, [0, 0, 0.5])
    np.testing.assert_allclose(layer.features, [[0, 0], [0, 0], [0.5, 0.5]])
    mixed = spikes.reshape(4, 3, 2).sum(0)
    assert not np.array_equal(mixed, sums.spikes)


def check_against_counts(sums, kinds, seen):
    """Sums against NumPy on the recorded arrays of examples `seen`."""
    spikes, currents, membrane = (
        np.asarray(kinds[k])[:, seen] for k in ("spikes", "currents", "membrane")
    )
    threshold = np.asarray(kinds["threshold"])
    np.testing.assert_array_equal(sums.spikes, spikes.sum(1))
    assert sums.examples == len(seen)
    below = Bins().below_threshold
    assert sums.currents[below:].sum() == (currents >= threshold).sum()
    assert sums.membrane[below:].sum() == (membrane >= threshold).sum()
    assert sums.currents.sum() == sums.membrane.sum() == spikes.size


# Sums are of what layers show, whichever they are.
@pytest.mark.parametrize("name", [pytest.param("reversible", marks=pytest.mark.slow), "shared"])
def test_batches_add_up_to_what_all_examples_recorded_at_once_give(name):
    network = networks.NETWORKS[name]()
    shape = (networks.T, EXAMPLES + 1, *network.input_shape)
    inputs = 1.5 + jax.random.normal(jax.random.key(0), shape)
    _, aux = look(network, inputs)
    total = None
    for places, weights in (([0, 1], [1, 1]), ([2, 3], [1, 1]), ([4, 5], [1, 0])):
        part = jax.tree.map(lambda leaf, p=places: leaf[:, jnp.asarray(p)], aux.taps)
        part = {  # thresholds have no axis of examples
            layer: kinds | {"threshold": aux.taps[layer]["threshold"]}
            for layer, kinds in part.items()
        }
        total = redundancy.add(total, measure(part, weights=jnp.asarray(weights, jnp.float32)))
    assert list(total) == list(aux.taps)
    for layer, kinds in aux.taps.items():
        check_against_counts(total[layer], kinds, np.arange(EXAMPLES))


@pytest.mark.fast
def test_layers_that_do_not_spike_are_marked():
    _, aux = look(nn.Network(nn.Sequential(nn.LIF(), nn.LI()), (2,)), ramp())
    sums = measure(aux.taps)
    assert not sums["lif0"].analog
    assert not sums["li1"].threshold and sums["li1"].unit == 1
    _, aux = look(nn.Network(nn.Sequential(nn.LI()), (2,)), ramp())
    assert measure(aux.taps)["li0"].analog


@pytest.mark.fast
def test_a_missing_sum_is_an_error_that_names_the_cure():
    network = nn.Network(nn.Sequential(nn.LIF()), (2,))
    _, aux = network(ramp(), network.initial_state(4), training=False, taps=("spikes",))
    with pytest.raises(ValueError, match=r"\['currents', 'membrane'\].*redundancy.TAPS"):
        redundancy.measure(aux.taps)
    with pytest.raises(ValueError, match="one network"):
        redundancy.add({}, measure(look(network, ramp())[1].taps))
