"""Finished runs of `reproduce.py` to the files that the documentation is made of.

`drum_lm.json` compares bits for each step, of both arms and of counting; `drum_lm_structure.json` the structure of
what was written, beside human grooves and grooves without a model; `drum_lm_curves.png` shows how the arms learn.
"""

import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baselines import alternate_bars, draw_lines, repeat_bar
from counting import measure_contexts, read_lines
from curves import draw_curves, read_training_bits

from decahub import load_metric
from decahub.evaluation import write_comparison
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
JUDGED = (*TRIMMED, "repeat_rate")
JUDGED_AS_PUBLISHED = (*PAPER, "repeat_rate")
# The paper's systems, measured on the authors' outputs for the same 37 test grooves.
PUBLISHED = {
    "GPT-3 davinci": dict(zip((*PAPER, *RATES), (3.039, 6.895, 0.636, 0.445, 0.134), strict=True)),
    "GPT-3 ada": dict(zip((*PAPER, *RATES), (3.450, 7.164, 0.826, 0.419, 0.196), strict=True)),
}
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


def build_row(
    model: str, split: str, metric: str, values: Sequence[float], seeds: Sequence[int], **facts: Any
) -> dict:
    return {
        "model": model,
        "dataset": "groove",
        "split": split,
        "checkpoint": "last step",
        "metric": metric,
        "value": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "seeds": list(seeds),
        "runs": list(values),
        "paper": None,
        "paper_source": None,
        "minutes": 0.0,
        **facts,
    }


def build_bit_rows(outcomes: dict[str, list[dict]], counted: dict[str, dict[str, float]]) -> list[dict]:
    rows = []
    for arm, runs in outcomes.items():
        facts = {
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
                rows.append(build_row(ARMS[arm], split, metric, values, seeds, **facts))
    for name, bits in counted.items():
        rows += [build_row(f"counting: {name}", split, LINE_BITS, [value], [0]) for split, value in bits.items()]
    return rows


def judge(outcomes: dict[str, list[dict]], counted: dict[str, dict[str, float]]) -> str:
    """Whether every pre-trained run is better than every random one, and both beside counting."""
    if len(outcomes) < len(ARMS):
        return "undecided here: not all arms are finished"
    gaps, holds = {}, True
    for split in ("validation", "validation excerpts"):
        bits = {arm: [run[split][LINE_KEY] for run in runs] for arm, runs in outcomes.items()}
        gaps[split] = statistics.mean(bits["random"]) - statistics.mean(bits["pretrained"])
        holds = holds and max(bits["pretrained"]) < min(bits["random"])
    leads = []
    for split in ("validation", "test"):
        pretrained = statistics.mean(run[split][LINE_KEY] for run in outcomes["pretrained"])
        leads.append(f"{min(values[split] for values in counted.values()) - pretrained:+.2f} on {split}")
    return (
        f"{'holds' if holds else 'does not hold'} here: pre-training saves {gaps['validation']:.2f} bits per step on "
        f"whole validation grooves and {gaps['validation excerpts']:.2f} on excerpts of the training length, and its "
        f"worst run is {'better' if holds else 'not better'} than the best without; the best counting needs more bits "
        f"than the pre-trained model by {', '.join(leads)}"
    )


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


def collect_texts(
    folder: Path, outcomes: dict[str, list[dict]], humans: list[list[str]]
) -> dict[str, dict[int, list[str]]]:
    """Texts of each system for the test grooves, by seed."""
    generator = random.Random(RANDOM_SEED)
    prompts = [strip_silence(lines, rule="bar") for lines in humans]  # as models get them
    grooves = {
        HUMAN: humans,
        REPETITION: [repeat_bar(lines) for lines in prompts],
        ALTERNATION: [alternate_bars(lines) for lines in prompts],
        COINS: [draw_lines(generator) for _ in humans],
    }
    texts = {name: {0: ["".join(f"{line}\n" for line in lines) for lines in rows]} for name, rows in grooves.items()}
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
    write_comparison(
        results_dir / "drum_lm.json",
        method="drum_lm",
        claim="A language model that has learned text learns to drum from a few hundred grooves, and one that has not "
        "does not",
        verdict=judge(outcomes, counted),
        rows=build_bit_rows(outcomes, counted),
    )
    best_counting = min(bits["validation"] for bits in counted.values())
    draw_curves(results_dir / "drum_lm_curves.png", collect_curves(folder, outcomes), best_counting)
    train_texts = ["".join(f"{line}\n" for line in lines) for lines in read_lines(splits["train"])]
    humans = read_lines(splits["test"])
    rows = []
    for name, texts_of_seeds in collect_texts(folder, outcomes, humans).items():
        scores = [measure_structure(texts, train_texts) for texts in texts_of_seeds.values()]
        rows += [
            build_row(name, "test", title, [one[key] for one in scores], list(texts_of_seeds))
            for key, title in STRUCTURE.items()
            if all(one.get(key) is not None for one in scores)
        ]
    for name, scores in PUBLISHED.items():
        for key, value in scores.items():
            source = {"paper": value, "paper_source": "authors' outputs"}
            rows.append(build_row(f"{name} (the authors' outputs)", "test", STRUCTURE[key], [value], [0], **source))
    write_comparison(
        results_dir / "drum_lm_structure.json",
        method="drum_lm",
        claim="What the fine-tuned model writes has steady bars and fills as human grooves have",
        verdict=judge_structure(rows),
        rows=rows,
    )


def judge_structure(rows: list[dict]) -> str:
    """Whether what the pre-trained model writes is nearer to human grooves than grooves without a model are."""
    values = {(row["model"], row["metric"]): row["value"] for row in rows}
    model = ARMS["pretrained"]
    if (model, STRUCTURE["stability"]) not in values:
        return "undecided here: no pre-trained model has written anything yet"

    def miss(model: str, key: str) -> float:
        return abs(values[model, STRUCTURE[key]] - values[HUMAN, STRUCTURE[key]])

    nearer = [key for key in JUDGED if miss(model, key) < min(miss(system, key) for system in BASELINES)]
    published = [f"{name} (the authors' outputs)" for name in PUBLISHED]
    ahead = [key for key in JUDGED_AS_PUBLISHED if miss(model, key) < min(miss(system, key) for system in published)]
    details = "; ".join(
        f"{STRUCTURE[key]} {values[model, STRUCTURE[key]]:.2f}, human {values[HUMAN, STRUCTURE[key]]:.2f}"
        + "".join(f", {name} {scores[key]:.2f}" for name, scores in PUBLISHED.items())
        for key in JUDGED_AS_PUBLISHED
    )
    return (
        f"{'holds' if len(nearer) == len(JUDGED) else 'does not hold'} here: the model {model} is nearer to human "
        f"grooves than repetition, alternation and coins are by {len(nearer)} of {len(JUDGED)} scores without silent "
        f"ends, and than the paper's two systems by {len(ahead)} as their script measures ({details})"
    )
