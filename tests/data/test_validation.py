"""Wrong numbers are refused where a data set is made: range before cast, finite, equal splits."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnjax import data
from snnjax.data._recordings import as_events

X = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
Y = np.array([0, 1, 2, 0, 1, 2])
REFUSED = (TypeError, ValueError)


def _changed(array, value, *, dtype=None, place=(3, 1, 0, 0)):
    array = array.astype(dtype or array.dtype)
    array[place] = value
    return array


INPUTS = {
    "NaN": (_changed(X, np.nan, dtype=np.float32), r"inputs\[3, 1, 0, 0\] is nan"),
    "infinite": (_changed(X, -np.inf, dtype=np.float16), r"inputs\[3, 1, 0, 0\] is -inf"),
    "NaN in bfloat16": (_changed(X, np.nan, dtype=jnp.bfloat16), r"is nan"),
    "beyond float32": (_changed(X, 1e39, dtype=np.float64), "1e.39: every value must be finite"),
    "beyond int32": (_changed(X, 2**31, dtype=np.int64), "2147483648: integers must fit 32"),
    "below int32": (_changed(X, -(2**31) - 1, dtype=np.int64), "must fit 32"),
    "beyond uint32": (_changed(X, 2**32, dtype=np.uint64), "must fit 32"),
    "masked": (np.ma.masked_equal(X, 3), r"masked array: fill the gaps, values.filled\(0\)"),
    "objects": (np.array([None, *map(tuple, Y[:5, None])], dtype=object), r"list\(inputs\)"),
    "text": (X.astype("U"), "as a tuple"),
    "bytes": (X.astype("S"), "must be real numbers"),
    "complex": (X.astype(np.complex64), "z.real, z.imag"),
    "times": (X.astype("M8[s]"), "must be real numbers"),
    "one number": (np.float32(3), "no axis of examples"),
    "no numbers": (np.zeros((6, 0, 2)), "without a single number"),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_inputs_that_are_no_data_are_refused(name, split):
    wrong, match = INPUTS[name]
    inputs = (wrong, X) if split == "train" else (X, wrong)
    with pytest.raises(REFUSED, match=match):
        data.from_arrays(inputs[0], Y, inputs[1], Y)


LABELS = {
    "beyond 32 bits": (_changed(Y, 2**32 + 1, place=2), "beyond 32 bits: number them from"),
    "below 32 bits": (_changed(Y, -(2**32) + 1, place=2), "beyond 32 bits"),
    "beyond 64 bits": (_changed(Y, 2**64 - 1, dtype=np.uint64, place=2), "beyond 32 bits"),
    "near 2^31": (_changed(Y, 2**31 - 2, place=2), "numbers of something else than classes"),
    "negative": (_changed(Y, -1, place=2), "count classes from zero"),
    "fractional": (Y + 0.5, "must be integers"),
    "whole floats": (Y.astype(np.float64), r"astype\('int32'\)"),
    "bool": (Y > 0, "must be integers"),
    "text": (Y.astype("U"), "numpy.unique"),
    "objects": (Y.astype(object), "must be integers"),
    "masked": (np.ma.masked_equal(Y, 1), "masked array"),
    "complex": (Y + 0j, "must be integers"),
    "one hot": (np.eye(3)[Y], "argmax"),
    "rows of integers": (np.eye(3, dtype=int)[Y], "argmax"),
    "NaN targets": (_changed(np.ones((6, 1)), np.nan, place=2), r"targets\[2, 0\] is nan"),
    "targets beyond float32": (_changed(np.ones((6, 1)), 1e39, place=2), "finite in float32"),
    "ragged": ([[0], [1, 2], 3, 4, 5, 6], "different lengths"),
}


@pytest.mark.fast
@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_no_classes_are_refused(name):
    wrong, match = LABELS[name]
    with pytest.raises(REFUSED, match=match):
        data.from_arrays(X, wrong, X, wrong)


@pytest.mark.fast
def test_labels_and_groups_are_kept_as_32_bits():
    split = data.Split(X, Y.astype(np.uint64), Y.astype(np.int64))
    assert split.labels.dtype == split.groups.dtype == np.int32
    np.testing.assert_array_equal(split.labels, Y)
    targets = data.Split(X, np.linspace(0, 1, 12).reshape(6, 2))
    assert targets.labels.dtype == np.float32
    with pytest.raises(TypeError, match="groups must be integers"):
        data.Split(X, Y, np.array(list("aabbcc")))
    with pytest.raises(ValueError, match="beyond 32 bits"):
        data.Split(X, Y, Y + 2**32)


@pytest.mark.fast
def test_splits_differ_in_nothing_but_their_examples():
    floats = X.astype(np.float32)
    with pytest.raises(ValueError, match="training inputs are uint8, test inputs float32"):
        data.from_arrays(X, Y, floats, Y)
    with pytest.raises(ValueError, match="training inputs are float32, test inputs float64"):
        data.from_arrays(floats, Y, X.astype(np.float64), Y)
    with pytest.raises(ValueError, match=r"training inputs have shape \(2, 2, 1\)"):
        data.from_arrays(X, Y, X[:, :1], Y)
    dataset = data.from_arrays(X, Y, X, Y)
    split = data.Split(X / np.float32(255), Y)
    with pytest.raises(ValueError, match="convert both to one dtype"):
        dataclasses.replace(dataset, test=split)
    people = data.Split(X, Y, Y)
    with pytest.raises(ValueError, match=r"group 0 is in both splits \(3 groups are\)"):
        dataclasses.replace(dataset, train=people, test=people)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"scale": np.nan}, "positive factor"),
        ({"scale": 0.0}, "positive factor"),
        ({"scale": -1.0}, "positive factor"),
        ({"scale": np.inf}, "positive factor"),
        ({"class_names": ("a", "b", "a")}, "two classes are named 'a'"),
        ({"class_names": ("a", "b")}, "3 classes but 2 class names"),
        ({"classes": 2.0}, "classes is a whole number"),
        ({"classes": True}, "classes is a whole number"),
        ({"classes": -1}, "classes is at least 0"),
        ({"input_shape": (3, 1)}, "not that of inputs"),
        ({"input_shape": (2, 2, 0)}, "at least 1"),
        ({"input_shape": (2, 2.0, 1)}, "whole number"),
    ],
)
def test_a_description_that_is_not_that_of_the_arrays_is_refused(changed, match):
    dataset = data.from_arrays(X, Y, X, Y)
    with pytest.raises(REFUSED, match=match):
        dataclasses.replace(dataset, **changed)


@pytest.mark.fast
def test_class_names_are_a_sequence():
    for wrong in ("abc", (1, 2, 3)):
        with pytest.raises(TypeError, match="sequence of names"):
            data.from_arrays(X, Y, X, Y, class_names=wrong)


def test_a_mapped_array_is_validated_without_reading_it_into_memory(tmp_path):
    mapped = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(40, 1 << 20)
    )
    mapped[:] = 1
    tracemalloc.start()
    split = data.Split(mapped, np.zeros(40, int))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(split.inputs, np.memmap) and peak < mapped.nbytes / 4
    mapped[33, 7] = np.inf
    with pytest.raises(data.CorruptDataError, match=r"inputs\[33, 7\] is inf"):
        data.Split(mapped, np.zeros(40, int))


# --- events


def _columns(**changed):
    columns = {"t": [3, 1, 2], "x": [0, 1, 2], "y": [2, 1, 0], "p": [0, 1, 0]} | changed
    return {name: np.array(values) for name, values in columns.items()}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"t": [-1, 1, 2]}, "negative time or pixel"),
        ({"x": [-1, 1, 2]}, "negative time or pixel"),
        ({"y": [0, 1, -2]}, "negative time or pixel"),
        ({"p": [0, -1, 1]}, "polarity of -1.*write p > 0"),
        ({"t": [0, 2**32 + 1, 0]}, "times up to 4294967297 us"),
        ({"t": np.array([0, 2**63 + 1, 0], np.uint64)}, "times up to 9223372036854775809 us"),
        ({"x": [0, 2**32, 0]}, "column 4294967296"),
        ({"p": [0, 2**32, 1]}, "polarity of 4294967296"),
        ({"t": [0.5, 1, 2]}, "column of float64.*1e6"),
        ({"t": [0, 1, np.nan]}, "column of float64"),
        ({"x": ["0", "1", "2"]}, "column of"),
        ({"t": [0, 1]}, "not one length"),
    ],
)
def test_columns_that_are_no_events_are_refused(changed, match):
    with pytest.raises(REFUSED, match=match):
        as_events(**_columns(**changed), height=3, width=3, name="one")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (np.array([[0, 3, 0, 0]]), "recording 1 has events up to column 3"),
        (np.array([[0, 0, 0, 2]]), "recording 1 has a polarity of 2"),
        (np.array([[2**31, 0, 0, 0]]), "recording 1 has times up to"),
        (np.array([[0.5, 0, 0, 0]]), "recording 1 has a column of float64"),
        (np.array([[np.nan, 0, 0, 0]]), r"inputs\[1\]\[0, 0\] is nan"),
        (np.zeros((3, 3), int), r"recording 1 must be \[E, 4\]"),
        (np.ma.masked_equal(np.zeros((3, 4), int), 1), "masked array"),
        (np.array([["0", "0", "0", "0"]]), "must be real numbers"),
    ],
)
def test_recordings_of_a_user_are_validated(wrong, match):
    right = np.array([[5, 0, 0, 1], [3, 1, 2, 0]])
    good = data.from_arrays([right], [0], [right], [0], input_shape=(3, 3, 2))
    np.testing.assert_array_equal(good.train.inputs[0], right[::-1])
    assert good.train.inputs[0].dtype == np.int32
    with pytest.raises(REFUSED, match=match):
        data.from_arrays([right, wrong], [0, 1], [right], [0], input_shape=(3, 3, 2))


# --- what is made of a data set


def _recordings():
    events = np.array([[0, 0, 0, 0], [5, 1, 1, 1]])
    return data.from_arrays([events] * 2, [0, 1], [events], [1], input_shape=(2, 2, 2))


@pytest.mark.fast
def test_frames_of_two_dtypes_are_not_cast():
    made = iter([np.zeros((1, 2), np.uint8), np.full((1, 2), 0.5, np.float32)])
    with pytest.raises(ValueError, match="recording 1 gave float32 frames, the ones before it u"):
        data.dense(_recordings(), lambda events: next(made))
    lazy = data.map_inputs(_recordings(), lambda e, rng: np.ones(2, np.uint8 if rng else np.int64))
    np.testing.assert_array_equal(lazy.train.inputs.batch(np.array([0, 1])), 1)
    kinds = iter([np.uint8, np.uint8, np.float32])
    lazy = data.map_inputs(_recordings(), lambda e, rng: np.ones(2, next(kinds)))
    with pytest.raises(ValueError, match="one dtype"):
        lazy.train.inputs.batch(np.array([0, 1]))


@pytest.mark.fast
def test_frames_on_disk_are_replaced_only_when_all_are_written(tmp_path):
    def frames(events):
        return np.full((1, 2), 7, np.uint8)

    first = data.dense(_recordings(), frames, directory=tmp_path)
    again = data.dense(first, lambda x: x + np.uint8(1), directory=tmp_path)
    np.testing.assert_array_equal(first.train.inputs, 7)
    np.testing.assert_array_equal(again.train.inputs, 8)

    def fails(events):
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        data.dense(_recordings(), fails, directory=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "arrays-train.npy"), 8)


@pytest.mark.fast
def test_options_of_batches_are_whole_numbers():
    split = data.Split(X, Y)
    for wrong in (
        {"batch_size": 2.0},
        {"batch_size": True},
        {"batch_size": 0},
        {"seed": 0.5},
        {"seed": -1},
        {"seed": 2**64},
    ):
        with pytest.raises(REFUSED, match=next(iter(wrong))):
            data.Loader(split, **({"batch_size": 2} | wrong))
    loader = data.Loader(split, batch_size=2)
    for wrong in (-1, 1.5, np.nan):
        with pytest.raises(REFUSED, match="step"):
            loader.batch(wrong)
    with pytest.raises(REFUSED, match="threads"):
        data.map_inputs(_recordings(), lambda e, rng: np.ones(2), threads=-1)
    for wrong in ({"count": 0, "duration": 1}, {"count": 1, "duration": 0.5}):
        with pytest.raises(REFUSED, match="count|duration"):
            data.clips(_recordings().train, **wrong)


@pytest.mark.fast
def test_clips_repeat_targets_as_rows():
    split = data.Split(_recordings().train.inputs, np.array([[1.0, 2.0], [3.0, 4.0]]))
    clips = data.clips(split, count=2, duration=3)
    np.testing.assert_array_equal(clips.labels, [[1, 2], [1, 2], [3, 4], [3, 4]])


def test_folds_need_examples_of_every_class():
    dataset = data.from_arrays(X, Y, X, Y)
    with pytest.raises(ValueError, match="class 0 has 4 examples, too few for 5 folds"):
        data.folds(dataset, k=5)
    for wrong in ({"k": 1}, {"k": 2.0}, {"seed": -1}):
        with pytest.raises(REFUSED, match=next(iter(wrong))):
            data.folds(dataset, **({"k": 2} | wrong))


@pytest.mark.fast
def test_rescale_keeps_integers_of_64_bits():
    np.testing.assert_array_equal(data.rescale(np.array([2**40, 2**33]), 2.0**-33), [128, 1])
    for inputs, scale in ((X, np.nan), (X, 0), (X, -1.0), (X * 1j, 1.0), (np.ma.array(X), 1.0)):
        with pytest.raises(REFUSED, match="scale|real numbers|masked"):
            data.rescale(inputs, scale)


@pytest.mark.fast
def test_arguments_of_another_kind_are_named():
    dataset = data.from_arrays(X, Y, X, Y)
    with pytest.raises(TypeError, match="split is a Split, not Dataset: give dataset.train"):
        data.Loader(dataset, batch_size=2)
    with pytest.raises(TypeError, match="shuffle is a bool, not str"):
        data.Loader(dataset.train, batch_size=2, shuffle="False")
    for call in (
        lambda: data.folds(dataset.train),
        lambda: data.dense(dataset.train, np.asarray),
        lambda: data.map_inputs(dataset.train, np.asarray),
    ):
        with pytest.raises(TypeError, match="dataset is a Dataset, not Split"):
            call()
    for parse in ("parse_aedat2", "parse_aedat3", "parse_atis", "parse_dat"):
        with pytest.raises(TypeError, match=r"Path\(path\).read_bytes\(\)"):
            getattr(data.event_files, parse)("one.bin")
    climbing = dataclasses.replace(_recordings(), name="../one")
    with pytest.raises(ValueError, match="is no path"):
        data.dense(climbing, np.asarray, directory=".")


def test_grain_refuses_fractions_as_classes():
    pytest.importorskip("grain")
    examples = [(np.zeros(2, np.float32), 0.7)] * 4
    with pytest.raises(Exception, match="labels must be integers"):
        next(iter(data.grain_loader(examples, batch_size=2, threads=0)))
    targets = [(np.zeros(2, np.float32), np.array([0.75], np.float32))] * 4
    batch = next(iter(data.grain_loader(targets, batch_size=2, threads=0)))
    np.testing.assert_array_equal(batch.labels, [[0.75], [0.75]])


_IMAGES = jnp.zeros((2, 4, 4, 1), jnp.uint8)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "images", "options", "match"),
    [
        ("random_crop", _IMAGES, {"padding": -1}, "padding"),
        ("random_crop", _IMAGES, {"padding": 1.5}, "padding"),
        ("random_erasing", _IMAGES, {"probability": 1.5}, "probability"),
        ("random_erasing", _IMAGES, {"probability": np.nan}, "probability"),
        ("random_erasing", _IMAGES, {"area": (0.5, 0.1)}, "area"),
        ("random_erasing", _IMAGES, {"aspect": (1, np.inf)}, "aspect"),
        ("random_erasing", _IMAGES, {"fill": 0.48}, "fill=0.48 is no colour of uint8"),
        ("random_erasing", _IMAGES, {"fill": 256}, "fill=256 is no colour of uint8"),
        ("rand_augment", _IMAGES, {"magnitude": np.nan}, "magnitude"),
        ("rand_augment", _IMAGES, {"magnitude": 11}, "magnitude"),
        ("rand_augment", _IMAGES, {"deviation": -1}, "deviation"),
        ("rand_augment", _IMAGES, {"count": 1.5}, "count"),
    ],
)
def test_options_of_augmentation_have_bounds(name, images, options, match):
    with pytest.raises(REFUSED, match=match):
        getattr(data.augmentation, name)(jax.random.key(0), images, **options)


@pytest.mark.fast
def test_images_are_no_recordings():
    with pytest.raises(ValueError, match=r"frames \[B, T, H, W, C\]"):
        data.augmentation.map_recordings(lambda x: x, _IMAGES)
    with pytest.raises(ValueError, match=r"images \[B, H, W, C\]"):
        data.patches(_IMAGES[None])
