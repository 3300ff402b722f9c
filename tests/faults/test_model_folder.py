"""Saving a model folder under errors: the older folder survives whole, and new weights are not lost to a bad card."""

import dataclasses
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from decahub import DrumLmForCausalLM, EmoForImageClassification
from decahub.cli.main import main
from decahub.hub import CardArguments, ModelFolder, save_run, verify
from decahub.hub import saving as module
from decahub.hub.saving import thin_log
from decahub.tasks import Measurement, Report
from decahub.training import TrainingResult
from tests.hub.builders import (
    EVALUATION,
    RECIPE,
    build_drum_adapter_folder,
    build_drum_base,
    build_image,
    build_model_folder,
    tiny_model,
    tiny_processor,
    write_log,
)


KILLED_SAVE = """
import os, signal, sys
from pathlib import Path
from decahub.hub import saving as module
from tests.hub.builders import build_model_folder, tiny_model

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

module._move_into_place = kill  # the last step: all is written, nothing renamed
build_model_folder(Path(sys.argv[1]), tiny_model(stem_hidden_size=10))
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> Path:
    return build_model_folder(tmp_path_factory.mktemp("older") / "emo-tiny")


@pytest.fixture
def folder(older, tmp_path) -> Path:
    return shutil.copytree(older, tmp_path / "emo-tiny")


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def get_partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def file_size_limit(num_bytes: int):
    """Lets no file of this process grow beyond a size, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Full disk


# The weights have about 90 kB; the configuration, 2 kB, is written before them.
@pytest.mark.parametrize("num_bytes", [50_000, 1_000], ids=["in the weights", "in the configuration"])
def test_full_disk_leaves_the_older_folder(folder, num_bytes):
    before, model = read_all(folder), tiny_model(stem_hidden_size=10)

    with pytest.raises((OSError, SafetensorError)), file_size_limit(num_bytes):
        build_model_folder(folder, model)

    assert read_all(folder) == before
    assert not get_partial(folder).exists()


@pytest.mark.parametrize("name", ["evaluation.json", "recipe.yaml", "train_log.jsonl", "README.md", "SHA256SUMS"])
def test_full_disk_at_any_later_file_leaves_the_older_folder(folder, monkeypatch, name):
    before, write_text = read_all(folder), module.write_text

    def write_until_full(path, text):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_text(path, text)

    monkeypatch.setattr(module, "write_text", write_until_full)
    monkeypatch.setattr("decahub.hub.files.write_text", write_until_full)
    monkeypatch.setattr("decahub.hub.model_folder.write_text", write_until_full)

    with pytest.raises(OSError, match="No space left"):
        build_model_folder(folder, tiny_model(stem_hidden_size=10))

    assert read_all(folder) == before


# Kills


def test_kill_leaves_the_older_folder_and_the_next_save_succeeds(folder):
    before = read_all(folder)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run([sys.executable, "-c", KILLED_SAVE, folder], env=environment, timeout=280)

    assert done.returncode == -signal.SIGKILL
    assert read_all(folder) == before
    assert ModelFolder(folder).find_problems() == []
    build_model_folder(folder, tiny_model(stem_hidden_size=10))
    assert EmoForImageClassification.from_pretrained(folder).config.stem_hidden_size == 10
    assert not get_partial(folder).exists()


def test_kill_among_the_renames_is_seen_by_the_checksums(folder, monkeypatch):
    replace, renamed = os.replace, []

    def replace_twice(source, target):
        if Path(target).parent == folder:
            if len(renamed) == 2:
                raise KeyboardInterrupt
            renamed.append(target)
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", replace_twice)
    with pytest.raises(KeyboardInterrupt):
        build_model_folder(folder, tiny_model(stem_hidden_size=10))

    assert ModelFolder(folder).find_problems() != []


# Broken cards and inputs


def test_failing_card_loses_neither_the_older_folder_nor_the_new_weights(folder):
    before = read_all(folder)
    recipe = {**RECIPE, "card_limits": ""}

    with pytest.raises(ValueError, match="`card_limits` must be a text") as caught:
        build_model_folder(folder, tiny_model(stem_hidden_size=10), recipe=recipe)

    assert read_all(folder) == before
    kept = EmoForImageClassification.from_pretrained(get_partial(folder))
    assert kept.config.stem_hidden_size == 10
    assert str(get_partial(folder)) in caught.value.__notes__[0]


