"""Configuration of Drum LM, a language model that writes drum grooves as text (arXiv 2301.01162)."""

import copy
from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..shared.checks import MAX_DEPTH, MAX_LABELS, MAX_WIDTH, CheckedConfig, check_maximum
from ..shared.variants import build_variant


NUM_COLUMNS = {"six": 6, "nine": 9}
NUM_SPECIAL_LINE_TOKENS = 4  # pad, begin, end and separator
ENCODING_VERSION = 1
# Checked before the backbone's configuration is built, which has a name for each of its layers.
BACKBONE_LIMITS = {
    "num_hidden_layers": MAX_DEPTH, "n_layer": MAX_DEPTH, "hidden_size": MAX_WIDTH, "n_embd": MAX_WIDTH,
    "intermediate_size": 2**20, "vocab_size": MAX_LABELS,
}  # fmt: skip

LLAMA = {
    "model_type": "llama", "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    # Architecture of SmolLM2-135M and its tokenizer; weights come from `from_backbone`.
    "smollm2-135m": {
        "tokenization": "text",
        "restrict_vocab": True,
        "grammar_token_ids": [29, 64, 95, 198, 423, 568, 586, 5583, 6493, 16317, 17318, 21771, 40316],
        "backbone_config": {
            **LLAMA,
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
            "max_position_embeddings": 8192,
            "pad_token_id": 2,
        },
    },
    # A small model of its own, one token for each line.
    "small": {
        "tokenization": "line",
        "backbone_config": {
            **LLAMA,
            "vocab_size": 68,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "max_position_embeddings": 1024,
            "pad_token_id": 0,
        },
    },
}
# The small model for nine groups of drums, open and closed hi-hat apart, with velocities and timing.
VARIANTS["expressive"] = {
    **VARIANTS["small"],
    "columns": "nine",
    "expression": {"hidden_size": 96, "num_layers": 2},
    "backbone_config": {**VARIANTS["small"]["backbone_config"], "vocab_size": 516},
}
"""Backbones to start from: the base of the published adapter, and small stand-alone models."""


def check_marks(separator: str, end: str) -> None:
    """Refuses lines that could not be told from hits, or from each other."""
    for name, value in (("separator", separator), ("end", end)):
        if not value or any(character in value for character in "-o\n"):
            raise ValueError(f"`{name}` must be a word without '-', 'o' and line ends; got {value!r}.")
    if separator == end:
        raise ValueError(f"`separator` and `end` must differ; both are {end!r}.")


