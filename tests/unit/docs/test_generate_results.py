"""The generated tables: statistics of the right kind, scores rounded to their spread, bad sources refused by name."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from decahub.evaluation import Comparison, build_row, write_comparison
from decahub.registry import Method


PROJECT = Path(__file__).parents[3]
DOCUMENTS = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/**/*.md"))]

# Mean 4, median 3, maximum 9: no two of them can be taken for each other. The sample deviation is sqrt(36 / 3).
RUNS = [1.0, 3.0, 3.0, 9.0]
PEER_RUNS = [2.0, 4.5, 4.0, 10.5]  # differences of -1, -1.5, -1, -1.5: mean -1.25, interval -1.25 +- 0.46
METRIC = "top-1 accuracy (%)"
ORIGIN = {"command": "python run.py", "hardware": "a small computer", "versions": {"python": "3.11"}}
FACTS = {"paper": 71.5, "paper_source": "table 2", "minutes": 96.4, "num_parameters": 1200300}
SPEED = {
    "method": "emo",
    "case": "inference batch 1",
    "peer": "timm: a network",
    "size": None,
    "unit": None,
    "ours_seconds": 0.02,
    "reference_seconds": 0.03,
    "ours_megabytes": 12.3,
    "reference_megabytes": 1234.5,
    "ratio": 1.5,
    "ratio_spread": [1.4213, 1.6172],
    "repetitions": 7,
    "threads": 2,
}
RECIPE = {"card_title": "tiny", "card_summary": "s", "card_intended_use": "u", "card_limits": "l", "seed": 3}
SCORES = [("accuracy", 0.88217, 2500), ("top_5_accuracy", 1.0, 2500), ("mean_iou", 0.43217, 2500), ("other", 0.5, 9)]
README = """# Title
<!-- generated: methods -->
old
<!-- /generated -->
text
"""


def load_generator():
    spec = importlib.util.spec_from_file_location("generate_results", PROJECT / "docs" / "generate_results.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


generator = load_generator()


@pytest.fixture
def project(tmp_path):
    """A project without any measurement."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def add_claim(project: Path, name: str = "emo", runs=RUNS, **options) -> Path:
    path = project / f"docs/results/{name}.json"
    seeds = [0, 1, 2, 5][: len(runs)]
    rows = [
        build_row("small", "cifar10", METRIC, runs, seeds, **FACTS),
        build_row("peer", "cifar10", METRIC, PEER_RUNS[: len(runs)], seeds),
    ]
    comparison = Comparison("cifar10", METRIC, "small", "peer", **options)
    write_comparison(path, method="emo", claim="small is better", comparisons=[comparison], rows=rows)
    return path


def add_speed(project: Path, **changes) -> Path:
    return write(project / "benchmarks/results/emo.json", [{**SPEED, **ORIGIN, **changes}])


