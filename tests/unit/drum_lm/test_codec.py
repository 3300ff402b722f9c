"""The drum codec: performances to rolls, rolls to text and MIDI, and back without a loss."""

from itertools import product

import numpy as np
import pytest
from transformers.utils import logging

from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.midi.drum_map import DRUM_MAPS
from decahub.models.drum_lm.midi.meter import MeterError
from decahub.models.drum_lm.midi.performance import DrumPerformance
from decahub.models.drum_lm.midi.reader import read_midi


KICK, SNARE, PEDAL_HAT, COWBELL_OF_ANOTHER_KIT = 36, 38, 44, 99
CODEC_LOGGER = "decahub.models.drum_lm.midi.codec"


def perform(notes, ticks_per_quarter: int = 480, meters=((0, 4, 4),), tempos=()) -> DrumPerformance:
    """A performance of (tick, pitch) pairs."""
    ticks, pitches = zip(*notes, strict=True) if notes else ((), ())
    return DrumPerformance(ticks, pitches, [80] * len(ticks), ticks_per_quarter, list(meters), list(tempos))


def find_hits(roll: DrumRoll) -> list[list[int]]:
    """Step and column of each hit."""
    return np.argwhere(roll.hits).tolist()


def draw_hits(num_steps: int, num_columns: int) -> np.ndarray:
    return np.random.default_rng(29).random((num_steps, num_columns)) < 0.3


@pytest.fixture
def warnings_shown(monkeypatch):
    """Messages that the codec warns of."""
    messages: list[str] = []
    monkeypatch.setattr(logging.get_logger(CODEC_LOGGER), "warning", messages.append)
    monkeypatch.setattr(logging.get_logger(CODEC_LOGGER), "warning_once", messages.append, raising=False)
    return messages


# --- Time


