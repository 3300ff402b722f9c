"""Model folders: everything that a Hub repository of ours holds, written so that an error never harms an older folder.

config.json  preprocessor_config.json  model.safetensors   what `from_pretrained` reads
evaluation.json  recipe.yaml  train_log.jsonl              what was measured, and how the weights came about
splits.json                                                optional: results of the same recipe on all splits
README.md  *.png                                           the card, rendered from the above, and its images
SHA256SUMS                                                 hashes of all of them, in the format of `sha256sum -c`
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml


if TYPE_CHECKING:
    from transformers import PreTrainedModel


CARD = "README.md"
CHECKSUMS = "SHA256SUMS"
CONFIG = "config.json"
EVALUATION = "evaluation.json"
EVALUATION_KEYS = ("task", "dataset", "figures", "command", "hardware", "versions")
RECIPE = "recipe.yaml"
TRAIN_LOG = "train_log.jsonl"
MAX_TRAIN_LOG_BYTES = 200_000
TRAINING_MINUTES = "training_minutes"  # key of the last line of the log
# What `save_pretrained` adds for models that came with remote code. A folder has neither these nor the code, so that a
# plain load never asks for trust.
CODE_KEYS = ("auto_map", "custom_pipelines")


def save_model_folder(
    folder: str | os.PathLike,
    model: "PreTrainedModel",
    processor: Any,
    *,
    evaluation: Mapping[str, Any] | str | os.PathLike,
    recipe: Mapping[str, Any],
    train_log: str | os.PathLike | None = None,
    training_minutes: float | None = None,
    images: Iterable[str | os.PathLike] = (),
    extra_files: Iterable[str | os.PathLike] = (),
) -> Path:
    """Writes a model folder, complete or not at all.

    The files are first written to a hidden sibling (`.<name>.partial`), weights before the card, and then renamed into
    place one by one, checksums last. An error before that, such as a full disk or a kill, leaves an older folder as it
    was; a kill among the renames leaves a folder that its checksums refuse. Files in `folder` that are not part of the
    older model, such as `.git`, stay.

    Args:
        folder (`str` or `os.PathLike`): where to write; an older model there is replaced.
        model (`PreTrainedModel`): saved as safetensors.
        processor: anything with `save_pretrained`: image processor, feature extractor or processor.
        evaluation (`Mapping` or path): content of `evaluation.json`, or such a file.
        recipe (`Mapping`): every argument of the run, such as `asdict(arguments)`, with the `card_*` ones of
            [`CardArguments`]. Absolute paths are left out: they mean nothing on another machine.
        train_log (path, *optional*): JSON lines of the training loop; thinned to at most 200 kB.
        training_minutes (`float`, *optional*): time that training took; becomes a last line of the log, with the
            hardware and versions of this process.
        images (iterable of paths): PNG files to show in the card, under their own names.
        extra_files (iterable of paths): further JSON files to keep under their own names. The card shows
            `splits.json`, the results over all splits ([`SplitResults`]), as a table.

    Returns:
        `pathlib.Path`: the folder.

    Raises:
        ValueError: If the card cannot be rendered. The weights then remain in the `.partial` folder, and the error
            says so.
    """
    # At call time, because the card module reads folders through this one.
    from .model_card import write_model_card

    folder = Path(folder)
    staging = folder.with_name(f".{folder.name}.partial")
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    try:
        _save_weights(staging, model, processor)
        _write_facts(staging, evaluation, recipe)
        _write_log(staging, train_log, training_minutes)
        _copy_files(staging, images, "images", ".png")
        _copy_files(staging, extra_files, "extra_files", ".json")
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    try:
        write_model_card(staging)
        write_checksums(staging)
    except Exception as error:
        error.add_note(f"The weights were saved nevertheless: {staging}")
        raise
    _move_into_place(staging, folder)
    return folder


def _save_weights(staging: Path, model: "PreTrainedModel", processor: Any) -> None:
    model.save_pretrained(staging)
    processor.save_pretrained(staging)
    for code_file in staging.glob("*.py"):
        code_file.unlink()
    for weights in staging.glob("*.safetensors"):
        # safetensors lets only the owner read what it wrote; the other files follow the user's own settings.
        weights.chmod((staging / CONFIG).stat().st_mode)
    for path in staging.glob("*config.json"):
        content = read_json(path)
        write_json(path, without_code_keys(content))


def without_code_keys(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration without references to remote code, at any depth (processors nest their parts)."""
    return {
        key: without_code_keys(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if key not in CODE_KEYS
    }


def _write_facts(staging: Path, evaluation: Mapping[str, Any] | str | os.PathLike, recipe: Mapping[str, Any]) -> None:
    if isinstance(evaluation, Mapping):
        write_json(staging / EVALUATION, evaluation)
    else:
        shutil.copyfile(evaluation, staging / EVALUATION)
    paths = {key for key, value in recipe.items() if isinstance(value, str) and Path(value).is_absolute()}
    write_yaml(staging / RECIPE, {key: value for key, value in recipe.items() if key not in paths})


def _write_log(staging: Path, train_log: str | os.PathLike | None, training_minutes: float | None) -> None:
    if train_log is None:
        return
    lines = [line for line in Path(train_log).read_text(encoding="utf-8").splitlines() if line.strip()]
    if training_minutes is not None:
        lines.append(json.dumps(_summarize_run(lines, training_minutes)))
    lines = thin_log(lines, MAX_TRAIN_LOG_BYTES)
    write_text(staging / TRAIN_LOG, "".join(f"{line}\n" for line in lines))


def _summarize_run(lines: list[str], training_minutes: float) -> dict[str, Any]:
    # At call time: the loop imports torch and Accelerate, which reading a folder needs not.
    from decahub.training import describe_hardware, describe_versions

    newest = json.loads(lines[-1]) if lines else {}
    reached = {name: newest[name] for name in ("step", "epoch") if name in newest}
    summary = {TRAINING_MINUTES: round(training_minutes, 1), "hardware": describe_hardware()}
    return {**reached, **summary, "versions": describe_versions()}


def _copy_files(staging: Path, paths: Iterable[str | os.PathLike], argument: str, suffix: str) -> None:
    for path in map(Path, paths):
        if path.suffix != suffix:
            kind = suffix[1:].upper()
            raise ValueError(f"`{argument}` must be {kind} files; got {str(path)!r}. Save it as {kind}.")
        if (staging / path.name).exists():
            raise ValueError(f"`{argument}` must not replace files of the model; got {str(path)!r}. Rename it.")
        shutil.copyfile(path, staging / path.name)


def thin_log(lines: list[str], max_bytes: int) -> list[str]:
    """Every n-th line, with the smallest n that fits, besides the last line and, if possible, all evaluations."""
    last = len(lines) - 1
    evaluations = {number for number, line in enumerate(lines) if '"eval_' in line}
    for always in (evaluations | {last}, {last}):
        for stride in range(1, len(lines) + 1):
            kept = [line for number, line in enumerate(lines) if number % stride == 0 or number in always]
            if sum(len(line.encode()) + 1 for line in kept) <= max_bytes:
                return kept
    return lines[-1:]


def _move_into_place(staging: Path, folder: Path) -> None:
    """Renames each file into `folder`, checksums last, then removes what only the older model had."""
    folder.mkdir(exist_ok=True)
    outdated = set(read_checksums(folder)) if (folder / CHECKSUMS).exists() else set()
    names = [*read_checksums(staging), CHECKSUMS]
    for name in names:
        os.replace(staging / name, folder / name)
    for name in outdated.difference(names):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(staging)


# Checksums


def hash_file(path: Path) -> str:
    """Sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[str]:
    """Names of the files that belong to a model folder, sorted: all but the checksums and hidden ones.

    Raises:
        FileNotFoundError: If `folder` is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a model folder; got {str(folder)!r}.")
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != CHECKSUMS and not any(part[0] == "." for part in name.split("/")))


