"""Tiny trained-looking models and their folders, for tests of folders, cards, publishing and commands."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer

from decahub import (
    DrumLmForCausalLM,
    DrumLmProcessor,
    EmoConfig,
    EmoForImageClassification,
    EmoForSemanticSegmentation,
    EmoImageProcessor,
    RawGnnConfig,
    RawGnnFeatureExtractor,
    RawGnnForNodeClassification,
)
from decahub.data import DATASETS, load_dataset, select_split
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import ModelFolder, save_model_folder
from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import build_bpe_tokenizer, build_random_llama
from tests.tiny.drum_lm_model import BACKBONE, build_model


IMAGE_SIZE = 32
GRAPH_NODES, GRAPH_FEATURES = 60, 6
STEPS_PER_BAR = 16
LABELS = ("cat", "dog", "fox")
LOG_LINES = [
    {"step": 10, "epoch": 0.5, "loss": 1.5},
    {"step": 20, "epoch": 1.0, "loss": 1.25},
    {"step": 20, "epoch": 1.0, "eval_accuracy": 0.75},
]
RECIPE = {
    "dataset": "cifar10",
    "learning_rate": 0.002,
    "ema_decay": 0.99,
    "max_steps": None,
    "label_names": [],
    "output_dir": str(Path.home() / "run"),
    "card_title": "emo-tiny",
    "card_summary": "A tiny EMO that tells cats from dogs and foxes.",
    "card_intended_use": "Tests: it is small and quick.",
    "card_limits": "It never learned anything.",
}
EVALUATION = {
    "task": "image-classification",
    "dataset": {"name": "cifar10", "title": "CIFAR-10 (JPEG)", "split": "test", "num_rows": 400},
    "figures": [
        {"metric": "accuracy", "value": 0.7525, "n": 400},
        {"metric": "top_2_accuracy", "value": 0.9, "n": 400},
    ],
    "command": "python examples/emo/train.py examples/emo/cifar10.yaml",
    "minutes": 1.25,
    "hardware": "a small computer, 2 threads",
    "versions": {"python": "3.11", "torch": "2.14"},
}


def tiny_config(**overrides) -> EmoConfig:
    """The smallest EMO with attention in two stages; no two widths are equal."""
    sizes = {
        "stem_hidden_size": 6,
        "stem_stride": 1,
        "depths": [1, 1, 2, 2],
        "hidden_sizes": [8, 12, 16, 20],
        "head_dims": [4, 4, 8, 10],
        "window_sizes": [4, 4, 4, 2],
        "decode_hidden_size": 10,
        "auxiliary_hidden_size": 9,
    }
    return EmoConfig(**{**sizes, **label_maps(LABELS), **overrides})


def tiny_model(model_class=EmoForImageClassification, **overrides):
    """A model with seeded weights whose batch norms have seen data, so that all of its tensors matter."""
    torch.manual_seed(11)
    model = model_class(tiny_config(**overrides))
    with torch.no_grad():
        model.train()(torch.randn(4, 3, IMAGE_SIZE, 2 * IMAGE_SIZE))
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def tiny_processor() -> EmoImageProcessor:
    return EmoImageProcessor(
        size={"shortest_edge": IMAGE_SIZE + 4}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )


def write_log(path: Path) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in LOG_LINES))
    return path


def build_model_folder(folder: Path, model=None, **overrides) -> Path:
    """A complete model folder; `overrides` replace arguments of `save_model_folder`."""
    facts = {"evaluation": EVALUATION, "recipe": RECIPE, "training_minutes": 12.3}
    arguments = {**facts, "train_log": write_log(folder.parent / "run_log.jsonl"), **overrides}
    return save_model_folder(folder, model if model is not None else tiny_model(), tiny_processor(), **arguments)


def refresh(folder: Path) -> None:
    """Takes up a change of a folder's files in its card and its checksums."""
    ModelFolder(folder).write_card()
    ModelFolder(folder).write_checksums()


def build_segmentation_folder(folder: Path) -> Path:
    """The same for a segmentation model."""
    evaluation = {
        **EVALUATION,
        "task": "semantic-segmentation",
        "dataset": {"name": "camvid", "title": "CamVid (11 classes, 480x360)", "split": "test", "num_rows": 20},
        "figures": [{"metric": "mean_iou", "value": 0.5, "n": 20}, {"metric": "iou_sky", "value": 0.9, "n": 20}],
    }
    return build_model_folder(folder, tiny_model(EmoForSemanticSegmentation), evaluation=evaluation)


