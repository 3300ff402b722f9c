"""Finished runs of `reproduce.py` to the files that the documentation is made of.

`drum_lm.json` compares bits for each step, of both arms and of counting; `drum_lm_structure.json` the structure of
what was written, beside human grooves and grooves without a model; `drum_lm_curves.png` shows how the arms learn.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baselines import alternate_bars, draw_lines, repeat_bar
from counting import measure_contexts, read_lines
from curves import draw_curves, read_training_bits

from decahub import load_metric
from decahub.evaluation import Comparison, build_row, write_comparison
from decahub.models.drum_lm.pairs import strip_silence


LINE_KEY = "bits_per_step_of_lines"
BITS, LINE_BITS = "bits per step", "bits per step, separators left out"
ARMS = {"pretrained": "pre-trained on text", "random": "the same architecture, random weights"}
HUMAN = "human"
REPETITION, ALTERNATION, COINS = BASELINES = ("the second bar again and again", "two bars in turn", "coins")
PAPER = {
    "stability": "stability",
    "centre_gap": "gap of the clusters",
    "centre_spread": "spread of the clusters",
}
RATES = {"repeat_rate": "share of repeated bars", "train_copy_rate": "share of bars of the training set"}
# Human grooves and some models fill their last bars with silence, others end before it.
TRIMMED = {f"{key}_trimmed": f"{title}, silent ends left out" for key, title in PAPER.items()}
STRUCTURE = {**PAPER, **RATES, **TRIMMED}
TEXTS_SUFFIX = ".texts.json"
COMPARED = (*TRIMMED, "repeat_rate")
COMPARED_AS_PUBLISHED = (*PAPER, "repeat_rate")
COUNTING = "counting: "
# The paper's systems, measured on the authors' outputs for the same 37 test grooves.
PUBLISHED = {
    "GPT-3 davinci": dict(zip((*PAPER, *RATES), (3.039, 6.895, 0.636, 0.445, 0.134), strict=True)),
    "GPT-3 ada": dict(zip((*PAPER, *RATES), (3.450, 7.164, 0.826, 0.419, 0.196), strict=True)),
}
AUTHORS = "{} (the authors' outputs)"
DATASET = "groove"
RANDOM_SEED = 29


def name_run(arm: str, run: dict) -> str:
    """Name of the folder of a run."""
    return f"{arm}-rate{run['learning_rate']:g}-seed{run['seed']}"


def read_outcomes(folder: Path) -> dict[str, list[dict]]:
    outcomes: dict[str, list[dict]] = {}
    for path in sorted(folder.glob("*-seed*.json")):
        outcome = json.loads(path.read_text(encoding="utf-8"))
        outcomes.setdefault(outcome["arm"], []).append(outcome)
    return outcomes


def build_bit_rows(outcomes: dict[str, list[dict]], counted: dict[str, dict[str, float]]) -> list[dict]:
    rows = []
    for arm, runs in outcomes.items():
        facts = {
            "checkpoint": "last step",
            "steps": runs[0]["steps"],
            "num_parameters": runs[0]["num_parameters"],
            "minutes": sum(run["minutes"] for run in runs),
        }
        for split in ("validation", "test", "validation excerpts"):
            measured = [run for run in runs if split in run]
            seeds = [run["seed"] for run in measured]
            for metric, key in ((BITS, "bits_per_step"), (LINE_BITS, LINE_KEY)):
                values = [run[split][key] for run in measured]
                if not values:
                    continue
                rows.append(build_row(ARMS[arm], DATASET, metric, values, seeds, split=split, **facts))
    for name, bits in counted.items():
        rows += [
            build_row(f"{COUNTING}{name}", DATASET, LINE_BITS, [value], split=split) for split, value in bits.items()
        ]
    return rows


def compare_bits(rows: list[dict]) -> list[Comparison]:
    """The pre-trained arm needs fewer bits than the random one and than counting; the random one needs more."""
    values = {(row["split"], row["model"]): row["value"] for row in rows if row["metric"] == LINE_BITS}
    pretrained, untrained = ARMS.values()
    if not {("validation", pretrained), ("validation", untrained)} <= values.keys():
        return []  # undecided until both arms are finished
    counted = [name for split, name in values if split == "validation" and name.startswith(COUNTING)]
    best = min(counted, key=lambda name: values["validation", name])
    claims = [(split, pretrained, untrained, "lower") for split in ("validation", "validation excerpts")]
    claims += [(split, pretrained, best, "lower") for split in ("validation", "test")]
    claims += [(split, untrained, best, "higher") for split in ("validation", "test")]
    return [
        Comparison(DATASET, LINE_BITS, first, second, direction, split=split)
        for split, first, second, direction in claims
    ]


def compare_structure(rows: list[dict]) -> list[Comparison]:
    """The pre-trained arm is nearer to human grooves than grooves without a model and than the paper's systems are."""
    found = {(row["model"], row["metric"]) for row in rows}
    model = ARMS["pretrained"]
    pairs = [(system, STRUCTURE[key]) for system in BASELINES for key in COMPARED]
    pairs += [(AUTHORS.format(system), STRUCTURE[key]) for system in PUBLISHED for key in COMPARED_AS_PUBLISHED]
    return [
        Comparison(DATASET, metric, model, system, "nearer", reference=HUMAN)
        for system, metric in pairs
        if {(model, metric), (system, metric), (HUMAN, metric)} <= found
    ]


