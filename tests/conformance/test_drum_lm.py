"""transformers' own suites over Drum LM: model and configuration, then its processor."""

import unittest

import torch

from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from tests.tiny.drum_lm import build_bpe_tokenizer

from .harness import ModelConformance, ProcessorConformance


BATCH_SIZE, NUM_TOKENS, VOCAB_SIZE = 3, 9, 70
HIDDEN_SIZE, NUM_HEADS, DEPTH = 24, 3, 2


class DrumLmModelTest(ModelConformance, unittest.TestCase):
    models = {"causal-lm": DrumLmForCausalLM}
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": NUM_HEADS,
        "seq_length": NUM_TOKENS,
        "hidden_size": HIDDEN_SIZE,
        "vocab_size": VOCAB_SIZE,
    }
    common_properties = []
    test_resize_embeddings = True
    # The suite of `generate` is not part of the source distribution; ours are in tests/unit/drum_lm/test_modeling.py.
    all_generative_model_classes = ()

    def build_config(self):
        return DrumLmConfig(
            backbone_config={
                "model_type": "llama",
                "vocab_size": VOCAB_SIZE,
                "hidden_size": HIDDEN_SIZE,
                "intermediate_size": 40,
                "num_hidden_layers": DEPTH,
                "num_attention_heads": NUM_HEADS,
                "num_key_value_heads": 1,
                "max_position_embeddings": 64,
                "tie_word_embeddings": True,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 0,
            }
        )

    def build_inputs(self):
        ids = torch.randint(4, VOCAB_SIZE, (BATCH_SIZE, NUM_TOKENS))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def build_labels(self, task, inputs):
        return {"labels": inputs["input_ids"]}


class DrumLmProcessorTest(ProcessorConformance, unittest.TestCase):
    processor_class = DrumLmProcessor
    parts = {"tokenizer": build_bpe_tokenizer}
