r"""Class-enhanced base knowledge distillation: learning new classes without forgetting those of the teacher.

The name is the paper's; the formulas are our reading. The teacher is the model before the new classes came. Object
query i of the student started as object query i of the teacher, so that they are compared one by one.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ..references import normalize, shrink_masks


DENOMINATOR_EPS = 1e-6


def compute_feature_distillation_loss(
    student_maps: Sequence[torch.Tensor],
    teacher_maps: Sequence[torch.Tensor],
    novel_masks: torch.Tensor,
    base_centers: Sequence[torch.Tensor] | None = None,
) -> torch.Tensor:
    r"""Keeps the projected inputs of the pixel decoder where there is no new instance.

    $$ L = \frac13 \sum_l \frac{\sum_x u_l(x) (1 + e_l(x)) |f^s_l(x) - f^t_l(x)|^2}{D \sum_x u_l(x) + \epsilon} $$

    with $u$ the share of a pixel that no new instance covers, and $e$ how much the teacher's pixel looks like a base
    class: the largest cosine with a base center, or 0.

    Args:
        student_maps (`Sequence[torch.FloatTensor]` of shape `(batch_size, channels, height, width)`): each level.
        teacher_maps (`Sequence[torch.FloatTensor]`): alike, without gradient.
        novel_masks (`torch.Tensor` of shape `(batch_size, height, width)`): union of the new instances, in [0, 1].
        base_centers (`Sequence[torch.FloatTensor]` of shape `(num_base, channels)`, *optional*): each level; without
            them e is 0.
    """
    losses = []
    for level, (student, teacher) in enumerate(zip(student_maps, teacher_maps, strict=True)):
        weights = 1 - shrink_masks(novel_masks.to(student.dtype), student.shape[-2:])
        denominator = student.shape[1] * weights.sum() + DENOMINATOR_EPS
        if base_centers is not None:
            pixels, centers = normalize(teacher.movedim(1, -1)), normalize(base_centers[level].to(teacher.dtype))
            weights = weights * (1 + (pixels @ centers.T).amax(-1).relu())
        losses.append((weights * (student - teacher).square().sum(1)).sum() / denominator)
    return torch.stack(losses).mean()


def compute_class_distillation_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, is_matched: torch.Tensor, threshold: float
) -> torch.Tensor:
    r"""KL(teacher || student) over the base classes and no object, where the teacher sees a base class.

    Args:
        student_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_base + num_novel + 1)`): base
            classes first, in the teacher's order; no object last.
        teacher_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_base + 1)`): without gradient.
        is_matched (`torch.BoolTensor` of shape `(batch_size, num_queries)`): object queries that are matched to a new
            instance, which do not count.
        threshold (`float`): least probability of the teacher's best base class.

    Returns:
        The mean over object queries that count; 0 if there is none.
    """
    num_base = teacher_logits.shape[-1] - 1
    logits = torch.cat([student_logits[..., :num_base], student_logits[..., -1:]], dim=-1)
    teacher = teacher_logits.softmax(-1)
    kept = (teacher[..., :num_base].amax(-1) >= threshold) & ~is_matched
    divergence = F.kl_div(logits.log_softmax(-1), teacher_logits.log_softmax(-1), reduction="none", log_target=True)
    return (divergence.sum(-1) * kept).sum() / kept.sum().clamp(min=1)


__all__ = ["compute_class_distillation_loss", "compute_feature_distillation_loss"]
