"""Augmentation policies: effect and frequency of each operation, one key per image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data
from snnjax.data import augmentation


@functools.cache
def pixels(count=16):
    images = np.random.default_rng(0).integers(2, 254, (count, 24, 20, 3))
    return jnp.asarray(images, jnp.uint8)


@functools.partial(jax.jit, static_argnames="count")
def rand_augment(key, images, probability=0.5, deviation=0.5, *, count=1):
    """`rand_augment`, compiled once for all strengths."""
    options = {"probability": probability, "deviation": deviation, "count": count}
    return data.augmentation.rand_augment(key, images, **options)


@functools.cache
def operate():
    """All operations of `rand_augment` at one level, on one image."""
    image = pixels()[0].astype(jnp.float32)
    each = lambda number, level: augmentation.apply_operation(  # noqa: E731
        image, number, level, jnp.float32(1), fill=128.0
    )
    return jax.jit(jax.vmap(each, in_axes=(0, None)))


@pytest.mark.fast
def test_at_level_zero_operations_with_a_strength_do_nothing():
    image = pixels()[0].astype(jnp.float32)
    found = operate()(jnp.arange(len(augmentation.OPERATIONS)), jnp.float32(0))
    same = [bool((x == image).all()) for x in found]
    # Posterizing keeps four bits at most; three have no strength.
    changed = {name for name, s in zip(augmentation.OPERATIONS, same, strict=True) if not s}
    assert changed == {"auto_contrast", "equalize", "invert", "posterize"}


def test_every_operation_does_something_and_stays_in_range():
    image = pixels()[0].astype(jnp.float32)
    found = operate()(jnp.arange(len(augmentation.OPERATIONS)), jnp.float32(0.9))
    for name, out in zip(augmentation.OPERATIONS, np.asarray(found), strict=True):
        assert out.min() >= 0 and out.max() <= 255.001, name
        assert (out != image).any(), name
    assert len({out.tobytes() for out in np.asarray(found)}) == len(augmentation.OPERATIONS)


def test_images_keep_their_dtype_and_range_and_depend_on_their_place_only():
    """Five images of floats, and sixteen of bytes."""
    key, floats = jax.random.key(0), pixels()[:5].astype(jnp.float32)
    found = rand_augment(key, floats), rand_augment(key, pixels())
    assert [out.dtype for out in found] == [jnp.float32, jnp.uint8]
    assert found[0].min() >= 0 and found[0].max() <= 255
    np.testing.assert_allclose(found[0], found[1][:5], atol=0.5001)


def test_the_coin():
    np.testing.assert_array_equal(rand_augment(jax.random.key(0), pixels(), 0.0), pixels())
    keys = jax.random.split(jax.random.key(1), 60)
    out = np.stack([rand_augment(key, pixels()) for key in keys])
    share = (out != np.asarray(pixels())).any((2, 3, 4)).mean()
    assert share == pytest.approx(0.5, abs=0.06)  # of 960 images


def test_strength_varies_by_its_deviation():
    key = jax.random.key(0)
    same, other = (rand_augment(key, pixels(), 1.0, d) for d in (0.0, 2.0))
    assert (same != other).any()


# The loop around the operations compiles all of them twice.
@pytest.mark.slow
def test_operations_follow_one_another():
    key = jax.random.key(0)
    once, twice = (np.asarray(rand_augment(key, pixels(), 1.0, count=n)) for n in (1, 2))
    assert (once != twice).any((1, 2, 3)).mean() > 0.8


# A second number of images is compiled again; above, it is one of floats.
@pytest.mark.parametrize("number", [16, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("run", [rand_augment, jax.jit(data.augmentation.trivial_augment)])
def test_an_image_depends_on_key_and_place_only(run, number):
    key = jax.random.key(5)
    whole = run(key, pixels())
    np.testing.assert_array_equal(run(key, pixels()[:number]), whole[:number])
    assert (whole != run(jax.random.key(6), pixels())).any()
    with pytest.raises(ValueError, match="before the encoding"):
        run(key, pixels()[0])


def test_rand_augment_refuses_event_frames():
    with pytest.raises(ValueError, match="event frames take trivial_augment"):
        data.augmentation.rand_augment(jax.random.key(0), jnp.zeros((2, 4, 4, 20)))


@functools.cache
def events():
    frames = jnp.asarray(np.random.default_rng(1).integers(1, 9, (41, 37, 4)), jnp.uint8)
    each = lambda number, level: augmentation.apply_event_operation(  # noqa: E731
        jax.random.key(0), frames, number, level
    )
    return np.asarray(frames), jax.jit(each)


def test_each_operation_on_events():
    frames, run = events()
    numbers = {name: n for n, name in enumerate(augmentation.EVENT_OPERATIONS)}
    do = lambda name, level: np.asarray(run(numbers[name], jnp.float32(level)))  # noqa: E731
    np.testing.assert_array_equal(do("identity", 0.7), frames)
    for name in ("shear_x", "translate_x", "translate_y", "rotate"):
        np.testing.assert_array_equal(do(name, 0.0), frames)
        assert (do(name, 1.0) != frames).any() and (do(name, 1.0) != do(name, -1.0)).any()
    np.testing.assert_array_equal(do("translate_x", 1.0)[:, :-5], frames[:, 5:])
    np.testing.assert_array_equal(do("translate_y", -0.9)[4:], frames[:-4])
    assert (do("translate_y", -0.9)[:4] == 0).all()
    # All frames of a recording are cut at one place.
    holes = do("cutout", 0.3) == 0
    assert holes.any() and (holes == holes[..., :1]).all()
    assert 0 < holes[..., 0].mean() <= 0.12


def test_event_operations_come_equally_often():
    many = jnp.broadcast_to(jnp.asarray(events()[0][:21, :21, :1]), (3000, 21, 21, 1))
    out = jax.jit(data.augmentation.trivial_augment)(jax.random.key(2), many)
    assert out.dtype == many.dtype
    unchanged = float((out == many).all((1, 2, 3)).mean())
    # The identity, and strengths too weak to move any pixel to the next.
    expected = (1 + (2 * 5 + 5 + 3) / 31) / 6
    assert unchanged == pytest.approx(expected, abs=0.03)
