"""Drum performances from MIDI files, scores of symusic and lists of notes."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .performance import MICROSECONDS_PER_MINUTE, DrumPerformance
from .smf import MidiTrack, scan_file
from .writer import DRUM_CHANNEL


KIT_PITCHES = 22, 59  # from the edge of the hi-hat of an electronic kit to the ride of General MIDI


def read_midi(source: Any, *, track: int | None = None) -> DrumPerformance:
    """The drum performance that a MIDI file, an object or a list of notes holds.

    Of several tracks, those with notes on the drum channel (10, index 9) are taken, and no other channel; where there
    are none, the only track with notes, if these may be of a drum kit. What players forgive in a file is read as they
    read it, with a warning.

    Args:
        source (`str`, `os.PathLike`, `bytes`, file object, `symusic.Score`, `pretty_midi.PrettyMIDI` or `tuple`): The
            file, its contents, or `(notes, ticks_per_quarter)` with rows of tick, pitch and velocity. A
            [`DrumPerformance`] is returned as it is.
        track (`int`, *optional*): Takes all channels of this track, counted from 0, instead.

    Returns:
        [`DrumPerformance`]: The onsets; it may be empty.

    Raises:
        ValueError: If the source is damaged, or its drum track is in doubt; the message names the source.
        OSError: If there is no such file.
        TypeError: If the source is of another kind.
    """
    if isinstance(source, DrumPerformance):
        return source
    if isinstance(source, tuple) and len(source) == 2:
        return _read_notes(*source)
    library = type(source).__module__.partition(".")[0]
    if library in SCORE_READERS:
        try:
            return SCORE_READERS[library](source, track)
        except ValueError as error:
            raise ValueError(f"`source` must hold one drum track; the score {error}.") from error
    data, name = _read_bytes(source)
    try:
        return _read_file(data, track, name)
    except ValueError as error:
        raise ValueError(f"`source` must be a readable MIDI file; {name} {error}.") from error


def _read_bytes(source: Any) -> tuple[bytes, str]:
    """Contents of a file, and how to name it in a message."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), f"the given {len(source)} bytes"
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if Path(name).is_dir():
            raise IsADirectoryError(f"`source` must be a MIDI file; {name} is a folder. Give the files in it.")
        if not Path(name).is_file():
            raise FileNotFoundError(f"`source` must be an existing MIDI file; there is no {name}.")
        return Path(name).read_bytes(), repr(name)
    if not hasattr(source, "read"):
        raise TypeError(
            "`source` must be a path, bytes, a file object, a score of symusic or pretty_midi, or `(notes, "
            f"ticks_per_quarter)`; got {type(source).__name__}."
        )
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError(f"`source` must be opened in binary mode; got a file object that reads {type(data).__name__}.")
    return data, f"{getattr(source, 'name', 'the file object')!r}"


def _read_notes(notes: Any, ticks_per_quarter: int) -> DrumPerformance:
    table = np.asarray(notes)
    if table.size == 0:
        table = np.zeros((0, 3), dtype=np.int64)
    if table.ndim != 2 or table.shape[1] != 3:
        raise ValueError(f"`notes` must have rows of tick, pitch and velocity; got shape {table.shape}.")
    return DrumPerformance(table[:, 0], table[:, 1], table[:, 2], ticks_per_quarter)


def _read_file(data: bytes, track: int | None, name: str) -> DrumPerformance:
    midi_format, ticks_per_quarter, tracks = scan_file(data)
    if midi_format == 2 and track is None and len(tracks) > 1:
        raise ValueError(f"holds {len(tracks)} independent sequences: choose one by `track=`")
    chosen = tracks if track is None or midi_format != 2 else tracks[track : track + 1]
    meters = [event for part in chosen for event in part.time_signatures]
    performance = _build_performance(
        tracks, track, ticks_per_quarter, meters, [event for part in chosen for event in part.tempos]
    )
    if remarks := [remark for part in tracks for remark in part.remarks]:
        warnings.warn(f"{name} is not quite a MIDI file: {'; '.join(dict.fromkeys(remarks))}.", stacklevel=4)
    return performance


