"""Average precision: pycocotools on the same files, the split of classes, classes without objects, bad input."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from decahub import load_metric
from decahub.data import DATASETS, load_dataset


ATOL = 1e-6
HEIGHT, WIDTH = 48, 40
BASE, NOVEL, EMPTY = [0, 3], [1], 2  # class 2 has no object


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def draw(generator):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    top, left = generator.integers(0, 30), generator.integers(0, 25)
    mask[top : top + generator.integers(5, 18), left : left + generator.integers(5, 15)] = True
    return mask


@pytest.fixture(scope="module")
def images():
    """Detections that are objects, moved a little, some with another class, and a few that are nothing."""
    generator = np.random.default_rng(3)
    predictions, references = [], []
    for _ in range(14):
        objects, found = [], []
        for _ in range(generator.integers(1, 6)):
            mask, label = draw(generator), int(generator.choice([0, 1, 3]))
            objects.append({"segmentation": encode(mask), "label": label, "iscrowd": bool(generator.random() < 0.1)})
            moved = np.roll(mask, generator.integers(-1, 2, size=2), axis=(0, 1))
            guess = label if generator.random() < 0.9 else int(generator.integers(4))
            found.append({"segmentation": encode(moved), "label_id": guess, "score": float(generator.random())})
        found.append({"segmentation": encode(draw(generator)), "label_id": 1, "score": float(generator.random())})
        predictions.append(found)
        references.append(objects)
    return predictions, references


def evaluate_coco(predictions, references, kind, class_ids, use_categories=True):
    """`stats` of pycocotools: AP, AP50, ..."""
    annotations, detections = [], []
    for image_id, (found, objects) in enumerate(zip(predictions, references, strict=True)):
        for item in objects:
            rle = item["segmentation"]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": item["label"], "segmentation": rle,
                 "iscrowd": int(item["iscrowd"]), "area": float(coco_mask.area(rle)),
                 "bbox": coco_mask.toBbox(rle).tolist()}
            )  # fmt: skip
        detections += [
            {"image_id": image_id, "category_id": item["label_id"], "segmentation": item["segmentation"],
             "score": item["score"]}
            for item in found
        ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [
                {"id": image_id, **dict(zip(("height", "width"), objects[0]["segmentation"]["size"], strict=True))}
                for image_id, objects in enumerate(references)
                if objects
            ],
            "annotations": annotations,
            "categories": [{"id": class_id} for class_id in range(80)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(json.loads(json.dumps(detections))), kind)
        evaluation.params.catIds = class_ids
        evaluation.params.useCats = int(use_categories)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize(
    ("name", "kind", "class_ids"),
    [
        ("AP", "segm", [0, 1, 2, 3]),
        ("nAP", "segm", NOVEL),
        ("bAP", "segm", BASE),
        ("box_AP", "bbox", [0, 1, 2, 3]),
        ("box_nAP", "bbox", NOVEL),
        ("box_bAP", "bbox", BASE),
    ],
)
def test_equals_pycocotools(images, name, kind, class_ids):
    expected = evaluate_coco(*images, kind, class_ids)

    result = load_metric("few_shot_map").compute(
        predictions=images[0], references=images[1], base_label_ids=BASE, novel_label_ids=NOVEL
    )

    assert 0.05 < expected[0] < 0.95, "a value that mistakes would change"
    assert result[name] == pytest.approx(expected[0], abs=ATOL)
    if kind == "segm":
        assert result[f"{name}50"] == pytest.approx(expected[1], abs=ATOL)


def test_equals_pycocotools_on_perturbed_photographs(data_dir):
    """Real objects, some of them crowds: moved by a pixel or two, with random scores, some of another class."""
    generator = np.random.default_rng(0)
    rows = load_dataset("coco_mini_seg", data_dir)["test"].select(range(60))
    names = rows.features["annotations"].feature["label"].names
    predictions, references = [], []
    for row in rows:
        objects = [{**one, "segmentation": json.loads(one["segmentation"])} for one in row["annotations"]]
        references.append(objects)
        found = []
        for one in objects:
            moved = np.roll(coco_mask.decode(one["segmentation"]), generator.integers(-2, 3, size=2), axis=(0, 1))
            label = one["label"] if generator.random() < 0.85 else int(generator.integers(80))
            found.append({"segmentation": encode(moved), "label_id": label, "score": float(generator.random())})
        predictions.append(found)
    novel = [names.index(name) for name in DATASETS["coco_mini_seg"].novel_labels]
    base = [label for label in range(80) if label not in novel]

    result = load_metric("few_shot_map").compute(
        predictions=predictions, references=references, base_label_ids=base, novel_label_ids=novel
    )

    for name, class_ids in (("AP", list(range(80))), ("nAP", novel), ("bAP", base)):
        for prefix, kind in (("", "segm"), ("box_", "bbox")):
            expected = evaluate_coco(predictions, references, kind, class_ids)
            assert 0.2 < expected[0] < 0.95
            assert result[f"{prefix}{name}"] == pytest.approx(expected[0], abs=ATOL)


def test_class_agnostic_ap_is_that_of_one_class(images):
    as_one = [[{**item, "label_id": 0} for item in image] for image in images[0]]
    objects = [[{**item, "label": 0} for item in image] for image in images[1]]

    result = load_metric("few_shot_map").compute(predictions=images[0], references=images[1])

    expected = evaluate_coco(as_one, objects, "segm", [0])
    assert result["class_agnostic_AP50"] == pytest.approx(expected[1], abs=ATOL)


def test_is_a_mean_over_classes_with_objects(images):
    result = load_metric("few_shot_map").compute(
        predictions=images[0], references=images[1], base_label_ids=[0, EMPTY], novel_label_ids=NOVEL
    )

    by_class = result["per_category_AP"]
    assert sorted(by_class) == [0, 1]
    assert result["bAP"] == pytest.approx(by_class[0])
    assert result["AP"] == pytest.approx(np.mean(list(by_class.values())))


def test_batches_add_up(images):
    metric = load_metric("few_shot_map")
    metric.add_batch(predictions=images[0][:4], references=images[1][:4])
    for found, objects in zip(images[0][4:], images[1][4:], strict=True):
        metric.add(prediction=found, reference=objects)

    whole = load_metric("few_shot_map").compute(predictions=images[0], references=images[1])

    assert metric.compute() == whole


def test_a_group_without_objects_has_no_score(images):
    result = load_metric("few_shot_map").compute(
        predictions=images[0], references=images[1], base_label_ids=BASE, novel_label_ids=[EMPTY]
    )

    assert result["nAP"] is None
    assert result["AP"] == pytest.approx(result["bAP"])


def test_finding_nothing_scores_zero(images):
    result = load_metric("few_shot_map").compute(predictions=[[]] * len(images[1]), references=images[1])

    assert result["AP"] == 0


RLE = encode(np.eye(HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("prediction", "reference", "options", "message"),
    [
        ({"segmentation": RLE, "label_id": 0}, {"segmentation": RLE, "label": 0}, {}, "must have `score`"),
        ({"segmentation": RLE, "label_id": 0, "score": float("nan")}, {"segmentation": RLE, "label": 0}, {}, "finite"),
        ({"segmentation": [[1, 2]], "label_id": 0, "score": 1}, {"segmentation": RLE, "label": 0}, {}, "COCO RLE"),
        ({"segmentation": RLE, "label_id": 0, "score": 1}, {"segmentation": RLE}, {}, "must have `label`"),
        (
            {"segmentation": RLE, "label_id": 0, "score": 1},
            {"segmentation": RLE, "label": 0},
            {"base_label_ids": [0], "novel_label_ids": [0]},
            r"disjoint; both hold \[0\]",
        ),
        (
            {"segmentation": RLE, "label_id": 0, "score": 1},
            {"segmentation": RLE, "label": 0},
            {"base_label_ids": [1]},
            "an object of a measured class; got none",
        ),
    ],
    ids=["no score", "nan", "polygons", "no label", "both", "nothing"],
)
def test_refuses(prediction, reference, options, message):
    with pytest.raises(ValueError, match=message):
        load_metric("few_shot_map").compute(predictions=[[prediction]], references=[[reference]], **options)


def test_refuses_masks_of_two_sizes():
    other = {"segmentation": encode(np.eye(HEIGHT, WIDTH + 1)), "label": 0}
    with pytest.raises(ValueError, match="those of image 0 have"):
        load_metric("few_shot_map").compute(
            predictions=[[{"segmentation": RLE, "label_id": 0, "score": 1}]], references=[[other]]
        )


def test_refuses_another_number_of_images():
    with pytest.raises(ValueError, match="got 1 and 2"):
        load_metric("few_shot_map").compute(predictions=[[]], references=[[], []])
