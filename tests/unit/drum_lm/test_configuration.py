"""Configuration of Drum LM: variants, nesting, contradictions."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, GPT2Config

from decahub import DrumLmConfig
from tests.tiny.drum_lm_model import BACKBONE, build_config


def test_default_is_the_small_model():
    assert DrumLmConfig().to_dict() == DrumLmConfig.from_variant("small").to_dict()


def test_smollm2_has_its_published_size():
    config = DrumLmConfig.from_variant("smollm2-135m")

    backbone = config.backbone_config
    assert (backbone.num_hidden_layers, backbone.hidden_size, backbone.vocab_size) == (30, 576, 49152)
    assert len(config.grammar_token_ids) == 13
    assert config.grammar_token_ids == sorted(config.grammar_token_ids)


@pytest.mark.parametrize("backbone", [BACKBONE, GPT2Config(vocab_size=80, n_embd=12, n_head=2, n_layer=1)])
def test_json_round_trip(tmp_path, backbone):
    config = DrumLmConfig(backbone_config=backbone, bars=8, columns="six")
    config.save_pretrained(tmp_path)

    loaded = AutoConfig.from_pretrained(tmp_path)

    assert type(loaded.backbone_config) is type(config.backbone_config)
    loaded.name_or_path = ""
    assert loaded.to_dict() == config.to_dict()
    assert loaded.get_text_config().vocab_size == config.backbone_config.vocab_size


def test_attention_of_a_given_backbone_is_not_forgotten():
    backbone = GPT2Config(vocab_size=80, n_embd=12, n_head=2, n_layer=1)
    backbone._attn_implementation = "sdpa"

    assert DrumLmConfig(backbone_config=backbone).backbone_config._attn_implementation == "sdpa"


def test_special_tokens_are_those_of_the_backbone():
    config = build_config()

    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bars": 0}, "`bars` must be at least 1; got 0"),
        ({"steps_per_bar": 0}, "`steps_per_bar` must be at least 1; got 0"),
        ({"prompt_bars": 16}, r"`prompt_bars` must be in \[0, `bars` \(16\)\); got 16"),
        ({"columns": "seven"}, "columns"),
        ({"encoding_version": 2}, "`encoding_version` must be 1; got 2"),
        ({"separator": "o"}, "`separator` must be a word without '-', 'o' and line ends"),
        ({"end": "SEP"}, "`separator` and `end` must differ"),
        ({"columns": "nine"}, "`backbone_config.vocab_size` must be at least 516"),
        ({"restrict_vocab": True}, "`grammar_token_ids` must be given with `restrict_vocab`"),
        ({"grammar_token_ids": [1, 1]}, r"`grammar_token_ids` must be different ids in \[0, 71\)"),
        ({"grammar_token_ids": [71]}, r"`grammar_token_ids` must be different ids in \[0, 71\)"),
        ({"prompt_loss_weight": -1.0}, r"`prompt_loss_weight` must be in \[0, 1\]; got -1.0"),
        ({"prompt_loss_weight": 7.0}, r"`prompt_loss_weight` must be in \[0, 1\]; got 7.0"),
        ({"adapter_base": {"repo_id": "a/b"}}, "`adapter_base` must come with an `adapter`"),
        ({"adapter": {"r": 2}, "adapter_base": {"name": "a/b"}}, "`adapter_base` must have `repo_id`"),
        ({"adapter": {"r": 2}, "adapter_base": {"repo_id": "a/b", "file": "c"}}, "`file` and `sha256` together"),
        ({"bars": 10**9}, "`bars` must be at most 1000; got 1000000000"),
        ({"steps_per_bar": 10**9}, "`steps_per_bar` must be at most 1000"),
        ({"backbone_config": {**BACKBONE, "num_hidden_layers": 10**9}}, "`backbone_config.num_hidden_layers` must be"),
        ({"backbone_config": {**BACKBONE, "hidden_size": 10**9}}, "`backbone_config.hidden_size` must be at most"),
        ({"backbone_config": {**BACKBONE, "vocab_size": 10**9}}, "`backbone_config.vocab_size` must be at most"),
        ({"backbone_config": {"hidden_size": 3}}, "`backbone_config` must have a `model_type`"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        build_config(**fields)


@pytest.mark.parametrize("multiplier", ["lm_head_multiplier", "output_multiplier"])
def test_scores_that_a_backbone_multiplies_are_not_restricted(multiplier):
    fields = {"restrict_vocab": True, "grammar_token_ids": [3, 5]}

    with pytest.raises((ValueError, StrictDataclassError), match=f"`restrict_vocab` must be false .* `{multiplier}`"):
        build_config(backbone_config={**BACKBONE, multiplier: 0.5}, **fields)
    assert build_config(backbone_config={**BACKBONE, multiplier: 1.0}, **fields).restrict_vocab


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_prompts_may_count_for_nothing_or_fully(weight):
    assert build_config(prompt_loss_weight=weight).prompt_loss_weight == weight


def test_a_misspelled_field_of_a_variant_is_named():
    with pytest.raises(ValueError, match="`bar` .*Did you mean `bars`?"):
        DrumLmConfig.from_variant("small", bar=8)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"`name` must be one of smollm2-135m, small, expressive; got 'huge'"):
        DrumLmConfig.from_variant("huge")
