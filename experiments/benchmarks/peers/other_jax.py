"""Programs of JAX peers: spyx. Called by `peers.py`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import workloads
from jax_steps import stepping
from workloads import DECAY, RATE, Layer

SPYX = {
    "packages": ("jax", "spyx"),
    "differs": "soft reset, differentiated; spikes one step late",
}


def spyx(problem):
    """`spyx.nn.run` of a `Sequential`; decays are learned by `LIF` itself."""
    import spyx.axn
    import spyx.nn
    from flax import nnx

    rngs, spike = nnx.Rngs(0), spyx.axn.arctan(k=1.0)
    inputs, labels = jnp.asarray(problem.inputs), jnp.asarray(problem.labels)
    if isinstance(problem.workload, Layer):
        node = spyx.nn.LIF((problem.inputs.shape[-1],), beta=DECAY, activation=spike, rngs=rngs)

        def alone(inputs):
            return spyx.nn.run(node, inputs)[0].sum()

        def train(gradient, inputs):
            del gradient
            value, gradient = jax.value_and_grad(alone)(inputs)
            return gradient, value

        start = jnp.zeros_like(inputs)
        return stepping(jax.jit(train, donate_argnums=0), start, inputs, **SPYX)
    layers = []
    for kernel in problem.kernels:
        layer = nnx.Linear(*kernel.shape, use_bias=False, rngs=rngs)
        layer.kernel = nnx.Param(jnp.asarray(kernel))
        layers += [layer, spyx.nn.LIF(kernel.shape[1:], beta=DECAY, activation=spike, rngs=rngs)]
    model = spyx.nn.Sequential(*layers[:-1])
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adam(RATE)

    def loss(params, inputs, labels):
        outputs = spyx.nn.run(nnx.merge(graphdef, params, rest), inputs)[0].mean(0)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    def train(state, inputs, labels):
        params, slots = state
        value, gradient = jax.value_and_grad(loss)(params, inputs, labels)
        updates, slots = optimizer.update(gradient, slots, params)
        return (optax.apply_updates(params, updates), slots), value

    state = jax.tree.map(lambda x: jnp.array(x, copy=True), (params, optimizer.init(params)))
    return stepping(jax.jit(train, donate_argnums=0), state, inputs, labels, **SPYX)


if __name__ == "__main__":
    workloads.serve({"spyx": spyx})
