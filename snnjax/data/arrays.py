"""Data sets of the user's own arrays, in memory or in an `.npz` file."""

from __future__ import annotations

import dataclasses
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from snnjax.data._archive import refuse_duplicates
from snnjax.data._recordings import Recordings, as_events
from snnjax.data.dataset import (
    CorruptDataError,
    Dataset,
    Inputs,
    MissingDataError,
    Split,
    whole_number,
)

_KEYS = ("train_inputs", "train_labels", "test_inputs", "test_labels")
_LENGTHS = ("train_lengths", "test_lengths")
_BASE, _RATIO = 256 << 20, 100  # bytes of all arrays: base + ratio * size of the file
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_CLASSES = 2**20  # a readout of more has no use; 2^31 names would fill the memory


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
    lengths: tuple[Any, Any] | None = None,
) -> Dataset:
    """Makes a data set from arrays or event recordings.

    Args:
        train_inputs: `[N, ...]`, any dtype; or a list, a tuple or `Recordings` of events. Events in
            memory are sorted by time.
        train_labels: `[N]` integers from 0, or `[N, T]`, a class per timestep; or real targets,
            `[N, D]` floating, of which `[N, T, D]` holds one per timestep.
        test_inputs: `[M, ...]`, as `train_inputs`.
        test_labels: Labels or targets as in training.
        name: Name of the data set.
        class_names: Names of the classes; by default "0" up to the largest label. Real targets have
            none.
        scale: Factor of `rescale`; by default 1/255 for uint8, otherwise 1.
        input_shape: Shape of one input without time; by default the shape of one array. Required
            for event recordings, which have no shape of their own: `(H, W, 2)`.
        note: Origin, citation and licence.
        lengths: Valid timesteps of the training and of the test sequences, integers `[N]` and `[M]`
            in [1, T], for inputs `[N, T, ...]` padded behind their end, see `pad`; None if all
            timesteps are valid. Of recordings they count the timesteps of the encoded frames.

    Returns:
        The data set.

    Raises:
        TypeError: If labels are neither integers nor real targets, inputs no numbers, or lengths no
            integers.
        CorruptDataError: If a value is not finite or fits no 32 bits, or a recording is damaged.
        ValueError: If numbers of examples, shapes or dtypes disagree, a length is outside [1, T],
            or a split is empty.

    Example:
        >>> import numpy as np
        >>> x, y = np.zeros((6, 4, 4, 1), np.uint8), np.array([0, 1, 2, 0, 1, 2])
        >>> from_arrays(x, y, x[:3], y[:3], name="mine").classes
        3
    """
    if lengths is not None and (not isinstance(lengths, tuple | list) or len(lengths) != 2):
        raise TypeError(
            f"{name}: lengths are a pair, those of the training and those of the test sequences"
        )
    own = (None, None) if lengths is None else lengths
    splits = [
        _split(train_inputs, train_labels, own[0]), _split(test_inputs, test_labels, own[1])
    ]  # fmt: skip
    # A data set without examples would fail in a loader, far from here.
    if not all(len(split) for split in splits):
        raise ValueError(f"{name}: both splits need at least one example")
    inputs = splits[0].inputs
    if isinstance(inputs, np.ndarray):
        input_shape = inputs.shape[1:] if input_shape is None else input_shape
        scale = (1 / 255 if inputs.dtype == np.uint8 else 1.0) if scale is None else scale
    # Events do not tell the size of the camera: its last row may have been silent.
    elif input_shape is None:
        raise ValueError(f"{name}: recordings need input_shape=(H, W, 2)")
    train, test = (_checked_events(split, input_shape, name) for split in splits)
    real = train.labels.dtype.kind == "f"
    if isinstance(class_names, str):
        raise TypeError(f"{name}: class_names is a sequence of names, not the text {class_names!r}")
    if class_names is None:
        # Both splits count: a rare class may be absent in one of them.
        labels = (train.labels, test.labels)
        classes = 0 if real else 1 + max(int(part.max(initial=-1)) for part in labels)
        if classes > _MOST_CLASSES:
            raise ValueError(
                f"{name}: labels up to {classes - 1} are numbers of something else than classes: "
                "number the classes from zero, numpy.unique(labels, return_inverse=True)[1]"
            )
        class_names = tuple(map(str, range(classes)))
    return Dataset(
        name=name,
        train=train,
        test=test,
        classes=len(class_names),
        class_names=tuple(class_names),
        input_shape=tuple(input_shape),
        scale=1.0 if scale is None else scale,
        note=note,
    )


