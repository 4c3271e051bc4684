"""The estimate at 45 nm: published numbers, and the five rules one by one."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from snnjax import cost, nn
from snnjax.cost._tally import Connection, Product, Tally
from snnjax.cost.energy import millijoules

LAYER = Connection(
    runs=4, effective_macs=0, effective_acs=70, dense=400, padded=480, active=20, inputs=80,
    binary=True, constant=False, first=False,
)  # fmt: skip


def tally(*layers, products=(), examples=1):
    return Tally(
        examples, 4, {f"conv{n}": layer for n, layer in enumerate(layers)},
        {f"attention{n}": product for n, product in enumerate(products)}, {}, 100, 10,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gigamacs", "gigaacs", "expected", "places"),
    [
        (2.75, 0.50, 13.10, 2),  # SEW-ResNet18, T = 4
        (1.82, 0.0, 8.372, 3),  # ResNet18
        (0.005312266, 0.2458512465306023, 0.24570254547754208, 16),  # Spikformer-4-384, CIFAR10
    ],
)
def test_golden_arithmetic(gigamacs, gigaacs, expected, places):
    actual = millijoules(gigamacs * 1e9, gigaacs * 1e9)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.5 * 10.0**-places + 1e-15)


def test_spikes_add_at_their_rate():
    """FLOPs fr T: 480 products over the window, a quarter of the inputs spike."""
    actual = cost.energy(tally(LAYER))
    assert (actual.macs, actual.acs) == (0, 120)
    np.testing.assert_allclose(actual.millijoules, 0.9e-9 * 120)
    np.testing.assert_allclose(actual.once_millijoules, 4.6e-9 * 480 / 4)


def test_values_that_are_not_binary_multiply_all_products_at_every_timestep():
    actual = cost.energy(tally(dataclasses.replace(LAYER, binary=False), LAYER))
    assert (actual.macs, actual.acs) == (480, 120)
    assert actual.multiplying == ("conv0",) and actual.static == ()


def test_a_static_input_counts_once():
    stem = dataclasses.replace(LAYER, binary=False, constant=True)
    actual = cost.energy(tally(stem, LAYER))
    assert (actual.macs, actual.acs) == (120, 120) and actual.static == ("conv0",)
    binary = cost.energy(tally(dataclasses.replace(LAYER, constant=True, first=True)))
    assert (binary.macs, binary.acs) == (0, 30)


def test_attention_is_counted_and_told_apart():
    spikes, currents = Product(30, 90, True), Product(50, 50, False)
    actual = cost.energy(tally(LAYER, products=(spikes, currents)))
    assert (actual.attention_acs, actual.attention_macs) == (30, 50)
    assert (actual.macs, actual.acs) == (50, 150)


def test_neurons_that_weigh_currents_over_time_count_and_are_no_attention():
    """A PSN is a `T x T` product per neuron, by hand; a LIF's own arithmetic is left out."""
    width, timesteps = 5, 4

    def estimated(neuron):
        r = nnx.Rngs(0)
        net = nn.Network(nn.Sequential(nn.Linear(3, width, rngs=r), neuron(r)), (3,))
        x = jax.random.normal(jax.random.key(1), (timesteps, 2, 3))
        return cost.energy(cost.measure(net, x))

    none, psn, sliding = (
        estimated(make)
        for make in (
            lambda r: nn.ResetFreeLIF(),
            lambda r: nn.PSN(timesteps, rngs=r),
            lambda r: nn.SlidingPSN(order=2),
        )
    )
    assert none.over_time_macs == none.over_time_acs == 0
    assert psn.over_time_macs == timesteps * timesteps * width
    # Each of 4 timesteps has 2 weights in its window; the currents before the first one are zero.
    assert sliding.over_time_macs == timesteps * 2 * width
    for actual in (psn, sliding):
        assert actual.attention_macs == actual.attention_acs == actual.over_time_acs == 0
        assert actual.macs == none.macs + actual.over_time_macs and actual.acs == none.acs


def test_numbers_are_per_example():
    one, two = cost.energy(tally(LAYER)), cost.energy(tally(LAYER) + tally(LAYER))
    assert one == two


def test_traffic_is_apart_and_in_bytes():
    """Weights at every timestep; inputs written and read, spikes at a bit each."""
    actual = cost.energy(tally(LAYER))
    assert actual.parameter_traffic == 4 * 100
    assert actual.activation_traffic == 2 * 80 / 8
    assert actual.membrane_traffic == 2 * 4 * 10
    real = cost.energy(tally(dataclasses.replace(LAYER, binary=False)))
    assert real.activation_traffic == 2 * 80 * 4


def test_the_break_even_is_always_at_hand():
    actual = cost.energy(tally(LAYER))
    assert (actual.rate, actual.timesteps) == (0.0, 4)
    assert "5.7 %" in cost.BREAK_EVEN and "2409.08290" in cost.BREAK_EVEN