@pytest.mark.parametrize(
    ("quantize", "ticks_per_quarter"),
    [("exact", ticks) for ticks in (1, 4, 24, 96, 100, 220, 480, 960, 1000)]
    + [("official", ticks) for ticks in (24, 96, 480, 960, 1000)],  # those that eight divides
)
def test_notes_move_to_the_nearest_step_and_ties_to_the_later(quantize, ticks_per_quarter):
    codec = DrumCodec(bars=1, quantize=quantize)

    for tick in range(4 * ticks_per_quarter - ticks_per_quarter // 8 - 1):
        step = next(step for step in range(17) if 8 * tick < (2 * step + 1) * ticks_per_quarter)
        assert find_hits(codec.encode(perform([(tick, KICK)], ticks_per_quarter))) == [[step, 3]], tick


def test_official_quantization_stops_at_a_tick_of_no_step():
    # 220 ticks: steps of 55 ticks, each of which takes 54; tick 82 = 55 + 27 belongs to none.
    performance = perform([(55, KICK), (82, KICK), (110, SNARE)], 220)

    assert find_hits(DrumCodec(quantize="official").encode(performance)) == [[1, 3]]
    assert find_hits(DrumCodec().encode(performance)) == [[1, 3], [2, 2]]


def test_official_quantization_refuses_a_coarse_clock():
    with pytest.raises(ValueError, match="`ticks_per_quarter` must be at least 8 .*; got 4"):
        DrumCodec(quantize="official").encode(perform([(0, KICK)], 4))


@pytest.mark.parametrize(
    "codec", [DrumCodec(bars=2), DrumCodec(bars=2, quantize="official")], ids=["exact", "official"]
)
def test_notes_beyond_the_last_bar_are_left_out(codec):
    end = 2 * 4 * 480

    roll = codec.encode(perform([(0, KICK), (end - 61, SNARE), (end - 60, KICK), (2**40, KICK)]))

    assert roll.hits.shape == (32, 6)
    assert find_hits(roll) == [[0, 3], [31, 2]]


def test_tempo_changes_move_nothing():
    performance = perform([(480, KICK)], tempos=[(0, 600_000), (541, 300_000)])

    roll = DrumCodec().encode(performance)

    assert (find_hits(roll), roll.tempo) == ([[4, 3]], 100.0)


@pytest.mark.parametrize(
    ("tempos", "tempo"),
    [
        ([(0, 500_000), (0, 600_000)], 100),
        ([(0, 1_000_000), (1920, 600_000)], 100),
        ([(0, 1_000_000), (1950, 600_000)], 100),  # a drummer is a little early
        ([(2400, 600_000)], 120),
    ],
    ids=["the last of one tick", "after a count-in", "early", "later"],
)
def test_the_tempo_is_that_where_the_music_begins(tempos, tempo):
    assert DrumCodec().encode(perform([(1920, KICK), (9600, KICK)], tempos=tempos)).tempo == tempo


@pytest.mark.parametrize(("offset", "warns"), [(0, False), (20, False), (40, True)])
def test_triplets_are_warned_of(warnings_shown, offset, warns):
    DrumCodec().encode(perform([(120 * step + offset, KICK) for step in range(8)]))

    assert bool(warnings_shown) == warns
    assert all("triplets and shuffles" in message for message in warnings_shown)


# --- Meter


@pytest.mark.parametrize(("numerator", "num_steps"), [(2, 128), (3, 192), (4, 256), (5, 320)])
def test_sixteen_bars_of_quarter_notes(numerator, num_steps):
    roll = DrumCodec().encode(perform([(0, KICK)], meters=[(0, numerator, 4)]))

    assert len(roll) == num_steps
    assert (roll.steps_per_bar, roll.num_bars, roll.time_signature) == (4 * numerator, 16, (numerator, 4))


METERS = [((6, 8), 12), ((12, 8), 24), ((7, 8), 14), ((5, 8), 10), ((2, 2), 16), ((5, 16), 5)]


@pytest.mark.parametrize(("meter", "steps"), METERS, ids=str)
def test_other_meters_have_their_sixteenth_notes(meter, steps):
    performance = perform([(120 * steps, KICK)], meters=[(0, *meter)])

    roll = DrumCodec().encode(performance)

    assert (find_hits(roll), roll.steps_per_bar, roll.time_signature) == ([[steps, 3]], steps, meter)
    with pytest.raises(MeterError, match=f"must count quarter notes .*; got {meter[0]}/{meter[1]}"):
        DrumCodec.official().encode(performance)


def test_a_bar_of_no_whole_sixteenth_notes_is_refused():
    with pytest.raises(MeterError, match="must make a bar of whole sixteenth notes; got 3/32"):
        DrumCodec().encode(perform([(0, KICK)], meters=[(0, 3, 32)]))


@pytest.mark.parametrize("meters", [[], [(0, 4, 4)]], ids=["by default", "stated"])
def test_steps_that_contradict_the_meter_are_refused(meters):
    with pytest.raises(MeterError, match="must be 16, the sixteenth notes of a bar of 4/4; got 12. .* such as 3/4"):
        DrumCodec(steps_per_bar=12).encode(perform([(0, KICK)], meters=meters))


def test_a_meter_can_be_given_for_a_file_that_states_none():
    codec = DrumCodec(time_signature=(6, 8))

    assert codec.encode(perform([(0, KICK)], meters=[])).steps_per_bar == 12
    with pytest.raises(MeterError, match="must be that of the groove, 4/4; got 6/8. Leave it out"):
        codec.encode(perform([(0, KICK)]))


CHANGING = [(0, 4, 4), (3 * 1920, 3, 4)]


def test_change_of_meter_is_refused_with_its_bar():
    performance = perform([(0, KICK), (3 * 1920, KICK)], meters=CHANGING)

    with pytest.raises(MeterError, match="changes from 4/4 to 3/4 in bar 3, counted from 0.*`start_bar=3`"):
        DrumCodec().encode(performance)
    assert DrumCodec(bars=3).encode(performance).time_signature == (4, 4)
    later = DrumCodec().encode(performance, start_bar=3)
    assert (later.time_signature, later.first_bar, find_hits(later)) == ((3, 4), 3, [[0, 3]])


def test_last_meter_holds_for_the_whole():
    assert DrumCodec(time_signature="last").encode(perform([(0, KICK)], meters=CHANGING)).time_signature == (3, 4)


@pytest.mark.parametrize(
    "meters",
    [
        [(0, 4, 4), (1920, 4, 4)],
        [(0, 4, 4), (16 * 1920, 3, 4)],
        [(0, 4, 4), (9 * 1920, 3, 4)],
        [(0, 3, 4), (0, 4, 4)],
        [(0, 3, 4), (8 * 1440, 4, 4)],
    ],
    ids=["same", "beyond the roll", "after the last note", "at once", "before the first note"],
)
def test_change_that_matters_to_no_bar_is_none(meters):
    roll = DrumCodec().encode(perform([(8 * 1920, KICK)], meters=meters))

    assert roll.time_signature == (4, 4)
    assert find_hits(roll)[0][0] % 16 == 0


def test_bars_are_counted_through_changes_of_meter():
    # An incomplete bar before a change is one: bars begin at 0, 1440, 1920 and 3840.
    performance = perform([(0, KICK), (3840, SNARE)], meters=[(0, 3, 4), (1920, 4, 4)])

    roll = DrumCodec(bars=1).encode(performance, start_bar=3)

    assert (find_hits(roll), roll.source_bars) == ([[0, 2]], 4)


def test_missing_meter_is_four_quarters_but_the_authors_skip_the_file():
    assert DrumCodec().encode(perform([(0, KICK)], meters=[])).time_signature == (4, 4)
    with pytest.raises(MeterError, match="must state a time signature"):
        DrumCodec.official().encode(perform([(0, KICK)], meters=[]))


# --- Pitches


@pytest.mark.parametrize("columns", list(DRUM_MAPS))
def test_every_pitch_falls_in_its_column(columns):
    codec = DrumCodec(columns=columns)

    for column, pitches in enumerate(DRUM_MAPS[columns].pitches):
        for pitch in pitches:
            assert find_hits(codec.encode(perform([(0, pitch)]))) == [[0, column]]


def test_softest_hit_counts_and_two_of_a_column_are_one():
    notes = [(0, 38, 1), (3, 40, 127)]

    assert find_hits(DrumCodec().encode(read_midi((notes, 480)))) == [[0, 2]]


def test_known_pitches_without_a_column_are_dropped(warnings_shown):
    roll = DrumCodec(unknown_pitch="error").encode(perform([(0, KICK), (480, PEDAL_HAT), (960, PEDAL_HAT)]))

    assert (find_hits(roll), roll.dropped_pitches, warnings_shown) == ([[0, 3]], {PEDAL_HAT: 2}, [])


@pytest.mark.parametrize("columns", ["six", "nine"])
def test_the_whole_kit_of_general_midi_has_columns(columns):
    codec = DrumCodec(columns=columns, pedal_hat="hihat")

    assert codec.encode(perform([(120 * pitch, pitch) for pitch in range(35, 60)])).dropped_pitches == {}
    names = {35: "kick", 41: "tom" if columns == "six" else "low_tom", 39: "snare", 56: "ride"}
    for pitch, name in names.items():
        assert find_hits(codec.encode(perform([(0, pitch)]))) == [[0, codec.drum_map.find_column(name)]]


def test_the_authors_map_is_that_of_their_kit():
    with pytest.raises(ValueError, match=r"must have pitches of the map; got \[35, 41\]"):
        DrumCodec.official().encode(perform([(0, 35), (0, 41)]))


def test_a_map_of_the_users_adds_and_replaces():
    codec = DrumCodec(pitch_map={60: "kick", "62": "snare", 42: None})

    roll = codec.encode(perform([(0, 60), (480, 62), (960, 42), (1440, KICK)]))

    assert (find_hits(roll), roll.dropped_pitches) == ([[0, 3], [4, 2], [12, 3]], {42: 1})


def test_pedal_hat_can_count():
    assert find_hits(DrumCodec(pedal_hat="hihat").encode(perform([(960, PEDAL_HAT)]))) == [[8, 4]]


def test_unknown_pitches_are_left_out_and_named(warnings_shown):
    roll = DrumCodec().encode(perform([(0, KICK), (120, COWBELL_OF_ANOTHER_KIT), (480, 12)]))

    assert find_hits(roll) == [[0, 3]]
    assert roll.dropped_pitches == {12: 1, 99: 1}
    assert len(warnings_shown) == 1
    assert "Left out 2 notes" in warnings_shown[0]
    assert "[12, 99]" in warnings_shown[0]


def test_unknown_pitches_can_be_refused():
    with pytest.raises(ValueError, match=r"must have pitches of the map; got \[99\]"):
        DrumCodec(unknown_pitch="error").encode(perform([(0, KICK), (120, COWBELL_OF_ANOTHER_KIT)]))


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ([], "must hold notes; it has none"),
        ([(0, 60), (480, 62), (960, 60)], r"got 60 \(2 times\), 62 \(1 times\). Name their columns by `pitch_map`"),
        ([(40_000, KICK)], "its next is in bar 20. Pass at least 21 `bars`, or `start_bar=20`"),
    ],
    ids=["no notes", "another kit", "beyond the end"],
)
def test_silence_is_refused_with_the_remedy_unless_allowed(notes, message):
    with pytest.raises(ValueError, match=message + ".*Pass `allow_empty=True` for silence"):
        DrumCodec().encode(perform(notes))

    assert DrumCodec(allow_empty=True).encode(perform(notes)).hits.shape == (256, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "ten"}, "`columns` must be one of six, nine or a `DrumMap`; got 'ten'"),
        ({"quantize": "round"}, "`quantize` must be one of exact, official; got 'round'"),
        ({"unknown_pitch": "keep"}, "`unknown_pitch` must be one of ignore, error; got 'keep'"),
        ({"pedal_hat": "snare"}, "`pedal_hat` must be one of drop, hihat; got 'snare'"),
        ({"time_signature": "first"}, "`time_signature` must be one of error, last; got 'first'"),
        ({"bars": 0}, "`bars` must be a whole number, at least 1; got 0"),
        ({"steps_per_bar": -4}, "`steps_per_bar` must be a whole number, at least 1; got -4"),
        ({"bars": 2.5}, "`bars` must be a whole number, at least 1; got 2.5"),
        ({"bars": 10**9}, "`bars` must be at most 4096; got 1000000000"),
        ({"time_signature": (3, 3)}, "a power of two up to 128 as denominator; got 3/3"),
        ({"pitch_map": {60: "cowbell"}}, "`pitch_map` must map pitches from 0 to 127 to crash, .*; got 60: 'cowbell'"),
        ({"pitch_map": {128: "kick"}}, "`pitch_map` must map pitches .*; got 128: 'kick'"),
    ],
)
def test_codec_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        DrumCodec(**options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hits": np.zeros(6)}, r"`hits` must be of shape \(steps, columns\); got \(6,\)"),
        ({"steps_per_bar": 0}, "`steps_per_bar` must be positive; got 0"),
        ({"hits": np.full((4, 6), np.nan)}, "`hits` must be 1 for a hit and 0 for none; got nan"),
        ({"hits": np.full((4, 6), 0.01)}, "`hits` must be 1 .*; got 0.01. .*such as `hits > 0.5`"),
        ({"hits": np.full((4, 6), -1)}, "`hits` must be 1 .*; got -1"),
        ({"steps_per_bar": 12, "time_signature": (4, 4)}, "`steps_per_bar` must be 16, .*of 4/4; got 12"),
    ],
)
def test_roll_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        DrumRoll(**{"hits": np.zeros((4, 6))} | fields)


