"""Random erasing: a rectangle of the image is painted over, so that no part of it is relied upon.

Reference:
    Z. Zhong, L. Zheng, G. Kang, S. Li, Y. Yang, "Random Erasing Data Augmentation", 2017,
    arXiv:1708.04896.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from snnjax.data.augmentation import check_images, keys_of
from snnjax.typing import Key

_ATTEMPTS = 10


def random_erasing(
    key: Key,
    images: jax.Array,
    *,
    probability: float = 0.25,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    fill: float | Sequence[float] = 0.0,
) -> jax.Array:
    """Paints a random rectangle over some of the images.

        h = round(sqrt(a r H W)),  w = round(sqrt(a / r H W)),  a ~ U(area),  log r ~ U(log aspect)

    Ten rectangles are drawn, the first that fits into the image is taken, at a uniform place; where
    none fits the image stays. Each draws from its own key, as in `random_crop`.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]`, of any dtype.
        probability: Of an image to be erased.
        area: Range of the rectangle's share of the image.
        aspect: Range of its height over its width.
        fill: The colour it is painted in, one number or one per channel: 0 for standardised images,
            their mean for others.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        ValueError: Where `images` is not a batch of images.
    """
    check_images(images)
    colour = jnp.asarray(fill, images.dtype)

    def change(key: Key, image: jax.Array) -> jax.Array:
        toss, draw = jax.random.split(key)
        erased = erase(draw, image, area=area, aspect=aspect, fill=colour)
        return jnp.where(jax.random.bernoulli(toss, probability), erased, image)

    return jax.vmap(change)(keys_of(key, images), images)


def erase(
    key: Key,
    image: jax.Array,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    fill: jax.Array,
) -> jax.Array:
    """Paints a random rectangle over one image, `[H, W, C]`, see `random_erasing`."""
    height, width = image.shape[:2]
    sizes, ratios, places = jax.random.split(key, 3)
    share = jax.random.uniform(sizes, (_ATTEMPTS,), minval=area[0], maxval=area[1])
    low, high = (math.log(a) for a in aspect)
    ratio = jnp.exp(jax.random.uniform(ratios, (_ATTEMPTS,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(share * ratio * (height * width)))
    widths = jnp.round(jnp.sqrt(share / ratio * (height * width)))
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    size = jnp.stack([heights[first], widths[first]])
    # A place is uniform among the whole pixels that leave the rectangle inside.
    room = jnp.array([height, width], jnp.float32) - size + 1
    start = jnp.floor(jax.random.uniform(places, (2,)) * room)
    inside = _between(height, start[0], size[0])[:, None] & _between(width, start[1], size[1])
    return jnp.where((inside & fits[first])[:, :, None], fill, image)


def _between(count: int, start: jax.Array, length: jax.Array) -> jax.Array:
    places = jnp.arange(count, dtype=jnp.float32)
    return (places >= start) & (places < start + length)
