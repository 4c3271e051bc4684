"""Data sets prepared by TensorFlow Datasets, read without TensorFlow.

TFDS keeps a set as `<data_dir>/<name>/<version>/` of array_record files. Reading those needs
neither TensorFlow nor a network. Building one of TFDS' own sets needs TensorFlow, once, on any
machine: the extra `snnjax[tfds-build]`.

A trap is closed here. MNIST and Fashion-MNIST use the same four file names; TFDS, given one
download directory for both, silently prepares MNIST under Fashion-MNIST's name. `prepare` gives
each set a directory of its own, and reading compares the content with a fingerprint of the
published set, whoever prepared it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data import idx
from snnjax.data.cifar import NOTE as CIFAR_NOTE
from snnjax.data.cifar import check_balance
from snnjax.data.dataset import Dataset, Split
from snnjax.data.errors import CorruptDataError, MissingDataError

NOTES = {**idx.NOTES, "cifar10": CIFAR_NOTE, "cifar100": CIFAR_NOTE}

# Sums of crc32(image, label) over training and test split: they do not depend on the order, which
# TFDS changes.
FINGERPRINTS = {
    "mnist": (128631034514336, 21590152823791),
    "fashion_mnist": (129023921413954, 21621013396322),
}
_CHUNK = 2048


def data_root(data_dir: str | Path | None) -> Path:
    """The folder of data sets: `data_dir`, else `$SNNJAX_DATA`, else where TFDS keeps its own."""
    chosen = data_dir or os.environ.get("SNNJAX_DATA") or os.environ.get("TFDS_DATA_DIR")
    return Path(chosen or "~/tensorflow_datasets").expanduser()


def prepared_directory(root: Path, name: str) -> Path | None:
    """The newest version of a prepared set below `root`, or None."""
    found = [path.parent for path in (root / name).glob("*.*.*/dataset_info.json")]
    return max(found, key=_version, default=None)


def prepare(
    name: str, *, data_dir: str | Path | None = None, raw_dir: str | Path | None = None
) -> Path:
    """Has TFDS download and build one of its own sets as array_record; needed once.

    Args:
        name: `"mnist"`, `"fashion_mnist"`, `"cifar10"` or `"cifar100"`.
        data_dir: Where to keep it; the same default as that of `load`.
        raw_dir: A folder with the published files, to build without a network.

    Returns:
        The directory of the prepared set.

    Raises:
        ImportError: Where TensorFlow is not installed.
        ValueError: Where the name is not one of the above.
    """
    if name not in NOTES:
        raise ValueError(f"TFDS can prepare {', '.join(NOTES)} for snnjax, not {name!r}")
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            f"TFDS builds {name} with TensorFlow, which is not installed: "
            "pip install 'snnjax[tfds-build]' (reading the result needs none, so it may be built "
            "on another machine)"
        )
    import tensorflow_datasets as tfds

    root = data_root(data_dir)
    builder: Any = tfds.builder(name, data_dir=root, file_format="array_record")
    builder.download_and_prepare(
        download_dir=root / "downloads" / name,  # one per set: see the trap above
        download_config=tfds.download.DownloadConfig(
            manual_dir=None if raw_dir is None else Path(raw_dir)
        ),
    )
    return Path(builder.data_dir)


def tfds_source(directory: str | Path, split: str) -> Any:
    """Opens one split of a prepared set for random access, leaving it on disk.

    Args:
        directory: `<data_dir>/<name>/<version>`, with its `dataset_info.json`.
        split: `"train"`, `"test"` or another split of the set.

    Returns:
        A source for `grain_loader`: `len(source)`, `source[i]` is a dict of features.

    Raises:
        MissingDataError: Where there is no prepared set.
        ValueError: Where it is not array_record, which only TensorFlow can read.
    """
    return _builder(Path(directory)).as_data_source(split=split)


def from_tfds(
    directory: str | Path, *, inputs: str = "image", labels: str = "label", scale: float = 1 / 255
) -> Dataset:
    """Reads a prepared set of TFDS into memory.

    Args:
        directory: `<data_dir>/<name>/<version>`, with its `dataset_info.json`. Any array_record
            set of one fixed input shape will do, a user's own `GeneratorBasedBuilder` included.
        inputs: The feature that is the input.
        labels: The feature that is the class label.
        scale: What `rescale` multiplies inputs by.

    Returns:
        The data set, in TFDS' order (which is not that of the raw files).

    Raises:
        MissingDataError: Where there is no prepared set.
        CorruptDataError: Where it is not what its name says.
        ValueError: Where it is not array_record, which only TensorFlow can read.
    """
    builder = _builder(Path(directory))
    name = builder.info.name
    train, test = (
        _read(builder.as_data_source(split=split), inputs, labels) for split in ("train", "test")
    )
    verify(name, train, test)
    feature = builder.info.features[labels]
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=feature.num_classes,
        class_names=tuple(feature.names or map(str, range(feature.num_classes))),
        input_shape=train.inputs.shape[1:],  # type: ignore[union-attr]
        scale=scale,
        note=(NOTES.get(name, "") + f" Read from TFDS {builder.info.full_name}.").strip(),
    )


def fingerprint(split: Split) -> int:
    """A number that any change of an image or a label changes, but no change of their order.

    Args:
        split: Images `[N, H, W, C]` uint8 and labels below 256.

    Returns:
        The sum of `crc32(image, label)` over the examples.
    """
    return sum(
        zlib.crc32(bytes([int(label)]), zlib.crc32(np.ascontiguousarray(image)))  # type: ignore[arg-type]
        for image, label in zip(split.inputs, split.labels, strict=True)
    )


def verify(name: str, train: Split, test: Split) -> None:
    """Refuses a set that is not what its name says; a name nobody published passes.

    Args:
        name: The name of a set in TFDS.
        train: Its training split.
        test: Its test split.

    Raises:
        CorruptDataError: Where the content is not the published one.
    """
    if name in ("cifar10", "cifar100"):
        check_balance(name, train, test, classes=100 if name == "cifar100" else 10)
    if name not in FINGERPRINTS:
        return
    found = (fingerprint(train), fingerprint(test))
    if found == FINGERPRINTS[name]:
        return
    for other, known in FINGERPRINTS.items():
        if found == known:
            raise CorruptDataError(
                f"this TFDS copy of {name} holds {other}: both were prepared with one download "
                f"directory, and their files share their names. Delete it and prepare it again: "
                + prepare_command(name)
            )
    raise CorruptDataError(
        f"this TFDS copy of {name} ({len(train)} + {len(test)} examples) is not the published set; "
        "delete it and prepare it again: " + prepare_command(name)
    )


def prepare_command(name: str, *, data_dir: Path | str | None = None) -> str:
    """The command line that prepares a set, for error messages."""
    where = "" if data_dir is None else f", data_dir={str(data_dir)!r}"
    call = f"from snnjax import data; data.prepare({name!r}{where})"
    return f"pip install 'snnjax[tfds-build]' && python -c \"{call}\""


def _builder(directory: Path) -> Any:
    info = directory / "dataset_info.json"
    if not info.is_file():
        raise MissingDataError(f"{directory} is no set prepared by TFDS: it has no {info.name}")
    file_format = json.loads(info.read_text()).get("fileFormat")
    if file_format != "array_record":
        raise ValueError(
            f"{directory} is stored as {file_format}, which only TensorFlow reads; delete it and "
            "prepare it as array_record: tfds.builder(name, file_format='array_record'), or "
            "snnjax.data.prepare"
        )
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(directory)


def _read(source: Any, inputs: str, labels: str) -> Split:
    images = None
    classes = np.empty(len(source), np.int32)
    for start in range(0, len(source), _CHUNK):
        places = range(start, min(start + _CHUNK, len(source)))
        for i, example in zip(places, source.__getitems__(list(places)), strict=True):
            image = np.asarray(example[inputs])
            if images is None:
                images = np.empty((len(source), *image.shape), image.dtype)
            images[i] = image
            classes[i] = example[labels]
    if images is None:
        raise CorruptDataError("a split without examples")
    return Split(images, classes)


def _version(directory: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in directory.name.split("."))
