"""How a box is written as the ten numbers that CMT predicts, and how the best boxes are read off.

A coded box is `cx, cy, log l, log w, cz, log h, sin yaw, cos yaw, vx, vy` in the authors' order: the branch of
the head that is named `height` learns the logarithm of the length, and the height of the center lies among the sizes.
`"natural"` puts each where its name belongs:
`cx, cy, cz, log l, log w, log h, sin yaw, cos yaw, vx, vy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


# Slots of cx, cy, cz and of log l, log w, log h in a coded box.
CENTER_SLOTS = {"official": (0, 1, 4), "natural": (0, 1, 2)}
SIZE_SLOTS = {"official": (2, 3, 5), "natural": (3, 4, 5)}
SIN_SLOT, COS_SLOT = 6, 7
VELOCITY_SLOTS = slice(8, 10)


def encode_boxes(boxes: torch.Tensor, slot_order: str = "official") -> torch.Tensor:
    """Coded boxes; a size of zero becomes negative infinity.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 9)`): gravity center (m), sizes (m), yaw (rad), velocity (m/s).
        slot_order (`str`): `"official"` or `"natural"`.

    Returns:
        `torch.Tensor` of shape `(num_boxes, 10)`.
    """
    center, log_size, yaw = boxes[:, :3], boxes[:, 3:6].log(), boxes[:, 6:7]
    if slot_order == "official":
        position = [center[:, :2], log_size[:, :2], center[:, 2:], log_size[:, 2:]]
    else:
        position = [center, log_size]
    return torch.cat([*position, yaw.sin(), yaw.cos(), boxes[:, 7:9]], dim=1)


def decode_boxes(coded: torch.Tensor, slot_order: str = "official") -> torch.Tensor:
    """Boxes of codes, the inverse of [`encode_boxes`].

    Args:
        coded (`torch.Tensor` of shape `(..., 10)`): coded boxes.
        slot_order (`str`): `"official"` or `"natural"`.

    Returns:
        `torch.Tensor` of shape `(..., 9)`: gravity center (m), sizes (m), yaw (rad) in [-pi, pi], velocity (m/s).
    """
    center = coded[..., CENTER_SLOTS[slot_order]]
    size = coded[..., SIZE_SLOTS[slot_order]].exp()
    yaw = torch.atan2(coded[..., SIN_SLOT], coded[..., COS_SLOT])[..., None]
    return torch.cat([center, size, yaw, coded[..., VELOCITY_SLOTS]], dim=-1)


@dataclass
class Detections:
    """The best boxes of a sample, the highest score first.

    Attributes:
        boxes (`torch.FloatTensor` of shape `(num_boxes, 9)`): gravity center (m), sizes (m), yaw (rad), velocity
            (m/s).
        scores (`torch.FloatTensor` of shape `(num_boxes,)`): in [0, 1].
        labels (`torch.LongTensor` of shape `(num_boxes,)`): class ids.
        queries (`torch.LongTensor` of shape `(num_boxes,)`): the query that predicted the box; one may appear with
            several classes.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    queries: torch.Tensor


@torch.no_grad()
def select_detections(
    logits: torch.Tensor,
    pred_boxes: torch.Tensor,
    *,
    task_sizes: Sequence[int],
    slot_order: str = "official",
    max_detections: int = 300,
    post_center_range: Sequence[float] | None = None,
    threshold: float | None = None,
) -> list[Detections]:
    """The best pairs of query and class of each sample, without suppression of overlaps.

    Pairs of equal score keep their order, so the answer does not depend on the device.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_labels)`): class scores of the last layer.
        pred_boxes (`torch.FloatTensor` of shape `(batch_size, num_tasks * num_queries, 10)`): coded boxes of the last
            layer, those of the first task first.
        task_sizes (`Sequence[int]`): number of classes of each task; a box is that of the task which owns its class.
        slot_order (`str`): as in [`decode_boxes`].
        max_detections (`int`): boxes that are kept, at most as many as there are pairs.
        post_center_range (`Sequence[float]`, *optional*): nearest and farthest corner of where centers may lie.
        threshold (`float`, *optional*): only boxes with a higher score.

    Returns:
        `list[Detections]`: one for each sample.
    """
    batch_size, num_queries, num_labels = logits.shape
    scores = logits.float().sigmoid().flatten(1)
    scores, pairs = scores.sort(dim=1, descending=True, stable=True)
    count = min(max_detections, num_queries * num_labels)
    task_of_label = torch.repeat_interleave(torch.tensor(task_sizes)).to(logits.device)
    detections = []
    for sample in range(batch_size):
        score, pair = scores[sample, :count], pairs[sample, :count]
        label, query = pair % num_labels, pair // num_labels
        boxes = decode_boxes(pred_boxes[sample, task_of_label[label] * num_queries + query].float(), slot_order)
        kept = torch.ones_like(score, dtype=torch.bool)
        if post_center_range is not None:
            limits = boxes.new_tensor(post_center_range)
            kept &= ((boxes[:, :3] >= limits[:3]) & (boxes[:, :3] <= limits[3:])).all(dim=1)
        if threshold is not None:
            kept &= score > threshold
        detections.append(Detections(boxes[kept], score[kept], label[kept], query[kept]))
    return detections


__all__ = ["Detections", "decode_boxes", "encode_boxes", "select_detections"]
