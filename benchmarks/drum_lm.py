"""Drum LM's codec, decoding and training beside symusic, transformers' plain generation and peft.

Grooves are made up with the rates of real ones, so that no dataset is needed; models have random weights, since speed
does not depend on them. Both generations are made to write the same groove. Plain `generate` computes each token, ours
leaves out those that the grammar settles in all rows. With one token for each line these are the separators, one token
in seventeen. With the tokens of SmolLM2 they are two of five for a single groove, and next to none for a batch of
different ones. symusic reads notes with an end only, and drops the others.
"""

from collections.abc import Callable, Sequence
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
    """A model, its grammar, grooves in its tokens, and how many of these are prompts of two bars.

    Grooves of a batch must have equally many tokens, as they do with one token for each line.
    """
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
    grooves = []
    for roll in build_hits(num_prompts):
        bars = [
            grammar.encode(codec.to_text(roll[first : first + 16])) + separator for first in range(0, len(roll), 16)
        ]
        grooves.append([token for bar in bars for token in bar])
    return model, grammar, torch.tensor(grooves), len(bars[0]) + len(bars[1])


def generate(model: Any, grooves: Any, width: int, num_tokens: int, processors: Sequence[Any] = (), **options: Any):
    """This number of tokens of the grooves, after the first `width`."""
    from transformers import GenerationConfig

    def replay(input_ids: Any, scores: Any) -> Any:
        return scores.scatter_add(1, grooves[:, input_ids.shape[1], None], scores.new_full((len(scores), 1), 1e4))

    lengths = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
    config = GenerationConfig(**lengths, eos_token_id=2, pad_token_id=0, do_sample=False)
    return model.generate(
        grooves[:, :width], generation_config=config, logits_processor=[*processors, replay], **options
    )


def build_grammar(folder: Path, variant: str, num_prompts: int, num_tokens: int) -> tuple[Sampler, Sampler]:
    """Decoding with the grammar as the pipeline does it, and without."""
    from decahub.models.drum_lm.grammar.constraint import DrumGrammarLogitsProcessor
    from decahub.models.drum_lm.grammar.jump_forward import jump_forward

    model, grammar, grooves, width = build_prompts(num_prompts, variant)

    def constrain():
        processor = DrumGrammarLogitsProcessor(grammar, bars_min=BARS)
        return generate(model, grooves, width, num_tokens, [processor], custom_generate=jump_forward)

    plain = partial(generate, model, grooves, width, num_tokens)
    if not (constrain() == grooves[:, : width + num_tokens]).all() or not (plain() == constrain()).all():
        raise AssertionError("one of the two does not write the groove")
    return timed(constrain), timed(plain)


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
            f"generation with the grammar, {variant}, {num_prompts} {'prompt' if num_prompts == 1 else 'prompts'}",
            "transformers: plain generate",
            partial(build_grammar, variant=variant, num_prompts=num_prompts, num_tokens=num_tokens),
            (num_tokens, "tokens"),
        )
        for variant, num_prompts, numbers in (("small", 8, (32, 64, 128)), ("smollm2-135m", 1, (32,)))
        for num_tokens in numbers
    ),
    Case(
        "training step of an adapter on smollm2-135m",
        "peft: LoRA",
        partial(build_adapter_step, num_tokens=512),
        (512, "tokens"),
    ),
]