def measure_structure(texts: Sequence[str], train_texts: Sequence[str]) -> dict[str, float]:
    """Scores of texts, those of the paper both without silent ends and as the authors' script measures them."""
    options: dict[str, Any] = {"train_texts": list(train_texts), "cluster": "sklearn", "num_resamples": 0}
    scores, official = (
        load_metric("drum_structure", keep_in_memory=True).compute(predictions=list(texts), **options, **silence)
        for silence in ({}, {"strip_silence": False, "trim_empty": False})
    )
    return {
        **{key: official[key] for key in PAPER},
        **{key: scores[key] for key in RATES},
        **{f"{key}_trimmed": scores[key] for key in PAPER},
    }


def join_lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def collect_texts(
    folder: Path, outcomes: dict[str, list[dict]], humans: list[list[str]]
) -> dict[str, dict[int | None, list[str]]]:
    """Texts of each system for the test grooves, by seed; `None` where nothing is random."""
    generator = random.Random(RANDOM_SEED)
    prompts = [strip_silence(lines, rule="bar") for lines in humans]  # as models get them
    grooves = {
        HUMAN: humans,
        REPETITION: [repeat_bar(lines) for lines in prompts],
        ALTERNATION: [alternate_bars(lines) for lines in prompts],
        COINS: [draw_lines(generator) for _ in humans],
    }
    texts: dict[str, dict[int | None, list[str]]] = {
        name: {RANDOM_SEED if name == COINS else None: [join_lines(lines) for lines in rows]}
        for name, rows in grooves.items()
    }
    for arm, runs in outcomes.items():
        written = {run["seed"]: run["texts"] for run in runs if "texts" in run}
        texts |= {ARMS[arm]: written} if written else {}
    for path in sorted(folder.glob(f"*{TEXTS_SUFFIX}")):
        texts[path.name.removesuffix(TEXTS_SUFFIX)] = {0: json.loads(path.read_text(encoding="utf-8"))["texts"]}
    return texts


def collect_curves(folder: Path, outcomes: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """By title of the arm, what its runs needed while they learned."""
    return {
        ARMS[arm]: [
            {"curve": run["curve"], "training": read_training_bits(folder / name_run(arm, run) / "train_log.jsonl")}
            for run in runs
        ]
        for arm, runs in outcomes.items()
    }


def write_results(folder: Path, results_dir: Path, splits: Any) -> None:
    """Write what the finished runs allow."""
    outcomes = read_outcomes(folder)
    if not outcomes:
        return
    counted = measure_contexts(splits)
    write_bits(results_dir, build_bit_rows(outcomes, counted))
    best_counting = min(bits["validation"] for bits in counted.values())
    draw_curves(results_dir / "drum_lm_curves.png", collect_curves(folder, outcomes), best_counting)
    train_texts = [join_lines(lines) for lines in read_lines(splits["train"])]
    humans = read_lines(splits["test"])
    rows = []
    for name, texts_of_seeds in collect_texts(folder, outcomes, humans).items():
        scores = [measure_structure(texts, train_texts) for texts in texts_of_seeds.values()]
        seeds = [seed for seed in texts_of_seeds if seed is not None]
        rows += [
            build_row(name, DATASET, title, [one[key] for one in scores], seeds, split="test")
            for key, title in STRUCTURE.items()
            if all(one.get(key) is not None for one in scores)
        ]
    for name, scores in PUBLISHED.items():
        rows += [
            build_row(
                AUTHORS.format(name), DATASET, STRUCTURE[key], [value], split="test", paper=value,
                paper_source="authors' outputs",
            )
            for key, value in scores.items()
        ]  # fmt: skip
    write_structure(results_dir, rows)


def write_bits(results_dir: Path, rows: list[dict]) -> None:
    write_comparison(
        results_dir / "drum_lm.json",
        method="drum_lm",
        claim="A language model that has learned text learns to drum from a few hundred grooves, better than counting "
        "does; one that has not does not",
        comparisons=compare_bits(rows),
        rows=rows,
    )


def write_structure(results_dir: Path, rows: list[dict]) -> None:
    write_comparison(
        results_dir / "drum_lm_structure.json",
        method="drum_lm",
        claim="What the fine-tuned model writes is nearer in structure to human grooves than repetition, alternation, "
        "coins and the paper's systems are",
        comparisons=compare_structure(rows),
        rows=rows,
    )
