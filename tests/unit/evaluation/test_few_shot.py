"""Measuring few-shot segmentation: the model's memory, its classes, and the metric on what the processor returns."""

import json

import pytest
import torch

from decahub import RefTImageProcessor, RefTProcessor, load_metric
from decahub.data import load_dataset
from decahub.evaluation import evaluate_model
from decahub.tasks import get_task
from tests.tiny.instances import HEIGHT, ORDERED, WIDTH, write_coco_folder
from tests.tiny.reft import SUPPORT_SIZE, tiny_model


TASK = "few-shot-instance-segmentation"
LABELS = {"id2label": dict(enumerate(ORDERED)), "label2id": {name: index for index, name in enumerate(ORDERED)}}
SHOTS = {"kite": [103, 107], "dot": [101], "bar": [100]}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return load_dataset(write_coco_folder(tmp_path_factory.mktemp("coco") / "shapes"), family=TASK)


@pytest.fixture(scope="module")
def processor():
    size = {"height": HEIGHT, "width": WIDTH}
    return RefTProcessor(RefTImageProcessor(size=size, support_size=SUPPORT_SIZE))


def register(model, splits, processor, names=tuple(SHOTS)):
    from decahub.data.few_shot_instance_segmentation import collect_shots

    shots = collect_shots(splits["train"], {name: SHOTS[name] for name in names})
    model.support_memory = model.register_support(shots, processor=processor)
    return model


def test_scores_are_those_of_the_metric(splits, processor):
    model = tiny_model(**LABELS, base_label_ids=[0, 1], novel_label_ids=[2])
    predictions, references = [], []
    for row in splits["test"]:
        inputs = processor(row["image"], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        predictions += processor.post_process_instance_segmentation(
            outputs, threshold=0.0, target_sizes=[(HEIGHT, WIDTH)], return_coco_annotation=True
        )
        references.append([{**one, "segmentation": json.loads(one["segmentation"])} for one in row["annotations"]])
    expected = load_metric("few_shot_map").compute(
        predictions=predictions, references=references, base_label_ids=[0, 1], novel_label_ids=[2]
    )

    measured = evaluate_model(model, processor, splits["test"], TASK, batch_size=3)

    for name in ("nAP", "AP", "bAP50", "box_AP", "class_agnostic_AP50"):
        assert measured.scores[name] == pytest.approx(expected[name], abs=1e-6)
    assert measured.scores["AP_kite"] == pytest.approx(expected["per_category_AP"][2], abs=1e-6)
    assert next(iter(measured.scores)) == "nAP"
    assert measured.num_rows == 4


@pytest.mark.parametrize("classifier", ["prototype", "linear"])
def test_the_order_of_the_memory_does_not_matter(splits, processor, classifier):
    scores = []
    for names in (("kite", "dot", "bar"), ("dot", "bar", "kite")):
        model = register(tiny_model(**LABELS, classifier=classifier), splits, processor, names)
        scores.append(evaluate_model(model, processor, splits["test"], TASK).scores)

    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_the_memory_of_the_model_is_used(splits, processor):
    model = tiny_model(**LABELS)
    without = evaluate_model(model, processor, splits["test"], TASK)

    with_memory = evaluate_model(register(model, splits, processor), processor, splits["test"], TASK)

    assert without.facts == {}
    assert with_memory.facts == {"num_ways": 3, "num_shots": 2}
    assert get_task(TASK).describe_measurement(with_memory.facts) == (
        "Measured with support of 3 classes, up to 2 shots of each."
    )


def test_a_sample_can_be_measured(splits, processor):
    assert evaluate_model(tiny_model(**LABELS), processor, splits["test"], TASK, limit=3).num_rows == 3


def test_refuses_a_prototype_head_without_memory(splits, processor):
    with pytest.raises(ValueError, match="`model.support_memory` must be set for a prototype classifier"):
        evaluate_model(tiny_model(**LABELS, classifier="prototype"), processor, splits["test"], TASK)


def test_refuses_a_memory_of_other_classes(splits, processor):
    labels = {"id2label": dict(enumerate("abc")), "label2id": {name: index for index, name in enumerate("abc")}}
    model = register(tiny_model(**labels, classifier="prototype"), splits, processor)

    with pytest.raises(ValueError, match="must name the dataset's classes"):
        evaluate_model(model, processor, splits["test"], TASK)


def test_refuses_a_model_of_other_classes(splits, processor):
    with pytest.raises(ValueError, match="as many classes as the dataset, 3; got 5"):
        evaluate_model(tiny_model(), processor, splits["test"], TASK)
