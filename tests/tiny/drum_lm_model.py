"""The smallest Drum LM whose widths all differ, for tests."""

from decahub import DrumLmConfig, DrumLmForCausalLM


VOCAB_SIZE = 71
BACKBONE = {
    "model_type": "llama",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def build_config(**fields) -> DrumLmConfig:
    return DrumLmConfig(**{"backbone_config": BACKBONE, **fields})


def build_model(**fields) -> DrumLmForCausalLM:
    return DrumLmForCausalLM(build_config(**fields)).eval()
