"""MNIST and Fashion-MNIST from idx files: parser and checksums."""

import gzip
import hashlib
import shutil
import struct

import numpy as np
import pytest

from snnjax import data
from snnjax.data._idx import parse_idx

# The sha256 of the gz files as TensorFlow Datasets records them.
PUBLISHED = {
    "mnist": {
        "t10k-images": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "train-images": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    },
    "fashion-mnist": {
        "t10k-images": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "train-images": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    },
}
FIRST_LABELS = {
    "mnist": ([5, 0, 4, 1, 9], [7, 2, 1, 0, 4]),
    "fashion-mnist": ([9, 0, 0, 3, 0], [9, 2, 1, 1, 6]),
}


@pytest.mark.parametrize("folder", PUBLISHED)
def test_the_published_files_pass_and_have_the_published_shape(shared, folder):
    root = shared("data", folder)
    for path in sorted(root.glob("*.gz")):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found == PUBLISHED[folder][path.name.split("-idx")[0]]
    dataset = data.load(folder.replace("-", "_"), data_dir=root.parent)
    train, test = dataset.train, dataset.test
    assert train.inputs.shape == (60_000, 28, 28, 1) and test.inputs.shape == (10_000, 28, 28, 1)
    assert train.inputs.dtype == np.uint8 and train.labels.dtype == np.int32
    assert (list(train.labels[:5]), list(test.labels[:5])) == FIRST_LABELS[folder]
    if folder == "fashion-mnist":
        assert set(np.bincount(train.labels)) == {6000}


def test_mnist_under_the_name_of_fashion_mnist_is_refused(shared, tmp_path):
    (tmp_path / "fashion-mnist").symlink_to(shared("data", "mnist"))
    with pytest.raises(data.CorruptDataError, match="belongs to mnist, not to fashion_mnist"):
        data.load("fashion_mnist", data_dir=tmp_path)
    (tmp_path / "mnist").symlink_to(shared("data", "fashion-mnist"))
    with pytest.raises(data.CorruptDataError, match="belongs to fashion_mnist, not to mnist"):
        data.load("mnist", data_dir=tmp_path)


def test_one_foreign_file_among_four_is_refused(shared, tmp_path):
    folder = tmp_path / "mnist"
    shutil.copytree(shared("data", "mnist"), folder, copy_function=_link)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.unlink()
    labels.symlink_to(shared("data", "fashion-mnist") / labels.name)
    with pytest.raises(data.CorruptDataError, match="t10k-labels.* belongs to fashion_mnist"):
        data.load("mnist", data_dir=tmp_path)


def test_one_changed_pixel_is_refused(shared, tmp_path):
    folder = tmp_path / "mnist"
    shutil.copytree(shared("data", "mnist"), folder, copy_function=_link)
    packed = folder / "t10k-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(packed.read_bytes()))
    content[5000] ^= 1
    packed.unlink()
    (folder / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(data.CorruptDataError, match="not the published file .* fetch it again"):
        data.load("mnist", data_dir=tmp_path)


def test_a_gz_cut_short_or_missing_is_named(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    with pytest.raises(data.MissingDataError, match=r"train-images(.|\n)*--data-dir DIR"):
        data.load("mnist", data_dir=tmp_path)
    cut = gzip.compress(bytes(1000))[:-9]
    (folder / "train-images-idx3-ubyte.gz").write_bytes(cut)
    with pytest.raises(data.CorruptDataError, match="cannot be unpacked"):
        data.load("mnist", data_dir=tmp_path)


def test_idx_files_are_parsed_by_their_header():
    content = b"\x00\x00\x08\x03" + struct.pack(">3I", 2, 2, 3) + bytes(range(12))
    np.testing.assert_array_equal(parse_idx(content), np.arange(12).reshape(2, 2, 3))
    for broken in (content[:-1], content + b"\x00", content[:6], b"", b"\x00\x00\x0d\x01"):
        with pytest.raises(data.CorruptDataError):
            parse_idx(broken)


def _link(source, target):
    import pathlib

    pathlib.Path(target).symlink_to(source)
