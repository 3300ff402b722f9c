"""The golden numbers of SmolLM2-135M, read from its GGUF file: token ids, scores, likelihoods and hidden states."""

import os
from functools import cache

import pytest
import torch
from transformers import AutoTokenizer

from decahub import DrumLmForCausalLM
from decahub.models.drum_lm.backbone import GGUF_VARIABLE, load_backbone, split_gguf_path

from .golden import Golden, assert_near


ATOL_LOGITS = 1e-3  # float32 sums of 576 products through 30 layers, in the order of another processor
ATOL_MEAN_LOGITS = 1e-4
ATOL_NLL = 1e-3
ATOL_HIDDEN = 1e-3
KNOWN_KEYS = (r"text\.(ids|logits_last)", r"\d+\.(ids|full_ids|nll|hidden_mean)")


@cache
def load_reference():
    """Model and tokenizer of the GGUF file that the environment names; loading takes half a minute."""
    path = os.environ.get(GGUF_VARIABLE)
    if not path:
        pytest.skip(f"{GGUF_VARIABLE} is not set to SmolLM2-135M-Instruct.Q4_1.gguf; `make smollm2` fetches it.")
    pytest.importorskip("gguf")
    folder, file = split_gguf_path(path)
    return DrumLmForCausalLM.from_backbone(load_backbone(path)).eval(), AutoTokenizer.from_pretrained(
        folder, gguf_file=file
    )


def list_grooves(golden: Golden) -> list[str]:
    return sorted({key.split(".")[0] for key in golden.tensors} - {"text"})


def check_smollm2_reference(golden: Golden, official_texts: dict[str, str]) -> None:
    """Compare everything that a file of the kind `smollm2_gguf_reference` holds.

    Args:
        golden: The file.
        official_texts: Prompt and completion joined, by the name of the groove, for the grooves that other golden
            files hold; ids of the others are compared through their scores alone.
    """
    assert not golden.unknown_keys(KNOWN_KEYS)
    model, tokenizer = load_reference()

    assert tokenizer(golden.metadata["text"])["input_ids"] == golden["text.ids"].tolist()
    with torch.inference_mode():
        logits = model(golden["text.ids"][None], logits_to_keep=1).logits[0, -1]
    assert_near(logits, golden["text.logits_last"], ATOL_LOGITS, what="scores of the last token")
    assert float((logits - golden["text.logits_last"]).abs().mean()) < ATOL_MEAN_LOGITS

    names = golden.json("names")
    for groove in list_grooves(golden):
        ids = golden[f"{groove}.ids"][None]
        with torch.inference_mode():
            outputs = model(ids, labels=ids, output_hidden_states=True)
        assert_near(outputs.token_losses[0, :-1], golden[f"{groove}.nll"], ATOL_NLL, what=f"likelihoods of {groove}")
        hidden = outputs.hidden_states[-1][0].mean(0)
        assert_near(hidden, golden[f"{groove}.hidden_mean"], ATOL_HIDDEN, what=f"hidden states of {groove}")
        assert golden[f"{groove}.full_ids"][: ids.shape[1]].tolist() == ids[0].tolist()
        text = tokenizer.decode(golden[f"{groove}.full_ids"])
        assert tokenizer(text)["input_ids"] == golden[f"{groove}.full_ids"].tolist()
        name = names[int(groove)]
        if name in official_texts:
            assert text == official_texts[name]
