"""A network as functions: a window equals evaluation, streaming equals the window by frames."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from snnjax import encoding, export, models, nn
from snnjax.export import functions
from tests.export import cases


def test_the_weights_are_all_that_an_answer_depends_on(source):
    named = functions.named_weights(source)
    leaves = jax.tree.leaves((source.network, source.statistics))
    assert len(named) == len(leaves) and sum(x.size for x in named.values()) == sum(
        x.size for x in leaves
    )
    assert {"statistics.1.mean", "body.layers.0.function.kernel"} <= set(named)


def test_frames_have_a_shape_before_anything_is_computed(source):
    frames = functions.frame_shape(source)
    assert frames.shape == (cases.T, *cases.SHAPE) and frames.dtype == jnp.float32


@pytest.mark.parametrize("batch", [1, 5])
def test_a_window_is_evaluation_bit_for_bit(source, window, batch):
    given = cases.examples(batch)
    np.testing.assert_array_equal(export.load(window)(given), cases.answer(source, given))


def test_the_running_statistics_take_part(source, window):
    """Guards the test above: a network exported with initial statistics would pass it."""
    fresh = source.network.initial_state(1).statistics
    other = cases.source(source.network, statistics=fresh)
    given = cases.examples(5)
    assert float(jnp.abs(cases.answer(other, given) - export.load(window)(given)).max()) > 1e-3


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """Source whose sums are exact in float32 in any order, and its streaming artifact."""
    net = cases.dyadic(cases.network(seed=2, decay=0.5))
    # A norm that divides by a power of two; without its epsilon no product is rounded.
    norm = nn.BatchNorm(6, epsilon=0.0)
    net = nn.Network(nn.Sequential(net.body.layers[0], norm, *net.body.layers[2:]), cases.SHAPE)
    statistics = net.initial_state(1).statistics
    unit = jax.tree.map(lambda x: jnp.full_like(x, 0.25), statistics)
    source = cases.source(net, statistics=unit)
    path = tmp_path_factory.mktemp("exact") / "streaming"
    return source, export.load(export.save(path, source, streaming=True))


def test_streaming_is_the_window_bit_for_bit_where_sums_are_exact(exact):
    """Only the order of summation may differ."""
    source, artifact = exact
    given = cases.examples(5)
    window = cases.answer(source, given)
    assert float(jnp.abs(window).max()) > 0.1
    np.testing.assert_array_equal(cases.stream(artifact, given), window)


def test_streaming_is_the_window_to_rounding(source, streaming):
    given = cases.examples(5)
    found, expected = cases.stream(export.load(streaming), given), cases.answer(source, given)
    # One unit in the last place of the largest term, for each of the 96 terms of a sum.
    bound = 96 * 2**-24 * float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def test_the_state_is_carried(exact):
    """A second pass over the frames, from the final state of the first, differs from it."""
    _, artifact = exact
    frame = cases.frames_of(cases.examples(2))[0]
    rest = artifact.initial_state(2)
    after, first = artifact(rest, frame)
    _, second = artifact(after, frame)
    assert set(after) == set(rest) == {"2.v", "5.v"}
    assert float(jnp.abs(first - second).max()) > 0


def test_streams_side_by_side_do_not_meet(exact):
    _, artifact = exact
    frame = cases.frames_of(cases.examples(4))[0]
    _, together = artifact(artifact.initial_state(4), frame)
    alone = [artifact(artifact.initial_state(1), frame[i : i + 1])[1] for i in range(4)]
    np.testing.assert_array_equal(together, jnp.concatenate(alone))


def stacked(rngs):
    block = lambda rngs: nn.Residual(nn.Sequential(nn.Linear(4, 4, rngs=rngs), nn.LIF()))  # noqa: E731
    return nn.Sequential(nn.Stacked(block, 3, rngs=rngs), nn.Linear(4, cases.K, rngs=rngs))


def test_stacked_blocks_at_rest_have_their_batch_axis_behind_depth(tmp_path):
    net = nn.Network(stacked(nnx.Rngs(0)), (4,))
    encode = functools.partial(encoding.direct, timesteps=2)
    example = jax.ShapeDtypeStruct((4,), jnp.float32)
    source = cases.source(net, encode=encode, example=example)
    artifact = export.load(export.save(tmp_path / "a", source, streaming=True))
    ((name, leaf),) = artifact.manifest["state"].items()
    assert leaf == {"shape": [3, 1, 4], "dtype": "float32", "batch_axis": 1}, name
    assert artifact.initial_state(5)[name].shape == (3, 5, 4)
    given = np.linspace(0, 2, 20, dtype=np.float32).reshape(5, 4)
    state, outputs = artifact.initial_state(5), []
    for frame in (given, given):
        state, one = artifact(state, frame)
        outputs.append(one)
    expected = cases.answer(source, given)
    np.testing.assert_allclose(np.mean(outputs, 0), expected, rtol=1e-6, atol=1e-6)


def test_a_layer_that_needs_its_window_is_refused_with_the_reason(tmp_path):
    body = nn.Sequential(nn.ASA(cases.T, rngs=nnx.Rngs(0)), nn.Flatten())
    net = nn.Network(body, (4, 4, 2))
    example = jax.ShapeDtypeStruct((4, 4, 2), jnp.uint8)
    source = cases.source(net, example=example)
    with pytest.raises(export.ArtifactError, match=r"tiny cannot run one frame .*ASA needs its"):
        export.save(tmp_path / "a", source, streaming=True)
    assert not list(tmp_path.iterdir())


class Image(nnx.Module):
    """Layer that treats a frame as an image and has one output per column."""

    def __init__(self, columns):
        self.columns = columns

    def initial_state(self, shape):
        return nn.State()

    def __call__(self, inputs, state, call):
        steps = self.columns if len(inputs) == 1 else len(inputs)
        return jnp.broadcast_to(inputs[:1], (steps, *inputs.shape[1:])), nn.Aux()


def test_a_frame_that_would_be_taken_for_an_image_is_refused(tmp_path):
    net = nn.Network(nn.Sequential(Image(cases.T), nn.Flatten()), cases.SHAPE)
    with pytest.raises(export.ArtifactError, match="one output for each frame.*--streaming"):
        export.save(tmp_path / "a", cases.source(net), streaming=True)


@pytest.mark.slow
@pytest.mark.parametrize("heads", ["deep", "plain"])
def test_columns_that_are_different_at_each_timestep_are_refused(tmp_path, heads):
    """One column per timestep: a single frame is not a step."""
    make = lambda: models.t_revsnn(  # noqa: E731
        channels=(3, 4, 4, 4), classes=cases.K, columns=cases.T, input_shape=(8, 8, 1),
        stem=((3, 1),), kernel=3, heads=heads, rngs=nnx.Rngs(0),
    )  # fmt: skip
    net = jax.eval_shape(make)  # nothing of it is run
    example = jax.ShapeDtypeStruct((8, 8, 1), jnp.uint8)
    source = cases.source(cases.network(), example=example)
    source = dataclasses.replace(source, network=net)
    with pytest.raises(export.ArtifactError, match="needs its whole window.*--streaming"):
        export.save(tmp_path / "a", source, streaming=True)


def test_a_network_that_needs_to_know_its_batch_is_told_the_option(tmp_path):
    def encode(given):
        order = np.argsort(np.zeros(given.shape[0]))  # NumPy needs a number
        return cases.encode(given[order])

    source = cases.source(encode=encode)
    with pytest.raises(export.ArtifactError, match="batch of any size: fix it by --batch N"):
        export.save(tmp_path / "a", source)
    artifact = export.load(export.save(tmp_path / "b", source, batch=3))
    given = cases.examples(3)
    np.testing.assert_array_equal(artifact(given), cases.answer(source, given))


def test_a_mistake_in_the_network_is_not_blamed_on_the_batch(tmp_path):
    source = cases.source(readout=lambda outputs: outputs.no_such_thing)
    with pytest.raises(AttributeError, match="no_such_thing"):
        export.save(tmp_path / "a", source)
