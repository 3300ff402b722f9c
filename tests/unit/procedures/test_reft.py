"""RefT's procedure: what each stage trains, with which rows, classes, memory and teacher; what is refused."""

import dataclasses
import json
import shutil
from dataclasses import dataclass

import pytest
import torch
from PIL import ExifTags, Image
from transformers import pipeline

from decahub import RefTForFewShotInstanceSegmentation
from decahub.evaluation import evaluate_model
from decahub.hub import CardArguments, save_run
from decahub.procedures import reft
from decahub.tasks import get_task
from tests.tiny.instances import HEIGHT, NOVEL, ORDERED, WIDTH, write_coco_folder
from tests.tiny.reft import RESNET, SUPPORT_SIZE, tiny_config


BASE_IDS, NOVEL_IDS = [0, 1], [2]
FIELDS = (
    "feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim", "dim_feedforward", "encoder_layers",
    "decoder_layers", "num_attention_heads", "num_queries", "train_num_points", "support_size",
)  # fmt: skip
AUGMENTATION = {"image_size": 96, "scale_range": [1.0, 1.0]}


@dataclass
class CardRun(CardArguments, reft.Arguments): ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_coco_folder(tmp_path_factory.mktemp("coco") / "shapes")


def build_arguments(folder, output_dir, **overrides):
    config = tiny_config()
    settings = {
        "dataset": str(folder),
        "novel_classes": list(NOVEL),
        "num_shots": 2,
        "config": {"backbone_config": RESNET, **{name: getattr(config, name) for name in FIELDS}},
        "processor": {"size": {"height": HEIGHT, "width": WIDTH}},
        "augmentation": AUGMENTATION,
        "episode_classes": 2,
        "max_steps": 2,
        "per_device_train_batch_size": 3,
        "per_device_eval_batch_size": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "output_dir": str(output_dir),
    }
    if "pretrained" in overrides:
        settings |= {"config": {}, "processor": {}}
    return reft.Arguments(**{**settings, **overrides})


@pytest.fixture(scope="module")
def base(folder, tmp_path_factory):
    """A base model, its folder, and its outcome."""
    root = tmp_path_factory.mktemp("base")
    outcome = reft.run(build_arguments(folder, root))
    outcome.result.model.save_pretrained(root / "model")
    outcome.processor.save_pretrained(root / "model")
    return root / "model", outcome


def run_stage(folder, base, tmp_path, stage, **overrides):
    arguments = build_arguments(folder, tmp_path / "run", stage=stage, pretrained=str(base[0]), **overrides)
    return reft.run(arguments)


def find_changed(model, source):
    before = RefTForFewShotInstanceSegmentation.from_pretrained(source).state_dict()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_base_training_measures_base_classes(base):
    model, outcome = base[1].result.model, base[1]

    assert model.config.base_label_ids == BASE_IDS
    assert model.config.novel_label_ids is None
    assert [model.config.id2label[index] for index in range(3)] == list(ORDERED)
    assert model.support_memory.shot_counts == {"dot": 2, "bar": 2}
    assert {"AP", "bAP", "class_agnostic_AP50", "AP_dot", "AP_bar"} <= set(outcome.measurement.scores)
    assert "nAP" not in outcome.measurement.scores
    assert "AP_kite" not in outcome.measurement.scores
    assert outcome.measurement.facts == {"num_ways": 2, "num_shots": 2}
    assert outcome.measurement.num_rows == 4


def test_base_training_fits_the_centers_of_distillation(base):
    levels = base[1].result.model.base_class_centers.get_levels()

    assert all(level.abs().sum(1).gt(0).all() for level in levels)


def test_a_saved_model_has_its_support(base):
    loaded = RefTForFewShotInstanceSegmentation.from_pretrained(base[0])
    memory, expected = loaded.support_memory, base[1].result.model.support_memory

    assert memory.class_names == ["dot", "bar"]
    assert torch.equal(memory.prototypes, expected.prototypes)


def test_novel_instances_are_no_targets_in_base_training(folder, tmp_path):
    arguments = build_arguments(folder, tmp_path)
    splits = reft.load_data(arguments)

    data = reft.build_train_data(arguments, splits, reft.build_processor(arguments))

    labels = [set(data.dataset[index]["class_labels"].tolist()) for index in range(len(data.dataset))]
    assert len(data.dataset) == 9
    assert set.union(*labels) == set(BASE_IDS)
    assert labels.count(set()) == 3


