"""Finished runs of `reproduce.py` to the files that the documentation is made of.

Each claim of the paper is a file: `tinymim.json` compares ways to pre-train, `tinymim_strong_teacher.json` does so
with a teacher that learned from more data, the others study targets. `tinymim_probes.json` has probes on features,
before fine-tuning and after it.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decahub.evaluation import write_comparison


ACCURACY, PROBE, NEIGHBORS = "top-1 accuracy (%)", "linear probe accuracy (%)", "k-NN accuracy (%)"
MIN_SEEDS = 2  # one run does not tell a difference from chance
MIN_TEACHER_LEAD = 5.0  # points of the probe by which a teacher should be ahead of the student's other pre-training
# What the table calls an arm, and the paper's score of ViT-T on ImageNet-1k with its source.
ARMS = {
    "scratch": ("from scratch", 72.2, "TinyMIM, comparison with DeiT-T"),
    "mae": ("masked autoencoder", 71.6, "TinyMIM, README of the authors' code"),
    "tinymim": ("TinyMIM", 75.8, "TinyMIM, README of the authors' code"),
    "strong": ("TinyMIM, teacher DINOv2-S", None, None),
    "relations": ("relations of block 5, softmax, clean input, drop path 0.05", None, None),
    "features": ("features of all tokens", None, None),
    "cls": ("feature of the class token", None, None),
    "scores": ("relations without softmax (MSE)", None, None),
    "last_layer": ("relations of the last block", None, None),
    "no_drop_path": ("drop path 0", None, None),
    "drop_path": ("drop path 0.1", None, None),
    "masked": ("masked input", None, None),
}


@dataclass(frozen=True)
class Claim:
    """A finding of the paper.

    Args:
        file: Name of the file of its result.
        text: The finding.
        pairs: Arms of which the first is better than the second.
    """

    file: str
    text: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(arm for pair in self.pairs for arm in pair))


CLAIMS = (
    Claim(
        "tinymim",
        "TinyMIM pre-trains a small vision transformer better than masked autoencoding, which is better than none",
        (("tinymim", "mae"), ("mae", "scratch")),
    ),
    Claim(
        "tinymim_strong_teacher",
        "TinyMIM with a teacher that learned from more data is better than masked autoencoding and than none",
        (("strong", "mae"), ("strong", "scratch")),
    ),
    Claim(
        "tinymim_targets",
        "Relations are a better target than features and than the class token",
        (("relations", "features"), ("relations", "cls")),
    ),
    Claim("tinymim_softmax", "Relations are a better target with softmax than without", (("relations", "scores"),)),
    Claim(
        "tinymim_layers",
        "An intermediate block of a deeper teacher is a better target than its last one",
        (("relations", "last_layer"),),
    ),
    Claim("tinymim_drop_path", "A little drop path on the student helps", (("drop_path", "no_drop_path"),)),
    Claim("tinymim_input", "A clean input is better than a masked one", (("relations", "masked"),)),
)
Runs = dict[str, dict[int, dict]]  # outcome by arm and seed


def read_runs(folder: Path) -> Runs:
    runs: Runs = {}
    for path in sorted(folder.glob("*/arm.json")):
        outcome = json.loads(path.read_text())
        runs.setdefault(outcome["arm"], {})[outcome["seed"]] = outcome
    return runs


def build_row(model: str, metric: str, values: Sequence[float], seeds: Sequence[int], **facts) -> dict:
    return {
        "model": model,
        "split": "test",
        "checkpoint": "last step",
        "metric": metric,
        "value": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "seeds": list(seeds),
        "runs": list(values),
        "paper": None,
        "paper_source": None,
        **facts,
    }


def build_accuracy_row(arm: str, outcomes: dict[int, dict]) -> dict:
    """Accuracy after fine-tuning; minutes are those of pre-training and fine-tuning together."""
    name, paper, source = ARMS[arm]
    stages = [
        [outcome[part] for part in ("pretraining", "finetuning") if part in outcome] for outcome in outcomes.values()
    ]
    return build_row(
        name,
        ACCURACY,
        [100 * outcome["finetuning"]["accuracy"] for outcome in outcomes.values()],
        list(outcomes),
        dataset=next(iter(outcomes.values()))["dataset"],
        steps=sum(stage["steps"] for stage in stages[0]),
        num_parameters=stages[0][-1]["num_parameters"],
        paper=paper,
        paper_source=source,
        minutes=sum(stage["minutes"] for parts in stages for stage in parts),
    )


def judge(claim: Claim, runs: Runs) -> str:
    """Whether each pair has its order in every seed, with the mean gap in points; one seed decides nothing."""
    parts, holds, num_seeds = [], True, []
    for first, second in claim.pairs:
        seeds = sorted(runs[first].keys() & runs[second].keys())
        gaps = [
            100 * (runs[first][seed]["finetuning"]["accuracy"] - runs[second][seed]["finetuning"]["accuracy"])
            for seed in seeds
        ]
        if not gaps:
            return f"undecided here: no seed has both {ARMS[first][0]} and {ARMS[second][0]}"
        holds &= min(gaps) > 0
        num_seeds.append(len(gaps))
        num_right = sum(gap > 0 for gap in gaps)
        parts.append(
            f"{ARMS[first][0]} against {ARMS[second][0]} {statistics.mean(gaps):+.1f} points, ahead in {num_right} of "
            f"{len(gaps)} seeds"
        )
    word = "undecided" if min(num_seeds) < MIN_SEEDS else "holds" if holds else "does not hold"
    return f"{word} here: {'; '.join(parts)}"


def judge_teacher(folder: Path, runs: Runs) -> str:
    """Whether the teacher's features are far enough ahead of those of the student's other pre-training."""
    record = folder / "teacher.json"
    if not record.exists() or "mae" not in runs:
        return ""
    teacher = json.loads(record.read_text())["linear_probe_accuracy"]
    students = [outcome["pretraining"]["linear_probe_accuracy"] for outcome in runs["mae"].values()]
    lead = 100 * (teacher - statistics.mean(students))
    comparison = "at least" if lead >= MIN_TEACHER_LEAD else "less than"
    return (
        f"; the teacher's linear probe is {lead:+.1f} points from that of the student's masked autoencoder, "
        f"{comparison} the {MIN_TEACHER_LEAD:.0f} that a teacher should be ahead"
    )


def build_probe_rows(folder: Path, runs: Runs) -> list[dict]:
    """Probes of teachers and of every arm of the first comparison, before and after fine-tuning."""
    rows = []
    metrics = {PROBE: "linear_probe_accuracy", NEIGHBORS: "knn_accuracy"}
    dataset = next((outcome["dataset"] for outcomes in runs.values() for outcome in outcomes.values()), None)
    for name in ("teacher", "strong_teacher"):
        record = folder / f"{name}.json"
        if record.exists() and dataset is not None:
            scores = json.loads(record.read_text())
            facts = {"dataset": dataset, "minutes": 0.0, "num_parameters": scores["num_parameters"]}
            title = f"{name.replace('_', ' ')} ({scores['model']})"
            rows += [build_row(title, metric, [100 * scores[key]], [0], **facts) for metric, key in metrics.items()]
    for arm in ("scratch", "mae", "tinymim", "strong"):
        for stage, when in (("pretraining", "pre-trained"), ("finetuning", "fine-tuned")):
            outcomes = {seed: run[stage] for seed, run in runs.get(arm, {}).items() if stage in run}
            if not outcomes:
                continue
            facts = {
                "dataset": dataset,
                "minutes": sum(outcome["minutes"] for outcome in outcomes.values()),
                "num_parameters": next(iter(outcomes.values()))["num_parameters"],
            }
            rows += [
                build_row(
                    f"{ARMS[arm][0]}, {when}",
                    metric,
                    [100 * outcome[key] for outcome in outcomes.values()],
                    list(outcomes),
                    **facts,
                )
                for metric, key in metrics.items()
            ]
    return rows


def judge_probes(runs: Runs) -> str:
    means = {
        arm: 100 * statistics.mean(run["pretraining"]["linear_probe_accuracy"] for run in runs[arm].values())
        for arm in ("tinymim", "mae")
        if arm in runs
    }
    if len(means) < 2:
        return "undecided here: not all arms are finished"
    gap = means["tinymim"] - means["mae"]
    return f"{'holds' if gap > 0 else 'does not hold'} here: linear probes differ by {gap:+.1f} points"


def write_results(folder: Path, results_dir: Path) -> None:
    """Writes every claim for all of whose arms there are runs."""
    runs = read_runs(folder)
    for claim in CLAIMS:
        if not all(arm in runs for arm in claim.arms):
            continue
        verdict = judge(claim, runs)
        if claim.file == "tinymim":
            verdict += judge_teacher(folder, runs)
        rows = [build_accuracy_row(arm, runs[arm]) for arm in claim.arms]
        write_comparison(
            results_dir / f"{claim.file}.json", method="tinymim", claim=claim.text, verdict=verdict, rows=rows
        )
        print(f"{claim.text}: {verdict}")
    rows = build_probe_rows(folder, runs)
    if rows:
        write_comparison(
            results_dir / "tinymim_probes.json",
            method="tinymim",
            claim="Features of a student of TinyMIM are better than those of a masked autoencoder of its size",
            verdict=judge_probes(runs),
            rows=rows,
        )
