"""The commands: quick help, plain tables, one clear line for an error, and exit codes that scripts can rely on."""

import csv
import importlib
import io
import itertools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from decahub import RawGnnConfig, RawGnnModel
from decahub.cli.main import COMMANDS, build_parser, main
from decahub.cli.table import format_table
from decahub.data import DATASETS
from decahub.hub import Check, ModelFolder, VerificationReport
from decahub.registry import METHODS
from decahub.tasks.semantic_segmentation import encode_segmentation
from decahub.training import Update
from tests.hub.builders import (
    GRAPH_FEATURES,
    LABELS,
    build_cifar10,
    build_graph_folder,
    build_graphs,
    build_image,
    build_model_folder,
    build_segmentation_folder,
    label_maps,
    tiny_model,
)


CPU_SECONDS = 0.5  # of the whole process; wall time would measure the neighbors as well
MEASURE = """
import resource, sys
from decahub.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = sorted({"torch", "transformers", "huggingface_hub", "datasets", "numpy"} & sys.modules.keys())
print("\\n" + repr((used.ru_utime + used.ru_stime, heavy)))
"""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return build_model_folder(tmp_path_factory.mktemp("folders") / "emo-tiny")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return build_segmentation_folder(tmp_path_factory.mktemp("folders") / "emo-tiny-segmenter")


@pytest.fixture
def folder(classifier, tmp_path):
    return shutil.copytree(classifier, tmp_path / "emo-tiny")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "noise.png"
    build_image(seed=5).save(path)
    return path


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("DECAHUB_DATA_DIR", raising=False)


def run(*words) -> int:
    return main([str(word) for word in words])


# All commands


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "--datasets"], ["info", "emo"]], ids=" ".join)
def test_answers_at_once_and_imports_nothing_heavy(words):
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    seconds, heavy = eval(done.stdout.splitlines()[-1])
    assert heavy == []
    assert seconds <= CPU_SECONDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])

    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"examples:\n  decahub {command}" in text
    assert "--debug" in text


def test_the_overview_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])

    text = capsys.readouterr().out
    assert [command for command in COMMANDS if f"\n    {command}" not in text] == []


def test_help_names_only_what_is_there(capsys):
    for command in ("info", "card", "verify", "publish"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert [word for word in ("model_cards/", "examples/") if word in text] == []


def test_no_command_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])

    assert caught.value.code == 2
    assert "required: command" in capsys.readouterr().err


def test_a_problem_is_one_line(capsys):
    assert run("info", "nothing") == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("decahub info: 'nothing' is neither a method nor a model folder. Known: emo, ")
    assert captured.err.count("\n") == 1


def test_a_missing_library_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "decahub.data.loading", None)
    monkeypatch.delitem(sys.modules, "decahub.data.loading")
    monkeypatch.setattr("decahub.cli.info.run", lambda options: importlib.import_module("decahub.data.loading"))

    assert main(["info", "emo"]) == 2

    assert "datasets" in (message := capsys.readouterr().err)
    assert "Run `pip install 'decahub[train]'`." in message


def test_train_lists_recipes_and_names_what_is_missing(tmp_path, capsys):
    assert main(["train", "--list"]) == 0
    assert "emo/cifar10  " in capsys.readouterr().out
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("seed: 1\n")

    assert [main(["train", *words]) for words in ([], ["emo/cifr10"], [str(recipe)])] == [2, 2, 2]

    messages = capsys.readouterr().err.splitlines()
    assert "a recipe must be given" in messages[0]
    assert "Did you mean 'emo/cifar10'?" in messages[1]
    assert "`method` must be in the recipe" in messages[2]


def test_train_asks_for_the_license_of_own_data_before_heavy_imports(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "decahub.training", None)

    assert run("train", "emo/cifar10", "--dataset", "/somewhere/shapes") == 2

    assert "`card_license` must be given" in capsys.readouterr().err


def test_train_and_convert_show_the_help_of_the_method(capsys):
    for words, option in ((["train", "emo/cifar10"], "--decode_head"), (["convert", "emo"], "--head_dims")):
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--help"])

        output = capsys.readouterr().out
        assert output.startswith(f"usage: decahub {words[0]}")
        assert option in output


