"""Rendered events of a rotating camera, against closed forms on photographs of one gradient."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from snnjax import data, encoding
from snnjax.data import rotation

pytestmark = pytest.mark.fast
SIZE = {"height": 5, "width": 5, "field_of_view": 0.02, "span": 1.2}
STEEP = 3.0  # change of L per radian


def gradient(axis):
    """Photograph with L = ln(0.01 + intensity) linear in the angle along an axis, 1,200 pixels."""
    angle = (np.arange(1200) - 599.5) * 1.2 / 1200
    ramp = np.exp(STEEP * angle) - 0.01
    return np.broadcast_to(ramp if axis else ramp[:, None], (1200, 1200))


def constant(axis, speed, timesteps=100):
    velocity = np.zeros((timesteps, 3))
    velocity[:, axis] = speed
    return velocity


@pytest.mark.parametrize(
    ("axis", "along", "polarity"),
    # Pan looks to the right, where the photograph is brighter; tilt up, where it is darker.
    [(1, 1, 1), (0, 0, 0)],
)
def test_pan_and_tilt_fire_at_the_times_of_the_closed_form(axis, along, polarity):
    speed, contrast = 2.0, 0.05
    events = rotation.render(gradient(along), constant(axis, speed), contrast=contrast, **SIZE)
    # L changes by 3 * 2 * 0.1 = 0.6: twelve thresholds, the last one at the very end.
    center = events[(events[:, 1] == 2) & (events[:, 2] == 2)]
    expected = 1e6 * contrast * np.arange(1, 12) / (STEEP * speed)
    assert (events[:, 3] == polarity).all()
    np.testing.assert_allclose(center[:11, 0], expected, atol=15)  # microseconds of 8,333


def test_roll_turns_the_right_side_down():
    wide = SIZE | {"field_of_view": 0.4}
    events = rotation.render(gradient(0), constant(2, 4.0), contrast=0.02, **wide)
    for x, polarity in ((0, 0), (4, 1)):
        side = events[(events[:, 1] == x) & (events[:, 2] == 2)]
        assert len(side) > 3 and (side[:, 3] == polarity).all()
    assert not ((events[:, 1] == 2) & (events[:, 2] == 2)).any()  # the axis


@pytest.mark.parametrize("velocity", [(0.0, 3.0, 0.0), (2.0, -1.0, 0.0), (0.5, 0.5, 6.0)])
def test_the_true_rotation_aligns_the_events(velocity):
    """Contrast maximization: events turned back by the true velocity fall onto edges."""
    image = np.random.default_rng(3).uniform(0, 1, (24, 36))
    velocity, side, angle = np.array(velocity), 24, 0.7
    events = rotation.render(
        image, np.tile(velocity, (60, 1)), height=side, width=side, field_of_view=angle
    )
    focal, middle = side / 2 / np.tan(angle / 2), (side - 1) / 2
    x, y = (events[:, 1] - middle) / focal, (events[:, 2] - middle) / focal
    rays = np.stack([x, y, np.ones_like(x)], axis=1)

    def sharpness(guess):
        turns = Rotation.from_rotvec(events[:, :1] * 1e-6 * guess)
        back = turns.apply(rays)
        places = np.round(focal * back[:, :2] / back[:, 2:] + 40).astype(int)
        counts = np.zeros((80, 80))
        inside = (abs(places - 40) < 40).all(axis=1) & (back[:, 2] > 0)
        np.add.at(counts, tuple(places[inside].T), 2 * events[inside, 3] - 1)
        return (counts**2).sum()

    wrong = [0 * velocity, -velocity, 0.6 * velocity, 1.4 * velocity, velocity[::-1] + 1]
    assert sharpness(velocity) > 1.1 * max(map(sharpness, wrong))


def test_a_camera_at_rest_sees_nothing_and_a_faster_one_more():
    image = np.random.default_rng(0).uniform(0, 1, (12, 16))
    counts = [
        len(rotation.render(image, constant(1, speed, 50), height=8, width=8))
        for speed in (0.0, 1.0, 4.0)
    ]
    assert counts[0] == 0 and 10 < 2 * counts[1] < counts[2]


def test_events_reproduce_the_change_of_each_pixel():
    rng = np.random.default_rng(1)
    image = rng.uniform(0, 1, (40, 60))
    velocity = rotation.angular_velocities(rng, timesteps=60, knot=20)
    small = {"height": 9, "width": 12, "field_of_view": 0.6}
    coarse, fine = (
        rotation.render(image, velocity, contrast=contrast, **small) for contrast in (0.3, 0.003)
    )

    def change(events, contrast):
        sums = np.zeros((9, 12))
        np.add.at(sums, (events[:, 2], events[:, 1]), contrast * (2 * events[:, 3] - 1))
        return sums

    np.testing.assert_array_less(np.abs(change(coarse, 0.3) - change(fine, 0.003)), 0.303)
    assert np.abs(change(fine, 0.003)).max() > 0.5
    assert (np.diff(fine[:, 0]) >= 0).all() and fine[-1, 0] < 60_000


def test_mismatch_moves_thresholds_and_needs_a_generator():
    image, velocity = gradient(1), constant(1, 2.0)
    with pytest.raises(ValueError, match=r"rng=np\.random\.default_rng"):
        rotation.render(image, velocity, mismatch=0.2, **SIZE)
    draw = lambda seed: rotation.render(  # noqa: E731
        image, velocity, contrast=0.03, mismatch=0.2, rng=np.random.default_rng(seed), **SIZE
    )
    np.testing.assert_array_equal(draw(0), draw(0))
    counts = np.bincount(draw(0)[:, 2] * 5 + draw(0)[:, 1], minlength=25)
    assert counts.min() < 0.6 / 0.03 < counts.max()


def test_a_data_set_is_a_function_of_its_seed():
    pytest.importorskip("PIL")
    small = {"timesteps": 20, "height": 8, "width": 8}
    first = rotation.dataset(train=2, test=1, seed=3, **small)
    again = rotation.dataset(train=3, test=1, seed=3, **small)
    other = rotation.dataset(train=2, test=1, seed=4, **small)
    assert first.train.labels.shape == (2, 20, 3) and first.classes == 0
    for i in range(2):
        np.testing.assert_array_equal(first.train.inputs[i], again.train.inputs[i])
        assert not np.array_equal(first.train.labels[i], other.train.labels[i])
    speed = np.linalg.norm(first.train.labels[:, 0], axis=-1)
    assert (speed > 0.5).all() and (speed < 8).all()
    dense = data.dense(
        first,
        lambda events: encoding.events.frames_by_time(
            events, timesteps=20, start=0, duration=20_000, height=8, width=8
        ),
    )
    assert dense.train.inputs.shape == (2, 20, 8, 8, 2)
    assert [frames.sum() for frames in dense.train.inputs] == list(map(len, first.train.inputs))


def test_held_out_photographs():
    dark, bright = np.zeros((9, 9)), np.random.default_rng(0).uniform(0, 1, (9, 9))
    dataset = rotation.dataset(
        train=1, test=1, timesteps=20, height=4, width=4, images=[dark], test_images=[bright]
    )
    assert len(dataset.train.inputs[0]) == 0 < len(dataset.test.inputs[0])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"image": np.zeros((4, 4, 3))}, r"average colors, picture\.mean"),
        ({"image": -np.ones((4, 4))}, "finite intensities from 0"),
        ({"velocity": np.zeros(3)}, r"\[T, 3\]"),
        ({"velocity": np.full((2, 3), np.nan)}, "finite, in rad/s"),
        ({"orientation": np.ones((3, 3))}, "rows are orthonormal"),
        ({"field_of_view": 40.0}, "field_of_view"),
        ({"contrast": 0.0}, "contrast"),
        ({"height": 1}, "height is at least 2"),
    ],
)
def test_wrong_arguments(arguments, match):
    usual = {"image": np.ones((4, 4)), "velocity": np.zeros((2, 3))}
    with pytest.raises(ValueError, match=match):
        rotation.render(**(usual | arguments))


def test_wrong_speeds():
    with pytest.raises(ValueError, match="in order"):
        rotation.angular_velocities(np.random.default_rng(0), timesteps=3, slowest=2, fastest=1)
