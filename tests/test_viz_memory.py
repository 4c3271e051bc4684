"""The memory picture: axes, units and omitted rows."""

import numpy as np
import pytest

from snnjax import viz
from snnjax.viz import _style as style
from tests.test_viz import words

SLOPES = {"depth=store": 9e6, "depth=recompute(1)": 3e6, "depth=reverse": 0}


def rows(depths=(4, 8, 16), timesteps=(4,), slopes=SLOPES):
    return [
        {"strategy": name, "depth": d, "timesteps": t, "refused": None,
         "temp_bytes": slope * d * t + 1e7, "total_bytes": slope * d * t + 5e7}
        for t in timesteps for d in depths for name, slope in slopes.items()
    ]  # fmt: skip


def lines(axis):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines]


@pytest.mark.fast
def test_one_line_per_strategy_against_depth_from_zero():
    figure = viz.memory_curve(rows(), title="net")
    (axis,) = figure.axes
    stored, _, reversed_ = lines(axis)
    assert stored == ([4, 8, 16], [154, 298, 586])
    assert reversed_ == ([4, 8, 16], [10, 10, 10])
    assert axis.get_ylim()[0] == 0
    said = words(figure)
    assert all(name in said for name in SLOPES)
    assert "temporary memory (MB)" in said and "4 timesteps" in said and "586" in said
    assert "depth=store 586" in figure.get_label()


def test_two_panels_where_both_vary_each_at_the_largest_of_the_other():
    figure = viz.memory_curve(rows(timesteps=(2, 8)))
    deep, long = figure.axes
    assert lines(deep)[0] == ([4, 8, 16], [298, 586, 1162])
    assert lines(long)[0] == ([2, 8], [298, 1162])
    assert "8 timesteps" in words(figure) and "depth 16" in words(figure)


def test_a_panel_stands_where_most_was_measured():
    """A run that was stopped has few rows at the largest value."""
    some = rows(timesteps=(4, 8))[:10]
    deep, _ = viz.memory_curve(some).axes
    assert lines(deep)[0][0] == [4, 8, 16]
    assert "4 timesteps" in words(viz.memory_curve(some))


def test_against_timesteps_alone_and_without_a_depth():
    some = [{**row, "depth": None} for row in rows(depths=(4,), timesteps=(2, 4))]
    (axis,) = viz.memory_curve(some, quantity="total_bytes").axes
    assert axis.get_xlabel() == "timesteps" and lines(axis)[0] == ([2, 4], [122, 194])
    assert axis.get_ylabel() == "memory in all (MB)"


def test_bars_where_nothing_varies():
    figure = viz.memory_curve(rows(depths=(4,)), title="net")
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([154, 58, 10])
    assert "depth 4, 4 timesteps" in words(figure)


def test_refused_strategies_are_left_out():
    some = [row | ({"temp_bytes": None} if "reverse" in row["strategy"] else {}) for row in rows()]
    figure = viz.memory_curve(some)
    assert len(figure.axes[0].lines) == 2 and "reverse" not in words(figure)
    with pytest.raises(ValueError, match="none holds temp_bytes"):
        viz.memory_curve([row | {"temp_bytes": None} for row in some])
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.memory_curve([])


def test_lines_on_each_other_can_all_be_seen_and_their_number_stands_once():
    same = {"depth=reverse": 0, "as written": 0, "depth=store": 1e6}
    figure = viz.memory_curve(rows(slopes=same))
    under, over, apart = figure.axes[0].lines
    assert under.get_linewidth() > over.get_linewidth() == apart.get_linewidth()
    numbers = {t.get_text(): t.get_color() for t in figure.axes[0].texts}
    assert numbers.pop("10") == style.INK
    assert sorted(numbers) == ["4 timesteps", "74"]


def test_numbers_at_the_ends_do_not_touch():
    close = {"a": 9e6, "b": 8.9e6, "c": 8.8e6}
    axis = viz.memory_curve(rows(slopes=close)).axes[0]
    heights = sorted(t.xy[1] for t in axis.texts if t.get_text() != "4 timesteps")
    assert np.diff(heights).min() >= 0.069 * axis.get_ylim()[1]


@pytest.mark.parametrize(
    ("largest", "unit"), [(9e3, "bytes"), (5e4, "kB"), (5e6, "kB"), (4e9, "MB"), (4e11, "GB")]
)
def test_the_unit_leaves_a_few_digits(largest, unit, tmp_path):
    some = [{"strategy": "a", "depth": d, "temp_bytes": largest * d / 8} for d in (2, 3, 4, 8)]
    figure = viz.memory_curve(some)
    assert f"({unit})" in words(figure)
    first = viz.save(figure, tmp_path / "a.png").read_bytes()
    assert viz.save(viz.memory_curve(some), tmp_path / "b.png").read_bytes() == first


def test_depths_close_together_do_not_write_over_each_other():
    (axis,) = viz.memory_curve(rows(depths=(2, 3, 4, 8, 64))).axes
    assert list(axis.get_xticks()) == [4, 8, 64]


def test_many_strategies_are_told_apart():
    many = {f"depth=recompute({n})": n * 1e6 for n in range(1, 15)}
    looks = {(line.get_color(), line.get_marker()) for line in viz.memory_curve(
        rows(slopes=many)).axes[0].lines}  # fmt: skip
    assert len(looks) == 14