def write_checksums(folder: Path) -> None:
    """Writes `SHA256SUMS` over all files of the folder."""
    lines = [f"{hash_file(folder / name)}  {name}\n" for name in list_files(folder)]
    write_text(folder / CHECKSUMS, "".join(lines))


def read_checksums(folder: Path) -> dict[str, str]:
    """The content of `SHA256SUMS`: file name -> hash.

    Raises:
        ValueError: If a line is malformed or names a place outside the folder.
    """
    checksums = {}
    for line in _read_text(folder / CHECKSUMS).splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"Each line of `{CHECKSUMS}` must be '<sha256>  <file name>'; got {line!r}.")
        checksums[name] = digest
    return checksums


def find_checksum_problems(folder: Path) -> list[str]:
    """What is wrong with the files of a folder, one sentence each; empty if all hashes agree."""
    expected = read_checksums(folder)
    present = list_files(folder)
    problems = [f"{name} is missing" for name in expected if name not in present]
    problems += [f"{name} is not listed in {CHECKSUMS}" for name in present if name not in expected]
    for name in present:
        if name in expected and hash_file(folder / name) != expected[name]:
            problems.append(f"{name} has another hash than {CHECKSUMS} says")
    return problems


# Reading and writing single files


def write_text(path: Path, text: str) -> None:
    """Writes a text file under a temporary name and renames it."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object as `save_pretrained` does, key order kept."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a YAML mapping, key order kept."""
    write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=120))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no JSON object.
    """
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} in {path.parent} must be JSON; {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} in {path.parent} must hold a JSON object; got {type(content).__name__}.")
    return content


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The scores of a folder. Not the reader of `decahub.evaluation`, whose import brings torch and Accelerate.

    Raises:
        FileNotFoundError: If there is no `evaluation.json`.
        ValueError: If it lacks something that a card shows.
    """
    evaluation = read_json(folder / EVALUATION)
    missing = [key for key in EVALUATION_KEYS if not evaluation.get(key)]
    if missing:
        raise ValueError(f"{EVALUATION} must hold {', '.join(EVALUATION_KEYS)}; {', '.join(missing)} is missing.")
    return evaluation


def read_recipe(folder: Path) -> dict[str, Any]:
    """The arguments of the run that made a folder.

    Raises:
        FileNotFoundError: If there is no recipe.
        ValueError: If it is no YAML mapping.
    """
    try:
        content = yaml.safe_load(_read_text(folder / RECIPE))
    except yaml.YAMLError as error:
        raise ValueError(f"{RECIPE} in {folder} must be YAML; {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{RECIPE} in {folder} must hold a mapping; got {type(content).__name__}.")
    return content


def set_recipe_value(folder: Path, key: str, value: str) -> None:
    """Sets one argument in the recipe of a folder; everything else, comments included, stays as it is."""
    text = _read_text(folder / RECIPE)
    line = yaml.safe_dump({key: value}, width=1000)
    changed, count = re.subn(rf"^{key}:.*\n", line, text, flags=re.MULTILINE)
    write_text(folder / RECIPE, changed if count else f"{text}{line}")


def read_train_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of the training log; empty where there is none.

    Raises:
        ValueError: If a line is no JSON object; the message names it.
    """
    path = folder / TRAIN_LOG
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{TRAIN_LOG} in {folder} must hold JSON; line {number}: {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{TRAIN_LOG} in {folder} must hold JSON objects; line {number}: got {type(row).__name__}."
            )
        rows.append(row)
    return rows


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"A model folder must hold {path.name}; {str(path.parent)!r} has none.")
    return path.read_text(encoding="utf-8")
