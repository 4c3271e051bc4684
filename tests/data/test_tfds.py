"""TFDS without TensorFlow: array_record, fingerprints, and the confusion of file names."""

import importlib.util
import io
import json
import sys
import types

import numpy as np
import pytest

from snnjax import data
from snnjax.data import tfds as door

tfds = pytest.importorskip("tensorflow_datasets")
Image = pytest.importorskip("PIL.Image")

IMAGES = np.random.default_rng(0).integers(0, 256, (13, 8, 8, 1), np.uint8)
LABELS = np.arange(13) % 3


def _builder(class_name):
    def info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1)),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def examples(self, places):
        for i in places:
            file = io.BytesIO()  # an encoded image: TFDS encodes arrays with TensorFlow
            Image.fromarray(IMAGES[i, :, :, 0]).save(file, "PNG")
            file.seek(0)
            yield int(i), {"image": file, "label": int(LABELS[i])}

    def splits(self, manager):
        del manager
        return {"train": self._examples(range(10)), "test": self._examples(range(10, 13))}

    body = {
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_examples": examples,
        "_generate_examples": examples,
        "_split_generators": splits,
        "__module__": __name__,
        "pkg_dir_path": None,
    }
    return types.new_class(
        class_name,
        (tfds.core.GeneratorBasedBuilder,),
        {"skip_registration": True},
        lambda n: n.update(body),
    )


def _prepare(root, class_name):
    builder = _builder(class_name)(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    return builder.data_dir


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    _prepare(root, "TinyImages")
    return root


def test_an_own_set_is_read_without_tensorflow(prepared):
    directory = data.tfds.prepared_directory(prepared, "tiny_images")
    dataset = data.tfds.load(directory)
    assert dataset.name == "tiny_images" and dataset.class_names == ("a", "b", "c")
    assert (len(dataset.train), len(dataset.test)) == (10, 3)
    assert dataset.train.inputs.dtype == np.uint8 and dataset.input_shape == (8, 8, 1)
    # TFDS shuffles, so compare what does not depend on the order.
    assert door.fingerprint(dataset.train) == door.fingerprint(
        data.Split(IMAGES[:10], LABELS[:10].astype(np.int32))
    )
    assert "tensorflow" not in sys.modules


def test_a_source_stays_on_disk(prepared):
    source = data.tfds.open_split(data.tfds.prepared_directory(prepared, "tiny_images"), "test")
    assert len(source) == 3
    assert source[0]["image"].shape == (8, 8, 1)


def test_the_newest_version_is_taken(tmp_path):
    assert data.tfds.prepared_directory(tmp_path, "x") is None
    for version in ("1.9.0", "1.10.0", "1.2.0.incompleteABC"):
        (tmp_path / "x" / version).mkdir(parents=True)
        (tmp_path / "x" / version / "dataset_info.json").write_text("{}")
    assert data.tfds.prepared_directory(tmp_path, "x").name == "1.10.0"


def test_formats_that_need_tensorflow_are_refused(tmp_path):
    with pytest.raises(data.MissingDataError, match="dataset_info.json"):
        data.tfds.load(tmp_path)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="only TensorFlow reads.*array_record"):
        data.tfds.load(tmp_path)


def test_a_prepared_set_is_the_first_door_and_must_be_the_published_one(tmp_path):
    _prepare(tmp_path, "Mnist")
    with pytest.raises(
        data.CorruptDataError, match=r"mnist \(10 \+ 3 examples\) is not the published"
    ):
        data.load("mnist", data_dir=tmp_path)


@pytest.fixture(scope="module")
def raw():
    from tests.conftest import shared_folder

    root = shared_folder("data", "mnist").parent
    shared_folder("data", "fashion-mnist")
    return {name: data.load(name, data_dir=root) for name in ("mnist", "fashion_mnist")}


@pytest.mark.parametrize(
    "name, other",
    [
        ("mnist", "fashion_mnist"),
        pytest.param("fashion_mnist", "mnist", marks=pytest.mark.slow),
    ],
)
def test_one_set_under_the_name_of_the_other_is_refused(raw, name, other):
    own, foreign = raw[name], raw[other]
    door.verify(name, own.train, own.test)
    shuffled = own.train.take(np.random.default_rng(0).permutation(len(own.train)))
    door.verify(name, shuffled, own.test)  # TFDS' order is another
    with pytest.raises(data.CorruptDataError, match=f"copy of {name} holds {other}"):
        door.verify(name, foreign.train, foreign.test)


def test_one_swapped_label_is_noticed(raw):
    train, test = raw["mnist"].train, raw["mnist"].test
    labels = train.labels.copy()
    labels[:2] = labels[1::-1]
    with pytest.raises(data.CorruptDataError, match="not the published set"):
        door.verify("mnist", data.Split(train.inputs, labels), test)


def test_each_set_is_prepared_with_a_download_directory_of_its_own(tmp_path, monkeypatch):
    calls = {}

    def builder(name, **kwargs):
        def download_and_prepare(*, download_dir, download_config):
            calls[name] = (download_dir, download_config.manual_dir, kwargs["file_format"])

        return types.SimpleNamespace(
            download_and_prepare=download_and_prepare, data_dir=str(tmp_path / name / "1.0.0")
        )

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds, "builder", builder)
    for name in ("mnist", "fashion_mnist"):
        assert (
            data.tfds.prepare(name, data_dir=tmp_path, raw_dir=tmp_path / "raw").parent.name == name
        )
    assert calls["mnist"][0] != calls["fashion_mnist"][0]
    assert {c[2] for c in calls.values()} == {"array_record"}
    assert calls["mnist"][1] == tmp_path / "raw"


def test_preparing_without_tensorflow_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'snnjax\[tfds-build\]'.*reading"):
        data.tfds.prepare("mnist")
    with pytest.raises(ValueError, match="mnist, fashion_mnist, cifar10, cifar100"):
        data.tfds.prepare("imagenet2012")


def test_a_source_of_tfds_feeds_the_grain_loader(tmp_path):
    pytest.importorskip("grain")
    with tfds.testing.mock_data(num_examples=6):
        source = tfds.builder("mnist", data_dir=tmp_path).as_data_source(split="train")
        loader = data.grain_loader(
            source, batch_size=4, transform=lambda e: (e["image"], e["label"]), threads=0
        )
        batch = next(iter(loader))
    assert batch.inputs.shape == (4, 28, 28, 1) and batch.labels.dtype == np.int32
