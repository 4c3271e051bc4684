"""Event streams of a camera that rotates before photographs, with its angular velocity.

The principle of ESIM: an image is rendered at poses so close that no pixel moves by more than one
pixel between two of them, and a pixel fires whenever the logarithm of its intensity has changed by
a contrast threshold C since its last event.

    pose         R(t + dt) = R(t) exp(dt [w(t)]_x)                 w in the axes of the camera
    ray          d(x, y) = R (x - c_x, y - c_y, f),  f = (W / 2) / tan(field of view / 2)
    photograph   on a sphere around the camera: column atan2(d_x, d_z) / span, row
                 atan2(d_y, |d_x, d_z|) / span, mirrored beyond its edges, bilinear
    event        where |L(x, y, t) - L_ref(x, y)| = C, with L = ln(0.01 + intensity) linear between
                 poses; then L_ref moves by C towards L

Axes of the camera are x to the right, y down and z forward: tilt, pan and roll are rotations about
x, y and z. Everything is a pure function of its arguments and of a seed, in float64 NumPy.

`data.load("angular_velocity")` reads the recordings of the paper, rendered from 10,000 panoramas;
this module needs none.

References:
    H. Rebecq, D. Gehrig, D. Scaramuzza, "ESIM: an Open Event Camera Simulator", CoRL 2018.
    M. Gehrig, S. B. Shrestha, D. Mouritzen, D. Scaramuzza, "Event-Based Angular Velocity Regression
    with Spiking Networks", ICRA 2020, arXiv:2003.02790.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from snnjax.data._recordings import as_events
from snnjax.data.dataset import Dataset, Events, Split, whole_number
from snnjax.ops.arguments import check_numbers

__all__ = ["angular_velocities", "dataset", "photographs", "render"]

_MILLISECOND = 1000  # microseconds
_DARK = 0.01  # intensity added before the logarithm


def dataset(
    *,
    train: int = 256,
    test: int = 64,
    seed: int = 0,
    timesteps: int = 100,
    height: int = 32,
    width: int = 32,
    slowest: float = 0.5,
    fastest: float = 8.0,
    knot: int = 100,
    field_of_view: float = math.radians(40),
    contrast: float = 0.2,
    mismatch: float = 0.0,
    images: Sequence[np.ndarray] | None = None,
    test_images: Sequence[np.ndarray] | None = None,
) -> Dataset:
    """Renders recordings of random rotations with their angular velocity at every millisecond.

    Every recording starts at a random orientation before a random photograph. Recording i depends
    on `seed` and i alone. By default the test recordings see the photographs of training from other
    orientations; `test_images` tests on others.

    Args:
        train: Number of training recordings.
        test: Number of test recordings.
        seed: Seed of all draws.
        timesteps: Length T of a recording, in milliseconds.
        height: Rows of the camera.
        width: Columns of the camera.
        slowest: Least speed drawn at a knot of `angular_velocities`, in rad/s.
        fastest: Largest speed, in rad/s.
        knot: Distance of knots, in milliseconds: the larger, the steadier a rotation is.
        field_of_view: Horizontal, in radians.
        contrast: Threshold C.
        mismatch: Standard deviation of the thresholds of pixels, relative to C.
        images: Photographs of training, see `render`; None is `photographs()`.
        test_images: Photographs of the test; None is those of training.

    Returns:
        Recordings `[E, 4]` int32 with targets `[N, T, 3]` float32 in rad/s about x, y and z.
        `input_shape` is `(height, width, 2)`. A frame per target is
        `encoding.events.frames_by_time(events, timesteps=T, start=0, duration=1000 * T, ...)`.

    Raises:
        TypeError: If a number is none.
        ValueError: If an option is outside its range, or there is no photograph.
        ImportError: If `images` is None and Pillow is not installed.

    Example:
        >>> small = dataset(train=2, test=1, timesteps=20, height=8, width=8)   # doctest: +SKIP
        >>> small.train.labels.shape                                            # doctest: +SKIP
        (2, 20, 3)
    """
    seed = whole_number("seed", seed, least=0)
    images = photographs() if images is None else images
    motion = {"timesteps": timesteps, "slowest": slowest, "fastest": fastest, "knot": knot}
    camera = {
        "height": height,
        "width": width,
        "field_of_view": field_of_view,
        "contrast": contrast,
        "mismatch": mismatch,
    }
    splits = []
    for number, (name, count, scenes) in enumerate(
        [("train", train, images), ("test", test, images if test_images is None else test_images)]
    ):
        if not len(scenes):
            raise ValueError(f"no photograph for {name}: give at least one, [H, W], in a list")
        indices = range(whole_number(name, count, least=1))
        pairs = [_recording([seed, number, index], scenes, motion, camera) for index in indices]
        events, targets = zip(*pairs, strict=True)
        splits.append(Split(events, np.stack(targets).astype(np.float32)))
    return Dataset(
        name="rotation",
        train=splits[0],
        test=splits[1],
        classes=0,
        class_names=(),
        input_shape=(height, width, 2),
        scale=1.0,
        note=f"Rotating camera, rendered with seed {seed}; rad/s about x, y, z every millisecond.",
    )


def _recording(
    seed: list[int], images: Sequence[np.ndarray], motion: dict[str, Any], camera: dict[str, Any]
) -> tuple[Events, np.ndarray]:
    """One recording and its angular velocity, a function of the seed."""
    rng = np.random.default_rng(seed)
    velocity = angular_velocities(rng, **motion)
    image = images[int(rng.integers(len(images)))]
    return render(image, velocity, orientation=_orientation(rng), rng=rng, **camera), velocity


def photographs() -> tuple[np.ndarray, ...]:
    """Loads the two photographs that scikit-learn ships, `china.jpg` and `flower.jpg`.

    Returns:
        Luminance `[427, 640]` float64 in 0..1 of each: 0.299 R + 0.587 G + 0.114 B.

    Raises:
        ImportError: If Pillow is not installed.
    """
    from sklearn.datasets import load_sample_image

    try:
        pictures = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    except ImportError as error:
        raise ImportError(
            "photographs are decoded by Pillow: pip install 'snnjax[data]'"
        ) from error
    return tuple(picture / 255.0 @ np.array([0.299, 0.587, 0.114]) for picture in pictures)


def angular_velocities(
    rng: np.random.Generator,
    *,
    timesteps: int,
    slowest: float = 0.5,
    fastest: float = 8.0,
    knot: int = 100,
) -> np.ndarray:
    """Draws a smooth random rotation: velocities at knots, linear in between.

        w(knot) = speed * direction,  speed ~ U(slowest, fastest), direction uniform on the sphere

    Args:
        rng: Generator of the draws.
        timesteps: T, in milliseconds.
        slowest: Least speed at a knot, in rad/s.
        fastest: Largest speed, in rad/s.
        knot: Distance of knots, in milliseconds.

    Returns:
        `[T, 3]` float64, rad/s about x, y and z of the camera; row t holds for millisecond t.

    Raises:
        ValueError: If a number is outside its range, or `slowest` exceeds `fastest`.
    """
    timesteps = whole_number("timesteps", timesteps, least=1)
    knot = whole_number("knot", knot, least=1)
    check_numbers("rotation.angular_velocities", least=0.0, slowest=slowest, fastest=fastest)
    if slowest > fastest:
        raise ValueError(f"slowest={slowest} exceeds fastest={fastest}: give them in order")
    count = -(-timesteps // knot) + 1
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    at_knots = rng.uniform(slowest, fastest, (count, 1)) * directions
    places = np.arange(timesteps) / knot
    return np.stack([np.interp(places, np.arange(count), axis) for axis in at_knots.T], axis=1)


def render(
    image: np.ndarray,
    velocity: np.ndarray,
    *,
    orientation: np.ndarray | None = None,
    height: int = 32,
    width: int = 32,
    field_of_view: float = math.radians(40),
    span: float = math.radians(90),
    contrast: float = 0.2,
    mismatch: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Events:
    """Renders the events of a camera that rotates before a photograph.

    Args:
        image: Photograph `[H, W]`, intensities of at least 0.
        velocity: `[T, 3]`, angular velocity in rad/s in the axes of the camera, a row for every
            millisecond.
        orientation: First pose, a rotation `[3, 3]` from the axes of the camera to those of the
            photograph; None looks at its center.
        height: Rows of the camera.
        width: Columns of the camera.
        field_of_view: Horizontal angle seen, in radians, below pi.
        span: Horizontal angle that the photograph fills, in radians.
        contrast: Threshold C of the logarithm of the intensity.
        mismatch: Standard deviation of the thresholds of pixels, relative to C; they stay above a
            tenth of it.
        rng: Generator of the mismatch; required if there is any.

    Returns:
        Events `[E, 4]` int32 in order of time: microseconds, column, row, polarity. The thresholds
        that a pixel has crossed reproduce its change of L to within one threshold.

    Raises:
        TypeError: If a number is none.
        ValueError: If a shape is wrong, a value is not finite, or an option is outside its range.
    """
    image, velocity = _checked(image, velocity)
    for name, side in (("height", height), ("width", width)):
        whole_number(name, side, least=2)
    owner = "rotation.render"
    check_numbers(owner, above=0.0, below=math.pi, field_of_view=field_of_view)
    check_numbers(owner, above=0.0, below=2 * math.pi, span=span)
    check_numbers(owner, above=0.0, contrast=contrast)
    check_numbers(owner, least=0.0, mismatch=mismatch)
    if mismatch and rng is None:
        raise ValueError("mismatch of pixels is random: give rng=np.random.default_rng(seed)")
    thresholds = np.full((height, width), float(contrast))
    if mismatch and rng is not None:
        thresholds *= np.maximum(1 + mismatch * rng.normal(size=thresholds.shape), 0.1)
    focal = width / 2 / math.tan(field_of_view / 2)
    rays = _rays(height, width, focal)
    image, scale = _reduced(image, span, 1 / focal)
    # No pixel moves by more than one pixel between two poses: at an angle a from the axis, rotation
    # by w moves one by at most f w / cos(a)^2.
    fastest = np.linalg.norm(velocity, axis=1).max()
    poses = max(1, math.ceil(fastest * focal * (rays**2).sum(-1).max() / 1000))
    turns = _poses(velocity, poses, np.eye(3) if orientation is None else orientation)
    views = (_log_intensity(image, rays @ turn.T, scale) for turn in turns)
    return _events(views, thresholds, _MILLISECOND / poses)


def _checked(image: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image, velocity = (np.asarray(array, np.float64) for array in (image, velocity))
    if image.ndim != 2 or min(image.shape) < 2 or not np.isfinite(image).all() or image.min() < 0:
        raise ValueError(
            f"a photograph is [H, W] of finite intensities from 0, got {list(image.shape)}: "
            "average colors, picture.mean(axis=-1) / 255"
        )
    if velocity.ndim != 2 or velocity.shape[1:] != (3,) or not len(velocity):
        raise ValueError(
            f"velocity is [T, 3], a row of rad/s for every millisecond, got {list(velocity.shape)}"
        )
    if not np.isfinite(velocity).all():
        raise ValueError("velocity is finite, in rad/s")
    return image, velocity


def _rays(height: int, width: int, focal: float) -> np.ndarray:
    """Directions `[H, W, 3]` of the pixels, with 1 along the optical axis."""
    x = (np.arange(width) - (width - 1) / 2) / focal
    y = (np.arange(height) - (height - 1) / 2) / focal
    return np.stack(np.broadcast_arrays(x, y[:, None], 1.0), axis=-1)


def _reduced(image: np.ndarray, span: float, pixel: float) -> tuple[np.ndarray, float]:
    """The photograph in blocks of about a camera's pixel, and its pixels per radian."""
    # A photograph much finer than the camera would alias: a pixel sees the mean of its solid angle.
    block = max(1, min(round(pixel * image.shape[1] / span), min(image.shape) // 2))
    height, width = (side // block for side in image.shape)
    blocks = image[: height * block, : width * block].reshape(height, block, width, block)
    return blocks.mean(axis=(1, 3)), image.shape[1] / (block * span)


def _poses(velocity: np.ndarray, poses: int, orientation: np.ndarray) -> np.ndarray:
    """Rotations `[T poses + 1, 3, 3]` from the axes of the camera to those of the photograph."""
    turns = [np.asarray(orientation, np.float64)]
    if turns[0].shape != (3, 3) or not np.allclose(turns[0] @ turns[0].T, np.eye(3), atol=1e-6):
        raise ValueError("orientation is a rotation [3, 3]: its rows are orthonormal")
    for step in velocity / (1000 * poses):
        turn = _rotation(step)
        for _ in range(poses):
            turns.append(turns[-1] @ turn)
    return np.stack(turns)


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation about a vector by its length (Rodrigues)."""
    x, y, z = vector
    angle, cross = np.linalg.norm(vector), np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # sinc is sin(pi x) / (pi x), and has no division by zero at rest.
    half = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.eye(3) + np.sinc(angle / np.pi) * cross + half * cross @ cross


def _orientation(rng: np.random.Generator) -> np.ndarray:
    """A random first pose within the photograph, at any roll."""
    pan, tilt = rng.uniform((-0.6, -0.35), (0.6, 0.35))
    roll = rng.uniform(-np.pi, np.pi)
    turns = [_rotation(np.array(v)) for v in ((0, pan, 0), (tilt, 0, 0), (0, 0, roll))]
    return turns[0] @ turns[1] @ turns[2]


def _log_intensity(image: np.ndarray, directions: np.ndarray, scale: float) -> np.ndarray:
    """Logarithm of the photograph along directions `[H, W, 3]`, bilinear."""
    x, y, z = np.moveaxis(directions, -1, 0)
    angles = (np.arctan2(y, np.hypot(x, z)), np.arctan2(x, z))
    lows, parts = [], []
    for angle, size in zip(angles, image.shape, strict=True):
        place = angle * scale + (size - 1) / 2
        # A triangle wave of period 2 (size - 1) mirrors the photograph at its edges.
        place = (size - 1) - np.abs(place % (2 * (size - 1)) - (size - 1))
        low = np.minimum(place.astype(np.int64), size - 2)
        lows.append(low)
        parts.append(place - low)
    (row, column), (v, u) = lows, parts
    top = (1 - u) * image[row, column] + u * image[row, column + 1]
    bottom = (1 - u) * image[row + 1, column] + u * image[row + 1, column + 1]
    return np.log(_DARK + (1 - v) * top + v * bottom)


def _events(views: Iterator[np.ndarray], thresholds: np.ndarray, interval: float) -> Events:
    """Events `[E, 4]` of log intensities `[H, W]` at poses `interval` microseconds apart."""
    reference = previous = next(views)
    columns: list[list[np.ndarray]] = [[np.empty(0, np.int64)] for _ in range(4)]
    for number, current in enumerate(views):
        crossed = np.trunc((current - reference) / thresholds)
        rows, places = np.nonzero(crossed)
        repeats = np.abs(crossed[rows, places]).astype(np.int64)
        # 1, 2, .. of each pixel: the levels that it crosses one after another.
        ends = np.repeat(np.cumsum(repeats), repeats)
        order = np.repeat(repeats, repeats) - (ends - np.arange(repeats.sum())) + 1
        y, x = np.repeat(rows, repeats), np.repeat(places, repeats)
        sign = np.sign(crossed[y, x])
        level = reference[y, x] + sign * order * thresholds[y, x]
        share = (level - previous[y, x]) / (current - previous)[y, x]
        # Rounding may put a crossing just outside; one at the very end belongs to this interval.
        time = (number + np.clip(share, 0, 1 - 1e-9)) * interval
        for column, values in zip(columns, (time, x, y, sign > 0), strict=True):
            column.append(values.astype(np.int64))
        reference, previous = reference + crossed * thresholds, current
    t, x, y, p = (np.concatenate(column) for column in columns)
    return as_events(t, x, y, p, height=len(thresholds), width=thresholds.shape[1], name="rendered")
