"""How an image file becomes an array of one size: the middle of it, or a random crop.

In evaluation the shorter side becomes `resize` pixels and the middle `S x S` is cut out. In
training a crop of a share a of the image and a ratio r of width to height is resized to `S x S`:

    a ~ U(area),  log r ~ U(log aspect),      w = round(sqrt(a r W H)),  h = round(sqrt(a / r W H))

the first of ten draws that fits, at a uniform place.

Reference: Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going Deeper
with Convolutions", 2014, arXiv:1409.4842 (section 6: patches of 8 % to 100 % of the image, ratios
of 3/4 to 4/3).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data.errors import CorruptDataError

__all__ = ["ImageView", "decode_image"]

_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class ImageView:
    """From a path to `[size, size, 3]` uint8; what `Transformed` asks for.

    Attributes:
        size: Pixels along both sides of what comes out, S.
        resize: Pixels of the shorter side in evaluation, before the middle is cut out.
        area: Range of a training crop's share of the image.
        aspect: Range of its width over its height.

    Raises:
        ValueError: Where `resize` is smaller than `size`, or a range is none.
    """

    size: int = 224
    resize: int = 256
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self):
        if not 1 <= self.size <= self.resize:
            raise ValueError(
                f"size={self.size} is cut out of a shorter side of resize={self.resize}: it takes "
                "1 <= size <= resize, for instance size=224, resize=256"
            )
        if not 0 < self.area[0] <= self.area[1] <= 1 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(
                f"area={self.area} must be a range within (0, 1] and aspect={self.aspect} one of "
                "positive numbers, low end first"
            )

    def __call__(self, path: str | Path, rng: np.random.Generator | None) -> np.ndarray:
        """The view that `rng` draws, or without one that of evaluation."""
        view = self.whole if rng is None else functools.partial(self.drawn, rng=rng)
        return decode_image(path, view)

    def whole(self, image: Any) -> Any:
        """The middle of a Pillow image, its shorter side resized."""
        from PIL import Image

        scale = self.resize / min(image.size)
        width, height = (max(self.resize, round(scale * side)) for side in image.size)
        left, top = ((side - self.size) // 2 for side in (width, height))
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        return resized.crop((left, top, left + self.size, top + self.size))

    def drawn(self, image: Any, rng: np.random.Generator) -> Any:
        """A random crop of a Pillow image, resized."""
        from PIL import Image

        box = self.box(image.size, rng)
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)

    def box(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a random crop, in an image of `(width, height)`.

        Where none of ten draws fits, the largest crop of an admissible ratio in the middle.
        """
        width, height = size
        low, high = (math.log(ratio) for ratio in self.aspect)
        for _ in range(_ATTEMPTS):
            pixels = rng.uniform(*self.area) * width * height
            ratio = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
                return int(left), int(top), int(left) + w, int(top) + h
        w = min(width, max(1, round(height * self.aspect[1])))
        h = min(height, max(1, round(width / self.aspect[0])))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def decode_image(path: str | Path, view: Callable[[Any], Any]) -> np.ndarray:
    """Opens an image, applies `view` to it as RGB, and gives its pixels, `[H, W, 3]` uint8.

    Raises:
        ImportError: Where Pillow is not installed.
        CorruptDataError: Where the file is no image, is cut short, or is gone; it is named.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("images are decoded by Pillow: pip install 'snnjax[data]'") from error
    try:
        with Image.open(path) as image:
            pixels = image.convert("RGB")
    # Pillow says SyntaxError of a broken PNG, and has an error of its own for images too large.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptDataError(
            f"{path} is not a readable image ({error}): fetch it again, or move it out of the way"
        ) from error
    return np.asarray(view(pixels))
