"""A tiny RefT learns eight photographs by heart: every part of the way from images to masks fits together."""

import os
from pathlib import Path

import pytest

from decahub import load_dataset
from decahub.procedures import reft


DATA = Path(os.environ.get("DECAHUB_DATA_DIR") or "absent")
NUM_PHOTOS, MAX_INSTANCES, MIN_SHARE = 8, 6, 0.02  # a smaller instance has a few cells of the masks' map
WANTED_AP50 = 0.8  # method specification, section 13
CONFIG = {
    "backbone_config": {
        "model_type": "resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 128, 256],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "feature_size": 64,
    "mask_feature_size": 64,
    "hidden_dim": 64,
    "encoder_feedforward_dim": 256,
    "dim_feedforward": 256,
    "num_attention_heads": 8,
    "encoder_layers": 2,
    "decoder_layers": 4,
    "num_queries": 20,
    "train_num_points": 1024,
    "support_size": 64,
    "freeze_batch_norm": False,
}


def choose_photos(rows):
    """The first photographs with few and large instances."""

    def is_simple(index: int) -> bool:
        width, height = rows[index]["image"].size
        shares = [item["area"] / (width * height) for item in rows[index]["annotations"]]
        return 0 < len(shares) <= MAX_INSTANCES and min(shares) >= MIN_SHARE

    return rows.select([index for index in range(len(rows)) if is_simple(index)][:NUM_PHOTOS])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not (DATA / "coco-mini-seg").is_dir(), reason="needs coco-mini-seg in DECAHUB_DATA_DIR")
def test_eight_photographs_are_learned_by_heart(tmp_path):
    loaded = load_dataset("coco_mini_seg", DATA, family="few-shot-instance-segmentation")
    photos = choose_photos(loaded["train"])
    names = reft.load_data(reft.Arguments(dataset="coco_mini_seg", data_dir=str(DATA))).label_names
    arguments = reft.Arguments(
        dataset="coco_mini_seg",
        config=CONFIG,
        processor={"size": {"shortest_edge": 128, "longest_edge": 128}},
        augmentation={"image_size": 128, "scale_range": [1.0, 1.0], "flip_prob": 0.0},
        num_shots=1,
        episode_classes=8,
        backbone_factor=1.0,
        max_steps=600,
        per_device_train_batch_size=NUM_PHOTOS,
        per_device_eval_batch_size=NUM_PHOTOS,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_steps=50,
        max_grad_norm=1.0,
        output_dir=str(tmp_path),
    )

    outcome = reft.run(arguments, reft.FewShotSplits(train=photos, evaluation=photos, label_names=names))

    assert outcome.measurement.scores["AP50"] >= WANTED_AP50
