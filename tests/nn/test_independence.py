"""`check_independence` finds examples that see their neighbours or padding, and names the layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import nn
from snnjax.memory.checking import check_independence
from tests.nn import networks

T, B = 3, 4


def centered(x):
    """Attention over the batch in place of the tokens, as far as the check can tell."""
    return x - 0.1 * x.mean(0, keepdims=True)


def network(*planted):
    rngs = nnx.Rngs(0)
    return nn.Network(
        nn.Sequential(
            *(nn.Linear(5, 6, rngs=rngs), nn.BatchNorm(6), nn.LIF(threshold=0.2)),
            *(*planted, nn.Linear(6, 6, rngs=rngs), nn.LIF(threshold=0.1)),
            nn.Linear(6, 2, rngs=rngs),
        ),
        (5,),
    )


def layers(net, statistics):
    def results(frames):
        state = net.initial_state(frames.shape[1], statistics=statistics)
        outputs, aux = net(frames, state, training=False, taps=("currents",))
        own = {n: kinds["currents"] for n, kinds in aux.taps.items() if "currents" in kinds}
        return {**own, "outputs": outputs}

    return results


@pytest.mark.parametrize("planted", [False, True])
def test_a_layer_over_the_batch_is_found_and_named(planted):
    net = network(*[nn.Fold(centered, name="mixing")] * planted)
    frames = jax.random.normal(jax.random.key(0), (T, B, 5))
    faults = check_independence(layers(net, net.initial_state(B).statistics), frames)
    if not planted:
        assert faults == []
        return
    # The neurons behind the faulty layer are the first whose currents change.
    assert all(fault.startswith("lif5: an example depends on its neighbours") for fault in faults)
    assert faults


def test_padding_that_is_read_is_found():
    frames = jax.random.normal(jax.random.key(0), (T, B, 5))
    lengths = np.asarray([1, 2, 3, 3])
    backward = lambda x: {"first": x, "sums": jnp.cumsum(x[::-1], 0)[::-1]}  # noqa: E731
    forward = lambda x: {"sums": jnp.cumsum(x, 0)}  # noqa: E731
    (fault,) = check_independence(backward, frames, lengths=lengths)
    assert fault.startswith("sums: an example depends on frames of its padding")
    assert check_independence(backward, frames) == []
    assert check_independence(forward, frames, lengths=lengths) == []
    with pytest.raises(ValueError, match="at least two examples"):
        check_independence(forward, frames[:, :1])


@pytest.mark.slow  # one compilation per network
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_networks_of_every_kind_of_layer_are_independent(name):
    net = networks.NETWORKS[name]()
    frames = networks.inputs_of(net)
    assert (
        check_independence(layers(net, net.initial_state(frames.shape[1]).statistics), frames) == []
    )
