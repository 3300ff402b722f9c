"""`verify`: every kind of error in a folder is found by the check that is there for it."""

import contextlib
import json
import random
import re
import shutil
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from decahub.data import DATASETS
from decahub.evaluation import evaluate_folder
from decahub.hub import ModelFolder, verify
from decahub.hub import verification as module
from decahub.hub.files import read_json, write_json
from decahub.tasks import get_task
from tests.hub.builders import EVALUATION, build_cifar10, build_model_folder, label_maps, refresh, tiny_model


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("DECAHUB_DATA_DIR", raising=False)


@pytest.fixture
def folder(classifier_folder, tmp_path):
    return shutil.copytree(classifier_folder, tmp_path / "emo-tiny")


def measure(monkeypatch, value: float, num_rows: int = 400, other: float = 0.9):
    """Makes the evaluation return scores."""
    scores = [{"metric": "accuracy", "value": value, "n": num_rows}]
    scores.append({"metric": "top_2_accuracy", "value": other, "n": num_rows})
    evaluation = {**EVALUATION, "dataset": {**EVALUATION["dataset"], "num_rows": num_rows}, "figures": scores}
    monkeypatch.setattr(module, "evaluate_folder", lambda folder, data_dir, limit: evaluation)


def get_failed(report) -> dict[str, str]:
    return {check.name: check.detail for check in report.checks if check.outcome == "failed"}


@pytest.mark.parametrize("names", [{"0": "cat", "1": "dog"}, {}, None])
def test_the_classes_of_a_model_that_has_some_are_counted(tmp_path, names):
    """Language models, say, have none, and their configurations do not name any."""
    config = {"model_type": "llama"} | ({} if names is None else {"id2label": names})
    write_json(tmp_path / "config.json", config)

    assert module.check_configuration(ModelFolder(tmp_path)) == "LlamaConfig" + (", 2 labels" if names else "")


# Without the data


def test_without_the_data_nothing_fails_and_nothing_is_measured(folder):
    report = verify(folder)

    assert report.exit_code == 3
    assert report.checks[-1].outcome == "not done"
    assert "not re-evaluated: pass `--data-dir` or set DECAHUB_DATA_DIR" in report.checks[-1].detail


def test_a_data_directory_without_the_set_is_named(folder, tmp_path):
    report = verify(folder, data_dir=tmp_path / "nowhere")

    assert report.exit_code == 3
    assert "not re-evaluated" in report.checks[-1].detail
    assert "nowhere" in report.checks[-1].detail


def test_refuses_what_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a model folder; '.*nothing' is not a folder"):
        verify(tmp_path / "nothing")


# Scores


def test_measures_again_on_real_files(tmp_path):
    names = DATASETS["cifar10"].label_names
    data_dir = build_cifar10(tmp_path / "data")
    folder = build_model_folder(tmp_path / "emo-tiny", tiny_model(**label_maps(names)))
    write_json(folder / "evaluation.json", evaluate_folder(folder, data_dir=data_dir, show_progress=False))
    refresh(folder)

    report = verify(folder, data_dir=data_dir)

    assert report.exit_code == 0, report
    assert [check.name for check in report.checks[-2:]] == ["accuracy", "top_5_accuracy"]


@pytest.mark.parametrize(("limit", "measured"), [(None, None), (100, 100), (1000, None)])
def test_measures_all_rows_unless_a_sample_is_asked_for(folder, tmp_path, monkeypatch, limit, measured):
    limits = []

    def remember(folder, data_dir, limit):
        limits.append(limit)
        return EVALUATION

    monkeypatch.setattr(module, "evaluate_folder", remember)
    verify(folder, data_dir=tmp_path, limit=limit)

    assert limits == [measured]


@pytest.mark.parametrize(("value", "exit_code"), [(0.7525, 0), (0.754, 0), (0.751, 0), (0.755, 1), (0.75, 1)])
def test_compares_scores_within_the_tolerance(folder, tmp_path, monkeypatch, value, exit_code):
    measure(monkeypatch, value)

    assert verify(folder, data_dir=tmp_path).exit_code == exit_code


def test_a_score_that_is_not_measured_fails(folder, tmp_path, monkeypatch):
    measure(monkeypatch, 0.7525, other=float("nan"))

    assert list(get_failed(verify(folder, data_dir=tmp_path))) == ["top_2_accuracy"]


