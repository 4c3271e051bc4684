"""Features and spikes of sound, against loops over samples and over bins."""

import math

import numpy as np
import pytest

from snnjax.encoding import audio

pytestmark = pytest.mark.fast
RATE = 8000
SOUND = np.random.default_rng(0).normal(size=330)


def tone(frequency, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def test_log_mel_is_that_of_a_loop_over_frames_and_bins():
    y = audio.log_mel(SOUND, rate=RATE, channels=5, window=0.004, hop=0.002, lowest=200)
    # 32 samples per frame, 16 between two; edges equidistant in mel.
    low, high = (2595 * math.log10(1 + f / 700) for f in (200, 4000))
    edges = [700 * (10 ** ((low + i * (high - low) / 6) / 2595) - 1) for i in range(7)]
    loudness = math.sqrt(sum(x * x for x in SOUND) / len(SOUND))
    padded = [*(SOUND / loudness), *[0.0] * 64]
    assert y.shape == (21, 5) and y.dtype == np.float32
    for t in (0, 7, 20):
        for c in range(5):
            energy = 1e-4
            for k in range(17):
                f = k * RATE / 32
                left, right = (
                    (f - edges[c]) / (edges[c + 1] - edges[c]),
                    (edges[c + 2] - f) / (edges[c + 2] - edges[c + 1]),
                )
                bin_ = sum(
                    (0.5 - 0.5 * math.cos(2 * math.pi * n / 31))
                    * padded[16 * t + n]
                    * complex(
                        math.cos(2 * math.pi * k * n / 32), -math.sin(2 * math.pi * k * n / 32)
                    )
                    for n in range(32)
                )
                energy += max(min(left, right), 0) * abs(bin_) ** 2 / 32
            assert y[t, c] == pytest.approx(math.log(energy), rel=1e-4)


def test_mel_bands_overlap_to_one_between_their_first_and_last_center():
    bands = audio.mel_bands(12, 512, rate=RATE)
    assert bands.shape == (12, 257) and bands.min() == 0 and bands.max() <= 1
    peaks = bands.argmax(axis=1)
    assert (np.diff(peaks) > 0).all()
    np.testing.assert_allclose(bands[:, peaks[0] + 1 : peaks[-1]].sum(0), 1, atol=1e-12)


@pytest.mark.parametrize("frequency", [300, 1000, 2500])
def test_a_tone_excites_its_own_band_and_its_own_filter(frequency):
    centers = audio.gammatone_centers(32, rate=RATE)
    spikes = audio.cochlea(tone(frequency), rate=RATE, channels=32)
    assert spikes.sum(0).argmax() == np.abs(centers - frequency).argmin()
    bands = audio.mel_bands(20, 256, rate=RATE)
    energies = audio.log_mel(tone(frequency), rate=RATE, channels=20)[10]
    assert energies.argmax() == bands[:, round(frequency * 256 / RATE)].argmax()


def test_the_cochlea_is_that_of_a_loop_over_samples():
    spikes = audio.cochlea(SOUND, rate=RATE, channels=3, step=0.002, tau=0.004, gain=2.0)
    centers = audio.gammatone_centers(3, rate=RATE)
    assert centers[0] == pytest.approx(80) and centers[2] == pytest.approx(3600)
    assert spikes.shape == (21, 3) and spikes.dtype == np.float32
    loudness = math.sqrt(sum(x * x for x in SOUND) / len(SOUND))
    for c, f in enumerate(centers):
        width = 2 * math.pi * 1.019 * 24.7 * (4.37 * f / 1000 + 1) / RATE
        pole = math.exp(-width) * complex(
            math.cos(2 * math.pi * f / RATE), math.sin(2 * math.pi * f / RATE)
        )
        z, rectified = [0j] * 4, []
        for n in range(21 * 16):
            signal = 2 * SOUND[n] / loudness if n < len(SOUND) else 0
            for i in range(4):
                z[i] = pole * z[i] + (1 - math.exp(-width)) * (signal if i == 0 else z[i - 1])
            rectified.append(max(z[3].real, 0))
        membrane, expected = 0.0, []
        for t in range(21):
            drive = (sum(rectified[16 * t : 16 * t + 16]) / 16) ** 0.5
            membrane = math.exp(-0.5) * membrane + 2.0 * drive
            expected.append(float(membrane >= 1))
            membrane -= expected[-1]
        np.testing.assert_array_equal(spikes[:, c], expected)
    assert 0.05 < spikes.mean() < 0.95


def test_loudness_and_the_type_of_the_samples_change_no_spike():
    samples = np.round(3000 * SOUND).astype(np.int16)
    spikes = audio.cochlea(samples, rate=RATE, channels=8)
    np.testing.assert_array_equal(spikes, audio.cochlea(samples / 777, rate=RATE, channels=8))
    np.testing.assert_array_equal(spikes, audio.cochlea(samples[:, None], rate=RATE, channels=8))
    more = audio.cochlea(samples, rate=RATE, channels=8, gain=2.0)
    assert 0 < spikes.sum() < more.sum()
    np.testing.assert_allclose(
        audio.log_mel(samples, rate=RATE, channels=4),
        audio.log_mel(samples / 777, rate=RATE, channels=4),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("encode", "silence"),
    [
        (lambda x, **o: audio.cochlea(x, rate=RATE, channels=4, step=0.01, **o), 0.0),
        (lambda x, **o: audio.log_mel(x, rate=RATE, channels=4, **o), math.log(1e-4)),
    ],
)
def test_frames_are_cut_and_padded_with_silence(encode, silence):
    whole = encode(SOUND)
    assert len(whole) == 5
    np.testing.assert_array_equal(encode(SOUND, timesteps=3), whole[:3])
    np.testing.assert_array_equal(encode(SOUND, timesteps=9)[:5], whole)
    np.testing.assert_allclose(encode(SOUND, timesteps=9)[5:], silence, rtol=1e-6)
    np.testing.assert_allclose(encode(np.zeros(330)), silence, rtol=1e-6)


@pytest.mark.parametrize(
    ("waveform", "options", "error", "match"),
    [
        (np.zeros((3, 2)), {}, ValueError, r"mix channels by x\.mean"),
        (np.zeros(0), {}, ValueError, "one recording of one channel"),
        (np.array([0.0, np.nan]), {}, ValueError, "finite"),
        (np.array(["a"]), {}, TypeError, "real numbers"),
        (np.zeros(9, np.uint8), {}, TypeError, "signed"),
        (SOUND, {"rate": 0}, ValueError, "rate is samples per second"),
        (SOUND, {"channels": 0}, ValueError, "channels counts from 1"),
        (SOUND, {"lowest": 5000}, ValueError, "half the rate"),
        (SOUND, {"highest": 4001}, ValueError, "half the rate"),
        (SOUND, {"timesteps": 0}, ValueError, "timesteps counts from 1"),
    ],
)
@pytest.mark.parametrize("encode", [audio.cochlea, audio.log_mel])
def test_wrong_arguments(encode, waveform, options, error, match):
    with pytest.raises(error, match=match):
        encode(waveform, **({"rate": RATE} | options))


@pytest.mark.parametrize(
    ("encode", "options", "match"),
    [
        (audio.cochlea, {"step": 1e-5}, "step is seconds, at least one sample"),
        (audio.cochlea, {"exponent": 2.0}, r"exponent compresses in \(0, 1\]"),
        (audio.cochlea, {"tau": 0.0}, "tau is a positive number"),
        (audio.log_mel, {"window": 0.0}, "window is seconds"),
        (audio.log_mel, {"floor": 0.0}, "floor is an energy above 0"),
        (audio.log_mel, {"channels": 200}, "fewer channels"),
    ],
)
def test_wrong_options(encode, options, match):
    with pytest.raises(ValueError, match=match):
        encode(SOUND, rate=RATE, **options)
