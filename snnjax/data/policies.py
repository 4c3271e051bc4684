"""Policies of augmentation: which operation, how strongly, drawn anew for each image.

    rand_augment       `count` of 15 operations on colour images, all of about one strength
    trivial_augment    one of 6 operations that suit event frames, of any strength

References:
    E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical Automated Data Augmentation
    with a Reduced Search Space", 2019, arXiv:1909.13719.
    S. G. Müller, F. Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
    2021, arXiv:2103.10158.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from snnjax.data import image_ops as ops
from snnjax.data.augmentation import check_images, keys_of
from snnjax.data.erasing import erase
from snnjax.typing import Key

OPERATIONS = (
    "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
    "auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add",
    "colour", "contrast", "brightness", "sharpness",
)  # fmt: skip
"""What `rand_augment` draws from, in this order."""

EVENT_OPERATIONS = ("identity", "shear_x", "translate_x", "translate_y", "rotate", "cutout")
"""What `trivial_augment` draws from, in this order."""

_GEOMETRIC = 5  # the first operations are geometric: one resampling serves them all
_BINS = 31


def rand_augment(
    key: Key,
    images: jax.Array,
    *,
    magnitude: float = 9.0,
    count: int = 2,
    deviation: float = 0.5,
    probability: float = 0.5,
    fill: float | Sequence[float] = 128.0,
) -> jax.Array:
    """Changes each image by operations drawn at random.

    With a level `l ~ clip(N(magnitude, deviation^2), 0, 10) / 10` and a random sign for each:

        rotate            +-30 l degrees            posterize      keeps 4 - floor(4 l) bits
        shear_x, _y       +-0.3 l                   solarize       from 256 - floor(256 l) up
        translate_x, _y   +-0.45 l of the size      solarize_add   floor(110 l)
        auto_contrast, equalize, invert             colour, contrast, brightness, sharpness:
                                                    factor max(0.1, 1 +- 0.9 l)

    The list, the ranges and the coin before each operation are those of pytorch-image-models, where
    recipes write them as `rand-m9-n2-mstd0.5-inc1`; the paper tosses no coin, has one strength for
    all, and 14 operations, the identity for one and neither `invert` nor `solarize_add`. Here
    geometry is interpolated linearly; there, often bicubically. Every operation is computed for
    every image, and one is taken.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]` in [0, 255], uint8 or floating, C 1 or 3.
        magnitude: Strength, 0 to 10.
        count: Operations one after another.
        deviation: Of the strength, from image to image; 0 keeps it.
        probability: Of an operation that was drawn to be done.
        fill: What comes in from outside, one number or one per channel, in [0, 255].

    Returns:
        `[B, H, W, C]` of the same dtype, in [0, 255].

    Raises:
        ValueError: Where `images` is not a batch of images of 1 or 3 channels.
    """
    check_images(images)
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"rand_augment takes images of 1 or 3 channels, not {images.shape[-1]}: event frames "
            "take trivial_augment"
        )

    def change(key: Key, image: jax.Array) -> jax.Array:
        x = image.astype(jnp.float32)
        for number in range(count):
            draws = jax.random.split(jax.random.fold_in(key, number), 4)
            operation = jax.random.randint(draws[0], (), 0, len(OPERATIONS))
            level = (magnitude + deviation * jax.random.normal(draws[1])) / 10
            sign = jax.random.rademacher(draws[2], (), jnp.float32)
            changed = operate(x, operation, jnp.clip(level, 0, 1), sign, fill=fill)
            x = jnp.where(jax.random.bernoulli(draws[3], probability), changed, x)
        x = jnp.clip(x, 0, 255)  # interpolation may end a last bit above
        if jnp.issubdtype(image.dtype, jnp.integer):
            x = jnp.round(x)
        return x.astype(image.dtype)

    return jax.vmap(change)(keys_of(key, images), images)


def operate(
    image: jax.Array,
    operation: jax.Array,
    level: jax.Array,
    sign: jax.Array,
    *,
    fill: float | Sequence[float],
) -> jax.Array:
    """One of `OPERATIONS` on one image, `[H, W, C]` float32 in [0, 255], see `rand_augment`.

    Args:
        image: `[H, W, C]`.
        operation: Its number.
        level: In [0, 1].
        sign: 1 or -1.
        fill: What comes in from outside.
    """
    size = image.shape[:2]
    factor = jnp.maximum(0.1, 1 + 0.9 * sign * level)
    branches = [
        lambda x: ops.resample(x, _geometry(operation, level * sign, size), fill=fill),
        ops.auto_contrast,
        ops.equalize,
        ops.invert,
        lambda x: ops.posterize(x, 4 - jnp.floor(4 * level)),
        lambda x: ops.solarize(x, 256 - jnp.floor(256 * level)),
        lambda x: ops.solarize_add(x, jnp.floor(110 * level)),
        lambda x: ops.colour(x, factor),
        lambda x: ops.contrast(x, factor),
        lambda x: ops.brightness(x, factor),
        lambda x: ops.sharpness(x, factor),
    ]
    return jax.lax.switch(jnp.maximum(operation - _GEOMETRIC + 1, 0), branches, image)


def trivial_augment(key: Key, frames: jax.Array) -> jax.Array:
    """Changes each image by one operation of random strength; made for frames of events.

        identity    shear_x +-0.3    translate_x, _y +-5 pixels    rotate +-30 degrees
        cutout      a square of 0.001 to 0.11 of the area set to 0

    with equal probability, each strength one of 31 evenly spaced. The nearest pixel is taken and
    what comes in from outside is 0. Operations and ranges are those published with T-RevSNN
    (arXiv:2405.16466, `SNNAugmentWide`).

    Args:
        key: A typed PRNG key.
        frames: `[B, H, W, C]`, of any dtype and any number of channels: the frames of a recording
            stand side by side as channels, so that all of them are changed alike.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        ValueError: Where `frames` is not `[B, H, W, C]`.
    """
    check_images(frames)

    def change(key: Key, image: jax.Array) -> jax.Array:
        which, strength, cut = jax.random.split(key, 3)
        operation = jax.random.randint(which, (), 0, len(EVENT_OPERATIONS))
        half = _BINS // 2
        level = jax.random.randint(strength, (), -half, half + 1).astype(jnp.float32) / half
        return operate_on_events(cut, image, operation, level)

    return jax.vmap(change)(keys_of(key, frames), frames)


def operate_on_events(
    key: Key, image: jax.Array, operation: jax.Array, level: jax.Array
) -> jax.Array:
    """One of `EVENT_OPERATIONS` on one image, `[H, W, C]`; `level` in [-1, 1]."""
    size = image.shape[:2]
    middle, zero = (jnp.array(size, jnp.float32) - 1) / 2, jnp.zeros(())
    pixels = jnp.trunc(5.0001 * level)  # a level of 0.2, however it is rounded, is one pixel
    choices = [
        ops.translation(zero, zero),
        ops.shear(zero, jnp.tan(0.3 * level), middle),
        ops.translation(zero, pixels),
        ops.translation(pixels, zero),
        ops.rotation(30 * level, size),
        ops.translation(zero, zero),
    ]
    moved = ops.resample(image.astype(jnp.float32), _pick(choices, operation), fill=0.0, order=0)
    colour = jnp.zeros((), image.dtype)
    cut = erase(key, image, area=(0.001, 0.11), aspect=(1.0, 1.0), fill=colour)
    cutout = operation == EVENT_OPERATIONS.index("cutout")
    return jnp.where(cutout, cut, moved.astype(image.dtype))


def _geometry(operation: jax.Array, level: jax.Array, size: tuple[int, ...]) -> ops.Geometry:
    height, width = size
    zero, corner = jnp.zeros(()), jnp.full(2, -0.5)
    choices = [
        ops.rotation(30 * level, size),
        ops.shear(zero, 0.3 * level, corner),
        ops.shear(0.3 * level, zero, corner),
        ops.translation(zero, 0.45 * width * level),
        ops.translation(0.45 * height * level, zero),
    ]
    return _pick(choices, jnp.minimum(operation, _GEOMETRIC - 1))


def _pick(choices: Sequence[ops.Geometry], number: jax.Array) -> ops.Geometry:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[number], *choices)
