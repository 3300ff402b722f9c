"""Drum LM: a causal language model that continues drum grooves written as text (arXiv 2301.01162)."""

import copy
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from ..shared.ignore_index import IGNORED_CLASS
from .adapter import DEFAULTS, add_adapter, find_vocabulary_names, is_adapter_name, merge_adapter
from .backbone import check_base, describe_base, load_backbone, load_base
from .configuration_drum_lm import DrumLmConfig
from .expression import DrumExpression
from .line_embeddings import replace_vocabulary


# Arguments that tell where a file of a repository is.
HUB_KEYWORDS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
LOADING_PROBLEMS = ("missing", "unexpected", "mismatched")

# Keys and values of earlier tokens: transformers 5.24 gave them a new name, in arguments and outputs alike.
CACHE_NAME = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


@dataclass
class DrumLmOutput(CausalLMOutputWithPast):
    """Output of [`DrumLmForCausalLM`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): weighted mean of the negative log likelihood of `labels`.
        logits (`torch.FloatTensor` of shape `(batch_size, num_tokens, vocab_size)`, *optional*): scores of the next
            token, unless `skip_logits`.
        cache, hidden_states, attentions: as in transformers; `cache` is `past_key_values` before transformers 5.24.
        token_losses (`torch.FloatTensor` of shape `(batch_size, num_tokens)`, *optional*): with `labels`, at each
            position the negative log likelihood of the next token in nats, 0 where it is not scored.
        bits_per_step (`torch.FloatTensor` of shape `()`, *optional*): with `labels` and `num_steps`, bits for each
            sixteenth note after the prompts.
        expression_errors (`torch.FloatTensor` of shape `(batch_size, 3)`, *optional*): with `velocities`, the summed
            absolute errors of velocities and offsets after the known steps, and the number of hits there.
    """

    token_losses: torch.FloatTensor | None = None
    bits_per_step: torch.FloatTensor | None = None
    expression_errors: torch.FloatTensor | None = None


class DrumLmPreTrainedModel(PreTrainedModel):
    """Loading and what transformers needs to know about Drum LM; weights are initialized by the backbone."""

    config: DrumLmConfig
    config_class = DrumLmConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _skip_keys_device_placement = [CACHE_NAME]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


