"""Configuration of NewMethod (NEW_PAPER)."""

import copy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


VARIANTS: dict[str, dict[str, Any]] = {"tiny": {}, "small": {"hidden_size": 128, "intermediate_size": 256}}
"""What differs between the published models; everything else is the default of [`NewMethodConfig`]."""


@strict
class NewMethodConfig(PreTrainedConfig):
    """Configuration of [`NewMethodModel`] and its task classes; the defaults are the smallest variant.

    Args:
        image_size (`int`, defaults to 32): Height and width of `pixel_values`.
        patch_size (`int`, defaults to 8): Height and width of a patch.
        num_channels (`int`, defaults to 3): Channels of `pixel_values`.
        hidden_size (`int`, defaults to 64): Width of a token.
        num_hidden_layers (`int`, defaults to 4): Number of blocks.
        num_attention_heads (`int`, defaults to 4): Attention heads of a block.
        intermediate_size (`int`, defaults to 128): Width of the hidden layer of an MLP.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the MLPs.
        attention_probs_dropout_prob (`float`, defaults to 0): Dropout on attention weights.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the layer norms.
        initializer_range (`float`, defaults to 0.02): Standard deviation of new weights.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.
    """

    model_type = "new_method"

    # Inputs
    image_size: int = 32
    patch_size: int = 8
    num_channels: int = 3

    # Architecture
    hidden_size: int = 64
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 128
    hidden_act: str = "gelu"

    # Regularization and initialization
    attention_probs_dropout_prob: float | int = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "NewMethodConfig":
        """Configuration of a published variant, with fields changed by `overrides`.

        Raises:
            ValueError: If there is no such variant.
        """
        if name not in VARIANTS:
            raise ValueError(f"`name` must be one of {sorted(VARIANTS)}; got {name!r}.")
        return cls(**copy.deepcopy(VARIANTS[name] | overrides))

    @property
    def num_patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    def validate_sizes(self):
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size` ({self.patch_size}); got {self.image_size}."
            )

    def validate_heads(self):
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads` ({self.num_attention_heads}); got "
                f"{self.hidden_size}."
            )


__all__ = ["VARIANTS", "NewMethodConfig"]