def test_checks_of_ours_and_a_lost_connection_are_one_line(monkeypatch, capsys):
    def lose_the_connection(options):
        raise type("ConnectError", (Exception,), {"__module__": "httpx._exceptions"})("no route to host")

    monkeypatch.setattr("decahub.cli.info.run", lose_the_connection)
    assert run("info", "emo") == 2
    assert capsys.readouterr().err == "decahub info: no route to host\n"

    monkeypatch.setattr("decahub.cli.info.run", lambda options: Update(optimizer=5))
    assert run("info", "emo") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("bug", [lambda options: len(5), lambda options: torch.ones(2) @ torch.ones(3)])
def test_a_bug_is_not_hidden(monkeypatch, bug):
    monkeypatch.setattr("decahub.cli.info.run", bug)

    with pytest.raises((TypeError, RuntimeError)):
        run("info", "emo")


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="'nothing' is neither"):
        run("info", "nothing", "--debug")


def test_a_problem_of_a_strict_config_is_one_line(folder, image, capsys):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "stem_stride": "two"}))

    assert run("predict", folder, image) == 2

    error = capsys.readouterr().err
    assert "stem_stride" in error
    assert error.count("\n") == 1


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    def fail(options):
        raise ZeroDivisionError

    monkeypatch.setattr("decahub.cli.list.run", fail)

    with pytest.raises(ZeroDivisionError):
        run("list")


def test_an_interrupt_has_the_exit_code_of_shells(monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("decahub.cli.list.run", interrupt)

    assert run("list") == 130


def test_table_aligns_columns():
    text = format_table(("name", "n"), [("a", 1), ("longer", 23)])

    assert text == "name    n\n------  --\na       1\nlonger  23"


# list, info


def test_list_shows_every_method_and_its_state(capsys):
    assert run("list") == 0

    shown = {line.split()[0]: " ready " in line for line in capsys.readouterr().out.splitlines()[2:]}
    assert shown == {name: method.is_ready for name, method in METHODS.items()}


def test_list_can_leave_out_what_is_planned(capsys):
    assert run("list", "--ready") == 0

    text = capsys.readouterr().out
    assert "emo" in text
    assert "planned" not in text


def test_list_shows_data_sets_and_their_licenses(capsys):
    assert run("list", "--datasets") == 0

    shown = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:]}
    assert shown == {name: entry.license for name, entry in DATASETS.items()}


@pytest.mark.parametrize("name", METHODS)
def test_info_describes_every_method(name, capsys):
    assert run("info", name) == 0

    text = capsys.readouterr().out
    assert METHODS[name].title in text
    assert METHODS[name].paper_url in text
    assert ("planned" in text) != METHODS[name].is_ready


def test_info_lists_what_a_method_offers(tmp_path, monkeypatch, capsys):
    (tmp_path / "model_cards" / "emo-mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert run("info", "emo") == 0

    lines = capsys.readouterr().out.splitlines()
    assert "recipes  emo/cifar10, emo/cifar10_mixed, emo/segment, emo/sign_digits" in lines
    assert "variants 1m, 2m, 5m, 6m" in lines
    assert "example  decahub predict model_cards/emo-mine INPUT" in lines


def test_info_suggests_the_nearest_method(capsys):
    assert run("info", "emoo") == 2

    assert "Did you mean `emo`?" in capsys.readouterr().err


def test_info_describes_a_folder(classifier, capsys):
    assert run("info", classifier) == 0

    text = capsys.readouterr().out
    num_values = sum(tensor.numel() for tensor in tiny_model().state_dict().values())
    assert "EmoForImageClassification" in text
    assert f"{num_values:,}" in text
    assert "3: cat, dog, fox" in text
    assert "0.7525" in text


def test_info_lists_files_beside_the_weights_apart(folder, capsys):
    save_file({"masks": torch.zeros(2, 3, 7)}, folder / "support_memory.safetensors")

    assert run("info", folder) == 0

    text = capsys.readouterr().out
    num_values = sum(tensor.numel() for tensor in tiny_model().state_dict().values())
    assert f"parameters  {num_values:,}\n" in text
    assert "support_memory.safetensors: 42 values" in text


def build_header(content: object, size: int | None = None) -> bytes:
    header = json.dumps(content).encode()
    return (len(header) if size is None else size).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        build_header({}, size=2**63),
        build_header([1]),
        build_header({"a": {"dtype": "F32", "data_offsets": [0, 4]}}),
        build_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
        build_header({"a": {"dtype": "F32", "shape": [2**63], "data_offsets": [0, 4]}}),
        build_header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        build_header({"a": None}),
    ],
    ids=["empty", "short", "2**63", "list", "no shape", "negative", "overflow", "too large", "null"],
)
def test_info_and_verify_say_in_one_sentence_what_is_wrong_with_weights(folder, content, capsys):
    (folder / "model.safetensors").write_bytes(content)

    assert run("info", folder) == 2
    error = capsys.readouterr().err
    assert "model.safetensors in " in error
    assert "must be a complete safetensors file" in error
    assert error.count("\n") == 1
    assert run("verify", folder) == 1