def test_refuses_a_image_that_is_no_png(folder, tmp_path):
    before = read_all(folder)

    with pytest.raises(ValueError, match=r"`images` must be PNG files; got '.*curve\.svg'"):
        build_model_folder(folder, images=[tmp_path / "curve.svg"])

    assert read_all(folder) == before


@pytest.mark.parametrize(
    "line", ["abc  model.safetensors", f"{'0' * 64}  ../outside", f"{'0' * 64}  /outside"], ids=["short", "up", "root"]
)
def test_refuses_malformed_checksums(folder, line):
    (folder / "SHA256SUMS").write_text(f"{line}\n")

    with pytest.raises(ValueError, match="must be '<sha256>  <file name>'; got"):
        getattr(ModelFolder(folder), "checksums")  # noqa: B009


def test_truncated_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    with pytest.raises((OSError, SafetensorError), match="incomplete metadata"):
        EmoForImageClassification.from_pretrained(folder)


def drop_a_tensor(weights: Path) -> None:
    tensors = load_file(weights)
    tensors.popitem()
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda weights: weights.write_bytes(weights.read_bytes()[:-1]),
            "complete safetensors file; got .*incomplete",
        ),
        (drop_a_tensor, "`weights` must hold the 14 tensors of this model's adapters; 1 differ, such as backbone"),
    ],
    ids=["truncated", "without a tensor"],
)
def test_damaged_adapters_are_refused(tmp_path, monkeypatch, spoil, message):
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)  # the folder knows the name of its base and no path to it
    folder = build_drum_adapter_folder(tmp_path / "adapter", build_drum_base(tmp_path / "base"))
    spoil(folder / "model.safetensors")

    with pytest.raises((ValueError, OSError), match=message):
        DrumLmForCausalLM.from_pretrained(folder)

    report = verify(folder)
    assert {check.name for check in report.checks if check.outcome == "failed"} == {"files", "weights"}


# What a save leaves behind


def test_saved_model_loads_with_the_same_bits(folder):
    expected = tiny_model().state_dict()

    loaded = EmoForImageClassification.from_pretrained(folder).state_dict()

    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_weights_can_be_read_by_whom_the_other_files_can(folder):
    assert {path.stat().st_mode for path in folder.iterdir()} == {(folder / "config.json").stat().st_mode}


def test_replaces_the_older_model_and_keeps_what_is_not_its_own(folder, tmp_path):
    build_image(seed=1).save(tmp_path / "old.png")
    build_model_folder(folder, images=[tmp_path / "old.png"])
    (folder / ".git").mkdir()
    (folder / "notes.txt").write_text("of the user")
    build_image(seed=2).save(tmp_path / "new.png")

    build_model_folder(folder, images=[tmp_path / "new.png"])

    assert (folder / ".git").is_dir()
    assert (folder / "notes.txt").exists()
    assert [path.name for path in folder.glob("*.png")] == ["new.png"]


def test_folder_of_a_model_that_came_with_code_has_no_trace_of_it(tmp_path):
    model = tiny_model()
    model.config.auto_map = {"AutoConfig": "someone/repo--configuration_emo.EmoConfig"}
    model.config.custom_pipelines = {"image-classification": {"impl": "pipeline.Pipeline"}}

    folder = build_model_folder(tmp_path / "emo-tiny", model)

    assert not {"auto_map", "custom_pipelines"} & json.loads((folder / "config.json").read_text()).keys()
    assert list(folder.glob("*.py")) == []


def test_evaluation_may_be_a_file(folder, tmp_path):
    source = tmp_path / "scores.json"
    shutil.copyfile(folder / "evaluation.json", source)

    saved = build_model_folder(tmp_path / "second", evaluation=source)

    assert (saved / "evaluation.json").read_bytes() == source.read_bytes()


