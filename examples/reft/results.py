"""The results of `reproduce.py`: one file for each claim."""

from dataclasses import dataclass
from pathlib import Path

from decahub.evaluation import Comparison, build_row, write_comparison


NOVEL, NOVEL50, BASE, BASE50 = ("nAP (%)", "nAP50 (%)", "bAP (%)", "bAP50 (%)")
KEYS = {NOVEL: "nAP", NOVEL50: "nAP50", BASE: "bAP", BASE50: "bAP50"}
GOAL_BASE50, GOAL_NOVEL50 = 60.0, 25.0  # stated before any run
SHUFFLED_RATIO, KEPT_SHARE = 2.0, 0.9
NOTE = (
    "An independent re-implementation: the authors' code was never published, and what the modules compute inside is "
    "our reading of the paper. Scores on generated shapes cannot be compared with the paper's on COCO. All models go "
    "on from one trunk that was trained with support, Mask2Former without its references."
)


@dataclass(frozen=True)
class Run:
    """Scores of one arm with K shots of one draw."""

    arm: str
    num_shots: int
    seed: int
    scores: dict


def collect_rows(dataset: str, runs: list[Run], prefix: str) -> list[dict]:
    """A row for each arm that begins with `prefix`, each K and each metric that was measured."""
    rows = []
    groups = dict.fromkeys((run.arm, run.num_shots) for run in runs if run.arm.startswith(prefix))
    for arm, num_shots in groups:
        own = [run for run in runs if (run.arm, run.num_shots) == (arm, num_shots)]
        for metric, key in KEYS.items():
            if all(key in run.scores for run in own):
                values, seeds = [100 * run.scores[key] for run in own], [run.seed for run in own]
                minutes = sum(run.scores.get("minutes", 0) for run in own)
                name = f"{arm}, {num_shots} shots"
                rows.append(build_row(name, dataset, metric, values, seeds, split="test", minutes=minutes))
    return rows


def scale_row(rows: list[dict], model: str, metric: str, factor: float, name: str) -> list[dict]:
    """The row of a model with its runs multiplied, to compare a ratio."""
    found = [row for row in rows if (row["model"], row["metric"]) == (model, metric)]
    return [
        build_row(name, row["dataset"], metric, [factor * value for value in row["runs"]], row["seeds"], split="test")
        for row in found
    ]


def keep_known(comparisons: list[Comparison], rows: list[dict]) -> list[Comparison]:
    """Comparisons whose rows are there."""
    known = {(row["model"], row["metric"]) for row in rows}
    return [
        part
        for part in comparisons
        if all((side, part.metric) in known for side in (part.first, part.second) if isinstance(side, str))
    ]


def write_results(folder: Path, dataset: str, runs: list[Run], bases: dict[str, dict]) -> None:
    """Write `reft.json` (FSIS) and, of what was run, `reft_<setting>.json`."""
    base_rows = [
        build_row(
            f"{name}, base training",
            dataset,
            metric,
            [100 * scores[KEYS[metric]]],
            split="test",
            minutes=scores["minutes"],
        )
        for name, scores in bases.items()
        for metric in (BASE, BASE50)
    ]
    settings = {"": "fsis", "_generalized": "gfsis", "_incremental": "ifsis", "_prototype": "prototype"}
    claims = {
        "fsis": "RefT finds novel classes at 5 shots at least as well as a fully fine-tuned Mask2Former, and with an "
        "nAP50 of at least 25 %",
        "gfsis": "RefT finds novel classes at 5 shots better than a fully fine-tuned Mask2Former when base classes "
        "are kept",
        "ifsis": "RefT learns four classes with a loss of at most a tenth of the base classes' AP, and distillation "
        "keeps more of it",
        "prototype": "A prototype head adds classes without training: more shots help, and shuffled support halves "
        "nAP50 at least",
    }
    for ending, prefix in settings.items():
        rows = collect_rows(dataset, runs, prefix)
        if not rows:
            continue
        rows += base_rows
        rows += scale_row(rows, "prototype-shuffled, 5 shots", NOVEL50, SHUFFLED_RATIO, "twice prototype-shuffled")
        rows += scale_row(rows, "reft-cosine, base training", BASE, KEPT_SHARE, "nine tenths of reft-cosine")
        verdict = write_comparison(
            folder / f"reft{ending}.json",
            method="reft",
            claim=claims[prefix],
            comparisons=keep_known(build_comparisons(dataset)[prefix], rows),
            rows=rows,
            notes=[NOTE, f"Goal of base training, stated before any run: bAP50 of at least {GOAL_BASE50:g} %."],
        )
        print(f"{claims[prefix]}: {verdict}")


def build_comparisons(dataset: str) -> dict[str, list[Comparison]]:
    """What each claim is made of."""
    shuffled, kept = "twice prototype-shuffled", "nine tenths of reft-cosine"
    plain = "ifsis-reft-no-distillation, 5 shots"
    return {
        "fsis": [
            Comparison(dataset, NOVEL, "fsis-reft, 5 shots", "fsis-mask2former, 5 shots"),
            Comparison(dataset, NOVEL50, "fsis-reft, 5 shots", GOAL_NOVEL50),
        ],
        "gfsis": [Comparison(dataset, NOVEL, "gfsis-reft, 5 shots", "gfsis-mask2former, 5 shots")],
        "ifsis": [
            Comparison(dataset, BASE, "ifsis-reft, 5 shots", kept),
            Comparison(dataset, BASE, "ifsis-reft, 5 shots", plain),
        ],
        "prototype": [
            Comparison(dataset, NOVEL50, "prototype, 5 shots", shuffled),
            Comparison(dataset, NOVEL50, "prototype, 10 shots", "prototype, 1 shots"),
        ],
    }
