"""RAW-GNN under the Trainer of transformers: one graph is the only row, and masks choose its nodes."""

import pytest
import torch
from transformers import AutoFeatureExtractor, Trainer, TrainingArguments

from decahub import AutoModelForNodeClassification, RawGnnFeatureExtractor, RawGnnForNodeClassification
from tests.tiny.raw_gnn import build_tiny_config, build_tiny_graph


def build_labeled_graph(num_nodes: int, seed: int) -> dict[str, torch.Tensor]:
    """The class of a node shows in its first feature."""
    graph = build_tiny_graph(num_nodes, seed=seed)
    labels = torch.arange(num_nodes) % 3
    graph["node_features"] *= 0.1
    graph["node_features"][:, 0] = 3.0 * labels
    return {**graph, "labels": labels}


def measure_accuracy(model, graph) -> float:
    with torch.inference_mode():
        predictions = model(graph["node_features"], graph["edge_index"]).logits.argmax(-1)
    return float((predictions == graph["labels"]).float().mean())


@pytest.fixture
def trained(tmp_path):
    torch.manual_seed(0)
    graph = build_labeled_graph(30, seed=0)
    train_mask = torch.arange(30) < 20
    trainer = Trainer(
        RawGnnForNodeClassification(build_tiny_config()),
        TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=60,
            learning_rate=0.03,
            seed=1,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            per_device_train_batch_size=1,
        ),
        train_dataset=[{**graph, "train_mask": train_mask}],
        eval_dataset=[{**graph, "train_mask": ~train_mask}],
        data_collator=lambda rows: rows[0],
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model(tmp_path / "model")
    RawGnnFeatureExtractor().save_pretrained(tmp_path / "model")
    return before, after, tmp_path / "model"


def test_trainer_learns_and_its_folder_classifies_another_graph(trained):
    before, after, folder = trained
    other = build_labeled_graph(47, seed=5)

    model = AutoModelForNodeClassification.from_pretrained(folder).eval()
    inputs = AutoFeatureExtractor.from_pretrained(folder)(other, return_tensors="pt")

    assert after < 0.5 * before
    assert measure_accuracy(model, inputs) > 0.8  # chance is a third
