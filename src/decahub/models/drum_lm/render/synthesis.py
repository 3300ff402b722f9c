"""A drum roll as sound, without samples or a sound font: sweeps for skins, filtered noise for metal."""

import io
import wave
from collections.abc import Callable
from functools import partial

import numpy as np

from ..midi.codec import MAX_VELOCITY, DrumRoll
from ..midi.drum_map import DrumMap
from ..midi.meter import STEPS_PER_QUARTER


MINIMUM_SAMPLING_RATE, MAXIMUM_SAMPLING_RATE = 8000, 192000
PEAK = 0.9  # leaves room to whoever resamples or compresses the sound
NOISE_SEED = 29
SILENCE = np.log(1000.0)  # a sound ends 60 dB below its beginning

Sound = Callable[[np.ndarray, int], np.ndarray]
"""From times in seconds and the sampling rate to a waveform of the same length."""


def sweep(times: np.ndarray, sampling_rate: int, start: float, end: float, fall: float = 0.03) -> np.ndarray:
    """A sine whose frequency falls from `start` to `end` hertz, nearly all of the way within 3 `fall` seconds."""
    return np.sin(2 * np.pi * (end * times + (start - end) * fall * (1 - np.exp(-times / fall))))


def noise(times: np.ndarray, sampling_rate: int, cutoff: float) -> np.ndarray:
    """White noise without what is below `cutoff` hertz, the same on every call."""
    samples = np.random.default_rng(NOISE_SEED).standard_normal(len(times))
    spectrum = np.fft.rfft(samples)
    # At least the upper half remains, so that low sampling rates are not silent.
    spectrum[np.fft.rfftfreq(len(times), 1 / sampling_rate) < min(cutoff, sampling_rate / 4)] = 0
    filtered = np.fft.irfft(spectrum, len(times))
    return filtered / np.abs(filtered).max()


def snare(times: np.ndarray, sampling_rate: int) -> np.ndarray:
    """The tone of the skin, which dies first, under the noise of the wires."""
    tone = np.sin(2 * np.pi * 190 * times) * np.exp(-times / 0.04)
    return 0.6 * tone + 0.8 * noise(times, sampling_rate, cutoff=1200)


KICK = (partial(sweep, start=150, end=50), 0.35, 1.0)
SNARE = (snare, 0.2, 0.7)
CLOSED_HAT = (partial(noise, cutoff=7000), 0.04, 0.35)
OPEN_HAT = (partial(noise, cutoff=6500), 0.3, 0.3)
RIDE = (partial(noise, cutoff=8000), 0.3, 0.25)
CRASH = (partial(noise, cutoff=4500), 1.2, 0.4)
LOW_TOM, MID_TOM, HIGH_TOM = (
    (partial(sweep, start=2 * pitch, end=pitch, fall=0.06), 0.3, 0.8) for pitch in (80.0, 100.0, 125.0)
)
UNKNOWN = (partial(noise, cutoff=2000), 0.06, 0.4)

# Each pitch that a map may write to its sound, the seconds until that has died, and how loud it is.
SOUNDS: dict[int, tuple[Sound, float, float]] = {
    **dict.fromkeys((35, 36), KICK),
    **dict.fromkeys((37, 38, 39, 40), SNARE),
    **dict.fromkeys((22, 42, 44), CLOSED_HAT),
    **dict.fromkeys((26, 46), OPEN_HAT),
    **dict.fromkeys((51, 53, 59), RIDE),
    **dict.fromkeys((49, 52, 55, 57), CRASH),
    **dict.fromkeys((41, 43, 58), LOW_TOM),
    **dict.fromkeys((45, 47), MID_TOM),
    **dict.fromkeys((48, 50), HIGH_TOM),
}


def synthesize(roll: DrumRoll, drum_map: DrumMap, sampling_rate: int = 22050) -> np.ndarray:
    """Sound of a drum roll at its own tempo, mono and float32; the same roll always gives the same samples.

    An expressive roll is played with its velocities and its timing.

    The pitch that `drum_map` writes for a column says how it sounds. The peak is 0.9. The sound lasts as long as the
    roll, or until its last hit has died.
    """
    if roll.hits.shape[1] != drum_map.num_columns:
        raise ValueError(
            f"`roll` must have the {drum_map.num_columns} columns of `drum_map`; got {roll.hits.shape[1]}. Give the "
            "map that it was encoded with."
        )
    if not MINIMUM_SAMPLING_RATE <= sampling_rate <= MAXIMUM_SAMPLING_RATE:
        raise ValueError(
            f"`sampling_rate` must be in [{MINIMUM_SAMPLING_RATE}, {MAXIMUM_SAMPLING_RATE}]; got {sampling_rate}."
        )
    if not 0 < roll.tempo < np.inf:
        raise ValueError(f"`roll.tempo` must be a positive number of quarter notes a minute; got {roll.tempo}.")
    seconds_per_step = 60 / roll.tempo / STEPS_PER_QUARTER
    places = np.broadcast_to(np.arange(len(roll.hits))[:, None], roll.hits.shape)
    if roll.offsets is not None:
        places = (places + roll.offsets).clip(min=0)
    starts = np.rint(places * seconds_per_step * sampling_rate).astype(np.int64)
    gains = np.ones(roll.hits.shape) if roll.velocities is None else roll.velocities / MAX_VELOCITY
    sounds = [render_sound(pitch, sampling_rate) for pitch in drum_map.written]
    ends = [round(len(roll.hits) * seconds_per_step * sampling_rate)]
    for column, sound in enumerate(sounds):
        ends.extend(starts[roll.hits[:, column], column][-1:] + len(sound))
    waveform = np.zeros(max(ends), dtype=np.float64)
    for column, sound in enumerate(sounds):
        for step in np.flatnonzero(roll.hits[:, column]):
            start = starts[step, column]
            waveform[start : start + len(sound)] += gains[step, column] * sound
    peak = np.abs(waveform).max(initial=0)
    return (waveform * (PEAK / peak if peak else 1)).astype(np.float32)


def render_sound(pitch: int, sampling_rate: int) -> np.ndarray:
    """One hit at full velocity."""
    build, seconds, gain = SOUNDS.get(pitch, UNKNOWN)
    times = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return gain * build(times, sampling_rate) * np.exp(-SILENCE * times / seconds)


def encode_wav(waveform: np.ndarray, sampling_rate: int) -> bytes:
    """A mono WAV file with 16 bits for each sample, from a waveform in [-1, 1]."""
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f"`waveform` must have the shape (samples,); got {waveform.shape}.")
    if waveform.size and not np.abs(waveform).max() <= 1:
        raise ValueError(f"`waveform` must be finite and in [-1, 1]; its peak is {np.abs(waveform).max()}.")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(np.rint(waveform * np.iinfo(np.int16).max).astype("<i2").tobytes())
    return buffer.getvalue()


__all__ = ["encode_wav", "synthesize"]
