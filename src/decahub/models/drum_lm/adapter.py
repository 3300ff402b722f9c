"""Low-rank adapters on the backbone, by peft: added, told from the other weights, and merged into them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn


LORA_MARK = "lora_"  # in the names that peft gives its parameters
ADAPTER_NAME = "default"
NO_PEFT = "peft must be installed for `adapter`; it is not. Run `pip install 'decahub[drum_lm]'`."
DEFAULTS = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "lora_dropout": 0.0}
"""Settings that `add_adapter` starts from; the arguments of `peft.LoraConfig`."""


def add_adapter(backbone: nn.Module, settings: Mapping[str, Any]) -> None:
    """Put adapters with these arguments of `peft.LoraConfig` into a language model, in place, and freeze the rest."""
    check_settings(backbone, settings)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(NO_PEFT) from error
    before = set(backbone.modules())
    inject_adapter_in_model(LoraConfig(task_type="CAUSAL_LM", **settings), backbone, ADAPTER_NAME)
    for module in set(backbone.modules()) - before:
        # An adapter starts as the identity; the initialization of the model must not touch it.
        module._is_hf_initialized = True


def check_settings(backbone: nn.Module, settings: Mapping[str, Any]) -> None:
    """Refuse settings whose adapters could not be saved alone, or would change a weight that has two uses."""
    if settings.get("bias", "none") != "none":
        raise ValueError(
            f"`adapter` must have `bias` 'none', since biases of the base are not saved; got {settings['bias']!r}."
        )
    if settings.get("trainable_token_indices"):
        raise ValueError(
            f"`adapter` must not have `trainable_token_indices`, which are not saved; got "
            f"{settings['trainable_token_indices']!r}. Train the whole embedding, by its name in `modules_to_save`."
        )
    embedding, head = backbone.get_input_embeddings(), backbone.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return
    (embedding_name,), (head_name,) = find_names(backbone, [embedding]), find_names(backbone, [head])
    for key, name in (
        ("target_modules", head_name), ("modules_to_save", head_name), ("target_modules", embedding_name)
    ):  # fmt: skip
        if _is_chosen(name, settings.get(key), separator="." if key == "target_modules" else ""):
            raise ValueError(
                f"`adapter` must not have {name!r} in `{key}`: the embedding and the head of this model are one "
                f"weight. Train it whole, with {embedding_name.rpartition('.')[2]!r} in `modules_to_save`."
            )


def find_names(backbone: nn.Module, modules: Iterable[nn.Module]) -> list[str]:
    """Names of modules of a language model."""
    return [name for name, own in backbone.named_modules() if any(own is module for module in modules)]


def find_vocabulary_names(backbone: nn.Module) -> list[str]:
    """Names of what has a row for each token: the embedding, and the head unless both are one weight."""
    embedding, head = backbone.get_input_embeddings(), backbone.get_output_embeddings()
    modules = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    return [name.rpartition(".")[2] for name in find_names(backbone, modules)]


def _is_chosen(name: str, choice: Any, separator: str) -> bool:
    """Whether peft would take a module for one of `choice`: a pattern, or names and ends of names.

    An end follows a `separator`, which is nothing in `modules_to_save`: `head` is there the end of `lm_head`.
    """
    if choice is None or choice == "all-linear":  # which leaves out the head
        return False
    if isinstance(choice, str):
        return re.fullmatch(choice, name) is not None
    return any(name == end or name.endswith(separator + end) for end in choice)


def is_adapter_name(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return LORA_MARK in name or ".modules_to_save." in name


def merge_adapter(backbone: nn.Module) -> None:
    """Add the adapters to the weights they stand beside, and remove them, in place."""
    try:  # As remote code, a room must not import outside of `try` what most of its models do without.
        from peft.tuners.lora import LoraLayer
        from peft.utils import ModulesToSaveWrapper
    except ImportError as error:
        raise ImportError(NO_PEFT) from error

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


__all__ = ["DEFAULTS", "add_adapter", "find_vocabulary_names", "is_adapter_name", "merge_adapter"]
