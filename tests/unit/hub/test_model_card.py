"""The model card: scores from the evaluation, texts from the recipe, license from the catalog; and nothing else."""

import dataclasses
import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard

from decahub.hub import CardArguments, ModelFolder, check_card
from decahub.hub.files import read_json, write_json, write_yaml
from decahub.hub.model_card import escape_text, format_minutes, format_score
from decahub.training import load_recipe
from tests.hub.builders import EVALUATION, RECIPE, build_image, build_model_folder, build_segmentation_folder, refresh


TEXTS = {name: text for name, text in RECIPE.items() if name.startswith("card_")}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    images = tmp_path_factory.mktemp("images") / "learning_curve.png"
    build_image(seed=1).save(images)
    return build_model_folder(tmp_path_factory.mktemp("folders") / "emo-tiny", images=[images])


@pytest.fixture
def folder(classifier, tmp_path):
    return shutil.copytree(classifier, tmp_path / "emo-tiny")


BILLION_LAUGHS = "".join(
    f"{name}: &{name} [{', '.join([f'*{former}'] * 9 if former else ['ha'] * 9)}]\n"
    for former, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
)


def change_recipe(folder, **changes):
    recipe = {**ModelFolder(folder).recipe, **changes}
    write_yaml(folder / "recipe.yaml", {key: value for key, value in recipe.items() if value is not None})


def change_dataset(folder, name: str):
    dataset = {**EVALUATION["dataset"], "name": name}
    write_json(folder / "evaluation.json", {**EVALUATION, "dataset": dataset})


# Front matter


def test_front_matter_of_a_classifier(classifier):
    data = ModelFolder(classifier).render_card().data

    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-classification"
    assert data.tags == ["emo", "arxiv:2301.01146"]
    assert data.datasets == ["uoft-cs/cifar10"]
    assert data.metrics == ["accuracy"]
    assert data.base_model is None


def test_front_matter_of_a_segmenter(tmp_path):
    data = ModelFolder(build_segmentation_folder(tmp_path / "emo-tiny")).render_card().data

    assert data.pipeline_tag == "image-segmentation"
    assert data.metrics == ["mean_iou"]
    assert {result.task_type for result in data.eval_results} == {"image-segmentation"}


def test_model_index_holds_the_scores_of_the_evaluation_unrounded(folder):
    values = {"accuracy": 0.123456789, "top_2_accuracy": 0.987654321}
    scores = [{"metric": metric, "value": value, "n": 400} for metric, value in values.items()]
    write_json(folder / "evaluation.json", {**EVALUATION, "figures": scores})

    data = ModelFolder(folder).render_card().data

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

    data = ModelFolder(folder).render_card().data

    assert data.license == license
    assert data.license_name == license_name


def test_own_data_needs_a_license(folder):
    change_dataset(folder, "holiday-photos")

    with pytest.raises(ValueError, match="`card_license` must be given .* got none for 'holiday-photos'"):
        ModelFolder(folder).render_card()


def test_own_data_with_a_license(folder):
    change_dataset(folder, "holiday-photos")
    change_recipe(folder, card_license="cc0-1.0", card_base_model="someone/emo-base")

    data = ModelFolder(folder).render_card().data

    assert data.license == "cc0-1.0"
    assert data.datasets is None
    assert data.base_model == "someone/emo-base"


# Text


def test_card_holds_every_text_of_the_recipe(classifier):
    text = str(ModelFolder(classifier).render_card())

    assert [name for name, words in TEXTS.items() if words not in text] == []


def test_table_rounds_and_says_how_many_rows_of_which_split(classifier):
    text = str(ModelFolder(classifier).render_card())

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

    assert sentence in str(ModelFolder(folder).render_card())


def test_training_is_told_in_steps_minutes_hardware_and_versions(folder):
    summary = (
        '{"step": 12000, "epoch": 2.5, "training_minutes": 118.4, "hardware": "a big one", "versions": {"torch": "9"}}'
    )
    (folder / "train_log.jsonl").write_text(f'{{"step": 1}}\n{summary}\n')

    text = str(ModelFolder(folder).render_card())

    assert "Trained for 12,000 steps (2.5 epochs), 118 minutes on a big one with torch 9." in text


def test_hardware_and_versions_are_listed_once(folder):
    origin = {name: EVALUATION[name] for name in ("hardware", "versions")}
    (folder / "train_log.jsonl").write_text(json.dumps({"training_minutes": 3.0, **origin}) + "\n")

    text = str(ModelFolder(folder).render_card())

    assert "Trained, 3.0 minutes on the same machine with the same versions as above." in text
    assert text.count(EVALUATION["hardware"]) == 1


