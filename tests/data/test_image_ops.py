"""Image operations: identities, and agreement with Pillow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax.data import _image_ops as ops

Image = pytest.importorskip("PIL.Image")


@functools.cache
def pixels():
    """Smooth image with noise, 24x20, with different channels."""
    row, column = np.mgrid[:24, :20]
    waves = [np.sin(row / (3 + c)) * np.cos(column / (5 - c)) for c in range(3)]
    noise = np.random.default_rng(0).normal(0, 4, (24, 20, 3))
    return np.clip(128 + 90 * np.stack(waves, -1) + noise, 5, 240).astype(np.uint8)


def image():
    return jnp.asarray(pixels(), jnp.float32)


resample = jax.jit(ops.resample, static_argnames=("fill", "order"))


def test_nothing_happens_at_strength_zero():
    zero, one = jnp.zeros(()), jnp.ones(())
    middle = jnp.array([11.5, 9.5])
    for geometry in (
        ops.rotation(zero, (24, 20)),
        ops.shear(zero, zero, middle),
        ops.translation(zero, zero),
    ):
        for order in (0, 1):
            moved = resample(image(), geometry, fill=7.0, order=order)
            np.testing.assert_array_equal(moved, image())
    for enhance in (ops.colour, ops.contrast, ops.brightness, ops.sharpness):
        np.testing.assert_array_equal(jax.jit(enhance)(image(), one), image())
    np.testing.assert_array_equal(ops.posterize(image(), jnp.float32(8)), image())
    np.testing.assert_array_equal(ops.solarize(image(), jnp.float32(256)), image())
    np.testing.assert_array_equal(ops.solarize_add(image(), zero), image())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("ours", "name", "arguments", "off"),
    [
        (ops.auto_contrast, "autocontrast", (), 1),
        (ops.equalize, "equalize", (), 0),
        (ops.invert, "invert", (), 0),
        (ops.posterize, "posterize", (3,), 0),
        (ops.solarize, "solarize", (100,), 0),
    ],
)
def test_operations_equal_those_of_pillow(ours, name, arguments, off):
    from PIL import ImageOps

    expected = getattr(ImageOps, name)(Image.fromarray(pixels()), *arguments)
    found = jax.jit(ours)(image(), *(jnp.float32(a) for a in arguments))
    assert np.abs(np.asarray(found) - np.asarray(expected, np.float32)).max() <= off


@pytest.mark.parametrize("factor", [0.1, 0.6, 1.7])
@pytest.mark.parametrize("name", ["Color", "Contrast", "Brightness", "Sharpness"])
def test_pillows_enhancements(name, factor):
    from PIL import ImageEnhance

    expected = getattr(ImageEnhance, name)(Image.fromarray(pixels())).enhance(factor)
    ours = {"Color": ops.colour}.get(name) or getattr(ops, name.lower())
    found = jax.jit(ours)(image(), jnp.float32(factor))
    # Pillow cuts off what we keep behind the point, of the grey and of the blend.
    assert np.abs(np.asarray(found) - np.asarray(expected, np.float32)).max() < 2


def test_a_rotation_is_pillows():
    expected = Image.fromarray(pixels()).rotate(20, resample=Image.Resampling.BILINEAR)
    found = resample(image(), ops.rotation(jnp.float32(20), (24, 20)), fill=0.0)
    inside = np.s_[6:-6, 6:-6]
    assert np.abs(np.asarray(found) - np.asarray(expected, np.float32))[inside].max() <= 1.5


def test_a_translation_of_whole_pixels_is_a_shift_filled_with_a_colour():
    geometry = ops.translation(jnp.float32(2), jnp.float32(-3))
    found = np.asarray(resample(image(), geometry, fill=(1.0, 2.0, 3.0)))
    np.testing.assert_array_equal(found[:-2, 3:], pixels()[2:, :-3])
    assert (found[-2:] == [1, 2, 3]).all() and (found[:, :3] == [1, 2, 3]).all()


def test_a_shear_moves_each_row_by_its_distance():
    picture = jnp.zeros((5, 9, 1)).at[:, 4].set(1.0)
    shear = ops.shear(jnp.zeros(()), jnp.ones(()), jnp.array([2.0, 4.0]))
    found = resample(picture, shear, fill=0.0)
    assert found[..., 0].argmax(1).tolist() == [6, 5, 4, 3, 2]


def test_degenerate_images_stay():
    flat = jnp.full((4, 4, 1), 9.0)
    for change in (ops.auto_contrast, ops.equalize):
        np.testing.assert_array_equal(jax.jit(change)(flat), flat)
    np.testing.assert_array_equal(ops.sharpness(flat[:2], jnp.float32(0.3)), flat[:2])
    np.testing.assert_array_equal(jax.jit(ops.colour)(flat, jnp.float32(0.3)), flat)


def test_rows_and_columns_are_told_apart_under_vmap():
    down, right = ((jnp.float32(1), jnp.float32(0)), (jnp.float32(0), jnp.float32(1)))
    both = jax.tree.map(lambda *x: jnp.stack(x), ops.translation(*down), ops.translation(*right))
    found = jax.vmap(lambda g: resample(image(), g, fill=0.0))(both)
    np.testing.assert_array_equal(found[0, :-1], image()[1:])
    np.testing.assert_array_equal(found[1, :, :-1], image()[:, 1:])
