"""Small tokenizers and models for the tests of Drum LM, made in place."""

import random

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


END_OF_TEXT = "<end>"


def draw_text(bars=16, steps_per_bar=16, columns=6, seed=0, density=0.25):
    """A groove without sense, as text with separators and end mark."""
    generator = random.Random(seed)
    lines = [
        "".join("o" if generator.random() < density else "-" for _ in range(columns))
        for _ in range(bars * steps_per_bar)
    ]
    bar_texts = ["\n".join(lines[start : start + steps_per_bar]) for start in range(0, len(lines), steps_per_bar)]
    return "\nSEP\n".join(bar_texts) + "\nEND"


def build_bpe_tokenizer(kind="words", columns=6, vocab_size=60):
    """A byte-pair tokenizer trained on grooves.

    Args:
        kind: `"words"` splits as GPT-2 does, so that dashes and letters merge apart; `"lines"` splits at line ends
            only, so that `-o-` may be a token; `"across"` does not split, so that tokens reach across line ends;
            `"characters"` has no merges; `"lower"` has no capitals; `"blind"` knows no `o`.
    """
    tokenizer = Tokenizer(BPE())
    texts = [draw_text(seed=seed, columns=columns) for seed in range(20)]
    alphabet = sorted(set("-oSEPND\n"))
    if kind == "words":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = []
    else:
        tokenizer.decoder = decoders.Fuse()
    if kind == "lines":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\n"), behavior="isolated")
    if kind == "lower":
        tokenizer.normalizer = normalizers.Lowercase()
    if kind == "blind":
        texts, alphabet = [text.replace("o", "-") for text in texts], []
    size = 0 if kind == "characters" else vocab_size
    trainer = BpeTrainer(vocab_size=size, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_random_llama(tokenizer, seed=0, extra_ids=5):
    """A language model that has learned nothing, with some ids that the tokenizer does not have."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + extra_ids,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval()
