"""EMO under transformers' Trainer, partly frozen, and with adapters of peft."""

import pytest
import torch
from torch.utils.data import Dataset
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments

from decahub import EmoForImageClassification, EmoForSemanticSegmentation
from tests.tiny.emo import tiny_config


class ColoredSquares(Dataset):
    """Noise whose brightest channel is its class; with `dense`, the upper half has that class and the lower none."""

    def __init__(self, size: int, dense: bool = False):
        generator = torch.Generator().manual_seed(size)
        self.labels = torch.arange(size) % 3
        self.pixels = torch.randn(size, 3, 32, 48, generator=generator)
        self.pixels[torch.arange(size), self.labels] += 3
        self.dense = dense

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        labels = self.labels[index]
        if self.dense:
            labels = torch.full((32, 48), 255)
            labels[:16] = self.labels[index]
        return {"pixel_values": self.pixels[index], "labels": labels}


def build(model_class=EmoForImageClassification, **fields):
    torch.manual_seed(0)
    return model_class(tiny_config(num_labels=3, drop_path_rate=0.0, decode_dropout_prob=0.0, **fields))


def arguments(folder, **changes) -> TrainingArguments:
    fields = {
        "output_dir": str(folder),
        "max_steps": 6,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "save_steps": 3,
        "logging_steps": 1,
        "seed": 1,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return TrainingArguments(**{**fields, **changes})


def compute_accuracy(prediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def test_trainer_learns_evaluates_and_saves(tmp_path):
    trainer = Trainer(
        build(),
        arguments(tmp_path, max_steps=40),  # running statistics need some batches to settle
        train_dataset=ColoredSquares(24),
        eval_dataset=ColoredSquares(15),
        compute_metrics=compute_accuracy,
    )

    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    trainer.save_model(tmp_path / "best")

    assert after["eval_loss"] < before["eval_loss"]
    assert after["eval_accuracy"] > 0.6  # chance is a third
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "best")
    torch.testing.assert_close(loaded.state_dict(), trainer.model.state_dict(), atol=0, rtol=0)


def test_trainer_resumes_to_the_same_weights(tmp_path):
    whole = Trainer(build(), arguments(tmp_path), train_dataset=ColoredSquares(24))
    whole.train()

    resumed = Trainer(build(), arguments(tmp_path), train_dataset=ColoredSquares(24))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), atol=0, rtol=0)


def test_trainer_trains_segmentation_with_checkpointing(tmp_path):
    trainer = Trainer(
        build(EmoForSemanticSegmentation, decode_head="segformer"),
        arguments(tmp_path, max_steps=8, activation_checkpointing=True),
        train_dataset=ColoredSquares(24, dense=True),
        eval_dataset=ColoredSquares(9, dense=True),
    )

    before = trainer.evaluate()["eval_loss"]
    trainer.train()

    assert trainer.evaluate()["eval_loss"] < before


def test_segmentation_metrics_get_one_map_of_logits_for_each_image(tmp_path):
    shapes = []
    trainer = Trainer(
        build(EmoForSemanticSegmentation),  # with an auxiliary head
        arguments(tmp_path, save_strategy="no"),
        eval_dataset=ColoredSquares(9, dense=True),
        compute_metrics=lambda prediction: shapes.append(prediction.predictions.shape) or {},
    )

    trainer.evaluate()

    assert shapes == [(9, 3, 1, 2)]


def test_frozen_backbone_leaves_only_the_classifier_to_learn(tmp_path):
    model = build()
    model.base_model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.named_parameters()}

    Trainer(model, arguments(tmp_path, max_steps=2, save_strategy="no"), train_dataset=ColoredSquares(24)).train()

    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_lora_on_the_convolutions_trains_saves_and_merges(tmp_path):
    peft = pytest.importorskip("peft", reason="adapters need `pip install peft`")
    config = peft.LoraConfig(
        r=2,
        target_modules=["query_key", "value", "projection"],
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    model = peft.get_peft_model(build(), config)
    pixel_values = ColoredSquares(4).pixels

    Trainer(model, arguments(tmp_path, max_steps=2, save_strategy="no"), train_dataset=ColoredSquares(24)).train()
    model.eval().save_pretrained(tmp_path / "adapter")

    adapted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".lora_" in name or ".classifier." in name for name in adapted)
    assert {"query_key", "value", "projection"} <= {part for name in adapted for part in name.split(".")}
    loaded = peft.PeftModel.from_pretrained(build(), tmp_path / "adapter").eval()
    with torch.inference_mode():
        expected = model(pixel_values=pixel_values).logits
        torch.testing.assert_close(loaded(pixel_values=pixel_values).logits, expected)
        torch.testing.assert_close(loaded.merge_and_unload()(pixel_values).logits, expected, atol=1e-4, rtol=1e-4)