def test_images_with_novel_instances_can_be_dropped(folder, tmp_path):
    arguments = build_arguments(folder, tmp_path, drop_novel_images=True)
    splits = reft.load_data(arguments)

    assert len(reft.build_train_data(arguments, splits, reft.build_processor(arguments)).dataset) == 6


@pytest.mark.parametrize(
    ("stage", "classes", "memory"),
    [("fsis", {2}, ["kite"]), ("gfsis", {0, 1, 2}, ["dot", "bar", "kite"]), ("ifsis", {2}, ["dot", "bar", "kite"])],
)
def test_later_stages_see_the_shots_alone(folder, base, tmp_path, stage, classes, memory):
    arguments = build_arguments(folder, tmp_path / "run", stage=stage, pretrained=str(base[0]))
    splits = reft.load_data(arguments)
    shots = reft.find_shots(arguments, splits)
    data = reft.build_train_data(arguments, splits, reft.build_processor(arguments))
    targets = [label for index in range(len(data.dataset)) for label in data.dataset[index]["class_labels"].tolist()]

    outcome = reft.run(arguments)

    assert all(len(ids) == 2 for ids in shots.values())
    assert set(targets) == classes
    assert len(targets) == 2 * len(classes)
    assert outcome.result.model.support_memory.class_names == memory
    assert next(iter(outcome.measurement.scores)) == "nAP"
    assert {"nAP", "bAP", "AP", "AP_kite", "AP_dot"} <= set(outcome.measurement.scores)


@pytest.mark.parametrize(
    ("stage", "frozen", "trained"),
    [
        ("fsis", "model.pixel_level_module.encoder.", "model.transformer_module."),
        ("ifsis", "model.transformer_module.", "model.pixel_level_module.decoder.input_projections."),
    ],
)
def test_stages_freeze_their_part(folder, base, tmp_path, stage, frozen, trained):
    outcome = run_stage(folder, base, tmp_path, stage, episode_shots=2)

    changed = find_changed(outcome.result.model, base[0])
    assert not any(name.startswith(frozen) for name in changed), "not even statistics"
    assert any(name.startswith(trained) for name in changed)
    assert any("feature_reference" in name for name in changed)


def test_everything_can_be_trained(folder, base, tmp_path):
    outcome = run_stage(folder, base, tmp_path, "fsis", freeze="nothing")

    changed = find_changed(outcome.result.model, base[0])
    assert any(name.startswith("model.pixel_level_module.encoder.") for name in changed)


def test_without_support_it_is_mask2former(folder, tmp_path):
    outcome = reft.run(build_arguments(folder, tmp_path, use_support=False))

    model = outcome.result.model
    assert not [name for name in model.state_dict() if "_reference." in name]
    assert model.support_memory is None
    assert outcome.measurement.facts == {}


def test_distillation_adds_its_terms(folder, base, tmp_path):
    for distill in (True, False):
        run_stage(folder, base, tmp_path / str(distill), "ifsis", distill=distill)
        line = json.loads((tmp_path / str(distill) / "run" / "train_log.jsonl").read_text().splitlines()[0])
        assert ("loss_kd_feature" in line) == ("loss_kd_class" in line) == distill


def test_a_linear_head_gets_new_rows(folder, base, tmp_path):
    arguments = build_arguments(folder, tmp_path, stage="fsis", pretrained=str(base[0]))
    old = base[1].result.model.class_predictor

    model = reft.build_model(arguments, reft.load_data(arguments), reft.build_processor(arguments))

    kept = [0, 1, 3]
    assert torch.equal(model.class_predictor.weight[kept], old.weight[kept])
    assert not torch.equal(model.class_predictor.weight[2], old.weight[2])
    assert model.class_predictor.bias[2].item() == pytest.approx(old.bias[:2].mean().item())


