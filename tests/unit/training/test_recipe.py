"""Recipes: what of YAML and command line arrives in the dataclass, and what is refused."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest
from transformers import HfArgumentParser

from decahub.training import LoopArguments, RecipeError, argument, load_recipe, recipe_to_yaml


@dataclass
class Arguments(LoopArguments):
    dataset: str = argument("sign_digits", "Name of the dataset.")
    variant: Literal["1m", "5m"] = argument("1m", "Published variant.")
    layers: list[int] = argument([1, 2], "Layers to use.")
    config: dict = argument({}, "Fields of the model's config.")
    augment: bool = argument(True, "Change images at random.")


@pytest.fixture
def write(tmp_path):
    def write_recipe(text: str) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_recipe


def test_defaults_without_anything():
    assert load_recipe(Arguments, []) == Arguments()


def test_command_line_wins_over_recipe(write):
    path = write("learning_rate: 0.5\nseed: 7\n")

    arguments = load_recipe(Arguments, [path, "--learning_rate", "0.25"])

    assert (arguments.learning_rate, arguments.seed) == (0.25, 7)


def test_reads_the_words_of_the_process(write, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", write("seed: 7")])

    assert load_recipe(Arguments).seed == 7


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("learning_rate: 1e-3", "learning_rate", 1e-3),
        ("learning_rate: 2E-4", "learning_rate", 2e-4),
        ("learning_rate: '5e-4'", "learning_rate", 5e-4),
        ("learning_rate: 1", "learning_rate", 1.0),
        ("mixed_precision: no", "mixed_precision", "no"),
        ("variant: 5m", "variant", "5m"),
        ("augment: no", "augment", False),
        ("augment: false", "augment", False),
        ("ema_decay: 0.5", "ema_decay", 0.5),
        ("save_total_limit: null", "save_total_limit", None),
        ("save_total_limit:", "save_total_limit", None),
        ("layers: []", "layers", []),
        ("layers: [3, 4]", "layers", [3, 4]),
        ("layers: 3", "layers", [3]),
        ("config: {drop_path_rate: 1e-1, depths: [1, 2]}", "config", {"drop_path_rate": 0.1, "depths": [1, 2]}),
        ("dataset: 2024-01-01", "dataset", "2024-01-01"),
        ("dataset: 2024", "dataset", "2024"),
        ("{}", "seed", 0),
        ("", "seed", 0),
    ],
)
def test_value_of_recipe(text, name, expected, write):
    value = getattr(load_recipe(Arguments, [write(text)]), name)

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--learning_rate", "1e-3"], "learning_rate", 1e-3),
        (["--learning-rate", "1e-3"], "learning_rate", 1e-3),
        (["--learning_rate=1e-3"], "learning_rate", 1e-3),
        (["--seed", "-5"], "seed", -5),
        (["--augment", "false"], "augment", False),
        (["--no_augment"], "augment", False),
        (["--no-augment"], "augment", False),
        (["--use_cpu"], "use_cpu", True),
        (["--save_total_limit", "none"], "save_total_limit", None),
        (["--layers", "3", "4", "5"], "layers", [3, 4, 5]),
        (["--layers", "3"], "layers", [3]),
        (["--layers", "[3, 4]"], "layers", [3, 4]),
        (["--layers", "[]"], "layers", []),
        (["--config", "{depths: [1, 2]}"], "config", {"depths": [1, 2]}),
        (["--config.drop_path_rate", "1e-1"], "config", {"drop_path_rate": 0.1}),
        (["--config.depths=[1, 2]", "--config.act", "gelu"], "config", {"depths": [1, 2], "act": "gelu"}),
        (["--config.depths", "1", "2"], "config", {"depths": [1, 2]}),
        (["--config.mode", "none", "--config.names.cat", "null"], "config", {"mode": "none", "names": {"cat": None}}),
        (["--config", "{a: 1, b: 1}", "--config.a", "2"], "config", {"a": 2, "b": 1}),
        (["--dataset", "a b"], "dataset", "a b"),
        (["--dataset=--odd"], "dataset", "--odd"),
        (["--seed", "1", "--seed", "2"], "seed", 2),
    ],
)
def test_value_of_command_line(words, name, expected):
    value = getattr(load_recipe(Arguments, words), name)

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rte: 1", r"`learning_rte` in the recipe is not an argument.*Did you mean `learning_rate`\?"),
        ("xyz: 1", r"`xyz` in the recipe is not an argument.*Known: output_dir, seed"),
        ("seed: 1.5", r"`seed` must be int; got 1.5"),
        ("seed: true", r"`seed` must be int; got True"),
        ("seed: null", r"`seed` must be int; got None"),
        ("max_steps: many", r"`max_steps` must be int or none; got 'many'"),
        ("augment: maybe", r"`augment` must be bool; got 'maybe'"),
        ("variant: 9m", r"`variant` must be one of '1m', '5m'; got '9m'"),
        ("layers: [1, x]", r"`layers` must be int; got 'x'"),
        ("config: 3", r"`config` must be dict; got 3"),
        ("dataset: [a]", r"`dataset` must be str; got \['a'\]"),
        ("- seed", r"must hold a mapping of keys to values; got a list"),
        ("seed: [", r"recipe.yaml must be valid YAML"),
        ("seed: 1\ndataset: a\nseed: 2", "must have each key once; got 'seed' again in line 3"),
        ("config: {a: 1, a: 2}", "must have each key once; got 'a' again in line 1"),
    ],
)
def test_refuses_recipe(text, message, write):
    with pytest.raises(RecipeError, match=message):
        load_recipe(Arguments, [write(text)])


def test_a_merged_mapping_may_be_overridden(write):
    path = write("config: {<<: {a: 1, b: 2}, a: 3}\n")

    assert load_recipe(Arguments, [path]).config == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sed", "1"], r"`sed` in the command line is not an argument of this script. Did you mean `seed`\?"),
        (["--seed"], r"`seed` must be followed by a value; got none"),
        (["--seed", "1", "2"], r"`seed` must be one value; got 2: 1 2"),
        (["--seed", "x"], r"`seed` must be int; got 'x'"),
        (["--seed", "1", "--", "2"], r"`seed` must be one value; got 3"),
        (["-s", "1"], r"must be `\[recipe\] --key value ...`; got '-s' without a key"),
        (["--config", "{a"], r"`config` must be dict; got '{a'"),
        (["--config.a", "{a"], r"`config.a` must be YAML; got '{a'"),
        (["--config.a"], r"`config.a` must be followed by a value; got none"),
        (["--no_dataset"], "`--no_dataset` must name a switch; `dataset` is str"),
        (["--config.", "1"], r"`--config.` must name an entry of `config`"),
        (["--confi.a", "1"], r"`confi` in the command line is not an argument.*Did you mean `config`\?"),
        (["--seed.a", "1"], r"`seed` must be a mapping to have an entry `seed.a`; it is int"),
        (["--config.a", "1", "--config.a.b", "1"], r"`config.a` must be a mapping to have an entry 'b'; got 1"),
    ],
)
def test_refuses_command_line(words, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(Arguments, words)


def test_entries_are_set_in_the_mapping_of_the_recipe(write):
    path = write("config: {depths: [1, 2], backbone: {type: resnet, size: 8}}")

    config = load_recipe(Arguments, [path, "--config.backbone.size", "16", "--config.act", "gelu"]).config

    assert config == {"depths": [1, 2], "backbone": {"type": "resnet", "size": 16}, "act": "gelu"}
    assert load_recipe(Arguments, []).config == {}


def test_says_which_entries_a_mapping_replaces(write, caplog):
    path = write("config: {depths: [1, 2], act: gelu, size: 8}")

    config = load_recipe(Arguments, [path, "--config", "{size: 16}"]).config

    assert config == {"size": 16}
    assert "with depths, act" in caplog.text
    assert "`--config.size ...`" in caplog.text


@pytest.mark.parametrize("words", [["--config", "{size: 16, act: relu}"], ["--config.size", "16"], ["--config", "{}"]])
def test_says_nothing_where_no_entry_is_lost_by_accident(words, write, caplog):
    load_recipe(Arguments, [write("config: {size: 8}"), *words])

    assert caplog.text == ""


def test_refuses_missing_file():
    with pytest.raises(FileNotFoundError, match=r"'recipes/none.yaml' does not exist \(seen from .*\)"):
        load_recipe(Arguments, ["recipes/none.yaml"])


def test_checks_of_the_dataclass_are_heard(write):
    with pytest.raises(ValueError, match=r"`max_steps` must be positive; got 0"):
        load_recipe(Arguments, [write("max_steps: 0")])


def test_missing_required_key_is_named(write):
    @dataclass
    class Required:
        teacher: str

    with pytest.raises(RecipeError, match=r"The recipe is not complete: .*'teacher'"):
        load_recipe(Required, [write("{}")])


def test_does_not_execute_tags(write, tmp_path):
    hostile = f"dataset: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'made'}]"

    with pytest.raises(RecipeError, match="valid YAML"):
        load_recipe(Arguments, [write(hostile)])

    assert not (tmp_path / "made").exists()


def test_resolved_recipe_reads_back_equal(write):
    arguments = Arguments(
        learning_rate=1e-5, ema_decay=0.9998, layers=[], config={"depths": [1]}, save_total_limit=None
    )

    assert load_recipe(Arguments, [write(recipe_to_yaml(arguments))]) == arguments


def test_help_names_every_argument(capsys):
    with pytest.raises(SystemExit, match="0"):
        load_recipe(Arguments, ["--help"])

    shown = capsys.readouterr().out
    assert [field.name for field in fields(Arguments) if f"--{field.name}" not in shown] == []


def test_help_shows_the_values_of_the_recipe(write, capsys):
    path = write("learning_rate: 0.25\nema_decay: 0.5\n")
    with pytest.raises(SystemExit, match="0"):
        load_recipe(Arguments, [path, "--help"], program="decahub train")

    shown = capsys.readouterr().out
    assert shown.startswith("usage: decahub train")
    assert str(path) in shown
    assert "  --learning_rate 0.25\n" in shown
    assert "  --max_steps none\n" in shown
    assert shown.count("--ema_decay") == 1


def test_every_argument_is_explained():
    assert [field.name for field in fields(LoopArguments) if not field.metadata.get("help", "").endswith(".")] == []


def test_transformers_parser_reads_the_arguments(tmp_path: Path):
    (arguments,) = HfArgumentParser(LoopArguments).parse_args_into_dataclasses(
        ["--seed", "3", "--ema_decay", "0.5", "--output_dir", str(tmp_path)]
    )

    assert arguments == LoopArguments(seed=3, ema_decay=0.5, output_dir=str(tmp_path))
