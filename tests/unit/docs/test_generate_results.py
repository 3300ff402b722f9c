"""The generated tables: statistics of the right kind, scores rounded to their spread, bad sources refused by name."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml


PROJECT = Path(__file__).parents[3]
DOCUMENTS = [PROJECT / "README.md", *sorted(PROJECT.glob("docs/**/*.md"))]

# Mean 4, median 3, maximum 9: no two of them can be taken for each other. The sample deviation is sqrt(36 / 3).
RUNS = [1.0, 3.0, 3.0, 9.0]
ORIGIN = {"command": "python run.py", "hardware": "a small computer", "versions": {"python": "3.11"}}
ROW = {
    "model": "small",
    "dataset": "cifar10",
    "metric": "top-1 accuracy (%)",
    "value": 4.0,
    "spread": 12**0.5,
    "n": 4,
    "seeds": [0, 1, 2, 5],
    "runs": RUNS,
    "paper": 71.5,
    "paper_source": "table 2",
    "minutes": 96.4,
    "num_parameters": 1200300,
}
CLAIM = {"method": "emo", "claim": "small is more accurate", "verdict": "does not hold here: gap -2", "rows": [ROW]}
SPEED = {
    "method": "emo",
    "case": "inference batch 1",
    "ours_seconds": 0.02,
    "reference_seconds": 0.03,
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
<!-- generated: results -->
<!-- /generated -->
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


def add_claim(project: Path, **changes) -> Path:
    return write(project / "docs/results/emo.json", {**CLAIM, **ORIGIN, "rows": [{**ROW, **changes}]})


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
    readme, results = generator.generate(project).values()
    return readme, results


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


def test_comparison_shows_mean_and_sample_deviation(project):
    add_claim(project)

    cells = find_row(render(project)[1], "small")

    columns = "small", "cifar10", "top-1 accuracy (%)", "4 ± 3", "4", "0, 1, 2, 5", "1,200,300", "96 minutes"
    assert cells == [*columns, "71.5 (table 2)"]


def test_claim_that_does_not_hold_is_a_normal_row(project):
    add_claim(project)

    readme, results = render(project)

    assert "- emo: small is more accurate: **does not hold here: gap -2**." in readme
    assert "### emo: small is more accurate\n\n**Does not hold here: gap -2.**" in results


def test_speed_is_a_ratio_with_its_quartiles(project):
    add_speed(project)

    cells = find_row(render(project)[1], "emo")

    assert cells == ["emo", "inference batch 1", "1.5 (1.4 to 1.6)", "7", "2"]


def test_weights_are_rounded_to_the_error_of_a_share(project):
    add_model(project)

    readme, results = render(project)

    link = "[emo-tiny](model_cards/emo-tiny/README.md)"
    data = ["CIFAR-10 (JPEG), test"]
    rest = ["2,500", "3", "118 minutes"]
    # The standard error of a share of 0.88 of 2,500 rows is 0.006.
    assert find_row(readme, "[emo-tiny]") == [link, *data, "accuracy", "0.882", *rest]
    rows = [line.strip("| ").split(" | ") for line in results.splitlines() if line.startswith("| [emo-tiny]")]
    assert [row[2:4] for row in rows] == [["accuracy", "0.882"], ["top_5_accuracy", "1.0000"], ["mean_iou", "0.432"]]
    assert rows[0][0] == "[emo-tiny](../model_cards/emo-tiny/README.md)"
    assert "- emo-tiny: The weights after the last step; no checkpoint was chosen by its score." in results


def test_every_method_has_a_row(project):
    readme, _ = render(project)

    assert find_row(readme, "[emo]")[-1] == "ready"
    assert find_row(readme, "cmt")[-1] == "to come"
    assert len(re.findall(r"(?:ready|to come) \|$", readme, re.MULTILINE)) == 10


def test_what_was_not_measured_is_said(project):
    readme, results = render(project)

    assert f"<!-- generated: results -->\n\n{generator.NOTHING}\n\n<!-- /generated -->" in readme
    assert results.count(generator.NOTHING) == 3


def test_bar_in_a_cell_does_not_end_it():
    assert generator.format_table({"a": str, "never filled": lambda row: ""}, ["x|y"]) == "| a |\n| --- |\n| x\\|y |"


# Bad sources


@pytest.mark.parametrize("add", [add_claim, add_speed], ids=["comparison", "speed"])
def test_broken_json_is_named(project, add):
    path = add(project)
    path.write_text(path.read_text()[:-5])

    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} must be JSON; .*Is it truncated"):
        generator.generate(project)


@pytest.mark.parametrize("name", ["evaluation.json", "train_log.jsonl"])
def test_broken_json_of_a_model_is_named(project, name):
    path = add_model(project) / name
    path.write_text(path.read_text()[:-5])

    with pytest.raises(ValueError, match=rf"emo-tiny.*{re.escape(name)}|{re.escape(name)}.*emo-tiny"):
        generator.generate(project)


@pytest.mark.parametrize(
    ("add", "changes", "message"),
    [
        (add_claim, {"value": 3.0}, r"`value` in row 0 of .*emo\.json must be 4\.0, as `runs` give it; got 3\.0"),
        (add_claim, {"spread": 2.0}, r"`spread` in row 0 of .*emo\.json must be 3\.46"),
        (add_claim, {"spread": None}, r"`spread` in row 0 of .*emo\.json must be 3\.46.*got None"),
        (add_claim, {"n": 3}, r"`n` in row 0 of .*emo\.json must be 4.*got 3"),
        (add_claim, {"runs": []}, r"`runs` in row 0 of .*emo\.json must be a list that is not empty; got \[\]"),
        (
            add_speed,
            {"ratio": 0.667},
            r"`ratio` in row 0 of .*emo\.json must be 1\.\d+, reference by ours; got 0\.667",
        ),
    ],
    ids=["median for mean", "another deviation", "no deviation", "wrong count", "no runs", "ratio upside down"],
)
def test_score_that_its_runs_do_not_give_is_refused(project, add, changes, message):
    add(project, **changes)

    with pytest.raises(ValueError, match=message):
        generator.generate(project)


def test_missing_key_is_named(project):
    write(project / "docs/results/emo.json", {**CLAIM, **ORIGIN, "rows": [{"model": "small"}]})

    with pytest.raises(ValueError, match=r"row 0 of .*emo\.json must hold .*; dataset, metric, .* is missing"):
        generator.generate(project)


@pytest.mark.parametrize(
    "readme",
    [README.replace("generated: results", "generated: result"), README + README],
    ids=["misspelled block", "block twice"],
)
def test_readme_with_other_blocks_is_refused(project, readme):
    (project / "README.md").write_text(readme)

    with pytest.raises(ValueError, match=r"README\.md must have one generated block for each of methods, results"):
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
    assert re.match(r"error: .*emo\.json must be JSON; .*\n$", capsys.readouterr().err)
    assert (project / "README.md").read_text() == README


# This project's own documents


def test_documents_are_up_to_date():
    assert generator.find_outdated(generator.generate(PROJECT)) == [], "run `make docs`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))

    local = [link for link in links if "://" not in link]

    assert [link for link in local if not (document.parent / link).exists()] == []
