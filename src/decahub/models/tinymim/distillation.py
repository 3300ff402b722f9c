"""The comparison of a student with its teacher in pre-training: what the teacher is asked, and the losses.

What is compared, and how, is in `targets.py` and `relations.py`; this joins them for [`TinyMimForPreTraining`].
"""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .configuration_tinymim import TinyMimConfig
from .layers import BlockStates, merge_heads
from .relations import compute_relation_loss, gather_tokens
from .targets import (
    TinyMimTargetProjection,
    build_relation_targets,
    compute_feature_loss,
    compute_student_scores,
    get_features,
    get_sources,
    select_tokens,
)
from .teacher import TinyMimTeacher


@dataclass
class TinyMimForPreTrainingOutput(ModelOutput):
    """Output of [`TinyMimForPreTraining`].

    Args:
        loss (`torch.FloatTensor` of shape `()`): sum of the terms below.
        relation_losses (`torch.FloatTensor` of shape `(num_pairs,)`, *optional*): one for each of `relation_pairs`.
        feature_loss (`torch.FloatTensor` of shape `()`, *optional*): for the targets `"features"` and `"cls"`.
        reconstruction_loss (`torch.FloatTensor` of shape `()`, *optional*): before its weight.
        relations (`tuple(torch.FloatTensor)`, *optional*): with `output_relations=True`, for each pair the student's
            relations, `(batch_size, num_heads, num_tokens, num_tokens)`; scaled scores without `relation_softmax`.
        teacher_relations (`tuple(torch.FloatTensor)`, *optional*): the same of the teacher.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): embeddings and output of each block.
        attentions (`tuple(torch.FloatTensor)`, *optional*): attention weights of each block.
    """

    loss: torch.FloatTensor | None = None
    relation_losses: torch.FloatTensor | None = None
    feature_loss: torch.FloatTensor | None = None
    reconstruction_loss: torch.FloatTensor | None = None
    relations: tuple[torch.FloatTensor, ...] | None = None
    teacher_relations: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


def check_teacher(teacher: TinyMimTeacher, config: TinyMimConfig) -> None:
    """Refuse a teacher that does not fit the student's configuration."""
    hint = "Build the student's config with `**teacher.to_config_fields()`."
    is_relational = config.distillation_target == "relations"
    if is_relational and config.head_alignment == "relation_heads":
        if teacher.hidden_size % config.num_relation_heads:
            raise ValueError(
                f"`num_relation_heads` must divide the teacher's width {teacher.hidden_size}; got "
                f"{config.num_relation_heads}."
            )
    elif is_relational and teacher.num_attention_heads != config.target_num_attention_heads:
        raise ValueError(
            f"the teacher must have {config.target_num_attention_heads} attention heads, as "
            f"`teacher_num_attention_heads` says; got {teacher.num_attention_heads}. {hint}"
        )
    if not is_relational and teacher.hidden_size != (config.teacher_hidden_size or config.hidden_size):
        raise ValueError(
            f"the teacher must be {config.teacher_hidden_size or config.hidden_size} wide, as "
            f"`teacher_hidden_size` says; got {teacher.hidden_size}. {hint}"
        )
    if config.include_cls and not teacher.has_cls:
        raise ValueError(
            "the teacher must have a class token while `include_cls` is true; it has none. Set it to false."
        )


def ask_teacher(
    teacher: TinyMimTeacher | None,
    pixel_values: torch.Tensor,
    teacher_pixel_values: torch.Tensor | None,
    kept: torch.Tensor | None,
    config: TinyMimConfig,
) -> dict[str, torch.Tensor]:
    """States of the teacher for images, of the tokens that the student has; `kept` are those it sees of them."""
    if teacher is None:
        raise ValueError(
            "the model must have a teacher, or be given `teacher_relations` or `teacher_features`; got none of "
            "them. Call `attach_teacher`."
        )
    rows, columns = (size // config.patch_size for size in pixel_values.shape[2:])
    view = pixel_values if teacher_pixel_values is None else teacher_pixel_values
    states = teacher.compute(view, grid=(rows, columns), sources=get_sources(config))
    if not config.include_cls and teacher.has_cls:
        states = {name: value[..., 1:, :] for name, value in states.items()}
    states = {name: value.to(pixel_values.device) for name, value in states.items()}
    return states if kept is None else {name: gather_tokens(value, kept) for name, value in states.items()}


def compare_relations(
    states: BlockStates,
    asked: dict[str, torch.Tensor] | None,
    given: torch.Tensor | None,
    config: TinyMimConfig,
    output_relations: bool,
) -> TinyMimForPreTrainingOutput:
    """Losses between relations of a student and those of its teacher, which was asked or whose targets are given."""
    scores = compute_student_scores(states, config)
    targets = build_relation_targets(config, asked, given, num_heads=scores[0].shape[1])
    options = {"softmax": config.relation_softmax, "loss": config.relation_loss, "beta": config.smooth_l1_beta}
    losses = torch.stack(
        [
            compute_relation_loss(pair_scores, **target, **options)
            for pair_scores, target in zip(scores, targets, strict=True)
        ]
    )
    output = TinyMimForPreTrainingOutput(loss=losses.sum(), relation_losses=losses.detach())
    if output_relations:
        output.relations = tuple(finish_scores(pair_scores, config) for pair_scores in scores)
        output.teacher_relations = tuple(
            target["teacher_relations"] if asked is None else finish_scores(target["teacher_scores"], config)
            for target in targets
        )
    return output


def finish_scores(scores: torch.Tensor, config: TinyMimConfig) -> torch.Tensor:
    """Relations as they are returned."""
    return scores.softmax(-1) if config.relation_softmax else scores


def compare_features(
    states: BlockStates,
    projection: TinyMimTargetProjection,
    asked: dict[str, torch.Tensor] | None,
    given: torch.Tensor | None,
    config: TinyMimConfig,
) -> TinyMimForPreTrainingOutput:
    """Loss between features of a student, projected, and those of its teacher, which was asked or gave them before."""
    (source,) = get_sources(config)
    student = projection(select_tokens(get_features(states, source), config))
    teacher = given
    if asked is not None:
        teacher = merge_heads(asked[source]) if asked[source].ndim == 4 else asked[source]
    if config.distillation_target == "cls":
        student, teacher = student[:, :1], teacher[:, :1]
    loss = compute_feature_loss(student, teacher, config)
    return TinyMimForPreTrainingOutput(loss=loss, feature_loss=loss.detach())


__all__ = [
    "TinyMimForPreTrainingOutput",
    "ask_teacher",
    "check_teacher",
    "compare_features",
    "compare_relations",
]
