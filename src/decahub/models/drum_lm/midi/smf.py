"""Onsets, tempos and meters of a standard MIDI file, event by event.

A drum hit is its `note_on`: many writers of drum files leave `note_off` out, and readers that pair the two lose such
hits. Runs of channel messages, nearly all of a drum file, are found by a regular expression and decoded at once.
"""

import re
from dataclasses import dataclass, field

import numpy as np


HEADER_SIZE = 14
MAX_VARIABLE_LENGTH_BYTES = 4
MAX_DENOMINATOR_EXPONENT = 7
DATA_MASK = 0x7F
FIRST_STATUS = 0x80
NOTE_ON, PROGRAM_CHANGE = 0x9, 0xC
ONE_DATA_BYTE = (0xC, 0xD)  # program change and channel pressure; the other channel messages have two
FIRST_SYSTEM_STATUS = 0xF0
SYSTEM_EXCLUSIVE = (0xF0, 0xF7)
META = 0xFF
META_TRACK_NAME, META_END_OF_TRACK, META_TEMPO, META_TIME_SIGNATURE = 0x03, 0x2F, 0x51, 0x58

# Messages of delta time, status (left out where it is that of the message before) and two data bytes. Possessive
# quantifiers would say the same, but those of groups match too much in Python 3.11.2 (gh-106052).
match_run = re.compile(rb"(?:[\x80-\xFF]{0,3}[\x00-\x7F][\x80-\xBF\xE0-\xEF]?[\x00-\x7F]{2})+", re.DOTALL).match


@dataclass
class MidiTrack:
    """What one track of a file holds; ticks are counted from its start."""

    name: str = ""
    # Rows of tick, channel index, pitch and velocity of each onset.
    notes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), dtype=np.int64))
    tempos: list[tuple[int, int]] = field(default_factory=list)  # tick and microseconds for each quarter note
    time_signatures: list[tuple[int, int, int]] = field(default_factory=list)  # tick, numerator and denominator
    programs: dict[int, int] = field(default_factory=dict)  # last one of each channel index
    remarks: list[str] = field(default_factory=list)  # what was read as players read it, although it is wrong


def parse_header(data: bytes) -> tuple[int, int, int, int]:
    """Format, number of tracks, ticks per quarter note, and the position where the tracks begin."""
    if len(data) < HEADER_SIZE or data[:4] != b"MThd":
        raise ValueError(f"begins with {data[:4]!r} instead of a whole MIDI header")
    size, midi_format, num_tracks, division = (
        int.from_bytes(data[start:end]) for start, end in ((4, 8), (8, 10), (10, 12), (12, 14))
    )
    if size < 6:
        raise ValueError(f"has a header of {size} bytes instead of 6")
    if midi_format > 2:
        raise ValueError(f"is of MIDI format {midi_format} instead of 0, 1 or 2")
    if division & 0x8000:
        raise ValueError("counts time in SMPTE frames instead of ticks per quarter note")
    if not division:
        raise ValueError("has 0 ticks per quarter note")
    return midi_format, num_tracks, division, 8 + size


def scan_file(data: bytes) -> tuple[int, int, list[MidiTrack]]:
    """Format, ticks per quarter note and tracks of a file; the message of a `ValueError` continues "the file ...".

    As players do, this reads data bytes above 127 as 127, skips chunks of unknown kinds and tempos and meters that are
    none, takes the tracks that there are whatever the header announces, and unpacks a RIFF container (RMID). What is
    wrong in that is a remark of a track.
    """
    data = unpack_riff(data)
    midi_format, num_tracks, ticks_per_quarter, position = parse_header(data)
    tracks: list[MidiTrack] = []
    # Beyond the announced tracks, anything but another track is not looked at.
    while position < len(data) and (len(tracks) < num_tracks or data[position : position + 4] == b"MTrk"):
        size = int.from_bytes(data[position + 4 : position + 8])
        start, end = position + 8, position + 8 + size
        if end > len(data) or len(data) < start:
            raise ValueError(f"is cut short: {num_tracks} tracks are announced, and track {len(tracks)} is not whole")
        if data[position : position + 4] == b"MTrk":
            try:
                tracks.append(scan_track(data[start:end]))
            except IndexError as error:
                raise ValueError(f"ends within an event of track {len(tracks)}") from error
            except ValueError as error:
                raise ValueError(f"is corrupted in track {len(tracks)}: {error}") from error
        position = end
    if not tracks:
        raise ValueError(f"has no track; {num_tracks} are announced")
    if len(tracks) != num_tracks:
        tracks[0].remarks.append(f"{num_tracks} tracks are announced, and there are {len(tracks)}")
    return midi_format, ticks_per_quarter, tracks


def unpack_riff(data: bytes) -> bytes:
    """The MIDI file in a RIFF container, or the bytes themselves."""
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"data":
            return data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    raise ValueError("is a RIFF container without a MIDI file")


