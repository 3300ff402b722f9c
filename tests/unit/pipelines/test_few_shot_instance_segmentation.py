"""The pipeline "few-shot-instance-segmentation": examples in each form, memories, JSON out, overlays, clear errors."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from transformers import pipeline

from decahub import FewShotInstanceSegmentationPipeline, RefTImageProcessor, RefTProcessor
from tests.tiny.reft import HEIGHT, NUM_LABELS, SUPPORT_SIZE, WIDTH, tiny_model


TASK = "few-shot-instance-segmentation"
NAMES = ["ant", "bee", "cow", "dog", "eel"]
LOW = {"threshold": 0.0, "max_detections": 6}  # random weights are sure of nothing


def build_processor():
    return RefTProcessor(RefTImageProcessor(size={"height": HEIGHT, "width": WIDTH}, support_size=SUPPORT_SIZE))


def draw_image(seed=0, size=(70, 50)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def draw_mask(size=(70, 50)):
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[10:30, 20:50] = True
    return mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reft")
    tiny_model(classifier="prototype").save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segment(folder):
    return pipeline(TASK, model=str(folder))


@pytest.fixture
def support():
    return {
        "cat": [(draw_image(1), draw_mask()), (draw_image(2), draw_mask())],
        "ball": [(draw_image(3), draw_mask())],
    }


@pytest.fixture(scope="module")
def linear():
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    return pipeline(TASK, model=tiny_model(**labels), processor=build_processor())


def test_answers_are_those_of_the_parts(segment, support):
    image = draw_image()
    memory = segment.model.register_support(support, processor=segment.processor)
    inputs = segment.processor(image, return_tensors="pt")
    with torch.no_grad():
        outputs = segment.model(**inputs, support_memory=memory)
    expected = segment.processor.post_process_instance_segmentation(
        outputs, target_sizes=[(50, 70)], pixel_mask=inputs["pixel_mask"], label_names=["cat", "ball"], **LOW
    )[0]

    answer = segment(image, support=support, **LOW)

    assert isinstance(segment, FewShotInstanceSegmentationPipeline)
    assert 0 < len(answer) <= 6
    assert json.loads(json.dumps(answer)) == answer
    assert [item["label"] for item in answer] == [item["label"] for item in expected]
    assert [item["score"] for item in answer] == pytest.approx([item["score"] for item in expected])
    assert [item["box"] for item in answer] == [item["box"] for item in expected]
    for item, wanted in zip(answer, expected, strict=True):
        assert np.array_equal(coco_mask.decode(item["segmentation"]).astype(bool), wanted["mask"].numpy())


def write_files(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "a_mask.png")]
    draw_image(1).save(paths[0])
    Image.fromarray(draw_mask()).save(paths[1])
    return tuple(paths)


FORMS = {
    "box": lambda path: (draw_image(1), [20, 10, 50, 30]),
    "polygons": lambda path: (draw_image(1), [[20, 10, 50, 10, 50, 30, 20, 30]]),
    "rle": lambda path: (draw_image(1), coco_mask.encode(np.asfortranarray(draw_mask(), dtype=np.uint8))),
    "image": lambda path: (draw_image(1), Image.fromarray(draw_mask())),
    "files": write_files,
}


@pytest.mark.parametrize("form", FORMS)
def test_examples_have_many_forms(segment, form, tmp_path):
    expected = segment(draw_image(), support={"cat": [(draw_image(1), draw_mask())]}, **LOW)

    answer = segment(draw_image(), support={"cat": [FORMS[form](tmp_path)]}, **LOW)

    assert answer == expected


def test_a_list_is_answered_image_by_image(segment, support, tmp_path):
    draw_image(5, (40, 61)).save(tmp_path / "other.png")
    images = [draw_image(), str(tmp_path / "other.png")]

    answers = segment(images, support=support, **LOW)

    assert answers == [segment(image, support=support, **LOW) for image in images]
    assert answers[1][0]["segmentation"]["size"] == [61, 40]


def test_an_array_is_an_image(segment, support):
    assert segment(np.asarray(draw_image()), support=support, **LOW) == segment(draw_image(), support=support, **LOW)


@pytest.mark.parametrize("is_path", [True, False], ids=["path", "object"])
def test_support_may_be_remembered(segment, support, is_path, tmp_path):
    memory = segment.build_memory(support)
    memory.save_pretrained(tmp_path)

    answer = segment(draw_image(), support_memory=tmp_path if is_path else memory, **LOW)

    assert answer == segment(draw_image(), support=support, **LOW)


def test_a_memory_beside_the_weights_is_used(segment, support, folder, tmp_path):
    memory = segment.build_memory(support)
    segment.model.save_pretrained(tmp_path, support_memory=memory)
    segment.processor.save_pretrained(tmp_path)

    loaded = pipeline(TASK, model=str(tmp_path))

    assert loaded(draw_image(), **LOW) == segment(draw_image(), support=support, **LOW)
    assert segment.model.support_memory is None, "a call leaves the model as it is"


def test_a_linear_head_answers_without_support(linear):
    answer = linear(draw_image(), **LOW)

    assert {item["label"] for item in answer} <= set(NAMES)
    assert linear.model.config.num_labels == NUM_LABELS


def test_support_changes_the_answers_of_a_linear_head(linear):
    support = {"bee": [(draw_image(1), draw_mask())]}

    assert linear(draw_image(), support=support, **LOW) != linear(draw_image(), **LOW)


def test_the_threshold_leaves_out_what_is_unsure(linear):
    answer = linear(draw_image(), **LOW)
    middle = answer[2]["score"]

    kept = linear(draw_image(), **{**LOW, "threshold": middle})

    assert kept == [item for item in answer if item["score"] >= middle]


def test_overlay_paints_instances_alone(linear):
    image = draw_image()
    mask = draw_mask()
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    instance = {"label": "ant", "label_id": 0, "score": 0.9, "box": [20, 10, 50, 30], "segmentation": rle}

    overlay = linear.draw_overlay(image, [instance])

    before, after = np.asarray(image).astype(int), np.asarray(overlay).astype(int)
    assert overlay.size == image.size
    assert np.array_equal(before[32:], after[32:])
    inner = np.s_[13:28, 23:48]
    assert np.abs(2 * after[inner] - before[inner] - np.array([255, 64, 64])).max() <= 1
    assert np.array_equal(np.asarray(linear.draw_overlay(image, [])), before)


SHOT = (draw_image(1), draw_mask())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"support": {"cat": [SHOT]}, "support_memory": "folder"}, "must not be given with `support_memory`"),
        ({"support": {}}, "at least one class"),
        ({"support": {"cat": []}}, "'cat' has none"),
        ({"support": {"cat": [(draw_image(1), np.zeros((50, 70), dtype=bool))]}}, "'cat' has none"),
        ({"support": {"cat": [(draw_image(1), np.ones((9, 9), dtype=bool))]}}, "50 x 70; got 9 x 9"),
        ({}, "its classes are those of the support"),
        ({"support": {"cat": [SHOT]}, "threshold": 2}, r"`threshold` must be in \[0, 1\]; got 2"),
        ({"support": {"cat": [SHOT]}, "max_detections": 0}, "`max_detections` must be a whole number"),
        ({"support": {"cat": [SHOT]}, "batch_size": 2}, "`batch_size` must be 1"),
    ],
    ids=["both", "empty", "no shot", "empty mask", "size", "none", "threshold", "detections", "batch"],
)
def test_refuses(segment, options, message):
    with pytest.raises(ValueError, match=message):
        segment(draw_image(), **options)


def test_refuses_an_unknown_class_of_a_linear_head(linear):
    with pytest.raises(ValueError, match="'cat' is none of"):
        linear(draw_image(), support={"cat": [SHOT]})


def test_refuses_an_empty_list(segment, support):
    with pytest.raises(ValueError, match="at least one image; got an empty list"):
        segment([], support=support)


def test_refuses_a_mask_in_colors(segment, tmp_path):
    draw_image(1).save(tmp_path / "mask.png")

    with pytest.raises(ValueError, match=r"mask\.png' must be gray.*got colors"):
        segment(draw_image(), support={"cat": [(draw_image(1), str(tmp_path / "mask.png"))]})


def test_refuses_the_memory_of_another_model(segment, support, tmp_path):
    tiny_model(classifier="prototype", support_topk=3).register_support(
        support, processor=segment.processor
    ).save_pretrained(tmp_path)

    with pytest.raises(ValueError, match="config"):
        segment(draw_image(), support_memory=str(tmp_path))