def test_a_cosine_head_gets_the_prototypes_of_the_shots(folder, base, tmp_path):
    arguments = build_arguments(folder, tmp_path, stage="fsis", pretrained=str(base[0]))
    arguments.config = {"classifier": "cosine"}
    splits, processor = reft.load_data(arguments), reft.build_processor(arguments)

    model = reft.build_model(arguments, splits, processor)

    shots = reft.few_shot_instance_segmentation.collect_shots(splits.shots, reft.find_shots(arguments, splits))
    prototype = model.register_support(shots, processor=processor).prototypes[0]
    expected = torch.nn.functional.normalize(prototype, dim=0)
    torch.testing.assert_close(model.class_predictor.weight[2], expected, rtol=1e-5, atol=1e-6)


def test_a_prototype_head_is_measured_without_training(folder, base, tmp_path):
    prototype = build_arguments(folder, tmp_path / "base", pretrained=str(base[0]), config={"classifier": "prototype"})
    outcome = reft.run(prototype)
    outcome.result.model.save_pretrained(tmp_path / "model")
    outcome.processor.save_pretrained(tmp_path / "model")
    arguments = build_arguments(folder, tmp_path / "run", stage="gfsis", pretrained=str(tmp_path / "model"))
    splits, processor = reft.load_data(arguments), reft.build_processor(arguments)

    scores = [
        reft.measure_without_training(arguments, splits, processor, is_shuffled=shuffled).scores
        for shuffled in (False, True)
    ]

    assert "nAP" in scores[0]
    assert scores[0]["class_agnostic_AP50"] == pytest.approx(scores[1]["class_agnostic_AP50"], abs=0.2)


def test_support_crops_are_those_of_the_base_model(folder, base, tmp_path):
    arguments = build_arguments(folder, tmp_path, stage="fsis", pretrained=str(base[0]))

    processor = reft.build_processor(arguments)

    assert processor.image_processor.support_size == SUPPORT_SIZE
    assert processor.image_processor.size == {"height": HEIGHT, "width": WIDTH}


@pytest.mark.parametrize(
    ("num_shots", "batch_size", "steps"), [(2, 3, 200), (3, 1, 200), (3, 0.25, 600)], ids=["least", "few", "many"]
)
def test_length_follows_the_shots(folder, base, tmp_path, num_shots, batch_size, steps):
    splits = reft.load_data(build_arguments(folder, tmp_path))
    arguments = build_arguments(
        folder, tmp_path, stage="fsis", pretrained=str(base[0]), max_steps=None, num_shots=num_shots
    )
    arguments.per_device_train_batch_size = batch_size

    assert reft.set_length(arguments, splits).max_steps == steps


