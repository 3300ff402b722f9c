"""The model card: scores from the evaluation, texts from the recipe, license from the catalog; and nothing else."""

import dataclasses
import re
import shutil

import pytest
from huggingface_hub import ModelCard

from decahub.hub import CardArguments, check_card, refresh_model_card, render_model_card
from decahub.hub.folder import find_checksum_problems, read_json, read_recipe, set_recipe_value, write_json, write_yaml
from decahub.hub.model_card import format_minutes, format_score
from tests.hub.builders import EVALUATION, RECIPE, build_image, build_model_folder, build_segmentation_folder


TEXTS = {name: text for name, text in RECIPE.items() if name.startswith("card_")}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    images = tmp_path_factory.mktemp("images") / "learning_curve.png"
    build_image(seed=1).save(images)
    return build_model_folder(tmp_path_factory.mktemp("folders") / "emo-tiny", images=[images])


@pytest.fixture
def folder(classifier, tmp_path):
    return shutil.copytree(classifier, tmp_path / "emo-tiny")


def change_recipe(folder, **changes):
    recipe = {**read_recipe(folder), **changes}
    write_yaml(folder / "recipe.yaml", {key: value for key, value in recipe.items() if value is not None})


def change_dataset(folder, name: str):
    dataset = {**EVALUATION["dataset"], "name": name}
    write_json(folder / "evaluation.json", {**EVALUATION, "dataset": dataset})


# Front matter


def test_front_matter_of_a_classifier(classifier):
    data = render_model_card(classifier).data

    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["emo", "arxiv:2301.01146"]
    assert data.datasets == ["uoft-cs/cifar10"]
    assert data.metrics == ["accuracy"]
    assert data.base_model is None


def test_front_matter_of_a_segmenter(tmp_path):
    data = render_model_card(build_segmentation_folder(tmp_path / "emo-tiny")).data

    assert data.pipeline_tag == "image-segmentation"
    assert data.metrics == ["mean_iou"]
    assert {result.task_type for result in data.eval_results} == {"image-segmentation"}


def test_model_index_holds_the_scores_of_the_evaluation_unrounded(folder):
    values = {"accuracy": 0.123456789, "top_2_accuracy": 0.987654321}
    scores = [{"metric": metric, "value": value, "n": 400} for metric, value in values.items()]
    write_json(folder / "evaluation.json", {**EVALUATION, "figures": scores})

    data = render_model_card(folder).data

    assert data.model_name == "emo-tiny"
    assert {result.metric_type: result.metric_value for result in data.eval_results} == values
    assert {(result.dataset_type, result.dataset_split) for result in data.eval_results} == {("cifar10", "test")}


@pytest.mark.parametrize(
    ("dataset", "license", "license_name"),
    [
        ("cifar10", "other", "cifar10-terms"),
        ("sign_digits", "apache-2.0", None),
        ("fashion_mnist", "mit", None),
        ("camvid", "cc-by-nc-4.0", None),
    ],
)
def test_license_follows_the_data(folder, dataset, license, license_name):
    change_dataset(folder, dataset)

    data = render_model_card(folder).data

    assert data.license == license
    assert data.license_name == license_name


def test_own_data_needs_a_license(folder):
    change_dataset(folder, "holiday-photos")

    with pytest.raises(ValueError, match="`card_license` must be given .* got none for 'holiday-photos'"):
        render_model_card(folder)


def test_own_data_with_a_license(folder):
    change_dataset(folder, "holiday-photos")
    change_recipe(folder, card_license="cc0-1.0", card_base_model="someone/emo-base")

    data = render_model_card(folder).data

    assert data.license == "cc0-1.0"
    assert data.datasets is None
    assert data.base_model == "someone/emo-base"


# Text


def test_card_holds_every_text_of_the_recipe(classifier):
    text = str(render_model_card(classifier))

    assert [name for name, words in TEXTS.items() if words not in text] == []


