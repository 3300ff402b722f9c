"""Finished runs of `reproduce.py` to the files that the documentation is made of.

`reliant.json` compares students of a GCN, `reliant_<teacher>.json` those of another teacher, `reliant_tradeoff.json`
and `reliant_tradeoff_<dataset>_<student>.png` show what a larger fairness weight gains and costs.
"""

import json
import os
import statistics
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from decahub.data import DATASETS
from decahub.evaluation import Comparison, build_row, write_comparison


matplotlib.use("Agg")

MAJORITY = "majority class"
PLAIN = 0.0  # the fairness weight of plain distillation
MAIN_TEACHER = "GCN"
MAX_COST = 3.0  # points of accuracy
PLAIN_DISTILLATION = "plain distillation"
STUDENTS = {"AKD": "SGC", "CPF": "PLP"}
PARITY, OPPORTUNITY = "statistical_parity_difference", "equal_opportunity_difference"
METRICS = {
    "accuracy": "accuracy (%)",
    "roc_auc": "AUROC (%)",
    "f1": "F1 (%)",
    PARITY: "statistical parity difference (%)",
    OPPORTUNITY: "equal opportunity difference (%)",
}
# Logs of the authors, with fairness weights 10 (AKD) and 1000 (CPF); tables of the paper could not be obtained.
SOURCE = "log in the authors' repository, one seed, their weight"
KNOWN = {
    ("GCN", None, "bail"): (92.25, 6.19, 2.25),
    ("GCN", None, "credit"): (77.39, 13.32, 10.40),
    ("GraphSAGE", None, "bail"): (91.45, 6.97, 2.85),
    ("GraphSAGE", None, "credit"): (78.09, 14.19, 11.49),
    ("GCN", "CPF", "bail"): (89.28, 5.67, 2.29),
    ("GCN", "CPF", "credit"): (78.09, 11.67, 7.18),
    ("GraphSAGE", "CPF", "bail"): (89.10, 5.52, 1.73),
    ("GraphSAGE", "CPF", "credit"): (77.95, 2.52, 1.68),
    ("GCN", "AKD", "bail"): (88.99, 5.53, 2.77),
    ("GCN", "AKD", "credit"): (77.81, 2.59, 2.43),
    ("GraphSAGE", "AKD", "bail"): (89.78, 6.49, 3.50),
    ("GraphSAGE", "AKD", "credit"): (78.07, 1.16, 0.95),
}


