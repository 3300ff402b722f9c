"""Turns the method's pairs of prompt and completion into a dataset of grooves, and a dataset into pairs.

    python conversion/convert_drum_pairs.py --source pairs/ --output_dir grooves/
    python conversion/convert_drum_pairs.py --source grooves/ --output_dir pairs/

`pairs/` holds a file for each split, such as train.jsonl, dev.jsonl and test.jsonl; each line is an object with
`prompt`, `completion` and, where it is known, `name`. `grooves/` holds a folder of MIDI files for each split, which
`load_dataset("grooves/", family="drum-generation")` reads. What the source holds decides the way.

The authors' pairs tell neither tempo nor meter. Both are read off names like those of the Groove dataset
(`7_22_rock_118_beat_4-4`), else they are 120 and 4/4. On the way back every groove is written as the authors do, with
16 lines for a bar in any meter and silence up to the 16th bar.
"""

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decahub.data.groove_files import find_groove_files
from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.midi.meter import MeterError
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.models.drum_lm.pairs import build_pair


if not __package__:  # run as a script, or loaded by path
    __package__ = "decahub.conversion"

from .checkpoint import run_converter, write_model_folder


SUFFIX = ".jsonl"
OUR_SPLITS = {"dev": "validation"}  # what the authors call otherwise
THEIR_SPLITS = {ours: theirs for theirs, ours in OUR_SPLITS.items()}
TEMPO_AND_METER = re.compile(r"_(\d+)_beat_(\d+)-4$")
STEPS_PER_QUARTER = 4
TOO_SHORT = "no more than 8 bars after the silence at its beginning"


def convert_pairs(source: Path, output_dir: Path) -> dict[str, Any]:
    """Convert what `source` holds, in the direction that it asks for.

    Args:
        source (`Path`): A file of pairs, a folder of such files, or a folder of MIDI files for each split.
        output_dir (`Path`): A new folder, which is written whole or not at all.

    Returns:
        `dict`: `made`; `splits`, the number of grooves or pairs in each; and `left_out`, a reason for each groove that
        makes no pair.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a line is no pair, or a file no groove; the message says which.
    """
    if not source.exists():
        raise FileNotFoundError(f"`source` must exist; there is no {source}.")
    if source.is_file() and source.suffix != SUFFIX:
        raise ValueError(f"`source` must be a {SUFFIX} file or a folder; got {source}.")
    files = [source] if source.is_file() else sorted(source.glob(f"*{SUFFIX}"))
    if files:
        return _write_grooves(files, output_dir)
    grooves = find_groove_files(source)
    if not grooves:
        raise ValueError(
            f"`source` must hold {SUFFIX} files, or a folder of MIDI files for each split; {source} holds neither."
        )
    return _write_pairs(grooves, output_dir)


# --- Pairs to grooves


def _write_grooves(files: Sequence[Path], output_dir: Path) -> dict[str, Any]:
    splits = {}

    def write(folder: Path) -> None:
        for file in files:
            split = OUR_SPLITS.get(file.stem, file.stem)
            if split in splits:
                raise ValueError(f"`source` must hold one file for each split; {file} is a second one of {split!r}.")
            (folder / split).mkdir()
            splits[split] = 0
            for name, midi in read_pairs(file):
                (folder / split / f"{name}.mid").write_bytes(midi)
                splits[split] += 1

    write_model_folder(output_dir, write)
    return {"made": "grooves", "splits": splits, "left_out": {}}


def read_pairs(file: Path) -> Iterator[tuple[str, bytes]]:
    """Name and MIDI file of each line of a file of pairs.

    Raises:
        ValueError: If a line is no pair, or its name that of an earlier one.
    """
    lines_by_name: dict[str, int] = {}
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            name, midi = _read_pair(line, number)
            if name in lines_by_name:
                raise ValueError(f"`name` must differ from that of line {lines_by_name[name]}; both are {name!r}.")
        except (ValueError, RecursionError) as error:  # also of JSON and of letters that are none
            raise ValueError(f"Each line of {file} must be a pair; line {number} is not: {error}") from error
        lines_by_name[name] = number
        yield name, midi
    if not lines_by_name:
        raise ValueError(f"{file} must hold a pair in each line; it is empty.")


def _read_pair(line: bytes, number: int) -> tuple[str, bytes]:
    pair = json.loads(line.decode("utf-8"))
    if not isinstance(pair, dict):
        raise ValueError(f"it must be an object with `prompt` and `completion`; got {type(pair).__name__}.")
    texts = [pair.get(key) for key in ("prompt", "completion")]
    for key, text in zip(("prompt", "completion"), texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"`{key}` must be a text; got {text!r}.")
    name = pair.get("name", f"{number:05d}")
    # A name becomes that of a file, and must not lead out of the folder.
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w .+-]*", name):
        raise ValueError(f"`name` must be letters, digits, blanks and '_', '.', '+', '-'; got {name!r}.")
    codec = DrumCodec()
    hits = codec.parse_text("\n".join(text.strip("\n") for text in texts))
    if not hits.any():
        raise ValueError("`prompt` and `completion` must hold a hit; got silence.")
    tempo, quarters = map(int, found.groups() if (found := TEMPO_AND_METER.search(name)) else (120, 4))
    return name, codec.to_midi(DrumRoll(hits, STEPS_PER_QUARTER * quarters, (quarters, 4), float(tempo)))


# --- Grooves to pairs


def _write_pairs(grooves: Mapping[str, Sequence[Path]], output_dir: Path) -> dict[str, Any]:
    splits, left_out = {}, {}

    def write(folder: Path) -> None:
        for split, files in grooves.items():
            pairs = []
            for file in files:
                pair = _build_official_pair(file)
                if isinstance(pair, str):
                    left_out[file.stem] = pair
                else:
                    pairs.append({"prompt": pair[0], "completion": pair[1], "name": file.stem})
            splits[split] = len(pairs)
            target = folder / f"{THEIR_SPLITS.get(split, split)}{SUFFIX}"
            target.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")

    write_model_folder(output_dir, write)
    return {"made": "pairs", "splits": splits, "left_out": left_out}


def _build_official_pair(file: Path) -> tuple[str, str] | str:
    """Prompt and completion, or why there are none."""
    codec = DrumCodec.official()
    try:
        text = codec.to_text(codec.encode(read_midi(file)))
    except MeterError as error:  # such grooves the authors left out, too
        return str(error)
    except ValueError as error:
        raise ValueError(f"{file} must be a groove; it is not: {error}") from error
    return build_pair(text, strip_rule="first_beat") or TOO_SHORT


def format_report(report: Mapping[str, Any]) -> str:
    lines = [f"{split:16}{count} {report['made']}" for split, count in report["splits"].items()]
    return "\n".join(lines + [f"{'left out':16}{name}: {reason}" for name, reason in report["left_out"].items()])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a .jsonl file, or a folder of pairs or grooves")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new folder for the result")
    return parser


def main(arguments: Sequence[str] | None = None):
    run_converter(build_parser(), convert_pairs, format_report, arguments)


__all__ = ["convert_pairs", "read_pairs"]


if __name__ == "__main__":
    main()
