"""Image views: central and random crops, and errors for files that are no image."""

import collections

import numpy as np
import pytest

from snnjax import data
from snnjax.data.image_folder import ImageView, decode_image

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.fast


def gradient(width, height):
    """Image whose red channel is the column and green the row: a crop reveals its position."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    return pixels


def write(path, pixels, mode="RGB", **options):
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def test_evaluation_takes_the_middle(tmp_path):
    path = write(tmp_path / "a.png", gradient(40, 20))
    view = ImageView(size=10, resize=20)
    pixels = view(path, None)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, gradient(40, 20)[5:15, 15:25])
    small = ImageView(size=5, resize=10)(path, None)  # the shorter side halved
    assert small.shape == (5, 5, 3)
    assert abs(int(small[..., 0].mean()) - 20) <= 1 and abs(int(small[..., 1].mean()) - 10) <= 1


@pytest.mark.parametrize("mode", ["L", "1", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    shade = 255 if mode == "1" else 100
    pixels = np.full((12, 12, 3), shade, np.uint8)
    path = write(tmp_path / "a", pixels, mode, format="JPEG" if mode == "CMYK" else "PNG")
    seen = ImageView(size=8, resize=8)(path, None)
    assert seen.shape == (8, 8, 3) and np.abs(seen.astype(int) - shade).max() <= 3


def test_random_crops_keep_to_their_ranges_and_reach_all_places():
    view, rng = ImageView(size=8, resize=8), np.random.default_rng(0)
    width, height, shares, ratios, touched = 120, 80, [], [], collections.Counter()
    for _ in range(2000):
        left, top, right, bottom = view.box((width, height), rng)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        shares.append((right - left) * (bottom - top) / (width * height))
        ratios.append((right - left) / (bottom - top))
        touched.update(left=not left, top=not top, right=right == width, bottom=bottom == height)
    assert 0.07 < min(shares) < 0.1 and 0.8 < max(shares) <= 1
    assert 0.7 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.4
    assert all(touched[side] > 20 for side in ("left", "top", "right", "bottom"))


def test_random_crops_are_uniform_in_area_and_even_in_ratio():
    """Ranges so small that the first draw always fits."""
    view, rng = ImageView(size=8, resize=8, area=(0.1, 0.3)), np.random.default_rng(0)
    boxes = np.array([view.box((120, 100), rng) for _ in range(2000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert abs((width * height).mean() / 12_000 - 0.2) < 0.005
    assert abs(np.log(width / height).mean()) < 0.02
    assert abs(np.mean(boxes[:, 0] / (120 - width)) - 0.5) < 0.02
    assert abs(np.mean(boxes[:, 1] / (100 - height)) - 0.5) < 0.02


@pytest.mark.parametrize(
    ("size", "box"), [((300, 30), (130, 0, 170, 30)), ((9, 90), (0, 39, 9, 51))]
)
def test_where_no_crop_fits_the_middle_is_taken(size, box):
    """The image is too long for any admissible crop of its full area."""
    view = ImageView(size=8, resize=8, area=(1.0, 1.0))
    assert view.box(size, np.random.default_rng(0)) == box


def test_a_random_crop_is_what_its_box_says(tmp_path):
    path = write(tmp_path / "a.png", gradient(60, 40))
    view = ImageView(size=16, resize=16)
    left, top, right, bottom = view.box((60, 40), np.random.default_rng(3))
    seen = view(path, np.random.default_rng(3)).astype(float)
    assert abs(seen[..., 0].mean() - (left + right - 1) / 2) < 1
    assert abs(seen[..., 1].mean() - (top + bottom - 1) / 2) < 1
    assert not np.array_equal(seen, view(path, np.random.default_rng(4)))


def broken(folder):
    """Files for which Pillow raises different errors."""
    cut = write(
        folder / "cut.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    )
    cut.write_bytes(cut.read_bytes()[:900])
    png = write(folder / "damaged.png", gradient(64, 64))
    content = bytearray(png.read_bytes())
    content[60:70] = bytes(10)
    png.write_bytes(content)
    (folder / "text.jpg").write_text("not an image")
    return [cut, png, folder / "text.jpg", folder / "gone.jpg"]


def test_a_damaged_file_is_named(tmp_path):
    for path in broken(tmp_path):
        with pytest.raises(data.CorruptDataError, match=f"{path.name} is not a readable image"):
            decode_image(path, lambda image: image)


def test_an_image_too_large_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "bomb.png", gradient(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(data.CorruptDataError, match=r"bomb\.png"):
        decode_image(path, lambda image: image)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 8, "resize": 7}, {"area": (0.5, 1.5)}, {"area": (0.5, 0.1)},
     {"aspect": (0, 1)}],
)  # fmt: skip
def test_views_that_cannot_be(options):
    with pytest.raises(ValueError, match=r"resize|range"):
        ImageView(**options)
