"""MIDI files from drum rolls: in the form that players expect, or byte for byte as the authors' code writes them."""

import math
from itertools import pairwise

import numpy as np

from .drum_map import DrumMap
from .meter import DENOMINATORS, STEPS_PER_WHOLE_NOTE, check_time_signature
from .performance import MAX_TEMPO_EVENT, MICROSECONDS_PER_MINUTE


MODES = ("standard", "official")
TICKS_PER_QUARTER = 480
TICKS_PER_STEP = 120
NOTE_DURATION = 60  # a 32nd note: it ends before the next step
VELOCITY = 100
MAX_DELAY = 59  # ticks: a tick less than half a step
DRUM_CHANNEL = 9
OFFICIAL_TEMPO = 500_000
SILENT_PITCH = 51  # an empty step of the official form is a note of velocity 0 of this pitch
C_MAJOR = b"\xff\x59\x02\x00\x00"
END_OF_TRACK = b"\xff\x2f\x00"


def write_midi(
    roll: np.ndarray,
    drum_map: DrumMap,
    *,
    mode: str = "standard",
    tempo: float = 120.0,
    time_signature: tuple[int, int] = (4, 4),
    velocities: np.ndarray | None = None,
    offsets: np.ndarray | None = None,
) -> bytes:
    """A MIDI file that plays a roll `(steps, columns)`, whose steps are sixteenth notes.

    The mode `"standard"` writes one track on the drum channel, with `note_off` and to the end of the last bar.
    `velocities` (1 to 127) and `offsets` (in sixteenth notes, from -0.5 to 0.5), both of the shape of `roll`, say how
    each hit is played; by default all are equally strong and on their steps. No note comes before the beginning.
    `"official"` gives the bytes of the authors' code: hits on channel 1, no `note_off`, always 120 quarter notes a
    minute in 4/4, all hits alike.
    """
    hits = np.asarray(roll)
    if hits.ndim != 2 or hits.shape[1] != drum_map.num_columns:
        raise ValueError(f"`roll` must be of shape (steps, {drum_map.num_columns}); got {hits.shape}.")
    hits = hits.astype(bool)
    if mode == "official":
        return _write_official(hits, drum_map)
    if mode != "standard":
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}; got {mode!r}.")
    strengths = np.full(hits.shape, VELOCITY) if velocities is None else np.asarray(velocities)
    # Less than half a step, so that the file reads as the same roll and no drum is struck twice at once.
    delays = np.zeros(hits.shape) if offsets is None else np.rint(TICKS_PER_STEP * np.asarray(offsets))
    ticks = TICKS_PER_STEP * np.arange(len(hits))[:, None] + delays.clip(-MAX_DELAY, MAX_DELAY).astype(np.int64)
    return _write_standard(hits, ticks.clip(min=0), strengths, drum_map, tempo, time_signature)


def _write_standard(
    hits: np.ndarray,
    ticks: np.ndarray,
    velocities: np.ndarray,
    drum_map: DrumMap,
    tempo: float,
    time_signature: tuple[int, int],
) -> bytes:
    check_time_signature(time_signature)
    events = [(0, 0, build_tempo_event(convert_tempo(tempo))), (0, 0, build_time_signature_event(time_signature))]
    for column, pitch in enumerate(drum_map.written):
        struck = hits[:, column]
        spans = pairwise([*ticks[struck, column].tolist(), math.inf])
        for (start, following), velocity in zip(spans, velocities[struck, column].tolist(), strict=True):
            events.append((start, 1, bytes((0x90 | DRUM_CHANNEL, pitch, velocity))))
            events.append((int(min(start + NOTE_DURATION, following)), 0, bytes((0x80 | DRUM_CHANNEL, pitch, 0))))
    bar = TICKS_PER_STEP * STEPS_PER_WHOLE_NOTE * time_signature[0] // time_signature[1]
    end = -(-len(hits) * TICKS_PER_STEP // bar) * bar
    events.sort(key=lambda event: event[:2])
    events.append((end, 2, END_OF_TRACK))
    return build_header(0, 1) + build_track(events)


def _write_official(hits: np.ndarray, drum_map: DrumMap) -> bytes:
    events = [
        (0, 0, event) for event in (build_tempo_event(OFFICIAL_TEMPO), build_time_signature_event((4, 4)), C_MAJOR)
    ]
    conductor = build_track([*events, (1, 0, END_OF_TRACK)])
    body = bytearray(b"\x00" + bytes((0xC0 | DRUM_CHANNEL, 0)))
    status, has_begun = b"\x90", False
    for row in hits:
        pitches = [drum_map.written[column] for column in np.flatnonzero(row)]
        # The first hit of all comes without a delay, so that silent steps before it shift nothing.
        delta = TICKS_PER_STEP if has_begun or not pitches else 0
        for pitch in pitches or [SILENT_PITCH]:
            body += bytes((delta,)) + status + bytes((pitch, VELOCITY if pitches else 0))
            status, delta = b"", 0  # running status from the second note on
        has_begun = has_begun or bool(pitches)
    body += b"\x01" + END_OF_TRACK
    return build_header(1, 2) + conductor + build_chunk(b"MTrk", bytes(body))


def convert_tempo(tempo: float) -> int:
    """Microseconds for each quarter note; refuses a tempo that a file cannot state."""
    if not MICROSECONDS_PER_MINUTE / MAX_TEMPO_EVENT <= tempo <= MICROSECONDS_PER_MINUTE:
        raise ValueError(f"`tempo` must be from 3.6 to 60 million quarter notes a minute; got {tempo!r}.")
    return min(round(MICROSECONDS_PER_MINUTE / tempo), MAX_TEMPO_EVENT)


def build_tempo_event(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3)


def build_time_signature_event(time_signature: tuple[int, int]) -> bytes:
    """Meter, with the usual metronome click of a quarter note (24 clocks) and eight 32nd notes in it."""
    numerator, denominator = time_signature
    return b"\xff\x58\x04" + bytes((numerator, DENOMINATORS.index(denominator), 24, 8))


def build_header(midi_format: int, num_tracks: int) -> bytes:
    return build_chunk(b"MThd", b"".join(part.to_bytes(2) for part in (midi_format, num_tracks, TICKS_PER_QUARTER)))


def build_track(events: list[tuple[int, int, bytes]]) -> bytes:
    """A track of events in order; each has its tick, its place among those of one tick, and its bytes."""
    body, now = bytearray(), 0
    for tick, _, message in events:
        body += encode_variable_length(tick - now) + message
        now = tick
    return build_chunk(b"MTrk", bytes(body))


def build_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4) + body


def encode_variable_length(value: int) -> bytes:
    """Seven bits a byte, most significant first; the highest bit says that another byte follows."""
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(value & 0x7F | 0x80)
    return bytes(reversed(octets))


__all__ = ["MODES", "write_midi"]
