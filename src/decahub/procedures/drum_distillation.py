"""Grooves that a larger drum model wrote, for a small one to learn from.

The two models need not share their tokens, as they would if the student imitated the teacher's probabilities: this is
distillation of sequences (Kim and Rush, arXiv 1606.07947, section 3.2), with texts drawn from the teacher rather than
its most probable ones.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import pipeline

from decahub.evaluation import write_json
from decahub.evaluation.record import read_json
from decahub.tasks.loading import load_model, load_processor

from .pretrained import check_source


SETTINGS_FILE = "settings.json"


def write_grooves(
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    teacher: str,
    teacher_base: str | None,
    seed: int,
    *,
    rounds: int = 1,
    bars: int = 8,
    temperature: float = 1.0,
    batch_size: int = 16,
) -> list[dict[str, Any]]:
    """Continuations of grooves, each kept as a MIDI file, so that a run that was stopped goes on where it was.

    Args:
        rows: Grooves with `midi`; their first bars are given to the teacher.
        folder (`Path`): Place of the files, with the settings that they were written under.
        teacher (`str`): Model folder or Hub id.
        teacher_base (`str`, *optional*): Base of a teacher that is an adapter: folder or GGUF file.
        seed (`int`): Of the teacher's choices.
        rounds (`int`): Continuations of each groove.
        bars (`int`): Bars of a written groove, those given included.
        temperature (`float`): Of the teacher's choices.
        batch_size (`int`): Grooves that are written at once; another one gives other grooves.

    Returns:
        `list[dict]`: rows with `name` and `midi`.

    Raises:
        ValueError: If a setting is out of range, or the folder holds what was written under other settings.
    """
    for name, value in (("rounds", rounds), ("bars", bars), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1; got {value}.")
    grooves = [row["midi"] for row in rows]
    settings = {
        "teacher": teacher, "teacher_base": teacher_base, "seed": seed, "rounds": rounds, "bars": bars,
        "temperature": temperature, "batch_size": batch_size, "grooves": hashlib.sha256(b"".join(grooves)).hexdigest(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / SETTINGS_FILE
    if not record.exists():
        write_json(record, settings)
    elif changed := [name for name, value in read_json(record).items() if settings.get(name) != value]:
        raise ValueError(
            f"{folder} must hold grooves written under the same settings; `{changed[0]}` has changed. Delete the "
            "folder, or choose another `output_dir`."
        )
    grooves = grooves * rounds
    paths = [folder / f"{index:05}.mid" for index in range(len(grooves))]
    if not all(path.exists() for path in paths):
        check_source("teacher", teacher)
        base = {} if teacher_base is None else {"base_model": teacher_base}
        model = load_model(teacher, "AutoModelForCausalLM", **base)
        processor = load_processor(teacher, "AutoProcessor")
        compose = pipeline("drum-generation", model=model, processor=processor)  # type: ignore[call-overload]
        for start in tqdm(range(0, len(paths), batch_size), desc="Writing grooves"):
            part = slice(start, start + batch_size)
            if not all(path.exists() for path in paths[part]):
                options = {"bars": bars, "temperature": temperature, "outputs": ["midi"], "seed": seed + start}
                for path, answer in zip(paths[part], compose(grooves[part], **options), strict=True):
                    _write(path, answer[0]["midi"])
    return [{"name": path.stem, "midi": path.read_bytes()} for path in paths]


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


__all__ = ["write_grooves"]
