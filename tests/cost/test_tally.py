"""Sums of counts: exact, and static by value only where it is sure."""

import dataclasses

import numpy as np

from snnjax.cost._tally import Connection, Neurons, Product, Tally
from snnjax.metrics.operations import Operations, Products

LARGE = 4_000_000_000


def operations(ternary=True, checksum=0):
    full = lambda number: np.full((2, 3), number, np.uint32)  # noqa: E731
    return Operations(
        *(full(LARGE), full(LARGE), full(LARGE), full(1), full(4)),
        *(np.full((2, 3), ternary), np.full((2, 3), True), full(checksum)),
    )


def test_sums_do_not_overflow_and_padding_is_left_out():
    real, frames = np.array([True, True, False]), np.ones((2, 3))
    actual = Connection.from_operations(operations(), real, frames)
    assert actual.dense == actual.padded == actual.effective_acs == 4 * LARGE
    assert actual.effective_macs == 0 and actual.runs == 2 and actual.rate == 0.25
    assert actual.constant and not actual.first and not actual.static


def test_one_number_makes_all_of_a_call_multiplications():
    actual = operations()
    actual.ternary[0, 1] = False
    real, frames = np.ones(3, bool), np.zeros((2, 3))
    made = Connection.from_operations(actual, real, frames)
    assert made.effective_macs == made.effective_acs == 3 * LARGE
    assert made.first and made.static
    kept = Connection.from_operations(actual, np.array([True, False, True]), frames)
    assert kept.effective_macs == 0


def test_real_numbers_that_repeat_are_static():
    layer = Connection.from_operations(operations(), np.ones(3, bool), np.ones((2, 3)))
    real = dataclasses.replace(layer, binary=False)
    assert real.static and not layer.static
    assert not dataclasses.replace(real, runs=1).static
    assert not dataclasses.replace(real, constant=False).static


def test_products_add_up():
    actual = Products(*(np.full((1, 2), n, np.uint32) for n in (1, LARGE)), np.array([[1, 0]]) > 0)
    assert Product.from_products(actual, np.ones(2, bool)) == Product(2, 2 * LARGE, False)
    assert Product.from_products(actual, np.array([True, False])).binary


def test_tallies_add_what_is_counted_and_agree_on_what_is_said():
    layer = Connection.from_operations(operations(), np.ones(3, bool), np.ones((2, 3)))
    neurons = Neurons(10, 4, 7, True, True)
    one = Tally(3, 2, {"a": layer}, {"p": Product(1, 2, True)}, {"n": neurons}, 8, 4)
    other = dataclasses.replace(
        one, products={"p": Product(1, 2, False)},
        neurons={"n": dataclasses.replace(neurons, updates=None, spiking=False)},
    )  # fmt: skip
    both = one + other
    assert both.examples == 6 and both.timesteps == 2 and both.parameter_bytes == 8
    assert both.connections["a"].runs == 2 and both.connections["a"].dense == 2 * layer.dense
    assert both.products["p"] == Product(2, 4, False)
    assert both.neurons["n"] == Neurons(20, 8, None, False, True)
    assert one.rate == 0.4 and both.rate == 0.0
