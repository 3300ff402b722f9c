"""What `decahub publish` puts on the Hub, and what it refuses to."""

import hashlib
import shutil

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from decahub.hub import ModelFolder, publish, stage_repository
from decahub.hub.files import hash_file, list_files, read_json, write_json, write_yaml
from decahub.hub.flattening import flatten_modules
from decahub.registry import METHODS, find_modules
from tests.hub.builders import refresh
from tests.hub.conftest import CLASSIFIER


ROOM_FILES = set(flatten_modules(find_modules(METHODS["emo"], METHODS["emo"].models[0]).values()))
FOLDER_FILES = {
    "README.md",
    "SHA256SUMS",
    "config.json",
    "evaluation.json",
    "model.safetensors",
    "preprocessor_config.json",
    "recipe.yaml",
    "train_log.jsonl",
}


@pytest.fixture(scope="module")
def newest(published):
    """Content of the repository: path -> bytes."""
    return published.repository.trees[published.repository.branches["main"][-1]]


@pytest.fixture
def folder(classifier_folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(classifier_folder, tmp_path / "emo-tiny")


@pytest.fixture
def staging(tmp_path):
    path = tmp_path / "staging"
    path.mkdir()
    return path


def test_one_commit(published):
    commits = [path for method, path, _ in published.requests if method == "POST" and "/commit/" in path]

    assert commits == [f"/api/models/{CLASSIFIER}/commit/main"]


def test_repository_holds_the_folder_and_the_room(newest):
    assert set(newest) == FOLDER_FILES | ROOM_FILES | {".gitattributes"}


def test_checksums_cover_what_was_published(newest):
    lines = [line.split("  ") for line in newest["SHA256SUMS"].decode().splitlines()]

    assert {name: digest for digest, name in lines} == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in newest.items()
        if name not in ("SHA256SUMS", ".gitattributes")
    }


def test_the_folder_itself_stays_as_it_is(published, classifier_folder):
    assert set(list_files(classifier_folder)) == FOLDER_FILES - {"SHA256SUMS"}
    assert "auto_map" not in read_json(classifier_folder / "config.json")
    assert "card_repo_id" not in ModelFolder(classifier_folder).recipe


def test_card_of_a_repository_says_that_it_ships_code(newest):
    card = ModelCard(newest["README.md"].decode())

    assert "custom_code" in card.data.tags


def test_card_of_a_repository_shows_the_plain_import_first(newest):
    text = newest["README.md"].decode()

    plain = text.index(f'pipeline("image-classification", model="{CLASSIFIER}", trust_remote_code=False)')
    remote = text.index(f'pipeline("image-classification", model="{CLASSIFIER}", trust_remote_code=True)')
    assert text.index("import decahub") < plain < remote


def test_auto_map_names_the_bare_model_the_backbone_and_the_heads(newest):
    assert yaml.safe_load(newest["config.json"])["auto_map"] == {
        "AutoConfig": "configuration_emo.EmoConfig",
        "AutoModel": "modeling_emo.EmoModel",
        "AutoBackbone": "modeling_emo.EmoBackbone",
        "AutoModelForImageClassification": "modeling_emo.EmoForImageClassification",
        "AutoModelForSemanticSegmentation": "modeling_emo.EmoForSemanticSegmentation",
    }


def test_second_version_is_one_commit_that_removes_what_is_outdated(hub, run_client, folder):
    hub.create("someone/second").trees[hub.repositories["someone/second"].branches["main"][0]]["old.png"] = b"png"

    done = run_client("-m", "decahub.cli.main", "publish", folder, "someone/second", "--message", "Second version")

    repository = hub.repositories["someone/second"]
    assert done.returncode == 0, done.stderr
    assert [repository.messages[sha] for sha in repository.branches["main"]] == ["initial commit", "Second version"]
    assert set(repository.trees[repository.branches["main"][-1]]) == FOLDER_FILES | ROOM_FILES | {".gitattributes"}


def test_publishes_to_a_branch_of_a_private_repository(hub, run_client, folder):
    options = ["--private", "--revision", "candidate"]

    done = run_client("-m", "decahub.cli.main", "publish", folder, "someone/private", *options)

    repository = hub.repositories["someone/private"]
    assert done.returncode == 0, done.stderr
    assert repository.private
    assert set(repository.trees[repository.resolve("main")]) == {".gitattributes"}
    assert "model.safetensors" in repository.trees[repository.resolve("candidate")]


def test_a_public_repository_gets_nothing_that_is_to_be_private(hub, run_client, folder):
    hub.create("someone/public")

    done = run_client("-m", "decahub.cli.main", "publish", folder, "someone/public", "--private")

    assert done.returncode == 2
    assert "someone/public exists and is public" in done.stderr
    assert list(hub.repositories["someone/public"].messages.values()) == ["initial commit"]


def spoil_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")


def add_pickle(folder):
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    ModelFolder(folder).write_checksums()


def add_compiled_python(folder):
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "room.cpython-311.pyc").write_bytes(b"\0")
    ModelFolder(folder).write_checksums()


def remove_texts(folder):
    recipe = ModelFolder(folder).recipe
    del recipe["card_limits"], recipe["card_summary"]
    write_yaml(folder / "recipe.yaml", recipe)
    refresh(folder)


