"""Drum LM's codec, decoding and training beside symusic, transformers' plain generation and peft.

Grooves are made up with the rates of real ones, so that no dataset is needed; models have random weights, since speed
does not depend on them. Plain generation writes no valid grooves: the ratio is what the grammar costs. symusic reads
notes with an end only, and drops the others.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .timing import Case, Sampler, timed


BARS = 16
TEXT_TOKENIZER = Path(__file__).parents[1] / "model_cards" / "drum-lm-smollm2-groove"
HIT_RATE = 0.18  # 17 hits in a bar of 96 cells, as people play


def build_hits(num_files: int):
    import numpy as np

    return np.random.default_rng(29).random((num_files, BARS * 16, 6)) < HIT_RATE


def build_files(num_files: int) -> tuple[list[bytes], list[str]]:
    """MIDI files and their texts."""
    from decahub.models.drum_lm.midi.codec import DrumCodec

    codec, hits = DrumCodec(), build_hits(num_files)
    return [codec.to_midi(roll) for roll in hits], [codec.to_text(roll) for roll in hits]


def read_texts(files: list[bytes]) -> list[str]:
    from decahub.models.drum_lm.midi.codec import DrumCodec
    from decahub.models.drum_lm.midi.reader import read_midi

    codec = DrumCodec()
    return [codec.to_text(codec.encode(read_midi(file))) for file in files]


def build_reading(folder: Path, num_files: int) -> tuple[Sampler, Sampler]:
    """Text of MIDI files by our reader, and by symusic's arrays."""
    from .reference_drum_lm import encode_midi

    files, texts = build_files(num_files)

    def read_ours() -> list[str]:
        return read_texts(files)

    def read_by_symusic() -> list[str]:
        return [encode_midi(file) for file in files]

    if not read_ours() == read_by_symusic() == texts:
        raise AssertionError("a reader does not give the texts that were written")
    return timed(read_ours), timed(read_by_symusic)


def build_prompts(num_prompts: int, variant: str = "small"):
    """A model, its grammar, and prompts of two bars: one for all where lines differ in their numbers of tokens."""
    import torch
    from transformers import AutoTokenizer

    from decahub import DrumLmConfig, DrumLmForCausalLM
    from decahub.models.drum_lm.grammar.constraint import DrumGrammar
    from decahub.models.drum_lm.midi.codec import DrumCodec
    from decahub.models.drum_lm.tokenization import build_line_tokenizer

    torch.manual_seed(0)
    model = DrumLmForCausalLM(DrumLmConfig.from_variant(variant)).eval()
    is_text = model.config.tokenization == "text"
    grammar = DrumGrammar(AutoTokenizer.from_pretrained(TEXT_TOKENIZER) if is_text else build_line_tokenizer())
    codec = DrumCodec()
    separator = grammar.canonical_ids(grammar.separator)
    prompts = []
    for roll in build_hits(1).repeat(num_prompts, 0) if is_text else build_hits(num_prompts):
        bars = [grammar.encode(codec.to_text(roll[first : first + 16])) + separator for first in (0, 16)]
        prompts.append(bars[0] + bars[1])
    return model, grammar, torch.tensor(prompts)


def generate(model: Any, input_ids: Any, num_tokens: int, **options: Any):
    """This number of tokens, whatever they are."""
    from transformers import GenerationConfig

    lengths = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
    config = GenerationConfig(**lengths, eos_token_id=2, pad_token_id=0, do_sample=False)
    return model.generate(input_ids, generation_config=config, **options)


def build_grammar(folder: Path, variant: str, num_prompts: int, num_tokens: int) -> tuple[Sampler, Sampler]:
    """Decoding with the grammar, and without: the ratio is below 1 by what the grammar costs."""
    from decahub.models.drum_lm.grammar.constraint import DrumGrammarLogitsProcessor

    model, grammar, input_ids = build_prompts(num_prompts, variant)

    def constrain():
        return generate(
            model, input_ids, num_tokens, logits_processor=[DrumGrammarLogitsProcessor(grammar, bars_min=BARS)]
        )

    if constrain().shape != generate(model, input_ids, num_tokens).shape:
        raise AssertionError("one of the two ended early")
    return timed(constrain), timed(partial(generate, model, input_ids, num_tokens))


def build_adapter_step(folder: Path, num_tokens: int) -> tuple[Sampler, Sampler]:
    """A step of low-rank adapters on SmolLM2-135M's architecture, and of the same adapters put on by peft alone."""
    import copy

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from decahub import DrumLmConfig, DrumLmForCausalLM
    from decahub.models.drum_lm.optimization import build_parameter_groups, training_step

    torch.manual_seed(0)
    config = DrumLmConfig.from_variant("smollm2-135m")
    settings = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
    backbone = AutoModelForCausalLM.from_config(config.backbone_config)
    plain = get_peft_model(copy.deepcopy(backbone), LoraConfig(task_type="CAUSAL_LM", **settings))
    ids = torch.tensor(config.grammar_token_ids)
    fields = {"restrict_vocab": True, "grammar_token_ids": config.grammar_token_ids}
    model = DrumLmForCausalLM.from_backbone(backbone, adapter=settings, repo_id="backbone", **fields)
    input_ids = ids[torch.randint(0, len(ids), (1, num_tokens))]
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids).logits[..., ids], plain(input_ids).logits[..., ids])

    def build_step(model: Any, compute_loss: Callable[[], Any]) -> Sampler:
        optimizer = torch.optim.AdamW(build_parameter_groups(model, weight_decay=0.0), lr=1e-4, fused=True)

        def step():
            compute_loss().backward()
            optimizer.step()
            optimizer.zero_grad()

        return timed(step)

    batch = {"input_ids": input_ids, "labels": input_ids}
    return (
        build_step(model, lambda: training_step(model, batch)["loss"]),
        build_step(plain, lambda: plain(**batch, use_cache=False).loss),
    )


CASES = [
    *(
        Case("text of MIDI files", "symusic: arrays of notes", partial(build_reading, num_files=20), (20, "files"))
        for _ in range(find_spec("symusic") is not None)
    ),
    *(
        Case(
            f"generation with the grammar, {variant}, 8 prompts",
            "transformers: plain generate",
            partial(build_grammar, variant=variant, num_prompts=8, num_tokens=num_tokens),
            (num_tokens, "tokens"),
        )
        for variant, numbers in (("small", (32, 64, 128)), ("smollm2-135m", (16,)))
        for num_tokens in numbers
    ),
    Case(
        "training step of an adapter on smollm2-135m",
        "peft: LoRA",
        partial(build_adapter_step, num_tokens=512),
        (512, "tokens"),
    ),
]
