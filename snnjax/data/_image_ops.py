"""Operations on one image for augmentation policies: pure functions.

An image is `[H, W, C]` float32 in [0, 255]. Enhancements blend the image with a degraded version,

    y = clip(degraded + factor (x - degraded), 0, 255)      factor 1 is the image itself

(grey for colour, mean grey for contrast, black for brightness, 3x3 smoothing for sharpness).
Geometric operations are one resampling, `y[o] = x[M (o - origin) + origin + shift]`, with a fill
colour outside the image.

Reference:
    E. D. Cubuk, B. Zoph, D. Mane, V. Vasudevan, Q. V. Le, "AutoAugment: Learning Augmentation
    Policies from Data", 2018, arXiv:1805.09501 (the operations, those of Pillow's ImageOps and
    ImageEnhance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

_GREY = (0.299, 0.587, 0.114)  # ITU-R 601-2 luma


class Geometry(NamedTuple):
    """Affine map from output to input coordinates, in rows and columns.

    Attributes:
        matrix: `[2, 2]`, M.
        origin: `[2]`, the fixed point of M.
        shift: `[2]`, pixels.
    """

    matrix: jax.Array
    origin: jax.Array
    shift: jax.Array


def resample(
    image: jax.Array, geometry: Geometry, *, fill: float | Sequence[float], order: int = 1
) -> jax.Array:
    """Resamples an image through an affine map.

    Args:
        image: `[H, W, C]` float32.
        geometry: Map from output to input coordinates; the identity returns the same bits.
        fill: Colour outside the image, one number or one per channel.
        order: 1 interpolates linearly, 0 takes the nearest pixel.

    Returns:
        `[H, W, C]` float32.
    """
    height, width, channels = image.shape
    matrix, origin, shift = geometry
    row = jnp.arange(height, dtype=jnp.float32)[:, None] - origin[0]
    column = jnp.arange(width, dtype=jnp.float32)[None] - origin[1]
    # Written out: accelerators may round a matrix product to fewer bits.
    rows = matrix[0, 0] * row + matrix[0, 1] * column + (origin[0] + shift[0])
    columns = matrix[1, 0] * row + matrix[1, 1] * column + (origin[1] + shift[1])
    if isinstance(fill, Sequence):
        colours = [fill[c] for c in range(channels)]
        parts = [_sample(image[..., c], rows, columns, order, f) for c, f in enumerate(colours)]
        return jnp.stack(parts, -1)
    sample = lambda channel: _sample(channel, rows, columns, order, fill)  # noqa: E731
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def rotation(degrees: jax.Array, size: tuple[int, ...]) -> Geometry:
    """Rotation about the centre of the image."""
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    matrix = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
    return Geometry(matrix, _middle(size), jnp.zeros(2))


def shear(rows: jax.Array, columns: jax.Array, origin: jax.Array) -> Geometry:
    """Shear by `rows` pixels down per column and `columns` pixels right per row."""
    one = jnp.ones(())
    matrix = jnp.stack([jnp.stack([one, rows]), jnp.stack([columns, one])])
    return Geometry(matrix, origin, jnp.zeros(2))


def translation(rows: jax.Array, columns: jax.Array) -> Geometry:
    """Translation by `rows` and `columns` pixels."""
    return Geometry(jnp.eye(2), jnp.zeros(2), jnp.stack([rows, columns]))


def auto_contrast(image: jax.Array) -> jax.Array:
    """Stretches the range of each channel to [0, 255]; constant channels stay unchanged."""
    low, high = image.min((0, 1)), image.max((0, 1))
    flat = high <= low
    stretched = (image - low) * (255 / jnp.where(flat, 1, high - low))
    # 255 * (x - low) / range may exceed 255 by the last bit.
    return jnp.where(flat, image, jnp.minimum(stretched, 255))


def equalize(image: jax.Array) -> jax.Array:
    """Equalizes the histogram of each channel, over 256 values."""
    return jax.vmap(_equalize, in_axes=-1, out_axes=-1)(image)


def invert(image: jax.Array) -> jax.Array:
    """Inverts the image, `255 - x`."""
    return 255 - image


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Keeps the highest `bits` of 8 bits, 0 to 8."""
    step = jnp.exp2(8 - bits)
    return jnp.floor(jnp.round(image) / step) * step


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts pixels at or above the threshold."""
    return jnp.where(image < threshold, image, 255 - image)


def solarize_add(image: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds `amount` to pixels darker than 128."""
    return jnp.where(image < 128, jnp.minimum(image + amount, 255), image)


def colour(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Saturation: factor 0 is grey, 1 the image; images of one channel stay unchanged."""
    return _blend(_grey(image), image, factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Contrast: factor 0 is the mean grey, 1 the image."""
    return _blend(jnp.round(_grey(image).mean()), image, factor)


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Brightness: factor 0 is black, 1 the image."""
    return _blend(jnp.zeros(()), image, factor)


def sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Sharpness: factor 0 is smoothed, 1 the image; border pixels stay unchanged."""
    height, width = image.shape[:2]
    # Without an inner pixel there is nothing to smooth.
    if min(height, width) < 3:
        return image
    parts = [image[r : height - 2 + r, c : width - 2 + c] for r in range(3) for c in range(3)]
    # Pillow's SMOOTH kernel: weight 5 in the centre, 1 around it, over 13.
    smooth = (sum(parts) + 4 * parts[4]) / 13
    return _blend(image.at[1:-1, 1:-1].set(smooth), image, factor)


def _sample(channel, rows, columns, order, fill) -> jax.Array:
    return map_coordinates(channel, [rows, columns], order, mode="constant", cval=float(fill))


def _middle(size: tuple[int, ...]) -> jax.Array:
    return (jnp.array(size, jnp.float32) - 1) / 2


def _grey(image: jax.Array) -> jax.Array:
    if image.shape[-1] == 1:
        return image
    return jnp.round(sum(w * image[..., c] for c, w in enumerate(_GREY)))[..., None]


def _blend(degraded: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    blended = jnp.clip(degraded + factor * (image - degraded), 0, 255)
    # a + (b - a) differs from b in the last bit: factor 1 must return the image itself.
    return jnp.where(factor == 1, image, blended)


def _equalize(channel: jax.Array) -> jax.Array:
    # Integer arithmetic of Pillow's ImageOps.equalize, so that the values agree exactly.
    values = jnp.round(channel).astype(jnp.int32)
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    step = (channel.size - counts[values.max()]) // 255
    below = jnp.cumsum(counts) - counts
    table = jnp.clip((below + step // 2) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step == 0, channel, table[values].astype(channel.dtype))
