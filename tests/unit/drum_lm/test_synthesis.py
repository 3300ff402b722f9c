"""Sound of drum rolls: where it begins, how loud and how long it is, and that it is always the same."""

import io
import wave

import numpy as np
import pytest

from decahub.models.drum_lm.midi.codec import DrumRoll
from decahub.models.drum_lm.midi.drum_map import DRUM_MAPS
from decahub.models.drum_lm.render.synthesis import SOUNDS, encode_wav, render_sound, synthesize


RATE = 22050
SIX, NINE = DRUM_MAPS["six"], DRUM_MAPS["nine"]
ATOL_FLOAT32 = 1e-6  # sums of a few samples, rounded to float32 at the end
ATOL_16_BITS = 1 / 32767  # one step of the file's resolution


def build_roll(cells=(), steps=16, columns=6, tempo=100.0, **options):
    hits = np.zeros((steps, columns), dtype=bool)
    for step, column in cells:
        hits[step, column] = True
    return DrumRoll(hits, **{"steps_per_bar": 16, "time_signature": (4, 4), "tempo": tempo} | options)


@pytest.mark.parametrize("column", range(9), ids=NINE.columns)
def test_a_hit_is_its_sound_at_the_time_of_its_step(column):
    waveform = synthesize(build_roll([(5, column)], columns=9), NINE)

    start = round(5 * 60 / 100 / 4 * RATE)
    sound = render_sound(NINE.written[column], RATE)
    expected = np.zeros(max(len(waveform), start + len(sound)))
    expected[start : start + len(sound)] = 0.9 * sound / np.abs(sound).max()
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, expected, atol=ATOL_FLOAT32)


@pytest.mark.parametrize(("steps_per_bar", "time_signature"), [(16, (4, 4)), (12, (6, 8)), (20, (5, 4))])
def test_a_step_is_a_sixteenth_in_every_bar(steps_per_bar, time_signature):
    roll = build_roll(steps=40, steps_per_bar=steps_per_bar, time_signature=time_signature)

    assert len(synthesize(roll, SIX)) == round(40 * 60 / 100 / 4 * RATE)


def test_sounds_that_overlap_add_up():
    cells = [(0, 0), (1, 0), (1, 3)]
    waveform = synthesize(build_roll(cells), SIX)

    parts = np.zeros(len(waveform))
    for step, column in cells:
        start, sound = round(step * 0.15 * RATE), render_sound(SIX.written[column], RATE)
        parts[start : start + len(sound)] += sound
    np.testing.assert_allclose(waveform, 0.9 * parts / np.abs(parts).max(), atol=ATOL_FLOAT32)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({}, 2.4), ({"tempo": 50.0}, 4.8), ({"steps": 12, "steps_per_bar": 12, "time_signature": (3, 4)}, 1.8)],
    ids=["four four", "slow", "three four"],
)
def test_silence_lasts_as_long_as_the_bar(options, seconds):
    waveform = synthesize(build_roll(**options), SIX)

    assert len(waveform) == round(seconds * RATE)
    assert not waveform.any()


def test_the_last_sound_dies_out():
    waveform = synthesize(build_roll([(15, 0)]), SIX)

    assert len(waveform) == round(15 * 0.15 * RATE) + len(render_sound(49, RATE))
    assert np.abs(waveform[-100:]).max() < 0.002


def test_every_written_pitch_has_a_sound_of_its_own_kind():
    assert {pitch for drum_map in DRUM_MAPS.values() for pitch in drum_map.written} <= SOUNDS.keys()


@pytest.mark.parametrize(
    ("pitch", "low", "high"), [(36, 40, 160), (50, 110, 260), (42, 6000, 11025), (49, 4500, 11025)]
)
def test_energy_lies_where_the_instrument_has_it(pitch, low, high):
    sound = render_sound(pitch, RATE)
    spectrum, frequencies = np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(len(sound), 1 / RATE)

    assert spectrum[(frequencies >= low) & (frequencies <= high)].sum() > 0.75 * spectrum.sum()


def test_the_same_roll_gives_the_same_samples_and_leaves_numpys_generator_alone():
    roll = build_roll([(0, 0), (4, 2), (6, 4)])
    state = np.random.get_state()[1].copy()

    assert np.array_equal(synthesize(roll, SIX), synthesize(roll, SIX))
    assert np.array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_wav_file_holds_the_samples(rate):
    waveform = synthesize(build_roll([(0, 4), (2, 2)]), SIX, sampling_rate=rate)

    with wave.open(io.BytesIO(encode_wav(waveform, rate))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32767
    np.testing.assert_allclose(samples, waveform, atol=ATOL_16_BITS)
    assert np.abs(waveform).max() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: synthesize(build_roll(columns=9), SIX), "must have the 6 columns of `drum_map`; got 9"),
        (lambda: synthesize(build_roll(), SIX, sampling_rate=10), r"`sampling_rate` must be in .*; got 10"),
        (lambda: encode_wav(np.zeros((2, 3)), RATE), r"must have the shape \(samples,\); got \(2, 3\)"),
        (lambda: encode_wav(np.array([0.0, np.nan]), RATE), "must be finite"),
        (lambda: encode_wav(np.array([0.0, -1.5]), RATE), "its peak is 1.5"),
    ],
    ids=["columns", "rate", "channels", "nan", "loud"],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
