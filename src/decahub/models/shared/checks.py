"""Checks of what comes from outside: names, fields of configurations, values of tensors."""

import dataclasses
import difflib
import inspect
import math
from collections.abc import Collection, Iterable
from numbers import Real
from typing import Any

import torch


# What transformers passes on or writes into files, besides the names of our own classes and names that begin with "_".
CONFIG_KEYS = (
    "attn_implementation", "auto_map", "bos_token_id", "custom_pipelines", "eos_token_id", "experts_implementation",
    "finetuning_task", "is_decoder", "name_or_path", "num_labels", "output_attentions", "pad_token_id",
    "per_layer_config", "quantization_config", "task_specific_params", "tie_word_embeddings",
    "tokenizer_class", "torch_dtype", "torchscript", "transformers_weights", "use_bfloat16",
)  # fmt: skip
PROCESSOR_KEYS = ("auto_map", "feature_extractor_type", "image_processor_type", "name_or_path", "processor_class")
FORWARD_KEYS = (
    "is_causal", "num_items_in_batch", "output_attentions", "output_hidden_states", "return_dict", "use_cache",
)  # fmt: skip

BACKBONE_KEYS = {"out_features", "out_indices", "stage_names"}  # keywords of `BackboneConfigMixin` that are no fields
IS_SAVED = "_is_saved"  # keyword that tells `__post_init__` of the content of a file, which may have further keys
# A folder that asks for more is broken or hostile: building it would take all memory.
MAX_DEPTH, MAX_WIDTH, MAX_LABELS, MAX_FEATURES = 1000, 2**16, 10**6, 2**20


def can_look_at(tensor: torch.Tensor) -> bool:
    """Whether values may be checked: on accelerators it would wait for the device, in a traced graph break it."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def refuse_unknown(names: Iterable[str], allowed: Collection[str], what: str) -> None:
    """Refuses names that are not allowed, with the nearest that is.

    Args:
        names (`Iterable[str]`): names that were given.
        allowed (`Collection[str]`): names that exist.
        what (`str`): what they name, such as "a field of EmoConfig".

    Raises:
        ValueError: For the first unknown name.
    """
    for name in names:
        if name not in allowed:
            nearest = difflib.get_close_matches(name, allowed, n=1)
            hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
            raise ValueError(f"`{name}` must be {what}; it does not exist.{hint}")


def refuse_unknown_fields(config: Any, names: Iterable[str]) -> None:
    """Refuses what `__post_init__` of a `PreTrainedConfig` got, if it is neither a field nor a key of transformers.

    Files that transformers or older versions of it saved still load. Call it before `super().__post_init__`, which
    would store a misspelled field as an attribute.

    Args:
        config (`PreTrainedConfig`): the configuration.
        names (`Iterable[str]`): names of the keywords that are no fields.

    Raises:
        ValueError: For the first unknown name, with the nearest field.
    """
    unknown = [name for name in names if name[:1] != "_" and not _can_be_set(type(config), name)]
    if unknown:
        from transformers import GenerationConfig  # its fields were in every file until transformers 5

        fields = [field.name for field in dataclasses.fields(config)]
        allowed = [*fields, *CONFIG_KEYS, *GenerationConfig().to_dict(), *config.attribute_map]
        refuse_unknown(unknown, allowed, f"a field of {type(config).__name__}")


def _can_be_set(config_class: type, name: str) -> bool:
    attribute = inspect.getattr_static(config_class, name, None)
    return getattr(attribute, "fset", attribute) is not None and not callable(attribute)


def refuse_unknown_options(processor: Any, names: Iterable[str]) -> None:
    """Refuses what `__init__` of a processor got, if it is neither an argument of it nor a key of its files.

    Args:
        processor: a feature extractor or another processor.
        names (`Iterable[str]`): names of the keywords that are left over.

    Raises:
        ValueError: For the first unknown name, with the nearest argument.
    """
    unknown = [name for name in names if name[:1] != "_"]
    arguments = [name for name in inspect.signature(type(processor).__init__).parameters if name != "kwargs"]
    refuse_unknown(unknown, [*arguments[1:], *PROCESSOR_KEYS], f"an argument of {type(processor).__name__}")


def refuse_unknown_inputs(model: Any, names: Iterable[str], ignored: Collection[str] = ()) -> None:
    """Refuses what `forward` of a model got, if it is neither an input nor an option of all models of transformers.

    Args:
        model (`PreTrainedModel`): the model.
        names (`Iterable[str]`): names of the keywords that are left over.
        ignored (`Collection[str]`): what the processor gives beside the inputs of this model.

    Raises:
        ValueError: For the first unknown name, with the nearest input.
    """
    unknown = [name for name in names if name not in FORWARD_KEYS and name not in ignored]
    if unknown:  # a signature is not looked at in a traced graph
        inputs = [name for name in inspect.signature(type(model).forward).parameters if name not in ("self", "kwargs")]
        refuse_unknown(unknown, [*inputs, *FORWARD_KEYS], f"an input of {type(model).__name__}")


def check_minimum(config: Any, minimum: float, *names: str) -> None:
    """Refuses a configuration in which one of the named fields is set and less than `minimum`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= minimum:  # NaN neither
            raise ValueError(f"`{name}` must be at least {minimum}; got {value}.")


