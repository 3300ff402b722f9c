"""The report on subtypes: one HTML page with its plots inside, and the same numbers as JSON.

It holds means and counts, and no value of a single patient.
"""

import base64
import html
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from decahub.environment import describe_versions

from .record import write_json


PAGE, NUMBERS = "subtype_report.html", "subtype_report.json"
NUM_FEATURES = 15  # of a profile
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the color-blind
DISCLAIMER = (
    "This page describes groups of patients in one table. It is not a diagnosis, it says nothing about a single "
    "person, and no decision about a person may rest on it. The checks say what was tested; what was not tested is "
    "listed as na."
)
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;"
    "vertical-align:top}.pass{color:#00694d}.fail{color:#a33}.note{background:#f4f4f4;padding:.8rem;"
    "border-left:4px solid #888}img{max-width:100%}"
)


def write_report(
    folder: str | os.PathLike,
    model: Any,
    validity: Mapping[str, Any],
    fit: Mapping[str, Any],
    table: Mapping[str, Any] | None = None,
) -> Path:
    """Write `subtype_report.html` and `subtype_report.json`.

    Args:
        folder (`str` or path): Where to.
        model (`MpdSubtypingModel`): Fitted; gives profiles and similarity of the fine clusters.
        validity (`Mapping`): What the metric `subtype_validity` returned.
        fit (`Mapping`): Fields of the `FitReport`; the subtypes of patients are left out.
        table (`Mapping`, *optional*): `fitted` of the feature extractor: counts of people and features.

    Returns:
        `Path`: The page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        "validity": validity,
        "fit": {name: value for name, value in to_plain(fit).items() if name != "subtypes"},
        "selection_counts": (table or {}).get("selection_counts", {}),
        "profiles": list_profiles(model),
        "versions": describe_versions(),
    }
    write_json(folder / NUMBERS, to_plain(numbers))
    page, partial = folder / PAGE, folder / f".{PAGE}.partial"
    partial.write_text(render(model, validity, fit, table or {}), encoding="utf-8")
    os.replace(partial, page)
    return page


def to_plain(value: Any) -> Any:
    """Values as JSON holds them; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def list_profiles(model: Any) -> list[dict[str, Any]]:
    """Size and mean deviation of each feature, by subtype."""
    names = model.config.feature_names or [f"feature_{index}" for index in range(model.config.num_features)]
    sizes, profiles = model.cluster.subtype_sizes.tolist(), model.cluster.subtype_profile.double().tolist()
    return [
        {"subtype": model.config.id2label[index], "size": int(size), "profile": dict(zip(names, profile, strict=True))}
        for index, (size, profile) in enumerate(zip(sizes, profiles, strict=True))
    ]


