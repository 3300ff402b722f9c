"""Named variants of a model as data: a table of what differs from the defaults of its configuration."""

import copy
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig

from .checks import refuse_unknown


Config = TypeVar("Config", bound=PreTrainedConfig)

# Keywords that `PreTrainedConfig` understands although they are not fields.
KEYWORDS = ("num_labels", "attn_implementation", "torch_dtype", "name_or_path")
BACKBONE_KEYWORDS = ("out_features", "out_indices")


def build_variant(
    config_class: type[Config],
    variants: Mapping[str, Mapping[str, Any]],
    name: str,
    overrides: Mapping[str, Any],
    num_labels: int | None = None,
) -> Config:
    """Configuration of a named variant.

    Args:
        config_class (`type`): class of the configuration.
        variants (`Mapping`): name to the fields that differ from the defaults.
        name (`str`): one of them.
        overrides (`Mapping`): further fields to change; they win over the variant.
        num_labels (`int`, *optional*): number of labels where neither `num_labels` nor `id2label` is overridden.

    Raises:
        ValueError: If the variant or a field does not exist.
    """
    if name not in variants:
        nearest = difflib.get_close_matches(str(name), variants, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"`name` must be one of {', '.join(variants)}; got {name!r}.{hint}")
    allowed = [*(field.name for field in dataclasses.fields(config_class)), *KEYWORDS]
    if issubclass(config_class, BackboneConfigMixin):
        allowed += BACKBONE_KEYWORDS
    refuse_unknown(overrides, allowed, f"a field of {config_class.__name__}")
    labels = {} if num_labels is None or {"num_labels", "id2label"} & overrides.keys() else {"num_labels": num_labels}
    return config_class(**copy.deepcopy({**labels, **variants[name], **overrides}))
