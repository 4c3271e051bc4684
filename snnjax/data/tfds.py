"""Data sets prepared by TensorFlow Datasets, read without TensorFlow.

    prepare       downloads and builds a data set, once; needs the extra `snnjax[tfds-build]`
    load          reads a prepared data set into memory
    open_split    opens a split on disk for random access

TFDS stores a data set as array_record files in `<data_dir>/<name>/<version>/`. Reading them needs
neither TensorFlow nor a network; building one of TFDS' own sets needs TensorFlow, on any machine.

MNIST and Fashion-MNIST use the same four file names. Given one download directory for both, TFDS
silently prepares MNIST under the name of Fashion-MNIST: `prepare` gives each set a directory of its
own, and `load` compares the content with a fingerprint of the published set.
"""

from __future__ import annotations

import importlib.util
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from snnjax.data import _idx as idx
from snnjax.data._cifar import NOTE as CIFAR_NOTE
from snnjax.data._cifar import check_balance
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split, as_labels

__all__ = ["load", "open_split", "prepare"]

NOTES = {**idx.NOTES, "cifar10": CIFAR_NOTE, "cifar100": CIFAR_NOTE}

# Sums of crc32(image, label) over the training and the test split: independent of the order, which
# TFDS changes.
FINGERPRINTS = {
    "mnist": (128631034514336, 21590152823791),
    "fashion_mnist": (129023921413954, 21621013396322),
}
_CHUNK = 2048  # examples per read: array_record is slow one by one, and the chunk is held twice


def data_root(data_dir: str | Path | None) -> Path:
    """Folder of data sets: `data_dir`, else `$SNNJAX_DATA`, else the directory of TFDS."""
    folder = data_dir or os.environ.get("SNNJAX_DATA") or os.environ.get("TFDS_DATA_DIR")
    return Path(folder or "~/tensorflow_datasets").expanduser()


def prepared_directory(root: Path, name: str) -> Path | None:
    """Directory of the newest version of a prepared set below `root`, or None."""
    versions = [path.parent for path in (root / name).glob("*.*.*/dataset_info.json")]
    return max(versions, key=_version, default=None)


def prepare(
    name: str, *, data_dir: str | Path | None = None, raw_dir: str | Path | None = None
) -> Path:
    """Downloads and builds a data set of TFDS as array_record, once.

    Args:
        name: `"mnist"`, `"fashion_mnist"`, `"cifar10"` or `"cifar100"`.
        data_dir: Folder of data sets; the default is that of `data.load`.
        raw_dir: Folder of the published files, to build without a network; None downloads them.

    Returns:
        The directory of the prepared set.

    Raises:
        ImportError: If TensorFlow is not installed.
        ValueError: If the name is not one of the above.
    """
    if name not in NOTES:
        raise ValueError(f"TFDS can prepare {', '.join(NOTES)} for snnjax, not {name!r}")
    # find_spec instead of an import, which takes seconds.
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
        download_dir=root / "downloads" / name,  # one per set: MNIST and Fashion-MNIST collide
        download_config=tfds.download.DownloadConfig(
            manual_dir=None if raw_dir is None else Path(raw_dir)
        ),
    )
    return Path(builder.data_dir)


def open_split(directory: str | Path, split: str) -> Any:
    """Opens one split of a prepared set on disk for random access.

    Args:
        directory: `<data_dir>/<name>/<version>`, which contains `dataset_info.json`.
        split: `"train"`, `"test"` or another split of the set.

    Returns:
        A source for `grain_loader`: `len(source)`, and `source[i]` is a dict of features.

    Raises:
        MissingDataError: If the directory holds no prepared set.
        ValueError: If its files are not array_record, the only format read without TensorFlow.
    """
    # A data source has random access and needs no TensorFlow, unlike `as_dataset`.
    return _builder(Path(directory)).as_data_source(split=split)


