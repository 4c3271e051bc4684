"""Parameters of a network apart from the network: the tree that is differentiated and saved.

    graphdef, params, constants = nn.split(net)
    net = nn.merge(graphdef, params, constants)

A module carries its memory strategy in its pytree structure, so the gradients of one module under
two strategies are trees that `jax.tree.map` refuses to pair. `params` has names and arrays only:
its gradient, the slots of an optimizer and a checkpoint are the same trees under every strategy.
"""

from __future__ import annotations

from typing import Any

from flax import nnx

from snnjax.typing import PyTree

__all__ = ["merge", "split"]


def split(module: Any) -> tuple[Any, PyTree, PyTree]:
    """Splits a network or layer into structure, parameters and constants.

        def loss(params, frames, labels):
            net = nn.merge(graphdef, params, constants)
            outputs, aux = net(frames, net.initial_state(len(labels)), training=True)
            return losses.mean(losses.rate_cross_entropy(outputs, labels)), aux.statistics

        gradient, statistics = jax.grad(loss, has_aux=True)(params, frames, labels)

    Args:
        module: an `nn.Network`, or any other module.

    Returns:
        `graphdef`, the module without its arrays, hashable (the memory strategy is a part of it);
        `params`, its `nnx.Param`s, to be differentiated; `constants`, its other arrays, such as
        decays that are not learned.
    """
    graphdef, params, constants = nnx.split(module, nnx.Param, ...)
    return graphdef, params, constants


def merge(graphdef: Any, params: PyTree, constants: PyTree) -> Any:
    """Puts together what `split` took apart.

    Args:
        graphdef: of the network, or of the same one under another memory strategy.
        params: as `split` gives them, or after an update.
        constants: as `split` gives them.
    """
    return nnx.merge(graphdef, params, constants)
