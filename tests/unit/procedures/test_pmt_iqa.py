"""Training PMT-IQA on a folder of images with scores: splits, schedules, calibration, resuming."""

import json
import shutil
from dataclasses import dataclass

import datasets
import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file

from decahub import PmtIqaForImageQualityAssessment
from decahub.data import image_quality
from decahub.evaluation import evaluate_folder
from decahub.hub import CardArguments, save_run
from decahub.procedures import pmt_iqa
from decahub.training import train
from tests.tiny.pmt_iqa import tiny_backbone
from tests.tiny.quality_folder import write_quality_folder


SIZE = 32
CONFIG = {
    "backbone_config": tiny_backbone(),
    "crop_size": SIZE,
    "pool_size": 1,
    "lda_channels": [2, 3, 4],
    "lda_out_channels": 5,
    "target_in_size": 24,
    "hidden_size": 9,
    "num_levels": 4,
}
PROCESSOR = {"crop_size": {"height": SIZE, "width": SIZE}, "num_crops": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_quality_folder(tmp_path_factory.mktemp("quality"))


def build_arguments(folder, output_dir, **changes) -> pmt_iqa.Arguments:
    given = {
        "dataset": str(folder),
        "config": CONFIG,
        "processor": PROCESSOR,
        "validation_share": 0.25,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "output_dir": str(output_dir),
        "use_cpu": True,
    }
    return pmt_iqa.Arguments(**{**given, **changes})


def read_log(output_dir) -> list[dict]:
    return [json.loads(line) for line in (output_dir / "train_log.jsonl").read_text().splitlines()]


def test_run_splits_by_reference_and_keeps_the_record(folder, tmp_path):
    arguments = build_arguments(folder, tmp_path)

    outcome = pmt_iqa.run(arguments)

    record = json.loads((tmp_path / "reference_splits.json").read_text())
    references = {name: part["references"] for name, part in record["splits"].items()}
    assert {name: len(part) for name, part in references.items()} == {"train": 3, "validation": 1, "test": 1}
    assert len({name for part in references.values() for name in part}) == 5
    assert outcome.measurement.num_rows == 4
    assert outcome.measurement.report.columns[:3] == ["split", "references", "images"]
    assert "srcc" in outcome.measurement.scores


def test_weights_of_the_tasks_follow_the_epoch(folder, tmp_path):
    pmt_iqa.run(build_arguments(folder, tmp_path))

    terms = [line for line in read_log(tmp_path) if "loss_reg" in line]
    for line in terms:
        w_reg = (line["step"] - 1) // 3 / 2  # 12 images, 3 steps an epoch, 3 epochs
        assert line["loss"] == pytest.approx(w_reg * line["loss_reg"] + (1 - w_reg) * line["loss_cls"], rel=1e-4)
    assert len(terms) == 9


@pytest.mark.parametrize("frozen_crops", [0, 2])
def test_a_run_resumes_bit_by_bit(folder, tmp_path, frozen_crops):
    arguments = build_arguments(folder, tmp_path, save_steps=4, save_total_limit=9, frozen_crops=frozen_crops)
    whole = pmt_iqa.run(arguments)
    for name in ("checkpoint-8", "checkpoint-9"):
        shutil.rmtree(tmp_path / name)

    again = pmt_iqa.run(arguments)

    for name, tensor in whole.result.model.state_dict().items():
        assert torch.equal(tensor, again.result.model.state_dict()[name]), name


def test_official_optimizer_starts_anew_in_each_epoch(folder, tmp_path):
    arguments = build_arguments(folder, tmp_path, optimizer="official", num_train_epochs=8, weight_decay=5e-4)

    pmt_iqa.run(arguments)

    rates = [line["learning_rate"] for line in read_log(tmp_path) if "loss_reg" in line]
    assert rates == pytest.approx([1e-3] * 21 + [1e-4] * 3)


def test_splits_of_an_earlier_run_are_used_again(folder, tmp_path):
    first = pmt_iqa.load_splits(build_arguments(folder, tmp_path, split_seed=5))
    path = pmt_iqa.save_splits(first.record, tmp_path / "splits.json")

    again = pmt_iqa.load_splits(build_arguments(folder, tmp_path, splits_file=str(path), split_seed=6))

    assert again.evaluation["name"][:] == first.evaluation["name"][:]
    assert again.monitor["name"][:] == first.monitor["name"][:]


def test_calibration_is_fitted_on_the_validation_split(tmp_path, monkeypatch):
    arguments = build_arguments(write_quality_folder(tmp_path / "data", num_scenes=30), tmp_path, num_train_epochs=1)
    splits, scores = pmt_iqa.load_splits(arguments), np.linspace(-3, 3, 24)
    measured = []

    def answer(arguments, model, processor, rows):
        measured.append(rows["name"][:])
        return [{"predictions": scores, "references": 60 / (1 + np.exp(0.5 - scores)) + 20}]

    monkeypatch.setattr(pmt_iqa, "compute_columns", answer)
    outcome = pmt_iqa.run(arguments)

    assert measured == [splits.monitor["name"][:]]
    assert len(splits.monitor) == 24
    assert outcome.result.model.config.calibration == pytest.approx([80, 20, 0.5, 1], rel=1e-4)


def test_images_without_a_label_do_not_calibrate(folder, tmp_path, caplog):
    arguments = build_arguments(folder, tmp_path)
    rows = datasets.Dataset.from_dict({"score": [float("nan")] * 5 + [50.0] * 16})

    assert pmt_iqa.fit_calibration(arguments, None, None, rows) is None
    assert "it takes 20 images to validate on, got 16" in caplog.text


@pytest.mark.parametrize(
    "labels",
    [
        lambda scores: -scores,  # ranked from the worst to the best
        lambda scores: np.where(scores > 20.5, 60.0, 40.0),  # a curve as steep as a step, all scores at its ends
    ],
    ids=["falling", "step"],
)
def test_a_curve_that_changes_the_order_of_images_is_not_taken(folder, tmp_path, monkeypatch, caplog, labels):
    scores = np.arange(40.0)
    answers = [{"predictions": scores, "references": labels(scores)}]
    monkeypatch.setattr(pmt_iqa, "compute_columns", lambda *_: answers)
    rows = datasets.Dataset.from_dict({"score": scores})
    arguments = build_arguments(folder, tmp_path)
    model = pmt_iqa.build_model(arguments)

    assert pmt_iqa.fit_calibration(arguments, model, pmt_iqa.build_processor(arguments), rows) is None
    assert "The scores are not calibrated: no curve to the labels keeps the order of images." in caplog.text


def test_few_images_are_not_enough_to_calibrate(folder, tmp_path, caplog):
    outcome = pmt_iqa.run(build_arguments(folder, tmp_path, num_train_epochs=1))

    assert outcome.result.model.config.calibration is None
    assert "it takes 20 images to validate on, got 4" in caplog.text


def test_backbone_weights_are_loaded(folder, tmp_path):
    source = PmtIqaForImageQualityAssessment(pmt_iqa.PmtIqaConfig(**CONFIG)).pmt_iqa.backbone
    save_file(source.state_dict(), tmp_path / "backbone.safetensors")
    arguments = build_arguments(folder, tmp_path, backbone_weights=str(tmp_path / "backbone.safetensors"))

    backbone = pmt_iqa.build_model(arguments).pmt_iqa.backbone

    for name, tensor in load_file(tmp_path / "backbone.safetensors").items():
        assert torch.equal(backbone.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": ["good"]}, "`label_names` must be empty"),
        ({"test_share": 1.0}, r"`test_share` must be in \(0, 1\); got 1.0"),
        ({"validation_share": -0.1}, r"`validation_share` must be in \[0, 1\); got -0.1"),
        ({"backbone_rate_factor": 0.0}, "`backbone_rate_factor` must be positive"),
        ({"optimizer": "official", "backbone_rate_factor": 0.1}, "must be 1 for the official optimizer"),
        ({"pretrained": "a", "backbone_weights": "b"}, "must not both be given"),
        ({"config": {"num_level": 3}}, r"`num_level` in `config`.*`num_levels`"),
        ({"augmentation": {"crops": 3}}, r"`crops` in `augmentation`.*`num_crops`"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refuses_arguments(folder, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        build_arguments(folder, tmp_path, **changes)


@pytest.mark.parametrize(
    "scale", [{"score_high": 1.0}, {"score_high": 10_000.0}], ids=["labels above", "labels fill nothing"]
)
def test_refuses_labels_on_another_scale(folder, tmp_path, scale):
    with pytest.raises(ValueError, match="labels, which go from 0 to 100"):
        pmt_iqa.run(build_arguments(folder, tmp_path, config={**CONFIG, **scale}))


def test_refuses_crops_of_another_size(folder, tmp_path):
    processor = {"crop_size": {"height": 40, "width": 40}}

    with pytest.raises(ValueError, match="must cut crops of the `crop_size` of the model, 32; got 40"):
        pmt_iqa.run(build_arguments(folder, tmp_path, processor=processor))


def test_images_without_a_score_are_left_out(tmp_path, caplog):
    folder = write_quality_folder(tmp_path / "data")
    table = folder / "scores.csv"
    table.write_text(table.read_text().replace("scene0_0.png,100.0", "scene0_0.png,nan"))

    splits = pmt_iqa.load_splits(build_arguments(folder, tmp_path, validation_share=0.0, test_share=0.2, split_seed=1))

    assert "scene0_0.png" not in splits.train["name"][:]
    assert "1 of 16 images have no finite score" in caplog.text


def test_refuses_scores_that_are_all_equal(tmp_path):
    folder = write_quality_folder(tmp_path / "data", num_levels=4)
    table = folder / "scores.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text(
        "\n".join([",".join(lines[0]), *(f"{name},50,{rest[0]},{rest[1]}" for name, _, *rest in lines[1:])])
    )

    with pytest.raises(ValueError, match="labels, which go from 50 to 50"):
        pmt_iqa.run(build_arguments(folder, tmp_path))


def test_refuses_weights_that_do_not_exist(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'none\.safetensors' does not exist"):
        pmt_iqa.build_model(build_arguments(folder, tmp_path, backbone_weights="none.safetensors"))


def test_refuses_a_file_of_another_kind(tmp_path):
    torch.save({}, tmp_path / "backbone.pth")

    with pytest.raises(ValueError, match=r"`backbone_weights` must be a complete \.safetensors file; .*backbone\.pth"):
        pmt_iqa.read_weights(str(tmp_path / "backbone.pth"))


def test_a_frozen_backbone_of_random_weights_is_warned_of(folder, tmp_path, caplog):
    pmt_iqa.run(build_arguments(folder, tmp_path, frozen_crops=1, num_train_epochs=1))

    assert "`frozen_crops` keeps a backbone of random weights" in caplog.text


def test_refuses_a_split_that_does_not_exist(folder, tmp_path):
    with pytest.raises(ValueError, match="`eval_split` must be one of train, validation, test; got 'all'"):
        pmt_iqa.load_splits(build_arguments(folder, tmp_path, eval_split="all"))


class StepBesideEvalBackbone(pmt_iqa.ScheduledStep):
    """A step whose norms keep their statistics."""

    def __call__(self, model, batch):
        model.pmt_iqa.backbone.eval()
        return super().__call__(model, batch)


def test_a_frozen_backbone_stays_and_heads_learn_as_they_would_beside_it(folder, tmp_path, monkeypatch):
    arguments = build_arguments(folder, tmp_path / "pooled", frozen_crops=3)

    pooled = pmt_iqa.run(arguments).result.model

    # The same crops through a backbone that learns at a rate of nearly 0.
    monkeypatch.setattr(pmt_iqa, "ScheduledStep", StepBesideEvalBackbone)
    slow = build_arguments(folder, tmp_path / "slow", backbone_rate_factor=1e-12)
    set_seed(slow.seed)
    model = pmt_iqa.build_model(slow)
    splits = pmt_iqa.load_splits(slow)
    rows = pmt_iqa.build_train_dataset(slow, splits.train, pmt_iqa.build_processor(slow))
    expected = train(
        model, pmt_iqa.build_update(slow, model, len(rows)), rows, slow, collate_fn=image_quality.collate
    ).model.state_dict()

    assert all(parameter.requires_grad for parameter in pooled.parameters())
    for name, tensor in pooled.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen_crops": -1}, "`frozen_crops` must not"),
        ({"frozen_crops": 2, "backbone_rate_factor": 0.1}, "left out"),
    ],
)
def test_frozen_crops_are_checked(folder, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        build_arguments(folder, tmp_path, **changes)


@dataclass
class ArgumentsOfTheCommand(CardArguments, pmt_iqa.Arguments): ...


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A run on a folder without splits of its own, saved as `decahub train` does, and what it measured."""
    output_dir = tmp_path_factory.mktemp("trained")
    plain = build_arguments(folder, output_dir, split_seed=2, num_train_epochs=1)
    arguments = ArgumentsOfTheCommand(**vars(plain), card_license="mit")
    outcome = pmt_iqa.run(arguments)
    facts = {name: getattr(outcome, name) for name in ("task", "dataset", "split", "minutes", "reports")}
    return save_run(arguments, outcome.result, outcome.processor, outcome.measurement, **facts), outcome.measurement


def test_a_model_is_measured_again_on_the_split_of_its_run(folder, trained):
    path, measurement = trained

    again = evaluate_folder(path, folder.parent, dataset=folder)

    scores = {figure["metric"]: figure["value"] for figure in again["figures"]}
    assert scores["srcc"] == pytest.approx(measurement.scores["srcc"])
    assert scores["rmse"] == pytest.approx(measurement.scores["rmse"])
    assert again["figures"][0]["n"] == 4


@pytest.mark.parametrize(("split", "num_rows"), [("train", 12), ("validation", 4), ("all", 20)])
def test_any_split_of_its_run_can_be_measured(folder, trained, split, num_rows):
    assert evaluate_folder(trained[0], dataset=folder, split=split)["figures"][0]["n"] == num_rows


def test_another_dataset_is_not_divided_as_that_of_the_run(trained, tmp_path):
    other = write_quality_folder(tmp_path / "other", num_scenes=7)

    with pytest.raises(ValueError, match=r"`split` must be one of all; got 'test'.*2 are not, the first is 'scene5'"):
        evaluate_folder(trained[0], dataset=other)
    assert evaluate_folder(trained[0], dataset=other, split="all")["figures"][0]["n"] == 28


def test_references_on_both_sides_of_your_own_splits_are_warned_of(tmp_path, caplog):
    folder = write_quality_folder(tmp_path / "data")
    header, *lines = (folder / "scores.csv").read_text().splitlines()
    lines = [f"{line},{'test' if number % 2 else 'train'}" for number, line in enumerate(lines)]
    (folder / "scores.csv").write_text("\n".join([f"{header},split", *lines]))

    pmt_iqa.load_splits(build_arguments(folder, tmp_path, validation_share=0.0))

    assert "5 references are in the splits train and test, the first is 'scene0'" in caplog.text