def build_image(seed: int, width: int = 40, height: int = 33) -> Image.Image:
    """An image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def build_cifar10(data_dir: Path, num_rows: int = 7) -> Path:
    """A data directory with a test split of CIFAR-10's form."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(DATASETS["cifar10"].label_names))}
    )
    rows = {"image": [build_image(seed, 32, 32) for seed in range(num_rows)], "label": list(range(num_rows))}
    (data_dir / "cifar10").mkdir(parents=True)
    for split in ("train", "test"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(data_dir / "cifar10" / f"{split}.parquet")
    return data_dir


def build_graphs(data_dir: Path) -> Path:
    """A data directory with a graph of the form of Texas: five classes, ten splits, and groups besides."""
    generator = np.random.default_rng(0)
    source = np.arange(GRAPH_NODES)
    edges = np.stack([np.tile(source, 2), np.concatenate([(source + 1) % GRAPH_NODES, (source + 7) % GRAPH_NODES])])
    labels = generator.choice(5, GRAPH_NODES)
    features = generator.normal(size=(GRAPH_NODES, GRAPH_FEATURES)) + labels[:, None]
    splits = np.stack([generator.permutation(source % 3) for _ in range(10)])
    (data_dir / "graphs").mkdir(parents=True)
    np.savez(
        data_dir / "graphs" / "texas.npz",
        edge_index=edges.astype(np.int32),
        x=features.astype(np.float32),
        y=labels.astype(np.int8),
        splits=splits.astype(np.uint8),
        sens=generator.choice(2, GRAPH_NODES).astype(np.int8),
    )
    return data_dir


def build_graph_folder(folder: Path, **overrides) -> Path:
    """A complete folder of a node classifier, with the scores that it has on the graph of `build_graphs`."""
    torch.manual_seed(11)
    config = RawGnnConfig(num_features=GRAPH_FEATURES, **label_maps(DATASETS["texas"].label_names))
    model, extractor = RawGnnForNodeClassification(config).eval(), RawGnnFeatureExtractor(num_features=GRAPH_FEATURES)
    data_dir = folder.parent / "data_of_builder"
    rows = select_split(load_dataset("texas", data_dir if data_dir.exists() else build_graphs(data_dir)), "test/1")
    facts = {"task": "node-classification", "dataset": "texas", "split": "test/1", "minutes": 0.1}
    evaluation = build_evaluation(evaluate_model(model, extractor, rows, facts["task"], show_progress=False), **facts)
    recipe = {**RECIPE, "dataset": "texas", "card_title": "raw-gnn-tiny", "card_summary": "A tiny RAW-GNN."}
    arguments = {"evaluation": evaluation, "recipe": recipe, **overrides}
    return save_model_folder(folder, model, extractor, **arguments)


def build_groove(seed: int, bars: int = 4, steps_per_bar: int = STEPS_PER_BAR, tempo: float = 97.0) -> bytes:
    """A MIDI file without sense, whose first and last step are hits."""
    hits = np.random.default_rng(seed).random((bars * steps_per_bar, 6)) < 0.2
    hits[[0, -1], 3] = True
    return DrumCodec().to_midi(DrumRoll(hits, steps_per_bar, tempo=tempo))


def build_grooves(data_dir: Path) -> Path:
    """A data directory of the form of the Groove dataset, with three grooves for testing."""
    (data_dir / "groove").mkdir(parents=True)
    shared = {"drummer": "drummer1", "session": "session1", "style": "funk", "bpm": "97", "beat_type": "beat"}
    splits = ("train", "validation", "test", "test", "test")
    rows = [
        {**shared, "time_signature": "4-4", "split": split, "midi_filename": f"{number}.mid"}
        for number, split in enumerate(splits)
    ]
    with (data_dir / "groove" / "info.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    for number, row in enumerate(rows):
        (data_dir / "groove" / row["midi_filename"]).write_bytes(build_groove(number, bars=4 + number))
    return data_dir


def build_drum_folder(folder: Path, model: Any = None, processor: Any = None, **overrides) -> Path:
    """A complete folder of a drum model, with the scores that it has on the grooves of `build_grooves`."""
    if model is None:
        processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line")
        torch.manual_seed(11)
        sizes = {"vocab_size": len(processor.tokenizer), "initializer_range": 0.5}
        model = build_model(backbone_config={**BACKBONE, **sizes})
    data_dir = folder.parent / "data_of_builder"
    rows = load_dataset("groove", data_dir if data_dir.exists() else build_grooves(data_dir))["test"]
    facts = {"task": "drum-generation", "dataset": "groove", "split": "test", "minutes": 0.1}
    evaluation = build_evaluation(evaluate_model(model, processor, rows, facts["task"], show_progress=False), **facts)
    recipe = {**RECIPE, "dataset": "groove", "card_title": folder.name, "card_summary": "A tiny Drum LM."}
    arguments = {"evaluation": evaluation, "recipe": recipe, **overrides}
    return save_model_folder(folder, model, processor, **arguments)


def build_drum_base(folder: Path) -> Path:
    """A language model on disk, with a tokenizer that has a chat template as those of chat models do."""
    tokenizer = build_bpe_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    build_random_llama(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_drum_adapter_folder(folder: Path, base: Path) -> Path:
    """A complete folder of adapters on `build_drum_base`, without the weights they stand on.

    Its end mark ends like a separator, so that no token alone tells where a groove is over.
    """
    processor = DrumLmProcessor(AutoTokenizer.from_pretrained(base), end="ESEP")
    assert processor.build_grammar().stop_id is None
    model = DrumLmForCausalLM.from_backbone(base, processor, adapter={"r": 3, "lora_alpha": 6}).eval()
    generator = torch.Generator().manual_seed(11)
    for weights in model.get_adapter_weights().values():
        weights.normal_(std=0.3, generator=generator)  # new adapters change nothing
    return build_drum_folder(folder, model, processor)


def label_maps(names) -> dict[str, dict]:
    """`id2label` and `label2id` of classes in the order of their ids."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
