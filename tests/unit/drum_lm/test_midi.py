"""MIDI files of drums: every onset is read, damaged files are refused by name, and written files read back."""

import io
import struct

import numpy as np
import pytest

from decahub.models.drum_lm.midi.drum_map import DROPPED_PITCH, DRUM_MAPS, UNKNOWN_PITCH, DrumMap, get_drum_map
from decahub.models.drum_lm.midi.performance import DrumPerformance
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.models.drum_lm.midi.writer import write_midi


END = b"\x00\xff\x2f\x00"
KICK = b"\x00\x99\x24\x64"  # at once, channel 10, pitch 36, velocity 100


def build_file(*bodies: bytes, midi_format: int | None = None, division: int = 480, num_tracks: int | None = None):
    """A file of tracks with the given bodies."""
    midi_format = (0 if len(bodies) == 1 else 1) if midi_format is None else midi_format
    header = b"MThd" + struct.pack(
        ">IHHH", 6, midi_format, len(bodies) if num_tracks is None else num_tracks, division
    )
    return header + b"".join(b"MTrk" + struct.pack(">I", len(body)) + body for body in bodies)


def list_notes(performance: DrumPerformance) -> list[tuple[int, int, int]]:
    return list(
        zip(performance.ticks.tolist(), performance.pitches.tolist(), performance.velocities.tolist(), strict=True)
    )


def draw_roll(num_steps: int, num_columns: int) -> np.ndarray:
    return np.random.default_rng(29).random((num_steps, num_columns)) < 0.3


# --- Events


def test_reads_onsets_without_their_ends():
    data = build_file(KICK + b"\x78\x99\x26\x50" + END)

    assert list_notes(read_midi(data)) == [(0, 36, 100), (120, 38, 80)]


def test_note_of_velocity_zero_is_no_hit():
    data = build_file(KICK + b"\x3c\x99\x24\x00" + b"\x3c\x89\x24\x40" + END)

    assert list_notes(read_midi(data)) == [(0, 36, 100)]


@pytest.mark.parametrize(
    ("between", "delay"),
    [
        (b"", 0),
        (b"\x10\xff\x01\x03abc", 16),
        (b"\x10\xf0\x03\x7e\x7f\xf7", 16),
        (b"\x10\xf7\x02\x01\x02", 16),
    ],
    ids=["nothing", "text", "system_exclusive", "escape"],
)
def test_running_status(between, delay):
    data = build_file(KICK + b"\x0a\x26\x50" + between + b"\x14\x2a\x46" + END)

    assert list_notes(read_midi(data)) == [(0, 36, 100), (10, 38, 80), (30 + delay, 42, 70)]


def test_running_status_of_messages_with_one_data_byte():
    program_changes = b"\x00\xc9\x01" + b"\x05\x02" + b"\x05\x03"
    pressure = b"\x00\xd9\x10" + b"\x05\x11"

    data = build_file(program_changes + KICK + pressure + b"\x07\x99\x26\x50" + b"\x01\x2a\x46" + END)

    assert list_notes(read_midi(data)) == [(10, 36, 100), (22, 38, 80), (23, 42, 70)]


def test_other_channel_messages_move_time_only():
    others = b"\x01\xb9\x04\x5a" + b"\x01\xa9\x24\x10" + b"\x01\xe9\x00\x40" + b"\x01\x89\x24\x40"

    assert list_notes(read_midi(build_file(others + KICK + END))) == [(4, 36, 100)]


@pytest.mark.parametrize(
    ("delta", "tick"),
    [(b"\x7f", 127), (b"\x81\x00", 128), (b"\xff\xff\x7f", 2**21 - 1), (b"\xff\xff\xff\x7f", 2**28 - 1)],
    ids=["one", "two", "three", "four"],
)
def test_delta_times_of_every_length(delta, tick):
    data = build_file(KICK + delta + b"\x99\x26\x50" + delta + b"\x26\x51" + END)

    assert read_midi(data).ticks.tolist() == [0, tick, 2 * tick]


def test_many_huge_deltas_do_not_overflow():
    data = build_file((b"\xff\xff\xff\x7f\x99\x24\x64") * 300 + END)

    assert read_midi(data).ticks[-1] == 300 * (2**28 - 1)


