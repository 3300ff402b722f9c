"""Verification: does a folder hold what its card says?"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from huggingface_hub import ModelCard
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.repocard_data import model_index_to_eval_results
from safetensors import SafetensorError

import decahub
from decahub.data.catalog import DATASETS
from decahub.data.loading import DATA_DIR_VARIABLE
from decahub.evaluation import evaluate_folder
from decahub.tasks import get_task

from .folder import CARD, CONFIG, EVALUATION, find_checksum_problems, list_files, read_evaluation, read_json
from .model_card import render_model_card


# What broken files raise; anything else is a bug of ours and is not caught.
FOLDER_ERRORS = (OSError, ValueError, KeyError, RuntimeError, StrictDataclassError, SafetensorError)

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
        limit (`int`, *optional*): measure on a sample of `limit` rows (nodes of graphs), by default on as many as were
            published. A sample is compared within its own error, and scores that it cannot tell are not done.

    Returns:
        [`VerificationReport`]: never raises for an error of the folder's files; that is what the report is for.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    list_files(folder)  # refuses what is no folder
    report = VerificationReport(folder)
    for name, check in CHECKS.items():
        report.checks.append(_run(name, check, folder))
    if report.exit_code:
        report.checks.append(Check("figures", "not done", "not re-evaluated, because a check before failed"))
    else:
        report.checks.extend(_check_scores(folder, data_dir, limit))
    return report


def _run(name: str, check: Callable[[Path], str], folder: Path) -> Check:
    try:
        return Check(name, "passed", check(folder))
    except FOLDER_ERRORS as error:
        return Check(name, "failed", _describe(error))


def _describe(error: Exception) -> str:
    """A message on one line; those of strict configurations have several."""
    return " ".join(str(error).split()) or type(error).__name__


def check_files(folder: Path) -> str:
    """All hashes agree."""
    if problems := find_checksum_problems(folder):
        raise ValueError("; ".join(problems))
    return f"{len(list_files(folder))} files have the listed hashes"


def check_configuration(folder: Path) -> str:
    """The configuration passes its own validation."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    names = read_json(folder / CONFIG).get("id2label")  # models without classes name none
    return type(config).__name__ + (f", {len(names)} labels" if names else "")


def check_weights(folder: Path) -> str:
    """Every tensor of the file has its place in the model, and the other way round."""
    architecture = read_json(folder / CONFIG)["architectures"][0]
    model, info = getattr(decahub, architecture).from_pretrained(
        folder, use_safetensors=True, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            names = sorted(map(str, info[kind]))
            raise ValueError(f"{len(names)} {kind.replace('_keys', '')} tensors, the first is {names[0]}")
    return f"{architecture}, {model.num_parameters():,} parameters"


def check_card_scores(folder: Path) -> str:
    """The scores in the card's front matter are those of the evaluation."""
    metadata = ModelCard((folder / CARD).read_text(encoding="utf-8")).data.to_dict()
    _, results = model_index_to_eval_results(metadata.get("model-index") or [])
    in_card = {result.metric_type: result.metric_value for result in results}
    measured = {row["metric"]: row["value"] for row in read_evaluation(folder)["figures"]}
    if in_card != measured:
        raise ValueError(f"the card says {in_card}, {EVALUATION} says {measured}")
    return f"{len(measured)} scores as in {EVALUATION}"


def check_card_text(folder: Path) -> str:
    """The card is what decahub renders from the folder."""
    if str(render_model_card(folder)) != (folder / CARD).read_text(encoding="utf-8"):
        raise ValueError(f"{CARD} differs from what the folder's files give; `decahub card` renders it anew")
    return f"{CARD} follows from the folder's files"


CHECKS: dict[str, Callable[[Path], str]] = {
    "files": check_files,
    "configuration": check_configuration,
    "weights": check_weights,
    "card scores": check_card_scores,
    "card text": check_card_text,
}


def _check_scores(folder: Path, data_dir: str | os.PathLike | None, limit: int | None) -> list[Check]:
    published = read_evaluation(folder)
    data_dir = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    entry = DATASETS.get(published["dataset"]["name"])
    if data_dir is None and (entry is None or entry.builder is None):
        return [Check("figures", "not done", f"not re-evaluated: give `data_dir` or set {DATA_DIR_VARIABLE}")]
    if entry is None:
        detail = "not re-evaluated: the data is not in the catalog; `decahub evaluate --dataset` measures your own"
        return [Check("figures", "not done", detail)]
    published_rows = published["dataset"]["num_rows"]
    wanted_rows = min(limit or published_rows, published_rows)
    try:
        measured = evaluate_folder(folder, data_dir=data_dir, limit=wanted_rows)
    except FileNotFoundError as error:
        return [Check("figures", "not done", f"not re-evaluated: {_describe(error)}")]
    task, num_rows = get_task(published["task"]), measured["dataset"]["num_rows"]
    values = {row["metric"]: row for row in measured["figures"]}
    if num_rows != wanted_rows:
        detail = f"published {wanted_rows}, measured {num_rows}: the data or the folder was changed"
        return [Check("examples", "failed", detail)]
    is_sample = num_rows < published_rows
    checks = []
    for row in published["figures"]:
        again = values.get(row["metric"], {"value": math.nan, "n": num_rows})
        tolerance = task.tolerance(row["metric"], row["value"], again["n"], is_sample)
        if tolerance is None:
            detail = f"published {row['value']:.4f}; a sample of {num_rows} cannot tell"
            checks.append(Check(row["metric"], "not done", detail))
        else:
            checks.append(_compare(row, again["value"], tolerance))
    if is_sample:
        detail = f"a sample of {num_rows} of {published_rows} examples; without `limit` all of them are measured"
        checks.append(Check("all examples", "not done", detail))
    return checks


def _compare(row: dict, measured: float, tolerance: float) -> Check:
    difference = abs(measured - row["value"])
    detail = f"published {row['value']:.4f}, measured {measured:.4f}, tolerance {tolerance:.4f}"
    return Check(row["metric"], "passed" if difference <= tolerance else "failed", detail)