# --- Text


def test_text_of_all_lines_of_six_columns():
    hits = np.array(list(product([False, True], repeat=6)))

    text = DrumCodec().to_text(hits)

    assert text == "".join("".join(line) + "\n" for line in product("-o", repeat=6))
    assert np.array_equal(DrumCodec().parse_text(text), hits)


@pytest.mark.parametrize("num_steps", [0, 1, 17, 256])
@pytest.mark.parametrize("columns", ["six", "nine"])
def test_rolls_of_any_length_come_back_from_their_text(columns, num_steps):
    codec = DrumCodec(columns=columns)
    hits = draw_hits(num_steps, codec.drum_map.num_columns)

    assert np.array_equal(codec.parse_text(codec.to_text(DrumRoll(hits))), hits)


def test_separators_and_end_are_no_steps():
    hits = DrumCodec().parse_text("--o---\nSEP\n---o--\nEND")

    assert np.array_equal(hits, DrumCodec().parse_text("--o---\n---o--\n"))


def test_separators_can_have_other_names():
    assert len(DrumCodec().parse_text("--o---\n|\n------\n#\n", separator="|", end="#")) == 2


def test_lenient_reading():
    text = "--O---\r\nSEP\r\n\r\n---x--  \r\nEND\r\n\n \n"

    hits = DrumCodec().parse_text(text, strict=False)

    assert np.array_equal(hits, DrumCodec().parse_text("--o---\n---o--\n"))


