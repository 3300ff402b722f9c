"""CMT computes the authors' numbers from the authors' weights: the head, its losses and its answers.

Backbones are checked in `test_cmt_camera.py` and `test_cmt_lidar.py`, the metric in `test_cmt_metric.py`. What each
key means is in the README of the golden folder. Other files of the same kinds can be checked through
`DECAHUB_GOLDEN_DIR`.
"""

import pytest
import torch

from decahub.models.cmt.boxes.coder import select_detections
from decahub.models.cmt.boxes.loss import CmtLoss
from tests.parity.cmt_models import build_head_model, convert_head, head_labels, revert_head, run_head, split_boxes
from tests.parity.golden import assert_near, golden_params
from tests.parity.test_cmt_camera import KNOWN_KEYS as CAMERA_KEYS
from tests.parity.test_cmt_lidar import KNOWN_KEYS as LIDAR_KEYS


# Golden README: float32 forward, losses and gradients.
ATOL, RTOL = 1e-4, 1e-5
LOSS_RTOL = 1e-5
GRADIENT_RTOL, GRADIENT_FLOOR = 1e-4, 1e-5
WAYS = ("sdpa", "eager")
BRANCH = r"(center|height|dim|rot|vel|cls_logits)"

KNOWN_KEYS = {
    "head": [
        r"input\.(bev_features|image_features|lidar2img|image_size|gt_boxes\.\d+|gt_labels\.\d+)",
        r"inter\.(image_pos_embed|bev_pos_embed|query_bev_embed|query_ray_embed|shared_conv|decoder_states)",
        rf"eval\.task\d+\.{BRANCH}",
        r"decode\.(boxes|scores|labels)\.\d+",
        rf"train\.task\d+\.(dn_)?{BRANCH}",
        r"train\.(dn_noise_uniform01|dn_map_known_indice|dn_pad_size|dn_known_labels_task\d+|assigned_gt_plus1)",
        r"loss\.(total|(d\d+\.)?(dn_)?loss_(cls|bbox))",
        r"grad\.(input\.(bev_features|image_features)|pts_bbox_head\..+)",
        r"state_dict\.pts_bbox_head\..+",
    ],
}

CHECKED_KINDS = {*KNOWN_KEYS, *CAMERA_KEYS, *LIDAR_KEYS, "nuscenes_metric"}
"""All kinds of files; each is checked for keys that nobody looks at where its numbers are checked."""

heads = pytest.mark.parametrize("golden", golden_params("cmt", "head"))
by_way = pytest.mark.parametrize("way", WAYS)


@pytest.mark.parametrize("golden", golden_params("cmt"))
def test_no_kind_of_file_goes_unseen(golden):
    assert golden.kind in CHECKED_KINDS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"


@heads
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.unknown_keys(KNOWN_KEYS["head"]) == []


def task_classes(golden) -> list[slice]:
    sizes = [len(task.split(",")) for task in golden.metadata["tasks"].split("|")]
    return [slice(sum(sizes[:task]), sum(sizes[: task + 1])) for task in range(len(sizes))]


@heads
@torch.no_grad()
def test_positions_and_states(golden):
    model = build_head_model(golden)
    recorded = {}
    watch(model.model, recorded)

    outputs = run_head(model, golden)

    for name, expected in golden.group("inter.").items():
        if name == "decoder_states":
            assert_near(outputs.intermediate_hidden_states, expected, ATOL, RTOL, name)
        else:
            actual = recorded[name]
            assert_near(actual.reshape(expected.shape), expected, ATOL, RTOL, name)


def watch(model, recorded: dict[str, torch.Tensor]) -> None:
    """Stores what the parts of a model return, under the names of the golden files."""

    def wrap(method: str, name: str, pick=lambda value: value):
        compute = getattr(model, method)

        def run(*args):
            value = compute(*args)
            recorded[name] = pick(value)
            return value

        setattr(model, method, run)

    wrap("embed_ground_points", "query_bev_embed")
    wrap("embed_bev_grid", "bev_pos_embed", lambda value: value[0])
    wrap("embed_image_rays", "image_pos_embed")
    wrap("embed_query_rays", "query_ray_embed")
    if model.bev_projection is not None:
        model.bev_projection.register_forward_hook(lambda _, __, value: recorded.update(shared_conv=value))


