"""Pictures: content, labels, no global state, and the HTML page."""

import html.parser
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import viz
from snnjax.viz import _style as style
from snnjax.viz.activity import frames

NAMES = ["encoder/lif1", "sequential2/stack0/block3/residual3/branch/grouped_plif2", "lif$7$"]


@pytest.fixture
def random():
    return np.random.default_rng(0)


def records(epochs=6):
    train = [{"kind": "train", "step": e, "epoch": e, "loss": 1 / e, "accuracy": 1 - 1 / e}
             for e in range(1, epochs)]  # fmt: skip
    evaluation = [{**r, "kind": "eval", "loss": abs(r["epoch"] - 3) + 0.5} for r in train]
    return [{"kind": "note", "text": "ignored"}, *train, *evaluation]


def pictures():
    random = np.random.default_rng(0)
    spikes = random.random((12, 300)) < 0.2
    return {
        "raster": viz.raster(spikes, title="a $ b"),
        "membranes": viz.membranes(random.random((12, 9)), threshold=1.0, spikes=spikes[:, :9]),
        "firing_rates": viz.firing_rates({name: 0.1 * i for i, name in enumerate(NAMES)}),
        "learning_curve": viz.learning_curve(records(), title="run"),
        "frames": frames(random.poisson(0.2, (20, 8, 8, 2)), title="events"),
    }


def words(figure) -> str:
    """All texts in a figure."""
    import matplotlib.text

    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


@pytest.mark.fast
def test_every_picture_is_drawn_without_a_warning_and_repeats_byte_for_byte(tmp_path):
    again = pictures()
    for name, figure in pictures().items():
        assert figure.get_label(), name
        first = viz.save(figure, tmp_path / "new" / f"{name}.png").read_bytes()
        assert first.startswith(b"\x89PNG")
        assert viz.save(again[name], tmp_path / f"{name}.png").read_bytes() == first


def test_matplotlib_comes_late_and_pyplot_never():
    code = """if True:
        import sys
        from snnjax import viz
        assert "matplotlib" not in sys.modules
        import matplotlib
        before = matplotlib.rcParams.copy()
        figure = viz.raster([[0, 1], [1, 0]])
        viz.page("", [("", "", figure)])
        assert "matplotlib.pyplot" not in sys.modules
        assert matplotlib.rcParams == before
    """
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("shape", [(5, 300), (1, 1), (3, 1), (1, 3), (400, 2)])
def test_raster_of_any_size_says_what_it_leaves_out(shape, random, tmp_path):
    spikes = random.random(shape) < 0.5
    figure = viz.raster(spikes)
    said = words(figure)
    assert ("200 of 300 shown" in said) == (shape[1] == 300)
    assert f"{spikes.mean():.3g} spikes per neuron and timestep" in said
    viz.save(figure, tmp_path / "raster.png")


def test_raster_draws_one_tick_per_spike(random):
    spikes = random.random((7, 9)) < 0.4
    (ticks,) = viz.raster(spikes).axes[0].collections
    seen = {(round(s[0][0]), round(s[:, 1].mean())) for s in ticks.get_segments()}
    assert seen == set(zip(*np.nonzero(spikes), strict=True))


def test_a_silent_network_can_be_drawn(tmp_path):
    silent = np.zeros((6, 4))
    for figure in (
        viz.raster(silent),
        viz.membranes(silent, threshold=1.0, spikes=silent),
        viz.firing_rates({"lif1": 0.0}),
        frames(np.zeros((2, 4, 4, 2))),
    ):
        viz.save(figure, tmp_path / "silent.png")
    assert "silent" in words(viz.firing_rates({"lif1": jnp.zeros(())}))


def test_membranes_mark_spikes_where_they_are_and_show_the_threshold():
    v, spikes = np.zeros((8, 30)), np.zeros((8, 30))
    spikes[[2, 5], 29] = 1
    figure = viz.membranes(v, threshold=0.7, spikes=spikes)
    assert len(figure.axes) == 4
    assert "4 of 30 shown" in words(figure)
    trace, line, marks = figure.axes[-1].lines
    np.testing.assert_array_equal(marks.get_xdata(), [2, 5])
    assert set(line.get_ydata()) == set(marks.get_ydata()) == {0.7}
    np.testing.assert_array_equal(trace.get_ydata(), v[:, 29])


