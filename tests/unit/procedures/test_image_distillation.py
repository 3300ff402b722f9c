"""Distillation of image classifiers: what a teacher sees, the order of its classes, the loss, refusals."""

import json

import pytest
import torch
from torchvision.transforms.functional import to_pil_image
from transformers import (
    ConvNextImageProcessor,
    EfficientNetImageProcessor,
    MobileViTImageProcessor,
    TimmWrapperImageProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from decahub import EmoConfig, EmoForImageClassification, EmoImageProcessor
from decahub.procedures import emo
from decahub.procedures.image_distillation import (
    Distillation,
    DistillationStep,
    ImageTeacher,
    compute_imitation_loss,
)


NAMES = ["ant", "bee", "cow"]
SIZE = {"height": 32, "width": 32}


def name_classes(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def build_vit(names=NAMES):
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=64, patch_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, **name_classes(names),
    )  # fmt: skip
    return ViTForImageClassification(config).eval()


def build_teacher(names=NAMES, size=64):
    teacher_processor = ViTImageProcessor(size={"height": size, "width": size}, image_mean=[0.5] * 3)
    return ImageTeacher(build_vit(names), teacher_processor, EmoImageProcessor(size=SIZE, do_center_crop=False), NAMES)


def build_student():
    torch.manual_seed(1)
    config = EmoConfig.from_variant("1m", depths=[1, 1, 1, 1], stem_stride=1, **name_classes(NAMES))
    return EmoForImageClassification(config)


TIMM = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": 0.9}
SQUARE = {"height": 64, "width": 64}


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(size=SQUARE, image_mean=[0.5] * 3, image_std=[0.2] * 3),
        ViTImageProcessor(size=SQUARE, resample=0, do_normalize=False),
        ViTImageProcessor(size=SQUARE, do_rescale=False, do_normalize=False),
        MobileViTImageProcessor(size={"shortest_edge": 70}, crop_size=SQUARE),
        EfficientNetImageProcessor(size=SQUARE, rescale_offset=True, include_top=True),
        ConvNextImageProcessor(size={"shortest_edge": 64}),
        TimmWrapperImageProcessor(pretrained_cfg=TIMM),
    ],
    ids=["vit", "nearest", "bytes", "bgr, cropped", "offset", "crop_pct", "timm"],
)
def test_teacher_sees_the_image_as_its_processor_gives_it(processor):
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    student_processor = EmoImageProcessor(size=SIZE, do_center_crop=False)
    teacher = ImageTeacher(build_vit(), processor, student_processor, NAMES)

    given = teacher.prepare(student_processor(image, return_tensors="pt")["pixel_values"])

    expected = processor(to_pil_image(image), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(given, expected, atol=0.05, rtol=0.01)


def test_teacher_takes_images_of_another_size():
    assert build_teacher()(torch.randn(2, 3, 32, 32)).shape == (2, 3)


def test_classes_come_in_the_order_of_the_student():
    images = torch.randn(2, 3, 32, 32)

    logits, turned = (build_teacher(names)(images) for names in (NAMES, NAMES[::-1]))

    torch.testing.assert_close(turned, logits.flip(1))


def test_refuses_other_classes():
    with pytest.raises(ValueError, match="`teacher` must have the classes .*, ant, bee, cow; got ant, bee, dog"):
        build_teacher(["ant", "bee", "dog"])


def test_loss_is_the_formula():
    logits, teacher_logits = torch.randn(2, 5, 3)
    ours, theirs = (logits / 2).softmax(-1), (teacher_logits / 2).softmax(-1)

    loss = compute_imitation_loss(logits, teacher_logits, 2.0)

    expected = 4 * (theirs * (theirs.log() - ours.log())).sum(-1).mean()
    torch.testing.assert_close(loss, expected)
    assert compute_imitation_loss(logits, logits, 2.0).abs() < 1e-6


def test_step_weighs_labels_and_teacher_and_leaves_the_teacher_alone():
    student, teacher = build_student(), build_teacher()
    batch = {"pixel_values": torch.randn(4, 3, 32, 32), "labels": torch.tensor([0, 1, 2, 0])}
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}

    terms = DistillationStep(teacher, Distillation(weight=0.25, temperature=3.0))(student, batch)
    terms["loss"].backward()

    expected = 0.75 * terms["label_loss"] + 0.25 * terms["imitation_loss"]
    torch.testing.assert_close(terms["loss"].detach(), expected)
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())