@pytest.mark.parametrize(
    ("file", "content", "shown"),
    [
        ("config.json", '{"architectures": null, "id2label": {"0": null}}', "labels      1: None"),
        ("config.json", '{"architectures": 3, "id2label": [1], "model_type": ["a"]}', "class       3"),
        ("config.json", '{"id2label": {"0": "a\\u001b[31m\\nb"}}', "labels      1: a?[31m b"),
    ],
)
def test_info_shows_odd_configurations(folder, file, content, shown, capsys):
    (folder / file).write_text(content)

    assert run("info", folder) == 0
    assert shown in capsys.readouterr().out


def test_info_shows_no_labels_of_a_model_without_classes(folder, capsys):
    (folder / "config.json").write_text('{"model_type": "pmt_iqa"}')

    assert run("info", folder) == 0
    assert not any(line.startswith("labels ") for line in capsys.readouterr().out.splitlines())


# predict


def test_predict_classifies_images(classifier, image, capsys):
    assert run("predict", classifier, image, image, "--top-k", 2) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 2  # an input that is given twice is answered once
    assert {row[0] for row in rows} == {"noise.png"}
    assert {row[1] for row in rows} <= set(LABELS)
    assert float(rows[0][2]) >= float(rows[1][2])


def test_predict_takes_a_folder_of_images(classifier, tmp_path, capsys):
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    gray = (np.arange(40 * 30).reshape(40, 30) % 256).astype(np.uint8)
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / "inner" / "deep.PNG")
    (folder / "notes.txt").write_text("no image")

    assert run("predict", classifier, folder) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["gray.png", "deep.PNG"]
    assert rows[0][1:] == rows[1][1:]  # 16 bits are scaled, not clipped


def test_predict_refuses_a_folder_without_images(classifier, tmp_path, capsys):
    assert run("predict", classifier, tmp_path) == 2

    assert "`INPUT` must hold image files if it is a folder" in capsys.readouterr().err


def test_predict_writes_a_segmentation_beside_the_image(segmenter, image, capsys):
    assert run("predict", segmenter, image) == 0

    with Image.open(image.with_name("noise_segmentation.png")) as mask:
        ids = np.asarray(mask)
        assert mask.mode == "P"
        assert mask.size == Image.open(image).size
    assert set(np.unique(ids)) <= set(range(len(LABELS)))
    shares = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()[2:]]
    assert sum(shares) == pytest.approx(1, abs=2e-3)  # each is rounded to a thousandth


def test_a_map_of_more_classes_than_a_palette_has_keeps_its_ids():
    ids = np.array([[0, 255, 256], [299, 3, 1]])

    with Image.open(io.BytesIO(encode_segmentation(ids, 300))) as image:
        assert np.asarray(image).tolist() == ids.tolist()


def test_predict_writes_into_another_folder(segmenter, image, tmp_path):
    assert run("predict", segmenter, image, "--output-dir", tmp_path / "masks") == 0

    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["noise_segmentation.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.png"], "'missing.png' does not exist"),
        ([__file__], "test_cli.py"),
        (["{image}", "--top-k", "0"], "`--top-k` must be at least 1; got 0"),
    ],
    ids=["no file", "no image", "no class"],
)
def test_predict_refuses(classifier, image, words, message, capsys):
    assert run("predict", classifier, *[word.format(image=image) for word in words]) == 2

    assert message in capsys.readouterr().err


def test_predict_refuses_a_model_without_a_head(image, tmp_path, capsys):
    RawGnnModel(RawGnnConfig(num_features=3)).save_pretrained(tmp_path / "bare")

    assert run("predict", tmp_path / "bare", image) == 2
    error = capsys.readouterr().err
    assert "`model` must be loaded by one of AutoModel, AutoModelForCausalLM, " in error
    assert "RawGnnModel is not. Use it from Python." in error


def test_predict_help_shows_the_options_of_the_models_task_only(node_classifier, capsys):
    with pytest.raises(SystemExit):
        run("predict", node_classifier, "--help")

    text = capsys.readouterr().out
    assert "--nodes" in text
    assert "--prompt-bars" not in text