def add_model(project: Path, name: str = "emo-tiny") -> Path:
    folder = project / "model_cards" / name
    scores = [{"metric": metric, "value": value, "n": n} for metric, value, n in SCORES]
    dataset = {"name": "cifar10", "title": "CIFAR-10 (JPEG)", "split": "test", "num_rows": 2500}
    task = {"task": "image-classification", "dataset": dataset, "minutes": 1.0}
    write(folder / "evaluation.json", {**task, "figures": scores, **ORIGIN})
    write(folder / "config.json", {"model_type": "emo", "architectures": ["EmoForImageClassification"]})
    write(folder / "recipe.yaml", yaml.safe_dump(RECIPE))
    lines = [{"step": 9, "loss": 1.0}, {"step": 9, "training_minutes": 118.4, **ORIGIN}]
    write(folder / "train_log.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def render(project: Path) -> tuple[str, str]:
    """README.md and docs/results.md."""
    readme, results, _ = generator.generate(project).values()
    return readme, results


def render_benchmarks(project: Path) -> str:
    return generator.generate(project)[project / generator.BENCHMARKS]


def find_row(text: str, start: str) -> list[str]:
    """Cells of the only table row that begins with `start`."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return line.strip("| ").split(" | ")


# Numbers


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (78.2914, 0.38, "78.3"),
        (78.2914, 0.04, "78.29"),
        (78.2914, 2.0, "78"),
        (78.2914, 0.97, "78"),  # 0.97 is 1 in one digit
        (5678.0, 130.0, "5700"),
        (-0.0512, 0.003, "-0.051"),
        (0.9, 0.003, "0.900"),
    ],
)
def test_rounds_to_the_first_digit_of_the_error(value, error, text):
    assert generator.round_to(value, error) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.43217, "0.432"), (71.5, "71.5"), (1234.5, "1230"), (0.0, "0.00"), (-2.0, "-2.00")]
)
def test_score_without_error_has_three_significant_digits(value, text):
    assert generator.format_score(value) == text


def test_one_run_and_equal_runs_claim_no_deviation():
    assert generator.format_with_spread(71.26, None) == "71.3"
    assert generator.format_with_spread(71.26, 0.0) == "71.3 ± 0"


# Tables


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (2.4466, [0.0566, 4.8366], "+2.4"),  # two digits of 2.39
        (-17.91, [-18.104, -17.716], "-17.91"),
        (0.38, None, "+0.38"),
        (-1.5, [-1.5, -1.5], "-1.5"),
        (None, None, ""),
    ],
)
def test_difference_has_its_sign_and_two_digits_of_its_interval(value, interval, text):
    assert generator.format_difference(value, interval) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "*a* above *b*"),
        ({"margin": 2.0}, "*a* above *b* by more than 2"),
        ({"margin": -3.0}, "*a* at most 3 below *b*"),
        ({"direction": "lower"}, "*a* below *b*"),
        ({"direction": "lower", "margin": -3.0}, "*a* at most 3 above *b*"),
        ({"direction": "equal", "margin": 3.857, "second": 81.35}, "*a* within 3.86 of 81.35 (published)"),
        ({"direction": "nearer", "reference": "human"}, "*a* nearer to *human* than *b*"),
    ],
)
def test_comparison_in_words(options, text):
    part = {"first": "a", "second": "b", "direction": "higher", "margin": 0.0, **options}

    assert generator.describe_comparison(part) == text


def test_row_shows_mean_and_sample_deviation(project):
    add_claim(project)

    cells = find_row(render(project)[1], "small")

    columns = "small", "cifar10", METRIC, "4 ± 3", "4", "0, 1, 2, 5", "1,200,300", "96 minutes"
    assert cells == [*columns, "71.5 (table 2)"]


def test_claim_that_does_not_hold_is_a_normal_row(project):
    add_claim(project)

    readme, results = render(project)

    effect = "-1.25 (-1.71 to -0.79) points of top-1 accuracy: *small* above *peer*, cifar10"
    assert find_row(results, "[emo](#emo)") == [
        "[emo](#emo)", "small is better", "**does not hold**", effect, "4", "0 of 1"
    ]  # fmt: skip
    assert "### emo\n\n#### small is better\n\n**Does not hold.**\n" in results
    assert find_row(results, "*small*")[3:] == ["-1.25", "-1.71 to -0.79", "4", "does not hold"]
    assert find_row(readme, "[emo]")[-2:] == ["does not hold", "[claims](docs/results.md#emo)"]


def test_too_few_pairs_are_undecided_without_interval(project):
    add_claim(project, runs=RUNS[:2])

    cells = find_row(render(project)[1], "[emo](#emo)")

    effect = "-1.25 points of top-1 accuracy: *small* above *peer*, cifar10"
    assert cells[2:] == ["**undecided**", effect, "2", "0 of 1"]


def test_readme_has_the_main_claim_alone(project):
    add_claim(project)
    add_claim(project, "emo_second", direction="lower")

    readme, results = render(project)

    assert find_row(readme, "[emo]")[-2] == "does not hold"
    assert "| **holds** |" in results


def test_speed_is_a_ratio_with_its_quartiles(project):
    add_speed(project)

    rows = [line.strip("| ").split(" | ") for line in render_benchmarks(project).splitlines() if line[:5] == "| emo"]

    shared = ["emo", "inference batch 1", "timm: a network", "1.5 (1.4 to 1.6)", "20.0", "12 / 1,234"]
    assert rows == [shared, [*shared, "7", "2"]]


def test_headline_is_the_fastest_peer_at_the_largest_size(project):
    rows = [
        {**SPEED, **ORIGIN, "peer": f"peer {index}", "size": size, "unit": "edges", "ours_seconds": 0.03 / ratio}
        | {"ratio": ratio}
        for index, (size, ratio) in enumerate([(100, 0.5), (200, 3.0), (200, 2.0), (150, 1.0)])
    ]
    write(project / "benchmarks/results/emo.json", rows)

    headline = render_benchmarks(project).partition("## All measurements")[0]

    assert find_row(headline, "emo")[1:3] == ["inference batch 1, 200 edges", "peer 2"]


def test_weights_are_rounded_to_the_error_of_a_share(project):
    add_model(project)

    readme, results = render(project)

    # The standard error of a share of 0.88 of 2,500 rows is 0.006.
    assert "[accuracy 0.882](model_cards/emo-tiny/README.md), CIFAR-10 (JPEG)" in find_row(readme, "[emo]")
    rows = [line.strip("| ").split(" | ") for line in results.splitlines() if line.startswith("| [emo-tiny]")]
    assert [row[2:4] for row in rows] == [["accuracy", "0.882"], ["top_5_accuracy", "1.0000"], ["mean_iou", "0.432"]]
    link = "[emo-tiny](../model_cards/emo-tiny/README.md)"
    assert rows[0] == [link, "CIFAR-10 (JPEG), test", "accuracy", "0.882", "2,500", "3", "118 minutes"]
    assert "- emo-tiny: The weights after the last step; no checkpoint was chosen by its score." in results


def test_headline_is_the_chosen_model(project):
    for name in ("emo-1m-camvid", "emo-1m-cifar10"):
        add_model(project, name)

    assert "(model_cards/emo-1m-cifar10/README.md)" in render(project)[0]


def test_every_method_has_a_row(project, monkeypatch):
    planned = Method("planned_net", "Planned", "2301.00002", "Nothing yet.", ("image-classification",), "planned_net")
    monkeypatch.setitem(generator.METHODS, planned.name, planned)
    add_claim(project)

    readme, _ = render(project)

    assert find_row(readme, "[planned_net]")[3] == "planned"
    assert len(re.findall(r"^\| \[\w+\]\(", readme, re.MULTILINE)) == len(generator.METHODS)


def test_what_was_not_measured_is_named(project):
    assert render(project)[1].count(generator.NOT_MEASURED) == 4
    assert render_benchmarks(project).count(generator.NOT_MEASURED) == 1


def test_bar_in_a_cell_does_not_end_it():
    assert generator.format_table({"a": str, "never filled": lambda row: ""}, ["x|y"]) == "| a |\n| --- |\n| x\\|y |"


# Bad sources


@pytest.mark.parametrize("add", [add_claim, add_speed], ids=["comparison", "speed"])
def test_broken_json_is_named(project, add):
    path = add(project)
    path.write_text(path.read_text()[:-5])

    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} must be a JSON file; .*Is it truncated"):
        generator.generate(project)


@pytest.mark.parametrize("name", ["evaluation.json", "train_log.jsonl"])
def test_broken_json_of_a_model_is_named(project, name):
    path = add_model(project) / name
    path.write_text(path.read_text()[:-5])

    with pytest.raises(ValueError, match=rf"emo-tiny.*{re.escape(name)}|{re.escape(name)}.*emo-tiny"):
        generator.generate(project)


def test_claim_that_its_runs_do_not_give_is_refused(project):
    path = add_claim(project)
    path.write_text(path.read_text().replace("does not hold", "holds"))

    with pytest.raises(ValueError, match=r"`verdict` in comparison 0 of .*emo\.json must be 'does not hold'"):
        generator.generate(project)


def test_ratio_upside_down_is_refused(project):
    add_speed(project, ratio=0.667)

    with pytest.raises(ValueError, match=r"`ratio` in row 0 of .*emo\.json must be 1\.\d+, .*; got 0\.667"):
        generator.generate(project)


@pytest.mark.parametrize(
    "readme",
    [README.replace("generated: methods", "generated: method"), README + README],
    ids=["misspelled block", "block twice"],
)
def test_readme_with_other_blocks_is_refused(project, readme):
    (project / "README.md").write_text(readme)

    with pytest.raises(ValueError, match=r"README\.md must have one generated block for each of methods;"):
        generator.generate(project)


# The command


def test_check_finds_what_writing_repairs(project, capsys):
    add_claim(project)

    assert generator.main(["--check"], project) == 1
    assert (project / "README.md").read_text() == README
    assert generator.main([], project) == 0
    assert "\ntext\n" in (project / "README.md").read_text()
    assert generator.main(["--check"], project) == 0
    assert sorted(path.name for path in project.iterdir()) == ["README.md", "docs"]
    assert capsys.readouterr().out.splitlines()[:2] == [
        "README.md is outdated; run `make docs`",
        "docs/results.md is outdated; run `make docs`",
    ]


def test_command_ends_with_a_clear_line(project, capsys):
    write(project / "docs/results/emo.json", "{")

    with pytest.raises(SystemExit) as ended:
        generator.main([], project)

    assert ended.value.code == 2
    assert re.match(r"error: .*emo\.json must be a JSON file; .*\n$", capsys.readouterr().err)
    assert (project / "README.md").read_text() == README


# This project's own documents


def test_documents_are_up_to_date():
    assert generator.find_outdated(generator.generate(PROJECT)) == [], "run `make docs`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))

    local = [link for link in links if "://" not in link]

    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("seeds", "text"),
    [([0, 1, 2], "0, 1, 2"), (list(range(3, 20)), "3 to 19"), ([0, 1, 2, 3, 4, 6], "0, 1, 2, 3, 4, 6"), ([], "")],
)
def test_many_successive_seeds_are_named_by_their_ends(seeds, text):
    assert generator.format_seeds(seeds) == text
