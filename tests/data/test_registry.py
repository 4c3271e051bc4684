"""Data set names, search order, and the advice in error messages."""

import pytest

from snnjax import data
from snnjax.data.registry import NAMES


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="digits, mnist, fashion_mnist.*from_arrays"):
        data.load("mnits")


@pytest.mark.parametrize("name", [n for n in NAMES if n != "digits"])
def test_a_missing_set_names_directory_flag_and_variable(name, tmp_path):
    with pytest.raises(data.MissingDataError) as caught:
        data.load(name, data_dir=tmp_path)
    message = str(caught.value)
    for part in (str(tmp_path), "--data-dir DIR", "SNNJAX_DATA=DIR", "DIR/", "'digits'"):
        assert part in message
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_a_set_of_tfds_comes_with_the_exact_command(name, tmp_path):
    with pytest.raises(data.MissingDataError) as caught:
        data.load(name, data_dir=tmp_path)
    message = str(caught.value)
    assert "pip install 'snnjax[tfds-build]'" in message
    assert f"data.tfds.prepare('{name}', data_dir='{tmp_path}')" in message
    assert "builds its own sets with TensorFlow" in message and "reading them needs none" in message


def test_the_variable_is_the_default_and_the_argument_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNJAX_DATA", str(tmp_path / "variable"))
    with pytest.raises(data.MissingDataError, match="variable"):
        data.load("mnist")
    with pytest.raises(data.MissingDataError, match="argument"):
        data.load("mnist", data_dir=tmp_path / "argument")
    monkeypatch.delenv("SNNJAX_DATA")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(data.MissingDataError, match="tfds"):
        data.load("mnist")
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(data.MissingDataError, match="tensorflow_datasets"):
        data.load("mnist")
