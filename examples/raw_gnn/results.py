"""Finished runs of `reproduce.py` to the files that the documentation is made of.

`raw_gnn.json` compares the networks, `raw_gnn_recipe.json` the authors' recipe with its known replication,
`raw_gnn_walks.json` the two laws of walks, `raw_gnn_draws.json` logits of one draw with logits averaged over several.
`splits.json` beside the runs of a graph is for the card of weights that are trained on it.
"""

import json
import statistics
from pathlib import Path

from decahub.evaluation import write_comparison, write_json
from decahub.training import describe_command


OFFICIAL, TUNED, COMPILED_LAW = "RAW-GNN, authors' recipe", "RAW-GNN", "RAW-GNN, torch_cluster walks"
AVERAGED = "RAW-GNN, logits of 8 draws"
METRIC = "accuracy (%)"
# Mean test accuracies over the ten public splits that others report. The paper's own table could not be obtained.
RUM = "RUM, NeurIPS 2024, table 9"
KNOWN = {
    (TUNED, "cora"): (87.85, f"RAW-GNN as quoted by {RUM}"),
    (OFFICIAL, "texas"): (81.35, "a replication of the authors' recipe"),
    (OFFICIAL, "cornell"): (70.54, "a replication of the authors' recipe"),
    (OFFICIAL, "wisconsin"): (84.71, "a replication of the authors' recipe"),
    ("GCN", "texas"): (55.1, RUM),
    ("GCN", "wisconsin"): (51.8, RUM),
    ("GCN", "cornell"): (60.5, RUM),
}
REPLICATION_SPREADS = {"texas": 6.10, "cornell": 4.59, "wisconsin": 3.49}  # over ten splits, one seed


def read_runs(folder: Path) -> dict[tuple[str, str], list[dict]]:
    """All finished runs by (model, dataset), those of a seed together."""
    runs: dict[tuple[str, str], list[dict]] = {}
    for path in sorted(folder.glob("*/*.summary.json")):
        summary = json.loads(path.read_text())
        runs.setdefault((summary["model"], summary["dataset"]), []).extend(summary["runs"])
    return runs


def build_row(model: str, dataset: str, runs: list[dict], score: str = "test") -> dict:
    values = [run[score] for run in runs]
    paper, source = KNOWN.get((model, dataset), (None, None))
    return {
        "model": model,
        "dataset": dataset,
        "split": f"test nodes of {len({run['split'] for run in runs})} public splits",
        "checkpoint": "best validation accuracy",
        "metric": METRIC,
        "value": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "seeds": sorted({run["seed"] for run in runs}),
        "runs": values,
        "num_parameters": runs[0]["num_parameters"],
        "paper": paper,
        "paper_source": source,
        "minutes": sum(run["minutes"] for run in runs),
    }


def compare(first: list[dict], second: list[dict], scores: tuple[str, str] = ("test", "test")) -> tuple[float, float]:
    """Mean and two standard errors of the difference `first - second`, run by run of equal split and seed."""
    others = {(run["split"], run["seed"]): run[scores[1]] for run in second}
    gaps = [
        run[scores[0]] - others[run["split"], run["seed"]] for run in first if (run["split"], run["seed"]) in others
    ]
    error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("inf")
    return statistics.mean(gaps), 2 * error


def describe_gap(gap: float, error: float, peer: str = "") -> str:
    verdict = "undecided" if abs(gap) <= error else "better" if gap > 0 else "worse"
    preposition = "against" if verdict == "undecided" else "than"
    compared = f"{verdict} {preposition} {peer}" if peer else verdict
    return f"{compared} ({gap:+.1f} points, two standard errors {error:.1f})"


def judge_networks(runs: dict[tuple[str, str], list[dict]]) -> str:
    parts = []
    for model, dataset in runs:
        peers = [peer for peer, graph in runs if graph == dataset and not peer.startswith("RAW-GNN")]
        if model != TUNED or not peers:
            continue
        best = max(peers, key=lambda peer: statistics.mean(run["test"] for run in runs[peer, dataset]))
        gap, error = compare(runs[TUNED, dataset], runs[best, dataset])
        parts.append(f"{dataset}: {describe_gap(gap, error, best)}")
    return "RAW-GNN beside the best of the others here: " + "; ".join(parts)