def test_membranes_take_any_floating_type(tmp_path):
    viz.save(viz.membranes(jnp.ones((4, 2), jnp.bfloat16)), tmp_path / "half.png")


def test_firing_rates_keep_the_whole_names_in_order():
    figure = viz.firing_rates({name: 0.1 * i for i, name in enumerate(NAMES)})
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert [label.replace("\n", "") for label in labels] == NAMES
    assert max(len(line) for label in labels for line in label.split("\n")) <= 32
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0, 0.1, 0.2])


def test_learning_curve_names_the_best_and_the_last_evaluation():
    said = words(viz.learning_curve(records()))
    assert "eval: best 0.5 (epoch 3), last 2.5" in said
    assert "eval: best 0.8 (epoch 5), last 0.8" in said


def test_learning_curve_averages_records_of_one_epoch():
    lines = [{"kind": "train", "epoch": 1, "loss": x} for x in (1.0, 3.0)]
    (line,) = viz.learning_curve(lines).axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1.0], [2.0])


def test_learning_curve_survives_a_run_that_diverged(tmp_path):
    lines = [{"kind": "eval", "epoch": e, "loss": x, "accuracy": None}
             for e, x in ((1, 2.0), (2, None), (3, float("nan")))]  # fmt: skip
    figure = viz.learning_curve(lines)
    assert "best 2 (epoch 1), last 2, 2 not finite" in words(figure)
    assert figure.axes[0].get_xlim()[1] > 3
    viz.save(figure, tmp_path / "diverged.png")


def test_frames_colour_the_two_polarities_and_bear_a_faulty_pixel():
    images = np.zeros((3, 20, 20, 2))
    images[:, 1, 2, 0], images[:, 3, 4, 1] = 1, 1
    images[:, 6:, 6:] = 1
    images[0, 0, 0, 1] = 1e6
    colours = frames(images).axes[0].images[0].get_array()
    from matplotlib.colors import to_rgb

    np.testing.assert_allclose(colours[1, 2], to_rgb(style.VERMILION), atol=1e-6)
    np.testing.assert_allclose(colours[3, 4], to_rgb(style.BLUE), atol=1e-6)
    np.testing.assert_array_equal(colours[5, 5], 1)
    assert "8 of 20 frames shown" in words(frames(np.ones((20, 4, 4, 2))))


@pytest.mark.parametrize(
    ("draw", "shape", "message"),
    [
        (viz.raster, (3,), r"spikes must be \[T, N\]"),
        (viz.raster, (3, 2, 4), r"spikes must be \[T, N\]"),
        (viz.raster, (0, 4), "not empty"),
        (viz.membranes, (3, 2, 4), r"v must be \[T, N\]"),
        (frames, (3, 8, 8), r"images must be \[T, H, W, 2\]"),
        (frames, (3, 8, 8, 1), r"images must be \[T, H, W, 2\] .*got \[3, 8, 8, 1\]"),
    ],
)
def test_a_wrong_shape_is_an_error_that_names_the_right_one(draw, shape, message):
    with pytest.raises(ValueError, match=message):
        draw(np.zeros(shape))


def test_other_errors_say_what_is_missing():
    with pytest.raises(ValueError, match=r"spikes must be \[4, 2\]"):
        viz.membranes(np.zeros((4, 2)), spikes=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="taps"):
        viz.firing_rates({})
    with pytest.raises(ValueError, match="lif1"):
        viz.firing_rates({"lif1": np.zeros(3)})
    with pytest.raises(ValueError, match="nothing to draw"):
        viz.learning_curve([{"kind": "train", "step": 1}])


class Reader(html.parser.HTMLParser):
    """Collects tags and text, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_page_holds_everything_and_escapes_what_it_is_given():
    evil = '<script src="x">&'
    figure = viz.raster(np.eye(3))
    figure.set_label(evil)
    page = viz.page(evil, [(evil, f"one\n\n{evil}", figure), ("no picture", "", None)])
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert reader.text.count(evil) == 4
    images = [attrs for tag, attrs in reader.tags if tag == "img"]
    assert [i["alt"] for i in images] == [evil]
    assert all(i["src"].startswith("data:image/png;base64,iVBOR") for i in images)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe"}
    assert "http" not in page and "url(" not in page
    assert "prefers-color-scheme: dark" in page