def test_predict_refuses_options_of_other_tasks(classifier, image, capsys):
    with pytest.raises(SystemExit):
        run("predict", classifier, image, "--bars", 4)

    assert "unrecognized arguments: --bars 4" in capsys.readouterr().err


def test_predict_finds_the_model_among_options_and_in_model_cards(classifier, image, tmp_path, monkeypatch, capsys):
    assert run("predict", "--top-k", 1, classifier, image) == 0
    assert run("predict", "--overwrite", "nothing", image) == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_cards" / "mine").mkdir(parents=True)
    assert run("predict", "mine", image) == 2

    first, second = capsys.readouterr().err.splitlines()
    assert "The model must come first" in first
    assert second.endswith("got 'mine'. Did you mean `model_cards/mine`?")


def test_predict_help_without_a_model_lists_the_options_of_all_tasks(capsys):
    with pytest.raises(SystemExit):
        run("predict", "--help")

    text = capsys.readouterr().out
    assert "node-classification: --top-k, --nodes, --data-dir\n" in text
    assert "drum-generation: --bars, --prompt-bars" in text


def test_predict_goes_on_after_a_bad_input(classifier, image, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:60])

    assert run("predict", classifier, tmp_path / "broken.png", image) == 1

    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith("noise.png")
    assert "broken.png" in captured.err


def test_predict_overwrites_nothing_in_silence(segmenter, image, tmp_path, capsys):
    other = tmp_path / "other" / image.name
    other.parent.mkdir()
    build_image(seed=9).save(other)
    words = ["predict", segmenter, image, other, "--output-dir", tmp_path / "masks"]

    assert run(*words) == 0
    assert len(list((tmp_path / "masks").iterdir())) == 2

    assert run(*words) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(*words, "--overwrite") == 0


def test_predict_takes_none_of_its_own_files_in_a_folder_for_inputs(segmenter, image, tmp_path, caplog, capsys):
    for _ in range(2):
        assert run("predict", segmenter, tmp_path, "--overwrite") == 0
        assert capsys.readouterr().out.count("noise_segmentation.png") == 1
    assert {path.name for path in tmp_path.glob("*.png")} == {"noise.png", "noise_segmentation.png"}
    assert f"1 of 2 files in {str(tmp_path)!r} are left out, which are named like" in caplog.text

    image.unlink()
    assert run("predict", segmenter, tmp_path) == 2
    assert "holds none" in capsys.readouterr().err


def test_predict_replaces_no_input(segmenter, image, tmp_path, capsys):
    other = image.with_name("noise_segmentation.png")
    build_image(seed=9).save(other)
    before = other.read_bytes()

    assert run("predict", segmenter, image, other, "--overwrite") == 1

    assert f"`{other}` is one of the inputs. Choose another `--output-dir`." in capsys.readouterr().err
    assert other.read_bytes() == before


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_predict_writes_the_rows_of_the_table(classifier, image, tmp_path, capsys, ending):
    path = tmp_path / "new" / f"answers.{ending}"

    assert run("predict", classifier, image, "--top-k", 2, "--output", path) == 0

    printed = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    with path.open(newline="") as file:
        rows = json.load(file) if ending == "json" else list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["image", "class", "probability"]] * 2
    assert [[row["image"], row["class"], f"{float(row['probability']):.3f}"] for row in rows] == printed
    assert ending == "csv" or isinstance(rows[0]["probability"], float)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_predict_refuses_an_output_before_it_loads_a_model(classifier, image, tmp_path, monkeypatch, capsys):
    (tmp_path / "old.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr("decahub.tasks.Task.build_predictor", None)

    for output in ("answers.txt", "old.csv", "folder.csv"):
        assert run("predict", classifier, image, "--output", tmp_path / output) == 2
    assert run("predict", classifier, tmp_path / "old.csv", "--output", tmp_path / "old.csv", "--overwrite") == 2

    errors = capsys.readouterr().err.splitlines()
    assert "`--output` must end in .csv or .json" in errors[0]
    assert "exists already. Choose another `--output`, or replace it with `--overwrite`." in errors[1]
    assert "exists already" in errors[2]
    assert "must not be one of the inputs" in errors[3]
    assert (tmp_path / "old.csv").read_text() == "mine"


def test_predict_replaces_an_output_if_told_to(segmenter, image, tmp_path):
    words = ["predict", segmenter, image, "--output-dir", tmp_path / "masks", "--output", tmp_path / "areas.json"]
    assert run(*words) == 0
    (tmp_path / "areas.json").write_text("old")

    assert run(*words, "--overwrite") == 0

    rows = json.loads((tmp_path / "areas.json").read_text())
    assert sum(row["area"] for row in rows) == pytest.approx(1)
    assert {row["written to"] for row in rows} == {str(tmp_path / "masks" / "noise_segmentation.png")}


def test_predict_refuses_incomplete_and_infinite_weights(folder, image, capsys):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.startswith("classifier"))
    broken = {**weights, name: torch.full_like(weights[name], torch.nan)}
    save_file(broken, folder / "model.safetensors", {"format": "pt"})
    assert run("predict", folder, image) == 2
    assert f"`{name}` holds NaN or infinity" in capsys.readouterr().err

    rest = {key: value for key, value in weights.items() if key != name}
    save_file(rest, folder / "model.safetensors", {"format": "pt"})
    assert run("predict", folder, image) == 2
    assert "missing tensors, the first is classifier" in capsys.readouterr().err


