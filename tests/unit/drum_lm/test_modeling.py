"""Drum LM: what is around the language model - loss, restricted scores, generation - and what it leaves as it is."""

import math
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from decahub.models.drum_lm.modeling_drum_lm import CACHE_NAME
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm_model import BACKBONE, VOCAB_SIZE, build_model


ATOL_SAME = 1e-6  # the same products in another order
ATOL_PADDED = 5e-5  # attention with a mask takes another path
GRAMMAR = [2, 3, 5, 8, 13, 21]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw_ids(rows=2, length=12, choices=None):
    if choices is None:
        return torch.randint(3, VOCAB_SIZE, (rows, length))
    return torch.tensor(choices)[torch.randint(len(choices), (rows, length))]


def compute_slow_loss(logits, labels, prompt_lengths, weight):
    total = weights = bits = 0.0
    for row in range(labels.shape[0]):
        for position in range(1, labels.shape[1]):
            target = int(labels[row, position])
            if target == -100:
                continue
            nats = -float(logits[row, position - 1].log_softmax(0)[target])
            share = weight if position < prompt_lengths[row] else 1.0
            total, weights = total + share * nats, weights + share
            bits += nats / math.log(2) if position >= prompt_lengths[row] else 0.0
    return total / weights, bits


@pytest.mark.parametrize("weight", [0.0, 0.01, 1.0])
def test_loss_weighs_the_prompt(weight):
    model = build_model(prompt_loss_weight=weight)
    ids = draw_ids()
    labels = ids.clone()
    labels[1, -3:] = -100
    lengths, steps = torch.tensor([5, 3]), torch.tensor([7, 6])

    with torch.inference_mode():
        outputs = model(ids, labels=labels, prompt_lengths=lengths, num_steps=steps)

    loss, bits = compute_slow_loss(outputs.logits.double(), labels, lengths.tolist(), weight)
    assert float(outputs.loss) == pytest.approx(loss, rel=1e-5)
    assert float(outputs.bits_per_step) == pytest.approx(bits / 13, rel=1e-5)


def test_left_padding_changes_neither_loss_nor_scores():
    model = build_model()
    ids = draw_ids(rows=1)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    mask = (torch.arange(16) >= 4).long()[None]
    labels = torch.where(mask.bool(), padded, -100)

    with torch.inference_mode():
        alone = model(ids, labels=ids, prompt_lengths=torch.tensor([5]))
        together = model(
            padded,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp_min(0),
            labels=labels,
            prompt_lengths=torch.tensor([5]),
        )

    torch.testing.assert_close(together.loss, alone.loss, atol=ATOL_PADDED, rtol=0)
    torch.testing.assert_close(together.logits[:, 4:], alone.logits, atol=ATOL_PADDED, rtol=0)


def test_restricted_scores_are_those_of_the_grammar_alone():
    whole = build_model()
    restricted = DrumLmForCausalLM(
        DrumLmConfig(backbone_config=BACKBONE, restrict_vocab=True, grammar_token_ids=GRAMMAR)
    ).eval()
    restricted.load_state_dict(whole.state_dict())
    ids = draw_ids(choices=GRAMMAR)

    with torch.inference_mode():
        expected = whole(ids).logits[..., GRAMMAR]
        outputs = restricted(ids, labels=ids)

    torch.testing.assert_close(outputs.logits[..., GRAMMAR], expected, atol=ATOL_SAME, rtol=0)
    others = [token for token in range(VOCAB_SIZE) if token not in GRAMMAR]
    assert bool((outputs.logits[..., others] == torch.finfo(torch.float32).min).all())
    targets = torch.tensor([[GRAMMAR.index(token) for token in row] for row in ids.tolist()])
    loss = torch.nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
    torch.testing.assert_close(outputs.loss, loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize("restricted", [False, True])
def test_training_needs_no_logits(restricted):
    model = build_model(restrict_vocab=restricted, grammar_token_ids=GRAMMAR)
    ids = draw_ids(choices=GRAMMAR)

    with torch.inference_mode():
        with_logits, without = (model(ids, labels=ids, skip_logits=skipped) for skipped in (False, True))

    assert without.logits is None
    assert torch.equal(without.loss, with_logits.loss)
    assert torch.equal(without.token_losses, with_logits.token_losses)


def test_generation_asks_for_the_cache_by_the_name_of_the_installed_library():
    model = build_model()

    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        outputs = model.generate(draw_ids(rows=1, length=4), max_new_tokens=2, return_dict_in_generate=True)

    assert outputs[CACHE_NAME].get_seq_length() == 5


def test_labels_outside_the_grammar_are_refused():
    model = build_model(restrict_vocab=True, grammar_token_ids=GRAMMAR)
    ids = draw_ids(choices=GRAMMAR)
    ids[0, 4] = 30

    with pytest.raises(ValueError, match="`labels` must be among `grammar_token_ids`, or -100; got 30"):
        model(ids, labels=ids)


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match="`labels` must have one id for each token"):
        build_model()(draw_ids(), labels=draw_ids(length=7))