def test_data_bytes_above_127_are_clipped():
    data = build_file(b"\x00\x99\x26\xc8" + b"\x05\x99\xf0\x40" + b"\x05\x24\x64" + END)

    assert list_notes(read_midi(data)) == [(0, 38, 127), (5, 127, 64), (10, 36, 100)]


def test_runs_of_messages_agree_with_a_plain_reading():
    generator = np.random.default_rng(7)
    body, expected, tick, running = b"", [], 0, None
    for _ in range(2_000):
        delta, pitch, velocity = (int(value) for value in generator.integers(0, (400, 128, 128)))
        status = int(generator.choice([0x99, 0x99, 0x89, 0xB9, 0xE9]))
        tick += delta
        octets = bytes((delta,)) if delta < 128 else bytes((delta >> 7 | 0x80, delta & 0x7F))
        hide = status == running and generator.random() < 0.7
        body += octets + (b"" if hide else bytes((status,))) + bytes((pitch, velocity))
        running = status
        if status == 0x99 and velocity:
            expected.append((tick, pitch, velocity))

    assert list_notes(read_midi(build_file(body + END))) == expected


def test_a_missing_end_and_what_follows_the_tracks_do_no_harm():
    assert list_notes(read_midi(build_file(KICK) + b"rest")) == [(0, 36, 100)]


def test_events_after_the_end_of_the_track_are_left_out():
    assert list_notes(read_midi(build_file(KICK + END + KICK))) == [(0, 36, 100)]


def test_unknown_chunks_are_skipped():
    header, track = build_file(KICK + END)[:14], build_file(KICK + END)[14:]

    assert list_notes(read_midi(header + b"XFIH\x00\x00\x00\x02ab" + track)) == [(0, 36, 100)]


def test_longer_header_is_skipped():
    data = build_file(KICK + END)

    assert len(read_midi(data[:7] + b"\x08" + data[8:14] + b"\x00\x00" + data[14:])) == 1


def test_tempos_and_meters_are_kept_in_order():
    tempo, slower = b"\xff\x51\x03\x07\xa1\x20", b"\xff\x51\x03\x0f\x42\x40"
    meters = b"\x00\xff\x58\x04\x03\x02\x18\x08" + b"\x8b\x20\xff\x58\x04\x07\x03\x18\x08"

    performance = read_midi(build_file(b"\x00" + tempo + meters + b"\x00" + slower + KICK + END))

    assert performance.time_signatures == [(0, 3, 4), (1440, 7, 8)]
    assert performance.tempos == [(0, 500_000), (1440, 1_000_000)]
    assert performance.tempo == 60.0  # where the note is


def test_tempo_without_an_event():
    assert read_midi(build_file(KICK + END)).tempo == 120.0


def test_file_without_notes_is_an_empty_performance():
    assert len(read_midi(build_file(END))) == 0


# --- Tracks


PIANO = b"\x00\xff\x03\x05Piano\x00\x90\x3c\x64" + END
BASS = b"\x00\xff\x03\x04Bass\x00\x91\x28\x64\x05\x2b\x64" + END


def test_notes_of_the_drum_channel_are_taken():
    drums = KICK + b"\x10\x89\x24\x00" + b"\x00\x99\x26\x50" + b"\x10\x89\x26\x00" + END
    other = b"\x00\x90\x3c\x64\x10\x80\x3c\x00" + END

    performance = read_midi(build_file(other, drums, other))

    assert list_notes(performance) == [(0, 36, 100), (16, 38, 80)]


def test_several_drum_tracks_are_merged_in_time():
    performance = read_midi(build_file(b"\x0a\x99\x26\x50" + END, KICK + b"\x14\x2a\x46" + END))

    assert list_notes(performance) == [(0, 36, 100), (10, 38, 80), (20, 42, 70)]


