"""safetensors: every supported dtype bit for bit, and errors."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.export import ArtifactError
from snnjax.export.tensors import check_match, pack, read_bytes, unpack

pytestmark = pytest.mark.fast
HERE = pathlib.Path("here")
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64",
)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4)])
def test_every_type_comes_back_bit_for_bit(dtype, shape):
    dtype = jnp.dtype(dtype)
    size, top = int(np.prod(shape)) * dtype.itemsize, 2 if dtype.name == "bool" else 256
    data = np.random.default_rng(0).integers(0, top, size, dtype=np.uint8)
    array = np.frombuffer(data.tobytes(), dtype).reshape(shape)
    found = unpack(pack({"x": array}), HERE)["x"]
    assert found.dtype == dtype and found.shape == shape
    assert found.tobytes() == array.tobytes()


def test_a_transposed_array_is_what_it_shows():
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(unpack(pack({"x": array.T}), HERE)["x"], array.T)


def test_the_bytes_depend_on_the_arrays_only():
    one = {"b": np.ones(2, np.float32), "a": jnp.zeros(3)}
    assert pack(one) == pack(dict(reversed(one.items())))


@pytest.mark.parametrize("array", [jax.random.key(0), np.zeros(2, jnp.int4)])
def test_a_type_without_whole_bytes_is_refused_by_name(array):
    with pytest.raises(ArtifactError, match="layer.x is of type .*leave it out"):
        pack({"layer.x": array})


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff" * 64, b"\x80\x04N."])
def test_other_bytes_are_refused(data):
    with pytest.raises(ArtifactError, match="here is no file of weights"):
        unpack(data, HERE)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none" / "x"):
        with pytest.raises(ArtifactError, match="is not there, or is no file"):
            read_bytes(path)


def test_differences_are_named():
    shape = lambda *s, dtype="float32": jax.ShapeDtypeStruct(s, dtype)  # noqa: E731
    same = {"a": shape(2), "b": shape(3, 4)}
    check_match(same, dict(reversed(same.items())), "they differ")
    other = {"a": shape(2, dtype="bfloat16"), "c": shape()}
    with pytest.raises(ArtifactError) as error:
        check_match(same, other, "they differ")
    for text in ("they differ: a is float32[2] there and bfloat16[2] here", "c is absent there",
                 "b is float32[3, 4] there and absent here"):  # fmt: skip
        assert text in str(error.value)
    many = {f"x{i}": shape() for i in range(9)}
    with pytest.raises(ArtifactError, match="and 5 more"):
        check_match(many, {}, "they differ")
