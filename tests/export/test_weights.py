"""Weights by name: equal names from every tree, and bit-equal round trips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from snnjax import export, nn, training
from snnjax.export.weights import named_arrays
from tests.export import cases

pytestmark = pytest.mark.fast
WEIGHTS = {
    "body.layers.0.function.kernel", "body.layers.1.scale", "body.layers.1.bias",
    "body.layers.4.function.kernel", "body.layers.4.function.bias",
}  # fmt: skip


def train_state(net, *, seed=0, dtype="float32"):
    _, params, constants = nn.split(net)
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    zero = jnp.zeros((), jnp.int32)
    rest = {"step": zero, "position": zero, "finite": jnp.ones((), bool)}
    given = {"params": params, "constants": constants, "statistics": cases.statistics(net)}
    every = dict.fromkeys(training.TrainState._fields, ())
    return training.TrainState(**{**every, **rest, **given, "key": jax.random.key(seed)})


def assert_same(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_names_are_readable_and_the_same_from_network_state_and_train_state(tmp_path):
    net = cases.network()
    state = train_state(net)
    assert set(named_arrays((net,))[0]) >= WEIGHTS
    assert set(named_arrays((state.params, state.constants))[0]) == set(named_arrays((net,))[0])
    path = export.save_weights(tmp_path / "w.safetensors", state)
    found = safetensors.numpy.load_file(path)  # as any other tool reads it
    assert set(found) == {*named_arrays((net,))[0], "statistics.1.mean", "statistics.1.var"}
    np.testing.assert_array_equal(
        found["body.layers.4.function.kernel"], net.body.layers[4].function.kernel[...]
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_train_state_comes_back_bit_for_bit(tmp_path, dtype):
    state, other = (train_state(cases.network(seed=s), seed=s, dtype=dtype) for s in (0, 1))
    path = export.save_weights(tmp_path / "w.safetensors", state)
    found = export.load_weights(path, other)
    judging = lambda s: (s.params, s.constants, s.statistics)  # noqa: E731
    assert_same(judging(found), judging(state))
    assert found.key is other.key, "what is not of the network stays"
    kernel = found.params["body"]["layers"][4]["function"]["kernel"][...]
    assert kernel.dtype == dtype and float(jnp.abs(kernel).max()) > 0


def test_a_network_comes_back_from_a_shape(tmp_path):
    net = cases.network()
    path = export.save_weights(tmp_path / "new" / "w.safetensors", net)
    assert_same(export.load_weights(path, cases.network(seed=3)), net)
    shapes = jax.eval_shape(cases.network)
    found = export.load_weights(path, shapes)
    assert type(found) is type(net)
    assert_same(found, net)


def test_arrays_of_numpy_stay_on_the_host(tmp_path):
    tree = {"a": np.arange(3.0), "b": [np.ones((), np.int64)]}  # float64, which a device rounds
    found = export.load_weights(export.save_weights(tmp_path / "w", tree), tree)
    assert isinstance(found["a"], np.ndarray)
    assert_same(found, tree)


def test_another_network_is_refused_with_the_names_that_differ(tmp_path):
    path = export.save_weights(tmp_path / "w", cases.network())
    with pytest.raises(export.ArtifactError) as error:
        export.load_weights(path, cases.network(width=7))
    assert "body.layers.1.scale is float32[6] there and float32[7] here" in str(error.value)
    with pytest.raises(export.ArtifactError, match="statistics.1.mean is absent there"):
        export.load_weights(path, train_state(cases.network()))


def test_nothing_is_overwritten_and_no_half_file_is_left(tmp_path):
    path = export.save_weights(tmp_path / "w", {"a": jnp.zeros(2)})
    before = path.read_bytes()
    with pytest.raises(export.ArtifactError, match="is there already"):
        export.save_weights(path, {"a": jnp.ones(2)})
    with pytest.raises(export.ArtifactError, match="key<fry>"):
        export.save_weights(tmp_path / "v", {"key": jax.random.key(0)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_two_arrays_of_one_name_are_refused():
    with pytest.raises(export.ArtifactError, match="two arrays are called 'a.b'"):
        named_arrays(({"a": {"b": 1}, "a.b": 2},))
