"""`evaluation.json`: the scores of a model, on what and how they were measured. Cards have no other source."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decahub.data import DATASETS
from decahub.environment import describe_command, describe_hardware, describe_versions, shorten_path
from decahub.tasks import Measurement


EVALUATION_FILE = "evaluation.json"
KEYS = ("task", "dataset", "figures", "command", "hardware", "versions")
DATASET_KEYS = ("name", "title", "split", "num_rows")
SCORE_KEYS = ("metric", "value", "n")
LARGEST = 1e300  # beyond it integers of JSON fit into no float


def build_evaluation(
    scores: Mapping[str, float] | Measurement,
    *,
    task: str,
    dataset: str,
    split: str,
    minutes: float | None = None,
    num_rows: int | None = None,
    title: str | None = None,
) -> dict[str, Any]:
    """The content of `evaluation.json`, with the command, hardware and versions of this process.

    Args:
        scores (`Mapping[str, float]` or [`Measurement`]): What `evaluate_model` returned, or scores.
        task (`str`): A key of `decahub.registry.TASKS`.
        dataset (`str`): Name in the catalog, or a user's own name for the data; of a path outside the working folder
            the last part.
        split (`str`): Split that was measured; of a graph such as "test/3".
        minutes (`float`, *optional*): Duration of the evaluation; left out if it is not known.
        num_rows (`int`, *optional*): Number of rows, or nodes, that were measured; a [`Measurement`] knows it.
        title (`str`, *optional*): Name of the data for readers; by default the catalog's.

    Raises:
        ValueError: If there is no score, one is not finite, or `num_rows` is missing.
    """
    counts: Mapping[str, int] = {}
    facts: Mapping[str, Any] = {}
    if isinstance(scores, Measurement):
        facts, num_rows, counts, scores = scores.facts, scores.num_rows, scores.counts, scores.scores
    if num_rows is None:
        raise ValueError("`num_rows` must be the number of rows, or nodes, behind the scores; got None.")
    if not scores:
        raise ValueError("`scores` must hold at least one score; got none.")
    for metric, value in scores.items():
        if not math.isfinite(value):
            raise ValueError(f"`scores` must be finite; got {value} for {metric!r}.")
    dataset = shorten_path(dataset)  # the rest means nothing on another machine
    if title is None:
        title = DATASETS[dataset].title if dataset in DATASETS else dataset
    return {
        "task": task,
        "dataset": {"name": dataset, "title": title, "split": split, "num_rows": num_rows, **facts},
        "figures": [
            {"metric": metric, "value": float(value), "n": counts.get(metric, num_rows)}
            for metric, value in scores.items()
        ],
        "command": describe_command(),
        **({} if minutes is None else {"minutes": round(minutes, 2)}),
        "hardware": describe_hardware(),
        "versions": describe_versions(),
    }


def write_evaluation(
    path: str | os.PathLike, scores: Mapping[str, float] | Measurement, **facts: Any
) -> dict[str, Any]:
    """Write `evaluation.json` and return its content, as [`build_evaluation`] gives it.

    Args:
        path (`str` or path): The file, or the folder to write `evaluation.json` into.
        scores (`Mapping[str, float]` or [`Measurement`]): What `evaluate_model` returned, or scores.
        facts: The keyword arguments of `build_evaluation`.
    """
    evaluation = build_evaluation(scores, **facts)
    write_json(_resolve(path), evaluation)
    return evaluation


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a JSON object and the folders above it; an older file stays whole until the new one is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_evaluation(path: str | os.PathLike) -> dict[str, Any]:
    """Read and check an `evaluation.json`, given by its path or by that of its folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not JSON or lacks a key.
    """
    path = _resolve(path)
    if not path.is_file():
        raise FileNotFoundError(f"`{path.name}` was not found; tried {path}.")
    evaluation = read_json(path)
    check_evaluation(evaluation, str(path))
    return evaluation


def check_evaluation(evaluation: Any, where: str) -> None:
    """Refuses what is not the content of an `evaluation.json`."""
    check_keys(evaluation, KEYS, where)
    dataset, scores = evaluation["dataset"], evaluation["figures"]
    check_keys(dataset, DATASET_KEYS, f"`dataset` in {where}")
    _check_texts(evaluation, ("task", "command", "hardware"), where)
    _check_texts(dataset, ("name", "title", "split"), f"`dataset` in {where}")
    if not isinstance(evaluation["versions"], dict):
        raise ValueError(f"`versions` in {where} must be an object of texts; got {evaluation['versions']!r:.200}.")
    _check_texts(evaluation["versions"], tuple(evaluation["versions"]), f"`versions` in {where}")
    if not isinstance(scores, list) or not scores:
        raise ValueError(f"`figures` in {where} must be a list with at least one score; got {scores!r:.200}.")
    for index, score in enumerate(scores):
        check_keys(score, SCORE_KEYS, f"`figures[{index}]` in {where}")
        _check_texts(score, ("metric",), f"`figures[{index}]` in {where}")
        _check_number(score, "value", f"`figures[{index}]` in {where}", whole=False)
        _check_number(score, "n", f"`figures[{index}]` in {where}")
    _check_number(dataset, "num_rows", f"`dataset` in {where}")
    if dataset["num_rows"] == 0:
        raise ValueError(f"`num_rows` of `dataset` in {where} must be at least 1; got 0. Nothing was measured.")
    if "minutes" in evaluation:
        _check_number(evaluation, "minutes", where, whole=False)


def _check_texts(record: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in names:
        value = record[name]
        if not isinstance(value, str) or not value.strip() or (name != "command" and not value.isprintable()):
            raise ValueError(f"`{name}` in {where} must be a text on one line; got {value!r:.200}.")


def _check_number(record: dict[str, Any], name: str, where: str, whole: bool = True) -> None:
    value = record[name]
    if not is_number(value) or (whole and (not isinstance(value, int) or value < 0)):
        kind = "a whole number of 0 or more" if whole else "a finite number"
        too_long = isinstance(value, int) and abs(value) >= LARGEST
        raise ValueError(
            f"`{name}` in {where} must be {kind}; got {'too many digits' if too_long else repr(value):.200}."
        )


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; an error names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # broken JSON or broken UTF-8
        raise ValueError(f"{path} must be a JSON file; {error}. Is it truncated?") from error


def check_is_list(value: Any, where: str) -> None:
    """Refuse what is not a list, or an empty one."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} must be a list that is not empty; got {value!r}.")


def check_keys(record: Any, keys: tuple[str, ...], where: str) -> None:
    """Refuse what is not an object with these keys."""
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object with {', '.join(keys)}; got {type(record).__name__}.")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f"{where} must hold {', '.join(keys)}; {', '.join(missing)} is missing.")


def _resolve(path: str | os.PathLike) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / EVALUATION_FILE
