"""Meshes: sizes filled in, and what cannot be is refused with its cure."""

import jax
import pytest

from snnjax import training
from snnjax.training.sharding import batch_axes, batch_shares

pytestmark = pytest.mark.fast


def sizes(**asked):
    return tuple(training.sharding.make_mesh(**asked).shape.values())


def test_axes_are_data_fsdp_and_model():
    assert training.sharding.make_mesh().axis_names == ("data", "fsdp", "model")
    assert sizes() == (1, 1, 1)  # the first device, unless more are asked for
    assert sizes(data=2, fsdp=2) == (2, 2, 1)
    assert sizes(model=2) == (1, 1, 2)


def test_one_size_takes_the_devices_that_are_left():
    assert len(jax.devices()) == 8
    assert sizes(data=-1) == (8, 1, 1)
    assert sizes(data=2, fsdp=-1) == (2, 4, 1)
    assert sizes(fsdp=-1) == (1, 8, 1)
    assert sizes(devices=jax.devices()[:3]) == (3, 1, 1)
    assert sizes(devices=jax.devices()[:4], model=2) == (2, 1, 2)


def test_a_batch_is_shared_along_data_and_fsdp():
    assert batch_shares(training.sharding.make_mesh(data=2, fsdp=2, model=2)) == 4
    assert batch_axes(training.sharding.make_mesh()) == ("data", "fsdp")
    own = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    assert batch_shares(own) == 2 and batch_axes(own) == ("data",)


@pytest.mark.parametrize(
    "asked, cure",
    [
        ({"data": 9}, "needs 9 devices, and there are 8: .* JAX_NUM_CPU_DEVICES=9"),
        ({"data": 3, "model": 3}, "needs 9 devices"),
        ({"data": -1, "model": 9}, "needs 9 devices"),
        ({"data": 0}, "at least 1"),
        ({"data": -1, "fsdp": -1}, "one may be -1"),
        ({"fsdp": -2}, "at least 1, and one may be -1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(asked, cure):
    with pytest.raises(training.errors.MeshError, match=cure):
        training.sharding.make_mesh(**asked)


def test_text_becomes_sizes():
    assert training.sharding.parse_mesh("data=4, fsdp=2") == {"data": 4, "fsdp": 2}
    assert training.sharding.parse_mesh(" model = 2 ") == {"model": 2}
    assert training.sharding.parse_mesh("data=-1") == {"data": -1}
    assert training.sharding.parse_mesh("") == {}


@pytest.mark.parametrize(
    "text, cure",
    [
        ("rows=2", "not one of data, fsdp, model"),
        ("data=2, data=4", "twice"),
        ("data", 'no number for data: "data=2", or "data=-1"'),
        ("data=two", "no number for data"),
        ("data=2.5", "no number"),
        ("8", "'8' not one of"),
    ],
)
def test_text_that_is_no_mesh_is_refused(text, cure):
    with pytest.raises(training.errors.MeshError, match=cure):
        training.sharding.parse_mesh(text)
