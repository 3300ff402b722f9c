"""Verification: does a folder hold what its card says?"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from huggingface_hub.repocard_data import model_index_to_eval_results

from decahub.data.catalog import DATASETS
from decahub.data.loading import DATA_DIR_VARIABLE, find_own_folder
from decahub.evaluation import evaluate_folder
from decahub.evaluation.folder import check_limit
from decahub.tasks import Task, get_task

from .files import CARD, EVALUATION, MAX_JSON_BYTES, list_files, read_text
from .model_card import check_card
from .model_folder import ModelFolder


# A sample whose score may lie this far from the published one says nothing about a share.
WIDEST_TOLERANCE = 0.25

Outcome = Literal["passed", "failed", "not done"]


@dataclass(frozen=True)
class Check:
    """One line of a report."""

    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class VerificationReport:
    """What [`verify`] found.

    Attributes:
        folder (`pathlib.Path`): the folder.
        checks (`list[Check]`): one entry for each check, in the order they were made.
    """

    folder: Path
    checks: list[Check] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if a check failed, 3 if none failed but the scores were not measured again."""
        outcomes = {check.outcome for check in self.checks}
        return 1 if "failed" in outcomes else 3 if "not done" in outcomes else 0


def verify(
    folder: str | os.PathLike, data_dir: str | os.PathLike | None = None, limit: int | None = None
) -> VerificationReport:
    """Checks a model folder: hashes, configuration, weights, card, and, where the data is at hand, the scores.

    Scores are measured again on local data only, since a set of the same name on the Hub may hold other files.

    Args:
        folder (`str` or `os.PathLike`): a folder of [`save_model_folder`], or a download of a published one.
        data_dir (`str` or `os.PathLike`, *optional*): holds the datasets; by default `$DECAHUB_DATA_DIR`.
        limit (`int`, *optional*): measure on a sample of `limit` rows (nodes of graphs), by default on all rows of the
            split, or on as many as the run's own `max_eval_samples`. A sample is compared within its own error, and
            scores that it cannot tell are not done.

    Returns:
        [`VerificationReport`]: never raises for an error of the folder's files; that is what the report is for.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If `limit` is less than 1.
    """
    folder = Path(folder)
    check_limit(limit)
    if not folder.is_dir():
        list_files(folder)  # raises
    report = VerificationReport(folder)
    for name, check in CHECKS.items():
        report.checks.append(_run(name, check, folder))
    if report.exit_code:
        report.checks.append(Check("figures", "not done", "not re-evaluated, because a check before failed"))
        return report
    try:
        report.checks.extend(_check_scores(folder, data_dir, limit))
    except Exception as error:  # noqa: BLE001  (the measurement reads the folder as well)
        report.checks.append(Check("figures", "failed", _describe(error)))
    return report


def _run(name: str, check: Callable[[ModelFolder], str], folder: Path) -> Check:
    try:
        return Check(name, "passed", check(ModelFolder(folder)))
    except Exception as error:  # noqa: BLE001  (whatever libraries raise at the bytes of a folder)
        return Check(name, "failed", _describe(error))


def _describe(error: Exception) -> str:
    """A message on one line; those of strict configurations have several."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (ValueError, OSError)) and text else f"{type(error).__name__}: {text}"


def check_files(folder: ModelFolder) -> str:
    """All hashes agree."""
    if problems := folder.find_problems():
        raise ValueError("; ".join(problems))
    return f"{len(folder.files)} files have the listed hashes"


def check_configuration(folder: ModelFolder) -> str:
    """The configuration passes its own validation."""
    from transformers import AutoConfig

    names = folder.config.get("id2label")  # models without classes name none
    folder.files  # noqa: B018  (no link leaves the folder)
    config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
    return type(config).__name__ + (f", {len(names)} labels" if names else "")


def check_weights(folder: ModelFolder) -> str:
    """Every tensor of the file has its place in the model, the other way round, and is finite."""
    return folder.check_weights()


def check_processor(folder: ModelFolder) -> str:
    """The processor of the task can be loaded."""
    return folder.check_processor()


def check_card_scores(folder: ModelFolder) -> str:
    """The scores in the card's front matter are those of the evaluation."""
    metadata = check_card(read_text(folder.path / CARD, MAX_JSON_BYTES))
    _, results = model_index_to_eval_results(metadata["model-index"])
    in_card = {result.metric_type: result.metric_value for result in results}
    measured = {row["metric"]: row["value"] for row in folder.evaluation["figures"]}
    if in_card != measured:
        raise ValueError(f"the card says {in_card}, {EVALUATION} says {measured}")
    return f"{len(measured)} scores as in {EVALUATION}"


