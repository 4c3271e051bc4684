"""Random erasing: size and position of the rectangles, one key per image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data


@pytest.fixture
def key():
    return jax.random.key(3)


@functools.partial(jax.jit, static_argnames=("area", "aspect", "fill"))
def erase(key, images, probability, **options):
    return data.augmentation.random_erasing(key, images, probability=probability, **options)


def erased(key, count=500, size=(32, 32), probability=0.25, **options):
    images = jnp.ones((count, *size, 1))
    return np.asarray(erase(key, images, probability, **options))[..., 0]


@pytest.mark.fast
def test_one_rectangle_of_the_asked_shape_is_erased(key):
    out = erased(key, 200, (40, 30), probability=1.0, aspect=(0.5, 2.0))
    for image in out:
        holes = np.argwhere(image == 0)
        height, width = holes.max(0) - holes.min(0) + 1
        assert height * width == len(holes)
        # Sides are rounded to whole pixels.
        assert (height + 0.5) * (width + 0.5) >= 0.02 * 1200
        assert (height - 0.5) * (width - 0.5) <= 1200 / 3
        assert (height + 0.5) / (width - 0.5) >= 0.5 and (height - 0.5) / (width + 0.5) <= 2


def test_the_share_that_is_erased(key):
    out = erased(key, 3000, area=(0.1, 0.3), aspect=(1.0, 1.0))
    assert (out == 0).any((1, 2)).mean() == pytest.approx(0.25, abs=0.03)
    # Squares of a fifth of the image on average always fit.
    assert (out == 0).mean() == pytest.approx(0.25 * 0.2, abs=0.006)
    holes = (out == 0).mean(0)
    np.testing.assert_allclose(holes, holes[::-1], atol=0.03)
    np.testing.assert_allclose(holes, holes[:, ::-1], atol=0.03)


def test_nothing_and_everything(key):
    assert (erased(key, 50, probability=0.0) == 1).all()
    assert (erased(key, 50, probability=1.0) == 0).any((1, 2)).all()
    # No square of four thirds of the image fits.
    never = erased(key, 50, probability=1.0, area=(1.2, 1.3), aspect=(1.0, 1.0))
    assert (never == 1).all()


def test_the_colour_and_the_dtype(key):
    images = jnp.zeros((20, 16, 16, 3), jnp.uint8)
    out = erase(key, images, 1.0, fill=(1, 2, 3))
    assert out.dtype == jnp.uint8
    painted = np.asarray(out).reshape(-1, 3)
    assert {tuple(c) for c in painted.tolist()} == {(0, 0, 0), (1, 2, 3)}


def test_an_image_depends_on_key_and_place_only(key):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8, 8, 2)), jnp.float32)
    change = functools.partial(erase, probability=0.7)
    whole = change(key, images)
    np.testing.assert_array_equal(whole, change(key, images))
    np.testing.assert_array_equal(change(key, images[:5]), whole[:5])
    assert (whole != change(jax.random.key(4), images)).any()
    with pytest.raises(ValueError, match="before the encoding"):
        change(key, images[0])


def test_a_traced_colour_fills_integer_images():
    images = jnp.full((2, 8, 8, 1), 9, jnp.uint8)
    traced = jax.jit(
        lambda fill: data.augmentation.random_erasing(
            jax.random.key(0), images, probability=1.0, fill=fill
        )
    )
    np.testing.assert_array_equal(
        traced(jnp.uint8(3)), erase(jax.random.key(0), images, 1.0, fill=3)
    )