def test_only_track_with_notes_is_taken_whatever_its_channel():
    meter = b"\x00\xff\x58\x04\x05\x02\x18\x08" + END

    performance = read_midi(build_file(meter, b"\x00\xc0\x00" + b"\x00\x90\x24\x64" + END))

    assert list_notes(performance) == [(0, 36, 100)]
    assert performance.time_signatures == [(0, 5, 4)]
    assert performance.tracks == ("1 '' (1 notes)",)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x00\x90\x3c\x64\x00\x40\x64", "are not those of a drum kit"),
        (b"\x00\xc2\x21\x00\x92\x24\x64", "are for the program 33"),
    ],
    ids=["piano", "bass"],
)
def test_another_instrument_is_not_taken_for_drums_unless_asked_for(body, reason):
    data = build_file(body + END)

    with pytest.raises(ValueError, match=f"no notes on the drum channel, and others {reason}: .* pass `track=0`"):
        read_midi(data)
    assert len(read_midi(data, track=0))


@pytest.mark.parametrize("library", ["symusic", "pretty_midi"])
def test_a_score_of_a_bass_is_not_taken_for_drums(library):
    module = pytest.importorskip(library)
    data = build_file(b"\x00\xc2\x21" + END, b"\x00\x92\x28\x64\x30\x2b\x64\x30\x82\x28\x00\x00\x2b\x00" + END)
    is_pretty = library == "pretty_midi"
    score = module.PrettyMIDI(io.BytesIO(data)) if is_pretty else module.Score.from_midi(data)
    parts = score.instruments if is_pretty else score.tracks
    for part in parts:
        part.program = 33

    with pytest.raises(ValueError, match="others are for the program 33: for drums pass `track=0`"):
        read_midi(score)
    with pytest.raises(ValueError, match="others are for the program 33: for drums pass `track=1`"):
        read_midi(data)


def test_doubtful_tracks_are_listed():
    with pytest.raises(
        ValueError, match=r"choose a track by `track=` among 0 'Piano' \(1 notes\); 1 'Bass' \(2 notes\)"
    ):
        read_midi(build_file(PIANO, BASS))


def test_track_can_be_chosen():
    assert len(read_midi(build_file(PIANO, BASS), track=1)) == 2


@pytest.mark.parametrize("track", [-1, 2])
def test_refuses_track_that_is_not_there(track):
    with pytest.raises(ValueError, match=f"has 2 tracks, counted from 0, and no track {track}"):
        read_midi(build_file(PIANO, BASS), track=track)


def test_independent_sequences_need_a_choice():
    data = build_file(PIANO, BASS, midi_format=2)

    with pytest.raises(ValueError, match="holds 2 independent sequences"):
        read_midi(data)
    assert len(read_midi(data, track=1)) == 2


# --- Damaged files


DAMAGED = {
    "empty": (b"", "instead of a whole MIDI header"),
    "wrong header": (b"RIFF" + build_file(KICK)[4:], "begins with b'RIFF'"),
    "header cut short": (build_file(KICK)[:12], "instead of a whole MIDI header"),
    "small header": (b"MThd\x00\x00\x00\x04" + build_file(KICK)[8:], "a header of 4 bytes"),
    "unknown format": (build_file(KICK, midi_format=3), "MIDI format 3"),
    "smpte": (build_file(KICK, division=0xE728), "SMPTE"),
    "no division": (build_file(KICK, division=0), "0 ticks per quarter note"),
    "track cut short": (build_file(KICK + END)[:-2], "track 0 is not whole"),
    "no track": (build_file(num_tracks=1, midi_format=0), "has no track; 1 are announced"),
    "container without a file": (b"RIFF\x04\x00\x00\x00RMID", "is a RIFF container without a MIDI file"),
    "event cut short": (build_file(KICK[:-1]), "ends within an event of track 0"),
    "delta alone": (build_file(KICK + b"\x00"), "ends within an event"),
    "delta cut short": (build_file(KICK + b"\x81"), "ends within an event"),
    "one data byte": (build_file(KICK + b"\x00\xc9"), "ends within an event"),
    "meta cut short": (build_file(KICK + b"\x00\xff\x51\x03\x07"), "ends within an event"),
    "huge meta": (build_file(KICK + b"\x00\xff\x01\xff\xff\xff\x7f"), "ends within an event"),
    "deep length": (build_file(KICK + b"\x00\xff\x01" + b"\x80" * 9 + b"\x00"), "longer than 4 bytes"),
    "deep delta": (build_file(b"\xff" * 2_000 + KICK), "longer than 4 bytes"),
    "no status": (build_file(b"\x00\x24\x64"), "no event has begun"),
    "system common": (build_file(b"\x00\xf3\x01"), "status 0xF3"),
    "noise": (bytes(range(256)), "instead of a whole MIDI header"),
}


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=list(DAMAGED))
def test_refuses_damaged_file_by_name(tmp_path, data, message):
    path = tmp_path / "groove.mid"
    path.write_bytes(data)

    with pytest.raises(ValueError, match=message) as caught:
        read_midi(path)

    assert "groove.mid" in str(caught.value)


