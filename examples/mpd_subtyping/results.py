"""Rows, claims and plots of the study."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decahub.evaluation import Comparison, build_row, write_comparison
from decahub.hub import ModelFolder
from decahub.hub.files import write_text
from decahub.hub.model_folder import dump_report
from decahub.tasks import Report


ARI, SHARE = "adjusted Rand index", "share of cohorts"
VERDICT, NAIVE, TRIO = "discrete subtypes supported", "SigClust and Jaccard alone", "autoencoder ensemble"
KMEANS, SMILE_GAN = "k-means, raw", "SmileGAN, raw"
METHODS = ("compare", "smile_gan")
CHECKS = {
    "jaccard": "Jaccard at least 0.75",
    "prediction_strength": "prediction strength at least 0.8",
    "significance": "SigClust p < 0.05",
    "mixture": "mixture test p < 0.05",
    "dip": "dip test p < 0.05",
    "nuisance": "no nuisance",
}
MAX_FALSE, LEAST_POWER = 0.05, {"easy": 0.95, "medium": 0.65}
CLAIM_POWER = (
    "The verdict calls at most 5 % of cohorts without subtypes discrete, at least 95 % of those with easy and 65 % of "
    "those with medium subtypes"
)
CLAIM_RECOVERY = (
    "The autoencoder ensemble finds subtypes as well as k-means on Gaussian cohorts (within 0.07), better than Ward, "
    "and better than k-means (by 0.25) and the linear ensemble (by 0.05) on curved ones"
)
CLAIM_SMILE_GAN = "Plain k-means and the autoencoder ensemble find subtypes better than one model of SmileGAN"


def collect(records: Sequence[Mapping[str, Any]], task: str) -> dict[str, list[Mapping[str, Any]]]:
    """Records of a part of the study by kind of cohort, in the order of their seeds."""
    kinds = list(dict.fromkeys(record["kind"] for record in records if record["task"] == task))
    return {
        kind: sorted(
            (record for record in records if record["task"] == task and record["kind"] == kind),
            key=lambda record: record["seed"],
        )
        for kind in kinds
    }


def build_power_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shares of cohorts with the verdict, with that of a naive analysis, and that pass each check."""
    rows = []
    for kind, runs in collect(records, "judge").items():
        hits = {
            VERDICT: [run["verdict"] == VERDICT for run in runs],
            NAIVE: [run["naive_verdict"] == "subtypes claimed" for run in runs],
            **{name: [run["outcomes"][check] == "pass" for run in runs] for check, name in CHECKS.items()},
        }
        seeds, minutes = [run["seed"] for run in runs], sum(run["cpu_seconds"] for run in runs) / 60
        rows += [
            build_row(name, kind, SHARE, [float(hit) for hit in values], seeds, minutes=minutes)
            for name, values in hits.items()
        ]
    return rows


def write_power(
    path: str | os.PathLike,
    records: Sequence[Mapping[str, Any]],
    null_kinds: Sequence[str],
    ensemble: Mapping[str, Any],
) -> str:
    """The file of the power and false-positive study; returns its verdict."""
    rows = build_power_rows(records)
    present = {row["dataset"] for row in rows}
    comparisons = [Comparison(kind, SHARE, VERDICT, MAX_FALSE, "lower") for kind in null_kinds if kind in present]
    comparisons += [
        Comparison(kind, SHARE, VERDICT, power, "higher") for kind, power in LEAST_POWER.items() if kind in present
    ]
    notes = [
        "Linear ensemble, selection mean_or_spread, quick repetitions; a cohort has 400 patients and 250 controls.",
        f"Fields of the ensemble that differ from the defaults: {dict(ensemble) or 'none'}.",
        "Two subtypes are 5 (easy), 3.5 (medium) or 2.5 (hard, without a target) standard deviations apart.",
    ]
    return write_comparison(
        path, method="mpd_subtyping", claim=CLAIM_POWER, comparisons=comparisons, rows=rows, notes=notes
    )


def add_to_card(folder: Path, records: Sequence[Mapping[str, Any]], null_kinds: Sequence[str], command: str) -> None:
    """Put the table and the plot of power and false positives into the card of a published model."""
    rows = build_power_rows(records)
    names = list(dict.fromkeys(row["model"] for row in rows))
    shares = {(row["dataset"], row["model"]): round(row["value"], 3) for row in rows}
    kinds = dict.fromkeys(row["dataset"] for row in rows)
    num_runs = min(len(runs) for runs in collect(records, "judge").values())
    report = Report(
        title="Power and false positives",
        columns=["cohorts", "subtypes inside", *names],
        rows=[
            [kind, "no" if kind in null_kinds else "two", *(shares[kind, name] for name in names)] for kind in kinds
        ],
        verdict=f"Shares of {num_runs} generated cohorts of each kind that the verdict of `subtype_validity` calls "
        "discrete, that a naive analysis would, and that pass each check alone. Judged was an ensemble without "
        "autoencoders, which takes seconds.",
        command=command,
    )
    write_text(folder / "report_power_and_false_positives.json", dump_report(report))
    draw_power(folder / "power_and_false_positives.png", records)
    ModelFolder(folder).write_card()
    ModelFolder(folder).write_checksums()


