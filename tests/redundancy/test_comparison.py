"""Before and after: which layers correspond, and by how much the firing changed."""

import numpy as np
import pytest

from snnjax import redundancy
from tests.redundancy.test_report import sums


def report(**spikes):
    return redundancy.report({name: sums(np.asarray(s)) for name, s in spikes.items()})


def test_layers_correspond_by_their_order_and_the_change_is_in_per_cent():
    before, after = report(lif3=[[4, 4]], lif5=[[2]]), report(lif4=[[1, 1]], lif6=[[0]])
    actual = redundancy.compare(before, after)
    assert actual.pairs == (("lif3", "lif4"), ("lif5", "lif6"))
    assert actual.nasfr_change == pytest.approx(100 * (2 / 10 - 1))


def test_other_networks_have_no_layers_that_correspond():
    actual = redundancy.compare(report(a=[[4, 4]]), report(b=[[4, 4, 4]]))
    assert actual.pairs == () and actual.nasfr_change == pytest.approx(0.0)


def test_a_silent_network_can_be_no_measure():
    assert redundancy.compare(report(a=[[0]]), report(a=[[1]])).nasfr_change is None
