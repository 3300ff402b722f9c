"""Converter of Drum LM: language models and adapters of peft, there and back, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from conversion.checkpoint import ConversionError
from conversion.convert_drum_lm import convert_checkpoint, main, revert_state_dict
from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from tests.tiny.drum_lm import build_bpe_tokenizer
from tests.tiny.drum_lm_model import BACKBONE, build_config


IDS = torch.tensor([[5, 9, 4, 7, 3]])


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A folder of transformers with a tokenizer that can write grooves."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language_model")
    tokenizer = build_bpe_tokenizer()
    LlamaForCausalLM(LlamaConfig(**{**BACKBONE, "vocab_size": len(tokenizer)})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def peft_folder(language_model, tmp_path_factory):
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(language_model)
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, settings)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


def compute_scores(model):
    with torch.inference_mode():
        return model.eval()(IDS).logits


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_language_model_goes_there_and_back(language_model, tmp_path):
    report = convert_checkpoint(language_model, tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs")

    before, after = (load_file(folder / "model.safetensors") for folder in (language_model, tmp_path / "theirs"))
    assert_same(before, after)
    assert report["round_trip"]["bit_equal"] == len(before)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert isinstance(loaded, LlamaForCausalLM)
    text = "--o---\nSEP\n"
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (language_model, tmp_path / "theirs")]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]


def test_a_converted_language_model_scores_as_before_within_the_grammar(language_model, tmp_path):
    convert_checkpoint(language_model, tmp_path / "ours")

    model = DrumLmForCausalLM.from_pretrained(tmp_path / "ours")
    processor = DrumLmProcessor.from_pretrained(tmp_path / "ours")

    kept = processor.build_grammar().token_ids
    assert list(model.config.grammar_token_ids) == kept
    assert model.config.restrict_vocab
    expected = compute_scores(AutoModelForCausalLM.from_pretrained(language_model))[..., kept]
    torch.testing.assert_close(compute_scores(model)[..., kept], expected, atol=1e-6, rtol=0)


def test_an_adapter_goes_there_and_back(language_model, peft_folder, tmp_path):
    import peft

    convert_checkpoint(peft_folder, tmp_path / "ours", repo_id="someone/model")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs")

    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (peft_folder, tmp_path / "theirs"))
    assert_same(before, after)
    expected = compute_scores(
        peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(language_model), peft_folder)
    )
    ours = DrumLmForCausalLM.from_pretrained(tmp_path / "ours", base_model=language_model)
    assert ours.config.adapter_base == {"repo_id": "someone/model"}
    ours.config.restrict_vocab = False
    torch.testing.assert_close(compute_scores(ours), expected, atol=1e-6, rtol=0)
    again = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(language_model), tmp_path / "theirs")
    torch.testing.assert_close(compute_scores(again), expected, atol=0, rtol=0)


def test_an_adapter_with_magnitudes_goes_there_and_back(language_model, tmp_path):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(language_model)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, settings)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model.save_pretrained(tmp_path / "peft")

    convert_checkpoint(tmp_path / "peft", tmp_path / "ours", base_model=str(language_model))
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs")

    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("peft", "theirs"))
    assert_same(before, after)
    ours = DrumLmForCausalLM.from_pretrained(tmp_path / "ours", base_model=language_model)
    ours.config.restrict_vocab = False
    torch.testing.assert_close(compute_scores(ours), compute_scores(model), atol=1e-6, rtol=0)


def merge_with_peft(language_model, peft_folder):
    import peft

    base = AutoModelForCausalLM.from_pretrained(language_model)
    return peft.PeftModel.from_pretrained(base, peft_folder).merge_and_unload()


@pytest.mark.parametrize("is_ours", [False, True], ids=["of peft", "ours"])
def test_an_adapter_is_merged_into_a_complete_model(language_model, peft_folder, tmp_path, is_ours):
    if is_ours:
        convert_checkpoint(peft_folder, tmp_path / "adapter", repo_id="someone/model")
    checkpoint = tmp_path / "adapter" if is_ours else peft_folder

    report = convert_checkpoint(checkpoint, tmp_path / "whole", str(language_model), "someone/model", merge=True)

    expected = merge_with_peft(language_model, peft_folder)
    merged = DrumLmForCausalLM.from_pretrained(tmp_path / "whole")
    assert merged.config.adapter is None
    assert report["base"] == {"repo_id": "someone/model"}
    assert report["tensors"] == len(load_file(tmp_path / "whole" / "model.safetensors"))
    assert json.loads((tmp_path / "whole" / "parity_report.json").read_text()) == report
    merged.config.restrict_vocab = False
    torch.testing.assert_close(compute_scores(merged), compute_scores(expected), atol=1e-6, rtol=0)
    assert DrumLmProcessor.from_pretrained(tmp_path / "whole").build_grammar().token_ids
    convert_checkpoint(tmp_path / "whole", tmp_path / "theirs")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    torch.testing.assert_close(compute_scores(again), compute_scores(expected), atol=1e-6, rtol=0)


def test_an_adapter_whose_base_has_no_name_is_merged(language_model, tmp_path):
    pytest.importorskip("peft")
    processor = DrumLmProcessor(AutoTokenizer.from_pretrained(language_model))
    model = DrumLmForCausalLM.from_backbone(language_model, processor, adapter={"r": 2}, reinit=True)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")

    report = convert_checkpoint(tmp_path / "model", tmp_path / "whole", merge=True)

    assert report["base"] is None
    merged = DrumLmForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(compute_scores(merged), compute_scores(model), atol=1e-6, rtol=0)


def test_the_command_line_merges(peft_folder, language_model, tmp_path, capsys):
    main(["--checkpoint", str(peft_folder), "--output_dir", str(tmp_path / "whole"), "--merge",
          "--base_model", str(language_model)])  # fmt: skip

    assert "merged language model from" in capsys.readouterr().out


def test_what_is_no_adapter_cannot_be_merged(language_model, tmp_path):
    convert_checkpoint(language_model, tmp_path / "ours")

    for checkpoint in (language_model, tmp_path / "ours"):
        with pytest.raises(ConversionError, match=f"`merge` needs an adapter; {checkpoint} holds none"):
            convert_checkpoint(checkpoint, tmp_path / "whole", merge=True)

    assert not (tmp_path / "whole").exists()


def test_an_adapter_is_not_merged_into_another_base(peft_folder, language_model, tmp_path):
    convert_checkpoint(peft_folder, tmp_path / "ours")
    fields = {**BACKBONE, "vocab_size": len(build_bpe_tokenizer()), "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**fields)).save_pretrained(tmp_path / "other")

    with pytest.raises(ValueError, match="the `num_hidden_layers` 2; got one with 1"):
        convert_checkpoint(tmp_path / "ours", tmp_path / "whole", str(tmp_path / "other"), merge=True)

    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bias": "all"}, "must leave its base as it is.* has 'bias': 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "has 'init_lora_weights': 'pissa_niter_4'"),
        ({"init_lora_weights": "OLoRA"}, "has 'init_lora_weights': 'OLoRA'"),
        ({"init_lora_weights": "corda"}, "has 'init_lora_weights': 'corda'"),
        ({"init_lora_weights": "loftq"}, "has 'init_lora_weights': 'loftq'"),
        ({"init_lora_weights": "lora_ga"}, "has 'init_lora_weights': 'lora_ga'"),
        ({"lora_bias": True}, "has 'lora_bias': True"),
        ({"trainable_token_indices": [3]}, "has 'trainable_token_indices'"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "has 'layer_replication'"),
        ({"alora_invocation_tokens": [3]}, "has 'alora_invocation_tokens'"),
        ({"modules_to_save": ["embed_tokens"]}, "must not have trained 'model.embed_tokens' apart from the head"),
        ({"base_model_name_or_path": "nowhere/at-all"}, "`base_model` must be the base of the adapter; 'nowhere/at-"),
    ],
)
def test_adapters_that_would_score_otherwise_are_refused(peft_folder, tmp_path, monkeypatch, settings, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(peft_folder, tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(tmp_path / "peft", tmp_path / "ours")

    assert not (tmp_path / "ours").exists()


@pytest.fixture
def embedding_adapter(language_model, tmp_path):
    """A base whose embedding is not its head, and an adapter of peft on that embedding."""
    peft = pytest.importorskip("peft")
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    torch.manual_seed(2)
    fields = {**BACKBONE, "vocab_size": len(tokenizer), "tie_word_embeddings": False}
    LlamaForCausalLM(LlamaConfig(**fields)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, settings)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_an_adapter_of_embeddings_goes_there_and_back(embedding_adapter, tmp_path):
    embedding_adapter.save_pretrained(tmp_path / "peft", save_embedding_layers=False)

    convert_checkpoint(tmp_path / "peft", tmp_path / "ours")
    convert_checkpoint(tmp_path / "ours", tmp_path / "theirs")

    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("peft", "theirs"))
    assert_same(before, after)
    ours = DrumLmForCausalLM.from_pretrained(tmp_path / "ours")
    ours.config.restrict_vocab = False
    torch.testing.assert_close(compute_scores(ours), compute_scores(embedding_adapter), atol=0, rtol=0)


def test_an_adapter_that_holds_weights_of_its_base_is_refused(embedding_adapter, tmp_path):
    embedding_adapter.save_pretrained(tmp_path / "peft")

    with pytest.raises(
        ConversionError, match="must not hold .*embed_tokens.base_layer.weight, .*save_embedding_layers"
    ):
        convert_checkpoint(tmp_path / "peft", tmp_path / "ours")


def test_a_base_without_a_tokenizer_is_refused(peft_folder, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConversionError, match=r"must hold a tokenizer that transformers knows; .*empty"):
        convert_checkpoint(peft_folder, tmp_path / "ours", base_model=str(tmp_path / "empty"))


def test_an_adapter_without_safetensors_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))

    with pytest.raises(ConversionError, match="`checkpoint` must hold adapter_model.safetensors"):
        convert_checkpoint(tmp_path, tmp_path / "ours")


def test_a_language_model_keeps_its_type(language_model, tmp_path):
    AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(language_model).save_pretrained(tmp_path / "half")

    convert_checkpoint(tmp_path / "half", tmp_path / "ours")

    assert {tensor.dtype for tensor in load_file(tmp_path / "ours" / "model.safetensors").values()} == {torch.bfloat16}


def test_the_command_line_tells_what_was_made(language_model, tmp_path, capsys):
    main(["--checkpoint", str(language_model), "--output_dir", str(tmp_path / "ours")])

    printed = capsys.readouterr().out
    assert "language model from" in printed
    assert "bit-equal on the way back" in printed
    assert json.loads((tmp_path / "ours" / "parity_report.json").read_text())["kind"] == "language model"


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ConversionError, match="`checkpoint` must be a .gguf file, or a folder with config.json"):
        convert_checkpoint(tmp_path, tmp_path / "ours")


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "maximum recursion"),
        ("[]", "got list"),
        ("{", "cannot be read"),
        ("\xff", "read"),
    ],
    ids=["deep", "list", "cut", "letters"],
)
def test_odd_json_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))

    with pytest.raises(ConversionError, match=f"{name} must hold a JSON object; .*{message}"):
        convert_checkpoint(tmp_path, tmp_path / "ours")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"r": "four"}, "must hold settings that fit its base"), ({"base_model_name_or_path": 3}, "must name the base")],
    ids=["rank", "base"],
)
def test_odd_settings_of_an_adapter_are_refused(peft_folder, tmp_path, settings, message):
    shutil.copytree(peft_folder, tmp_path / "peft")
    path = tmp_path / "peft" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(tmp_path / "peft", tmp_path / "ours")


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="`checkpoint` must exist"):
        convert_checkpoint(tmp_path / "gone", tmp_path / "ours")


def test_another_kind_of_adapter_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))

    with pytest.raises(ConversionError, match="`peft_type` must be LORA"):
        convert_checkpoint(tmp_path, tmp_path / "ours")


def test_an_adapter_whose_base_has_no_name_must_be_merged(tmp_path):
    pytest.importorskip("peft")
    model = DrumLmForCausalLM(build_config(adapter={"r": 2, "target_modules": "all-linear"}))
    model.save_pretrained(tmp_path / "model")

    with pytest.raises(ConversionError, match="Merge it first"):
        convert_checkpoint(tmp_path / "model", tmp_path / "theirs")


def test_velocities_and_timing_are_not_lost_on_the_way():
    config = DrumLmConfig(expression={"hidden_size": 4, "num_layers": 1})

    with pytest.raises(ConversionError, match="must be a Drum LM without `expression`"):
        revert_state_dict({}, config)


def test_names_of_another_model_are_refused():
    with pytest.raises(ConversionError, match="must begin with 'backbone.'; model.norm.weight does not"):
        revert_state_dict({"model.norm.weight": torch.ones(2)}, DrumLmConfig())
