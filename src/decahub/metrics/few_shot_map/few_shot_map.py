"""COCO average precision of masks and boxes, split into base and novel classes."""

import contextlib
import io
import json

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Average precision as COCO defines it: IoU thresholds 0.50 to 0.95 in steps of 0.05, 101 recall points, at most 100
detections per image, objects of all sizes. pycocotools matches and accumulates. Scores are means over classes that
have at least one object:

- "AP", "AP50": all measured classes, over all thresholds and at IoU 0.50;
- "nAP", "nAP50": novel classes; "bAP", "bAP50": base classes;
- "class_agnostic_AP50": as if all objects and all detections, measured or not, were of one class;
- "box_AP", "box_nAP", "box_bAP": the same for boxes around the masks.

Detections on crowds do not count.
"""

_INPUTS = """
Args:
    predictions (list of lists of dicts): for each image its detections with "segmentation" (COCO RLE), "label_id" and
        "score".
    references (list of lists of dicts): for each image its objects with "segmentation" (COCO RLE), "label" and, where
        it is a crowd, "iscrowd".
    base_label_ids (list of int, optional): base classes; only for `compute`.
    novel_label_ids (list of int, optional): novel classes; only for `compute`. With either of them, classes in neither
        are left out.

Returns:
    dict: the scores, floats in [0, 1], None where no measured class has an object; "per_category_AP" (dict of label id
    to AP, of classes that have objects); "num_objects".

Example:
    >>> metric = decahub.load_metric("few_shot_map")
    >>> rle = {"size": [2, 2], "counts": "02"}
    >>> prediction = {"segmentation": rle, "label_id": 0, "score": 0.9}
    >>> metric.compute(predictions=[[prediction]], references=[[{"segmentation": rle, "label": 0}]])["AP"]
    1.0
"""

_CITATION = ""

MAX_DETECTIONS = 100
ALL_SIZES = 0  # place of the area range "all" in the tables of pycocotools
IOU_50 = 0  # place of the threshold 0.50


def read_objects(images, name, label_key):
    """One JSON text for each image, checked."""
    texts = []
    for number, image in enumerate(images):
        objects = []
        for item in image:
            missing = [key for key in ("segmentation", label_key) if key not in item]
            if name == "predictions" and "score" not in item:
                missing.append("score")
            if missing:
                raise ValueError(f"`{name}` must have `{missing[0]}` for each object; image {number} has one without.")
            rle = item["segmentation"]
            if not isinstance(rle, dict) or "counts" not in rle or "size" not in rle:
                raise ValueError(f"`segmentation` in `{name}` must be a COCO RLE; got {type(rle).__name__}.")
            counts = rle["counts"]
            entry = {
                "segmentation": {
                    "size": [int(side) for side in rle["size"]],
                    "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
                },
                "category_id": int(item[label_key]),
            }
            if name == "predictions":
                score = float(item["score"])
                if not np.isfinite(score):
                    raise ValueError(f"`score` in `predictions` must be finite; got {score}.")
                entry["score"] = score
            else:
                entry["iscrowd"] = int(bool(item.get("iscrowd", False)))
            objects.append(entry)
        texts.append(json.dumps(objects))
    return texts


def build_coco(images, sizes):
    """A COCO object of objects by image."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    annotations: list[dict] = []
    for image_id, objects in enumerate(images):
        for item in objects:
            rle = item["segmentation"]
            annotations.append(
                {
                    **item,
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "area": float(coco_mask.area(rle)),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "iscrowd": item.get("iscrowd", 0),
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id, **size} for image_id, size in enumerate(sizes)],
        "annotations": annotations,
        "categories": [{"id": class_id} for class_id in sorted({item["category_id"] for item in annotations})],
    }
    coco.createIndex()
    return coco


def find_sizes(predictions, references):
    """Height and width of each image, by its objects; 0 where it has none."""
    sizes = []
    for number, objects in enumerate(zip(predictions, references, strict=True)):
        found = {tuple(item["segmentation"]["size"]) for items in objects for item in items}
        if len(found) > 1:
            raise ValueError(f"masks of one image must have one size; those of image {number} have {sorted(found)}.")
        height, width = next(iter(found), (0, 0))
        sizes.append({"height": height, "width": width})
    return sizes


def compute_precisions(references, predictions, class_ids, kind, use_categories=True):
    """AP of each class at each IoU threshold, `(num_thresholds, num_classes)`; NaN for a class without objects."""
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(references, predictions, iouType=kind)
    evaluation.params.catIds = sorted(class_ids)
    evaluation.params.useCats = int(use_categories)
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, ALL_SIZES, -1]  # thresholds, recalls, classes
    return np.where(precision > -1, precision, np.nan).mean(1)


def average(precisions, chosen=None, threshold=None):
    """Mean over classes, and over thresholds unless one is chosen; None if no class has objects."""
    table = precisions if threshold is None else precisions[threshold : threshold + 1]
    table = table if chosen is None else table[:, chosen]
    table = table[:, ~np.isnan(table).any(0)]
    return float(table.mean()) if table.size else None


class FewShotMap(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # What is stored for an image: its objects as JSON.
            features=datasets.Features(predictions=datasets.Value("string"), references=datasets.Value("string")),
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add the detections and the objects of several images."""
        if len(predictions) != len(references):
            raise ValueError(
                "`predictions` and `references` must hold as many images; "
                f"got {len(predictions)} and {len(references)}."
            )
        super().add_batch(
            predictions=read_objects(predictions, "predictions", "label_id"),
            references=read_objects(references, "references", "label"),
        )

    def add(self, *, prediction=None, reference=None):
        """Add the detections and the objects of one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(self, predictions, references, base_label_ids=None, novel_label_ids=None):
        predictions, references = ([json.loads(text) for text in texts] for texts in (predictions, references))
        base, novel = set(base_label_ids or []), set(novel_label_ids or [])
        if base & novel:
            raise ValueError(
                f"`base_label_ids` and `novel_label_ids` must be disjoint; both hold {sorted(base & novel)}."
            )
        present = {item["category_id"] for image in references for item in image}
        class_ids = base | novel or present
        if not class_ids & present:
            raise ValueError("`references` must hold an object of a measured class; got none.")
        order, sizes = sorted(class_ids), find_sizes(predictions, references)
        groups = {
            "AP": None,
            "nAP": [place for place, class_id in enumerate(order) if class_id in novel],
            "bAP": [place for place, class_id in enumerate(order) if class_id in base],
        }
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            truth, found = (build_coco(images, sizes) for images in (references, predictions))
            masks = compute_precisions(truth, found, class_ids, "segm")
            boxes = compute_precisions(truth, found, class_ids, "bbox")
            agnostic = compute_precisions(truth, found, class_ids, "segm", use_categories=False)
        scores = {}
        for name, chosen in groups.items():
            scores[name] = average(masks, chosen)
            scores[f"{name}50"] = average(masks, chosen, IOU_50)
        scores["class_agnostic_AP50"] = average(agnostic, None, IOU_50)
        scores.update({f"box_{name}": average(boxes, chosen) for name, chosen in groups.items()})
        by_class = {class_id: average(masks, [place]) for place, class_id in enumerate(order)}
        return {
            **scores,
            "per_category_AP": {class_id: value for class_id, value in by_class.items() if value is not None},
            "num_objects": sum(
                item["category_id"] in class_ids and not item["iscrowd"] for image in references for item in image
            ),
        }