def test_a_student_learns_to_agree():
    student, teacher = build_student().train(), build_teacher()
    images = torch.randn(8, 3, 32, 32)
    step = DistillationStep(teacher, Distillation(weight=1.0, temperature=1.0))
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    losses = []
    for _ in range(15):
        loss = step(student, {"pixel_values": images, "labels": torch.zeros(8, dtype=torch.long)})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"distillation": {"weight": 0.5}}, "`distillation` must be left out without a `teacher`"),
        (
            {"teacher": "x", "distillation": {"weight": 0}},
            r"weight` must be a number in \(0, 1\]; got 0",
        ),
        (
            {"teacher": "x", "distillation": {"temperature": 0.5}},
            r"temperature` must be a number in \[1, 100\]",
        ),
        ({"teacher": "x", "distillation": {"temperature": float("inf")}}, "must be a number in .*; got inf"),
        ({"teacher": "x", "distillation": {"weight": None}}, "must be a number in .*; got None"),
        ({"teacher": "x", "distillation": {"alpha": 1}}, "`alpha` in `distillation` is not an option"),
        (
            {"teacher": "x", "task": "semantic-segmentation"},
            "`teacher` must come with the task 'image-",
        ),
    ],
    ids=["no teacher", "weight", "temperature", "infinite", "none", "unknown", "task"],
)
def test_arguments_refuse(fields, message):
    with pytest.raises(ValueError, match=message):
        emo.Arguments(dataset="sklearn_digits", **fields)


def test_from_pretrained_refuses_what_is_not_whole(tmp_path):
    with pytest.raises(FileNotFoundError, match="`teacher` must be a model folder or a Hub id"):
        ImageTeacher.from_pretrained(str(tmp_path / "none"), EmoImageProcessor(), NAMES)

    build_vit().vit.save_pretrained(tmp_path / "bare")
    ViTImageProcessor().save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="missing tensors"):
        ImageTeacher.from_pretrained(str(tmp_path / "bare"), EmoImageProcessor(), NAMES)


def test_a_teacher_with_code_of_its_own_is_refused(tmp_path):
    build_vit().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')")

    with pytest.raises(ValueError, match="it has code of its own, which is not run"):
        ImageTeacher.from_pretrained(str(tmp_path), EmoImageProcessor(), NAMES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_teacher_on_the_disk_in_half_precision(dtype, tmp_path):
    build_vit().to(dtype).save_pretrained(tmp_path)
    ViTImageProcessor(size=SQUARE).save_pretrained(tmp_path)

    teacher = ImageTeacher.from_pretrained(str(tmp_path), EmoImageProcessor(size=SIZE, do_center_crop=False), NAMES)

    assert teacher(torch.randn(2, 3, 32, 32)).dtype == torch.float32


def test_refuses_a_teacher_of_other_channels():
    config = ViTConfig(
        num_channels=1, image_size=64, patch_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, **name_classes(NAMES),
    )  # fmt: skip
    processor = ViTImageProcessor(size=SQUARE)
    with pytest.raises(ValueError, match=r"`teacher` must answer for images of shape \(3, 32, 32\); it raises"):
        ImageTeacher(
            ViTForImageClassification(config), processor, EmoImageProcessor(size=SIZE, do_center_crop=False), NAMES
        )


def test_refuses_a_teacher_whose_classes_have_gaps():
    model = build_vit()
    model.config.id2label = {0: "ant", 2: "bee", 4: "cow"}
    with pytest.raises(ValueError, match="must have the classes of the dataset, ant, bee, cow; got ant, class 1"):
        ImageTeacher(model, ViTImageProcessor(size=SQUARE), EmoImageProcessor(size=SIZE, do_center_crop=False), NAMES)


def test_a_run_with_a_teacher(tmp_path):
    names = [str(number) for number in range(10)]
    build_vit(names).save_pretrained(tmp_path / "teacher")
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "teacher")

    outcome = emo.run(
        emo.Arguments(
            dataset="sklearn_digits", teacher=str(tmp_path / "teacher"), distillation={"temperature": 1.5},
            config={"depths": [1, 1, 1, 1], "stem_stride": 1}, processor={"size": SIZE, "do_center_crop": False},
            max_steps=2, per_device_train_batch_size=4, max_eval_samples=10, logging_steps=1,
            output_dir=str(tmp_path / "run"),
        )
    )  # fmt: skip

    assert 0 <= outcome.measurement.scores["accuracy"] <= 1
    assert "imitation_loss" in (tmp_path / "run" / "train_log.jsonl").read_text()
