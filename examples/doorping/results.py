"""Finished runs of `reproduce.py` to the files that the documentation is made of.

`doorping.json` compares the lift of DoorPing and NaiveAttack, `doorping_accuracy.json` the clean accuracy of attacked
sets with that of clean ones, `doorping_control.json` DoorPing with its trigger on clean networks and as an image of 8
bits, `doorping_transfer.json` networks of other architectures, `doorping_defenses.json` what the defenses say.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from decahub.evaluation import Comparison, build_row, write_comparison


CLEAN, NAIVE, DOORPING, CLAMPED = "clean", "NaiveAttack", "DoorPing", "DoorPing, clamped"
MAX_LOSS = 5.0  # points of clean accuracy
METRICS = {
    "lift": "lift (%)",
    "cta": "clean accuracy (%)",
    "asr": "attack success, all images (%)",
    "asr_non_target": "attack success (%)",
    "clean_target_rate": "clean images in the target class (%)",
    "asr_quantized": "attack success, 8-bit trigger (%)",
    "asr_control": "attack success on clean networks (%)",
}
PATCH = "Clean sets are measured with NaiveAttack's white patch. Lift is the attack success on images of other classes"
NOTES = [
    f"{PATCH}, minus the share of clean images that the same network puts in the target class.",
    "Runs are short and networks narrow; the paper's are wider, longer, and on a GPU.",
]


def read_files(folder: Path, name: str) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"*/*/{name}"))]


def group_runs(runs: Sequence[dict]) -> dict[tuple, list[dict]]:
    """Runs by (dataset, distiller, attack), seed by seed."""
    groups: dict[tuple, list[dict]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        groups.setdefault((run["dataset"], run["distiller"], run["attack"]), []).append(run)
    return groups


def name_model(distiller: str, attack: str) -> str:
    return f"{distiller}: {attack}"


def build_rows(groups: dict[tuple, list[dict]], metrics: Sequence[str]) -> list[dict]:
    return [
        build_row(
            name_model(distiller, attack),
            Path(dataset).name,
            METRICS[metric],
            [100 * run["figures"][metric] for run in runs],
            [run["seed"] for run in runs],
            split="test",
            steps=runs[0]["steps"],
            minutes=sum(run["minutes"] for run in runs),
        )
        for (dataset, distiller, attack), runs in groups.items()
        for metric in metrics
        if runs[0]["figures"][metric] is not None
    ]


def compare(groups: dict[tuple, list[dict]], metric: str, first: str, second: str, **options) -> list[Comparison]:
    """One comparison for each dataset and distiller that has both attacks."""
    pairs = dict.fromkeys((dataset, distiller) for dataset, distiller, _ in groups)
    return [
        Comparison(
            Path(dataset).name, METRICS[metric], name_model(distiller, first), name_model(distiller, second), **options
        )
        for dataset, distiller in pairs
        if {(dataset, distiller, first), (dataset, distiller, second)} <= groups.keys()
    ]


def rename(rows: list[dict], metric: str, suffix: str, wanted: str) -> list[dict]:
    """Rows of one metric under the name of another, so that both can be compared."""
    found = [row for row in rows if row["metric"] == METRICS[metric]]
    return [{**row, "model": row["model"] + suffix, "metric": METRICS[wanted]} for row in found]


def write_controls(path: Path, groups: dict[tuple, list[dict]]) -> str:
    """DoorPing against the same trigger on clean networks, and against itself as an image of 8 bits."""
    own = {key: runs for key, runs in groups.items() if key[2] in (DOORPING, CLAMPED)}
    rows = build_rows(own, ["asr_non_target", "asr_control", "asr_quantized", "clean_target_rate"])
    on_clean, as_image = ", on clean networks", ", as an 8-bit image"
    rows = [
        *[row for row in rows if row["metric"] == METRICS["asr_non_target"]],
        *rename(rows, "asr_control", on_clean, "asr_non_target"),
        *rename(rows, "asr_quantized", as_image, "asr_non_target"),
        *rename(rows, "clean_target_rate", ", without trigger", "asr_non_target"),
    ]
    comparisons = []
    for dataset, distiller, attack in own:
        name = name_model(distiller, attack)
        for other in (on_clean, as_image):
            comparisons.append(Comparison(Path(dataset).name, METRICS["asr_non_target"], name, name + other))
        comparisons.append(
            Comparison(Path(dataset).name, METRICS["asr_non_target"], name + as_image, name + ", without trigger")
        )
    return write_comparison(
        path,
        method="doorping",
        claim="DoorPing's success is that of a backdoor: higher than on clean networks, and left in an 8-bit image",
        comparisons=comparisons,
        rows=rows,
        notes=["The control is a network trained on the clean set of the same seed, with the same trigger."],
    )


def write_transfer(path: Path, files: Sequence[dict]) -> None:
    """Success on networks that the set was not distilled with."""
    rows = [
        build_row(
            f"{name_model(item['distiller'], item['attack'])} on {architecture}",
            Path(item["dataset"]).name,
            METRICS[metric],
            [100 * scores[metric]],
            [item["seed"]],
            split="test",
        )
        for item in files
        for architecture, scores in item["networks"].items()
        for metric in ("cta", "asr_non_target", "asr_control")
        if scores[metric] is not None
    ]
    write_comparison(
        path, method="doorping", claim="the attack transfers to other architectures", comparisons=[], rows=rows,
        notes=["One seed. Steps of DD fit the network that they were made for; others hardly learn from them."],
    )  # fmt: skip


def write_defenses(path: Path, files: Sequence[dict]) -> None:
    """1 for a set that a defense flags (a repair: whose attack it removes), 0 for one it does not."""
    rows = [
        build_row(
            f"{name_model(item['distiller'], item['attack'])}: {name}",
            Path(item["dataset"]).name,
            "flagged",
            [float(found["flagged"])],
            [item["seed"]],
            split="test",
        )
        for item in files
        for name, found in item["defenses"].items()
        if found["flagged"] is not None
    ]
    silent = sorted({name for item in files for name, found in item["defenses"].items() if found["flagged"] is None})
    notes = ["One seed. 1: flagged, or for a repair that the attack is removed; 0: not."]
    if silent:
        notes.append(f"Without a verdict on some sets, for reasons that the audit states: {', '.join(silent)}.")
    write_comparison(
        path, method="doorping", claim="defenses tell attacked sets from clean ones", comparisons=[], rows=rows,
        notes=notes,
    )  # fmt: skip


def write_results(folder: Path, results_dir: Path) -> list[Path]:
    """Write what has been run; returns the files."""
    groups = group_runs(read_files(folder, "run.json"))
    results_dir.mkdir(parents=True, exist_ok=True)
    paths = [results_dir / f"doorping{name}.json" for name in ("", "_accuracy", "_control")]
    write_comparison(
        paths[0],
        method="doorping",
        claim="DoorPing's trigger succeeds far more often than NaiveAttack's",
        comparisons=compare(groups, "lift", DOORPING, NAIVE),
        rows=build_rows(groups, [name for name in METRICS if name != "cta"]),
        notes=NOTES,
    )
    write_comparison(
        paths[1],
        method="doorping",
        claim="attacked sets train networks within 5 points of the clean accuracy of clean sets",
        comparisons=[
            part
            for attack in (NAIVE, DOORPING, CLAMPED)
            for part in compare(groups, "cta", attack, CLEAN, direction="equal", margin=MAX_LOSS)
        ],
        rows=build_rows(groups, ["cta"]),
    )
    write_controls(paths[2], groups)
    for name, write in (("transfer", write_transfer), ("defenses", write_defenses)):
        if files := read_files(folder, f"{name}.json"):
            paths.append(results_dir / f"doorping_{name}.json")
            write(paths[-1], files)
    return paths
