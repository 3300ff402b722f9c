"""Adding classes by a few examples: `register_support`, and memories beside the weights."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers.utils import cached_file, logging

from ...shared.modes import evaluation_mode
from ..losses.mask_loss import build_class_weights
from .encoding import build_class_support
from .memory import MEMORY_FILE, ClassSupport, RefTSupportMemory, compute_config_hash
from .shots import Shots, read_shots


logger = logging.get_logger(__name__)

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class SupportRegistration:
    """Registers support in a memory; a mixin of models with `model`, `class_predictor` and `criterion`.

    `support_memory` is the memory that belongs to the weights: `from_pretrained` sets it if there is one beside them,
    `save_pretrained` writes it, and pipelines and evaluations use it. `forward` does so only where it is given.
    """

    support_memory: RefTSupportMemory | None = None

    def register_support(
        self,
        support: Mapping[str, Shots],
        memory: RefTSupportMemory | None = None,
        processor: Any = None,
        imprint: bool = False,
    ) -> RefTSupportMemory:
        """Encodes a few examples of each class, once and without training.

        Args:
            support (`Mapping[str, Shots]`): class name to its shots: a list of pairs of an image (or its path) and
                its instance (mask or its path, box `[x0, y0, x1, y1]`, COCO RLE or polygons), or a pair of normalized
                crops `(num_shots, 3, height, width)` and their masks `(num_shots, height, width)`.
            memory ([`RefTSupportMemory`], *optional*): what to extend; it is not changed itself.
            processor ([`RefTProcessor`] or [`RefTImageProcessor`], *optional*): prepares images; by default with the
                `support_size` and `support_context` of the configuration.
            imprint (`bool`): for the cosine classifier, whether an unknown name becomes a new class, whose row is the
                mean of its first object queries, and novel classes (`config.novel_label_ids`) get theirs anew.

        Returns:
            A memory with all classes of `memory` and `support`.

        Raises:
            TypeError: If `support` is no mapping, or an instance is nothing that is known.
            ValueError: If a class has no usable shot, or its name is not a label of the model.
        """
        if memory is None:
            memory = RefTSupportMemory({}, compute_config_hash(self.config), self.config.max_support_queries_per_class)
        memory.check(self.config)
        if not isinstance(support, Mapping):
            raise TypeError(f"`support` must map the name of each class to its shots; got {type(support).__name__}.")
        nameless = [name for name in support if not isinstance(name, str)]
        if nameless:
            raise TypeError(f"`support` must name its classes by texts; got {nameless[0]!r}.")
        if not support:
            raise ValueError("`support` must hold at least one class; got none.")
        shots = {name: read_shots(name, given, processor, self.config) for name, given in support.items()}
        ids = {name: self._find_class_id(name, imprint) for name in support}
        with torch.no_grad(), evaluation_mode(self):
            predictor = self.class_predictor if self.config.query_selection == "score" else None
            for name, (pixel_values, masks) in shots.items():
                encoded = self.model.encode_shots(pixel_values, masks, predictor)
                class_support = build_class_support(encoded, ids[name], self.config.shot_reduction)
                for tensor in (class_support.centers, class_support.prototype, class_support.object_query_scores):
                    if not tensor.isfinite().all():
                        raise ValueError(
                            f"Support of {name!r} becomes NaN or infinity; the weights of the model, or the crops, "
                            "must be finite."
                        )
                if imprint and (ids[name] is None or ids[name] in (self.config.novel_label_ids or [])):
                    total = memory.add(name, class_support).classes[name] if name in memory else class_support
                    class_support = self._imprint(name, ids[name], class_support, total.prototype)
                memory = memory.add(name, class_support)
        return memory

    def _find_class_id(self, name: str, imprint: bool) -> int | None:
        """Label id of a class; none where it has no row in the head."""
        if self.config.classifier == "prototype":
            if imprint:
                raise ValueError("`imprint` must be False for a prototype classifier, which has no rows.")
            return None
        if imprint and self.config.classifier != "cosine":
            raise ValueError("`imprint` must be False for a linear classifier; it needs `classifier='cosine'`.")
        label_id = self.config.label2id.get(name)
        if label_id is None and not imprint:
            fix = (
                "Use `imprint=True`" if self.config.classifier == "cosine" else "Use a prototype or cosine classifier"
            )
            raise ValueError(
                f"`support` must name labels of the model; {name!r} is none of {list(self.config.label2id)[:10]}. "
                f"{fix}, or fine-tune the model with the class."
            )
        return label_id

    def _imprint(
        self, name: str, label_id: int | None, support: ClassSupport, prototype: torch.Tensor
    ) -> ClassSupport:
        """Writes the row of a class into the head, at the end if it has none; the support with its id."""
        predictor, config = self.class_predictor, self.config
        row = nn.functional.normalize(prototype, dim=0)
        if label_id is not None:
            predictor.weight.data[label_id] = row
            return support
        label_id = config.num_labels
        weight = torch.cat([predictor.weight.data[:-1], row[None], predictor.weight.data[-1:]])
        predictor.weight = nn.Parameter(weight, requires_grad=predictor.weight.requires_grad)
        config.id2label = {**config.id2label, label_id: name}
        config.label2id = {**config.label2id, name: label_id}
        self.criterion.empty_weight = build_class_weights(label_id + 1, config.no_object_weight).to(weight)
        return replace(support, class_id=label_id)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *args: Any,
        support_memory: RefTSupportMemory | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves weights and configuration, and a memory beside them; see [`~transformers.PreTrainedModel`].

        Args:
            save_directory (`str` or path): the folder.
            args: as in transformers.
            support_memory ([`RefTSupportMemory`], *optional*): written as `support_memory.safetensors`; by default
                that of the model.
            kwargs: as in transformers.
        """
        support_memory = self.support_memory if support_memory is None else support_memory
        if support_memory is not None:
            support_memory.check(self.config)
        super().save_pretrained(save_directory, *args, **kwargs)
        if support_memory is not None:
            support_memory.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads weights, and the memory beside them; see [`~transformers.PreTrainedModel`].

        A memory of another architecture, which changed fields make of it, is left out with a warning.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if pretrained_model_name_or_path is not None:
            source = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            options = {**source, "_raise_exceptions_for_missing_entries": False}
            options |= {"_raise_exceptions_for_connection_errors": False}
            if cached_file(pretrained_model_name_or_path, MEMORY_FILE, **options) is not None:
                memory = RefTSupportMemory.from_pretrained(pretrained_model_name_or_path, **source)
                if memory.config_hash == compute_config_hash(model.config):
                    model.support_memory = memory
                else:
                    logger.warning(
                        f"The support memory of {pretrained_model_name_or_path} was made with another configuration "
                        "and is left out. Register the support again."
                    )
        return loaded

    def load_support_memory(self, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """A [`RefTSupportMemory`] of a folder or Hub repository, checked against the configuration."""
        return RefTSupportMemory.from_pretrained(pretrained_model_name_or_path, self.config, **kwargs)


__all__ = ["SupportRegistration"]