def test_nothing_outside_the_folder_is_removed_or_written(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.md").write_text("mine")
    (folder / "linked").symlink_to(outside)
    (folder / "link.md").symlink_to(outside / "thesis.md")
    names = ("linked/thesis.md", "link.md", "old.md")
    (folder / "old.md").write_text("of the older model")
    (folder / "SHA256SUMS").write_text("".join(f"{'0' * 64}  {name}\n" for name in names))

    build_model_folder(folder)

    assert (outside / "thesis.md").read_text() == "mine"
    assert (folder / "link.md").is_symlink()
    assert not (folder / "old.md").exists()


def test_older_checksums_that_cannot_be_read_remove_nothing(folder):
    (folder / "notes.md").write_text("mine")
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  notes.md\nno line\n")

    build_model_folder(folder)

    assert (folder / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "recipe.yaml", "evaluation.json", "notes.md", "images"])
def test_links_that_leave_the_folder_are_refused(folder, tmp_path, capsys, name):
    (tmp_path / "private").mkdir()
    target = tmp_path / "private" / name
    if (folder / name).exists():
        shutil.move(folder / name, target)
    (folder / name).symlink_to(target)

    for command in (["card"], ["verify"], ["publish"]):
        code = main([command[0], str(folder), *(["me/x", "--dry-run"] if command == ["publish"] else [])])
        captured = capsys.readouterr()
        assert code in (1, 2), command
        assert f"{name} in " in captured.out + captured.err
        assert "is a link that leaves the folder" in captured.out + captured.err


def test_snapshots_in_the_cache_of_the_hub_are_links_to_its_blobs(older, tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(older, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")

    assert ModelFolder(snapshot).find_problems() == []
    assert str(ModelFolder(snapshot).render_card()) == (older / "README.md").read_text()


def test_no_path_or_secret_leaves_this_machine(tmp_path):
    token, key = "hf_" + "aB3" * 12, "0123456789abcdef" * 2
    recipe = {
        **RECIPE,
        "data_dir": "/home/anna/secret-project/data",
        "config": {"teacher": "~/secret-project/teacher", "parts": [{"file": "../secret-project/x.npz"}]},
        "windows": "C:\\Users\\secret-project\\weights.bin",
        "tracker": {"wandb_api_key": key, "url": "https://anna:secret-project@tracker.org/run"},
        "report_to": f"hub, token={key}",
        "card_summary": f"Trained with {token} from /home/secret-project/run on a machine.",
        "card_base_model": "/home/secret-project/base",
    }
    command = f"python train.py --config '{{file: /home/secret-project/x.npz}}' {token}"
    model = tiny_model()
    model.config.adapter_base = {"repo_id": "/home/secret-project/base"}
    model.config.id2label = {0: "/m/cat", 1: "dog", 2: "fox"}
    model.config.label2id = {"/m/cat": 0, "dog": 1, "fox": 2}

    folder = build_model_folder(
        tmp_path / "emo-tiny", model, recipe=recipe, evaluation=EVALUATION | {"command": command}
    )

    texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"}
    for planted in ("secret-project", token, key, str(Path.home())):
        assert [name for name, text in texts.items() if planted in text] == []
    saved = ModelFolder(folder)
    assert saved.config["id2label"]["0"] == "/m/cat"
    assert saved.recipe["config"] == {"teacher": "teacher", "parts": [{"file": "x.npz"}]}
    assert saved.recipe["learning_rate"] == 0.002


# The end of a run


@dataclasses.dataclass(kw_only=True)
class RunArguments(CardArguments):
    output_dir: str
    dataset: str = "cifar10"


def build_result(log: Path, is_main_process: bool = True) -> TrainingResult:
    return TrainingResult(tiny_model(), 20, 1.0, {}, 3.25, 0, log.parent, log, is_main_process)


def test_a_run_ends_in_one_call(tmp_path):
    report = Report("Which classes?", ["class", "share"], [["a|b", 0.123456], ["<i>", 1]], "It *holds*.", "make it")
    measurement = Measurement({"accuracy": 0.5}, 7, facts={"note": 3}, report=report)
    arguments = RunArguments(output_dir=str(tmp_path / "run"), card_title="mine")
    facts = {"task": "image-classification", "dataset": "cifar10", "split": "test", "minutes": 0.5}

    folder = save_run(
        arguments, build_result(write_log(tmp_path / "log.jsonl")), tiny_processor(), measurement, **facts
    )

    saved = ModelFolder(folder)
    assert folder == tmp_path / "run" / "model"
    assert saved.find_problems() == []
    assert saved.evaluation["dataset"] == {
        "name": "cifar10",
        "title": "CIFAR-10 (JPEG)",
        "split": "test",
        "num_rows": 7,
        "note": 3,
    }
    assert saved.recipe["card_title"] == "mine"
    assert saved.train_log[-1]["training_minutes"] == 3.2
    assert saved.reports == [report]
    assert "report_which_classes.json" in saved.files
    table = "| class | share |\n| --- | --- |\n| a\\|b | 0.1235 |\n| &lt;i> | 1 |\n"
    assert f"## Which classes?\n\nIt *holds*.\n\n{table}" in (folder / "README.md").read_text()


def test_only_the_main_process_saves(tmp_path):
    result = build_result(write_log(tmp_path / "log.jsonl"), is_main_process=False)
    facts = {"task": "image-classification", "dataset": "cifar10", "split": "test", "minutes": 0.5}

    assert save_run(RunArguments(output_dir=str(tmp_path)), result, None, Measurement({"a": 1.0}, 1), **facts) is None
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"title": "a", "columns": ["b"], "rows": [[1]], "verdict": 3}, "verdict is not so"),
        ({"title": "a", "columns": ["b"], "rows": [3]}, "rows is not so"),
        ({"title": "a", "columns": ["b"], "rows": [[1, 2]]}, "report_a.json: `rows` .* 1 values each; got 2 in row 0"),
        ({"title": "a", "columns": ["b"], "rows": [[1]], "columnz": []}, "columnz is not so"),
    ],
)
def test_odd_reports_are_named(folder, content, message):
    (folder / "report_a.json").write_text(json.dumps(content))

    with pytest.raises(ValueError, match=message):
        ModelFolder(folder).render_card()