def read_runs(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*/run.json"))]


def group_runs(runs: list[dict]) -> dict[tuple, list[dict]]:
    """Runs by (dataset, teacher, student, fairness weight), seed by seed."""
    groups: dict[tuple, list[dict]] = {}
    for run in sorted(runs, key=lambda run: (run["dataset"], run["student"] or "", run["fairness_weight"] or 0.0)):
        key = (run["dataset"], run["teacher"], run["student"], run["fairness_weight"])
        groups.setdefault(key, []).append(run)
    return {key: sorted(value, key=lambda run: run["seed"]) for key, value in groups.items()}


def name_model(teacher: str, student: str | None, weight: float | None) -> str:
    if teacher == MAJORITY:
        return MAJORITY
    if student is None:
        return f"{teacher}, teacher"
    how = PLAIN_DISTILLATION if weight == PLAIN else f"RELIANT, fairness weight {weight:g}"
    return f"{STUDENTS[student]} of {teacher}, {student}: {how}"


def summarize(key: tuple, runs: list[dict], metric: str, quotes_authors: bool = True) -> dict:
    dataset, teacher, student, weight = key
    known = KNOWN.get((teacher, student, dataset)) if quotes_authors and weight != PLAIN else None
    scores = dict(zip(("accuracy", PARITY, OPPORTUNITY), known or (), strict=False))
    return build_row(
        name_model(teacher, student, weight),
        dataset,
        METRICS[metric],
        [100 * run["figures"][f"test_{metric}"] for run in runs],
        [] if teacher == MAJORITY else [run["seed"] for run in runs],
        split="test nodes of the authors' split",
        checkpoint=runs[0]["checkpoint"],
        num_parameters=runs[0]["num_parameters"],
        paper=scores.get(metric),
        paper_source=SOURCE if metric in scores else None,
        minutes=sum(run["minutes"] for run in runs) or None,
    )


def list_students(rows: list[dict]) -> dict[tuple[str, str], list[str]]:
    """Names of the fair students by (dataset, name of the plain one), in the order of their weights."""
    students: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        student, colon, how = row["model"].partition(": ")
        if colon and how != PLAIN_DISTILLATION:
            plain = f"{student}: {PLAIN_DISTILLATION}"
            students.setdefault((row["dataset"], plain), {})[row["model"]] = None
    return {key: list(names) for key, names in students.items()}


def compare_students(rows: list[dict]) -> list[Comparison]:
    """A lower parity difference than that of plain distillation, and at most 3 points less accuracy."""
    return [
        Comparison(dataset, METRICS[metric], name, plain, direction, margin)
        for (dataset, plain), names in list_students(rows).items()
        for name in names
        for metric, direction, margin in ((PARITY, "lower", 0.0), ("accuracy", "higher", -MAX_COST))
    ]


def compare_weights(rows: list[dict]) -> list[Comparison]:
    """The largest weight against the smallest."""
    return [
        Comparison(dataset, METRICS[PARITY], names[-1], names[0], "lower")
        for (dataset, _), names in list_students(rows).items()
    ]


def write_results(folder: Path, results_dir: Path, chosen: dict[tuple[str, str], float]) -> None:
    """Writes every comparison for which there are runs.

    Args:
        folder (`Path`): of the runs.
        results_dir (`Path`): where the files go.
        chosen (`dict`): the fairness weight that stands for RELIANT, by (dataset, student).
    """
    groups = group_runs(read_runs(folder))
    compared = {key: runs for key, runs in groups.items() if key[2] is None or is_compared(key, chosen)}
    for teacher in dict.fromkeys(key[1] for key in groups if key[1] != MAJORITY):
        kept = {key: runs for key, runs in compared.items() if key[1] in (teacher, MAJORITY)}
        kept = {key: runs for key, runs in kept.items() if any(other[2] and other[0] == key[0] for other in kept)}
        write_students(
            results_dir, teacher, [summarize(key, runs, name) for key, runs in kept.items() for name in METRICS]
        )
    curves = find_curves(groups)
    rows = [
        summarize(key, runs, metric, quotes_authors=False)
        for curve in curves.values()
        for key, runs in curve.items()
        for metric in ("accuracy", "roc_auc", PARITY)
    ]
    write_tradeoff(results_dir, rows)
    for (dataset, _, student), curve in curves.items():
        draw_curve(results_dir / f"reliant_tradeoff_{dataset}_{STUDENTS[student].lower()}.png", curve, groups)


def write_students(results_dir: Path, teacher: str, rows: list[dict]) -> None:
    name = "reliant" if teacher == MAIN_TEACHER else f"reliant_{teacher.lower()}"
    claim = (
        f"RELIANT lowers the statistical parity difference of students of {teacher} and costs at most {MAX_COST:g} "
        "points of accuracy"
    )
    _write(results_dir / f"{name}.json", claim, compare_students(rows), rows)


def write_tradeoff(results_dir: Path, rows: list[dict]) -> None:
    claim = (
        "A larger fairness weight lowers the statistical parity difference further: the largest against the smallest"
    )
    _write(results_dir / "reliant_tradeoff.json", claim, compare_weights(rows), rows)


def is_compared(key: tuple, chosen: dict[tuple[str, str], float]) -> bool:
    dataset, _, student, weight = key
    return weight in (PLAIN, chosen.get((dataset, student)))


def find_curves(groups: dict[tuple, list[dict]]) -> dict[tuple, dict[tuple, list[dict]]]:
    """Runs over several fairness weights by (dataset, teacher, student), all of them with the same seeds."""
    curves: dict[tuple, dict[tuple, list[dict]]] = {}
    for key, runs in groups.items():
        if key[2] is not None:
            curves.setdefault(key[:3], {})[key] = runs
    curves = {name: curve for name, curve in curves.items() if len(curve) > 2}
    for name, curve in curves.items():
        common = set.intersection(*({run["seed"] for run in runs} for runs in curve.values()))
        curves[name] = {key: [run for run in runs if run["seed"] in common] for key, runs in curve.items()}
    return curves


def draw_curve(path: Path, curve: dict[tuple, list[dict]], groups: dict[tuple, list[dict]]) -> None:
    """Image of accuracy and AUROC against the parity difference, with teacher and majority class."""
    dataset, teacher, student, _ = next(iter(curve))
    plot, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for panel, metric in zip(panels, ("accuracy", "roc_auc"), strict=True):
        fair = [runs for key, runs in curve.items() if key[3] != PLAIN]
        line = [[_summarize(runs, name)[0] for runs in fair] for name in (metric, PARITY)]
        panel.plot(*line, color="tab:blue", linewidth=1)
        for (*_, weight), runs in curve.items():
            if weight == PLAIN:
                _draw_point(panel, runs, metric, PLAIN_DISTILLATION, "tab:red", "s")
            else:
                label = "RELIANT, by its weight" if runs is fair[0] else None
                _draw_point(panel, runs, metric, label, "tab:blue", "o", text=f"{weight:g}")
        _draw_point(panel, groups[dataset, teacher, None, None], metric, "teacher", "tab:green", "^")
        _draw_majority(panel, _summarize(groups[dataset, MAJORITY, None, None], metric)[0])
        panel.set_xlabel(METRICS[metric])
        panel.grid(alpha=0.3)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel(METRICS[PARITY])
    panels[0].legend(fontsize=8)
    title = DATASETS[dataset].title if dataset in DATASETS else dataset
    number = len(next(iter(curve.values())))
    what = "one run" if number == 1 else f"mean and deviation of {number} runs"
    plot.suptitle(f"{title}: {STUDENTS[student]} of {teacher}, {what}, test nodes")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    plot.savefig(partial, dpi=110, format="png", metadata={"Software": None})
    plt.close(plot)
    os.replace(partial, path)


def _draw_point(
    panel: Axes, runs: list[dict], metric: str, label: str | None, color: str, marker: str, text: str = ""
) -> None:
    (x, x_error), (y, y_error) = _summarize(runs, metric), _summarize(runs, PARITY)
    panel.errorbar(x, y, y_error, x_error, fmt=marker, color=color, alpha=0.8, linewidth=0.8, label=label)
    panel.annotate(text, (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8)


def _draw_majority(panel: Axes, x: float) -> None:
    """A perfectly fair point; at the edge, with its value, where it lies far from the others."""
    low, high = panel.get_xlim()
    if low - (high - low) / 2 <= x <= high + (high - low) / 2:
        panel.plot(x, 0, "D", color="tab:gray", clip_on=False, label=MAJORITY)
        return
    panel.set_xlim(low, high)
    panel.plot(low, 0, "<", color="tab:gray", clip_on=False, label=MAJORITY)
    panel.annotate(f"{x:.1f}", (low, 0), textcoords="offset points", xytext=(6, 4), fontsize=8, color="tab:gray")


def _summarize(runs: list[dict], metric: str) -> tuple[float, float]:
    values = [100 * run["figures"][f"test_{metric}"] for run in runs]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _write(path: Path, claim: str, comparisons: list[Comparison], rows: list[dict]) -> None:
    if rows:
        write_comparison(path, method="reliant", claim=claim, comparisons=comparisons, rows=rows)
