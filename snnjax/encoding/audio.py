"""Features and spikes of sound, in NumPy on the host, one recording at a time.

    log_mel     energies of mel bands on a logarithmic scale          [T, C], for any network
    cochlea     gammatone filters, half-wave rectification, LIF       [T, C], 0 and 1

The cochlea is an open model of this library with the few stages that such models share. It is not
the one that made SHD and SSC (a hydrodynamic membrane, hair cells and bushy cells): accuracies on
its spikes do not compare with theirs.

A recording is `[S]` or `[S, 1]`, as `data.load("fsdd")` gives them. Integers are divided by the
range of their dtype, and seconds are rounded to whole samples. Both functions first divide the
recording by its root mean square, which removes the distance of the microphone; so sound is padded
after them: `timesteps` cuts or pads the result to one length, for `data.dense`.

References:
    S. B. Davis, P. Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word
    Recognition in Continuously Spoken Sentences", IEEE Transactions on Acoustics, Speech and Signal
    Processing, 1980 (mel bands).
    B. R. Glasberg, B. C. J. Moore, "Derivation of Auditory Filter Shapes from Notched-Noise Data",
    Hearing Research, 1990 (width of auditory filters).
    V. Hohmann, "Frequency Analysis and Synthesis Using a Gammatone Filterbank", Acta Acustica
    united with Acustica, 2002 (the filters as four complex poles).
"""

from __future__ import annotations

import math

import numpy as np

from snnjax.encoding import _checks as checks

__all__ = ["cochlea", "gammatone_centers", "log_mel", "mel_bands"]

_ORDER = 4  # poles of a gammatone filter
_WIDTH = 1.019  # bandwidth of the filter of four poles, in ERB


