"""Saving a model folder so that an error never harms an older one, and the end of a training run."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decahub.environment import describe_hardware, describe_versions, redact
from decahub.evaluation.record import build_evaluation
from decahub.tasks import Measurement, Report

from .files import (
    CHECKSUMS,
    CONFIG,
    EVALUATION,
    RECIPE,
    TRAIN_LOG,
    TRAINING_MINUTES,
    check_link,
    read_json,
    remove_files,
    write_json,
    write_text,
    write_yaml,
)
from .model_folder import ModelFolder, dump_report


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from decahub.training import TrainingResult


MAX_TRAIN_LOG_BYTES = 200_000
# What `save_pretrained` adds for models that came with remote code. A folder has neither these nor the code, so that a
# plain load never asks for trust.
CODE_KEYS = ("auto_map", "custom_pipelines")
# Parts of configurations that hold words of the data or of a tokenizer, where a slash does not make a path.
WORDS_OF_DATA = ("id2label", "label2id", "added_tokens_decoder", "extra_special_tokens", "chat_template")


def save_run(
    arguments: Any,
    result: "TrainingResult",
    processor: Any,
    measurement: Measurement | None,
    *,
    task: str,
    dataset: str,
    split: str,
    minutes: float,
    images: Iterable[str | os.PathLike] = (),
    reports: Iterable[Report | str | os.PathLike] = (),
) -> Path | None:
    """The end of a training run: its model folder, `<output_dir>/model`, with scores and card.

    Args:
        arguments (dataclass): Those of the script; become `recipe.yaml`.
        result ([`~decahub.training.TrainingResult`]): What `train` returned.
        processor: Anything with `save_pretrained`.
        measurement ([`~decahub.tasks.Measurement`], *optional*): What `evaluate_model` returned for the split of the
            card. Data without labels gives none; the folder then has neither scores nor a card.
        task (`str`): A key of `decahub.registry.TASKS`.
        dataset (`str`): Name in the catalog, or a user's own name or folder.
        split (`str`): Split that was measured.
        minutes (`float`): Duration of the evaluation.
        images (iterable of paths): PNG files for the card.
        reports (iterable of [`~decahub.tasks.Report`] or paths): Tables for the card, beside the measurement's own;
            a path is a JSON file such as `splits.json`.

    Returns:
        `pathlib.Path`: The folder; `None` in processes that are not the main one.
    """
    if not result.is_main_process:
        return None
    evaluation, reports = None, list(reports)
    files = [report for report in reports if not isinstance(report, Report)]
    tables = [report for report in reports if isinstance(report, Report)]
    if measurement is not None:
        evaluation = build_evaluation(measurement, task=task, dataset=dataset, split=split, minutes=minutes)
        tables = tables if measurement.report is None else [measurement.report, *tables]
    return save_model_folder(
        Path(arguments.output_dir) / "model",
        result.model,
        processor,
        evaluation=evaluation,
        recipe=dataclasses.asdict(arguments),
        train_log=result.train_log,
        training_minutes=result.minutes,
        images=images,
        reports=tables,
        extra_files=files,
    )


def save_model_folder(
    folder: str | os.PathLike,
    model: "PreTrainedModel",
    processor: Any,
    *,
    evaluation: Mapping[str, Any] | str | os.PathLike | None,
    recipe: Mapping[str, Any],
    train_log: str | os.PathLike | None = None,
    training_minutes: float | None = None,
    images: Iterable[str | os.PathLike] = (),
    reports: Iterable[Report] = (),
    extra_files: Iterable[str | os.PathLike] = (),
) -> Path:
    """Writes a model folder, complete or not at all.

    The files are first written to a hidden sibling (`.<name>.partial`), weights before the card, and then renamed into
    place one by one, checksums last. An error before that, such as a full disk or a kill, leaves an older folder as it
    was; a kill among the renames leaves a folder that its checksums refuse. Files in `folder` that are not part of the
    older model, such as `.git`, stay.

    Paths in the recipe, the evaluation and the configurations become their last part, and what looks like an access
    token becomes `***`: neither means anything to others.

    Args:
        folder (`str` or `os.PathLike`): where to write; an older model there is replaced.
        model (`PreTrainedModel`): saved as safetensors.
        processor: anything with `save_pretrained`: image processor, feature extractor or processor.
        evaluation (`Mapping` or path, *optional*): content of `evaluation.json`, or such a file. Without, there is no
            card, since all it says is measured.
        recipe (`Mapping`): every argument of the run, such as `asdict(arguments)`, with the `card_*` ones of
            [`CardArguments`].
        train_log (path, *optional*): JSON lines of the training loop; thinned to at most 200 kB.
        training_minutes (`float`, *optional*): time that training took; becomes a last line of the log, with the
            hardware and versions of this process.
        images (iterable of paths): PNG files to show in the card, under their own names.
        reports (iterable of [`~decahub.tasks.Report`]): tables for the card; each is kept as `report_<title>.json`.
        extra_files (iterable of paths): further JSON files to keep under their own names. The card shows
            `splits.json`, the results over all splits, as a table.

    Returns:
        `pathlib.Path`: the folder.

    Raises:
        ValueError: If the card cannot be rendered. The weights then remain in the `.partial` folder, and the error
            says so.
    """
    folder = Path(folder)
    staging = folder.with_name(f".{folder.name}.partial")
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    try:
        _save_weights(staging, model, processor)
        if evaluation is not None:
            content = evaluation if isinstance(evaluation, Mapping) else read_json(Path(evaluation))
            write_json(staging / EVALUATION, redact(content))
        write_yaml(staging / RECIPE, redact(recipe))
        _write_log(staging, train_log, training_minutes)
        _copy_files(staging, images, "images", ".png")
        _copy_files(staging, extra_files, "extra_files", ".json")
        _write_reports(staging, reports)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    try:
        if evaluation is not None:
            ModelFolder(staging).write_card()
        ModelFolder(staging).write_checksums()
        _move_into_place(staging, folder)
    except Exception as error:
        if staging.exists():
            error.add_note(f"The weights were saved nevertheless: {staging}")
        raise
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
        write_json(path, clean_configuration(read_json(path)))


def clean_configuration(content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without references to remote code, paths and tokens, at any depth (processors nest parts)."""

    def clean(key: str, value: Any) -> Any:
        if key in WORDS_OF_DATA:
            return value
        return clean_configuration(value) if isinstance(value, Mapping) else redact(value, key)

    return {key: clean(key, value) for key, value in content.items() if key not in CODE_KEYS}


