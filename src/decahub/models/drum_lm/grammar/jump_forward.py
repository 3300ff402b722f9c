"""Generation that asks the model nothing where the grammar leaves one token in each row.

With the tokens of SmolLM2 two of five tokens of a groove are settled like this: line ends, separators, and the last
characters of many lines. With one token for each line these are the separators, one in seventeen.
"""

from typing import Any

import torch
from transformers.generation import GenerateDecoderOnlyOutput


RECORDS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


def jump_forward(
    model: Any,
    input_ids: torch.LongTensor,
    logits_processor: list[Any],
    stopping_criteria: Any,
    generation_config: Any,
    **model_kwargs: Any,
) -> torch.LongTensor | GenerateDecoderOnlyOutput:
    r"""Sampling or greedy search, for `generate(custom_generate=jump_forward)` with a [`DrumGrammarLogitsProcessor`].

    Tokens that are settled by the grammar in all rows are written at once, and read by the model together with the
    next one. All processors see every token and draw their random numbers for it, so that the answer is that of
    `generate` alone with the same seed, up to the rounding of matrix products. A `streamer` gets no tokens.

    Example:
    ```python
    >>> from decahub import DrumLmConfig, DrumLmForCausalLM
    >>> from decahub.models.drum_lm.grammar.constraint import DrumGrammar, DrumGrammarLogitsProcessor
    >>> from decahub.models.drum_lm.grammar.jump_forward import jump_forward
    >>> from decahub.models.drum_lm.tokenization import build_line_tokenizer
    >>> tokenizer = build_line_tokenizer()
    >>> model = DrumLmForCausalLM(DrumLmConfig())
    >>> ids = model.generate(
    ...     **tokenizer("--oo--\n", return_tensors="pt"),
    ...     logits_processor=[DrumGrammarLogitsProcessor(DrumGrammar(tokenizer), bars_min=2)],
    ...     custom_generate=jump_forward,
    ...     max_new_tokens=40,
    ... )
    >>> len(tokenizer.decode(ids[0]).splitlines())  # 32 lines, separator and end mark
    34

    ```
    """
    grammar = find_grammar(logits_processor)
    check_config(generation_config)
    padding, ends = generation_config._pad_token_tensor, generation_config._eos_token_tensor
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    outputs = model._prefill(input_ids, generation_config, model_kwargs)
    num_read = input_ids.shape[1]
    while True:
        # Where the token is settled, the scores of an earlier one do as well.
        scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
        scores = logits_processor(input_ids, scores)
        tokens = scores.softmax(-1).multinomial(1) if generation_config.do_sample else scores.argmax(-1, keepdim=True)
        if ends is not None:
            tokens = tokens.where(unfinished[:, None], padding)
        input_ids = torch.cat([input_ids, tokens], dim=1)
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        if not unfinished.any():
            break
        if grammar.is_settled(input_ids):
            continue
        num_new = input_ids.shape[1] - num_read
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, num_new_tokens=num_new)
        inputs = model.prepare_inputs_for_generation(
            input_ids, next_sequence_length=num_new if model_kwargs["use_cache"] else None, **model_kwargs
        )
        outputs = model(**inputs, return_dict=True)
        num_read += num_new
    if not generation_config.return_dict_in_generate:
        return input_ids
    cache_name = "cache" if "cache" in outputs else "past_key_values"
    return GenerateDecoderOnlyOutput(sequences=input_ids, **{cache_name: outputs.get(cache_name)})


def find_grammar(logits_processor: list[Any]) -> Any:
    """The processor of the grammar."""
    # By what it can, not by its class, of which remote code may have made two.
    for processor in logits_processor:
        if hasattr(processor, "is_settled"):
            return processor
    names = ", ".join(type(processor).__name__ for processor in logits_processor) or "none"
    raise ValueError(f"`logits_processor` must hold a DrumGrammarLogitsProcessor to jump forward; got {names}.")


def check_config(generation_config: Any) -> None:
    """Refuse what this generation does not do."""
    if generation_config.num_beams > 1:
        raise ValueError(
            f"`num_beams` must be 1 to jump forward; got {generation_config.num_beams}. Leave out `custom_generate`."
        )
    asked = [name for name in RECORDS if getattr(generation_config, name)]
    if generation_config.return_dict_in_generate and asked:
        raise ValueError(
            f"`{asked[0]}` must be left out to jump forward, which computes nothing for some tokens. Leave out "
            "`custom_generate`."
        )


__all__ = ["jump_forward"]