@strict
class DrumLmConfig(CheckedConfig, PreTrainedConfig):
    r"""Configuration of [`DrumLmForCausalLM`].

    A groove is written as one line for each sixteenth note, with a character for each group of drums, `o` for a hit
    and `-` for none; a separator follows each bar and an end mark the last one.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*): Configuration of the language model; by default
            that of the variant `"small"`.
        columns (`str`, defaults to `"six"`): Groups of drums: `"six"` is the method's, `"nine"` the usual reduction of
            the Groove dataset.
        steps_per_bar (`int`, defaults to 16): Lines of a bar.
        bars (`int`, defaults to 16): Bars of a groove.
        prompt_bars (`int`, defaults to 2): Bars that are given, of those.
        tokenization (`str`, defaults to `"line"`): `"text"` uses the tokens of the language model, `"line"` has one
            token for each possible line.
        restrict_vocab (`bool`, defaults to `False`): Whether scores are computed and normalized over
            `grammar_token_ids` only; all others get the lowest number.
        grammar_token_ids (`list[int]`, *optional*): Tokens that occur in the writing of grooves; needed for
            `restrict_vocab`.
        adapter (`dict`, *optional*): Arguments of `peft.LoraConfig`: the model has low-rank adapters on its backbone.
        adapter_base (`dict`, *optional*): With `adapter`: where the backbone comes from, which is then not saved with
            the model: `repo_id`, and for a GGUF file its name `file` and its `sha256`.
        prompt_loss_weight (`float`, defaults to 0.01): Weight of the prompt's tokens in the loss, beside 1 of the
            others.
        separator (`str`, defaults to `"SEP"`): Line after each bar but the last.
        end (`str`, defaults to `"END"`): Line after the last bar.
        encoding_version (`int`, defaults to 1): Version of the writing.
        expression (`dict`, *optional*): `hidden_size` and `num_layers` of a
            [`~decahub.models.drum_lm.expression.DrumExpression`] that gives each hit a velocity and a timing; none by
            default. Not with `adapter_base`.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.

    Example:
    ```python
    >>> from decahub import DrumLmConfig
    >>> DrumLmConfig.from_variant("small", bars=8).backbone_config.num_hidden_layers
    6

    ```
    """

    model_type = "drum_lm"
    sub_configs = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None

    # Writing
    columns: Literal["six", "nine"] = "six"
    steps_per_bar: int = 16
    bars: int = 16
    prompt_bars: int = 2
    tokenization: Literal["text", "line"] = "line"
    separator: str = "SEP"
    end: str = "END"
    encoding_version: int = ENCODING_VERSION

    # Scores and loss
    restrict_vocab: bool = False
    grammar_token_ids: list[int] | tuple[int, ...] | None = None
    prompt_loss_weight: float | int = 0.01

    # Velocities and timing
    expression: dict[str, int] | None = None

    # Adapter
    adapter: dict[str, Any] | None = None
    adapter_base: dict[str, Any] | None = None

    tie_word_embeddings: bool = field(default=True)

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = copy.deepcopy(VARIANTS["small"]["backbone_config"])
        if isinstance(self.backbone_config, dict):
            fields = dict(self.backbone_config)
            model_type = fields.pop("model_type", None)
            if model_type not in CONFIG_MAPPING:
                raise ValueError(
                    f"`backbone_config` must have a `model_type` that transformers knows; got {model_type!r}."
                )
            for part in (fields, fields.get("text_config") or {}):
                for name in BACKBONE_LIMITS.keys() & part:
                    if isinstance(part[name], int):
                        check_maximum(f"backbone_config.{name}", [part[name]], BACKBONE_LIMITS[name])
            self.backbone_config = CONFIG_MAPPING[model_type](**fields)
        text_config = self.backbone_config.get_text_config(decoder=True)
        self.tie_word_embeddings = getattr(text_config, "tie_word_embeddings", False)
        attention = self.backbone_config._attn_implementation
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if kwargs.get(name) is None:
                kwargs[name] = getattr(text_config, name, None)
        super().__post_init__(**kwargs)
        if self._attn_implementation is None:
            # Setting none has reached the backbone's configuration, which may belong to a model.
            self.backbone_config._attn_implementation = attention

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The configuration of the language model, which caches and generation ask for."""
        return self.backbone_config.get_text_config(decoder=decoder, encoder=encoder)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "DrumLmConfig":
        """Configuration of a known backbone: `"small"`, `"expressive"` or `"smollm2-135m"`."""
        return build_variant(cls, VARIANTS, name, overrides)

    @property
    def num_columns(self) -> int:
        """Characters of a line."""
        return NUM_COLUMNS[self.columns]

    def validate_writing(self):
        for name in ("steps_per_bar", "bars"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")
            check_maximum(name, [getattr(self, name)], MAX_DEPTH)
        if not 0 <= self.prompt_bars < self.bars:
            raise ValueError(f"`prompt_bars` must be in [0, `bars` ({self.bars})); got {self.prompt_bars}.")
        if self.encoding_version != ENCODING_VERSION:
            raise ValueError(
                f"`encoding_version` must be {ENCODING_VERSION}; got {self.encoding_version}. Install a version of "
                "decahub that knows it."
            )
        check_marks(self.separator, self.end)

    def validate_vocabulary(self):
        text_config = self.get_text_config()
        size = text_config.vocab_size
        if self.tokenization == "line":
            needed = NUM_SPECIAL_LINE_TOKENS + 2**self.num_columns
            if size < needed:
                raise ValueError(
                    f"`backbone_config.vocab_size` must be at least {needed} for the tokenization 'line' with "
                    f"{self.num_columns} columns; got {size}."
                )
        if self.restrict_vocab and not self.grammar_token_ids:
            raise ValueError("`grammar_token_ids` must be given with `restrict_vocab`; got none.")
        if self.grammar_token_ids is not None:
            outside = [token for token in self.grammar_token_ids if not 0 <= token < size]
            if outside or len(set(self.grammar_token_ids)) < len(self.grammar_token_ids):
                raise ValueError(
                    f"`grammar_token_ids` must be different ids in [0, {size}); got {list(self.grammar_token_ids)}."
                )
        for name in (
            "final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier", "output_multiplier"
        ):  # fmt: skip
            if self.restrict_vocab and getattr(text_config, name, None) not in (None, 1, 1.0):
                raise ValueError(
                    f"`restrict_vocab` must be false for a backbone with `{name}`, whose scores are more than a "
                    "product with the head."
                )
        if not 0 <= self.prompt_loss_weight <= 1:
            raise ValueError(f"`prompt_loss_weight` must be in [0, 1]; got {self.prompt_loss_weight}.")

    def validate_expression(self):
        if self.expression is None:
            return
        if sorted(self.expression) != ["hidden_size", "num_layers"]:
            raise ValueError(f"`expression` must have `hidden_size` and `num_layers`; got {sorted(self.expression)}.")
        for name, value in self.expression.items():
            if value < 1:
                raise ValueError(f"`expression.{name}` must be at least 1; got {value}.")
            check_maximum(f"expression.{name}", [value], MAX_WIDTH if name == "hidden_size" else MAX_DEPTH)
        if self.adapter_base is not None:
            raise ValueError(
                "`expression` must be left out with `adapter_base`, since adapters are saved without other weights."
            )

    def validate_adapter(self):
        if self.adapter_base is None:
            return
        if self.adapter is None:
            raise ValueError(
                "`adapter_base` must come with an `adapter`; got none. Without one the model is complete."
            )
        unknown = sorted(set(self.adapter_base) - {"repo_id", "file", "sha256"})
        if unknown or not self.adapter_base.get("repo_id"):
            raise ValueError(
                f"`adapter_base` must have `repo_id`, and may have `file` and `sha256`; got "
                f"{sorted(self.adapter_base)}."
            )
        if bool(self.adapter_base.get("file")) != bool(self.adapter_base.get("sha256")):
            raise ValueError("`adapter_base` must name `file` and `sha256` together; got one of them.")


__all__ = ["DrumLmConfig"]
