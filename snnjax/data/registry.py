"""Data sets by name: the folders searched for each, and the advice if it is missing.

A data directory holds one folder per set (`mnist/`, `fashion-mnist/`, `nmnist-small/`, `hapt/`,
`cifar10-jpeg/`, `dvs128-gesture/`, ...) and may also be the directory of TFDS. It is the argument
`data_dir` (`--data-dir` on the command line), else `$SNNJAX_DATA`, else the directory of TFDS. A
set prepared by TFDS takes precedence over raw files.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from snnjax.data import tfds
from snnjax.data._cifar import read_cifar10_jpeg, read_cifar_files
from snnjax.data._cifar10_dvs import read_cifar10_dvs
from snnjax.data._digits import load_digits
from snnjax.data._dvs128_gait import read_dvs128_gait
from snnjax.data._dvs128_gesture import read_dvs128_gesture
from snnjax.data._hapt import read_hapt
from snnjax.data._idx import read_idx_files
from snnjax.data._ncars import read_ncars
from snnjax.data._nmnist import read_nmnist
from snnjax.data.arrays import from_npz
from snnjax.data.dataset import Dataset, MissingDataError, require
from snnjax.data.image_folder import read_imagenet


@dataclasses.dataclass(frozen=True)
class _Entry:
    folders: tuple[str, ...]  # searched in order; error messages recommend the first
    read: Callable[[Path], Dataset]
    contents: str
    in_tfds: bool = False


_IDX = "its four idx files (train-images-idx3-ubyte.gz, ...)"
# One entry under two names, see `load`.
_HAPT = _Entry(("hapt", "HAPT"), read_hapt, "RawData/ of the UCI HAPT set, or an archive of it")
# The advice recommends the first name; the published archive unpacks as the second.
_GESTURE_FOLDERS = ("dvs128-gesture", "DvsGesture", "DVS128Gesture")
_GESTURE = (
    "the unpacked folder DvsGesture (userXX_LIGHT.aedat, userXX_LIGHT_labels.csv, "
    "trials_to_train.txt, trials_to_test.txt)"
)
_ENTRIES = {
    "mnist": _Entry(("mnist",), functools.partial(read_idx_files, name="mnist"), _IDX, True),
    "fashion_mnist": _Entry(
        ("fashion-mnist", "fashion_mnist"),
        functools.partial(read_idx_files, name="fashion_mnist"),
        _IDX,
        True,
    ),
    "cifar10": _Entry(
        ("cifar10", "cifar-10-batches-bin"),
        functools.partial(read_cifar_files, name="cifar10"),
        "cifar-10-binary.tar.gz, or its .bin files",
        True,
    ),
    "cifar100": _Entry(
        ("cifar100", "cifar-100-binary"),
        functools.partial(read_cifar_files, name="cifar100"),
        "cifar-100-binary.tar.gz, or its .bin files",
        True,
    ),
    "cifar10_jpeg": _Entry(
        ("cifar10-jpeg",),
        read_cifar10_jpeg,
        "train/<class>/<number>.jpg and test/<class>/<number>.jpg, or a tar of them",
    ),
    "nmnist": _Entry(
        ("nmnist", "nmnist-small", "N-MNIST"),
        read_nmnist,
        "Train/<digit>/<number>.bin and Test/..., or <number>.bs2 with train*.txt and test*.txt, "
        "or archives of them",
    ),
    "dvs128_gesture": _Entry(_GESTURE_FOLDERS, read_dvs128_gesture, _GESTURE),
    "dvs128_gesture_10": _Entry(
        _GESTURE_FOLDERS, functools.partial(read_dvs128_gesture, other=False), _GESTURE
    ),
    **{
        f"dvs128_gait_{light}": _Entry(
            (f"dvs128-gait-{light}", f"DVS128-Gait-{light.title()}"),
            functools.partial(read_dvs128_gait, light=light),
            "the unpacked folders train/<person>/*.txt and test/<person>/*.txt",
        )
        for light in ("day", "night")
    },
    "cifar10_dvs": _Entry(
        ("cifar10-dvs", "CIFAR10-DVS", "CIFAR10DVS"),
        read_cifar10_dvs,
        "its ten unpacked folders (airplane/cifar10_airplane_0.aedat, ...)",
    ),
    "ncars": _Entry(
        ("ncars", "n-cars", "N-CARS", "Prophesee_Dataset_n_cars"),
        read_ncars,
        "the unpacked train/cars/*.dat, train/background/*.dat and test/...",
    ),
    "imagenet": _Entry(
        ("imagenet", "ImageNet", "ILSVRC2012"),
        read_imagenet,
        "train/<WordNet id>/*.JPEG and val/<WordNet id>/*.JPEG of ILSVRC 2012, or links to them,",
    ),
    "hapt": _HAPT,
    "uci_har": _HAPT,
}

NAMES = ("digits", *_ENTRIES)
"""Names accepted by `load`."""


def load(name: str, *, data_dir: str | Path | None = None) -> Dataset:
    """Loads a data set by name.

    Args:
        name: One of `NAMES`, or the path of an `.npz` file with the arrays `train_inputs`,
            `train_labels`, `test_inputs`, `test_labels` and optionally `class_names`. `"digits"`
            needs no files; `"uci_har"` is `"hapt"`, whose raw signals contain it;
            `"dvs128_gesture_10"` is `"dvs128_gesture"` without the class of other gestures.
        data_dir: Folder of data sets; by default `$SNNJAX_DATA`, else the directory of TFDS.

    Returns:
        The data set, verified against its published checksums or counts.

    Raises:
        MissingDataError: If the files are missing; the message says how to get them.
        CorruptDataError: If the files are not those of the data set.
        ValueError: If the name is unknown.

    Example:
        >>> dataset = load("digits")
        >>> dataset.train.inputs.shape, dataset.classes
        ((1437, 8, 8, 1), 10)
    """
    require("name", name, str)
    # Without a data directory: this set comes with scikit-learn.
    if name == "digits":
        return load_digits()
    # A path: `data_dir` does not apply.
    if name.endswith(".npz"):
        return from_npz(name)
    if name not in _ENTRIES:
        raise ValueError(
            f"unknown data set {name!r}: choose one of {', '.join(NAMES)}, give the path of an "
            ".npz file, or make one of your arrays with snnjax.data.from_arrays"
        )
    # The root is known before anything is read, since the advice names it.
    entry, root = _ENTRIES[name], tfds.data_root(data_dir)
    # A prepared set is verified by its fingerprint, whichever program downloaded it.
    if entry.in_tfds and (prepared := tfds.prepared_directory(root, name)):
        return tfds.load(prepared)
    for folder in entry.folders:
        if (root / folder).is_dir():
            # The first existing folder decides, so that an incomplete copy is reported by name.
            try:
                return entry.read(root / folder)
            except MissingDataError as error:
                raise MissingDataError(f"{error}\n{_advice(name, entry, root)}") from error
    raise MissingDataError(
        f"{name} was not found in {root} (looked for {', '.join(entry.folders)}).\n"
        + _advice(name, entry, root)
    )


def _advice(name: str, entry: _Entry, root: Path) -> str:
    # The user may not know the layout: the advice names folder and option.
    advice = (
        f"Put {entry.contents} into DIR/{entry.folders[0]} and pass --data-dir DIR "
        "(data_dir=DIR in Python, or set SNNJAX_DATA=DIR)."
    )
    if entry.in_tfds:
        command = tfds.prepare_command(name, data_dir=root)
        advice += (
            f"\nOr let TensorFlow Datasets fetch it once:\n  {command}\n"
            "TFDS builds its own sets with TensorFlow (hence the extra); reading them needs none."
        )
    return advice + "\nThe data set 'digits' needs no files at all."