def put_in_riff(data: bytes) -> bytes:
    info = b"LIST" + struct.pack("<I", 3) + b"abc\x00"  # chunks have an even size
    body = b"RMID" + info + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


FORGIVEN = {
    "a track too many": (build_file(KICK + END, num_tracks=2), "2 tracks are announced, and there are 1"),
    "a track too few": (build_file(END, KICK + END, num_tracks=1), "1 tracks are announced, and there are 2"),
    "tempo of zero": (build_file(b"\x00\xff\x51\x03\x00\x00\x00" + KICK), "a tempo of the bytes '00 00 00'"),
    "short tempo": (build_file(b"\x00\xff\x51\x01\x07" + KICK), "a tempo of the bytes '07' is left out"),
    "meter of zero": (build_file(b"\x00\xff\x58\x04\x00\x02\x18\x08" + KICK), "a time signature of the bytes '00 02"),
    "meter of a googol": (build_file(b"\x00\xff\x58\x04\x04\xff\x18\x08" + KICK), "a time signature of the bytes"),
}


@pytest.mark.parametrize(("data", "message"), FORGIVEN.values(), ids=list(FORGIVEN))
def test_what_players_forgive_is_read_with_a_warning(tmp_path, data, message):
    path = tmp_path / "groove.mid"
    path.write_bytes(data)

    with pytest.warns(UserWarning, match=f"groove.mid.*{message}"):
        performance = read_midi(path)

    assert list_notes(performance) == [(0, 36, 100)]
    assert (performance.tempos, performance.time_signatures) == ([], [])


def test_a_file_in_a_riff_container_is_read():
    data = build_file(KICK + b"\x3c\x89\x24\x40" + END)

    assert list_notes(read_midi(put_in_riff(data))) == [(0, 36, 100)]