def test_card_of_own_data_promises_no_second_measurement(folder):
    assert "`decahub verify` measures them again" in str(ModelFolder(folder).render_card())
    change_dataset(folder, "holiday-photos")
    change_recipe(folder, card_license="cc0-1.0")

    assert "measures them again" not in str(ModelFolder(folder).render_card())


def test_card_names_the_start_and_leaves_out_what_had_no_effect(folder):
    change_recipe(folder, pretrained="someone/emo-base", task="image-classification", decode_head="deeplabv3")
    change_recipe(folder, max_steps=7, num_train_epochs=3.0)

    text = str(ModelFolder(folder).render_card())

    assert "Fine-tuned from `someone/emo-base`." in text
    assert "max_steps: 7" in text
    assert "decode_head" not in text
    assert "num_train_epochs" not in text


def test_card_leaves_unknown_minutes_of_the_evaluation_out(folder):
    write_json(folder / "evaluation.json", {key: value for key, value in EVALUATION.items() if key != "minutes"})

    assert f" Measured on {EVALUATION['hardware']} with" in str(ModelFolder(folder).render_card())


def test_card_without_a_log_tells_nothing_of_training(folder):
    (folder / "train_log.jsonl").unlink()

    assert "Trained for" not in str(ModelFolder(folder).render_card())


def test_recipe_is_shown_without_texts_and_unset_values(classifier):
    block = re.search(r"```yaml\n(.*?)\n```", str(ModelFolder(classifier).render_card()), re.DOTALL)

    assert block[1] == "dataset: cifar10\nlearning_rate: 0.002\nema_decay: 0.99\noutput_dir: run"


def test_images_are_shown(classifier):
    assert "![learning curve](learning_curve.png)" in str(ModelFolder(classifier).render_card())


def test_paper_and_data_are_cited(classifier):
    text = str(ModelFolder(classifier).render_card())

    assert "url = {https://arxiv.org/abs/2301.01146}" in text
    assert "A. Krizhevsky" in text


def test_use_of_a_folder_without_code_trusts_nothing(classifier):
    text = str(ModelFolder(classifier).render_card())

    assert "trust_remote_code" not in text
    assert "`emo-tiny` stands for the path of this folder" in text


def test_use_of_a_published_repository_shows_both_ways(folder):
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "auto_map": {"AutoConfig": "configuration_emo.EmoConfig"}})
    ModelFolder(folder).set_recipe_value("card_repo_id", "someone/emo-tiny")

    text = str(ModelFolder(folder).render_card())

    assert text.index('"someone/emo-tiny", trust_remote_code=False') < text.index(
        '"someone/emo-tiny", trust_remote_code=True'
    )


@pytest.mark.parametrize("file", [{}, {"file": "base.gguf", "sha256": "0" * 64}])
def test_a_folder_of_adapters_says_what_they_stand_on(folder, file):
    before = str(ModelFolder(folder).render_card())
    write_json(folder / "config.json", read_json(folder / "config.json") | {"adapter_base": {"repo_id": "a/b"} | file})

    card = str(ModelFolder(folder).render_card())

    assert "adapters alone" not in before
    assert "This folder holds adapters alone. They stand on a/b" in card
    assert ("the file `base.gguf` with the sha256" in card) is bool(file)


def test_the_lines_of_the_card_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    build_image(seed=4).save("image.png")
    code = re.search(r"```python\n(.*?)```", str(ModelFolder(folder).render_card()), re.DOTALL)[1]

    exec(code, {})

    assert len(code.splitlines()) == 5
    assert "'label': 'cat'" in capsys.readouterr().out


def test_same_files_give_the_same_card(classifier, tmp_path):
    copy = shutil.copytree(classifier, tmp_path / "elsewhere")

    assert str(ModelFolder(copy).render_card()) == (classifier / "README.md").read_text()


def test_refreshing_takes_up_a_changed_text_and_keeps_the_checksums_true(folder):
    ModelFolder(folder).set_recipe_value("card_limits", "Foxes at night.")

    refresh(folder)

    assert "Foxes at night." in (folder / "README.md").read_text()
    assert ModelFolder(folder).find_problems() == []


@pytest.mark.parametrize(
    ("value", "text"), [(0.88123, "0.8812"), (0.9, "0.9"), (12.3456, "12.35"), (1.0, "1"), (0.00012345, "0.0001234")]
)
def test_scores_have_four_digits(value, text):
    assert format_score(value) == text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0.04, "a few seconds"), (0.42, "0.4 minutes"), (9.96, "10.0 minutes"), (118.4, "118 minutes")],
)
def test_minutes_are_rounded_to_what_matters(minutes, text):
    assert format_minutes(minutes) == text


