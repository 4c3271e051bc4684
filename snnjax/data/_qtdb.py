"""QTDB ECG: two leads of an electrocardiogram as level-crossing spikes, a label for every timestep.

The files are those of the adaptive spiking recurrent network (SRNN), `QTDB_train.mat` and
`QTDB_test.mat`: 618 and 141 recordings of 1,301 steps, four channels (rising and falling crossings
of each lead), and one of six waves per step, P, PQ, QRS, ST, T, TP. The files do not name their
columns; the order here is the paper's, and their cycle and mean lengths (109, 64, 60, 46, 300 and
324 ms at 250 Hz) agree with it.

Two properties of the files that published results share:

    unlabelled steps    8 % of the training and 10 % of the test steps, most of them behind the last
                        beat, have no wave. The argmax of the authors makes them the first class, P;
                        so does this reader.
    the last step       holds a -1 in channel 0 of every recording, an end mark; it is kept.

References:
    B. Yin, F. Corradi, S. M. Bohté, "Accurate and efficient time-domain classification with
    adaptive spiking recurrent neural networks", Nature Machine Intelligence, 2021,
    arXiv:2103.12593. Files: github.com/byin-cwi/Efficient-spiking-networks, folder data.
    P. Laguna, R. G. Mark, A. Goldberger, G. B. Moody, "A Database for Evaluation of Algorithms for
    Measurement of QT and Other Waveform Intervals in the ECG", Computers in Cardiology, 1997.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from snnjax.data._archive import read_file
from snnjax.data.dataset import CorruptDataError, Dataset, MissingDataError, Split

STEPS, CHANNELS = 1301, 4
WAVES = ("P", "PQ", "QRS", "ST", "T", "TP")
COUNTS = {"train": 618, "test": 141}
_LARGEST = 16 << 20  # bytes of a file: published ones have at most 540,000


def read_qtdb(folder: Path) -> Dataset:
    """Reads the spike-coded ECG recordings.

    Args:
        folder: Folder of `QTDB_train.mat` and `QTDB_test.mat`.

    Returns:
        Spikes `[N, 1301, 4]` int8 with labels `[N, 1301]` int32, a class for every timestep.

    Raises:
        MissingDataError: If a file is missing.
        CorruptDataError: If a file is damaged, or its arrays are not those of the set.
    """
    train, test = (_split(folder, part) for part in COUNTS)
    return Dataset(
        name="qtdb_ecg",
        train=train,
        test=test,
        classes=len(WAVES),
        class_names=WAVES,
        input_shape=(STEPS, CHANNELS),
        scale=1.0,
        note="QTDB ECG as spikes, a label every step; steps without a wave count as P. B. Yin, "
        "F. Corradi, S. M. Bohté, 2021; recordings of P. Laguna and others, 1997, PhysioNet.",
    )


def _split(folder: Path, part: str) -> Split:
    path = folder / f"QTDB_{part}.mat"
    if not path.is_file():
        raise MissingDataError(f"{path} is missing")
    arrays = _arrays(path)
    spikes, waves = arrays.get("x"), arrays.get("y")
    shape = (COUNTS[part], STEPS)
    expected = {"x": (*shape, CHANNELS), "y": (*shape, len(WAVES))}
    found = {name: getattr(arrays.get(name), "shape", None) for name in expected}
    if found != expected or spikes is None or waves is None:
        raise CorruptDataError(f"{path} has arrays {found}, not {expected}: fetch it again")
    if not np.isin(spikes, (-1, 0, 1)).all():
        raise CorruptDataError(f"{path} has spikes other than -1, 0 and 1: fetch it again")
    if not np.isin(waves, (0, 1)).all() or (waves.sum(-1) > 1).any():
        raise CorruptDataError(f"{path} has steps of two waves: fetch it again")
    return Split(spikes.astype(np.int8), waves.argmax(-1).astype(np.int32))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    content = read_file(path, largest=_LARGEST)
    try:
        return loadmat(io.BytesIO(content), variable_names=["x", "y"])
    # SciPy raises errors of many kinds for a damaged file, some of them bare ones of Python.
    except Exception as error:
        raise CorruptDataError(
            f"{path} cannot be read as a MATLAB file ({error}); fetch it again"
        ) from error
