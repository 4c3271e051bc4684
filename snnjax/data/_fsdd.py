"""Free Spoken Digit Dataset: 3,000 recordings of the digits 0 to 9 by six speakers, 8 kHz.

Files are `recordings/<digit>_<speaker>_<index>.wav`: one channel, 16 bits. Two splits are read:

    fsdd             speakers theo and yweweler test (1,000), the other four train (2,000)
    fsdd_by_index    the set's own: index 0 to 4 of every speaker and digit test (300)

The second tests on voices heard in training; an accuracy on it says less about new speakers.

Reference:
    Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas, A. Thite, "Free Spoken Digit Dataset",
    version 1.0.10, 2018, github.com/Jakobovski/free-spoken-digit-dataset.
"""

from __future__ import annotations

import io
import re
import wave
from pathlib import Path, PurePosixPath

import numpy as np

from snnjax.data._archive import read_files, refuse_duplicates
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

RATE = 8000  # samples per second
TEST_SPEAKERS = ("theo", "yweweler")
"""Speakers of the test split of `fsdd`: the last two of six, in order of their names."""
_TEST_INDICES = range(5)
_LARGEST = 1 << 20  # bytes of a recording: a minute; published ones have at most 36,600
_NAME = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")


def read_fsdd(folder: Path, *, by_index: bool = False) -> Dataset:
    """Reads the recordings of the Free Spoken Digit Dataset.

    Args:
        folder: Folder of the recordings, or of an archive of them.
        by_index: False holds speakers out; True takes the set's own split by index.

    Returns:
        Waveforms `[S, 1]` int16 of different lengths S (0.14 to 2.3 s), sorted by file name;
        `scale` brings them to -1..1. Features of one length come from `dense` with
        `encoding.audio.log_mel` or `encoding.audio.cochlea`. Examples are grouped by speaker where
        speakers are held out.

    Raises:
        MissingDataError: If the folder has no recordings, or none of one split.
        CorruptDataError: If a file ends early, or is no recording of one channel, 16 bits and 8
            kHz, or occurs twice.
    """
    found = []
    for path, content in read_files(folder, _is_recording, member=_LARGEST):
        digit, speaker, index = path.stem.split("_")
        waveform = parse_wav(content, rate=RATE, name=str(folder / path))
        found.append(((int(digit), speaker, int(index)), waveform))
    if not found:
        raise MissingDataError(f"{folder} has no recordings <digit>_<speaker>_<index>.wav")
    refuse_duplicates(folder, (key for key, _ in found))
    # Independent of the order of an archive.
    found.sort(key=lambda pair: pair[0])
    keys = [key for key, _ in found]
    speakers = sorted({speaker for _, speaker, _ in keys})
    test = np.array([_tests(speaker, index, by_index) for _, speaker, index in keys])
    for name, part in (("training", ~test), ("test", test)):
        if not part.any():
            raise MissingDataError(
                f"{folder} has no recordings of the {name} split, only of {', '.join(speakers)}"
            )
    labels = np.array([digit for digit, _, _ in keys], np.int32)
    groups = np.array([speakers.index(speaker) for _, speaker, _ in keys], np.int32)
    whole = Split(tuple(waveform for _, waveform in found), labels, None if by_index else groups)
    return Dataset(
        name="fsdd_by_index" if by_index else "fsdd",
        train=whole.take(~test),
        test=whole.take(test),
        classes=10,
        class_names=tuple("0123456789"),
        input_shape=(1,),
        scale=1 / 32768,
        note=f"Free Spoken Digit Dataset, {len(keys)} recordings, 8 kHz; "
        + ("index 0 to 4" if by_index else f"speakers {' and '.join(TEST_SPEAKERS)}")
        + " test. Z. Jackson and others, 2018; CC BY-SA 4.0.",
    )


def parse_wav(content: bytes, *, rate: int, name: str) -> np.ndarray:
    """Parses a WAV file of one channel and 16 bits.

    Args:
        content: The whole file.
        rate: Required samples per second.
        name: Name of the file in error messages.

    Returns:
        `[S, 1]` int16.

    Raises:
        CorruptDataError: If the file is damaged, cut short or empty, or of another format.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            length, samples = file.getnframes(), file.readframes(file.getnframes())
    # The last for a chunk that claims to reach beyond the file.
    except (wave.Error, EOFError, RuntimeError) as error:
        raise CorruptDataError(f"{name} is not a WAV file ({error}); fetch it again") from error
    if form != (1, 2, rate):
        raise CorruptDataError(
            f"{name} has {form[0]} channels of {8 * form[1]} bits at {form[2]} Hz, not one of 16 "
            f"bits at {rate} Hz: convert it, or fetch it again"
        )
    # The module returns what there is of a file that ends early.
    if not length or len(samples) != 2 * length:
        raise CorruptDataError(
            f"{name} has {len(samples) // 2} of {length} samples: it is empty or cut short; fetch "
            "it again"
        )
    return np.frombuffer(samples, "<i2").astype(np.int16)[:, None]


def _is_recording(path: PurePosixPath) -> bool:
    return _NAME.fullmatch(path.name) is not None


def _tests(speaker: str, index: int, by_index: bool) -> bool:
    return index in _TEST_INDICES if by_index else speaker in TEST_SPEAKERS