def test_line_ends_of_any_system_and_blank_lines_at_the_end_are_no_problem():
    text = "--o---\r\nSEP\r\n---o--\r\nEND\r\n\r\n \n"

    hits = DrumCodec().parse_text(text)

    assert np.array_equal(hits, DrumCodec().parse_text("--o---\n---o--\n"))


@pytest.mark.parametrize(
    ("text", "strict", "message"),
    [
        ("------\n--x---\n", True, "got 'x' in line 2, column 3"),
        ("------\n--O---\n", True, "got 'O' in line 2, column 3"),
        ("------\n-----é\n", True, "got 'é' in line 2, column 6"),
        ("------\n--?---\n", False, "got '\\?' in line 2, column 3"),
        ("-------\r\n", True, "must have 6 characters in each line; line 1 has 7"),
        ("------\n\n------\n", True, "line 2 has 0"),
        ("------\n-----\n", True, "line 2 has 5: '-----'"),
        ("------\n-------\n", False, "line 2 has 7: '-------'"),
        ("SEPSEP\n", True, "got 'S' in line 1, column 1"),
    ],
)
def test_broken_text_is_refused_with_its_place(text, strict, message):
    with pytest.raises(ValueError, match=message):
        DrumCodec().parse_text(text, strict=strict)


def test_roll_of_other_columns_is_refused():
    with pytest.raises(ValueError, match=r"`roll` must have 6 columns; got shape \(4, 9\)"):
        DrumCodec().to_text(np.zeros((4, 9)))


# --- MIDI


@pytest.mark.parametrize(
    ("mode", "numerator"),
    [("standard", 3), ("standard", 4), ("official", 4)],  # the authors' files always say 4/4
)
@pytest.mark.parametrize("columns", ["six", "nine"])
def test_rolls_come_back_from_their_file(columns, mode, numerator):
    codec = DrumCodec(columns=columns, unknown_pitch="error")
    num_steps = 16 * 4 * numerator
    roll = DrumRoll(draw_hits(num_steps, codec.drum_map.num_columns), 4 * numerator, (numerator, 4), tempo=120.0)

    again = codec.encode(read_midi(codec.to_midi(roll, mode=mode)))

    assert np.array_equal(again.hits, roll.hits)
    assert (again.steps_per_bar, again.time_signature, again.tempo) == (4 * numerator, (numerator, 4), 120.0)
