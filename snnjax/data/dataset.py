"""A data set: a training and a test split, with the shape, scale and classes a network needs.

Inputs stay on the host as they were published: images as `uint8`, sensor windows as `float32`,
event recordings as sequences of integer arrays `[E, 4]` with one row `t, x, y, p` per event, the
input of `snnjax.encoding`. Recordings are a tuple if the set fits in memory, otherwise
`Recordings`, which reads on access. `rescale(inputs, dataset.scale)` makes float32 values in the
unit interval inside the jitted step.

`Split` validates the values of its arrays, `Dataset` the agreement of its splits. An error here
names the example; later the value would be a NaN in some layer, or a neuron that never fires.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np


class MissingDataError(FileNotFoundError):
    """The data set is not on this machine; the message says how to get it and where to put it."""


class CorruptDataError(ValueError):
    """The content of a file does not match its data set or format: truncated or altered."""


Events: TypeAlias = np.ndarray
"""One recording of an event camera in order of time: `[E, 4]` int32 with the columns time in
microseconds, pixel column, pixel row and polarity (1 brighter, 0 darker)."""

Inputs: TypeAlias = np.ndarray | Sequence[Events]

_CHUNK = 1 << 24  # bytes validated at a time: a memory-mapped array never enters memory as a whole


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples and their labels, in a fixed order.

    Attributes:
        inputs: `[N, ...]` array, a sequence of `N` recordings (`Events`), or a sequence that
            computes its examples on access (`LazyInputs`).
        labels: `[N]` int32, in `0 .. K-1`; or targets: `[N, T]` int32, a class per timestep, or
            `[N, D]` and `[N, T, D]` float32, real numbers per example and per timestep.
        groups: `[N]` int32 or None: group of each example, for instance the person who wore the
            sensor. Examples of one group must not be divided between training and test.
        lengths: `[N]` int32 or None: valid timesteps of padded sequences `[N, T, ...]`, in
            [1, T]; None if all T are valid. Values of the padding have no effect.

    Raises:
        TypeError: If inputs are no numbers (objects, text, masked arrays), or labels neither
            integers nor real targets.
        ValueError: If the numbers of inputs, labels, groups and lengths differ, a value is not
            finite, a value does not fit 32 bits, or a length is outside [1, T].
    """

    inputs: Inputs
    labels: np.ndarray
    groups: np.ndarray | None = None
    lengths: np.ndarray | None = None

    # eq=False above: comparing arrays has no single truth value.
    def __post_init__(self):
        store = functools.partial(object.__setattr__, self)  # the class is frozen
        store("inputs", _valid_inputs(self.inputs))
        store("labels", as_labels(self.labels))
        if self.groups is not None:
            store("groups", as_labels(self.groups, name="groups"))
        counts = {len(self.inputs), len(self.labels)}
        counts |= set() if self.groups is None else {len(self.groups)}
        if len(counts) != 1:
            raise ValueError(
                f"a split needs one label per example: {len(self.inputs)} inputs, "
                f"{len(self.labels)} labels"
                + ("" if self.groups is None else f", {len(self.groups)} groups")
            )
        if self.lengths is not None:
            store("lengths", _valid_lengths(self.lengths, self.inputs, self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        """One example as `(input, label)`, the contract of a random-access source."""
        return self.inputs[index], self.labels[index]

    def take(self, indices: np.ndarray) -> Split:
        """Selects the examples at `indices` `[n]`, in that order, or those of a mask `[N]`."""
        indices = _indices(indices, len(self))
        groups, lengths = (
            None if own is None else own[indices] for own in (self.groups, self.lengths)
        )
        # Past `__init__`, which would read all values once more to check them.
        chosen = object.__new__(Split)
        vars(chosen).update(
            inputs=take(self.inputs, indices), labels=self.labels[indices], groups=groups,
            lengths=lengths,
        )  # fmt: skip
        return chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set with its published (or a fixed) split into training and test examples.

    Attributes:
        name: Name passed to `load`.
        train: Training split.
        test: Test split.
        classes: Number of classes `K`; 0 if targets are real numbers.
        class_names: The `K` names, in the order of the labels.
        input_shape: Shape of one input without time and batch: `(H, W, C)` for an image or an event
            camera (`C` = 2 polarities), `(T, C)` for a window of a series.
        scale: Factor of `rescale`: 1/255 for 8-bit images, 1/16 for the 8x8 digits, 1 for inputs
            that are floating-point already.
        note: Origin, citation and restrictions of the licence.

    Raises:
        CorruptDataError: If a label is outside the classes.
        ValueError: If training and test differ in shape or dtype or share a group, or `classes`,
            `class_names`, `scale` and `input_shape` do not describe them.
    """

    name: str
    train: Split
    test: Split
    classes: int
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    scale: float
    note: str

    def __post_init__(self):
        require("train", self.train, Split)
        require("test", self.test, Split)
        require("name", self.name, str)
        require("note", self.note, str)
        whole_number(f"{self.name}: classes", self.classes, least=0)
        if isinstance(self.class_names, str) or not all(
            isinstance(n, str) for n in self.class_names
        ):
            raise TypeError(
                f"{self.name}: class_names is a sequence of names, not {self.class_names!r}"
            )
        if len(self.class_names) != self.classes:
            raise ValueError(
                f"{self.name}: {self.classes} classes but {len(self.class_names)} class names"
            )
        double = _first_duplicate(self.class_names)
        if double is not None:
            raise ValueError(f"{self.name}: two classes are named {double!r}: give each its own")
        if not (0 < self.scale < math.inf):
            raise ValueError(
                f"{self.name}: scale is a positive factor, not {self.scale}: 1/255 for 8-bit "
                "images, 1 for floating-point inputs"
            )
        for split in (self.train, self.test):
            _check_classes(self.name, split.labels, self.classes)
        _check_agreement(self.name, self.train, self.test)
        _check_input_shape(self.name, self.train.inputs, self.input_shape)


def rescale(
    inputs: jax.typing.ArrayLike,
    scale: float,
    *,
    mean: float | Sequence[float] = 0.0,
    deviation: float | Sequence[float] = 1.0,
) -> jax.Array:
    """Converts stored inputs to float32 in the unit interval, and standardises them on request.

    Call it inside the jitted step: the data set then stays 8-bit on the host and in the transfer,
    a quarter of its float32 size.

        rescale(x) = (float32(x) * scale - mean) / deviation

    Args:
        inputs: `[...]`, of any dtype, as stored in a `Split`.
        scale: `Dataset.scale`.
        mean: mean of the scaled inputs, a number or one per channel.
        deviation: their standard deviation, likewise.

    Returns:
        `[...]` float32.

    Raises:
        TypeError: If `inputs` are no real numbers.
        ValueError: If `scale` or a deviation is a number that is not positive and finite.
    """
    require("scale", scale, float | int | np.number | np.ndarray | jax.Array)
    # A number is checked; an array may have one factor per channel, and may be traced.
    if not isinstance(scale, np.ndarray | jax.Array) and not 0 < scale < math.inf:
        raise ValueError(f"scale is a positive factor, not {scale}: give dataset.scale")
    if not isinstance(inputs, jax.Array):
        inputs = _unmasked("inputs", inputs)
        # NumPy's 64-bit integers would wrap to 32 bits on their way into JAX.
        if inputs.dtype.kind in "iu" and inputs.dtype.itemsize == 8:
            inputs = inputs.astype(np.float32)
    check_dtype("inputs", inputs)
    center, spread = (np.asarray(values, np.float32) for values in (mean, deviation))
    if not (np.isfinite(center).all() and np.isfinite(spread).all() and (spread > 0).all()):
        raise ValueError(f"mean is finite and deviation positive, got {mean} and {deviation}")
    # float32 by name: a NumPy scale of 64 bits would widen the result under `jax_enable_x64`.
    scaled = jnp.asarray(inputs).astype(jnp.float32) * jnp.float32(scale)
    # Without a mean nothing is computed: stored spikes stay 0 and 1, and programs what they were.
    return (scaled - center) / spread if center.any() or (spread != 1).any() else scaled


def patches(images: jax.Array, *, size: int = 2) -> jax.Array:
    """Moves the pixels of each patch into the channel axis (space to depth).

        y[b, i, j, (k, l, c)] = x[b, size i + k, size j + l, c]

    A convolution of the result equals one of the image with `size` times the kernel and stride, and
    all layers behind it are `size^2` times cheaper.

    Args:
        images: `[B, H, W, C]`, of any dtype.
        size: Pixels along each side of a patch.

    Returns:
        `[B, H / size, W / size, size^2 C]`, of the same dtype.

    Raises:
        ValueError: If H or W is not a multiple of `size`, or `images` is no batch of images.
    """
    if getattr(images, "ndim", 0) != 4:
        shape = list(getattr(images, "shape", ()))
        raise ValueError(
            f"patches are cut from images [B, H, W, C], not {shape}: cut them before the encoding "
            "that adds time"
        )
    batch, height, width, channels = images.shape
    if size < 1 or height % size or width % size:
        raise ValueError(f"patches of {size} do not fill images of {height}x{width}: pad them")
    blocks = images.reshape(batch, height // size, size, width // size, size, channels)
    # Rows and columns of a patch become neighbours, then one axis with its channels.
    return blocks.swapaxes(2, 3).reshape(batch, height // size, width // size, -1)


def take(examples: Any, indices: np.ndarray) -> Any:
    """Selects the examples at `indices` `[n]`, in that order; lazy sequences stay lazy."""
    if isinstance(examples, np.ndarray):
        return examples[indices]
    # Lists of events have no `take`; lazy sequences define theirs.
    if hasattr(examples, "take"):
        return examples.take(indices)
    return tuple(examples[int(i)] for i in indices)


def require(name: str, value: Any, kind: Any) -> None:
    """Raises a `TypeError` with the name of the argument unless `value` is of a type."""
    if not isinstance(value, kind):
        cure = ""
        if kind is Split and isinstance(value, Dataset):
            cure = ": give dataset.train or dataset.test"
        raise TypeError(
            f"{name} is a {getattr(kind, '__name__', kind)}, not {type(value).__name__}{cure}"
        )


def whole_number(name: str, value: Any, *, least: int | None = None) -> int:
    """Converts an argument to an `int` of at least `least`, or raises an error with its name."""
    try:
        # bool is an integer to Python, but batch_size=True is a mistake.
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is a whole number, not {value!r}: give an int") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is at least {least}, not {number}")
    return number


def as_labels(values: Any, *, name: str = "labels") -> np.ndarray:
    """Converts labels to int32 and real targets to float32, after their range is checked.

    Args:
        values: `[N, ...]` integers, or `[N, D, ...]` floating-point targets.
        name: Name of the argument in error messages.

    Returns:
        The same values as a NumPy array of 32 bits.

    Raises:
        TypeError: If the values are neither; a class is never read off a fraction.
        ValueError: If a value is not finite or does not fit 32 bits.
    """
    array = _unmasked(name, values)
    if array.dtype.kind in "iu" and array.ndim:
        limits = np.iinfo(np.int32)
        if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
            raise ValueError(
                f"{name} run from {array.min()} to {array.max()}, beyond 32 bits: number them from "
                "zero, numpy.unique(labels, return_inverse=True)[1]"
            )
        return array.astype(np.int32, copy=False)
    if jnp.issubdtype(array.dtype, jnp.floating) and array.ndim > 1 and name == "labels":
        _check_finite("targets", array)
        return array.astype(np.float32, copy=False)
    raise TypeError(
        f"{name} must be integers [N] from 0, not {array.dtype} {array.shape}; whole numbers "
        "become labels.astype('int32'), one-hot rows labels.argmax(axis=1), names "
        "numpy.unique(labels, return_inverse=True)[1]; real targets are floating [N, D], "
        "labels[:, None] for D = 1"
    )


def _valid_inputs(inputs: Any) -> Any:
    # A jax.Array would be gathered on the device, one transfer per batch.
    if isinstance(inputs, np.ndarray) or hasattr(inputs, "__array__"):
        inputs = _unmasked("inputs", inputs)
        if inputs.ndim == 0:
            raise ValueError("inputs have no axis of examples: give [N, ...], e.g. x[None]")
        if len(inputs) and not inputs.size:
            raise ValueError(f"inputs {list(inputs.shape)} hold examples without a single number")
        check_values("inputs", inputs)
    # Other sequences read or compute on access; their readers and transforms are checked there.
    elif isinstance(inputs, tuple | list):
        for number, example in enumerate(inputs):
            if isinstance(example, np.ndarray):
                check_dtype(f"inputs[{number}]", _unmasked(f"inputs[{number}]", example))
                # Integers are events, whose times in microseconds may need 64 bits until encoded.
                if jnp.issubdtype(example.dtype, jnp.floating):
                    _check_finite(f"inputs[{number}]", example)
    return inputs


def _valid_lengths(lengths: Any, inputs: Any, labels: np.ndarray) -> np.ndarray:
    array = _unmasked("lengths", lengths)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"lengths are whole numbers of timesteps, not {array.dtype}: lengths.astype('int32')"
        )
    if array.shape != labels.shape[:1]:
        raise ValueError(
            f"lengths must be one number per example, [{len(labels)}], not {list(array.shape)}"
        )
    if isinstance(inputs, np.ndarray) and inputs.ndim < 2:
        raise ValueError(f"lengths need inputs [N, T, ...] with time behind N, not {inputs.shape}")
    # Recordings have no timesteps before they are encoded.
    windows = [inputs.shape[1]] if isinstance(inputs, np.ndarray) else []
    windows += [labels.shape[1]] if per_timestep(labels) else []
    if len(set(windows)) > 1:
        raise ValueError(
            f"inputs have {windows[0]} timesteps and targets {windows[1]}: pad both to one length, "
            f"data.pad(targets, timesteps={windows[0]})"
        )
    most = windows[0] if windows else np.iinfo(np.int32).max
    wrong = (array < 1) | (array > most)
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(
            f"lengths[{place}] is {array[place]}, outside [1, {most}], the timesteps of its "
            "example: cut longer sequences, leave out empty ones, or pad all of them by data.pad"
        )
    return array.astype(np.int32, copy=False)


def per_timestep(labels: np.ndarray) -> bool:
    """True for labels `[N, T]` and real targets `[N, T, D]`, one per timestep."""
    return labels.ndim == (3 if labels.dtype.kind == "f" else 2)


def _unmasked(name: str, values: Any) -> np.ndarray:
    # NumPy drops a mask without a word, and the values below it become data.
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} are a masked array: fill the gaps, values.filled(0)")
    if isinstance(values, np.memmap):
        return values
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} are rows of different lengths ({error}): pad them") from error


def check_dtype(name: str, array: np.ndarray | jax.Array) -> None:
    """Raises a `TypeError` that names `name` unless the dtype is that of real numbers."""
    dtype = array.dtype
    real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    if not real and dtype.kind != "b":
        raise TypeError(
            f"{name} must be real numbers, not {dtype}: recordings of different lengths are a "
            "list, list(inputs); complex signals their parts, numpy.stack([z.real, z.imag], -1); "
            "text and paths go through data.map_inputs, as a tuple"
        )


def check_values(name: str, array: np.ndarray) -> None:
    """Raises an error that names `name` unless all values are real numbers of a batch."""
    check_dtype(name, array)
    _check_finite(name, array)


def _check_finite(name: str, array: np.ndarray) -> None:
    """Raises an error unless all values are finite and fit the 32 bits of a batch."""
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if not floating and array.dtype.itemsize < 8:
        return
    for start, chunk in _chunks(array):
        if floating:
            with np.errstate(over="ignore"):
                # float64 values beyond the range of float32 become infinite in `rescale`.
                valid = np.isfinite(chunk.astype(np.float32) if chunk.itemsize > 4 else chunk)
        else:
            limits = np.iinfo(np.int32 if array.dtype.kind == "i" else np.uint32)
            valid = (chunk >= limits.min) & (chunk <= limits.max)
        if not valid.all():
            bad = np.unravel_index(int(np.argmin(valid)), valid.shape)
            place = [start + int(bad[0]), *map(int, bad[1:])]
            raise CorruptDataError(
                f"{name}{place} is {chunk[bad]}: "
                + (
                    "every value must be finite in float32; remove or repair the example"
                    if floating
                    else "integers must fit 32 bits, those of a batch; scale or shift them"
                )
            )


def _chunks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows = max(1, _CHUNK * len(array) // max(array.nbytes, 1))
    return ((start, array[start : start + rows]) for start in range(0, len(array), rows))


def _check_classes(name: str, labels: np.ndarray, classes: int) -> None:
    real = labels.dtype.kind == "f"
    if real != (classes == 0):
        raise ValueError(
            f"{name}: {classes} classes and {labels.dtype} labels; real targets "
            "need classes=0, and class labels are integers: labels.astype('int32')"
        )
    # An index out of range raises no error in a jitted loss.
    if not real and labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise CorruptDataError(
            f"{name}: labels run from {labels.min()} to {labels.max()}, "
            f"outside 0..{classes - 1}; count classes from zero"
        )


def _check_agreement(name: str, train: Split, test: Split) -> None:
    a, b = train.inputs, test.inputs
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(
                f"{name}: training inputs have shape {a.shape[1:]}, test inputs {b.shape[1:]}"
            )
        # One scale serves both: 8-bit and floating-point images would differ by 255.
        if a.dtype != b.dtype:
            raise ValueError(
                f"{name}: training inputs are {a.dtype}, test inputs {b.dtype}: convert both to "
                "one dtype and one range of values"
            )
    a, b = train.labels, test.labels
    if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
        raise ValueError(
            f"{name}: training targets are {a.dtype} {a.shape[1:]}, test "
            f"targets {b.dtype} {b.shape[1:]}"
        )
    if (train.lengths is None) != (test.lengths is None):
        raise ValueError(
            f"{name}: only one of the splits has lengths: give both, numpy.full(N, T) where all "
            "timesteps are valid"
        )
    if train.groups is not None and test.groups is not None:
        shared = np.intersect1d(train.groups, test.groups)
        if len(shared):
            raise ValueError(
                f"{name}: group {shared[0]} is in both splits ({len(shared)} groups are): its test "
                "examples are not new to the network; divide by group"
            )


def _check_input_shape(name: str, inputs: Any, input_shape: Any) -> None:
    shape = tuple(whole_number(f"{name}: input_shape", side, least=1) for side in input_shape)
    # Without time, where the first axis of an example is time.
    if isinstance(inputs, np.ndarray) and shape not in (inputs.shape[1:], inputs.shape[2:]):
        raise ValueError(
            f"{name}: input_shape {shape} is not that of inputs {inputs.shape[1:]}, with or "
            "without a leading time axis"
        )


def _indices(indices: Any, count: int) -> np.ndarray:
    array = np.asarray(indices)
    # A tuple of recordings would take True and False for its examples 1 and 0.
    if array.dtype.kind == "b":
        if array.shape != (count,):
            raise ValueError(f"a mask has one entry per example, [{count}], not {array.shape}")
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(f"indices are integers [n], not {array.dtype} {array.shape}")
    if array.size and not -count <= array.min() <= array.max() < count:
        raise IndexError(
            f"indices run from {array.min()} to {array.max()}, and the split has {count} examples"
        )
    return array.astype(np.intp)


def _first_duplicate(values: Sequence[Any]) -> Any:
    if len(set(values)) == len(values):
        return None
    return next(value for place, value in enumerate(values) if value in values[:place])
