"""Cards of graph models: how they are used, what is counted, results over all splits, who is cited."""

import json
import re
import shutil
import statistics

import pytest

from decahub.hub import ModelFolder, check_card
from decahub.hub.files import write_json
from decahub.registry import METHODS
from tests.hub.builders import GRAPH_NODES, build_graph_folder, refresh


VALUES = [0.61, 0.7325, 0.55]


@pytest.fixture(scope="module")
def splits_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "splits.json"
    write_json(path, build_splits())
    return path


def build_splits(**changes):
    rows = [{"split": split, "value": value, "seeds": [0, 1, 2], "spread": 0.02} for split, value in enumerate(VALUES)]
    spread = statistics.stdev(VALUES)
    results = {"metric": "accuracy", "rows": rows, "mean": statistics.fmean(VALUES), "spread": spread}
    return {**results, "command": "python examples/raw_gnn/reproduce.py", **changes}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, splits_file):
    return build_graph_folder(tmp_path_factory.mktemp("folders") / "raw-gnn-tiny", extra_files=[splits_file])


@pytest.fixture
def folder(classifier, tmp_path):
    return shutil.copytree(classifier, tmp_path / "raw-gnn-tiny")


def test_front_matter_has_tags_in_place_of_a_pipeline_that_does_not_exist(classifier):
    card = ModelFolder(classifier).render_card()

    assert card.data.pipeline_tag is None
    assert card.data.tags == ["raw_gnn", "node-classification", "graph-ml", "arxiv:2206.13953"]
    assert {result.task_type for result in card.data.eval_results} == {"node-classification"}
    assert {result.dataset_split for result in card.data.eval_results} == {"test/1"}
    check_card(str(card))


def test_scores_tell_how_many_nodes_of_which_split(classifier):
    text = str(ModelFolder(classifier).render_card())

    assert re.search(rf"\| accuracy \| [\d.]+ \| {GRAPH_NODES // 3} \| Texas web pages \(WebKB\) \| test/1 \|", text)


def read_code(folder):
    return re.findall(r"```python\n(.*?)```", str(ModelFolder(folder).render_card()), re.DOTALL)


def test_the_lines_of_the_card_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    (code,) = read_code(folder)

    exec(code, {})

    assert "import decahub" in code
    assert "torch_geometric" in code
    assert "'node': 3" in capsys.readouterr().out


def test_card_names_the_graph_of_the_scores(classifier):
    assert 'load_dataset("texas")["graph"][0]' in str(ModelFolder(classifier).render_card())


def test_results_over_all_splits_are_a_table(classifier):
    text = str(ModelFolder(classifier).render_card())

    section = text[text.index("## Results over all splits") : text.index("## Use")]
    assert "accuracy 0.6308 ± 0.09302 (mean and" in section
    assert "| split | value | seeds | spread |\n| --- | --- | --- | --- |\n| 0 | 0.61 | 0, 1, 2 | 0.02 |\n" in section
    assert "| 1 | 0.7325 | 0, 1, 2 | 0.02 |" in section
    assert "python examples/raw_gnn/reproduce.py" in section


def test_results_over_all_splits_are_among_the_checksums(classifier):
    assert " splits.json" in (classifier / "SHA256SUMS").read_text()
    assert ModelFolder(classifier).find_problems() == []


def test_results_can_be_added_to_a_finished_folder(tmp_path):
    folder = build_graph_folder(tmp_path / "raw-gnn-tiny")
    assert "Results over all splits" not in (folder / "README.md").read_text()

    write_json(folder / "splits.json", build_splits())
    refresh(folder)

    assert "Results over all splits" in (folder / "README.md").read_text()
    assert ModelFolder(folder).find_problems() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": 0.7}, r"`mean` in splits.json must be that of its rows, 0.630833; got 0.7"),
        ({"spread": 0.0}, r"`spread` in splits.json must be that of its rows, 0.093017; got 0.0"),
        ({"rows": []}, r"`rows` in splits.json must be a list of objects, one for each split; got \[\]"),
        (
            {"rows": [{"split": 0}], "mean": 0},
            "must hold split and value and the same keys in each; got split in row 0",
        ),
        (
            {"rows": [{"split": 0, "value": 1.0}, {"split": 1, "value": 1.0, "n": 3}]},
            "got split, value, n in row 1",
        ),
    ],
)
def test_results_that_do_not_hold_together_are_refused(folder, changes, message):
    write_json(folder / "splits.json", build_splits(**changes))

    with pytest.raises(ValueError, match=message):
        ModelFolder(folder).render_card()


def test_results_without_a_command_are_refused(folder):
    results = build_splits()
    del results["command"]
    write_json(folder / "splits.json", results)

    with pytest.raises(ValueError, match="command is missing"):
        ModelFolder(folder).render_card()


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "must not replace files of the model"), ("notes.txt", "must be JSON files; got .*notes.txt")],
)
def test_extra_files_are_json_under_names_of_their_own(tmp_path, name, message):
    extra = tmp_path / "extra" / name
    extra.parent.mkdir()
    extra.write_text("{}")

    with pytest.raises(ValueError, match=message):
        build_graph_folder(tmp_path / "raw-gnn-tiny", extra_files=[extra])


def test_authors_and_year_are_cited(classifier):
    text = str(ModelFolder(classifier).render_card())

    assert "author = {Di Jin and Rui Wang and " in text
    assert "year = {2022}" in text
    assert "howpublished = {IJCAI 2022}" in text


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_cited(name):
    citation = METHODS[name].citation

    assert 2020 < citation.year < 2027
    assert " and " in citation.authors
    assert citation.venue is None or len(citation.venue) > 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 2', r"train_log\.jsonl in .*, line 2 must be JSON; "),
        ("[3]", "line 2 must hold a JSON object; got list"),
    ],
)
def test_broken_line_of_the_log_is_named(tmp_path, line, message):
    (tmp_path / "train_log.jsonl").write_text(f"{json.dumps({'step': 1})}\n{line}\n")

    with pytest.raises(ValueError, match=message):
        getattr(ModelFolder(tmp_path), "train_log")  # noqa: B009