def judge_recipe(runs: dict[tuple[str, str], list[dict]]) -> str:
    parts = []
    for dataset, spread in REPLICATION_SPREADS.items():
        if (OFFICIAL, dataset) in runs:
            gap = statistics.mean(run["test"] for run in runs[OFFICIAL, dataset]) - KNOWN[OFFICIAL, dataset][0]
            error = 2 * spread / 10**0.5
            holds = "holds" if abs(gap) <= error else "does not hold"
            parts.append(f"{holds} on {dataset} ({gap:+.1f} points, two standard errors {error:.1f})")
    return "; ".join(parts)


def judge_pairs(pairs: dict[str, tuple[float, float]], what: str) -> str:
    return f"{what} here: " + "; ".join(f"{dataset}: {describe_gap(*gap)}" for dataset, gap in pairs.items())


def write_results(folder: Path, results_dir: Path) -> None:
    """Writes every comparison for which there are runs."""
    runs = read_runs(folder)
    compared = {key: value for key, value in runs.items() if key[0] not in (OFFICIAL, COMPILED_LAW)}
    official = {key: value for key, value in runs.items() if key[0] == OFFICIAL}
    laws = [dataset for model, dataset in runs if model == COMPILED_LAW]
    drawn = [dataset for model, dataset in runs if model == TUNED]
    for dataset in drawn:
        write_splits(folder / dataset / "splits.json", runs[TUNED, dataset])
    _write(
        results_dir / "raw_gnn.json",
        "RAW-GNN is more accurate than GCN, GAT, GraphSAGE, an MLP and H2GCN",
        judge_networks(compared),
        [build_row(model, dataset, value) for (model, dataset), value in compared.items()],
    )
    _write(
        results_dir / "raw_gnn_recipe.json",
        "The authors' recipe, repeated here, gives the accuracies of an earlier replication",
        judge_recipe(official),
        [build_row(model, dataset, value) for (model, dataset), value in official.items()],
    )
    _write(
        results_dir / "raw_gnn_walks.json",
        "Walks of the published law are better than those of the compiled sampler that the authors call",
        judge_pairs(
            {dataset: compare(runs[TUNED, dataset], runs[COMPILED_LAW, dataset]) for dataset in laws},
            "Walks of the published law",
        ),
        [build_row(model, dataset, runs[model, dataset]) for dataset in laws for model in (TUNED, COMPILED_LAW)],
    )
    _write(
        results_dir / "raw_gnn_draws.json",
        "Averaging logits over 8 draws of walks is better than one draw",
        judge_pairs(
            {
                dataset: compare(runs[TUNED, dataset], runs[TUNED, dataset], ("test_averaged", "test"))
                for dataset in drawn
            },
            "Averaged logits",
        ),
        [
            build_row(model, dataset, runs[TUNED, dataset], score)
            for dataset in drawn
            for model, score in ((TUNED, "test"), (AVERAGED, "test_averaged"))
        ],
    )


def write_splits(path: Path, runs: list[dict]) -> None:
    """Writes the accuracy of RAW-GNN on each split, the mean over seeds, for the card of trained weights."""
    by_split: dict[int, list[float]] = {}
    for run in runs:
        by_split.setdefault(run["split"], []).append(run["test"] / 100)
    rows = [
        {"split": f"test/{split}", "value": round(statistics.mean(values), 4), "seeds": len(values)}
        for split, values in sorted(by_split.items())
    ]
    means = [row["value"] for row in rows]
    spread = statistics.stdev(means) if len(means) > 1 else 0.0
    facts = {"mean": statistics.mean(means), "spread": spread, "command": describe_command()}
    write_json(path, {"metric": "accuracy", "rows": rows, **facts})


def _write(path: Path, claim: str, verdict: str, rows: list[dict]) -> None:
    if rows:
        write_comparison(path, method="raw_gnn", claim=claim, verdict=verdict, rows=rows)
