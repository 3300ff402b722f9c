"""Learning curves of `reproduce.py` as a plot."""

import json
import os
import statistics
from pathlib import Path

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt


BITS = "bits_per_step"
COLORS = ("tab:blue", "tab:red", "tab:green")


def read_training_bits(log: Path) -> dict[int, float]:
    """Bits per step of the training rows by step, from the log of a run."""
    rows = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return {row["step"]: row[BITS] for row in rows if BITS in row}


def draw_curves(path: Path, arms: dict[str, list[dict]], best_counting: float) -> None:
    """Plot of bits per step while learning.

    Args:
        path (`Path`): PNG file to write.
        arms (`dict[str, list[dict]]`): By title, one entry for each seed with `training`, bits of the training rows by
            step, and `curve`, those of validation grooves.
        best_counting (`float`): Bits of the best counting model on the whole validation split.
    """
    score, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for (title, runs), color in zip(arms.items(), COLORS, strict=False):
        for run in runs:
            panels[0].plot(
                list(run["training"]), list(run["training"].values()), color=color, alpha=0.3, linewidth=0.8
            )
            validation = {point["step"]: point[BITS] for point in run["curve"]}
            panels[1].plot(
                list(validation), list(validation.values()), color=color, alpha=0.6, marker="o", markersize=3
            )
        shared = set.intersection(*(set(run["training"]) for run in runs))
        means = {step: statistics.mean(run["training"][step] for run in runs) for step in sorted(shared)}
        panels[0].plot(list(means), list(means.values()), color=color, label=f"{title}, {len(runs)} runs")
    for panel, rows in zip(panels, ("crops of training grooves", "the first validation grooves"), strict=True):
        panel.axhline(best_counting, color="tab:gray", linestyle="--", label="best counting, all validation grooves")
        panel.set_title(rows, fontsize=10)
        panel.set_xlabel("steps")
        panel.set_ylim(0, 8)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("bits per sixteenth note")
    panels[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    score.savefig(partial, dpi=110, format="png", metadata={"Software": None})
    plt.close(score)
    os.replace(partial, path)
