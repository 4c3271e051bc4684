"""Every layer of snnjax.nn at a tiny size, for the laws that all of them obey."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from snnjax import nn

T, B = 4, 2
SPACE, FLAT = (B, 8, 8, 2), (B, 6)


def rngs():
    return nnx.Rngs(0)


def _recurrent():
    return nn.Recurrent(nn.LIF(learn=("decay",)), 6, rngs=rngs())


def _shared():
    r = rngs()
    second = nn.Sequential(nn.Conv(2, 2, rngs=r), nn.BatchNorm(2, over="step"))
    return nn.Shared([nn.Conv(2, 2, rngs=r), second], nn.LIF())


def _sequential():
    r = rngs()
    return nn.Sequential(
        nn.Conv(2, 3, rngs=r), nn.BatchNorm(3), nn.LIF(), nn.Flatten(), nn.Linear(192, 5, rngs=r)
    )


def _residual():
    r = rngs()
    branch = nn.Sequential(nn.Dropout(0.5), nn.Conv(2, 3, rngs=r), nn.BatchNorm(3), nn.LIF())
    return nn.Residual(branch, shortcut=nn.Conv(2, 3, kernel=1, rngs=r))


def block(r):
    return nn.Sequential(nn.Conv(2, 2, rngs=r), nn.BatchNorm(2, gain=2.0), nn.LIF())


# Name -> (how to make one, shape of a timestep of input).
LAYERS = {
    "linear": (lambda: nn.Linear(6, 3, rngs=rngs()), FLAT),
    "conv": (lambda: nn.Conv(2, 4, strides=2, use_bias=True, rngs=rngs()), SPACE),
    "avgpool": (lambda: nn.AvgPool(), SPACE),
    "maxpool": (lambda: nn.MaxPool(), SPACE),
    "globalavgpool": (lambda: nn.GlobalAvgPool(), SPACE),
    "flatten": (lambda: nn.Flatten(), SPACE),
    "batchnorm": (lambda: nn.BatchNorm(2), SPACE),
    "batchnorm_step": (lambda: nn.BatchNorm(2, over="step"), SPACE),
    "batchnorm_frozen": (lambda: nn.BatchNorm(2, over="frozen"), SPACE),
    "groupnorm": (lambda: nn.GroupNorm(2, 2, rngs=rngs()), SPACE),
    "layernorm": (lambda: nn.LayerNorm(6, rngs=rngs()), FLAT),
    "dropout": (lambda: nn.Dropout(0.5), FLAT),
    "if": (lambda: nn.IF(learn=("threshold",)), FLAT),
    "lif": (lambda: nn.LIF(decay=jnp.linspace(0.2, 0.9, 6)), FLAT),
    "plif": (lambda: nn.PLIF(), FLAT),
    "alif": (lambda: nn.ALIF(), FLAT),
    "cubalif": (lambda: nn.CubaLIF(learn=("decay",)), FLAT),
    "li": (lambda: nn.LI(), FLAT),
    "coupledlif": (lambda: nn.CoupledLIF(learn=("alpha",)), FLAT),
    "srm": (lambda: nn.SRM(threshold=0.7, tau=1.5, learn=("threshold",)), FLAT),
    "sigma_delta": (lambda: nn.SigmaDelta(), FLAT),
    "integrator": (lambda: nn.Integrator(3, rngs=rngs()), FLAT),
    "delay": (lambda: nn.Delay(6, longest=3, rngs=rngs()), FLAT),
    "delayed_linear": (lambda: nn.DelayedLinear(6, 3, longest=2, rngs=rngs()), FLAT),
    "recurrent": (_recurrent, FLAT),
    "grouped": (lambda: nn.Grouped(nn.LIF(), 2), SPACE),
    "shared": (_shared, SPACE),
    "sequential": (_sequential, SPACE),
    "residual": (_residual, SPACE),
    "stacked": (lambda: nn.Stacked(block, 2, rngs=rngs()), SPACE),
}


def sequence(shape, *, seed=0, timesteps=T):
    """Inputs `[T, *shape]`, strong enough for spikes."""
    return 1.5 * jax.random.normal(jax.random.key(seed), (timesteps, *shape))


def dyadic(tree):
    """Every leaf on multiples of 1/8: sums and halvings are exact, in whatever order."""
    return jax.tree.map(lambda leaf: jnp.round(leaf * 8) / 8, tree)


@functools.partial(jax.jit, static_argnames=("training", "taps"))
def call(layer, inputs, *, training=False, key=None, taps=()):
    """A layer's outputs and aux from rest. Compiled once for equal layers."""
    state = layer.initial_state(inputs.shape[1:])
    return layer(inputs, state, nn.Call(training=training, key=key, taps=taps))


class Run(NamedTuple):
    outputs: jax.Array
    aux: nn.Aux
    gradients: tuple


def weighted(outputs):
    """A sum in which every output has a weight of its own."""
    weights = jnp.cos(jnp.arange(outputs.size, dtype=outputs.dtype))
    return jnp.sum(outputs * weights.reshape(outputs.shape))


@functools.partial(jax.jit, static_argnames=("training", "until"))
def _graded(layer, inputs, state, key, *, training, until):
    def loss(layer, inputs):
        outputs, aux = layer(inputs, state, nn.Call(training=training, key=key))
        return weighted(outputs[:until]), (outputs, aux)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, inputs)


def run(layer, inputs, *, training=False, key=None, until=None) -> Run:
    """One jitted pass: outputs, aux, gradients to the layer and the inputs of a weighted sum.

    Only the outputs of timesteps before `until` enter the sum. Compiled once for equal layers.
    """
    state = layer.initial_state(inputs.shape[1:])
    (_, (outputs, aux)), gradients = _graded(
        layer, inputs, state, key, training=training, until=until
    )
    return Run(outputs, aux, gradients)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