def test_paths_that_are_no_files_are_named(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder. Give the files in it"):
        read_midi(tmp_path)
    with pytest.raises(FileNotFoundError, match="`source` must be an existing MIDI file; there is no .*none.mid"):
        read_midi(tmp_path / "none.mid")


def test_every_cut_and_every_changed_byte_is_read_or_refused():
    meter = b"\x00\xff\x58\x04\x03\x02\x18\x08"
    whole = build_file(meter + KICK + b"\x81\x00\x26\x50" + b"\x05\xc9\x01" + b"\x05\x99\x2a\x46" + END)
    changed = [whole[:size] for size in range(len(whole))]
    changed += [
        whole[:place] + bytes((value,)) + whole[place + 1 :]
        for place in range(len(whole))
        for value in (0x00, 0x7F, 0x80, 0xC0, 0xF0, 0xFF)
    ]

    for data in changed:
        try:
            performance = read_midi(data)
        except ValueError as error:
            assert "`source` must" in str(error)  # noqa: PT017 (one of many, most of which are read)
        else:
            assert performance.ticks.dtype == np.int64


# --- Sources


def test_sources_of_every_kind_give_the_same(tmp_path):
    data = build_file(KICK + b"\x78\x99\x26\x50" + END)
    path = tmp_path / "groove.mid"
    path.write_bytes(data)
    notes = [(120, 38, 80), (0, 36, 100)]

    sources = [
        path,
        str(path),
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        (notes, 480),
        (np.array(notes), 480),
    ]
    results = [list_notes(read_midi(source)) for source in sources]

    assert results == [[(0, 36, 100), (120, 38, 80)]] * len(sources)


def test_score_of_symusic():
    symusic = pytest.importorskip("symusic")
    roll = draw_roll(32, 6)
    score = symusic.Score.from_midi(write_midi(roll, DRUM_MAPS["six"], tempo=90.0, time_signature=(3, 4)))

    for source in (score, score.to("quarter")):
        performance = read_midi(source)
        assert len(performance) == roll.sum()
        assert performance.time_signatures == [(0, 3, 4)]
        assert performance.tempo == pytest.approx(90.0, abs=1e-3)  # whole microseconds


def test_score_of_pretty_midi():
    pretty_midi = pytest.importorskip("pretty_midi")
    roll = draw_roll(48, 6)
    data = write_midi(roll, DRUM_MAPS["six"], tempo=90.0, time_signature=(3, 4))

    performance = read_midi(pretty_midi.PrettyMIDI(io.BytesIO(data)))

    expected = read_midi(data)
    assert list_notes(performance) == list_notes(expected)
    assert (performance.time_signatures, performance.tempos) == (expected.time_signatures, expected.tempos)
    assert performance.ticks_per_quarter == expected.ticks_per_quarter


def test_score_of_pretty_midi_without_drums_is_doubtful():
    pretty_midi = pytest.importorskip("pretty_midi")
    score = pretty_midi.PrettyMIDI()
    for program in (1, 2):
        score.instruments.append(pretty_midi.Instrument(program))
        score.instruments[-1].notes.append(pretty_midi.Note(90, 60, 0.0, 0.5))

    with pytest.raises(ValueError, match="`source` must hold one drum track; the score has no notes on the drum"):
        read_midi(score)


def test_doubtful_score_of_symusic():
    symusic = pytest.importorskip("symusic")
    ends = b"\x10\x80\x3c\x00" + END
    score = symusic.Score.from_midi(build_file(b"\x00\x90\x3c\x64" + ends, b"\x00\x90\x3c\x64" + ends))

    with pytest.raises(
        ValueError, match="`source` must hold one drum track; the score has no notes on the drum channel"
    ):
        read_midi(score)


def test_performance_is_returned_as_it_is():
    performance = DrumPerformance([0], [36], [100], 480)

    assert read_midi(performance) is performance


def test_no_notes_are_an_empty_performance():
    assert len(read_midi(([], 480))) == 0


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (42, TypeError, "`source` must be a path, bytes, .*; got int"),
        (io.StringIO("MThd"), TypeError, "must be opened in binary mode"),
        (([(0, 36)], 480), ValueError, r"rows of tick, pitch and velocity; got shape \(1, 2\)"),
        (([(0, 200, 90)], 480), ValueError, "`pitches` must lie from 0 to 127; got 200"),
        (([(0, 36, 0)], 480), ValueError, "`velocities` must lie from 1 to 127; got 0"),
        (([(-5, 36, 9)], 480), ValueError, "`ticks` must lie from 0 to .*; got -5"),
        (([(0.5, 36, 9)], 480), TypeError, "must hold integers; got float64"),
        (([(0, 36, 9)], 0), ValueError, "`ticks_per_quarter` must be from 1 to 32767; got 0"),
    ],
    ids=["number", "text file", "shape", "pitch", "velocity", "tick", "float", "ticks per quarter"],
)
def test_refuses_other_sources(source, error, message):
    with pytest.raises(error, match=message):
        read_midi(source)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.mid"):
        read_midi(tmp_path / "nowhere.mid")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pitches": [36]}, "one entry for each note"),
        ({"time_signatures": [(0, 4, 3)]}, "`time_signature` must .*; got 4/3"),
        ({"time_signatures": [(0, 0, 4)]}, "`time_signature` must .*; got 0/4"),
        ({"tempos": [(0, 0)]}, "`tempos` must lie from 1 to 16777215 microseconds; got 0"),
    ],
)
def test_performance_refuses_what_does_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        DrumPerformance(
            **{"ticks": [0, 5], "pitches": [36, 38], "velocities": [9, 9], "ticks_per_quarter": 480} | fields
        )


# --- Writing