def test_table_rounds_and_says_how_many_rows_of_which_split(classifier):
    text = str(render_model_card(classifier))

    assert "| accuracy | 0.7525 | 400 | CIFAR-10 (JPEG) | test |" in text
    assert "| top_2_accuracy | 0.9 | 400 | CIFAR-10 (JPEG) | test |" in text


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"ema_decay": None}, "The weights after the last step; no checkpoint was chosen by its score."),
        ({"ema_decay": 0.99}, "The exponential moving average (decay 0.99) of the weights after the last step;"),
        (
            {"ema_decay": None, "metric_for_best_model": "mean_iou"},
            "The weights with the best `mean_iou` of the evaluations during training.",
        ),
        (
            {"ema_decay": None, "metric_for_best_model": "accuracy", "eval_split": "test", "monitor_split": "val"},
            "The weights with the best `accuracy` of the evaluations during training on the val split.",
        ),
        (
            {"ema_decay": None, "metric_for_best_model": "accuracy", "eval_split": "test"},
            "The weights with the best `accuracy` of the evaluations during training on the test split.",
        ),
        ({"card_checkpoint": "The best of three seeds on the validation split."}, "The best of three seeds on the"),
    ],
    ids=["last", "average", "best", "best on validation", "best on test", "written"],
)
def test_card_says_how_the_weights_were_chosen(folder, recipe, sentence):
    change_recipe(folder, **recipe)

    assert sentence in str(render_model_card(folder))


def test_training_is_told_in_steps_minutes_hardware_and_versions(folder):
    summary = (
        '{"step": 12000, "epoch": 2.5, "training_minutes": 118.4, "hardware": "a big one", "versions": {"torch": "9"}}'
    )
    (folder / "train_log.jsonl").write_text(f'{{"step": 1}}\n{summary}\n')

    text = str(render_model_card(folder))

    assert "Trained for 12,000 steps (2.5 epochs), 118 minutes on a big one with torch 9." in text


def test_card_leaves_unknown_minutes_of_the_evaluation_out(folder):
    write_json(folder / "evaluation.json", {key: value for key, value in EVALUATION.items() if key != "minutes"})

    assert f" Measured on {EVALUATION['hardware']} with" in str(render_model_card(folder))


def test_card_without_a_log_tells_nothing_of_training(folder):
    (folder / "train_log.jsonl").unlink()

    assert "Trained for" not in str(render_model_card(folder))


def test_recipe_is_shown_without_texts_and_unset_values(classifier):
    block = re.search(r"```yaml\n(.*?)\n```", str(render_model_card(classifier)), re.DOTALL)

    assert block[1] == "dataset: cifar10\nlearning_rate: 0.002\nema_decay: 0.99"


def test_images_are_shown(classifier):
    assert "![learning curve](learning_curve.png)" in str(render_model_card(classifier))


def test_paper_and_data_are_cited(classifier):
    text = str(render_model_card(classifier))

    assert "url = {https://arxiv.org/abs/2301.01146}" in text
    assert "A. Krizhevsky" in text


def test_use_of_a_folder_without_code_trusts_nothing(classifier):
    text = str(render_model_card(classifier))

    assert "trust_remote_code" not in text
    assert "`emo-tiny` stands for the path of this folder" in text


def test_use_of_a_published_repository_shows_both_ways(folder):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "auto_map": {"AutoConfig": "configuration_emo.EmoConfig"}})
    set_recipe_value(folder, "card_repo_id", "someone/emo-tiny")

    text = str(render_model_card(folder))

    assert text.index('"someone/emo-tiny", trust_remote_code=False') < text.index(
        '"someone/emo-tiny", trust_remote_code=True'
    )


@pytest.mark.parametrize("file", [{}, {"file": "base.gguf", "sha256": "0" * 64}])
def test_a_folder_of_adapters_says_what_they_stand_on(folder, file):
    before = str(render_model_card(folder))
    write_json(folder / "config.json", read_json(folder / "config.json") | {"adapter_base": {"repo_id": "a/b"} | file})

    card = str(render_model_card(folder))

    assert "adapters alone" not in before
    assert "This folder holds adapters alone. They stand on a/b" in card
    assert ("the file `base.gguf` with the sha256" in card) is bool(file)


def test_the_lines_of_the_card_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    build_image(seed=4).save("image.png")
    code = re.search(r"```python\n(.*?)```", str(render_model_card(folder)), re.DOTALL)[1]

    exec(code, {})

    assert len(code.splitlines()) == 5
    assert "'label': 'cat'" in capsys.readouterr().out


def test_same_files_give_the_same_card(classifier, tmp_path):
    copy = shutil.copytree(classifier, tmp_path / "elsewhere")

    assert str(render_model_card(copy)) == (classifier / "README.md").read_text()


def test_refreshing_takes_up_a_changed_text_and_keeps_the_checksums_true(folder):
    set_recipe_value(folder, "card_limits", "Foxes at night.")

    refresh_model_card(folder)

    assert "Foxes at night." in (folder / "README.md").read_text()
    assert find_checksum_problems(folder) == []


