"""RefT from Mask2Former: the same weights, new references, and a head of the chosen kind."""

import os
import re
from collections.abc import Mapping
from typing import Any, Self

import torch
from transformers import Mask2FormerForUniversalSegmentation
from transformers.modeling_utils import PreTrainedModel

from .configuration_reft import RefTConfig


# What a Mask2Former checkpoint does not have.
NEW_KEYS = re.compile(r"(model\.)?(feature_reference\.\d+|query_reference)\..*|base_class_centers\..*")


class FromMask2Former:
    """Loads weights of Mask2Former; a mixin of models with a class head."""

    @classmethod
    def from_mask2former(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | PreTrainedModel,
        ignore_mismatched_sizes: bool = False,
        load_options: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Self:
        """RefT from a Mask2Former checkpoint: equal outputs without support, and with support until it is trained.

        A cosine classifier begins with the rows of the linear one, a prototype classifier with that of no object.

        Args:
            pretrained_model_name_or_path (`str`, path or [`~transformers.Mask2FormerForUniversalSegmentation`]): a
                repository of the Hub, a folder, or the model.
            ignore_mismatched_sizes (`bool`): whether the class head may have another size, and then begins anew.
            load_options (`Mapping[str, Any]`, *optional*): of transformers' `from_pretrained`, such as `revision`.
            fields: of [`RefTConfig`], such as `classifier="prototype"`.

        Raises:
            ValueError: If the checkpoint lacks weights or has others.
        """
        source = pretrained_model_name_or_path
        if not isinstance(source, PreTrainedModel):
            source = _load_mask2former(source, load_options or {})
        config = RefTConfig.from_mask2former(source.config, **fields)
        model = cls(config).to(source.dtype)  # type: ignore[call-arg]
        model.load_mask2former_weights(source.state_dict(), ignore_mismatched_sizes)
        return model.eval()

    def load_mask2former_weights(
        self, state_dict: Mapping[str, torch.Tensor], ignore_mismatched_sizes: bool = False
    ) -> None:
        """Loads the weights of a Mask2Former; the references, and a head of another kind, stay as they are.

        Raises:
            ValueError: If a tensor is missing, unexpected or of another shape.
        """
        weights = dict(state_dict)
        head = {name: weights.pop(f"class_predictor.{name}", None) for name in ("weight", "bias")}
        if head["weight"] is None:
            raise ValueError(
                "`state_dict` must be that of a Mask2Former with a class head; `class_predictor` is missing."
            )
        if len(head["weight"]) != self.config.num_labels + 1:
            if not ignore_mismatched_sizes:
                raise ValueError(
                    f"`num_labels` must be that of the checkpoint ({len(head['weight']) - 1}); got "
                    f"{self.config.num_labels}. Set `ignore_mismatched_sizes=True` to begin with a new class head."
                )
            weights.pop("criterion.empty_weight", None)
            head = {}
        if head and self.config.classifier == "linear":
            weights |= {f"class_predictor.{name}": tensor for name, tensor in head.items()}
        elif head and self.config.classifier == "cosine":
            weights["class_predictor.weight"] = head["weight"]
        elif head:
            weights["class_predictor.no_object"] = head["weight"][-1]
        own = self.state_dict()
        misshapen = [name for name, tensor in weights.items() if name in own and own[name].shape != tensor.shape]
        unexpected = sorted(weights.keys() - own.keys())
        missing = sorted(
            name
            for name in own.keys() - weights.keys()
            if not NEW_KEYS.fullmatch(name) and not name.startswith(("class_predictor.", "criterion."))
        )
        for problem, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)):
            if names:
                raise ValueError(
                    f"`state_dict` must hold the weights of Mask2Former with this configuration; {len(names)} "
                    f"{'is' if len(names) == 1 else 'are'} {problem}, such as {names[0]!r}."
                )
        self.load_state_dict(weights, strict=False)


def _load_mask2former(path: str | os.PathLike, options: Mapping[str, Any]) -> PreTrainedModel:
    model: PreTrainedModel
    info: dict[str, Any]
    model, info = Mask2FormerForUniversalSegmentation.from_pretrained(path, output_loading_info=True, **options)
    # `swin.layernorm` exists in transformers' module and in no checkpoint; nothing reads it.
    missing = [key for key in info["missing_keys"] if ".swin.layernorm." not in key]
    if missing:
        raise ValueError(
            f"The checkpoint must hold all weights of Mask2Former; {len(missing)} are missing, such as "
            f"{sorted(missing)[0]!r}."
        )
    return model


__all__ = ["FromMask2Former"]