def test_card_names_what_to_install(classifier):
    assert '```bash\npip install "decahub[emo]"\n```' in str(ModelFolder(classifier).render_card())


def test_card_of_scores_without_a_duration(folder):
    write_json(folder / "evaluation.json", {key: value for key, value in EVALUATION.items() if key != "minutes"})

    assert "Measured on a small computer, 2 threads with" in str(ModelFolder(folder).render_card())


# Whatever stands in a file stays where the template puts it


HOSTILE_TITLE = 'emo <b>1m</b>")\nimport os  # [x](http://y)'


def test_title_stays_on_its_line_and_in_its_quotes(folder):
    change_recipe(folder, card_title=HOSTILE_TITLE)

    card = ModelFolder(folder).render_card()
    code = re.search(r"```python\n(.*?)```", str(card), re.DOTALL)[1]

    assert '\n# emo &lt;b>1m&lt;/b>") import os # \\[x\\](http://y)\n' in str(card)
    assert [line for line in code.splitlines() if line.startswith(("import", "from"))] == [
        "import decahub  # makes the model known to transformers",
        "from transformers import pipeline",
    ]
    compile(code, "card", "exec")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("one\ntwo\n\nthree", "one two\n\nthree"),
        ("<script>a</script>", "&lt;script>a&lt;/script>"),
        ("# Scores", r"\# Scores"),
        ("fine\n\n```python\nimport os", "fine\n\n\\```python import os"),
        ("- item\n\n1. first\n\n---", "\\- item\n\n1\\. first\n\n\\---"),
        ("![x](http://y/z.png)", r"!\[x\](http://y/z.png)"),
        ("| a | b |", r"\| a | b |"),
        ("*new* and `code` of 3.5 %", "*new* and `code` of 3.5 %"),
    ],
)
def test_texts_bring_no_blocks_html_or_links(given, shown):
    assert escape_text(given) == shown


def test_block_of_code_cannot_be_ended_by_its_content(folder):
    write_json(folder / "evaluation.json", {**EVALUATION, "command": "python a.py\n```\n# Scores\n````"})

    text = str(ModelFolder(folder).render_card())

    assert "`````\npython a.py\n```\n# Scores\n````\n`````\n" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar10"}, "`dataset` in .* must be an object"),
        ({"dataset": EVALUATION["dataset"] | {"split": "a\nb"}}, "`split` in `dataset` .* a text on one line"),
        ({"dataset": EVALUATION["dataset"] | {"num_rows": -1}}, "`num_rows` .* whole number of 0 or more; got -1"),
        ({"figures": {}}, "`figures` in .* list with at least one score; got {}"),
        ({"figures": [3]}, r"`figures\[0\]` .* must be an object .*; got int"),
        ({"figures": [{"metric": "a", "value": "1", "n": 1}]}, "`value` in .* must be a finite number; got '1'"),
        ({"figures": [{"metric": "a", "value": 10**400, "n": 1}]}, "`value` .*; got too many digits"),
        ({"figures": [{"metric": "a", "value": float("nan"), "n": 1}]}, "`value` .*; got nan"),
        ({"figures": [{"metric": "a", "value": 1, "n": True}]}, "`n` .* whole number of 0 or more; got True"),
        ({"versions": ["torch"]}, "`versions` .* must be an object of texts"),
        ({"minutes": None}, "`minutes` .* finite number; got None"),
        ({"task": 3}, "`task` .* a text on one line; got 3"),
    ],
)
def test_odd_scores_are_refused_in_one_sentence(folder, changes, message):
    write_json(folder / "evaluation.json", {**EVALUATION, **changes})

    with pytest.raises(ValueError, match=message):
        ModelFolder(folder).render_card()


# Recipes


def test_comments_of_a_recipe_survive_a_new_value(tmp_path):
    (tmp_path / "recipe.yaml").write_text("# by hand\ncard_title: old\nseed: 1  # lucky\n")

    ModelFolder(tmp_path).set_recipe_value("card_title", "new: title")
    ModelFolder(tmp_path).set_recipe_value("card_repo_id", "someone/new")

    text = (tmp_path / "recipe.yaml").read_text()
    assert text == "# by hand\ncard_title: 'new: title'\nseed: 1  # lucky\ncard_repo_id: someone/new\n"


