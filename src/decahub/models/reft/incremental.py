"""Learning new classes without forgetting: the teacher, its centers of the base classes, the distillation losses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from ..shared.modes import evaluation_mode
from .configuration_reft import NUM_FEATURE_LEVELS
from .losses.distillation import compute_class_distillation_loss, compute_feature_distillation_loss
from .losses.mask_loss import Prediction
from .outputs import RefTModelOutput
from .references import POOLING_EPS, pool_support
from .support.memory import RefTSupportMemory


logger = logging.get_logger(__name__)


class RefTBaseClassCenters(nn.Module):
    """Mean input of the pixel decoder inside the instances of each base class, at each level (`fit` fills it).

    Args:
        num_base (`int`): base classes.
        feature_size (`int`): channels.
    """

    def __init__(self, num_base: int, feature_size: int):
        super().__init__()
        for level in range(NUM_FEATURE_LEVELS):
            self.register_buffer(str(level), torch.zeros(num_base, feature_size))

    def get_levels(self) -> tuple[torch.Tensor, ...]:
        """The centers, coarse to fine."""
        return tuple(self.get_buffer(str(level)) for level in range(NUM_FEATURE_LEVELS))


class IncrementalLearning:
    """What a model needs to learn new classes from a few shots when images of the base classes are gone.

    A mixin of models with `model`, `class_predictor` and `base_class_centers`.
    """

    def attach_teacher(self, teacher: nn.Module, support_memory: RefTSupportMemory | None = None) -> None:
        """Adds the distillation losses to the loss: this model is not to forget what `teacher` knows.

        The teacher is held outside of the modules: it is neither trained nor saved.

        Args:
            teacher ([`RefTForFewShotInstanceSegmentation`]): the model before the new classes came, with fitted
                `base_class_centers` if `config.class_enhanced`.
            support_memory ([`RefTSupportMemory`], *optional*): support of the base classes for the teacher.

        Raises:
            ValueError: If base classes are not named, their centers are not fitted, or the teacher is of another form.
        """
        base_ids = self.config.base_label_ids
        if not base_ids:
            raise ValueError("`base_label_ids` of the config must name the classes that are not to be forgotten.")
        if "prototype" in (self.config.classifier, teacher.config.classifier):
            raise ValueError(
                "`classifier` must be 'linear' or 'cosine' for distillation; a prototype head has no rows."
            )
        if self.config.class_enhanced and (
            teacher.base_class_centers is None
            or not any(level.any() for level in teacher.base_class_centers.get_levels())
        ):
            raise ValueError(
                "`teacher` must have fitted base class centers; call `teacher.fit_base_class_centers` with base "
                "images, or set `class_enhanced=False`."
            )
        self._check_teacher(teacher, support_memory)
        self._teacher = (teacher.eval().requires_grad_(False), support_memory)

    def _check_teacher(self, teacher: Any, support_memory: RefTSupportMemory | None) -> None:
        """Refuses a teacher whose predictions cannot be compared with those of this model one by one."""
        if teacher is self:
            raise ValueError("`teacher` must be another model; this one would be frozen. Use `copy.deepcopy(model)`.")
        base_ids, labels = self.config.base_label_ids, teacher.config.num_labels
        if labels < len(base_ids) or (labels > len(base_ids) and labels <= max(base_ids)):
            raise ValueError(
                f"`teacher` must know the {len(base_ids)} base classes, alone or by their ids; it has {labels} "
                "classes."
            )
        for name in ("feature_size", "num_queries"):
            own, known = getattr(self.config, name), getattr(teacher.config, name)
            if own != known:
                raise ValueError(f"`teacher` must have the `{name}` of this model, {own}; got {known}.")
        centers = teacher.base_class_centers
        if self.config.class_enhanced and len(centers.get_levels()[0]) != len(base_ids):
            raise ValueError(
                f"`teacher` must have centers of the {len(base_ids)} base classes; got {len(centers.get_levels()[0])}."
            )
        if support_memory is not None:
            support_memory.check(teacher.config)

    def _compute_distillation_losses(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None,
        outputs: RefTModelOutput,
        final: Prediction,
        mask_labels: Sequence[torch.Tensor],
        class_labels: Sequence[torch.Tensor],
        matches: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        teacher, memory = self._teacher
        teacher.to(pixel_values.device)
        with torch.no_grad():
            known = teacher.model(pixel_values, pixel_mask, support_memory=memory, return_dict=True)
            enhances = "class" in teacher.config.query_enhancement_targets
            states = known.transformer_decoder_intermediate_states[-1].transpose(0, 1)
            teacher_logits = teacher.class_predictor(known.object_queries if enhances else states)
        base_ids = self.config.base_label_ids
        columns = torch.tensor([*base_ids, -1], device=pixel_values.device)
        if teacher.config.num_labels > len(base_ids):
            teacher_logits = teacher_logits[..., columns]
        base = torch.tensor(base_ids, device=pixel_values.device)
        is_novel = [~torch.isin(classes, base) for classes in class_labels]
        unions = [masks[novel].any(0) for masks, novel in zip(mask_labels, is_novel, strict=True)]
        is_matched = torch.zeros(final.class_logits.shape[:2], dtype=torch.bool, device=pixel_values.device)
        for image, (queries, targets) in enumerate(matches):
            is_matched[image, queries[is_novel[image][targets]]] = True
        feature_loss = compute_feature_distillation_loss(
            outputs.projected_hidden_states,
            known.projected_hidden_states,
            torch.stack(unions),
            teacher.base_class_centers.get_levels() if self.config.class_enhanced else None,
        )
        class_loss = compute_class_distillation_loss(
            final.class_logits[..., columns], teacher_logits, is_matched, self.config.kd_threshold
        )
        return {
            "loss_kd_feature": self.config.kd_feature_weight * feature_loss,
            "loss_kd_class": self.config.kd_class_weight * class_loss,
        }

    @torch.no_grad()
    def fit_base_class_centers(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Fills `base_class_centers`: the mean over all instances of each base class.

        Args:
            batches (`Iterable[Mapping[str, Any]]`): each with `pixel_values`, `mask_labels` and `class_labels`.

        Raises:
            ValueError: If `config.base_label_ids` is not set, or no instance of a base class is shown.
        """
        if self.base_class_centers is None:
            raise ValueError("`base_label_ids` of the config must name the base classes.")
        levels = self.base_class_centers.get_levels()
        places = {label_id: place for place, label_id in enumerate(self.config.base_label_ids)}
        sums = [torch.zeros_like(level, dtype=torch.float64) for level in levels]
        counts = torch.zeros(len(places), dtype=torch.float64, device=levels[0].device)
        with evaluation_mode(self):
            for batch in batches:
                projected = self.model(batch["pixel_values"].to(self.device)).projected_hidden_states
                for image, (masks, classes) in enumerate(
                    zip(batch["mask_labels"], batch["class_labels"], strict=True)
                ):
                    for mask, label_id in zip(masks, classes.tolist(), strict=True):
                        if label_id not in places or not mask.any():
                            continue
                        counts[places[label_id]] += 1
                        for level, feature_map in enumerate(projected):
                            total, area = pool_support(feature_map[image, None], mask[None].to(feature_map))
                            sums[level][places[label_id]] += (total / (area + POOLING_EPS)[:, None])[0]
        without = [label_id for label_id, place in places.items() if not counts[place]]
        if len(without) == len(places):
            raise ValueError("`batches` must show an instance of a base class; they show none.")
        if without:
            logger.warning(f"No instance of the base classes {without} was shown; their centers stay zero.")
        for level, total in zip(levels, sums, strict=True):
            level.copy_(total / counts.clamp(min=1)[:, None])


__all__ = ["IncrementalLearning", "RefTBaseClassCenters"]
