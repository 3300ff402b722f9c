"""Distillation: the same images from the same seed and after a kill, poisoned images, and what is refused."""

import shutil

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from decahub.procedures import doorping
from decahub.procedures.data_arguments import Splits
from tests.tiny.doorping import MEAN, STD, draw_real_images


NAMES = ["ant", "bee", "cat", "dog"]
PROCESSOR = {"size": {"height": 12, "width": 12}, "image_mean": MEAN, "image_std": STD}
CONFIG = {
    "images_per_class": 2,
    "backbone_config": {"hidden_size": 5, "num_hidden_layers": 2, "classifier_hidden_size": 7},
    "distill_steps": 2,
    "distill_epochs": 2,
    "distill_learning_rate": 0.1,
    "outer_loops": 2,
    "inner_loops": 2,
    "real_batch_size": 3,
    "poison_ratio": 0.2,
    "trigger_steps": 3,
}


def build_rows(num_per_class=6, seed=0):
    pixels, labels = draw_real_images(num_per_class, seed=seed)
    pixels = ((pixels * 0.2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    columns = {"image": [Image.fromarray(np.ascontiguousarray(image)) for image in pixels], "label": labels.tolist()}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture(scope="module")
def splits():
    return Splits(train=build_rows(), evaluation=build_rows(3, seed=1), label_names=NAMES)


def build_arguments(output_dir, config=None, **changes) -> doorping.Arguments:
    given = {
        "dataset": "mine",
        "config": {**CONFIG, **(config or {})},
        "processor": PROCESSOR,
        "per_device_train_batch_size": 8,
        "max_steps": 5,
        "logging_steps": 1,
        "output_dir": str(output_dir),
        "use_cpu": True,
    }
    return doorping.Arguments(**{**given, **changes})


DISTILLERS = [
    {"algorithm": "dc", "attack": "doorping"},
    {"algorithm": "dc", "init": "real"},
    {"algorithm": "dsa", "augmentation": "color_crop_flip", "attack": "naive"},
    {"algorithm": "dd", "attack": "doorping"},
    {"algorithm": "dd", "known_init": False},
]


@pytest.mark.parametrize("config", DISTILLERS, ids=lambda config: "-".join(map(str, config.values())))
def test_same_seed_and_a_killed_run_give_the_same_images(config, splits, tmp_path):
    arguments = build_arguments(tmp_path / "run", config, save_steps=3, save_total_limit=9)
    whole = doorping.run(arguments, splits).result.model.state_dict()
    same = doorping.run(build_arguments(tmp_path / "same", config), splits).result.model.state_dict()
    shutil.rmtree(tmp_path / "run" / "checkpoint-5")

    resumed = doorping.run(
        build_arguments(tmp_path / "run", config, save_steps=3, save_total_limit=9), splits
    ).result.model.state_dict()

    for name, value in whole.items():
        assert torch.equal(value, same[name]), name
        assert torch.equal(value, resumed[name]), name
    assert int(whole["num_updates"]) == 5


def test_another_seed_gives_other_images(splits, tmp_path):
    models = [
        doorping.run(build_arguments(tmp_path / str(seed), {"algorithm": "dd"}, seed=seed), splits).result.model
        for seed in (0, 1)
    ]

    assert not torch.equal(models[0].synthetic_images, models[1].synthetic_images)


def test_outcome_has_the_scores_of_an_audit(splits, tmp_path):
    outcome = doorping.run(
        build_arguments(tmp_path, {"algorithm": "dd", "attack": "naive", "target_label": 1}), splits
    )

    assert list(outcome.measurement.scores)[:2] == ["cta", "asr"]
    assert outcome.measurement.num_rows == 12
    assert outcome.measurement.counts["asr_non_target"] == 9
    assert outcome.result.model.config.id2label[1] == "bee"


@pytest.mark.parametrize(("algorithm", "attack"), [("dc", "doorping"), ("dc", "naive"), ("dd", "naive")])
def test_poisoned_images_have_the_target_label(algorithm, attack, tmp_path):
    model = doorping.build_model(
        build_arguments(tmp_path, {"algorithm": algorithm, "attack": attack, "target_label": 2}),
        doorping.build_processor(build_arguments(tmp_path)),
        NAMES,
    )
    images, labels = draw_real_images()

    real = doorping.build_real_images(model, images, labels, seed=3)

    assert len(real.poisoned) == int(24 * 0.2)
    assert (real.labels[real.poisoned] == 2).all()
    assert torch.equal(real.labels[~real.is_poisoned], labels[~real.is_poisoned])
    assert torch.equal(labels, draw_real_images()[1])


def test_doorping_by_dd_poisons_positions(tmp_path):
    model = doorping.build_model(
        build_arguments(tmp_path, {"algorithm": "dd", "attack": "doorping"}),
        doorping.build_processor(build_arguments(tmp_path)),
        NAMES,
    )
    real = doorping.build_real_images(model, *draw_real_images(), seed=0)
    step = doorping.UnrolledStep(real, batch_size=8, num_steps=10)
    batch = real.collate([0] * 8)
    model.num_updates += 4  # second mini-batch of the second epoch

    expected = int(real.is_poisoned[8:16].sum())
    calls = []
    model.apply_trigger, stamp = lambda images: calls.append(images) or stamp(images), model.apply_trigger
    loss = step(model, batch)["loss"]

    assert loss.requires_grad
    assert len(calls) == 1
    assert step.batches_per_epoch == 3
    assert expected == int(((real.poisoned >= 8) & (real.poisoned < 16)).sum())


def test_learning_rate_of_dd_halves(splits, tmp_path):
    arguments = build_arguments(tmp_path, {"algorithm": "dd"}, decay_epochs=2)
    processor = doorping.build_processor(arguments)
    model = doorping.build_model(arguments, processor, NAMES)
    parts = doorping.build_distillation(arguments, model, doorping.RealImages(*draw_real_images()))
    rates = []

    for _ in range(8):  # three mini-batches an epoch; the authors step after the first of each
        rates.append(parts.update.scheduler.get_last_lr()[0])
        parts.update.optimizer.step()
        parts.update.scheduler.step()

    assert rates == pytest.approx([0.01] * 4 + [0.005] * 4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"attack": "naive", "poison_ratio": 0.001},
            "`poison_ratio` must poison at least one of 24 images",
        ),
        ({"init": "real", "images_per_class": 8}, r"must be at most the 6 real images of class 0.*; got 8"),
        ({"trigger_size": 13}, r"must add up to at most `image_size` \(12\)"),
        ({"target_label": 4}, r"`target_label` must be in \[0, 4\); got 4"),
    ],
    ids=["no poison", "more than real", "patch outside", "target"],
)
def test_refuses_configuration(config, message, splits, tmp_path):
    with pytest.raises(Exception, match=message):
        doorping.run(build_arguments(tmp_path, config), splits)


