"""Logits -> instances: by a slow loop, with padding, as COCO RLE, and as transformers does."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F
from transformers import Mask2FormerImageProcessor

from decahub import RefTImageProcessor
from decahub.models.reft.outputs import RefTForFewShotInstanceSegmentationOutput


NUM_QUERIES, NUM_LABELS, HEIGHT, WIDTH = 6, 3, 16, 24
SCORE_ATOL = 1e-5


def build_outputs(seed=0, batch_size=2):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.randn(batch_size, NUM_QUERIES, 4, 6, generator=generator) * 4
    return RefTForFewShotInstanceSegmentationOutput(
        class_queries_logits=2 * torch.randn(batch_size, NUM_QUERIES, NUM_LABELS + 1, generator=generator),
        masks_queries_logits=F.interpolate(smooth, size=(HEIGHT, WIDTH), mode="bilinear"),
    )


def post_process(outputs, **options):
    return RefTImageProcessor().post_process_instance_segmentation(outputs, **options)


def find_by_loops(outputs, image, target_size, visible, threshold, limit):
    """The original's order: resize, free of padding, resize, compare with 0."""
    probabilities = outputs.class_queries_logits[image].softmax(-1)
    found = []
    for query in range(NUM_QUERIES):
        logits = outputs.masks_queries_logits[image, query][None, None]
        logits = F.interpolate(logits, size=(4 * HEIGHT, 4 * WIDTH), mode="bilinear", align_corners=False)
        logits = logits[..., : visible[0], : visible[1]]
        logits = F.interpolate(logits, size=target_size, mode="bilinear", align_corners=False)[0, 0]
        mask = logits > 0
        quality = logits.sigmoid()[mask].mean() if mask.any() else torch.tensor(0.0)
        for label in range(NUM_LABELS):
            found.append(
                (float(probabilities[query, label] * quality), float(probabilities[query, label]), label, mask)
            )
    found = sorted(found, key=lambda item: -item[1])[:limit]
    return sorted([item for item in found if item[0] >= threshold and item[3].any()], key=lambda item: -item[0])


@pytest.mark.parametrize(("threshold", "limit"), [(0.0, 100), (0.2, 100), (0.0, 5)])
def test_instances_by_a_loop(threshold, limit):
    outputs = build_outputs()
    pixel_mask = torch.ones(2, 4 * HEIGHT, 4 * WIDTH)
    pixel_mask[1, :, 70:], pixel_mask[1, 50:] = 0, 0
    sizes = [(31, 47), (40, 56)]

    results = post_process(
        outputs, threshold=threshold, target_sizes=sizes, pixel_mask=pixel_mask, max_detections=limit
    )

    for image, visible in enumerate([(64, 96), (50, 70)]):
        expected = find_by_loops(outputs, image, sizes[image], visible, threshold, limit)
        assert len(results[image]) == len(expected) > 0
        for row, (score, _, label, mask) in zip(results[image], expected, strict=True):
            assert row["score"] == pytest.approx(score, abs=SCORE_ATOL)
            assert row["label_id"] == label
            assert torch.equal(row["mask"], mask)
            rows, columns = np.nonzero(mask.numpy())
            assert row["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_default_size_is_the_image_without_padding():
    pixel_mask = torch.ones(2, 64, 96)
    pixel_mask[1, :, 70:] = 0

    results = post_process(build_outputs(), threshold=0.0, pixel_mask=pixel_mask)

    assert results[0][0]["mask"].shape == (64, 96)
    assert results[1][0]["mask"].shape == (64, 70)


def test_rle_is_genuine_coco():
    outputs = build_outputs()
    masks = post_process(outputs, threshold=0.0, target_sizes=[(30, 50)] * 2)

    encoded = post_process(outputs, threshold=0.0, target_sizes=[(30, 50)] * 2, return_coco_annotation=True)

    for row, other in zip(masks[0], encoded[0], strict=True):
        assert "mask" not in other
        assert np.array_equal(coco_mask.decode(other["segmentation"]).astype(bool), row["mask"].numpy())


def test_old_rle_is_row_major_starts_and_lengths():
    outputs = build_outputs()
    masks = post_process(outputs, threshold=0.0)[0]

    encoded = post_process(outputs, threshold=0.0, return_coco_annotation=True, rle_format="transformers")[0]

    runs = encoded[0]["segmentation"]
    mask = np.zeros(64 * 96, dtype=bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        mask[start - 1 : start - 1 + length] = True
    assert np.array_equal(mask.reshape(64, 96), masks[0]["mask"].numpy())


def test_map_has_the_best_on_top():
    outputs = build_outputs()
    rows = post_process(outputs, threshold=0.1)[0]

    result = post_process(outputs, threshold=0.1, return_map=True, label_names=["a", "b", "c"])[0]

    expected = torch.full((64, 96), -1, dtype=torch.int32)
    for place in reversed(range(len(rows))):
        expected[rows[place]["mask"]] = place
    assert torch.equal(result["segmentation"], expected)
    assert [info["id"] for info in result["segments_info"]] == list(range(len(rows)))
    assert [info["label"] for info in result["segments_info"]] == ["abc"[row["label_id"]] for row in rows]


def test_parity_mode_is_transformers():
    outputs, sizes = build_outputs(), [(31, 47), (40, 56)]

    ours = post_process(outputs, threshold=0.2, target_sizes=sizes, parity_mode="transformers")

    theirs = Mask2FormerImageProcessor().post_process_instance_segmentation(outputs, threshold=0.2, target_sizes=sizes)
    for first, second in zip(ours, theirs, strict=True):
        assert torch.equal(first["segmentation"], second["segmentation"])
        assert first["segments_info"] == second["segments_info"]


def test_nothing_above_the_threshold_is_an_empty_list():
    assert post_process(build_outputs(), threshold=1.0) == [[], []]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sizes": [(3, 4)]}, r"`target_sizes` must hold one entry per image \(2\); got 1"),
        ({"pixel_mask": torch.ones(1, 64, 96)}, "`pixel_mask` must hold one entry per image"),
        ({"max_detections": 0}, "`max_detections` must be at least 1"),
        ({"rle_format": "row"}, "`rle_format` must be one of"),
        ({"parity_mode": "detectron2"}, "`parity_mode` must be one of"),
        ({"threshold": 1.5}, r"`threshold` must be in \[0, 1\]; got 1.5"),
        ({"threshold": float("nan")}, r"`threshold` must be in \[0, 1\]; got nan"),
        ({"label_names": ["a", "b"]}, "`label_names` must name 3 classes; got 2"),
        ({"pixel_mask": torch.ones(2, 32, 96)}, r"`pixel_mask` must have the size of the input, \(64, 96\)"),
        ({"rle_format": "transformers"}, "`rle_format` has no effect"),
        ({"return_map": True, "return_coco_annotation": True}, "`return_coco_annotation` has no effect"),
        ({"parity_mode": "transformers", "max_detections": 3}, "`max_detections` has no effect"),
        ({"parity_mode": "transformers", "label_names": ["a", "b", "c"]}, "`label_names` has no effect"),
    ],
    ids=str,
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        post_process(build_outputs(), **options)


def test_refuses_nan():
    outputs = build_outputs()
    outputs.class_queries_logits[1, 2, 0] = float("nan")

    with pytest.raises(ValueError, match="`outputs` must hold no NaN"):
        post_process(outputs)
