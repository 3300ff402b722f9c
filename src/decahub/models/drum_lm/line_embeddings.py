"""A vocabulary of whole lines for a language model: each embedding a mean of those of the tokens it replaces."""

import os
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .backbone import split_gguf_path


@torch.no_grad()
def replace_vocabulary(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    source: str | os.PathLike | PreTrainedModel | None,
    gguf_file: str | None = None,
) -> None:
    """Give a language model the vocabulary of another tokenizer, in place.

    Args:
        backbone (`PreTrainedModel`): The language model.
        tokenizer (`PreTrainedTokenizerBase`): Its new tokenizer, with one token for each line.
        source (`str`, `os.PathLike` or `PreTrainedModel`): Where the model and its old tokenizer were loaded from. A
            model's own name is used; without one, or with `None`, its embeddings are drawn anew.
        gguf_file (`str`, *optional*): Name of a GGUF file inside `source`.
    """
    place: Any = source.name_or_path if isinstance(source, PreTrainedModel) else source
    rows = None
    if place:
        folder, gguf_file = split_gguf_path(place, gguf_file)
        old_tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
        rows = build_line_embeddings(backbone.get_input_embeddings().weight, old_tokenizer, tokenizer)
    backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings = backbone.get_input_embeddings().weight
    if rows is None:
        embeddings.normal_(std=getattr(backbone.config.get_text_config(), "initializer_range", 0.02))
    else:
        embeddings.copy_(rows)
    head = backbone.get_output_embeddings()
    if head.weight is not embeddings:
        head.weight.copy_(embeddings)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(tokenizer, name)
        setattr(backbone.config.get_text_config(), name, value)
        setattr(backbone.generation_config, name, value)


def build_line_embeddings(
    embeddings: torch.Tensor, old_tokenizer: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """For each token of a tokenizer the mean of the embeddings of what another tokenizer writes in its place.

    Args:
        embeddings (`torch.FloatTensor` of shape `(vocab_size, hidden_size)`): Of the old vocabulary.
        old_tokenizer (`PreTrainedTokenizerBase`): Tokenizer of those.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer of lines.

    Returns:
        `torch.FloatTensor` of shape `(len(tokenizer), hidden_size)`.
    """
    rows = []
    for index in range(len(tokenizer)):
        text = tokenizer.decode([index])
        ids = old_tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append(embeddings[ids].mean(0) if ids else embeddings.mean(0))
    return torch.stack(rows)


__all__ = ["build_line_embeddings", "replace_vocabulary"]