def scan_track(chunk: bytes) -> MidiTrack:
    """Events of the body of a track; an `IndexError` if it ends within an event."""
    track = MidiTrack()
    blocks = [track.notes]
    tick = position = running_status = 0
    at_end = False
    while position < len(chunk) and not at_end:
        # Running status of one data byte would be misread as two.
        run = match_run(chunk, position) if running_status >> 4 not in ONE_DATA_BYTE else None
        if run and (running_status or chunk[read_variable_length(chunk, position)[1]] >= FIRST_STATUS):
            notes, tick, running_status = _decode_run(run.group(), tick, running_status)
            blocks.append(notes)
            position = run.end()
            continue
        delta, position = read_variable_length(chunk, position)
        tick += delta
        status = chunk[position]
        if status >= FIRST_SYSTEM_STATUS:
            position, at_end = _scan_system_event(chunk, position, tick, track)
            continue
        if status >= FIRST_STATUS:
            position += 1
            running_status = status
        elif not running_status:
            raise ValueError(f"byte {position} is data, but no event has begun")
        if running_status >> 4 == PROGRAM_CHANGE:
            track.programs[running_status & 0xF] = min(chunk[position], DATA_MASK)
        position, note = _scan_channel_event(chunk, position, tick, running_status)
        blocks.append(note)
    track.notes = np.concatenate(blocks)
    return track


def _decode_run(run: bytes, tick: int, running_status: int) -> tuple[np.ndarray, int, int]:
    """Onsets among successive channel messages of two data bytes, the tick of the last message and its status."""
    octets = np.frombuffer(run, dtype=np.uint8)
    # Three bytes of each message are below 128, the last of its delta time and its data, and none else is.
    last_of_delta, first_data, second_data = np.flatnonzero(octets < FIRST_STATUS).reshape(-1, 3).T
    last_with_status = np.maximum.accumulate(np.where(first_data - last_of_delta > 1, first_data, 0))
    statuses = np.where(last_with_status > 0, octets[last_with_status - 1], running_status)
    deltas = octets[last_of_delta].astype(np.int64)
    num_more_bytes = last_of_delta - np.append(0, second_data[:-1] + 1)
    for place in range(1, MAX_VARIABLE_LENGTH_BYTES):
        longer = np.flatnonzero(num_more_bytes >= place)
        deltas[longer] += (octets[last_of_delta[longer] - place] & DATA_MASK).astype(np.int64) << 7 * place
    ticks = tick + deltas.cumsum()
    velocities = octets[second_data]
    onsets = np.flatnonzero((statuses >> 4 == NOTE_ON) & (velocities > 0))
    columns = (ticks, statuses & 0xF, octets[first_data], velocities)
    notes = np.stack([column[onsets].astype(np.int64) for column in columns], axis=1)
    return notes, int(ticks[-1]), int(statuses[-1])


def _scan_channel_event(chunk: bytes, position: int, tick: int, status: int) -> tuple[int, np.ndarray]:
    """The position after the data bytes of a channel message, and its onset, if it is one, as an array of one row."""
    kind = status >> 4
    data = [min(chunk[position + place], DATA_MASK) for place in range(1 if kind in ONE_DATA_BYTE else 2)]
    notes = [(tick, status & 0xF, *data)] if kind == NOTE_ON and data[1] else []
    return position + len(data), np.array(notes, dtype=np.int64).reshape(-1, 4)


def read_variable_length(chunk: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the position after it."""
    value = 0
    for _ in range(MAX_VARIABLE_LENGTH_BYTES):
        byte = chunk[position]
        position += 1
        value = value << 7 | byte & DATA_MASK
        if byte < FIRST_STATUS:
            return value, position
    raise ValueError(f"the number before byte {position} is longer than {MAX_VARIABLE_LENGTH_BYTES} bytes")


def _scan_system_event(chunk: bytes, position: int, tick: int, track: MidiTrack) -> tuple[int, bool]:
    """Reads a meta or system exclusive event; returns the position after it and whether it ends the track."""
    status, kind = chunk[position], None
    position += 1
    if status == META:
        kind = chunk[position]
        position += 1
    elif status not in SYSTEM_EXCLUSIVE:
        raise ValueError(f"byte {position - 1} is the status 0x{status:02X}, which has no place in a file")
    size, start = read_variable_length(chunk, position)
    position = start + size
    if position > len(chunk):
        raise IndexError(position)
    payload = chunk[start:position]
    if kind == META_TEMPO:
        if len(payload) == 3 and any(payload):
            track.tempos.append((tick, int.from_bytes(payload)))
        else:
            track.remarks.append(f"a tempo of the bytes {payload.hex(' ')!r} is left out")
    elif kind == META_TIME_SIGNATURE:
        if len(payload) >= 2 and payload[0] and payload[1] <= MAX_DENOMINATOR_EXPONENT:
            track.time_signatures.append((tick, payload[0], 2 ** payload[1]))
        else:
            track.remarks.append(f"a time signature of the bytes {payload.hex(' ')!r} is left out")
    elif kind == META_TRACK_NAME:
        track.name = payload.decode("latin-1")
    return position, kind == META_END_OF_TRACK


__all__ = ["MidiTrack", "scan_file"]
