"""Low-rank adapters on the backbone, by peft: added, told from the other weights, and merged into them."""

from collections.abc import Mapping
from typing import Any

from torch import nn


LORA_MARK = "lora_"  # in the names that peft gives its parameters
ADAPTER_NAME = "default"
DEFAULTS = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "lora_dropout": 0.0}
"""Settings that `add_adapter` starts from; the arguments of `peft.LoraConfig`."""


def add_adapter(backbone: nn.Module, settings: Mapping[str, Any]) -> None:
    """Put adapters into a language model and freeze the rest.

    Args:
        backbone (`nn.Module`): Changed in place.
        settings (`Mapping`): Arguments of `peft.LoraConfig`.

    Raises:
        ImportError: If peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(
            "peft must be installed for `adapter`; it is not. Run `pip install 'decahub[drum_lm]'`."
        ) from error
    before = set(backbone.modules())
    inject_adapter_in_model(LoraConfig(task_type="CAUSAL_LM", **settings), backbone, ADAPTER_NAME)
    for module in set(backbone.modules()) - before:
        # An adapter starts as the identity; the initialization of the model must not touch it.
        module._is_hf_initialized = True


def is_adapter_name(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return LORA_MARK in name or ".modules_to_save." in name


def merge_adapter(backbone: nn.Module) -> None:
    """Add the adapters to the weights they stand beside, and remove them, in place."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(backbone.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            backbone.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            backbone.set_submodule(name, module.modules_to_save[ADAPTER_NAME])
    for parameter in backbone.parameters():
        parameter.requires_grad_(True)
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        vars(backbone).pop(attribute, None)


__all__ = ["DEFAULTS", "add_adapter", "is_adapter_name", "merge_adapter"]
