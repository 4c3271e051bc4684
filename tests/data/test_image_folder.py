"""Image folder: listing without decoding, decoding on access, reproducible batches."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from snnjax import data
from snnjax.data.image_folder import ImageView

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.fast

COUNTS = {"train": {"cat": 4, "ant": 3, "bee": 3}, "val": {"cat": 1, "ant": 2}}


@pytest.fixture
def folder(tmp_path):
    """Ten training and three test images; an image's shade is its number."""
    rng = np.random.default_rng(0)
    for split, classes in COUNTS.items():
        for label, count in classes.items():
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            for i, suffix in zip(range(count), itertools.cycle(["png", "JPEG", "jpg"])):
                noise = rng.integers(0, 255, (20 + i, 24, 3), np.uint8)
                path = tmp_path / "pets" / split / label / f"{i}.{suffix}"
                Image.fromarray(noise).save(path, "PNG" if suffix == "png" else "JPEG")
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("not listed")
    (tmp_path / "pets" / "train" / "cat" / "._0.png").write_text("not listed either")
    return tmp_path / "pets"


def test_classes_are_the_folders_in_order(folder):
    dataset = data.image_folder(folder, size=8)
    assert dataset.name == "pets" and dataset.class_names == ("ant", "bee", "cat")
    assert dataset.input_shape == (8, 8, 3) and dataset.scale == 1 / 255
    np.testing.assert_array_equal(dataset.train.labels, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(dataset.test.labels, [0, 0, 2])
    assert dataset.train.inputs.transform == ImageView(size=8, resize=9)


def test_nothing_is_decoded_before_it_is_asked_for(folder):
    (folder / "train" / "ant" / "1.JPEG").write_text("damaged")
    dataset = data.image_folder(folder, size=8)
    larger = data.with_image_view(dataset, size=12, resize=16)
    assert larger.input_shape == (12, 12, 3) and dataset.input_shape == (8, 8, 3)
    assert len(larger.train.take(np.arange(5))) == 5
    assert larger.train[0][0].shape == (12, 12, 3)
    with pytest.raises(data.CorruptDataError, match=r"ant.1\.JPEG is not a readable image"):
        larger.train.inputs.batch(np.arange(4))


@pytest.mark.parametrize("threads", [0, 3])
def test_batches_repeat_and_each_epoch_sees_other_crops(folder, threads):
    def loader(seed=0):
        dataset = data.image_folder(folder, size=8, threads=threads)
        return data.Loader(dataset.train, batch_size=5, seed=seed)

    straight = [loader().batch(step) for step in range(4)]
    assert straight[0].inputs.shape == (5, 8, 8, 3) and straight[0].inputs.dtype == np.uint8
    resumed = loader()
    for step in (3, 1):
        np.testing.assert_array_equal(resumed.batch(step).inputs, straight[step].inputs)
    views = [{}, {}]
    for step, batch in enumerate(straight):
        epoch, _ = resumed.position(step)
        places = resumed.indices(step)[0].tolist()
        views[epoch].update(zip(places, batch.inputs, strict=True))
    assert sorted(views[0]) == list(range(10))
    assert all(not np.array_equal(views[0][i], views[1][i]) for i in range(10))
    assert not np.array_equal(loader(1).batch(0).inputs, straight[0].inputs)


def test_threads_change_nothing(folder):
    batches = [
        data.Loader(data.image_folder(folder, size=8, threads=n).train, batch_size=10).batch(3)
        for n in (0, 1, 4)
    ]
    for batch in batches[1:]:
        np.testing.assert_array_equal(batch.inputs, batches[0].inputs)


def test_evaluation_sees_the_same_views_always(folder):
    split = data.image_folder(folder, size=8).test
    first, second = (list(data.evaluation_batches(split, batch_size=2)) for _ in range(2))
    assert [batch.weights.tolist() for batch in first] == [[1, 1], [1, 0]]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(first[1].inputs[0], split[2][0])


def test_grain_reads_it_and_it_can_be_sent_to_a_process(folder):
    pytest.importorskip("grain")
    split = data.image_folder(folder, size=8, threads=0).train
    batch = next(iter(data.grain_loader(split, batch_size=4, threads=2)))
    assert batch.inputs.shape == (4, 8, 8, 3) and batch.inputs.dtype == np.uint8
    again = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(again[3][0], split[3][0])


def test_other_names_of_the_splits(folder):
    dataset = data.image_folder(folder, train="val", test="val", size=8, name="mine", note="n")
    assert dataset.name == "mine" and dataset.note == "n" and len(dataset.train) == 3


def test_a_missing_folder_shows_the_layout(folder, tmp_path):
    with pytest.raises(data.MissingDataError, match=r"nowhere/train/<class>/(.|\n)*train=\.\.\."):
        data.image_folder(tmp_path / "nowhere")
    (folder / "val").rename(folder / "validation")
    with pytest.raises(data.MissingDataError, match="pets/val/<class>/"):
        data.image_folder(folder)
    assert len(data.image_folder(folder, test="validation").test) == 3


def test_a_class_that_is_never_trained_is_refused(folder):
    (folder / "val" / "ant").rename(folder / "val" / "wasp")
    with pytest.raises(data.CorruptDataError, match="wasp"):
        data.image_folder(folder)


def test_only_images_have_sizes():
    with pytest.raises(TypeError, match="image_folder"):
        data.with_image_view(data.load("digits"), size=4)


def test_a_view_that_does_not_fit_is_refused(folder):
    dataset = data.image_folder(folder, size=8)
    with pytest.raises(ValueError, match="resize=9"):
        data.with_image_view(dataset, size=20)
    assert dataclasses.asdict(dataset.test.inputs.transform)["size"] == 8