def check_card_text(folder: ModelFolder) -> str:
    """The card is what decahub renders from the folder."""
    if str(folder.render_card()) != read_text(folder.path / CARD, MAX_JSON_BYTES):
        raise ValueError(f"{CARD} differs from what the folder's files give; `decahub card` renders it anew")
    return f"{CARD} follows from the folder's files"


CHECKS: dict[str, Callable[[ModelFolder], str]] = {
    "files": check_files,
    "configuration": check_configuration,
    "weights": check_weights,
    "processor": check_processor,
    "card scores": check_card_scores,
    "card text": check_card_text,
}


def _check_scores(folder: Path, data_dir: str | os.PathLike | None, limit: int | None) -> list[Check]:
    published = ModelFolder(folder).evaluation
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    name = published["dataset"]["name"]
    entry = DATASETS.get(name)
    if entry is None and find_own_folder(name, data_dir) is None:
        detail = f"measured on your own data `{name}`; `decahub evaluate {folder} --dataset PATH` measures again"
        return [Check("figures", "not done", f"not re-evaluated: {detail}")]
    if entry is not None and data_dir is None and entry.builder is None:
        return [Check("figures", "not done", f"not re-evaluated: pass `--data-dir` or set {DATA_DIR_VARIABLE}")]
    published_rows = published["dataset"]["num_rows"]
    is_sample = limit is not None and limit < published_rows
    if not is_sample:  # all rows, unless the run itself measured a sample
        limit = published_rows if ModelFolder(folder).recipe.get("max_eval_samples") == published_rows else None
    try:
        measured = evaluate_folder(folder, data_dir=data_dir, limit=limit)
    except FileNotFoundError as error:
        return [Check("figures", "not done", f"not re-evaluated: {_describe(error)}")]
    task, num_rows = get_task(published["task"]), measured["dataset"]["num_rows"]
    values = {row["metric"]: row for row in measured["figures"]}
    wanted_rows = limit if is_sample else published_rows
    if num_rows != wanted_rows:
        detail = f"published {wanted_rows}, measured {num_rows}: the data or the folder was changed"
        return [Check("examples", "failed", detail)]
    checks = [_compare(task, row, values.get(row["metric"]), is_sample) for row in published["figures"]]
    listed = {row["metric"] for row in published["figures"]}
    checks += [
        Check(name, "failed", f"measured {row['value']:.4f}, not listed in {EVALUATION}")
        for name, row in values.items()
        if name not in listed
    ]
    if is_sample:
        detail = f"a sample of {num_rows} of {published_rows} examples; without `limit` all of them are measured"
        checks.append(Check("all examples", "not done", detail))
    return checks


def _compare(task: Task, row: dict, again: dict | None, is_sample: bool) -> Check:
    """One score as published and as measured again."""
    name, published = row["metric"], row["value"]
    if again is None:
        return Check(name, "failed", f"published {published:.4f}, not among the measured scores")
    if not is_sample and again["n"] != row["n"]:
        return Check(name, "failed", f"published over {row['n']} examples, measured over {again['n']}")
    tolerance = task.tolerance(name, published, again["n"], is_sample)
    if tolerance is None:
        return Check(name, "not done", f"published {published:.4f}; a sample of {again['n']} cannot tell")
    detail = f"published {published:.4f}, measured {again['value']:.4f}, tolerance {tolerance:.4f}"
    if not abs(again["value"] - published) <= tolerance:
        return Check(name, "failed", detail)
    if is_sample and tolerance > WIDEST_TOLERANCE:
        return Check(name, "not done", f"{detail}: a sample of {again['n']} is too small to tell")
    return Check(name, "passed", detail)