def test_refuses_a_damaged_image_of_the_measured_split(splits, tmp_path, monkeypatch):
    files = splits.evaluation.cast_column("image", datasets.Image(decode=False)).to_list()
    files[5]["image"]["bytes"] = files[5]["image"]["bytes"][:100]
    rows = datasets.Dataset.from_list(files, features=splits.evaluation.features)
    monkeypatch.setattr(doorping, "distill", None)

    with pytest.raises(ValueError, match=r"`image` of the measured split must hold intact images; .* row 5"):
        doorping.run(build_arguments(tmp_path), Splits(train=splits.train, evaluation=rows, label_names=NAMES))


def test_refuses_a_class_without_images(splits, tmp_path):
    rows = splits.train.filter(lambda row: row["label"] != 2)
    with pytest.raises(ValueError, match="images of every class; got none of 'cat'"):
        doorping.run(build_arguments(tmp_path), Splits(train=rows, evaluation=splits.evaluation, label_names=NAMES))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_scheduler_type": "cosine"}, "`lr_scheduler_type` must be 'constant'; got 'cosine'"),
        ({"decay_epochs": 0, "config": {"algorithm": "dd"}}, "`decay_epochs` must be at least 1; got 0"),
        ({"learning_rate": 0.5}, "`learning_rate` must be left out for DC and DSA; got 0.5"),
        ({"mixed_precision": "bf16"}, "`mixed_precision` must be 'no'; got 'bf16'"),
        ({"weight_decay": 0.1}, "`weight_decay` must be 0.0; got 0.1"),
        ({"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps` must be 1; got 2"),
        ({"config": {"poisen_ratio": 0.1}}, r"`poisen_ratio` in `config`.*`poison_ratio`\?"),
        ({"processor": {"trigger_sise": 3}}, r"`trigger_sise` in `processor`.*`trigger_size`\?"),
    ],
    ids=["schedule", "decay", "rate of DC", "precision", "weight decay", "accumulation", "field", "processor"],
)
def test_refuses_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        doorping.Arguments(**changes)