def pad(sequences: Sequence[Any], *, timesteps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pads sequences of different lengths by zeros, for `lengths` of `from_arrays`.

        train, train_lengths = data.pad(recordings)                        # [N, T, ...], [N]

    Args:
        sequences: N arrays `[T_i, ...]` of one dtype and shape but for their length: inputs, or
            targets per timestep.
        timesteps: T; None is the length of the longest sequence.

    Returns:
        The padded sequences `[N, T, ...]`, and their lengths `[N]` int32.

    Raises:
        ValueError: If there is no sequence, one is empty or longer than T, or shapes or dtypes
            differ.
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays or not all(array.ndim and len(array) for array in arrays):
        raise ValueError("data.pad needs at least one sequence, of at least one timestep each")
    if len({array.dtype for array in arrays}) > 1 or len({a.shape[1:] for a in arrays}) > 1:
        kinds = sorted({f"{array.dtype} {list(array.shape[1:])}" for array in arrays})
        raise ValueError(f"sequences may differ in length only, not {' and '.join(kinds)}")
    lengths = np.array([len(array) for array in arrays], np.int32)
    longest = int(lengths.max())
    timesteps = longest if timesteps is None else whole_number("timesteps", timesteps, least=1)
    if longest > timesteps:
        raise ValueError(
            f"sequence {lengths.argmax()} has {longest} timesteps, more than {timesteps}: cut it, "
            f"or give timesteps={longest}"
        )
    padded = np.zeros((len(arrays), timesteps, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


def from_npz(path: str | Path) -> Dataset:
    """Makes a data set from an `.npz` file.

    Args:
        path: A file written by `numpy.savez`, with the arrays `train_inputs`, `train_labels`,
            `test_inputs`, `test_labels` and optionally `class_names`, `train_lengths` and
            `test_lengths`.

    Returns:
        The data set, named after the file.

    Raises:
        MissingDataError: If the file does not exist.
        CorruptDataError: If an array is missing or pickled (pickles are not read), its header
            states another size than its content has, or the arrays together have more than 256 MiB
            and 100 times the size of the file.
    """
    path = Path(path)
    if not path.is_file():
        keywords = ", ".join(f"{key}=..." for key in _KEYS)
        raise MissingDataError(f"{path} does not exist; write it by numpy.savez(path, {keywords})")
    arrays = read_npz(path, _KEYS, optional=(*_LENGTHS, "class_names"))
    names = arrays.get("class_names")
    lengths = arrays.get(_LENGTHS[0]), arrays.get(_LENGTHS[1])
    return from_arrays(
        *(arrays[key] for key in _KEYS),
        name=path.stem,
        class_names=None if names is None else _names(names),
        note=f"Read from {path.name}.",
        lengths=None if all(own is None for own in lengths) else lengths,
    )


def read_npz(
    path: Path, required: Sequence[str], *, optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Reads arrays of an `.npz` file; others are not touched.

    Args:
        path: Path of the file.
        required: Names of the arrays that it must have.
        optional: Names of those that it may have.

    Returns:
        Name to array.

    Raises:
        CorruptDataError: As `from_npz`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            present = [name.removesuffix(".npy") for name in archive.namelist()]
            arrays = _npz_arrays(archive, path, (*required, *optional))
    except (ValueError, OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise CorruptDataError(f"{path} cannot be read: {error}") from error
    # Named all at once, with the keys that are there, to show a misspelling.
    missing = [key for key in required if key not in arrays]
    if missing:
        raise CorruptDataError(f"{path} lacks {', '.join(missing)}; it has {sorted(present)}")
    return arrays


def _npz_arrays(
    archive: zipfile.ZipFile, path: Path, names: Sequence[str]
) -> dict[str, np.ndarray]:
    members = [i for i in archive.infolist() if i.filename.removesuffix(".npy") in names]
    refuse_duplicates(path, ((info.filename,) for info in members))
    # Frames of events are mostly zeros, which pack better than files of other data sets.
    limit = _BASE + _RATIO * path.stat().st_size
    if sum(info.file_size for info in members) > limit:
        raise CorruptDataError(
            f"its arrays have {sum(info.file_size for info in members)} bytes, more than {limit}: "
            "write it by numpy.savez instead of savez_compressed, if it is yours"
        )
    arrays = {}
    for info in members:
        with archive.open(info) as member:
            _check_npy(member, info)
        with archive.open(info) as member:
            # Pickles stay refused, since unpickling runs code from the file.
            arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(
                member, allow_pickle=False
            )
    return arrays


def _check_npy(member: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Raises an error unless the header describes the content, before NumPy allocates for it."""
    version = np.lib.format.read_magic(member)
    if version not in _NPY_HEADERS:
        raise CorruptDataError(f"{info.filename} has the .npy version {version}, not 1.0 or 2.0")
    shape, _, dtype = _NPY_HEADERS[version](member)
    # Objects have no size of their own; `read_array` refuses them as pickled.
    if dtype.hasobject:
        return
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or member.tell() + size != info.file_size:
        raise CorruptDataError(
            f"{info.filename} states {dtype} {shape}, {size} bytes, and has "
            f"{info.file_size - member.tell()}; write it again"
        )


def _names(names: np.ndarray) -> list[str]:
    if names.ndim != 1:
        raise ValueError(f"class_names must be one name per class, [K], not {list(names.shape)}")
    # str(b"cat") would be "b'cat'".
    return [n.decode() if isinstance(n, bytes) else str(n) for n in names]


def _split(inputs: Inputs, labels: np.ndarray, lengths: Any) -> Split:
    if not isinstance(inputs, (list, tuple, Recordings)):
        inputs = np.asanyarray(inputs)  # keeps a mask, which `Split` refuses
    split = Split(inputs, labels, lengths=lengths)
    labels = split.labels
    # One-hot rows are classes in disguise: a regression to them would train, and mean nothing.
    whole = labels.dtype.kind != "f"
    # An event per sequence looks alike, as one label of each of its timesteps.
    stepwise = whole and labels.shape[1:] == getattr(split.inputs, "shape", ())[1:2]
    if labels.ndim != 1 and ((_is_one_hot(labels) and not stepwise) or (whole and labels.ndim > 2)):
        raise TypeError(
            f"labels must be integers [N] from 0, not {labels.dtype} {labels.shape}; turn one-hot "
            "rows into integers with labels.argmax(axis=-1), quantities into real targets with "
            "labels.astype('float32')"
        )
    return split


def _checked_events(split: Split, input_shape: tuple[int, ...], name: str) -> Split:
    """The split with its recordings in memory validated by `as_events`."""
    if not isinstance(split.inputs, list | tuple):
        return split
    if len(input_shape) != 3 or input_shape[-1] != 2:
        raise ValueError(f"{name}: recordings need input_shape=(H, W, 2), not {input_shape}")
    recordings = []
    for number, events in enumerate(split.inputs):
        events = np.asarray(events)
        if events.ndim != 2 or events.shape[1] != 4:
            raise ValueError(
                f"{name}: recording {number} must be [E, 4] with the columns t, x, y, polarity, "
                f"got {list(events.shape)}: use np.stack([t, x, y, p], axis=1)"
            )
        recordings.append(
            as_events(
                *events.T,
                height=input_shape[0],
                width=input_shape[1],
                name=f"{name}: recording {number}",
            )
        )
    return dataclasses.replace(split, inputs=tuple(recordings))


def _is_one_hot(labels: np.ndarray) -> bool:
    """True if every row is 0 but for a single 1."""
    rows = labels.reshape(-1, labels.shape[-1])
    return rows.shape[1] > 1 and bool(((rows == 1).sum(1) == 1).all() and (rows.sum(1) == 1).all())
