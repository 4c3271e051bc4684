"""Augmentation: a pure function of the key, independent of the other examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).integers(1, 256, (16, 6, 5, 3)), jnp.uint8)


@pytest.fixture
def key():
    return jax.random.key(0)


def test_jit_changes_nothing_and_keys_decide(images, key):
    plain = data.augmentation.crop_and_flip(key, images)
    np.testing.assert_array_equal(plain, jax.jit(data.augmentation.crop_and_flip)(key, images))
    assert plain.shape == images.shape and plain.dtype == images.dtype
    assert (plain != data.augmentation.crop_and_flip(jax.random.key(1), images)).any()


@pytest.mark.parametrize(
    "change",
    [data.augmentation.crop_and_flip, data.augmentation.random_crop, data.augmentation.random_flip],
)
def test_an_example_depends_on_key_and_place_only(images, key, change):
    whole = change(key, images)
    np.testing.assert_array_equal(change(key, images[:5]), whole[:5])
    others = images.at[1:].set(0)
    np.testing.assert_array_equal(change(key, others)[0], whole[0])


def test_a_crop_is_a_shift_filled_with_zeros(images, key):
    padding = 2
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    seen = set()
    for i, out in enumerate(
        np.asarray(data.augmentation.random_crop(key, images, padding=padding))
    ):
        matches = [
            (r, c)
            for r in range(2 * padding + 1)
            for c in range(2 * padding + 1)
            if (padded[i, r : r + 6, c : c + 5] == out).all()
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 5
    np.testing.assert_array_equal(data.augmentation.random_crop(key, images, padding=0), images)


def test_every_shift_and_both_mirrors_occur(key):
    images = jnp.zeros((4000, 3, 3, 1)).at[:, 1, 1, 0].set(1.0)
    centres = data.augmentation.random_crop(key, images, padding=1).mean(axis=0)[..., 0]
    np.testing.assert_allclose(centres, 1 / 9, atol=0.02)
    left = jnp.zeros((4000, 1, 2, 1)).at[:, :, 0].set(1.0)
    np.testing.assert_allclose(
        data.augmentation.random_flip(key, left).mean(axis=0)[0, :, 0], 0.5, atol=0.03
    )


def test_a_flip_mirrors_columns(images, key):
    out = np.asarray(data.augmentation.random_flip(key, images))
    for before, after in zip(np.asarray(images), out, strict=True):
        assert (after == before).all() or (after == before[:, ::-1]).all()
    digits = data.augmentation.crop_and_flip(key, images, padding=0, flip=False)
    np.testing.assert_array_equal(digits, images)


def test_arrays_that_are_no_batch_of_images_are_refused(images, key):
    for wrong in (images[0], images[None]):
        with pytest.raises(ValueError, match="before the encoding"):
            data.augmentation.crop_and_flip(key, wrong)


@pytest.mark.fast
def test_a_recording_is_changed_alike_at_every_timestep():
    key = jax.random.key(3)
    frames = jax.random.normal(jax.random.key(0), (4, 3, 5, 6, 2))
    change = lambda images: data.augmentation.random_crop(key, images, padding=2)  # noqa: E731
    found = data.augmentation.map_recordings(change, frames)
    assert found.shape == frames.shape and (found != frames).any()
    for t in range(3):
        np.testing.assert_array_equal(found[:, t], change(frames[:, t]))