def load(
    directory: str | Path, *, inputs: str = "image", labels: str = "label", scale: float = 1 / 255
) -> Dataset:
    """Reads a prepared data set into memory.

    Args:
        directory: `<data_dir>/<name>/<version>`, which contains `dataset_info.json`. Any
            array_record set with one input shape works, also a user's own `GeneratorBasedBuilder`.
        inputs: Name of the input feature.
        labels: Name of the class label feature.
        scale: Factor of `rescale`.

    Returns:
        The data set, in the order of TFDS, which differs from that of the raw files.

    Raises:
        MissingDataError: If the directory holds no prepared set.
        CorruptDataError: If the content is not that of the published set.
        ValueError: If its files are not array_record, the only format read without TensorFlow.
    """
    builder = _builder(Path(directory))
    name = builder.info.name
    train, test = (
        _read(builder.as_data_source(split=split), inputs, labels) for split in ("train", "test")
    )
    # After reading: only the content tells MNIST from Fashion-MNIST.
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
    """Order-independent checksum of images and labels.

    Args:
        split: Images `[N, H, W, C]` uint8 and labels below 256.

    Returns:
        Sum of `crc32(image, label)` over the examples.
    """
    return sum(
        zlib.crc32(bytes([int(label)]), zlib.crc32(np.ascontiguousarray(image)))  # type: ignore[arg-type]
        for image, label in zip(split.inputs, split.labels, strict=True)
    )


def verify(name: str, train: Split, test: Split) -> None:
    """Raises an error if the content differs from the published set; unknown names pass.

    Args:
        name: Name of the set in TFDS.
        train: Training split.
        test: Test split.

    Raises:
        CorruptDataError: If the content is not the published one.
    """
    if name in ("cifar10", "cifar100"):
        check_balance(name, train, test, classes=100 if name == "cifar100" else 10)
    if name not in FINGERPRINTS:
        return
    content = (fingerprint(train), fingerprint(test))
    if content == FINGERPRINTS[name]:
        return
    for other, published in FINGERPRINTS.items():
        if content == published:
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
    """Command line that prepares a set, for error messages."""
    option = "" if data_dir is None else f", data_dir={str(data_dir)!r}"
    call = f"from snnjax import data; data.tfds.prepare({name!r}{option})"
    return f"pip install 'snnjax[tfds-build]' && python -c \"{call}\""


def _builder(directory: Path) -> Any:
    info = directory / "dataset_info.json"
    if not info.is_file():
        raise MissingDataError(f"{directory} is no set prepared by TFDS: it has no {info.name}")
    try:
        file_format = json.loads(info.read_bytes()).get("fileFormat")
    except (ValueError, AttributeError) as error:
        raise CorruptDataError(
            f"{info} is damaged ({error}); delete {directory} and prepare the set again"
        ) from error
    # TFDS would import TensorFlow for any other format, and fail with a message about that.
    if file_format != "array_record":
        raise ValueError(
            f"{directory} is stored as {file_format}, which only TensorFlow reads; delete it and "
            "prepare it as array_record: tfds.builder(name, file_format='array_record'), or "
            "snnjax.data.tfds.prepare"
        )
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(directory)


def _read(source: Any, inputs: str, labels: str) -> Split:
    images = None
    classes = np.empty(len(source), np.int32)
    for start in range(0, len(source), _CHUNK):
        numbers = range(start, min(start + _CHUNK, len(source)))
        for i, example in zip(numbers, source.__getitems__(list(numbers)), strict=True):
            image = np.asarray(example[inputs])
            if images is None:
                # Allocated once the first image tells shape and dtype, as in `dense`.
                images = np.empty((len(source), *image.shape), image.dtype)
            # The assignment would broadcast and cast.
            if image.shape != images.shape[1:] or image.dtype != images.dtype:
                raise CorruptDataError(
                    f"example {i} is {image.dtype} {image.shape}, the ones before it "
                    f"{images.dtype} {images.shape[1:]}; this reader takes inputs of one shape"
                )
            images[i] = image
            classes[i] = as_labels(np.asarray(example[labels])[None])[0]
    if images is None:
        raise CorruptDataError("a split without examples")
    return Split(images, classes)


def _version(directory: Path) -> tuple[int, ...]:
    # Compared as numbers: as text, version 10.0.0 would be older than 3.0.1.
    return tuple(int(part) if part.isdigit() else -1 for part in directory.name.split("."))
