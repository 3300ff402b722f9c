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
    """Give a language model the vocabulary of a tokenizer with one token for each line, in place.

    `source` is where the model and its old tokenizer were loaded from; of a model its own name is used. Without a
    name, the embeddings are drawn anew.
    """
    place: Any = source.name_or_path if isinstance(source, PreTrainedModel) else source
    rows = None
    if place:
        folder, gguf_file = split_gguf_path(place, gguf_file)
        old_tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
        old = backbone.get_input_embeddings().weight
        texts = [tokenizer.decode([index]) for index in range(len(tokenizer))]
        written = [old_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        rows = torch.stack([old[ids].mean(0) if ids else old.mean(0) for ids in written])
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


__all__ = ["replace_vocabulary"]
