"""Pictures of redundancy: content, selection and errors."""

import numpy as np
import pytest

from snnjax import viz
from snnjax.redundancy._histogram import Bins, Histogram
from snnjax.redundancy.classes import classify
from tests.test_viz import words

T, H, W, C = 3, 4, 5, 20


def features(seed=0):
    return np.random.default_rng(seed).random((T, H, W, C)).astype(np.float32) ** 2


def distribution(mean, threshold=0.5):
    bins = Bins()
    edges = Histogram(np.zeros(len(bins)), bins, threshold).edges
    values = np.random.default_rng(0).normal(mean, 0.3, 1000)
    found = Histogram(np.histogram(values, edges)[0], bins, threshold)
    return viz.redundancy.Distribution(found.edges, found.counts, threshold, found.share_above)


def pictures():
    classes = classify(features().reshape(T, H * W, C))
    shares = {"lif3": {"null": 0.25, "normal": 0.5, "noise": 0.25}}
    return {
        "features": viz.redundancy.spike_features(features(), classes=classes, title="a $ b"),
        "no places": viz.redundancy.spike_features(features()[:, 0, 0]),
        "tokens": viz.redundancy.spike_features(features()[:, 0]),
        "distributions": viz.redundancy.distributions(
            {"a": distribution(0.2), "b": distribution(4.0)}
        ),
        "two": viz.redundancy.distributions(
            {"a": distribution(0.2)}, reference={"a": distribution(0.9)}
        ),
        "shares": viz.redundancy.class_shares(shares, title="shares"),
        "compared": viz.redundancy.rate_comparison([("lif3", 0.2, 0.0)], title="rates"),
    }


def test_every_picture_is_drawn_without_a_warning_and_repeats_byte_for_byte(tmp_path):
    again = pictures()
    for name, figure in pictures().items():
        assert figure.get_label(), name
        first = viz.save(figure, tmp_path / "a.png").read_bytes()
        assert first.startswith(b"\x89PNG")
        assert viz.save(again[name], tmp_path / "b.png").read_bytes() == first


def test_maps_stand_at_their_timestep_and_channels_by_their_rate():
    """Cuts the mosaic: each tile must be the map of its timestep and rank."""
    maps = features()
    image = viz.redundancy.spike_features(maps).axes[0].images[0].get_array()
    ranked = np.argsort(-maps.mean((0, 1, 2)))
    shown = ranked[np.linspace(0, C - 1, 12).round().astype(int)]
    for t in range(T):
        for place, channel in enumerate(shown):
            y, x = t * (H + 1), place * (W + 1)
            np.testing.assert_array_equal(image[y : y + H, x : x + W], maps[t, :, :, channel])
    said = words(viz.redundancy.spike_features(maps))
    assert "channel (12 of 20 shown), the busiest first" in said and str(shown[0]) in said


def test_frames_have_the_colour_of_the_class():
    from matplotlib.colors import to_hex

    classes = np.zeros((T, C), int)
    classes[1] = 2
    axis = viz.redundancy.spike_features(features(), classes=classes).axes[0]
    colours = [to_hex(p.get_edgecolor()) for p in axis.patches]
    assert colours[:12] == ["#b5b5b5"] * 12 and colours[12:24] == ["#d55e00"] * 12
    with pytest.raises(ValueError, match=r"classes must be \[T, C\] = \[3, 20\], got \[20, 3\]"):
        viz.redundancy.spike_features(features(), classes=classes.T)


def test_distributions_name_the_share_above_and_show_the_threshold():
    low, high = distribution(0.2), distribution(4.0)
    assert 0.1 < low.above < 0.2 and high.above == 1.0
    figure = viz.redundancy.distributions({"a": low, "b": high}, reference={"a": high})
    said = words(figure)
    assert f"{low.above:.2%} (before 100.00%) at or above the threshold" in said
    assert "before" in said and "after" in said
    first, second = figure.axes
    assert first.lines[0].get_xdata()[0] == 0.5
    assert first.get_xlim()[1] > 4.0 and second.get_xlim()[0] < 0.0


def test_distributions_without_a_threshold_or_any_mass():
    empty = viz.redundancy.Distribution(np.arange(4.0), np.zeros(3))
    figure = viz.redundancy.distributions({"own": empty})
    assert "threshold" not in words(figure) and "no threshold" in figure.get_label()
    assert (
        "8 of 9 shown"
        in viz.redundancy.distributions({str(i): empty for i in range(9)}).get_label()
    )


def test_shares_and_rates_are_bars_of_their_length():
    shares = {"a": {"null": 0.5, "normal": 0.5, "noise": 0.0},
              "b": {"null": 0.0, "normal": 0.25, "noise": 0.75}}  # fmt: skip
    figure = viz.redundancy.class_shares(shares)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [0.5, 0.0, 0.5, 0.25, 0.0, 0.75]
    assert "75%" in words(figure) and "0%" not in words(figure).replace("50%", "")
    bars = viz.redundancy.rate_comparison([("a", 0.2, 0.1), ("b", 0.0, 0.3)]).axes[0].patches
    assert [bar.get_width() for bar in bars] == [0.2, 0.0, 0.1, 0.3]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: viz.redundancy.spike_features(np.zeros((3,))), r"\[T, H, W, C\]"),
        (lambda: viz.redundancy.spike_features(np.zeros((0, 3))), "not empty"),
        (lambda: viz.redundancy.distributions({}), "no layers"),
        (lambda: viz.redundancy.class_shares({"a": {"null": 1.0}}), "null, normal, noise"),
        (lambda: viz.redundancy.class_shares({}), "there is one layer"),
        (lambda: viz.redundancy.rate_comparison([]), "none that correspond"),
    ],
)
def test_misfits_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
