"""Common parts of the tests of spiking transformers: a tiny size that spikes, one gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from snnjax import nn

T, B, CLASSES = 3, 4, 5
# So few tokens and channels reach the attention's threshold only with many spikes.
TINY = {
    "width": 8, "heads": 2, "classes": CLASSES, "input_shape": (8, 8, 2), "pools": 1,
    "expansion": 2, "norm": functools.partial(nn.BatchNorm, gain=4.0),
}  # fmt: skip
per_step = functools.partial(nn.BatchNorm, gain=4.0, over="step")


def frames(*, seed=1):
    """Frames `[T, B, H, W, C]`."""
    return jax.random.normal(jax.random.key(seed), (T, B, *TINY["input_shape"]))


@jax.jit
def graded(net, x):
    """`(loss, (outputs, aux)), gradients` of a training pass, for the network and the input."""

    def loss(net, x):
        outputs, aux = net(x, net.initial_state(B), training=True)
        return jnp.mean(jnp.sin(outputs)), (outputs, aux)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(net, x)


def assert_gradients(got, want, bound):
    """To the largest entry of all: a bias in front of a norm has a gradient of rounding only."""
    got, want = ([np.asarray(leaf) for leaf in jax.tree.leaves(tree)] for tree in (got, want))
    scale = max(np.abs(leaf).max() for leaf in want)
    error = max(np.abs(a - b).max() for a, b in zip(got, want, strict=True)) / scale
    assert error <= bound, f"error {error:.3g} of the largest entry, allowed {bound:.3g}"


def lowest_rate(net, x):
    """The lowest firing rate of any layer of neurons."""

    @jax.jit
    def rates(net, x):
        taps = net(x, net.initial_state(B), training=True, taps=("spikes",))[1].taps
        return jnp.stack([kinds["spikes"].mean() for kinds in taps.values()])

    return float(rates(net, x).min())