def check_maximum(name: str, values: Iterable[float | None], maximum: float) -> None:
    """Refuses a field in which one of the values is set and greater than `maximum`."""
    for value in values:
        if value is not None and not value <= maximum:
            raise ValueError(f"`{name}` must be at most {maximum}; got {value}.")


def check_probability(name: str, value: float) -> None:
    """Refuses a value outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be in [0, 1]; got {value}.")


def check_bounds(name: str, values: Any, maximum: float = math.inf) -> None:
    """Refuses what are not two numbers in ascending order, above 0 and at most `maximum`."""
    if not is_pair(values) or not 0 < values[0] <= values[1] <= maximum:
        wanted = "two positive numbers" if maximum == math.inf else f"two numbers in (0, {maximum}]"
        raise ValueError(f"`{name}` must be {wanted} in ascending order; got {values}.")


def is_pair(values: Any) -> bool:
    """Whether these are two numbers."""
    return isinstance(values, (list, tuple)) and [isinstance(value, Real) for value in values] == [True, True]


def check_num_labels(given: dict[str, Any]) -> None:
    """Refuses keywords of a configuration that ask for more classes than memory holds the names of."""
    if isinstance(given.get("num_labels"), int):
        check_maximum("num_labels", [given["num_labels"]], MAX_LABELS)


class CheckedConfig:
    """Mixin of configurations that refuses unknown fields; those of a file may come from another version and stay."""

    def __post_init__(self, **kwargs: Any) -> None:
        if not kwargs.pop(IS_SAVED, False):
            refuse_unknown_fields(self, sorted(kwargs.keys() - BACKBONE_KEYS))
        check_num_labels(kwargs)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, with keys of other versions; configurations of other methods are refused."""
        refuse_other_type(cls, config_dict)
        return super().from_dict({**config_dict, IS_SAVED: True}, **kwargs)


def refuse_other_type(config_class: Any, content: dict[str, Any]) -> None:
    """Refuses the content of a `config.json` that belongs to another method.

    Raises:
        ValueError: If it names another `model_type`.
    """
    given = content.get("model_type")
    if given not in (None, "", config_class.model_type):
        raise ValueError(
            f"`model_type` must be {config_class.model_type!r} for {config_class.__name__}; the folder holds a "
            f"{given!r}. Load it with the classes of that method, or with an Auto class."
        )


def check_rates(config: Any, *names: str) -> None:
    """Refuses a configuration in which one of the named probabilities lies outside [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"`{name}` must lie in [0, 1); got {getattr(config, name)}.")