@pytest.mark.parametrize("mode", ["standard", "official"])
@pytest.mark.parametrize("columns", ["six", "nine"])
@pytest.mark.parametrize("silent_steps", [0, 3])
def test_written_rolls_are_read_back(columns, mode, silent_steps):
    drum_map = DRUM_MAPS[columns]
    roll = draw_roll(48, drum_map.num_columns)
    roll[:silent_steps] = False
    table = drum_map.build_table()

    performance = read_midi(write_midi(roll, drum_map, mode=mode))

    again = np.zeros_like(roll)
    again[performance.ticks // 120, table[performance.pitches]] = True
    assert np.array_equal(again, roll)
    assert not (performance.ticks % 120).any()


def test_standard_file_states_tempo_and_meter_and_lasts_to_the_end_of_the_bar():
    roll = np.zeros((13, 6), dtype=bool)
    roll[0, 3] = True

    data = write_midi(roll, DRUM_MAPS["six"], tempo=150.0, time_signature=(3, 4))

    performance = read_midi(data)
    assert (performance.tempo, performance.time_signatures) == (150.0, [(0, 3, 4)])
    end = 2 * 12 * 120 - 60  # two bars of twelve steps, after the end of the only note
    assert data.endswith(bytes((end >> 7 | 0x80, end & 0x7F)) + b"\xff\x2f\x00")


def test_official_file_has_no_tempo_and_meter_of_its_own():
    roll = draw_roll(16, 6)

    assert write_midi(roll, DRUM_MAPS["six"], mode="official", tempo=60.0, time_signature=(3, 4)) == write_midi(
        roll, DRUM_MAPS["six"], mode="official"
    )


@pytest.mark.parametrize("mode", ["standard", "official"])
def test_roll_without_a_step_can_be_written(mode):
    assert len(read_midi(write_midi(np.zeros((0, 6), dtype=bool), DRUM_MAPS["six"], mode=mode))) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "other"}, "`mode` must be one of standard, official; got 'other'"),
        ({"tempo": 0.0}, "`tempo` must be .*; got 0.0"),
        ({"tempo": float("nan")}, "`tempo` must be .*; got nan"),
        ({"time_signature": (4, 5)}, "`time_signature` must have .*; got 4/5"),
        ({"roll": np.zeros((4, 9), dtype=bool)}, r"`roll` must be of shape \(steps, 6\); got \(4, 9\)"),
        ({"roll": np.zeros(6, dtype=bool)}, r"`roll` must be of shape \(steps, 6\); got \(6,\)"),
    ],
)
def test_writer_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        write_midi(**{"roll": draw_roll(4, 6), "drum_map": DRUM_MAPS["six"]} | options)


# --- Maps


@pytest.mark.parametrize("columns", list(DRUM_MAPS))
def test_maps_know_the_same_pitches(columns):
    table = DRUM_MAPS[columns].build_table()

    known = np.flatnonzero(table != UNKNOWN_PITCH).tolist()

    assert known == [22, 26, *range(35, 60)]


@pytest.mark.parametrize(("pedal_hat", "column"), [("drop", DROPPED_PITCH), ("hihat", 4)])
def test_pedal_hat_of_the_method(pedal_hat, column):
    assert DRUM_MAPS["six"].build_table(pedal_hat)[44] == column


def test_pedal_hat_of_nine_columns_is_a_closed_hihat():
    drum_map = DRUM_MAPS["nine"]

    assert drum_map.build_table()[44] == drum_map.find_column("closed_hihat") == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"written": (36,)}, "one entry for each column; got 2, 2 and 1"),
        ({"written": (36, 99)}, "`written` must name a pitch of its own column; got 99 for 'b'"),
        ({"dropped": (36,)}, r"each pitch of 0 to 127 at most once; got \[36\]"),
        ({"dropped": (128,)}, r"at most once; got \[128\]"),
    ],
)
def test_map_refuses_what_does_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        DrumMap(**{"columns": ("a", "b"), "pitches": ((36, 35), (38,)), "written": (36, 38)} | fields)


def test_unknown_map_and_column_are_refused():
    with pytest.raises(ValueError, match="`columns` must be one of six, nine or a `DrumMap`; got 'ten'"):
        get_drum_map("ten")
    with pytest.raises(ValueError, match="`name` must be one of crash, ride, .*; got 'gong'"):
        DRUM_MAPS["six"].find_column("gong")