def log_mel(
    waveform: np.ndarray,
    *,
    rate: float,
    channels: int = 40,
    window: float = 0.025,
    hop: float = 0.010,
    lowest: float = 20.0,
    highest: float | None = None,
    floor: float = 1e-4,
    timesteps: int | None = None,
) -> np.ndarray:
    """Computes energies in mel bands on a logarithmic scale.

        x~[n]   = x[n] / rms(x)                                                 equal loudness
        X[t, k] = DFT of  w[n] x~[t hop + n],  n = 0 .. window - 1,  w the Hann window
        y[t, c] = ln(floor + sum over k of M[c, k] |X[t, k]|^2 / window)

    Args:
        waveform: `[S]` or `[S, 1]`, numbers.
        rate: Samples per second.
        channels: Mel bands C.
        window: Length of a frame, in seconds.
        hop: Distance of frames, in seconds.
        lowest: Lower end of the first band, in Hz.
        highest: Upper end of the last band, in Hz; None is half the rate.
        floor: Energy added before the logarithm; the level of silence.
        timesteps: T; longer recordings are cut, shorter ones end in frames of silence, `ln floor`.
            None takes as many frames as begin within the recording.

    Returns:
        `[T, C]` float32, T = ceil(S / hop) by default.

    Raises:
        TypeError: If the waveform holds no numbers.
        ValueError: If the waveform is no series of one channel, empty or not finite, or an option
            is outside its range.

    Example:
        >>> log_mel(np.zeros(800, np.int16), rate=8000).shape
        (10, 40)
    """
    samples = _equally_loud(_samples(waveform))
    length, step = _in_samples("window", window, rate), _in_samples("hop", hop, rate)
    if not (math.isfinite(floor) and floor > 0):
        raise ValueError(f"floor is an energy above 0, got {floor}: 1e-4 is usual")
    size = 1 << (length - 1).bit_length()
    bands = mel_bands(channels, size, rate=rate, lowest=lowest, highest=highest)
    count = -(-len(samples) // step)
    padded = np.concatenate([samples, np.zeros(count * step + length - len(samples))])
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[: count * step : step]
    energy = np.abs(np.fft.rfft(frames * np.hanning(length), size)) ** 2 / length
    logarithms = np.log(floor + energy @ bands.T).astype(np.float32)
    return _fit(logarithms, timesteps, math.log(floor))


def mel_bands(
    channels: int, size: int, *, rate: float, lowest: float = 20.0, highest: float | None = None
) -> np.ndarray:
    """Computes triangular weights of the mel bands over the bins of a DFT.

    Edges of the bands are equidistant on the mel scale, m(f) = 2595 log10(1 + f / 700 Hz); each
    triangle reaches from the center of its lower neighbor to that of its upper one, with height 1.

    Args:
        channels: Bands C.
        size: Length of the DFT.
        rate: Samples per second.
        lowest: Lower end of the first band, in Hz.
        highest: Upper end of the last band, in Hz; None is half the rate.

    Returns:
        `[C, size / 2 + 1]` float64.

    Raises:
        ValueError: If the range of frequencies is empty or exceeds half the rate, or a band is so
            narrow that it has no bin.
    """
    channels, size = (
        checks.positive_integer(*pair) for pair in (("channels", channels), ("size", size))
    )
    lowest, highest = _range(lowest, highest, rate)
    first, last = (2595 * math.log10(1 + f / 700) for f in (lowest, highest))
    edges = 700 * (10 ** (np.linspace(first, last, channels + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / rate)
    low, center, high = (edges[i : i + channels, None] for i in range(3))
    weights = np.minimum((bins - low) / (center - low), (high - bins) / (high - center))
    weights = np.maximum(weights, 0.0)
    if not weights.any(axis=1).all():
        raise ValueError(
            f"{channels} bands from {lowest:g} to {highest:g} Hz leave bands without a bin of a "
            f"DFT of {size}: give fewer channels, a longer window or a higher lowest"
        )
    return weights


def cochlea(
    waveform: np.ndarray,
    *,
    rate: float,
    channels: int = 64,
    step: float = 0.001,
    lowest: float = 80.0,
    highest: float | None = None,
    exponent: float = 0.5,
    tau: float = 0.005,
    gain: float = 1.0,
    timesteps: int | None = None,
) -> np.ndarray:
    """Turns sound into spikes of hair cells, one channel per band.

        x~[n]   = x[n] / rms(x)                                         equal loudness
        g[., c] = Re H_c x~,  H_c(z) = 2 ((1 - |a|) / (1 - a / z))^4    gammatone filter
                  a = exp(2 pi (i f_c - 1.019 ERB(f_c)) / rate)
        r[n, c] = max(g[n, c], 0)                                       half-wave rectification
        e[t, c] = (mean of r[n, c] over step t)^exponent                compression
        v[t, c] = lam v[t-1, c] + gain e[t, c],  lam = exp(-step / tau)
        s[t, c] = 1 where v[t, c] >= 1, and there v[t, c] <- v[t, c] - 1

    with ERB(f) = 24.7 Hz (4.37 f / kHz + 1) and centers f_c equidistant on the scale of ERB. At the
    defaults 6 % of the steps of a spoken digit have a spike.

    Args:
        waveform: `[S]` or `[S, 1]`, numbers.
        rate: Samples per second.
        channels: Filters C.
        step: Length of a timestep, in seconds.
        lowest: Center of the first filter, in Hz.
        highest: Center of the last filter, in Hz; None is 0.45 of the rate.
        exponent: Power of the compression, in (0, 1].
        tau: Membrane time constant, in seconds.
        gain: Factor of the drive; more gives more spikes.
        timesteps: T; longer recordings are cut, shorter ones end in silence. None is the length of
            the recording.

    Returns:
        Spikes `[T, C]` float32, 0 and 1, T = ceil(S / step) by default. A silent recording has
        none.

    Raises:
        TypeError: If the waveform holds no numbers.
        ValueError: If the waveform is no series of one channel, empty or not finite, or an option
            is outside its range.

    Example:
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
        >>> spikes = cochlea(tone, rate=8000)
        >>> spikes.shape, abs(gammatone_centers(64, rate=8000)[spikes.sum(0).argmax()] - 440) < 20
        ((1000, 64), True)
    """
    samples = _equally_loud(_samples(waveform))
    hop = _in_samples("step", step, rate)
    for name, value in (("tau", tau), ("gain", gain), ("exponent", exponent)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is a positive number, got {value}")
    if exponent > 1:
        raise ValueError(f"exponent compresses in (0, 1], got {exponent}: 0.5 is the default")
    centers = gammatone_centers(channels, rate=rate, lowest=lowest, highest=highest)
    count = -(-len(samples) // hop)
    # Whole steps, so that a mean over a step is one over an axis.
    padded = np.concatenate([samples, np.zeros(count * hop - len(samples))])
    drive = np.stack([_hair_cell(padded, center, rate, hop) for center in centers], axis=1)
    spikes = _fire(gain * drive**exponent, math.exp(-step / tau))
    return _fit(spikes, timesteps, 0.0)


def gammatone_centers(
    channels: int, *, rate: float, lowest: float = 80.0, highest: float | None = None
) -> np.ndarray:
    """Computes the centers of the filters of `cochlea`, equidistant on the scale of ERB.

        number of ERB below f  =  21.4 log10(4.37 f / kHz + 1)

    Args:
        channels: Filters C.
        rate: Samples per second.
        lowest: Center of the first filter, in Hz.
        highest: Center of the last filter, in Hz; None is 0.45 of the rate.

    Returns:
        `[C]` float64, in Hz.

    Raises:
        ValueError: If the range of frequencies is empty or exceeds half the rate.
    """
    channels = checks.positive_integer("channels", channels)
    lowest, highest = _range(lowest, 0.45 * rate if highest is None else highest, rate)
    first, last = (math.log10(4.37e-3 * f + 1) for f in (lowest, highest))
    return (10 ** np.linspace(first, last, channels) - 1) / 4.37e-3


def _hair_cell(samples: np.ndarray, center: float, rate: float, hop: int) -> np.ndarray:
    """Mean of the rectified output of one filter over every step, `[T]`."""
    from scipy.signal import lfilter

    width = _WIDTH * 24.7 * (4.37e-3 * center + 1)
    pole = np.exp(2 * np.pi * (1j * center - width) / rate)
    # The four poles in one pass, a third of the time of four; in float64 that costs 7 of 16 digits.
    output = lfilter([2 * (1 - abs(pole)) ** _ORDER], np.poly([pole] * _ORDER), samples)
    return np.maximum(np.real(output), 0.0).reshape(-1, hop).mean(axis=1)


def _fire(drive: np.ndarray, decay: float) -> np.ndarray:
    """Spikes `[T, C]` of leaky integrators with reset by subtraction."""
    spikes, membrane = np.zeros_like(drive, np.float32), np.zeros(drive.shape[1])
    for t, current in enumerate(drive):
        membrane = decay * membrane + current
        fired = membrane >= 1
        membrane = membrane - fired
        spikes[t] = fired
    return spikes


def _samples(waveform: np.ndarray) -> np.ndarray:
    """The waveform as float64 `[S]`, integers divided by the range of their dtype."""
    samples = np.asarray(waveform)
    if samples.dtype.kind not in "iuf":
        raise TypeError(f"a waveform holds real numbers, not {samples.dtype}")
    if samples.ndim == 2 and samples.shape[1] == 1:
        samples = samples[:, 0]
    if samples.ndim != 1 or not len(samples):
        raise ValueError(
            f"a waveform is one recording of one channel, [S] or [S, 1], got "
            f"{list(samples.shape)}: mix channels by x.mean(axis=1), and encode a batch one by one"
        )
    if samples.dtype.kind == "u":
        raise TypeError(
            f"a waveform is signed, not {samples.dtype}: 8-bit sound becomes "
            "x.astype('int16') - 128, divided by 128"
        )
    if not np.isfinite(samples).all():
        raise ValueError("a waveform is finite: repair the recording, or np.nan_to_num(x)")
    scale = -float(np.iinfo(samples.dtype).min) if samples.dtype.kind == "i" else 1.0
    return samples.astype(np.float64) / scale


def _equally_loud(samples: np.ndarray) -> np.ndarray:
    """The waveform with a root mean square of 1, or silence."""
    loudness = math.sqrt(float(np.mean(samples**2)))
    return samples / loudness if loudness else samples


def _in_samples(name: str, seconds: float, rate: float) -> int:
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"rate is samples per second, above 0, got {rate}")
    count = round(seconds * rate) if math.isfinite(seconds) else 0
    if count < 1:
        raise ValueError(f"{name} is seconds, at least one sample of {1 / rate:g} s, got {seconds}")
    return count


def _range(lowest: float, highest: float | None, rate: float) -> tuple[float, float]:
    highest = rate / 2 if highest is None else highest
    # Written so that NaN fails.
    if not 0 <= lowest < highest <= rate / 2:
        raise ValueError(
            f"frequencies run from lowest={lowest:g} to highest={highest:g} Hz, not within 0 to "
            f"{rate / 2:g}, half the rate"
        )
    return lowest, highest


def _fit(frames: np.ndarray, timesteps: int | None, silence: float) -> np.ndarray:
    """Cuts or pads `[T, C]` to `timesteps`."""
    if timesteps is None:
        return frames
    timesteps = checks.positive_integer("timesteps", timesteps)
    missing = max(timesteps - len(frames), 0)
    return np.pad(frames[:timesteps], ((0, missing), (0, 0)), constant_values=silence)