def add_token(folder):
    ModelFolder(folder).set_recipe_value("report_to", "https://me:secret@tracker.org")
    refresh(folder)


def add_key(folder):
    (folder / "chat.jinja").write_text("-----BEGIN RSA PRIVATE KEY-----")
    ModelFolder(folder).write_checksums()


def add_token_to_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "by": "npm_" + "a1" * 18})
    ModelFolder(folder).write_checksums()


def add_password(folder):
    write_json(folder / "config.json", read_json(folder / "config.json") | {"tracker": {"password": "x"}})
    refresh(folder)


def add_path(folder):
    ModelFolder(folder).set_recipe_value("teacher", "/home/me/teacher")
    refresh(folder)


def link_outside(folder):
    (folder / "notes.md").symlink_to("/etc/hostname")


def name_class_of_another_room(folder):
    write_json(folder / "config.json", read_json(folder / "config.json") | {"architectures": ["RawGnnModel"]})
    ModelFolder(folder).write_checksums()


def change_weights(change):
    """Changes the tensors of a folder and leaves its checksums right."""

    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        ModelFolder(folder).write_checksums()

    return spoil


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")
    ModelFolder(folder).write_checksums()


def remove_weights(folder):
    (folder / "model.safetensors").unlink()
    ModelFolder(folder).write_checksums()


def name_the_bare_model(folder):
    write_json(folder / "config.json", read_json(folder / "config.json") | {"architectures": ["EmoModel"]})
    refresh(folder)


BIAS = "classifier.bias"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_weights(lambda tensors: tensors[BIAS].fill_(float("nan"))), "`classifier.bias` holds NaN or infinity"),
        (change_weights(lambda tensors: tensors.pop(BIAS)), "1 missing tensors, the first is classifier.bias"),
        (
            change_weights(lambda tensors: tensors.update({BIAS: torch.zeros(5)})),
            r"`classifier.bias` has \(5,\) in the file, \(3,\) in the model",
        ),
        (change_weights(lambda tensors: tensors.update({BIAS: tensors[BIAS].half()})), "`classifier.bias` is float16"),
        (empty_weights, "must be a complete safetensors file"),
        (remove_weights, "must hold its weights"),
        (name_the_bare_model, "2 unexpected tensors, the first is classifier.bias"),
    ],
    ids=["NaN", "missing", "shape", "precision", "empty", "absent", "bare model"],
)
def test_weights_that_do_not_load_are_never_staged(folder, staging, spoil, message):
    spoil(folder)

    with pytest.raises((ValueError, FileNotFoundError), match=message):
        stage_repository(folder, "someone/broken", staging)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("null", "`preprocessor_config.json` in .* must hold a JSON object with the processor's settings; got null"),
        ("[1]", r"must hold a JSON object with the processor's settings; got \[1\]"),
        ("{}", "must hold a JSON object with the processor's settings; got {}"),
        ('{"a": ', "`preprocessor_config.json` in .* must be JSON"),
        ('{"image_processor_type": "NoSuch"}', "The configuration of the processor in .* cannot be used"),
        (None, "must be complete, with preprocessor_config.json or processor_config.json"),
    ],
)
def test_a_processor_that_does_not_load_is_never_staged(folder, staging, content, message):
    path = folder / "preprocessor_config.json"
    path.unlink() if content is None else path.write_text(content)
    ModelFolder(folder).write_checksums()

    with pytest.raises((ValueError, OSError), match=message) as caught:
        stage_repository(folder, "someone/broken", staging)
    assert len(str(caught.value)) < 600
    assert "huggingface.co" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_weights, "model.safetensors does not match the hash in SHA256SUMS"),
        (add_pickle, "pytorch_model.bin"),
        (add_compiled_python, "room.cpython-311.pyc"),
        (remove_texts, "needs its texts; card_summary, card_limits are missing"),
        (add_token, "recipe.yaml holds what looks like an access token or password"),
        (add_key, "chat.jinja holds what looks like an access token or password"),
        (add_token_to_weights, "model.safetensors holds what looks like an access token or password"),
        (add_password, "`tracker` in config.json holds one"),
        (add_path, "`teacher` in recipe.yaml holds one"),
        (link_outside, "notes.md in .* is a link that leaves the folder"),
        (name_class_of_another_room, "`architectures` in config.json must be a list with one of EmoModel"),
        (lambda folder: (folder / "README.md").unlink(), "README.md is missing"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "must hold SHA256SUMS"),
    ],
    ids=[
        "tampered",
        "pickle",
        "compiled",
        "no texts",
        "token",
        "key",
        "metadata",
        "password",
        "path",
        "link",
        "other room",
        "no card",
        "no checksums",
    ],
)
def test_broken_folder_is_refused_before_any_request(folder, spoil, message):
    spoil(folder)

    # A request would raise OfflineModeIsEnabled here, which is no ValueError.
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        publish(folder, "someone/broken")


def test_refuses_a_repository_without_owner(classifier_folder, staging):
    with pytest.raises(ValueError, match="`repo_id` must be '<owner>/<name>'; got 'emo-tiny'"):
        stage_repository(classifier_folder, "emo-tiny", staging)


def test_staging_does_not_change_the_weights(classifier_folder, staging):
    stage_repository(classifier_folder, "someone/emo-tiny", staging)

    assert hash_file(staging / "model.safetensors") == hash_file(classifier_folder / "model.safetensors")