@pytest.mark.parametrize(("value", "exit_code"), [(0.59, 3), (0.57, 1)])
def test_a_sample_is_compared_within_its_own_error_and_says_so(folder, tmp_path, monkeypatch, value, exit_code):
    measure(monkeypatch, value, other=0.9, num_rows=100)  # 4 standard errors of a share of 0.7525: 0.1726

    report = verify(folder, data_dir=tmp_path, limit=100)

    assert report.exit_code == exit_code
    assert report.checks[-1].detail == "a sample of 100 of 400 examples; without `limit` all of them are measured"


def test_another_number_of_examples_fails(folder, tmp_path, monkeypatch):
    measure(monkeypatch, 0.7525, num_rows=399)

    report = verify(folder, data_dir=tmp_path)

    assert get_failed(report) == {"examples": "published 400, measured 399: the data or the folder was changed"}


def test_a_sample_that_the_recipe_names_is_measured_again(folder, tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(module, "evaluate_folder", lambda folder, data_dir, limit: limits.append(limit) or EVALUATION)
    ModelFolder(folder).set_recipe_value("max_eval_samples", 400)
    refresh(folder)

    assert verify(folder, data_dir=tmp_path).exit_code == 0
    assert limits == [400]


def test_a_sample_of_nothing_is_refused(folder):
    with pytest.raises(ValueError, match="`limit` must be at least 1; got 0"):
        verify(folder, limit=0)


def test_a_limit_above_the_number_of_rows_widens_nothing(folder, tmp_path, monkeypatch):
    measure(monkeypatch, 0.7)

    assert verify(folder, data_dir=tmp_path, limit=10_000).exit_code == 1


def test_a_small_sample_cannot_tell(folder, tmp_path, monkeypatch):
    measure(monkeypatch, 0.99, other=0.9, num_rows=4)  # 4 standard errors of a share of 0.7525: 0.86

    report = verify(folder, data_dir=tmp_path, limit=4)

    assert report.exit_code == 3
    assert [check.outcome for check in report.checks[-3:]] == ["not done"] * 3
    assert "a sample of 4 is too small to tell" in report.checks[-2].detail


@pytest.mark.parametrize(
    ("changes", "check", "detail"),
    [
        ({"dataset": {**EVALUATION["dataset"], "num_rows": 401}}, "examples", "published 401, measured 400"),
        ({"dataset": {**EVALUATION["dataset"], "num_rows": 10}}, "examples", "published 10, measured 400"),
        ({"dataset": {**EVALUATION["dataset"], "num_rows": 0}}, "card scores", "must be at least 1; got 0"),
        ({"figures": EVALUATION["figures"][:1]}, "top_2_accuracy", "measured 0.9000, not listed in evaluation.json"),
        (
            {"figures": [{"metric": "accuracy", "value": 0.7525, "n": 430}]},
            "accuracy",
            "published over 430 examples, measured over 400",
        ),
        ({"figures": [{"metric": "f1", "value": 0.99, "n": 400}]}, "f1", "not among the measured scores"),
    ],
)
def test_claims_that_the_data_does_not_support_fail(folder, tmp_path, monkeypatch, changes, check, detail):
    measure(monkeypatch, 0.7525)
    write_json(folder / "evaluation.json", {**EVALUATION, **changes})
    with contextlib.suppress(ValueError):  # no card is made of no rows
        refresh(folder)
    ModelFolder(folder).write_checksums()

    assert detail in get_failed(verify(folder, data_dir=tmp_path))[check]


# Errors of the folder


@pytest.mark.parametrize("name", ["config.json", "evaluation.json", "preprocessor_config.json", "recipe.yaml"])
def test_never_raises_whatever_the_files_hold(folder, name):
    original = (folder / name).read_bytes()
    generator = random.Random(name)
    content: Any = None if name == "recipe.yaml" else json.loads(original)
    oddities = [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"a": ' * 20_000, b"9" * 5000, b"{" + b" " * 100]
    for _ in range(6):
        broken = bytearray(original)
        broken[generator.randrange(len(broken))] = generator.randrange(256)
        oddities.append(bytes(broken[: generator.randrange(1, len(broken))]))
    for key in content or ():
        odd = generator.choice([None, [], {}, -1, 2**70, "x\n", True, [[1]], {"a": None}])
        oddities.append(json.dumps({**content, key: odd}).encode())
    for oddity in oddities:
        (folder / name).write_bytes(oddity)

        report = verify(folder)

        assert report.exit_code == 1, oddity
        assert all("\n" not in check.detail for check in report.checks)


@pytest.mark.parametrize("content", ["[" * 200_000, "[]", "{}", '{"image_processor_type": 5}', "null"])
def test_an_odd_processor_has_a_line_of_its_own(folder, content):
    (folder / "preprocessor_config.json").write_text(content)
    ModelFolder(folder).write_checksums()

    assert list(get_failed(verify(folder))) == ["processor"]
    with pytest.raises((ValueError, OSError), match="emo-tiny"):
        get_task("image-classification").load(folder)


PLANTED = "import pathlib\n\npathlib.Path({path!r}).write_text('ran')\n\nclass Planted:\n    pass\n"


@pytest.mark.parametrize(
    ("name", "auto_map"),
    [
        ("config.json", {"AutoConfig": "planted.Planted", "AutoModelForImageClassification": "planted.Planted"}),
        ("preprocessor_config.json", {"AutoImageProcessor": ["planted.Planted", "planted.Planted"]}),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_code_of_a_folder_never_runs(tmp_path, monkeypatch, name, auto_map, known):
    data_dir = build_cifar10(tmp_path / "data")
    folder = build_model_folder(tmp_path / "emo-tiny", tiny_model(**label_maps(DATASETS["cifar10"].label_names)))
    content = read_json(folder / name) | {"auto_map": auto_map}
    if not known:
        content |= {"model_type": "stranger"} if name == "config.json" else {"image_processor_type": "Stranger"}
    write_json(folder / name, content)
    (folder / "planted.py").write_text(PLANTED.format(path=str(tmp_path / "ran")))
    ModelFolder(folder).write_checksums()
    monkeypatch.setattr("builtins.input", lambda *arguments: "y")

    verify(folder, data_dir=data_dir)
    with contextlib.suppress(ValueError, OSError):
        evaluate_folder(folder, data_dir=data_dir, show_progress=False)

    assert not (tmp_path / "ran").exists()


def flip_a_byte_of_the_weights(folder):
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)


def add_a_file(folder):
    (folder / "stray.md").write_text("stray")


def edit_the_card(folder):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("It never learned anything.", "None."))


def edit_a_score_of_the_card(folder):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("value: 0.7525", "value: 0.9525"))


def truncate_the_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def add_a_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.scale"] = tensors["classifier.bias"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def contradict_the_config(folder):
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "depths": [1, 1, 2]})


