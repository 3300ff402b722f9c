"""NewMethod's converter: every tensor survives the way there and back, and other files are refused."""

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from conversion.checkpoint import ConversionError
from conversion.convert_new_method import convert_checkpoint, convert_state_dict, revert_state_dict
from decahub import NewMethodConfig, NewMethodForImageClassification


@pytest.fixture
def official():
    torch.manual_seed(0)
    return revert_state_dict(NewMethodForImageClassification(NewMethodConfig(num_labels=7)).state_dict())


def test_folder_loads_with_the_same_weights(official, tmp_path):
    torch.save(official, tmp_path / "model.pth")

    report = convert_checkpoint(tmp_path / "model.pth", tmp_path / "model")

    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "model")
    assert report["round_trip"] == {"tensors": len(official), "bit_equal": len(official)}
    assert torch.equal(loaded.classifier.weight, official["head.weight"])
    assert AutoImageProcessor.from_pretrained(tmp_path / "model").size["height"] == 32


def test_refuses_a_missing_tensor(official):
    del official["blocks.1.qkv.bias"]

    with pytest.raises(ConversionError, match=r"missing: blocks\.1\.qkv\.bias"):
        convert_state_dict(official, NewMethodConfig(num_labels=7))