def _write_log(staging: Path, train_log: str | os.PathLike | None, training_minutes: float | None) -> None:
    if train_log is None:
        return
    lines = [line for line in Path(train_log).read_text(encoding="utf-8").splitlines() if line.strip()]
    if training_minutes is not None:
        newest = json.loads(lines[-1]) if lines else {}
        summary = {name: newest[name] for name in ("step", "epoch") if name in newest}
        summary |= {TRAINING_MINUTES: round(training_minutes, 1), "hardware": describe_hardware()}
        lines.append(json.dumps({**summary, "versions": describe_versions()}))
    lines = thin_log(lines, MAX_TRAIN_LOG_BYTES)
    write_text(staging / TRAIN_LOG, "".join(f"{line}\n" for line in lines))


def _copy_files(staging: Path, paths: Iterable[str | os.PathLike], argument: str, suffix: str) -> None:
    for path in map(Path, paths):
        if path.suffix != suffix:
            kind = suffix[1:].upper()
            raise ValueError(f"`{argument}` must be {kind} files; got {str(path)!r}. Save it as {kind}.")
        if (staging / path.name).exists():
            raise ValueError(f"`{argument}` must not replace files of the model; got {str(path)!r}. Rename it.")
        shutil.copyfile(path, staging / path.name)


def _write_reports(staging: Path, reports: Iterable[Report]) -> None:
    for report in reports:
        slug = re.sub(r"[^a-z0-9]+", "_", report.title.lower()).strip("_")
        path = staging / f"report_{slug}.json"
        if path.exists():
            raise ValueError(f"`reports` must have titles of their own; got {report.title!r} twice. Rename one.")
        write_text(path, dump_report(report))


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
    names = [*ModelFolder(staging).checksums, CHECKSUMS]
    outdated = set(_list_outdated(folder)).difference(names)
    for name in names:
        check_link(folder, (folder / name).parent)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        os.replace(staging / name, folder / name)
    remove_files(folder, outdated)
    shutil.rmtree(staging)


def _list_outdated(folder: Path) -> Iterable[str]:
    """The files of the older model; none where its list is absent or cannot be read."""
    try:
        return ModelFolder(folder).checksums
    except (FileNotFoundError, ValueError):
        return ()
