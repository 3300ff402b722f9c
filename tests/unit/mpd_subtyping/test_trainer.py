"""The members under the Trainer of transformers; clusters are found afterwards."""

import torch
from transformers import Trainer, TrainingArguments

from decahub import MpdSubtypingModel
from tests.tiny.mpd_subtyping import build_tiny_config, build_tiny_features


def test_trainer_learns_to_reconstruct(tmp_path):
    torch.manual_seed(0)
    features = build_tiny_features(60)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=60, learning_rate=0.01, seed=1, use_cpu=True, report_to="none",
        disable_tqdm=True, per_device_train_batch_size=20, save_strategy="no",
    )  # fmt: skip
    rows = [{"features": row} for row in features]
    trainer = Trainer(MpdSubtypingModel(build_tiny_config()), arguments, train_dataset=rows, eval_dataset=rows)

    before = trainer.model.eval()(features).loss
    trainer.train()
    after = trainer.model.eval()(features).loss
    report = trainer.model.fit_clusters(features)
    trainer.save_model(tmp_path / "model")

    assert after < 0.7 * before
    assert report.reassignment_agreement > 0.9
    assert MpdSubtypingModel.from_pretrained(tmp_path / "model").is_fitted