class DrumLmForCausalLM(DrumLmPreTrainedModel, GenerationMixin):
    """A causal language model of transformers, as it is used to write grooves.

    `backbone` is the model itself, whole: its weights, cache and attention stay what they are. Around it are the loss
    that counts the prompt little, bits for each sixteenth note, scores restricted to the tokens of the writing, and
    low-rank adapters that are saved without the weights they stand on.

    Args:
        config ([`DrumLmConfig`]): Configuration of the model.
        backbone (`PreTrainedModel`, *optional*): The language model, which adapters change in place; by default one
            with random weights. `from_backbone` leaves a given model as it is.

    Example:
    ```python
    >>> from decahub import DrumLmConfig, DrumLmForCausalLM
    >>> model = DrumLmForCausalLM(DrumLmConfig())
    >>> model.num_parameters() < 3_000_000
    True

    ```
    """

    def __init__(self, config: DrumLmConfig, backbone: PreTrainedModel | None = None):
        super().__init__(config)
        if backbone is None:
            backbone = AutoModelForCausalLM.from_config(config.backbone_config)
        self.backbone = backbone
        if config.adapter is not None:
            add_adapter(self.backbone, config.adapter)
        if config.expression is not None:
            self.expression = DrumExpression(config.num_columns, **config.expression)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        source: str | os.PathLike | PreTrainedModel,
        processor: Any = None,
        *,
        gguf_file: str | None = None,
        reinit: bool = False,
        adapter: Mapping[str, Any] | None = None,
        repo_id: str | None = None,
        **config_fields: Any,
    ) -> "DrumLmForCausalLM":
        """A model around any causal language model.

        Args:
            source (`str`, `os.PathLike` or `PreTrainedModel`): Folder or Hub id, path of a GGUF file, or a model.
                Files are loaded in float32. A model is used as it is; with adapters or another vocabulary, a copy.
            processor ([`DrumLmProcessor`], *optional*): Gives the fields of the writing and, for the tokenization
                "line", the vocabulary that takes the place of the old one: the embedding of a line is then the mean of
                those of its tokens.
            gguf_file (`str`, *optional*): Name of a GGUF file inside `source`.
            reinit (`bool`, defaults to `False`): Keep the architecture alone, with random weights.
            adapter (`Mapping`, *optional*): Train low-rank adapters with these arguments of `peft.LoraConfig`, and
                save them without the backbone; `{}` for the usual ones, which with the tokenization "line" train the
                embeddings as well.
            repo_id (`str`, *optional*): Name of the backbone that an adapter's configuration holds; by default that it
                was loaded by, and of a GGUF file that of the file. One that others know is needed before publishing.
            config_fields: Fields of [`DrumLmConfig`].
        """
        if processor is not None:
            config_fields = {**processor.to_config_fields(), **config_fields}
        config_fields.setdefault("tokenization", "text")
        is_line = config_fields["tokenization"] == "line"
        has_new_vocabulary = processor is not None and is_line
        backbone = load_backbone(source, gguf_file)
        if reinit:
            backbone = AutoModelForCausalLM.from_config(copy.deepcopy(backbone.config), dtype=torch.float32)
        elif backbone is source and (has_new_vocabulary or adapter is not None):
            backbone = copy.deepcopy(backbone)
        if has_new_vocabulary:
            replace_vocabulary(backbone, processor.tokenizer, None if reinit else source, gguf_file)
        if adapter is not None:
            saved_whole = {"modules_to_save": find_vocabulary_names(backbone)} if is_line else {}
            config_fields |= {
                "adapter": {**DEFAULTS, **saved_whole, **adapter},
                "adapter_base": None if reinit or is_line else describe_base(source, gguf_file, repo_id),
            }
        return cls(cls.config_class(backbone_config=backbone.config, **config_fields), backbone)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *model_args: Any,
        base_model: Any = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a model, or an adapter and the base that it names.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Folder or Hub id.
            base_model (`str`, `os.PathLike` or `PreTrainedModel`, *optional*): The base of an adapter: a folder, the
                path of a GGUF file, or a model. By default the file that the variable `DECAHUB_SMOLLM2_GGUF` names
                where the base is a GGUF file, then the Hub.
            output_loading_info (`bool`, defaults to `False`): Whether to return the model and a `dict` of the names
                that were missing, unexpected or of another shape; of an adapter all are empty, since it is refused
                otherwise.
            model_args: As in `PreTrainedModel.from_pretrained`.
            kwargs: As in `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: If the base is of another kind or size than the one that the adapter was trained on, or another
                GGUF file.
            OSError: If the base cannot be found, or the file of the adapters is damaged.
        """
        hub_arguments = {name: kwargs[name] for name in HUB_KEYWORDS if name in kwargs}
        config = kwargs.get("config") or pretrained_model_name_or_path
        if isinstance(config, PreTrainedConfig):
            config = copy.deepcopy(config)
        else:
            config = cls.config_class.from_pretrained(config, **hub_arguments)
        if config.adapter_base is None:
            kwargs["output_loading_info"] = output_loading_info
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name not in (*HUB_KEYWORDS, "config")}
        own_fields = {item.name for item in fields(config)} - {item.name for item in fields(PreTrainedConfig)}
        for name in own_fields & kwargs.keys():
            setattr(config, name, kwargs.pop(name))
        backbone = load_base(config.adapter_base, base_model, **kwargs)
        check_base(backbone.config, config.backbone_config)
        model = cls(config, backbone)
        model.name_or_path = str(pretrained_model_name_or_path)
        file = cached_file(pretrained_model_name_or_path, SAFE_WEIGHTS_NAME, **hub_arguments)
        try:
            weights = load_file(str(file))
        except SafetensorError as error:
            raise OSError(f"`{file}` must be a complete safetensors file; got {error}. Fetch it again.") from error
        model.load_adapter_weights(weights)
        if cached_file(
            pretrained_model_name_or_path,
            "generation_config.json",
            _raise_exceptions_for_missing_entries=False,
            **hub_arguments,
        ):
            model.generation_config = GenerationConfig.from_pretrained(pretrained_model_name_or_path, **hub_arguments)
        model.eval()
        return (model, {f"{kind}_keys": set() for kind in LOADING_PROBLEMS}) if output_loading_info else model

    def load_adapter_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Set the weights of the adapters: all of them, by name and shape."""
        own = self.get_adapter_weights()
        if weights.keys() != own.keys():
            different = sorted(weights.keys() ^ own.keys())
            raise ValueError(
                f"`weights` must hold the {len(own)} tensors of this model's adapters; {len(different)} differ, such "
                f"as {different[0]}. Give the base that the adapter was trained on."
            )
        for name, tensor in weights.items():
            if tensor.shape != own[name].shape:
                raise ValueError(
                    f"`weights` must fit this model: {name} has the shape {tuple(tensor.shape)} instead of "
                    f"{tuple(own[name].shape)}. Give the base that the adapter was trained on."
                )
            own[name].copy_(tensor)

    def get_adapter_weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the adapters by name; changing one in place changes the model."""
        return {name: tensor for name, tensor in self.state_dict().items() if is_adapter_name(name)}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the model; adapters on a base that has a name without the base."""
        if self.config.adapter_base is not None:
            kwargs.setdefault("state_dict", self.get_adapter_weights())
        super().save_pretrained(save_directory, **kwargs)

    def merge_adapter(self) -> "DrumLmForCausalLM":
        """Add the adapters to the weights, in place: a complete model, as fast as the backbone and without peft."""
        if self.config.adapter is None:
            raise ValueError("`config.adapter` must be set to merge an adapter; this model has none.")
        merge_adapter(self.backbone)
        self.config.adapter = self.config.adapter_base = None
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.backbone.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.backbone.get_decoder()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        prompt_lengths: torch.LongTensor | None = None,
        num_steps: torch.LongTensor | None = None,
        velocities: torch.LongTensor | None = None,
        offsets: torch.FloatTensor | None = None,
        known_steps: torch.LongTensor | None = None,
        bar_steps: torch.LongTensor | None = None,
        shift_labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> DrumLmOutput | tuple:
        """Scores of the next token, and the loss if there are labels.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*): Tokens.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_tokens)`, *optional*): 0 for padding.
            position_ids (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*): Positions of the tokens.
            past_key_values (`Cache`, *optional*): Keys and values of earlier tokens.
            cache (`Cache`, *optional*): The same, by the name that transformers has given them in 5.24.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, num_tokens, hidden_size)`, *optional*): Embedded
                tokens in place of `input_ids`.
            labels (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*): The tokens again, -100 where
                they count for nothing.
            prompt_lengths (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Tokens of the prompts, whose
                weight in the loss is `config.prompt_loss_weight`.
            num_steps (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Sixteenth notes after the prompts, for
                `bits_per_step`.
            velocities (`torch.LongTensor` of shape `(batch_size, num_steps, columns)`, *optional*): For a model with
                `config.expression`: velocity of each hit, 0 without a hit. Their loss is added to that of `labels`.
            offsets (`torch.FloatTensor` of shape `(batch_size, num_steps, columns)`, *optional*): How late each hit
                is, in sixteenth notes. Goes with `velocities`.
            known_steps (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Steps whose velocities and offsets
                are given to the model. Goes with `velocities`.
            bar_steps (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Steps of a bar. Goes with
                `velocities`.
            shift_labels (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*): In place of `labels`,
                the target of each position, as training on parts of a sequence needs them.
            use_cache (`bool`, *optional*): Whether keys and values are returned.
            logits_to_keep (`int` or `torch.Tensor`, defaults to 0): Scores of only this many last tokens, or of these
                positions; 0 for all.
            skip_logits (`bool`, defaults to `False`): Return no `logits`, which training does not need; with
                `restrict_vocab` this saves a tensor as wide as the vocabulary.
            return_dict (`bool`, *optional*): Whether a [`DrumLmOutput`] is returned or a tuple.
            kwargs: Further arguments of the backbone's `forward`.

        Raises:
            ValueError: If labels are not of the shape of the input, or outside `grammar_token_ids` where scores are
                restricted to those, or there are velocities and the model has no `expression`.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        # By its earlier name it stays under that, so that transformers can warn of it.
        is_by_earlier_name = cache is None and past_key_values is not None
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values" if is_by_earlier_name else CACHE_NAME: past_key_values if cache is None else cache,
            "inputs_embeds": inputs_embeds,
            "use_cache": use_cache,
            "return_dict": True,
            **kwargs,
        }
        if self.config.restrict_vocab:
            outputs, scores = self.compute_restricted_scores(inputs, logits_to_keep)
        else:
            outputs = self.backbone(**inputs, logits_to_keep=logits_to_keep)
            scores = outputs.logits
        losses = {}
        targets = shift_labels
        if targets is None and labels is not None:
            targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_CLASS)
        if targets is not None:
            losses = self.compute_losses(scores, targets, prompt_lengths, num_steps, attention_mask)
        if velocities is not None:
            if self.config.expression is None:
                raise ValueError("`velocities` must be left out with a model whose `config.expression` is `None`.")
            expression_loss, errors = self.expression.compute_loss(velocities, offsets, known_steps, bar_steps)
            losses |= {"loss": losses.get("loss", 0) + expression_loss, "expression_errors": errors}
        logits = None
        if not skip_logits:
            logits = self.spread_scores(scores) if self.config.restrict_vocab else scores
        result = DrumLmOutput(
            logits=logits,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            **{CACHE_NAME: outputs.get(CACHE_NAME), **losses},
        )
        return result if return_dict else result.to_tuple()

    def compute_restricted_scores(
        self, inputs: dict[str, Any], logits_to_keep: int | torch.Tensor
    ) -> tuple[Any, torch.Tensor]:
        """Output of the backbone without its head, and scores of `grammar_token_ids` alone."""
        outputs = self.backbone.get_decoder()(**inputs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        states = outputs.last_hidden_state[:, kept, :]
        head = self.get_output_embeddings()
        rows = torch.tensor(self.config.grammar_token_ids, device=states.device)
        bias = None if head.bias is None else head.bias[rows]
        return outputs, nn.functional.linear(states, head.weight[rows], bias)

    def spread_scores(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores at their places in the whole vocabulary; all others are the lowest number."""
        size = self.config.get_text_config().vocab_size
        logits = scores.new_full((*scores.shape[:-1], size), torch.finfo(scores.dtype).min)
        logits[..., self.config.grammar_token_ids] = scores
        return logits

    def compute_losses(
        self,
        scores: torch.Tensor,
        targets: torch.Tensor,
        prompt_lengths: torch.Tensor | None,
        num_steps: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
    ) -> dict[str, torch.Tensor | None]:
        """What a forward pass adds to its output where there are labels."""
        if targets.shape != scores.shape[:-1]:
            raise ValueError(
                f"`labels` must have one id for each token, of shape {tuple(scores.shape[:-1])}; got "
                f"{tuple(targets.shape)}. Leave `logits_to_keep` at 0 with labels."
            )
        targets = targets.to(scores.device)
        columns = self.find_columns(targets) if self.config.restrict_vocab else targets
        losses = nn.functional.cross_entropy(
            scores.float().flatten(0, 1), columns.flatten(), ignore_index=IGNORED_CLASS, reduction="none"
        ).view(targets.shape)
        is_scored = is_completion = targets != IGNORED_CLASS
        if prompt_lengths is not None:  # which do not count padding; the target of a position is the token after it
            positions = torch.arange(1, targets.shape[1] + 1, device=targets.device)[None]
            starts = 0 if attention_mask is None else attention_mask.long().argmax(1, keepdim=True)
            is_completion = is_scored & (positions >= starts + prompt_lengths.to(targets.device)[:, None])
        weights = torch.where(is_completion, 1.0, self.config.prompt_loss_weight) * is_scored
        loss = (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
        bits = None
        if num_steps is not None:  # separators and end are paid for, but count as no step
            bits = (losses * is_completion).sum(1).sum() / math.log(2) / num_steps.to(losses.device).sum()
        return {"loss": loss, "token_losses": losses, "bits_per_step": bits}

    def find_columns(self, targets: torch.Tensor) -> torch.Tensor:
        """Places of token ids in `grammar_token_ids`; -100 stays."""
        ids = torch.tensor(self.config.grammar_token_ids, device=targets.device)
        matches = targets[..., None] == ids
        if not torch.compiler.is_compiling() and not (matches.any(-1) | (targets == IGNORED_CLASS)).all():
            strange = targets[~matches.any(-1) & (targets != IGNORED_CLASS)]
            raise ValueError(
                f"`labels` must be among `grammar_token_ids`, or {IGNORED_CLASS}; got {int(strange[0])}. Encode "
                "grooves with the processor, or set `restrict_vocab=False`."
            )
        return torch.where(targets == IGNORED_CLASS, IGNORED_CLASS, matches.int().argmax(-1))


__all__ = ["DrumLmForCausalLM", "DrumLmOutput", "DrumLmPreTrainedModel"]
