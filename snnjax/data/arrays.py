"""Data sets of the user's own arrays, in memory or in an `.npz` file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snnjax.data._recordings import Recordings
from snnjax.data.dataset import CorruptDataError, Dataset, Inputs, MissingDataError, Split

_KEYS = ("train_inputs", "train_labels", "test_inputs", "test_labels")


def from_arrays(
    train_inputs: Inputs,
    train_labels: np.ndarray,
    test_inputs: Inputs,
    test_labels: np.ndarray,
    *,
    name: str = "arrays",
    class_names: Sequence[str] | None = None,
    scale: float | None = None,
    input_shape: tuple[int, ...] | None = None,
    note: str = "",
) -> Dataset:
    """Makes a data set from arrays or event recordings.

    Args:
        train_inputs: `[N, ...]`, any dtype; or a list, a tuple or `Recordings` of events.
        train_labels: `[N]` integers from 0; or real targets, `[N, D]` floating, of which
            `[N, T, D]` holds one per timestep.
        test_inputs: `[M, ...]`, as `train_inputs`.
        test_labels: `[M]` integers from 0, or real targets as in training.
        name: Name of the data set.
        class_names: Names of the classes; by default "0" up to the largest label. Real targets have
            none.
        scale: Factor of `rescale`; by default 1/255 for uint8, otherwise 1.
        input_shape: Shape of one input without time; by default the shape of one array. Required
            for event recordings, which have no shape of their own: `(H, W, 2)`.
        note: Origin, citation and licence.

    Returns:
        The data set.

    Raises:
        TypeError: If labels are neither integers `[N]` nor real targets.
        ValueError: If numbers of examples or shapes disagree, or a split is empty.

    Example:
        >>> import numpy as np
        >>> x, y = np.zeros((6, 4, 4, 1), np.uint8), np.array([0, 1, 2, 0, 1, 2])
        >>> from_arrays(x, y, x[:3], y[:3], name="mine").classes
        3
    """
    train, test = _split(train_inputs, train_labels), _split(test_inputs, test_labels)
    # A data set without examples would fail in a loader, far from here.
    for split in (train, test):
        if len(split) == 0:
            raise ValueError(f"{name}: both splits need at least one example")
    if isinstance(train.inputs, np.ndarray) and isinstance(test.inputs, np.ndarray):
        input_shape = train.inputs.shape[1:] if input_shape is None else input_shape
        scale = (1 / 255 if train.inputs.dtype == np.uint8 else 1.0) if scale is None else scale
        if train.inputs.shape[1:] != test.inputs.shape[1:]:
            raise ValueError(
                f"{name}: training inputs have shape {train.inputs.shape[1:]}, test inputs "
                f"{test.inputs.shape[1:]}"
            )
    # Events do not tell the size of the camera: its last row may have been silent.
    elif input_shape is None:
        raise ValueError(f"{name}: recordings need input_shape=(H, W, 2)")
    if train.labels.shape[1:] != test.labels.shape[1:] or train.labels.dtype != test.labels.dtype:
        raise ValueError(
            f"{name}: training targets are {train.labels.dtype} {train.labels.shape[1:]}, test "
            f"targets {test.labels.dtype} {test.labels.shape[1:]}"
        )
    real = train.labels.dtype.kind == "f"
    # Both splits count: a rare class may be absent in one of them.
    classes = 0 if real else 1 + max(int(train.labels.max()), int(test.labels.max()))
    names = tuple(map(str, range(classes))) if class_names is None else tuple(class_names)
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=len(names),
        class_names=names,
        input_shape=tuple(input_shape),
        scale=1.0 if scale is None else scale,
        note=note,
    )


def from_npz(path: str | Path) -> Dataset:
    """Makes a data set from an `.npz` file.

    Args:
        path: A file written by `numpy.savez`, with the arrays `train_inputs`, `train_labels`,
            `test_inputs`, `test_labels` and optionally `class_names`.

    Returns:
        The data set, named after the file.

    Raises:
        MissingDataError: If the file does not exist.
        CorruptDataError: If an array is missing or pickled; pickles are not read.
    """
    path = Path(path)
    if not path.is_file():
        keywords = ", ".join(f"{key}=..." for key in _KEYS)
        raise MissingDataError(f"{path} does not exist; write it by numpy.savez(path, {keywords})")
    try:
        # Opened here: NumPy leaks its own handle if the file is no zip. Pickles stay refused, since
        # unpickling runs code from the file.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptDataError(f"{path} cannot be read: {error}") from error
    # Named all at once, with the keys that are there, to show a misspelling.
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise CorruptDataError(f"{path} lacks {', '.join(missing)}; it has {sorted(arrays)}")
    names = arrays.get("class_names")
    return from_arrays(
        *(arrays[key] for key in _KEYS),
        name=path.stem,
        class_names=None if names is None else [str(n) for n in names],
        note=f"Read from {path.name}.",
    )


def _split(inputs: Inputs, labels: np.ndarray) -> Split:
    if not isinstance(inputs, (list, tuple, Recordings)):
        # A jax.Array would be gathered on the device, one transfer per batch.
        inputs = np.asarray(inputs)
    labels = np.asarray(labels)
    # One-hot rows are classes in disguise: a regression to them would train, and mean nothing.
    if labels.dtype.kind == "f" and labels.ndim > 1 and not _is_one_hot(labels):
        return Split(inputs, labels.astype(np.float32))
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise TypeError(
            f"labels must be integers [N] from 0, not {labels.dtype} {labels.shape}; turn one-hot "
            "rows into integers with labels.argmax(axis=1); real targets are floating [N, D], "
            "labels[:, None] for D = 1"
        )
    return Split(inputs, labels.astype(np.int32))


def _is_one_hot(labels: np.ndarray) -> bool:
    """True if every row is 0 but for a single 1."""
    rows = labels.reshape(-1, labels.shape[-1])
    return rows.shape[1] > 1 and bool(((rows == 1).sum(1) == 1).all() and (rows.sum(1) == 1).all())