def _build_performance(
    tracks: list[MidiTrack],
    track: int | None,
    ticks_per_quarter: int,
    time_signatures: list[tuple[int, int, int]],
    tempos: list[tuple[int, int]],
) -> DrumPerformance:
    ticks, _, pitches, velocities = _choose_notes(tracks, track).T
    return DrumPerformance(
        ticks, pitches, velocities, ticks_per_quarter, time_signatures, tempos, _list_tracks(tracks)
    )


def _list_tracks(tracks: list[MidiTrack]) -> tuple[str, ...]:
    return tuple(
        f"{index} {part.name!r} ({len(part.notes)} notes)" for index, part in enumerate(tracks) if len(part.notes)
    )


def _choose_notes(tracks: list[MidiTrack], track: int | None) -> np.ndarray:
    """Rows of tick, channel, pitch and velocity of the drums."""
    if track is not None:
        if not 0 <= track < len(tracks):
            raise ValueError(f"has {len(tracks)} tracks, counted from 0, and no track {track}")
        return tracks[track].notes
    drums = [part.notes[part.notes[:, 1] == DRUM_CHANNEL] for part in tracks]
    if any(map(len, drums)):
        return np.concatenate(drums)
    playing = [(index, part) for index, part in enumerate(tracks) if len(part.notes)]
    if len(playing) > 1:
        listing = "; ".join(_list_tracks(tracks))
        raise ValueError(f"has no notes on the drum channel: choose a track by `track=` among {listing}")
    if not playing:
        return np.zeros((0, 4), dtype=np.int64)
    ((index, part),) = playing
    programs = {channel: program for other in tracks for channel, program in other.programs.items()}
    _refuse_melody(part, index, programs)
    return part.notes


def _refuse_melody(track: MidiTrack, index: int, channel_programs: dict[int, int]) -> None:
    """Refuse notes that are off the drum channel and of another instrument, by its program or by their pitches."""
    programs = {channel_programs.get(channel, 0) for channel in np.unique(track.notes[:, 1]).tolist()} - {0}
    outside = (track.notes[:, 2] < KIT_PITCHES[0]) | (track.notes[:, 2] > KIT_PITCHES[1])
    if programs or 2 * outside.sum() > len(track.notes):
        reason = f"are for the program {min(programs)}" if programs else "are not those of a drum kit"
        raise ValueError(f"has no notes on the drum channel, and others {reason}: for drums pass `track={index}`")


def _read_symusic(score: Any, track: int | None) -> DrumPerformance:
    score = score.to("tick")
    parts = ((part, part.notes.numpy()) for part in score.tracks)
    tracks = [_build_track(part, notes["time"], notes["pitch"], notes["velocity"]) for part, notes in parts]
    meters = [(event.time, event.numerator, event.denominator) for event in score.time_signatures]
    tempos = [(event.time, event.mspq) for event in score.tempos]
    return _build_performance(tracks, track, score.ticks_per_quarter, meters, tempos)


def _read_pretty_midi(score: Any, track: int | None) -> DrumPerformance:
    """Notes of a score whose times are seconds."""
    find_tick = score.time_to_tick
    tracks = []
    for part in score.instruments:
        rows = [(find_tick(note.start), note.pitch, note.velocity) for note in part.notes]
        tracks.append(_build_track(part, *np.array(rows, dtype=np.int64).reshape(-1, 3).T))
    meters = [(find_tick(event.time), event.numerator, event.denominator) for event in score.time_signature_changes]
    tempos = [
        (find_tick(time), round(MICROSECONDS_PER_MINUTE / tempo))
        for time, tempo in zip(*score.get_tempo_changes(), strict=True)
    ]
    return _build_performance(tracks, track, score.resolution, meters, tempos)


def _build_track(part: Any, ticks: np.ndarray, pitches: np.ndarray, velocities: np.ndarray) -> MidiTrack:
    channel = DRUM_CHANNEL if part.is_drum else 0
    notes = np.stack([ticks, np.full(len(ticks), channel), pitches, velocities], axis=1).astype(np.int64)
    return MidiTrack(part.name, notes, programs={channel: part.program} if len(notes) else {})


SCORE_READERS = {"symusic": _read_symusic, "pretty_midi": _read_pretty_midi}
"""Libraries whose scores are taken."""

__all__ = ["SCORE_READERS", "read_midi"]