def test_reports_need_titles_of_their_own(tmp_path):
    reports = [Report("A b", ["c"], [[1]]), Report("a B?", ["c"], [[1]])]

    with pytest.raises(ValueError, match=r"titles of their own; got 'a B\?' twice"):
        build_model_folder(tmp_path / "emo-tiny", reports=reports)


def test_weights_that_were_not_trained_here_need_no_log(tmp_path):
    saved = build_model_folder(tmp_path / "converted", train_log=None)

    assert not (saved / "train_log.jsonl").exists()
    assert ModelFolder(saved).find_problems() == []


def test_recipe_has_no_path_of_this_machine(folder):
    assert ModelFolder(folder).recipe["output_dir"] == "run"


def test_log_ends_with_time_hardware_and_versions(folder):
    *_, last = ModelFolder(folder).train_log

    assert last["step"] == 20
    assert last["training_minutes"] == 12.3
    assert last["hardware"]
    assert last["versions"]["torch"] == torch.__version__.split("+")[0]


# Thinning of logs


def make_lines(num_lines: int) -> list[str]:
    return [json.dumps({"step": step, "loss": 0.5}) for step in range(num_lines)]


def count_bytes(lines: list[str]) -> int:
    return sum(len(line) + 1 for line in lines)


def test_short_log_is_kept_whole():
    lines = make_lines(30)

    assert thin_log(lines, count_bytes(lines)) == lines


def test_long_log_is_thinned_evenly_and_keeps_its_end():
    lines = make_lines(100)

    kept = thin_log(lines, count_bytes(lines) - 1)

    assert kept == [*lines[::2], lines[-1]]


def test_thinning_spares_evaluations_where_they_fit():
    lines = make_lines(100)
    lines[33] = json.dumps({"step": 33, "eval_accuracy": 0.5})

    kept = thin_log(lines, 500)

    assert lines[33] in kept
    assert count_bytes(kept) <= 500


def test_thinning_takes_evaluations_where_they_alone_are_too_many():
    lines = [json.dumps({"step": step, "eval_accuracy": 0.5}) for step in range(100)]

    kept = thin_log(lines, 500)

    assert 5 < len(kept) < 20
    assert count_bytes(kept) <= 500


def test_saved_log_is_small(tmp_path):
    log = tmp_path / "long_log.jsonl"
    log.write_text("".join(f"{line}\n" for line in make_lines(20_000)))

    saved = build_model_folder(tmp_path / "emo-tiny", train_log=log)

    assert 150_000 < (saved / "train_log.jsonl").stat().st_size <= 200_000
