"""NewMethod computes the authors' numbers from the authors' weights: every golden file, by its kind.

What each key means, and how the files were made, is in the README of the golden folder.
"""

import pytest
import torch

from conversion.convert_new_method import convert_state_dict
from decahub import NewMethodConfig, NewMethodForImageClassification
from tests.parity.golden import assert_near, golden_params


ATOL_FLOAT32 = 1e-5  # two summation orders
ATOL_FLOAT64 = 1e-12
PRECISIONS = {torch.float32: ATOL_FLOAT32, torch.float64: ATOL_FLOAT64}
KNOWN_KEYS = {"classifier": [r"pixel_values|labels", r"sd\..+", r"logits|loss", r"grad\..+"]}


@pytest.mark.parametrize("golden", golden_params("new_method"))
def test_no_key_goes_unseen(golden):
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("golden", golden_params("new_method", "classifier"))
def test_classifier(golden, dtype, attention):
    config = NewMethodConfig(**golden.json("config"), attn_implementation=attention)
    model = NewMethodForImageClassification(config).to(dtype).eval()
    model.load_state_dict(convert_state_dict(golden.group("sd."), config))

    outputs = model(golden["pixel_values"].to(dtype), labels=golden["labels"])
    outputs.loss.backward()

    assert_near(outputs.logits, golden["logits"], PRECISIONS[dtype], what="logits")
    assert_near(outputs.loss, golden["loss"], PRECISIONS[dtype], what="loss")
    gradients = convert_state_dict(golden.group("grad."), config)
    for name, parameter in model.named_parameters():
        assert_near(parameter.grad, gradients[name], PRECISIONS[dtype], what=f"gradient of {name}")
