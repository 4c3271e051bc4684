"""NeuroBench's figures of small networks, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import cost, neurons, nn
from snnjax.cost.neurobench import connection_weights

T, B = 3, 2


def two_layers():
    r = nnx.Rngs(0)
    return nn.Network(
        nn.Sequential(
            *(nn.Linear(4, 5, rngs=r), nn.BatchNorm(5), nn.LIF(threshold=0.1)),
            nn.Linear(5, 3, use_bias=False, rngs=r),
        ),
        (4,),
    )


def test_figures_by_hand():
    net = two_layers()
    first = net.body.layers[0].function  # type: ignore[union-attr]
    first.kernel[...] = first.kernel[...].at[0].set(0)
    x = jax.random.normal(jax.random.key(0), (T, B, 4)).at[:, :, 1].set(0)
    figures = cost.neurobench(net, cost.measure(net, x))
    assert figures.parameters == 20 + 5 + 5 + 5 + 15
    assert figures.footprint == 4 * (50 + 5 + 5)  # running mean and variance are buffers
    assert figures.connection_sparsity == round(5 / 35, 4)
    assert figures.dense == T * (20 + 15)
    assert figures.effective_macs == T * 2 * 5  # of 4 inputs one is 0, one has no weights
    _, aux = net(x, net.initial_state(B), training=False, taps=("spikes", "membrane"))
    spikes, membrane = (np.asarray(aux.taps["lif2"][kind]) for kind in ("spikes", "membrane"))
    assert figures.effective_acs == spikes.sum() / B * 3 > 0
    np.testing.assert_allclose(figures.activation_sparsity, 1 - spikes.mean())
    updates = ((membrane[1:] != membrane[:-1]).sum() + B * 5) / B
    assert figures.membrane_updates == updates
    assert figures.neuron_operations == 4 * updates and figures.neuron_dense == 4 * T * 5


def test_zeros_of_a_float_input_are_accumulations():
    net = two_layers()
    figures = cost.neurobench(net, cost.measure(net, jnp.zeros((T, B, 4))))
    assert figures.effective_macs == 0
    counted = cost.measure(net, jnp.zeros((T, B, 4)).at[0, 0, 0].set(0.5))
    assert counted.connections["linear0"].effective_macs == 5
    assert counted.connections["linear0"].effective_acs == 0


def test_one_example_turns_its_whole_timestep_into_multiplications():
    net = two_layers()
    x = jnp.ones((T, B, 4)).at[1, 0, 0].set(0.5)
    actual = cost.measure(net, x).connections["linear0"]
    assert actual.effective_macs == B * 20 and actual.effective_acs == 2 * B * 20


def test_stacked_and_recurrent_weights_are_all_there():
    r = nnx.Rngs(0)
    block = lambda rngs: nn.Sequential(nn.LIF(), nn.Linear(4, 4, use_bias=False, rngs=rngs))  # noqa: E731
    layers = [nn.Stacked(block, 3, rngs=r), nn.Recurrent(nn.LIF(), 4, rngs=r)]
    net = nn.Network(nn.Sequential(*layers, nn.LayerNorm(4, rngs=r)), (4,))
    assert sum(w.size for w in connection_weights(net)) == 4 * 16
    figures = cost.neurobench(net, cost.measure(net, jnp.ones((T, B, 4))))
    assert figures.dense == T * 4 * 16
    assert figures.membrane_updates is not None and figures.neuron_operations is None


def test_neurons_that_are_parallel_in_time():
    """Without a reset a LIF is snnTorch's Leaky all the same; a PSN has no constant of its own."""
    linear = nn.Linear(4, 5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (T, B, 4))

    def figures(neuron):
        net = nn.Network(nn.Sequential(linear, neuron), (4,))
        return cost.neurobench(net, cost.measure(net, x))

    free, sequential = figures(nn.ResetFreeLIF()), figures(nn.LIF(reset=neurons.reset.none))
    assert dataclasses.asdict(free) == dataclasses.asdict(sequential)
    assert free.neuron_operations == 4 * free.membrane_updates
    for neuron in (nn.PSN(T, rngs=nnx.Rngs(1)), nn.SlidingPSN(order=2)):
        actual = figures(neuron)
        assert actual.neuron_operations is None and actual.membrane_updates == T * 5
        assert actual.dense == free.dense


def test_undefined_metrics_are_none():
    net = nn.Network(nn.Grouped(nn.LIF(), 2), (4,))
    figures = cost.neurobench(net, cost.measure(net, jnp.ones((T, B, 4))))
    assert figures.membrane_updates is None and figures.connection_sparsity is None
    assert dataclasses.asdict(figures)["dense"] == 0


def test_modules_that_do_not_tell_are_named():
    r = nnx.Rngs(0)
    own = nn.Fold(nnx.Conv(2, 2, (3, 3), rngs=r), name="mine")
    net = nn.Network(nn.Sequential(own, nn.GroupNorm(2, 2, rngs=r)), (4, 4, 2))
    assert len(cost.counting.uncounted_layers(net)) == 1
    assert cost.counting.uncounted_layers(two_layers()) == []
