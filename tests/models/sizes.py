"""Number of parameters of a model, by abstract evaluation."""

import jax
from flax import nnx


def count(make):
    """Parameters of what `make` would return, from shapes alone."""
    params = nnx.split(jax.eval_shape(make), nnx.Param, ...)[1]
    return sum(leaf.size for leaf in jax.tree.leaves(params))