@pytest.mark.parametrize("restricted", [False, True])
def test_cached_generation_equals_the_whole_pass(restricted):
    model = build_model(restrict_vocab=restricted, grammar_token_ids=GRAMMAR)
    model.generation_config.eos_token_id = None
    prompt = draw_ids(rows=1, length=4)

    with torch.inference_mode():
        cached = model.generate(prompt, max_new_tokens=9, do_sample=False)
        ids = prompt
        for _ in range(9):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)

    assert cached.tolist() == ids.tolist()
    if restricted:
        assert set(cached[0, 4:].tolist()) <= set(GRAMMAR)


@pytest.mark.parametrize(("num_beams", "num_return_sequences"), [(1, 3), (3, 2)])
def test_several_sequences(num_beams, num_return_sequences):
    model = build_model()

    ids = model.generate(
        draw_ids(rows=2, length=4),
        max_new_tokens=3,
        do_sample=num_beams == 1,
        num_beams=num_beams,
        num_return_sequences=num_return_sequences,
    )

    assert ids.shape[0] == 2 * num_return_sequences


def test_rows_of_a_left_padded_batch_generate_as_alone():
    model = build_model()
    model.generation_config.eos_token_id = None
    long, short = draw_ids(rows=1, length=9), draw_ids(rows=1, length=5)
    batch = torch.cat([long, torch.cat([torch.zeros(1, 4, dtype=torch.long), short], 1)])
    mask = torch.ones_like(batch)
    mask[1, :4] = 0

    together = model.generate(batch, attention_mask=mask, max_new_tokens=6, do_sample=False)

    for row, prompt in enumerate((long, short)):
        alone = model.generate(prompt, max_new_tokens=6, do_sample=False)
        assert together[row, -6:].tolist() == alone[0, -6:].tolist()


def test_a_saved_model_is_loaded_bit_for_bit(tmp_path):
    model = build_model(bars=8)
    model.save_pretrained(tmp_path)

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)

    assert type(loaded) is DrumLmForCausalLM
    assert loaded.config.bars == 8
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def test_any_causal_language_model_is_a_backbone():
    backbone = AutoModelForCausalLM.from_config(
        LlamaConfig(**{**BACKBONE, "tie_word_embeddings": False, "num_hidden_layers": 1})
    ).eval()
    ids = draw_ids()

    model = DrumLmForCausalLM.from_backbone(backbone).eval()

    with torch.inference_mode():
        assert torch.equal(model(ids).logits, backbone(ids).logits)
    assert model.config.tokenization == "text"
    assert not model.config.tie_word_embeddings


def test_reinit_keeps_the_architecture_alone():
    backbone = LlamaForCausalLM(LlamaConfig(**BACKBONE))

    model = DrumLmForCausalLM.from_backbone(backbone, reinit=True)

    assert model.backbone.config.to_dict() == {**backbone.config.to_dict(), "dtype": "float32"}
    assert not torch.equal(model.get_input_embeddings().weight, backbone.get_input_embeddings().weight)


def test_reinit_draws_in_float32():
    backbone = LlamaForCausalLM(LlamaConfig(**BACKBONE, dtype="bfloat16")).to(torch.bfloat16)

    model = DrumLmForCausalLM.from_backbone(backbone, reinit=True)

    weight = model.get_input_embeddings().weight
    assert weight.dtype == model.backbone.config.dtype == torch.float32
    assert not torch.equal(weight, weight.to(torch.bfloat16).float())  # drawn in it, not only stored


@pytest.mark.parametrize("reinit", [False, True])
def test_a_given_model_keeps_its_vocabulary(reinit):
    backbone = LlamaForCausalLM(LlamaConfig(**BACKBONE)).eval()
    ids = draw_ids()
    before, scores = backbone.config.to_dict(), backbone(ids).logits
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line")

    model = DrumLmForCausalLM.from_backbone(backbone, processor, reinit=reinit)

    assert model.config.get_text_config().vocab_size == len(processor.tokenizer) != VOCAB_SIZE
    assert backbone.config.to_dict() == before
    assert torch.equal(backbone(ids).logits, scores)


def test_a_model_that_cannot_generate_is_refused():
    with pytest.raises(TypeError, match="`source` must be a causal language model; got LlamaModel"):
        DrumLmForCausalLM.from_backbone(LlamaForCausalLM(LlamaConfig(**BACKBONE)).model)


def test_gradient_checkpointing_gives_the_same_gradients():
    ids = draw_ids()
    plain, saving = build_model().train(), build_model().train()
    saving.load_state_dict(plain.state_dict())
    saving.gradient_checkpointing_enable()

    for model in (plain, saving):
        model(ids, labels=ids, use_cache=False).loss.backward()

    for first, second in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, atol=ATOL_SAME, rtol=0)


def test_autocast_computes_in_bfloat16_and_the_loss_in_float32():
    model = build_model()
    ids = draw_ids()

    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(ids, labels=ids)

    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.dtype == torch.float32
    assert torch.isfinite(outputs.loss)


def test_export_and_compile_give_the_scores_of_the_model():
    model = build_model(restrict_vocab=True, grammar_token_ids=GRAMMAR)
    ids = draw_ids()
    inputs = {"attention_mask": torch.ones_like(ids), "use_cache": False}

    with torch.inference_mode():
        expected = model(ids, **inputs).logits
        compiled = torch.compile(model, backend="eager", fullgraph=True)(ids, **inputs).logits
    exported = torch.export.export(model, (ids,), kwargs=inputs, strict=False).module()(ids, **inputs).logits

    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(exported, expected, atol=1e-5, rtol=0)
