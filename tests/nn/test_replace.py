"""A layer with other attributes is a copy that shares the parameters."""

import pytest
from flax import nnx

from snnjax import memory, nn

pytestmark = pytest.mark.fast


def test_a_copy_shares_its_parameters_and_the_original_stays():
    layer = nn.Recurrent(nn.LIF(), 3, rngs=nnx.Rngs(0))
    neuron = nn.LIF(scan=memory.store)
    new = nn.replace(layer, neuron=neuron)
    assert type(new) is nn.Recurrent
    assert new.neuron is neuron and layer.neuron is not neuron
    assert new.weights is layer.weights


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'treshold' to replace"):
        nn.replace(nn.LIF(), treshold=2.0)