@pytest.mark.parametrize(
    ("value", "text"), [(0.88123, "0.8812"), (0.9, "0.9"), (12.3456, "12.35"), (1.0, "1"), (0.00012345, "0.0001234")]
)
def test_scores_have_four_digits(value, text):
    assert format_score(value) == text


@pytest.mark.parametrize(("minutes", "text"), [(0.42, "0.4 minutes"), (9.96, "10.0 minutes"), (118.4, "118 minutes")])
def test_minutes_are_rounded_to_what_matters(minutes, text):
    assert format_minutes(minutes) == text


# Recipes


def test_comments_of_a_recipe_survive_a_new_value(tmp_path):
    (tmp_path / "recipe.yaml").write_text("# by hand\ncard_title: old\nseed: 1  # lucky\n")

    set_recipe_value(tmp_path, "card_title", "new: title")
    set_recipe_value(tmp_path, "card_repo_id", "someone/new")

    text = (tmp_path / "recipe.yaml").read_text()
    assert text == "# by hand\ncard_title: 'new: title'\nseed: 1  # lucky\ncard_repo_id: someone/new\n"


@pytest.mark.parametrize("name", ["card_title", "card_summary", "card_intended_use", "card_limits"])
def test_missing_text_is_named(folder, name):
    change_recipe(folder, **{name: None})

    with pytest.raises(ValueError, match=f"{name} is missing"):
        render_model_card(folder)


def test_empty_text_is_refused():
    with pytest.raises(ValueError, match="`card_limits` must be a text; got '  '"):
        CardArguments(**{**TEXTS, "card_limits": "  "})


def test_misspelled_text_is_refused(folder):
    change_recipe(folder, card_limit="None.")

    with pytest.raises(ValueError, match="must be among card_title, .*; got card_limit"):
        render_model_card(folder)


def test_malformed_repository_is_refused():
    with pytest.raises(ValueError, match="someone//emo"):
        CardArguments(**TEXTS, card_repo_id="someone//emo")


def test_arguments_of_a_script_check_both_parts():
    @dataclasses.dataclass
    class Loop:
        seed: int = 0

        def __post_init__(self):
            if self.seed < 0:
                raise ValueError("`seed` must not be negative.")

    @dataclasses.dataclass(kw_only=True)
    class Arguments(CardArguments, Loop):
        pass

    with pytest.raises(ValueError, match="`seed`"):
        Arguments(**TEXTS, seed=-1)
    with pytest.raises(ValueError, match="`card_title`"):
        Arguments(**{**TEXTS, "card_title": ""})


@pytest.mark.parametrize("name", ["config.json", "recipe.yaml", "evaluation.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()

    with pytest.raises(FileNotFoundError, match=f"must hold {name}"):
        render_model_card(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[1]", "must hold a JSON object; got list"),
        ("config.json", '{"model_type": "vit"}', "`model_type` in config.json must be one of emo.*; got 'vit'"),
        ("evaluation.json", "{", "must be JSON"),
        (
            "evaluation.json",
            '{"task": "image-classification"}',
            "dataset, figures, command, hardware, versions is missing",
        ),
        ("recipe.yaml", "- a list", "must hold a mapping; got list"),
        ("recipe.yaml", "a: [", "must be YAML"),
    ],
)
def test_malformed_file_is_named(folder, name, content, message):
    (folder / name).write_text(content)

    with pytest.raises(ValueError, match=message):
        render_model_card(folder)


# The check before an upload


GOOD_CARD = """---
license: mit
library_name: transformers
tags: [emo]
model-index:
- name: emo-tiny
  results:
  - task: {type: image-classification}
    dataset: {type: cifar10, name: CIFAR-10}
    metrics: [{type: accuracy, value: 0.5}]
---
# emo-tiny
"""


def test_good_card_passes():
    check_card(GOOD_CARD)

    assert ModelCard(GOOD_CARD).data.eval_results[0].metric_value == 0.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\nlicense", "license", "must begin with YAML between two lines of '---'"),
        ("tags: [emo]", "tags: [emo", "must be YAML"),
        ("license: mit\n", "", "license is missing"),
        ("tags: [emo]\n", "", "tags is missing"),
        ("license: mit", "license: other", "`license_name` .* must be given"),
        ("[emo]", "[emo, 1]", "`tags` .* must be texts"),
        ("task:", "tasks:", "model_index"),
    ],
)
def test_bad_card_is_refused(old, new, message):
    with pytest.raises(ValueError, match=message):
        check_card(GOOD_CARD.replace(old, new, 1))