def render(model: Any, validity: Mapping[str, Any], fit: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """The page as text."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Subtype report</title>",
        f"<style>{STYLE}</style><h1>Subtype report</h1><p class='note'>{DISCLAIMER}</p>",
        f"<h2>Verdict: {_escape(validity['verdict'])}</h2>",
        *(f"<p>{_escape(sentence)}</p>" for sentence in validity["sentences"]),
        f"<p>Significance and stability alone would have said: <b>{_escape(validity['naive_verdict'])}</b>.</p>",
        _render_people(validity, table),
        "<h2>Checks</h2>",
        _render_checks(validity),
    ]
    if "after_regression" in validity:
        again = validity["after_regression"]
        parts.append(f"<h2>After nuisance was regressed out: {_escape(again['verdict'])}</h2>{_render_checks(again)}")
    parts += [_render_sites(validity), _render_nuisance(validity)]
    for title, figure in draw_plots(model, validity):
        parts.append(f"<h2>{_escape(title)}</h2>{_embed(figure, title)}")
    warnings = "".join(f"<li>{_escape(text)}</li>" for text in fit.get("warnings", ()))
    parts.append(f"<h2>Warnings</h2><ul>{warnings}</ul>" if warnings else "")
    settings = f"Refit of resampling: {validity['refit']}; seed {validity['seed']}; "
    settings += "quick repetitions." if validity["quick"] else "full repetitions."
    return "\n".join([*parts, f"<p>{_escape(settings)}</p></html>"])


def _render_people(validity: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    sizes = ", ".join(map(str, validity["subtype_sizes"]))
    text = f"<p>{validity['num_patients']} patients in subtypes of {sizes}"
    if table:
        counts = table.get("selection_counts", {})
        kinds = "; ".join(f"{name} {count}" for name, count in counts.items())
        text += f"; {table.get('num_controls', 0)} controls. Features that pass each selection: {_escape(kinds)}"
    return f"{text}.</p>"


def _render_checks(validity: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_escape(name.replace('_', ' '))}</td><td class='{record['outcome']}'>{record['outcome']}</td>"
        f"<td>{_escape(record['rule'])}</td><td>{_escape(record['sentence'])}</td>"
        f"<td>{'' if record['repetitions'] is None else record['repetitions']}</td></tr>"
        for name, record in validity["checks"].items()
    )
    head = "<tr><th>check</th><th>outcome</th><th>rule</th><th>what it found</th><th>repetitions</th></tr>"
    return f"<table>{head}{rows}</table>"


def _render_sites(validity: Mapping[str, Any]) -> str:
    sites = validity["checks"].get("leave_site_out", {}).get("values", {}).get("sites", ())
    rows = "".join(
        f"<tr><td>{_escape(row['site'])}</td><td>{row['num_patients']}</td><td>{row['ari']:.2f}</td></tr>"
        for row in sites
    )
    head = "<tr><th>site</th><th>patients</th><th>adjusted Rand index</th></tr>"
    return f"<h2>Sites that were left out</h2><table>{head}{rows}</table>" if rows else ""


def _render_nuisance(validity: Mapping[str, Any]) -> str:
    parts = []
    for name in ("external", "nuisance"):
        rows = "".join(
            f"<tr><td>{_escape(row['name'])}</td><td>{row['effect'].replace('_', ' ')}</td><td>{row['value']:.3f}</td>"
            f"<td>{row['p_max']:.3g}</td></tr>"
            for row in validity["checks"].get(name, {}).get("values", {}).get("variables", ())
            if row["value"] is not None
        )
        head = "<tr><th>measure</th><th>effect</th><th>value</th><th>p over all</th></tr>"
        title = {"external": "Clinical measures", "nuisance": "Nuisance"}[name]
        parts.append(f"<h2>{title}</h2><table>{head}{rows}</table>" if rows else "")
    return "".join(parts)


# Plots


def draw_plots(model: Any, validity: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Titles and plots of the page."""
    checks = validity["checks"]
    plots = [("Profiles of the subtypes, in standard deviations of controls", plot_profiles(model))]
    if checks.get("mixture", {}).get("values"):
        plots.append(("Discriminant scores, and what was fitted to them", plot_scores(checks["mixture"]["values"])))
    if checks.get("jaccard", {}).get("values"):
        plots.append(("Bootstrap stability", plot_stability(checks["jaccard"]["values"]["means"])))
    plots.append(("Agreement of the members", plot_consensus(model)))
    return plots


def _new_figure(width: float = 8.0, height: float = 4.0) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Plots need matplotlib: pip install "decahub[mpd_subtyping]".') from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plot_profiles(model: Any) -> Any:
    """Mean deviation of the features in which subtypes differ most."""
    profiles = np.array([list(row["profile"].values()) for row in list_profiles(model)])
    names = list(list_profiles(model)[0]["profile"])
    order = np.argsort(-np.ptp(profiles, axis=0) if len(profiles) > 1 else -np.abs(profiles[0]))[:NUM_FEATURES][::-1]
    figure = _new_figure(8.0, 1.2 + 0.3 * len(order))
    axes = figure.subplots()
    for index, profile in enumerate(profiles):
        heights = np.arange(len(order)) + 0.8 * (index + 0.5) / len(profiles) - 0.4
        label = f"{model.config.id2label[index]} (n = {int(model.cluster.subtype_sizes[index])})"
        axes.barh(heights, profile[order], 0.8 / len(profiles), color=COLORS[index % len(COLORS)], label=label)
    axes.set_yticks(range(len(order)), [names[index] for index in order])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("mean deviation from controls (SD)")
    figure.legend(loc="outside upper center", ncols=len(profiles), frameon=False)
    return figure


def draw_profiles(model: Any, path: Path) -> Path:
    """Profiles as a PNG file."""
    partial = path.with_suffix(".partial")
    plot_profiles(model).savefig(partial, format="png", dpi=110)
    os.replace(partial, path)
    return path


def plot_scores(values: Mapping[str, Any]) -> Any:
    """Histogram of the scores with the two Gaussians and the unimodal law."""
    from scipy.special import gamma

    counts, edges = (np.array(values["histogram"][name]) for name in ("counts", "edges"))
    figure = _new_figure()
    axes = figure.subplots()
    axes.stairs(counts / (counts.sum() * np.diff(edges)), edges, fill=True, color="#dddddd", label="patients")
    grid = np.linspace(edges[0], edges[-1], 400)
    mixture, law = values["fit"]["mixture"], values["fit"]["unimodal"]
    variance = mixture["variance"]
    for weight, mean in ((1 - mixture["weight"], mixture["first"]), (mixture["weight"], mixture["second"])):
        density = weight * np.exp(-np.square(grid - mean) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
        axes.plot(grid, density, color=COLORS[1], label="two groups" if mean == mixture["first"] else None)
    scale = np.where(grid < law["mode"], law["left"], law["right"])
    height = law["shape"] / ((law["left"] + law["right"]) * gamma(1 / law["shape"]))
    unimodal = height * np.exp(-((np.abs(grid - law["mode"]) / scale) ** law["shape"]))
    axes.plot(grid, unimodal, color=COLORS[0], linestyle="--", label="one unimodal law")
    axes.set_xlabel(f"cross-fitted discriminant score (mixture test p = {values['p']:.3g})")
    axes.legend(frameon=False)
    return figure


def plot_stability(means: list[float]) -> Any:
    """Mean Jaccard similarity of each subtype, with the rules of thumb."""
    figure = _new_figure(6.0, 3.0)
    axes = figure.subplots()
    axes.bar(range(1, len(means) + 1), means, color=[COLORS[index % len(COLORS)] for index in range(len(means))])
    for limit, name in ((0.6, "do not trust below"), (0.75, "valid"), (0.85, "highly stable")):
        axes.axhline(limit, color="black", linewidth=0.8, linestyle=":")
        axes.text(len(means) + 1.25, limit, name, fontsize=8, va="bottom", ha="right")
    axes.set_xticks(range(1, len(means) + 1))
    axes.set_xlim(0.4, len(means) + 1.3)
    axes.set_ylim(0, 1)
    axes.set_xlabel("subtype")
    axes.set_ylabel("mean Jaccard similarity")
    return figure


def plot_consensus(model: Any) -> Any:
    """Similarity of the fine clusters, ordered by subtype, and the histogram of the co-association of patients."""
    state = model.cluster
    order = np.argsort(state.merge_map.numpy(), kind="stable")
    similarity = state.fine_similarity.double().numpy()[np.ix_(order, order)]
    figure = _new_figure(8.0, 3.4)
    left, right = figure.subplots(1, 2)
    image = left.imshow(similarity, vmin=0, vmax=1, cmap="viridis")
    letters = [f"{chr(65 + index % 26)} ({int(state.merge_map[index]) + 1})" for index in order]
    left.set_xticks(range(len(order)), letters)
    left.set_yticks(range(len(order)), letters)
    left.set_title("fine clusters (subtype)", fontsize=10)
    figure.colorbar(image, ax=left, label="mean co-association")
    shares = state.consensus_histogram.double().numpy()
    right.bar((np.arange(len(shares)) + 0.5) / len(shares), shares, 1 / len(shares), color=COLORS[0])
    right.set_xlabel("co-association of two patients")
    right.set_ylabel("share of pairs")
    right.set_title(f"ambiguous pairs: {float(state.pac):.0%}", fontsize=10)
    return figure


def _embed(figure: Any, title: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='{_escape(title)}' src='data:image/png;base64,{data}'>"


def _escape(text: Any) -> str:
    return html.escape(str(text))


__all__ = ["NUMBERS", "PAGE", "draw_profiles", "write_report"]
