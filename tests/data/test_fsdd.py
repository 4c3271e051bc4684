"""Free Spoken Digit Dataset: WAV files, both splits, features of one length, errors."""

import io
import wave

import numpy as np
import pytest

from snnjax import data, encoding
from snnjax.data._fsdd import TEST_SPEAKERS, parse_wav

pytestmark = pytest.mark.fast


def wav(samples, *, rate=8000, channels=1, width=2):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return buffer.getvalue()


def write(root, speakers=("george", *TEST_SPEAKERS), digits=(0, 7), indices=(0, 4, 5, 11)):
    folder = root / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for speaker in speakers:
        for digit in digits:
            for index in indices:
                samples = np.arange(100 + 10 * digit + index)
                (folder / f"{digit}_{speaker}_{index}.wav").write_bytes(wav(samples))
    return folder


def test_speakers_are_held_out(tmp_path):
    folder = write(tmp_path)
    (folder / "README.md").write_text("not a recording")
    dataset = data.load("fsdd", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (8, 16)
    np.testing.assert_array_equal(dataset.train.groups, [0] * 8)
    assert set(dataset.test.groups) == {1, 2} and dataset.scale == 1 / 32768
    np.testing.assert_array_equal(dataset.train.labels, [0] * 4 + [7] * 4)
    # In order of digit, speaker and index as a number.
    lengths = [len(waveform) for waveform in dataset.train.inputs]
    assert lengths == [100, 104, 105, 111, 170, 174, 175, 181]
    assert dataset.train.inputs[0].shape == (100, 1) and dataset.train.inputs[0].dtype == np.int16
    np.testing.assert_array_equal(dataset.train.inputs[0][:, 0], np.arange(100))


def test_the_own_split_of_the_set_goes_by_index(tmp_path):
    write(tmp_path)
    dataset = data.load("fsdd_by_index", data_dir=tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (12, 12)
    assert dataset.train.groups is None
    assert {len(w) for w in dataset.test.inputs} == {100, 104, 170, 174}


@pytest.mark.parametrize(
    ("encode", "shape"),
    [
        (lambda w: encoding.audio.log_mel(w, rate=8000, channels=12, timesteps=3), (3, 12)),
        (lambda w: encoding.audio.cochlea(w, rate=8000, channels=6, timesteps=30), (30, 6)),
    ],
)
def test_features_have_one_length(tmp_path, encode, shape):
    write(tmp_path)
    dense = data.dense(data.load("fsdd", data_dir=tmp_path), encode)
    assert dense.train.inputs.shape == (8, *shape) and dense.input_shape == shape[1:]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not a WAV file"),
        (b"RIFF" + bytes(40), "is not a WAV file"),
        (wav([1, 2]).replace(b"data", b"dat "), "is not a WAV file"),
        (wav([1, 2]).replace(b"fmt \x10", b"fmt \xf0"), "is not a WAV file"),
        (wav([1, 2, 3])[:-2], "2 of 3 samples: it is empty or cut short"),
        (wav([]), "0 of 0 samples"),
        (wav([1, 2], rate=16000), "1 channels of 16 bits at 16000 Hz"),
        (wav([1, 2], channels=2), "2 channels of 16 bits at 8000 Hz"),
        (wav([1, 2], width=1), "1 channels of 8 bits"),
    ],
)
def test_a_damaged_recording_is_named(content, match):
    with pytest.raises(data.CorruptDataError, match=match) as caught:
        parse_wav(content, rate=8000, name="0_theo_1.wav")
    assert str(caught.value).startswith("0_theo_1.wav")


def test_missing_speakers_and_recordings_that_occur_twice(tmp_path):
    (tmp_path / "fsdd").mkdir()
    with pytest.raises(data.MissingDataError, match="no recordings <digit>_<speaker>_<index>"):
        data.load("fsdd", data_dir=tmp_path)
    folder = write(tmp_path / "a", speakers=("george",))
    with pytest.raises(data.MissingDataError, match="no recordings of the test split, only of geo"):
        data.load("fsdd", data_dir=tmp_path / "a")
    (folder / "copy").mkdir()
    (folder / "copy" / "0_george_0.wav").write_bytes(wav([1]))
    with pytest.raises(data.CorruptDataError, match="0/george/0 twice"):
        data.load("fsdd", data_dir=tmp_path / "a")


# Three thousand files of an archive; those of the other tests have its format.
@pytest.mark.slow
def test_the_set_itself(shared):
    dataset = data.load("fsdd", data_dir=shared("data"))
    assert (len(dataset.train), len(dataset.test)) == (2000, 1000)
    for split in (dataset.train, dataset.test):
        np.testing.assert_array_equal(np.bincount(split.labels), len(split) // 10)
    lengths = [len(w) for split in (dataset.train, dataset.test) for w in split.inputs]
    assert (min(lengths), max(lengths), np.median(lengths)) == (1148, 18262, 3358.5)
    spikes = [encoding.audio.cochlea(w, rate=8000) for w in dataset.train.inputs[::400]]
    rates = [s.mean() for s in spikes]
    assert min(rates) > 0.02 and max(rates) < 0.12  # 0.06 on average
