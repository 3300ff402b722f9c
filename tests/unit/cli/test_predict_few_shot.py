"""`decahub predict` with examples: folders and COCO files of support, memories, overlays and JSON, clear errors."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from decahub import RefTImageProcessor, RefTProcessor
from decahub.cli.main import main
from tests.tiny.instances import write_coco_folder
from tests.tiny.reft import HEIGHT, SUPPORT_SIZE, WIDTH, tiny_model


LOW = ("--threshold", "0", "--max-detections", "5")  # random weights are sure of nothing


def run(*words):
    return main(["predict", *map(str, words)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reft")
    tiny_model(classifier="prototype").save_pretrained(folder)
    processor = RefTImageProcessor(size={"height": HEIGHT, "width": WIDTH}, support_size=SUPPORT_SIZE)
    RefTProcessor(processor).save_pretrained(folder)
    return folder


def save_noise(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path, top=5):
    mask = np.zeros((50, 70), dtype=np.uint8)
    mask[top : top + 20, 10:40] = 255
    Image.fromarray(mask).save(path)


@pytest.fixture
def image(tmp_path):
    return save_noise(tmp_path / "scene.png")


@pytest.fixture
def support(tmp_path):
    """Two classes; the second image of cats shows two."""
    folder = tmp_path / "support"
    for seed, name in enumerate(("cat/1.jpg", "cat/2.png", "ball/1.png"), start=1):
        path = save_noise(folder / name, seed)
        save_mask(path.with_name(f"{path.stem}_mask.png"))
    save_mask(folder / "cat" / "2_mask_2.png", top=25)
    return folder


def test_writes_an_overlay_and_json(model, image, support, tmp_path, capsys):
    assert run(model, image, "--support", support, *LOW, "--output-dir", tmp_path / "out") == 0

    instances = json.loads((tmp_path / "out" / "scene_instances.json").read_text())
    assert 0 < len(instances) <= 5
    assert {item["label"] for item in instances} <= {"cat", "ball"}
    assert coco_mask.decode(instances[0]["segmentation"]).shape == (50, 70)
    with Image.open(tmp_path / "out" / "scene_instances.png") as overlay, Image.open(image) as before:
        assert overlay.size == before.size
        assert not np.array_equal(np.asarray(overlay), np.asarray(before))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["image", "class", "score", "box"]
    assert len(lines) == 2 + len(instances)


def test_says_when_nothing_is_found(model, image, support, capsys):
    assert run(model, image, "--support", support, "--threshold", "1") == 0

    assert "none" in capsys.readouterr().out
    assert json.loads(image.with_name("scene_instances.json").read_text()) == []


def read(path):
    return json.loads((path / "scene_instances.json").read_text())


def test_each_mask_is_an_example(model, image, support, tmp_path):
    assert run(model, image, "--support", support, *LOW, "--save-support-memory", tmp_path / "memory") == 0

    loaded = tiny_model(classifier="prototype").load_support_memory(tmp_path / "memory")
    assert loaded.shot_counts == {"ball": 1, "cat": 3}


def test_a_memory_answers_as_its_examples(model, image, support, tmp_path):
    memory, first, second = (tmp_path / name for name in ("memory", "first", "second"))
    words = (model, image, *LOW)
    assert run(*words, "--support", support, "--save-support-memory", memory, "--output-dir", first) == 0

    assert run(*words, "--support-memory", memory, "--output-dir", second) == 0

    assert read(first) == read(second)


def test_support_may_be_a_coco_file(model, image, tmp_path):
    folder = write_coco_folder(tmp_path / "shapes")

    assert run(model, image, "--support", folder / "train.json", *LOW, "--output-dir", tmp_path / "out") == 0

    assert {item["label"] for item in read(tmp_path / "out")} <= {"dot", "bar", "kite"}


def drop(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop("cat/1_mask.png"), "1_mask.png' does not exist"),
        (drop("ball/1.png"), "must hold an image for each mask"),
        (lambda folder: folder.rename(folder.with_name("elsewhere")), "is neither"),
        (lambda folder: save_noise(folder / "cat" / "1_mask.png"), "must be gray"),
        (lambda folder: [path.unlink() for path in folder.rglob("*.*")], "holds none"),
        (
            lambda folder: save_noise(folder / "cat" / "1.png"),
            "images of different names; 'cat/1.jpg' and 'cat/1.png'",
        ),
        (lambda folder: (folder / "dog").mkdir(), "an image and a mask for each class; 'dog' holds none"),
    ],
    ids=["no mask", "no image", "no folder", "colors", "empty", "one name", "empty class"],
)
def test_refuses_support(model, image, support, spoil, message, capsys):
    spoil(support)

    assert run(model, image, "--support", support) == 2

    assert message in capsys.readouterr().err


def test_refuses_a_prototype_model_without_support(model, image, capsys):
    assert run(model, image) == 2

    assert "its classes are those of the support" in capsys.readouterr().err


def test_refuses_a_memory_without_examples(model, image, tmp_path, capsys):
    assert run(model, image, "--save-support-memory", tmp_path) == 2

    assert "must come with `--support`" in capsys.readouterr().err


def test_keeps_the_memory_that_is_there(model, image, support, tmp_path, monkeypatch, capsys):
    words = (model, image, "--support", support, *LOW, "--save-support-memory", tmp_path / "memory")
    path = tmp_path / "memory" / "support_memory.safetensors"
    path.parent.mkdir()
    path.write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr("decahub.tasks.Task.build_predictor", None)  # refused before a model is loaded
        assert run(*words) == 2

    assert (
        f"`{path}` exists already. Choose another `--save-support-memory`, or replace it with `--overwrite`."
        in capsys.readouterr().err
    )
    assert path.read_text() == "mine"
    assert run(*words, "--overwrite") == 0
    assert tiny_model(classifier="prototype").load_support_memory(path.parent).class_names == ["ball", "cat"]
