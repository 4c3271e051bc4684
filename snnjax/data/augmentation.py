"""Random changes of images that keep their label: pure functions, run inside the jitted step.

Each example draws from its own key, `fold_in(key, place in the batch)`: what happens to it depends
on the key and its place alone, neither on the other examples nor on the size of the batch.

Reference:
    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2015,
    arXiv:1512.03385 (section 4.2: 4 pixels of padding, a random crop, a horizontal flip).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from snnjax.typing import Key


def augment(key: Key, images: jax.Array, *, padding: int = 4, flip: bool = True) -> jax.Array:
    """Shifts each image at random and mirrors half of them: the usual recipe for CIFAR.

    Args:
        key: A typed PRNG key; a new one each step.
        images: `[B, H, W, C]`, of any dtype.
        padding: The largest shift, in pixels.
        flip: Whether to mirror. Not for digits or letters: a mirrored 2 is not a 2.

    Returns:
        `[B, H, W, C]` of the same dtype.
    """
    crop_key, flip_key = jax.random.split(key)
    images = random_crop(crop_key, images, padding=padding)
    return random_flip(flip_key, images) if flip else images


def random_crop(key: Key, images: jax.Array, *, padding: int = 4) -> jax.Array:
    """Pads each image with zeros and cuts its own size out at a random place.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]`, of any dtype.
        padding: Pixels of zeros on each side; the shift is uniform in `-padding .. padding`.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        ValueError: Where `images` is not a batch of images.
    """
    check_images(images)
    size = images.shape[1:]

    def crop(key: Key, image: jax.Array) -> jax.Array:
        row, column = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), size)

    return jax.vmap(crop)(keys_of(key, images), images)


def random_flip(key: Key, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]`, of any dtype.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        ValueError: Where `images` is not a batch of images.
    """
    check_images(images)
    mirror = jax.vmap(jax.random.bernoulli)(keys_of(key, images))
    return jnp.where(mirror[:, None, None, None], images[:, :, ::-1, :], images)


def through_time(change: Callable[[jax.Array], jax.Array], frames: jax.Array) -> jax.Array:
    """Changes each recording as a whole: what is drawn for it is the same at every timestep.

    Time rides along as channels: `change` sees `[B, H, W, T C]`.

    Args:
        change: Of images, such as `lambda x: random_crop(key, x)`; it keeps their shape.
        frames: `[B, T, H, W, C]`, of any dtype.

    Returns:
        `[B, T, H, W, C]`.
    """
    batch, timesteps, height, width, channels = frames.shape
    folded = change(jnp.moveaxis(frames, 1, 3).reshape(batch, height, width, -1))
    return jnp.moveaxis(folded.reshape(batch, height, width, timesteps, channels), 3, 1)


def keys_of(key: Key, images: jax.Array) -> jax.Array:
    """A key for each image, `[B]`: of its place in the batch, whatever the batch's size."""
    places = jnp.arange(images.shape[0], dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)


def check_images(images: jax.Array) -> None:
    """Raises `ValueError` unless these are `[B, H, W, C]`."""
    if images.ndim != 4:
        raise ValueError(
            f"augmentation takes images [B, H, W, C], not {images.shape}: apply it before the "
            "encoding that adds time"
        )
