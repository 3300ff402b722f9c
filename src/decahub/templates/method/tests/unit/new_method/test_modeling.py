"""NewMethod's models: shapes, loading, training, and what they refuse."""

import pytest
import torch
from transformers import AutoModel, AutoModelForImageClassification

from decahub import NewMethodForImageClassification, NewMethodModel
from tests.tiny.new_method import tiny_config


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_shapes():
    outputs = NewMethodModel(tiny_config())(torch.randn(2, 3, 12, 12), output_hidden_states=True)

    assert outputs.last_hidden_state.shape == (2, 9, 20)
    assert outputs.pooler_output.shape == (2, 20)
    assert [tuple(states.shape) for states in outputs.hidden_states] == [(2, 9, 20)] * 3


def test_input_embeddings_are_the_patches():
    model = NewMethodForImageClassification(tiny_config())

    assert model.get_input_embeddings() is model.new_method.embeddings.patch_embeddings


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForImageClassification])
def test_auto_class_loads_the_same_model(auto_class, tmp_path):
    model = auto_class.from_config(tiny_config()).eval()
    model.save_pretrained(tmp_path)
    pixel_values = torch.randn(2, 3, 12, 12)

    loaded = auto_class.from_pretrained(tmp_path).eval()

    assert type(loaded) is type(model)
    assert torch.equal(loaded(pixel_values)[0], model(pixel_values)[0])


def test_learns_a_batch():
    model = NewMethodForImageClassification(tiny_config())
    batch = {"pixel_values": torch.randn(6, 3, 12, 12), "labels": torch.arange(6)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    losses = []
    for _ in range(30):
        losses.append(model(**batch).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()

    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "`pixel_values` must have shape .batch_size, 3, 12, 12.; got None"),
        ({"pixel_values": torch.zeros(2, 3, 12, 16)}, r"`pixel_values` .* got \(2, 3, 12, 16\)"),
        (
            {"pixel_values": torch.zeros(2, 3, 12, 12), "labels": torch.zeros(3)},
            r"`labels` must have one row per image \(2\); got 3",
        ),
    ],
    ids=["missing", "size", "labels"],
)
def test_refuses(inputs, message):
    with pytest.raises(ValueError, match=message):
        NewMethodForImageClassification(tiny_config())(**inputs)
