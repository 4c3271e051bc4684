"""A session of the micro experiment, compiled once for all tests of the room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import training
from tests.training import micro


def make(**fields):
    return training.config.override(micro.config(), fields)


def bits(tree):
    """Every leaf as NumPy, keys as their raw words, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return {jax.tree_util.keystr(path): np.asarray(raw(leaf)) for path, leaf in leaves}


def assert_same_bits(a, b):
    a, b = bits(a), bits(b)
    assert a.keys() == b.keys()
    differing = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert not differing


@pytest.fixture(scope="session")
def compiled():
    """A session to copy; its state must not be consumed."""
    return training.prepare(make())


@pytest.fixture
def session(compiled):
    """A session of one's own, compiled already."""
    import dataclasses

    state = training.sharding.place(compiled.state, compiled.mesh)
    return dataclasses.replace(compiled, state=state)


@pytest.fixture
def run(tmp_path):
    return training.Run.create(tmp_path / "run", make(), "")