def break_the_config(folder):
    (folder / "config.json").write_text('{"model_type": "emo", ')


def truncate_the_evaluation(folder):
    (folder / "evaluation.json").write_text(json.dumps({"task": "image-classification"}))


@pytest.mark.parametrize(
    ("spoil", "check", "detail"),
    [
        (flip_a_byte_of_the_weights, "files", "model.safetensors does not match the hash"),
        (add_a_file, "files", "stray.md is not listed"),
        (edit_the_card, "card text", "`decahub card` renders it anew"),
        (edit_a_score_of_the_card, "card scores", "0.9525"),
        (truncate_the_weights, "weights", "incomplete metadata"),
        (drop_a_tensor, "weights", "1 missing tensors, the first is classifier.bias"),
        (add_a_tensor, "weights", "1 unexpected tensors, the first is classifier.scale"),
        (contradict_the_config, "configuration", "depths"),
        (break_the_config, "configuration", "config.json"),
        (truncate_the_evaluation, "card scores", "evaluation.json in .* must hold"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_finds_the_problem_even_with_fresh_checksums(folder, spoil, check, detail):
    spoil(folder)
    if check != "files":
        ModelFolder(folder).write_checksums()

    report = verify(folder, data_dir=folder)

    assert report.exit_code == 1
    assert check in get_failed(report)
    assert re.search(detail, get_failed(report)[check])
    assert report.checks[-1].detail == "not re-evaluated, because a check before failed"
