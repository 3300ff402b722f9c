"""Drum LM under transformers' Trainer: how examples are divided into batches changes no gradient."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from tests.tiny.drum_lm_model import VOCAB_SIZE, build_model


NUM_EXAMPLES, NUM_TOKENS = 8, 11
RTOL_MEANS = 1e-4  # a mean of means instead of one mean


def build_examples() -> list[dict[str, torch.Tensor]]:
    ids = torch.randint(3, VOCAB_SIZE, (NUM_EXAMPLES, NUM_TOKENS), generator=torch.Generator().manual_seed(5))
    return [{"input_ids": row, "labels": row} for row in ids]


def build_plain() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model()


def build_with_peft() -> torch.nn.Module:
    peft = pytest.importorskip("peft", reason="adapters need `pip install peft`")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(build_plain(), settings)


def build_trainer(model, folder, batch_size: int) -> Trainer:
    """One step over all examples, which changes no weight."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=NUM_EXAMPLES // batch_size,
        learning_rate=0.0,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    return Trainer(model, arguments, train_dataset=build_examples())


@pytest.mark.parametrize("build", [build_plain, build_with_peft], ids=["plain", "with peft"])
def test_accumulated_gradients_are_those_of_one_batch(build, tmp_path):
    norms = []
    for batch_size in (NUM_EXAMPLES, 2):
        trainer = build_trainer(build(), tmp_path, batch_size)
        trainer.train()
        norms.append(trainer.state.log_history[0]["grad_norm"])

    assert norms[1] == pytest.approx(norms[0], rel=RTOL_MEANS)


def test_the_backbone_gets_nothing_that_is_for_the_loss(tmp_path):
    model, given = build_plain(), set()
    model.backbone.register_forward_pre_hook(lambda module, args, kwargs: given.update(kwargs), with_kwargs=True)

    build_trainer(model, tmp_path, batch_size=4).train()

    assert "input_ids" in given
    assert "num_items_in_batch" not in given
