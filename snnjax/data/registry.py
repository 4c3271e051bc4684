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
from snnjax.data._angular_velocity import read_angular_velocity
from snnjax.data._cifar import read_cifar10_jpeg, read_cifar_files
from snnjax.data._cifar10_dvs import read_cifar10_dvs
from snnjax.data._digits import load_digits
from snnjax.data._dvs128_gait import read_dvs128_gait
from snnjax.data._dvs128_gesture import read_dvs128_gesture
from snnjax.data._fsdd import read_fsdd
from snnjax.data._hapt import read_hapt
from snnjax.data._hardvs import read_hardvs
from snnjax.data._idx import read_idx_files
from snnjax.data._imagenet_parts import read_imagenet100, read_tiny_imagenet
from snnjax.data._ncaltech101 import read_ncaltech101
from snnjax.data._ncars import read_ncars
from snnjax.data._nmnist import read_nmnist
from snnjax.data._qtdb import read_qtdb
from snnjax.data._shd import read_shd
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
_FSDD = "the recordings <digit>_<speaker>_<index>.wav, or an archive of them,"
_SSC = "ssc_train.h5, ssc_valid.h5 and ssc_test.h5 of zenkelab.org/datasets, unpacked,"
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
    "imagenet100": _Entry(
        ("imagenet100", "ImageNet-100", "imagenet-100"),
        read_imagenet100,
        "train/<WordNet id>/*.JPEG and val/... of 100 classes, or train.X1, ... and val.X,",
    ),
    "tiny_imagenet": _Entry(
        ("tiny-imagenet-200", "tiny_imagenet"),
        read_tiny_imagenet,
        "the unpacked train and val folders of cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    "ncaltech101": _Entry(
        ("ncaltech101", "N-Caltech101", "Caltech101"),
        read_ncaltech101,
        "the unpacked class folders of Caltech101.zip (accordion/image_0001.bin, ...)",
    ),
    "hardvs": _Entry(
        ("hardvs", "HARDVS", "MINI_HARDVS_files"),
        read_hardvs,
        "the unpacked folders action_001, ... of MINI_HARDVS_files with train_label.txt and "
        "test_label.txt",
    ),
    "angular_velocity": _Entry(
        ("angular-velocity", "snn_angular_velocity"),
        read_angular_velocity,
        "the unpacked train/*/*.h5 and test/*.h5 of rpg.ifi.uzh.ch/data/snn_angular_velocity",
    ),
    "shd": _Entry(
        ("shd", "SHD"),
        read_shd,
        "shd_train.h5 and shd_test.h5 of zenkelab.org/datasets, unpacked,",
    ),
    "ssc": _Entry(("ssc", "SSC"), functools.partial(read_shd, name="ssc"), _SSC),
    "ssc_valid": _Entry(
        ("ssc", "SSC"), functools.partial(read_shd, name="ssc", test="valid"), _SSC
    ),
    "fsdd": _Entry(("fsdd", "free-spoken-digit-dataset"), read_fsdd, _FSDD),
    "fsdd_by_index": _Entry(
        ("fsdd", "free-spoken-digit-dataset"), functools.partial(read_fsdd, by_index=True), _FSDD
    ),
    "qtdb_ecg": _Entry(
        ("qtdb-ecg", "ECG"),
        read_qtdb,
        "QTDB_train.mat and QTDB_test.mat of github.com/byin-cwi/Efficient-spiking-networks",
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
            `"dvs128_gesture_10"` is `"dvs128_gesture"` without the class of other gestures;
            `"ssc_valid"` tests on the validation part of `"ssc"`; `"fsdd"` holds speakers out,
            `"fsdd_by_index"` recordings.
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