def build_recovery_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Agreement of each method with the truth, by kind of cohort; SmileGAN may have seen fewer."""
    rows = []
    for task in METHODS:
        for kind, runs in collect(records, task).items():
            seeds, minutes = [run["seed"] for run in runs], sum(run["cpu_seconds"] for run in runs) / 60
            rows += [
                build_row(name, kind, ARI, [run["ari"][name] for run in runs], seeds, minutes=minutes)
                for name in runs[0]["ari"]
            ]
    return rows


def describe_smile_gan(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know of the runs of SmileGAN, if there are any."""
    runs = [record for record in records if record["task"] == "smile_gan"]
    if not runs:
        return []
    versions = ", ".join(sorted({run["version"] for run in runs}))
    (first, last), converged = runs[0]["epochs"], sum(run["converged"] for run in runs)
    note = (
        f"{SMILE_GAN}: package SmileGAN {versions}, one model a cohort, stopped by its authors' rule between epochs "
        f"{first} and {last}; {converged} of {len(runs)} runs met it, and the others count as they ended. The weight "
        "of changes is below their default, with which the generated groups became one. They advise ten models and "
        "longer training, which may find more."
    )
    return [note]


def write_smile_gan(path: str | os.PathLike, records: Sequence[Mapping[str, Any]]) -> str:
    """The file of k-means and the autoencoder ensemble beside SmileGAN, on the cohorts that all saw; its verdict."""
    rows = [row for row in build_recovery_rows(records) if row["model"] in (TRIO, KMEANS, SMILE_GAN)]
    comparisons = [
        Comparison(kind, ARI, name, SMILE_GAN) for kind in collect(records, "smile_gan") for name in (KMEANS, TRIO)
    ]
    return write_comparison(
        path,
        method="mpd_subtyping",
        claim=CLAIM_SMILE_GAN,
        comparisons=comparisons,
        rows=rows,
        notes=describe_smile_gan(records),
    )


def write_recovery(
    path: str | os.PathLike, records: Sequence[Mapping[str, Any]], sites: Mapping[str, Any] | None, variant: str
) -> str:
    """The file of the comparison of methods, with the real table as a note; returns its verdict."""
    rows, present = build_recovery_rows(records), list(collect(records, "compare"))
    comparisons = [
        Comparison(kind, ARI, TRIO, KMEANS, "higher", -0.07) for kind in ("easy", "medium") if kind in present
    ]
    comparisons += [
        Comparison(kind, ARI, TRIO, "Ward, raw", "higher") for kind in ("easy", "medium", "hard") if kind in present
    ]
    if "nonlinear" in present:
        comparisons += [
            Comparison("nonlinear", ARI, TRIO, KMEANS, "higher", 0.25),
            Comparison("nonlinear", ARI, TRIO, "linear ensemble", "higher", 0.05),
        ]
    notes = [
        f"Autoencoders: variant {variant}. Ensembles see the features that mean_or_spread selects.",
        f"{KMEANS}, is the plain baseline: where it is better, use it.",
        *describe_smile_gan(records),
    ]
    if sites is not None:
        rows.append(build_row("assignment of left-out sites", "abide_anatomy", "mean " + ARI, [sites["mean"]]))
        notes.append(f"abide_anatomy, {sites['num_patients']} people with autism: {sites['verdict']}. "
                     + " ".join(sites["sentences"]))  # fmt: skip
    return write_comparison(
        path, method="mpd_subtyping", claim=CLAIM_RECOVERY, comparisons=comparisons, rows=rows, notes=notes
    )


def _new_axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def draw_power(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Share of cohorts that are called discrete, by the verdict and by a naive analysis."""
    rows = build_power_rows(records)
    kinds = list(dict.fromkeys(row["dataset"] for row in rows))
    figure, axes = _new_axes(9, 4)
    for offset, (name, color) in enumerate(((VERDICT, "#0072b2"), (NAIVE, "#d55e00"))):
        values = [
            next(row["value"] for row in rows if (row["dataset"], row["model"]) == (kind, name)) for kind in kinds
        ]
        axes.bar(np.arange(len(kinds)) + 0.4 * offset - 0.2, values, 0.4, color=color, label=name)
    axes.axhline(MAX_FALSE, color="black", linestyle=":", linewidth=0.8)
    axes.set_xticks(range(len(kinds)), [kind.replace("_", "\n") for kind in kinds])
    axes.set_ylabel("share of cohorts called discrete")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def draw_recovery(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Agreement with the truth of each method, by kind of cohort."""
    rows = build_recovery_rows(records)
    names, kinds = (list(dict.fromkeys(row[key] for row in rows)) for key in ("model", "dataset"))
    means = {(row["model"], row["dataset"]): row["value"] for row in rows}
    figure, axes = _new_axes(9, 5)
    for index, kind in enumerate(kinds):
        axes.barh(
            np.arange(len(names)) + 0.8 * (index + 0.5) / len(kinds) - 0.4,
            [means.get((name, kind), float("nan")) for name in names],
            0.8 / len(kinds),
            label=kind,
        )
    counts = [min(row["n"] for row in rows if row["model"] == name) for name in names]
    labels = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(f"mean {ARI} with the true subtypes (number of cohorts of each kind)")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.08), ncols=len(kinds))
    figure.savefig(path, dpi=110)
