"""Data sets of a user's own arrays, in memory and from a file."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data
from snnjax.data.arrays import from_npz

X = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
Y = np.array([0, 1, 2, 0, 1, 2])


def test_shapes_and_scale_are_read_off_the_arrays():
    dataset = data.from_arrays(X, Y, X[:3], Y[:3], name="mine")
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (6, 3, 3)
    assert dataset.input_shape == (2, 2, 1)
    assert dataset.scale == 1 / 255
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.train.labels.dtype == np.int32
    floats = data.from_arrays(X.astype(np.float32), Y, X[:3].astype(np.float32), Y[:3])
    assert floats.scale == 1.0


def test_jax_arrays_come_to_the_host():
    dataset = data.from_arrays(jnp.asarray(X), jnp.asarray(Y), jnp.asarray(X), jnp.asarray(Y))
    assert isinstance(dataset.train.inputs, np.ndarray)


def test_arrays_that_form_no_data_set_are_refused():
    with pytest.raises(TypeError, match="argmax"):
        data.from_arrays(X, np.eye(3)[Y], X, Y)
    with pytest.raises(TypeError, match="integers"):
        data.from_arrays(X, Y.astype(np.float32), X, Y)
    with pytest.raises(ValueError, match="test inputs"):
        data.from_arrays(X, Y, X[:, :1], Y)
    with pytest.raises(ValueError, match="at least one example"):
        data.from_arrays(X, Y, X[:0], Y[:0])
    with pytest.raises(ValueError, match=r"input_shape=\(H, W, 2\)"):
        data.from_arrays([X[0]] * 6, Y, [X[0]] * 6, Y)


def test_an_npz_file_is_loaded_by_its_path(tmp_path):
    path = tmp_path / "mine.npz"
    names = np.array(["a", "b", "c"])
    np.savez(path, train_inputs=X, train_labels=Y, test_inputs=X, test_labels=Y, class_names=names)
    dataset = data.load(str(path))
    np.testing.assert_array_equal(dataset.train.inputs, X)
    assert dataset.name == "mine"
    assert dataset.class_names == ("a", "b", "c")


def test_npz_errors_say_what_to_write(tmp_path):
    with pytest.raises(data.MissingDataError, match="numpy.savez"):
        from_npz(tmp_path / "no.npz")
    np.savez(tmp_path / "half.npz", train_inputs=X, train_labels=Y)
    with pytest.raises(data.CorruptDataError, match="test_inputs, test_labels"):
        from_npz(tmp_path / "half.npz")
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "pickle.npz", train_inputs=objects)
    with pytest.raises(data.CorruptDataError, match="pickle"):
        from_npz(tmp_path / "pickle.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(data.CorruptDataError, match="cannot be read"):
        from_npz(tmp_path / "cut.npz")