@pytest.mark.parametrize("name", ["card_summary", "card_intended_use", "card_limits"])
def test_text_may_be_written_later(folder, name):
    change_recipe(folder, **{name: None})

    text = str(ModelFolder(folder).render_card())

    assert f"*Not written yet: add `{name}` to recipe.yaml and run `decahub card`.*" in text
    assert text.count("Not written yet") == 1


def test_card_without_a_title_is_named_after_model_and_dataset(folder):
    change_recipe(folder, card_title=None)

    card = ModelFolder(folder).render_card()

    assert card.data.model_name == "emo-cifar10"
    assert "\n# emo-cifar10\n" in str(card)


def test_empty_text_is_refused():
    with pytest.raises(ValueError, match="`card_limits` must be a text of at most 20,000 characters; got '  '"):
        CardArguments(**{**TEXTS, "card_limits": "  "})


def test_misspelled_text_is_refused(folder):
    change_recipe(folder, card_limit="None.")

    with pytest.raises(ValueError, match="must be among card_title, .*; got card_limit"):
        ModelFolder(folder).render_card()


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


@dataclasses.dataclass(kw_only=True)
class TrainingArguments(CardArguments):
    dataset: str = "german"
    images: list[str] = dataclasses.field(default_factory=list)
    learning_rate: float = 0.1


def test_license_of_own_data_is_asked_for_before_the_training():
    with pytest.raises(ValueError, match="got none for 'photos'. Add `--card_license`"):
        TrainingArguments(dataset="~/me/photos")

    assert TrainingArguments(dataset="~/me/photos", card_license="mit").card_license == "mit"


def test_texts_and_images_are_of_the_recipes_own_dataset(tmp_path):
    path = tmp_path / "recipe.yaml"
    texts = {"card_title": "of-german", "card_limits": "Germans.", "images": ["german.png"], "card_license": "mit"}
    write_yaml(path, {**texts, "learning_rate": 1})

    own = load_recipe(TrainingArguments, [str(path), "--learning_rate", "2", "--dataset", "german"])
    other = load_recipe(TrainingArguments, [str(path), "--dataset", "bail", "--card_title", "of-bail"])

    assert (own.card_title, own.images) == ("of-german", ["german.png"])
    assert (other.card_title, other.card_limits, other.images, other.learning_rate) == ("of-bail", None, [], 1)
    assert other.card_license == "mit"  # it may be that of the weights which training starts from


@pytest.mark.parametrize("name", ["config.json", "recipe.yaml", "evaluation.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()

    with pytest.raises(FileNotFoundError, match=f"must hold {name}"):
        ModelFolder(folder).render_card()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[1]", "must hold a JSON object; got list"),
        ("config.json", '{"model_type": "vit"}', "`model_type` in config.json must be one of emo.*; got 'vit'"),
        ("evaluation.json", "{", "must be JSON"),
        ("config.json", '{"model_type": ' + "[" * 100_000, "must be JSON"),
        ("config.json", '{"model_type": "emo"}', "`architectures` .* one of EmoModel, .*; got None"),
        ("config.json", '{"model_type": "emo", "architectures": []}', r"got \[\]"),
        ("config.json", '{"model_type": "emo", "architectures": [null]}', r"got \[None\]"),
        ("config.json", '{"model_type": "emo", "architectures": 3}', "got 3"),
        ("config.json", '{"model_type": "emo", "architectures": ["RawGnnModel"]}', "got .'RawGnnModel'"),
        ("evaluation.json", "9" * 5000, "must be JSON; Exceeds the limit"),
        ("recipe.yaml", BILLION_LAUGHS, r"must be YAML; aliases such as \*a are not read"),
        ("recipe.yaml", "a: " + "[" * 5000, "must be YAML"),
        ("recipe.yaml", "a: 2024-13-45", "must be YAML; month must be in 1..12"),
        ("recipe.yaml", "1: a", "keys of recipe.yaml .* must be texts"),
        ("recipe.yaml", "card_title: " + "a" * 30_000, "`card_title` must be a text of at most 20,000 characters"),
        ("recipe.yaml", "card_title: [a]", r"`card_title` must be a text .*; got \['a'\]"),
        ("recipe.yaml", "card_license: 'mit`\\n# x'", "`card_license` must be an identifier"),
        ("recipe.yaml", "a: " + "b" * 2_000_000, "must have at most 1,000,000 bytes; got 2,000,003"),
        ("train_log.jsonl", '{"training_minutes": "long"}', "last line of train_log.jsonl must hold training_minutes"),
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
        ModelFolder(folder).render_card()


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
