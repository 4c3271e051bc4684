"""Random augmentation of image batches: pure functions that run inside the jitted step.

    random_crop, random_flip    shift and mirror; `crop_and_flip` combines them
    random_erasing              overwrite a random rectangle
    rand_augment                `count` of 15 operations on colour images, of about one strength
    trivial_augment             one of 6 operations suited to event frames, of any strength
    map_recordings              the same draw for every timestep of a recording

Each example draws from its own key, `fold_in(key, place in the batch)`: the result depends on the
key and the place alone, neither on the other examples nor on the batch size.

References:
    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2015,
    arXiv:1512.03385 (section 4.2: 4 pixels of padding, a random crop, a horizontal flip).
    Z. Zhong, L. Zheng, G. Kang, S. Li, Y. Yang, "Random Erasing Data Augmentation", 2017,
    arXiv:1708.04896.
    E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical Automated Data Augmentation
    with a Reduced Search Space", 2019, arXiv:1909.13719.
    S. G. Müller, F. Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation",
    2021, arXiv:2103.10158.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from snnjax.data import _image_ops as ops
from snnjax.data.dataset import whole_number
from snnjax.ops.arguments import is_traced
from snnjax.typing import Key

__all__ = [
    "crop_and_flip",
    "map_recordings",
    "rand_augment",
    "random_crop",
    "random_erasing",
    "random_flip",
    "trivial_augment",
]

OPERATIONS = (
    "rotate", "shear_x", "shear_y", "translate_x", "translate_y",
    "auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add",
    "colour", "contrast", "brightness", "sharpness",
)  # fmt: skip
"""The operations of `rand_augment`, in the order of their numbers."""

EVENT_OPERATIONS = ("identity", "shear_x", "translate_x", "translate_y", "rotate", "cutout")
"""The operations of `trivial_augment`, in the order of their numbers."""

_GEOMETRIC = 5  # the first operations are geometric and share one resampling
_BINS = 31  # strengths of TrivialAugment
_ATTEMPTS = 10  # rectangles drawn by random erasing before it gives up


def crop_and_flip(key: Key, images: jax.Array, *, padding: int = 4, flip: bool = True) -> jax.Array:
    """Shifts each image at random and mirrors half of them, the usual recipe for CIFAR.

    Args:
        key: A typed PRNG key; use a new one in every step.
        images: `[B, H, W, C]`, of any dtype.
        padding: Largest shift, in pixels.
        flip: Mirror images. Switch it off for digits and letters: a mirrored 2 is not a 2.

    Returns:
        `[B, H, W, C]` of the same dtype.
    """
    crop_key, flip_key = jax.random.split(key)
    images = random_crop(crop_key, images, padding=padding)
    return random_flip(flip_key, images) if flip else images


def random_crop(key: Key, images: jax.Array, *, padding: int = 4) -> jax.Array:
    """Pads each image with zeros and crops it to its own size at a random offset.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]`, of any dtype.
        padding: Zero pixels on each side; the shift is uniform in `-padding .. padding`.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        TypeError: If `padding` is no whole number.
        ValueError: If `images` is not a batch of images, or `padding` is negative.
    """
    _check_images(images)
    padding = whole_number("padding", padding, least=0)
    size = images.shape[1:]

    def crop(key: Key, image: jax.Array) -> jax.Array:
        row, column = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        return jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), size)

    return jax.vmap(crop)(_image_keys(key, images), images)


def random_flip(key: Key, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]`, of any dtype.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        ValueError: If `images` is not a batch of images.
    """
    _check_images(images)
    mirror = jax.vmap(jax.random.bernoulli)(_image_keys(key, images))
    return jnp.where(mirror[:, None, None, None], images[:, :, ::-1, :], images)


def map_recordings(change: Callable[[jax.Array], jax.Array], frames: jax.Array) -> jax.Array:
    """Applies an image augmentation to whole recordings, one random draw per recording.

    Args:
        change: Function of images that keeps their shape, such as `lambda x: random_crop(key, x)`.
        frames: `[B, T, H, W, C]`, of any dtype.

    Returns:
        `[B, T, H, W, C]`.

    Raises:
        ValueError: If `frames` is not a batch of recordings.
    """
    if frames.ndim != 5:
        raise ValueError(
            f"map_recordings takes frames [B, T, H, W, C], not {frames.shape}: images take the "
            "augmentation itself, and time comes second here"
        )
    batch, timesteps, height, width, channels = frames.shape
    # Time becomes part of the channel axis, `[B, H, W, T C]`: one draw then serves all timesteps.
    folded = change(jnp.moveaxis(frames, 1, 3).reshape(batch, height, width, -1))
    return jnp.moveaxis(folded.reshape(batch, height, width, timesteps, channels), 3, 1)


def random_erasing(
    key: Key,
    images: jax.Array,
    *,
    probability: float = 0.25,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    fill: float | Sequence[float] = 0.0,
) -> jax.Array:
    """Overwrites a random rectangle in some of the images, so that no region is indispensable.

        h = round(sqrt(a r H W)),  w = round(sqrt(a / r H W)),  a ~ U(area),  log r ~ U(log aspect)

    Of ten random rectangles the first that fits into the image is used, at a uniform position; if
    none fits, the image stays unchanged.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]`, of any dtype.
        probability: Probability that an image is erased.
        area: Range of the rectangle's share of the image area.
        aspect: Range of the rectangle's height divided by its width.
        fill: Colour of the rectangle, one number or one per channel: 0 for standardised images,
            otherwise the mean of the images.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        ValueError: If `images` is not a batch of images, a range or the probability is out of its
            bounds, or the dtype of the images does not hold `fill`.
    """
    _check_images(images)
    _check_bounds("probability", (0.0, probability), 1.0)
    _check_bounds("area", area, math.inf)
    _check_bounds("aspect", aspect, math.inf)
    # The value of a traced fill is unknown.
    if jnp.issubdtype(images.dtype, jnp.integer) and not is_traced(fill):
        # A fraction would be cut off: the mean of standardised images is no colour of 8-bit ones.
        values, limits = np.asarray(fill), jnp.iinfo(images.dtype)
        if not (
            (values == np.round(values)) & (values >= limits.min) & (values <= limits.max)
        ).all():
            raise ValueError(f"fill={fill} is no colour of {images.dtype} images: round it")
    colour = jnp.asarray(fill, images.dtype)

    def change(key: Key, image: jax.Array) -> jax.Array:
        toss, draw = jax.random.split(key)
        erased = erase(draw, image, area=area, aspect=aspect, fill=colour)
        return jnp.where(jax.random.bernoulli(toss, probability), erased, image)

    return jax.vmap(change)(_image_keys(key, images), images)


def erase(
    key: Key,
    image: jax.Array,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
    fill: jax.Array,
) -> jax.Array:
    """Overwrites a random rectangle of one image `[H, W, C]`; arguments as in `random_erasing`."""
    height, width = image.shape[:2]
    sizes, ratios, places = jax.random.split(key, 3)
    share = jax.random.uniform(sizes, (_ATTEMPTS,), minval=area[0], maxval=area[1])
    low, high = (math.log(a) for a in aspect)
    ratio = jnp.exp(jax.random.uniform(ratios, (_ATTEMPTS,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(share * ratio * (height * width)))
    widths = jnp.round(jnp.sqrt(share / ratio * (height * width)))
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)  # 0 if none fits: the mask below then leaves the image unchanged
    size = jnp.stack([heights[first], widths[first]])
    # The offset is uniform over all whole pixels that keep the rectangle inside the image.
    room = jnp.array([height, width], jnp.float32) - size + 1
    start = jnp.floor(jax.random.uniform(places, (2,)) * room)
    inside = _interval(height, start[0], size[0])[:, None] & _interval(width, start[1], size[1])
    return jnp.where((inside & fits[first])[:, :, None], fill, image)


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
    """Changes each image by a random sequence of operations.

    With a level `l ~ clip(N(magnitude, deviation^2), 0, 10) / 10` and a random sign for each:

        rotate            +-30 l degrees            posterize      keeps 4 - floor(4 l) bits
        shear_x, _y       +-0.3 l                   solarize       from 256 - floor(256 l) up
        translate_x, _y   +-0.45 l of the size      solarize_add   floor(110 l)
        auto_contrast, equalize, invert             colour, contrast, brightness, sharpness:
                                                    factor max(0.1, 1 +- 0.9 l)

    The list, the ranges and the random skip of an operation follow pytorch-image-models, where
    recipes write them as `rand-m9-n2-mstd0.5-inc1`. The paper never skips, uses one strength for
    all operations, and has 14 of them: with the identity, without `invert` and `solarize_add`.
    Geometry is interpolated linearly here, often bicubically there. Every operation is computed for
    every image, since `vmap` turns the switch into a selection.

    Args:
        key: A typed PRNG key.
        images: `[B, H, W, C]` in [0, 255], uint8 or floating, C 1 or 3.
        magnitude: Mean strength, 0 to 10.
        count: Operations applied one after another.
        deviation: Standard deviation of the strength between images; 0 makes it constant.
        probability: Probability that a drawn operation is applied.
        fill: Colour of pixels from outside the image, one number or one per channel, in [0, 255].

    Returns:
        `[B, H, W, C]` of the same dtype, in [0, 255].

    Raises:
        ValueError: If `images` is not a batch of images of 1 or 3 channels, or an option is out of
            its bounds.
    """
    _check_images(images)
    _check_bounds("probability", (0.0, probability), 1.0)
    _check_bounds("magnitude", (0.0, magnitude), 10.0)
    _check_bounds("deviation", (0.0, deviation), math.inf)
    count = whole_number("count", count, least=0)
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
            changed = apply_operation(x, operation, jnp.clip(level, 0, 1), sign, fill=fill)
            x = jnp.where(jax.random.bernoulli(draws[3], probability), changed, x)
        x = jnp.clip(x, 0, 255)  # interpolation may exceed 255 by the last bit
        if jnp.issubdtype(image.dtype, jnp.integer):
            x = jnp.round(x)  # a cast to an integer dtype alone would truncate
        return x.astype(image.dtype)

    return jax.vmap(change)(_image_keys(key, images), images)


def apply_operation(
    image: jax.Array,
    operation: jax.Array,
    level: jax.Array,
    sign: jax.Array,
    *,
    fill: float | Sequence[float],
) -> jax.Array:
    """Applies one of `OPERATIONS` to one image, see `rand_augment`.

    Args:
        image: `[H, W, C]` float32 in [0, 255].
        operation: Index into `OPERATIONS`, int32 scalar.
        level: Strength in [0, 1], scalar.
        sign: 1 or -1, scalar.
        fill: Colour of pixels from outside the image.

    Returns:
        `[H, W, C]` float32.
    """
    size = image.shape[:2]
    factor = jnp.maximum(0.1, 1 + 0.9 * sign * level)
    branches = [
        # One branch serves all geometric operations: resampling is the most expensive one, and
        # under vmap every branch is computed.
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
    """Changes each image by one operation of random strength; made for event frames.

        identity    shear_x +-0.3    translate_x, _y +-5 pixels    rotate +-30 degrees
        cutout      a square of 0.001 to 0.11 of the area set to 0

    All operations are equally probable, each at one of 31 evenly spaced strengths. Resampling takes
    the nearest pixel, and pixels from outside are 0. Operations and ranges are those published with
    T-RevSNN (arXiv:2405.16466, `SNNAugmentWide`).

    Args:
        key: A typed PRNG key.
        frames: `[B, H, W, C]`, of any dtype and any number of channels. Give the frames of a
            recording as channels (`map_recordings`), so that all of them change alike.

    Returns:
        `[B, H, W, C]` of the same dtype.

    Raises:
        ValueError: If `frames` is not `[B, H, W, C]`.
    """
    _check_images(frames)

    def change(key: Key, image: jax.Array) -> jax.Array:
        choice, strength, cut = jax.random.split(key, 3)
        operation = jax.random.randint(choice, (), 0, len(EVENT_OPERATIONS))
        half = _BINS // 2
        level = jax.random.randint(strength, (), -half, half + 1).astype(jnp.float32) / half
        return apply_event_operation(cut, image, operation, level)

    return jax.vmap(change)(_image_keys(key, frames), frames)


def apply_event_operation(
    key: Key, image: jax.Array, operation: jax.Array, level: jax.Array
) -> jax.Array:
    """Applies one of `EVENT_OPERATIONS` to one image `[H, W, C]`, at a `level` in [-1, 1]."""
    size = image.shape[:2]
    middle, zero = (jnp.array(size, jnp.float32) - 1) / 2, jnp.zeros(())
    # 5.0001: a level of 0.2 must give one pixel, whichever way float32 rounds it.
    pixels = jnp.trunc(5.0001 * level)
    choices = [
        ops.translation(zero, zero),
        ops.shear(zero, jnp.tan(0.3 * level), middle),
        ops.translation(zero, pixels),
        ops.translation(pixels, zero),
        ops.rotation(30 * level, size),
        ops.translation(zero, zero),  # cutout moves nothing; the rectangle is erased below
    ]
    moved = ops.resample(image.astype(jnp.float32), _select(choices, operation), fill=0.0, order=0)
    colour = jnp.zeros((), image.dtype)
    cut = erase(key, image, area=(0.001, 0.11), aspect=(1.0, 1.0), fill=colour)
    cutout = operation == EVENT_OPERATIONS.index("cutout")
    return jnp.where(cutout, cut, moved.astype(image.dtype))


def _image_keys(key: Key, images: jax.Array) -> jax.Array:
    """One key per image, `[B]`, independent of the batch size."""
    # fold_in instead of split: the keys of split change with their number.
    places = jnp.arange(images.shape[0], dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)


def _check_images(images: jax.Array) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"augmentation takes images [B, H, W, C], not {images.shape}: apply it before the "
            "encoding that adds time"
        )


def _check_bounds(name: str, bounds: tuple[float, float], end: float) -> None:
    low, high = bounds
    try:
        # Written so that NaN fails.
        inside = bool(0 <= low <= high <= end and high < math.inf)
    except jax.errors.ConcretizationTypeError:
        return  # a traced option cannot be checked
    if not inside:
        raise ValueError(f"{name} lies within 0 and {end:g}, low end first, not {bounds}")


def _interval(count: int, start: jax.Array, length: jax.Array) -> jax.Array:
    """Mask `[count]` of the places in `[start, start + length)`."""
    places = jnp.arange(count, dtype=jnp.float32)
    return (places >= start) & (places < start + length)


def _geometry(operation: jax.Array, level: jax.Array, size: tuple[int, ...]) -> ops.Geometry:
    height, width = size
    # Shears of Pillow leave the corner of the first pixel in place, not its centre.
    zero, corner = jnp.zeros(()), jnp.full(2, -0.5)
    choices = [
        ops.rotation(30 * level, size),
        ops.shear(zero, 0.3 * level, corner),
        ops.shear(0.3 * level, zero, corner),
        ops.translation(zero, 0.45 * width * level),
        ops.translation(0.45 * height * level, zero),
    ]
    # Non-geometric operations also trace this branch: their index is clipped, the result unused.
    return _select(choices, jnp.minimum(operation, _GEOMETRIC - 1))


def _select(choices: Sequence[ops.Geometry], number: jax.Array) -> ops.Geometry:
    # Stacking the 2x2 matrices is cheap and resamples once, where a switch would resample per case.
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[number], *choices)