def test_a_killed_run_ends_with_the_same_bits(folder, base, tmp_path):
    whole = build_arguments(folder, tmp_path / "whole", max_steps=4, save_steps=2)
    expected = reft.run(whole).result.model.state_dict()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")

    model = reft.run(build_arguments(folder, tmp_path / "resumed", max_steps=4, save_steps=2)).result.model

    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_model_folder_is_measured_again(folder, base, tmp_path):
    arguments = build_arguments(folder, tmp_path)
    outcome = base[1]
    card = CardRun(**{**vars(arguments), "card_title": "mine", "card_license": "mit", "card_summary": "Mine."})
    path = save_run(
        card, outcome.result, outcome.processor, outcome.measurement, task=reft.TASK, dataset=str(folder),
        split="test", minutes=0.1, images=outcome.images,
    )  # fmt: skip

    model, processor = get_task(reft.TASK).load(path)
    again = evaluate_model(model, processor, reft.load_data(arguments).evaluation, reft.TASK, batch_size=2)

    assert again.scores == pytest.approx(outcome.measurement.scores)
    assert "few-shot-instance-segmentation" in (path / "README.md").read_text()
    assert (path / "support_memory.safetensors").is_file()
    answer = pipeline(reft.TASK, model=str(path))(str(folder / "test" / "0.png"), threshold=0.0)
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"init": "coco"}, "`init` must not have seen the novel classes; 'coco' was trained on all"),
        ({"init": "facebook/mask2former-swin-tiny-coco-instance"}, "must not have seen the novel classes"),
        ({"stage": "fsis"}, "`pretrained` must be the base model for the stage 'fsis'"),
        ({"init": "x", "pretrained": "y"}, "`init` must come alone"),
        ({"num_shots": 0}, "`num_shots` must be at least 1"),
        ({"config": {"num_querys": 3}}, "Did you mean `num_queries`"),
        ({"config": {"base_label_ids": [0]}}, "`config` must not hold 'base_label_ids'"),
        ({"augmentation": {"crop": 3}}, "augmentation"),
    ],
)
def test_refuses_arguments(folder, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        build_arguments(folder, tmp_path, **overrides)


def test_leaking_weights_can_be_allowed(folder, tmp_path):
    assert build_arguments(folder, tmp_path, init="coco", allow_leak=True).init == "coco"


@pytest.mark.parametrize(
    ("novel", "message"), [(["lion"], "'lion' is none"), (list(ORDERED), "must leave a base class")]
)
def test_refuses_novel_classes(folder, tmp_path, novel, message):
    with pytest.raises(ValueError, match=message):
        reft.load_data(build_arguments(folder, tmp_path, novel_classes=novel))


def test_refuses_a_later_stage_without_novel_classes(folder, base, tmp_path):
    arguments = build_arguments(folder, tmp_path, stage="fsis", pretrained=str(base[0]), novel_classes=[])

    with pytest.raises(ValueError, match="`novel_classes` must name the novel classes"):
        reft.load_data(arguments)


def test_refuses_novel_classes_that_the_base_model_knows(folder, base, tmp_path):
    known = {"stage": "fsis", "pretrained": str(base[0]), "novel_classes": ["kite", "dot"]}

    with pytest.raises(ValueError, match="must be new to the model .* it has learned 'dot' as a base class"):
        reft.run(build_arguments(folder, tmp_path, **known))
    reft.run(build_arguments(folder, tmp_path, **known, allow_leak=True, max_steps=1))


def test_refuses_to_measure_novel_classes_where_there_are_none(folder, base, tmp_path):
    arguments = build_arguments(folder, tmp_path, stage="fsis", pretrained=str(base[0]))
    splits = reft.load_data(arguments)
    without = splits.evaluation.filter(lambda row: 2 not in [one["label"] for one in row["annotations"]])

    with pytest.raises(ValueError, match="must have an instance in the measured split, for nAP; got none of kite"):
        reft.run(arguments, dataclasses.replace(splits, evaluation=without))


def test_refuses_more_shots_than_there_are(folder, base, tmp_path):
    arguments = build_arguments(folder, tmp_path, stage="fsis", pretrained=str(base[0]), num_shots=30)

    with pytest.raises(ValueError, match="`num_shots` of class 'kite' must be one of 1, 2, 3; got 30"):
        reft.run(arguments)


@pytest.mark.parametrize("split", ["test", "monitor"])
def test_refuses_an_image_of_another_size_than_its_annotations(folder, tmp_path, monkeypatch, split):
    copy = shutil.copytree(folder, tmp_path / "data")
    shutil.copytree(copy / "test", copy / "monitor")
    shutil.copy(copy / "test.json", copy / "monitor.json")
    with Image.open(copy / split / "2.png") as image:
        image.resize((30, 40)).save(copy / split / "2.png")
    monkeypatch.setattr(reft, "train_model", None)
    arguments = build_arguments(copy, tmp_path / "run", monitor_split="monitor")

    where = {"test": "the measured split", "monitor": "the monitored split"}[split]
    message = (
        rf"`segmentation` of annotation \d+ of {where} must have the size of its image, \(40, 30\); got \(64, 96\)"
    )
    with pytest.raises(ValueError, match=message):
        reft.run(arguments)


def test_an_image_may_be_turned_by_its_orientation(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "data")
    with Image.open(copy / "test" / "0.png") as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(copy / "test" / "0.png", exif=exif)
    arguments = build_arguments(copy, tmp_path / "run")

    reft.check_data(arguments, reft.load_data(arguments), reft.build_processor(arguments))


def test_refuses_a_seed_that_the_split_file_lacks(folder, tmp_path):
    splits = reft.load_data(build_arguments(folder, tmp_path))
    reft.load_few_shot_split(build_arguments(folder, tmp_path), splits).save(tmp_path / "shots.json")
    arguments = build_arguments(folder, tmp_path, few_shot_split=str(tmp_path / "shots.json"), shot_seed=7)

    with pytest.raises(ValueError, match="`seed` must be one of 0; got 7"):
        reft.find_shots(arguments, splits)