# graphs


@pytest.fixture(scope="module")
def node_classifier(tmp_path_factory):
    return build_graph_folder(tmp_path_factory.mktemp("folders") / "raw-gnn-tiny")


@pytest.fixture(scope="module")
def graphs_dir(tmp_path_factory):
    return build_graphs(tmp_path_factory.mktemp("data"))


def test_predict_classifies_the_nodes_of_a_graph_by_name(node_classifier, graphs_dir, capsys):
    words = ["predict", node_classifier, "texas", "--data-dir", graphs_dir, "--nodes", 3, 0, "--top-k", 2]

    assert run(*words) == 0

    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [("texas", "3"), ("texas", "3"), ("texas", "0"), ("texas", "0")]
    assert float(rows[0][-1]) >= float(rows[1][-1])


def test_predict_takes_a_file_that_holds_features_and_edges_only(node_classifier, tmp_path, capsys):
    path = tmp_path / "mine.npz"
    np.savez(path, x=np.ones((4, GRAPH_FEATURES), dtype=np.float32), edge_index=np.array([[0, 1, 2], [1, 2, 3]]))

    assert run("predict", node_classifier, path) == 0

    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[2:]] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.npz"], "a folder with either, or one of cora, "),
        (["cifar10"], "got 'cifar10'"),
        ([__file__], "must be an intact .npz file"),
        (["texas", "--nodes", "60"], "`--nodes` must hold ids in [0, 60); got 60"),
    ],
    ids=["no file", "no graph", "no archive", "no such node"],
)
def test_predict_refuses_graphs_and_nodes(node_classifier, graphs_dir, words, message, capsys):
    assert run("predict", node_classifier, *words, "--data-dir", graphs_dir) == 2

    assert message in capsys.readouterr().err


def test_evaluate_measures_one_part_of_one_split_of_a_graph(node_classifier, graphs_dir, capsys):
    assert run("evaluate", node_classifier, "--data-dir", graphs_dir, "--split", "validation/3", "--limit", 4) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Texas web pages (WebKB), validation/3 split"
    assert [line.split()[0] for line in lines[3:]] == ["accuracy", "macro_f1"]
    assert {line.split()[2] for line in lines[3:]} == {"4"}


def test_evaluate_can_choose_the_task(node_classifier, graphs_dir, capsys):
    assert run("evaluate", node_classifier, "--data-dir", graphs_dir, "--task", "fair-node-classification") == 0

    assert "statistical_parity_difference" in capsys.readouterr().out


def test_predict_takes_a_folder_of_a_graph(node_classifier, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    edges = np.array([[0, 1, 2], [1, 2, 3]])
    np.savez(tmp_path / "mine" / "graph.npz", x=np.ones((4, GRAPH_FEATURES), dtype=np.float32), edge_index=edges)

    assert run("predict", node_classifier, tmp_path / "mine") == 0

    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["graph.npz", str(node)] for node in range(4)
    ]


def test_verify_measures_a_graph_again(node_classifier, graphs_dir, capsys):
    assert run("verify", node_classifier, "--data-dir", graphs_dir) == 0

    assert "macro_f1" in capsys.readouterr().out


def test_info_describes_a_node_classifier(node_classifier, capsys):
    assert run("info", node_classifier) == 0

    text = capsys.readouterr().out
    assert "RawGnnForNodeClassification" in text
    assert "test/1 split" in text