@by_way
@heads
@torch.no_grad()
def test_evaluation(golden, way):
    model = build_head_model(golden, way)

    outputs = model.detect(run_head(model, golden))

    assert_predictions(golden, "eval.", "", outputs.logits, outputs.pred_boxes)


def assert_predictions(golden, prefix: str, branch_prefix: str, logits, coded) -> None:
    classes = task_classes(golden)
    for task, own in enumerate(classes):
        actual = {**split_boxes(coded, len(classes), task), "cls_logits": logits[..., own]}
        for name, value in actual.items():
            key = f"{prefix}task{task}.{branch_prefix}{name}"
            assert_near(value, golden[key], ATOL, RTOL, key)


@heads
@torch.no_grad()
def test_answers_have_the_same_order(golden):
    model = build_head_model(golden)
    outputs = model.detect(run_head(model, golden))
    config = model.config

    detections = select_detections(
        outputs.logits[-1],
        outputs.pred_boxes[-1],
        task_sizes=config.task_sizes,
        max_detections=config.max_detections,
        post_center_range=config.post_center_range,
    )

    for sample, detection in enumerate(detections):
        assert detection.labels.tolist() == golden[f"decode.labels.{sample}"].tolist()
        assert_near(detection.scores, golden[f"decode.scores.{sample}"], ATOL)
        assert_near(detection.boxes, golden[f"decode.boxes.{sample}"], ATOL, RTOL)


def train(golden, way: str = "sdpa"):
    """A training step without dropout, with the batch norm of the head in evaluation mode."""
    model = build_head_model(golden, way).train()
    labels = head_labels(golden)
    denoising = model.build_denoising(labels, golden["train.dn_noise_uniform01"])
    inputs = {
        name: golden[f"input.{name}"].clone().requires_grad_()
        for name in ("bev_features", "image_features")
        if f"grad.input.{name}" in golden
    }
    if model.model.bev_projection is not None:
        model.model.bev_projection.norm.eval()
    states = run_head(model, golden, inputs.get("bev_features"), inputs.get("image_features"), denoising)
    return model, model.detect(states, labels, denoising), denoising, inputs


@heads
def test_denoising_queries(golden):
    _, outputs, denoising, _ = train(golden)

    assert denoising.num_slots == golden["train.dn_pad_size"]
    assert torch.equal(denoising.slot, golden["train.dn_map_known_indice"])
    for key, expected in golden.group("train.dn_known_labels_task").items():
        own = task_classes(golden)[int(key)]
        background = own.stop - own.start
        classes = denoising.class_labels - own.start
        is_own = (classes >= 0) & (classes < background) & ~denoising.is_background
        classes = torch.where(is_own, classes, background)
        assert torch.equal(classes, expected)
    assert_predictions(golden, "train.", "dn_", outputs.denoising_logits, outputs.denoising_boxes)


@heads
def test_matching(golden):
    model, outputs, _, _ = train(golden)
    loss, labels, classes = CmtLoss(model.config), head_labels(golden), task_classes(golden)
    coded = outputs.pred_boxes.detach().unflatten(2, (len(classes), -1))

    assigned = torch.stack(
        [
            loss.assign(outputs.logits.detach()[..., own], coded[:, :, task], labels, task)
            for task, own in enumerate(classes)
        ],
        dim=2,
    )

    assert torch.equal(assigned, golden["train.assigned_gt_plus1"])


@by_way
@heads
def test_training(golden, way):
    model, outputs, _, inputs = train(golden, way)

    outputs.loss.backward()

    assert_predictions(golden, "train.", "", outputs.logits, outputs.pred_boxes)
    expected = golden.group("loss.")
    assert outputs.loss_dict.keys() == expected.keys() - {"total"}
    for name, value in {**outputs.loss_dict, "total": outputs.loss}.items():
        assert_near(value, expected[name], 0.0, LOSS_RTOL, name)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    gradients = {**revert_head(gradients), **{f"input.{name}": value.grad for name, value in inputs.items()}}
    expected = golden.group("grad.")
    assert expected
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, GRADIENT_RTOL * gradient.abs().max().item() + GRADIENT_FLOOR, 0.0, name)


@heads
def test_weights_return_to_the_authors_layout(golden):
    official = golden.group("state_dict.")

    reverted = revert_head(build_head_model(golden).state_dict())

    assert reverted.keys() == official.keys()
    assert all(torch.equal(reverted[name], tensor) for name, tensor in official.items())
    assert revert_head(convert_head(official)).keys() == official.keys()