# evaluate, verify


def test_evaluate_prints_the_scores(tmp_path, capsys):
    data_dir = build_cifar10(tmp_path / "data")
    folder = build_model_folder(tmp_path / "emo-tiny", tiny_model(**label_maps(DATASETS["cifar10"].label_names)))

    assert run("evaluate", folder, "--data-dir", data_dir, "--limit", 5) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "CIFAR-10 (JPEG), test split"
    assert [line.split()[0] for line in lines[3:]] == ["accuracy", "top_5_accuracy"]
    assert {line.split()[2] for line in lines[3:]} == {"5"}


def test_evaluate_refuses_classes_that_are_not_the_models(classifier, tmp_path, capsys):
    data_dir = build_cifar10(tmp_path / "data")

    assert run("evaluate", classifier, "--data-dir", data_dir) == 2
    assert "got 3" in capsys.readouterr().err


def test_own_data_is_found_by_its_name_or_asked_for(classifier, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(classifier, tmp_path / "emo-tiny")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["dataset"] |= {"name": "shapes", "title": "shapes", "split": "test"}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    for split, label in itertools.product(("train", "test"), LABELS):
        path = tmp_path / "data" / "shapes" / split / label / "one.png"
        path.parent.mkdir(parents=True)
        build_image(seed=3).save(path)

    assert run("evaluate", folder) == 2
    assert run("evaluate", folder, "--data-dir", tmp_path / "data") == 0

    captured = capsys.readouterr()
    assert captured.err.splitlines()[0].endswith("was measured on your own data `shapes`; pass `--dataset PATH`.")
    assert captured.out.startswith("shapes, test split")


def test_verify_without_the_data_says_so(classifier, capsys):
    assert run("verify", classifier) == 3

    assert "not re-evaluated" in capsys.readouterr().out


@pytest.mark.parametrize(("outcome", "exit_code"), [("passed", 0), ("failed", 1), ("not done", 3)])
def test_verify_shows_every_check_and_its_outcome(classifier, monkeypatch, capsys, outcome, exit_code):
    report = VerificationReport(classifier, [Check("files", "passed", "8 files"), Check("accuracy", outcome, "0.5")])
    monkeypatch.setattr("decahub.hub.verify", lambda *arguments, **options: report, raising=False)

    assert run("verify", classifier) == exit_code

    first, second = capsys.readouterr().out.splitlines()[2:]
    assert first.split() == ["files", "passed", "8", "files"]
    assert second.split() == ["accuracy", *outcome.split(), "0.5"]


def test_verify_refuses_what_is_no_folder(tmp_path, capsys):
    assert run("verify", tmp_path / "nothing") == 2
    assert "must be a model folder" in capsys.readouterr().err


# card, publish


def test_card_is_rendered_anew(folder, capsys):
    ModelFolder(folder).set_recipe_value("card_limits", "Foxes at night.")

    assert run("card", folder) == 0

    assert "Foxes at night." in (folder / "README.md").read_text()
    assert ModelFolder(folder).find_problems() == []
    assert "README.md" in capsys.readouterr().out


def test_card_can_be_printed_only(folder, capsys):
    before = (folder / "README.md").read_text()
    ModelFolder(folder).set_recipe_value("card_limits", "Foxes at night.")

    assert run("card", folder, "--print") == 0

    assert "Foxes at night." in capsys.readouterr().out
    assert (folder / "README.md").read_text() == before


def test_publish_dry_run_lists_what_would_go_up(classifier, capsys):
    assert run("publish", classifier, "someone/emo-tiny", "--dry-run") == 0

    text = capsys.readouterr().out
    assert "nothing was uploaded" in text
    shown = {line.split()[0] for line in text.splitlines()[3:]}
    assert {"README.md", "SHA256SUMS", "model.safetensors", "modeling_emo.py"} <= shown


def test_publish_refuses_a_tampered_folder(folder, capsys):
    (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text() + "seed: 1\n")

    assert run("publish", folder, "someone/emo-tiny", "--dry-run") == 2
    assert (
        "recipe.yaml does not match the hash in SHA256SUMS; after an edit, run `decahub card`"
        in capsys.readouterr().err
    )


def test_parser_reads_paths_and_limits():
    options = build_parser().parse_args(["evaluate", "folder", "--limit", "5"])

    assert (options.folder.name, options.limit) == ("folder", 5)
