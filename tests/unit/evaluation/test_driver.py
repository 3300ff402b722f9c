"""The evaluation driver: scores against slow references, no trace left on model and random state, clear errors."""

import copy
import math
import shutil

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from decahub import EmoConfig, EmoForImageClassification, EmoForSemanticSegmentation, EmoImageProcessor
from decahub.data import DATASETS, load_dataset
from decahub.data.quality_splits import FORMAT, SPLITS_FILE, save_splits
from decahub.data.sampling import sample_rows
from decahub.evaluation import evaluate_folder, evaluate_model, write_evaluation
from decahub.evaluation.folder import load_folder_data
from decahub.tasks.image_classification import ImageClassification
from decahub.tasks.task import fuse_for_inference


NAMES = ["ant", "bee", "cow", "dog", "eel", "fox", "gnu"]


def build_config(names=NAMES):
    return EmoConfig(
        depths=[1, 1, 2, 2],
        hidden_sizes=[8, 12, 16, 20],
        stem_hidden_size=4,
        head_dims=[4, 4, 8, 10],
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        decode_hidden_size=6,
        auxiliary_hidden_size=6,
    )


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    model = EmoForImageClassification(build_config())
    # Batch statistics of noise, so that the classes of different images differ.
    with torch.no_grad():
        model(torch.randn(8, 3, 40, 48))
    return model.eval()


@pytest.fixture
def segmenter():
    torch.manual_seed(0)
    return EmoForSemanticSegmentation(build_config()).eval()


@pytest.fixture
def processor():
    return EmoImageProcessor(size={"height": 40, "width": 48}, do_center_crop=False)


def make_images(count, size=(30, 26)):
    generator = np.random.default_rng(11)
    return [Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


@pytest.fixture
def images():
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    labels = [index % len(NAMES) for index in range(9)]
    return datasets.Dataset.from_dict({"image": make_images(9), "label": labels}, features=features)


@pytest.fixture
def scenes():
    """Two annotations of a size that is neither that of the model's input nor that of its output."""
    generator = np.random.default_rng(12)
    masks = generator.choice([*range(len(NAMES)), 255], size=(2, 26, 30)).astype(np.uint8)
    features = datasets.Features(image=datasets.Image(), annotation=datasets.Image())
    rows = {"image": make_images(2), "annotation": [Image.fromarray(mask) for mask in masks]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_classification_scores_equal_a_plain_loop(classifier, processor, images):
    ranks = []
    for row in images:
        with torch.no_grad():
            logits = classifier(**processor(row["image"], return_tensors="pt")).logits[0]
        ranks.append(int((logits > logits[row["label"]]).sum()))

    scores = evaluate_model(classifier, processor, images, "image-classification", batch_size=4).scores

    assert scores == {
        "accuracy": np.mean([rank < 1 for rank in ranks]),
        "top_5_accuracy": np.mean([rank < 5 for rank in ranks]),
    }
    assert 0 < scores["top_5_accuracy"] < 1  # else the comparison would show little


def test_segmentation_scores_equal_a_plain_loop(segmenter, processor, scenes):
    confusion = np.zeros((7, 7))
    for row in scenes:
        with torch.no_grad():
            logits = segmenter(**processor(row["image"], return_tensors="pt")).logits
        logits = torch.nn.functional.interpolate(logits, (26, 30), mode="bilinear", align_corners=False)
        for label, guess in zip(np.array(row["annotation"]).ravel(), logits[0].argmax(0).flatten(), strict=True):
            if label != 255:
                confusion[label, guess] += 1
    correct, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)

    scores = evaluate_model(segmenter, processor, scenes, "semantic-segmentation", label_names=NAMES).scores

    assert scores["mean_iou"] == pytest.approx(np.mean(correct / union))
    assert scores["overall_accuracy"] == pytest.approx(correct.sum() / confusion.sum())
    assert scores["mean_accuracy"] == pytest.approx(np.mean(correct / confusion.sum(1)))
    assert [scores[f"iou_{name}"] for name in NAMES] == pytest.approx(list(correct / union))


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_fused_copy_gives_the_outputs_of_the_model(kind, processor, request):
    model = request.getfixturevalue(kind)
    before = copy.deepcopy(model.state_dict())
    inputs = processor(make_images(9), return_tensors="pt")

    fused = fuse_for_inference(model)
    with torch.no_grad():
        expected, actual = model(**inputs).logits, fused(**inputs).logits

    assert fused is not model
    torch.testing.assert_close(actual, expected, atol=1e-6 * float(expected.abs().max()), rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_measures_a_fused_copy(classifier, processor, images, monkeypatch):
    called = []
    predict = ImageClassification.predict

    def spy(self, model, processor, batch):
        called.append(model)
        return predict(self, model, processor, batch)

    monkeypatch.setattr(ImageClassification, "predict", spy)

    evaluate_model(classifier, processor, images, "image-classification", batch_size=5)

    assert [any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()) for model in called] == [
        False,
        False,
    ]
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in classifier.modules())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: model.bfloat16(),
        lambda model: setattr(model, "_hf_peft_config_loaded", True),
        lambda model: setattr(model, "is_quantized", True),
        lambda model: setattr(model, "hf_device_map", {"": "cpu"}),
    ],
    ids=["half precision", "adapters", "quantized", "offloaded"],
)
def test_models_that_cannot_be_folded_are_measured_as_they_are(classifier, spoil):
    spoil(classifier)

    assert fuse_for_inference(classifier) is classifier


def test_models_without_a_fused_form_are_measured_as_they_are():
    model = ViTForImageClassification(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))

    assert fuse_for_inference(model) is model


def test_absent_class_has_no_score(segmenter, processor, scenes):
    blank = {"annotation": Image.new("L", (30, 26), 2)}
    segmenter.decode_head.classifier.bias.data[2] = 100.0  # predicts class 2 everywhere

    scores = evaluate_model(segmenter, processor, scenes.map(lambda row: blank), "semantic-segmentation").scores

    assert {name for name in scores if name.startswith("iou_")} == {"iou_cow"}
    assert all(math.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_batch_size_does_not_matter(classifier, processor, images, batch_size):
    expected = evaluate_model(classifier, processor, images, "image-classification", batch_size=3).scores

    scores = evaluate_model(classifier, processor, images, "image-classification", batch_size=batch_size).scores

    assert scores == expected


def test_limit_takes_a_balanced_sample(classifier, processor, images):
    by_class = images.sort("label")  # as folders of images are

    measurement = evaluate_model(classifier, processor, by_class, "image-classification", limit=7)

    assert measurement.num_rows == 7
    assert sorted(sample_rows(by_class, 7)["label"]) == list(range(7))
    expected = evaluate_model(classifier, processor, sample_rows(by_class, 7), "image-classification")
    assert measurement == expected


def test_limit_may_exceed_the_rows(classifier, processor, images):
    expected = evaluate_model(classifier, processor, images, "image-classification").scores

    assert evaluate_model(classifier, processor, images, "image-classification", limit=99).scores == expected


def test_few_classes_have_no_top_5(processor, images):
    model = EmoForImageClassification(build_config(["a", "b"]))
    rows = images.cast_column("label", datasets.Value("int64")).map(lambda row: {"label": 1})
    rows = rows.cast_column("label", datasets.ClassLabel(names=["a", "b"]))

    assert evaluate_model(model, processor, rows, "image-classification").scores.keys() == {"accuracy"}


def test_leaves_the_modes_of_all_modules_alone(classifier, processor, images):
    classifier.train()
    classifier.emo.stem.eval()  # a frozen part
    before = [module.training for module in classifier.modules()]
    statistics = {name: value.clone() for name, value in classifier.named_buffers()}

    evaluate_model(classifier, processor, images, "image-classification")

    assert [module.training for module in classifier.modules()] == before
    assert all(torch.equal(value, statistics[name]) for name, value in classifier.named_buffers())


def test_gives_the_modes_back_after_an_error(classifier, images):
    classifier.train()

    def broken_processor(*args, **kwargs):
        raise RuntimeError("no pixels")

    with pytest.raises(RuntimeError, match="no pixels"):
        evaluate_model(classifier, broken_processor, images, "image-classification")

    assert all(module.training for module in classifier.modules())


def test_leaves_the_random_state_alone(classifier, processor, images):
    torch.manual_seed(5)
    expected = torch.rand(3)

    torch.manual_seed(5)
    evaluate_model(classifier, processor, images, "image-classification")

    assert torch.equal(torch.rand(3), expected)


def test_model_in_half_precision_is_given_its_own(classifier, processor, images):
    scores = evaluate_model(classifier.bfloat16(), processor, images, "image-classification").scores

    assert 0 <= scores["accuracy"] <= 1


def test_model_that_was_never_told_its_classes_is_measured(processor, images):
    config = build_config()
    config.id2label = {index: f"LABEL_{index}" for index in range(len(NAMES))}

    scores = evaluate_model(EmoForImageClassification(config), processor, images, "image-classification").scores

    assert "accuracy" in scores


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (NAMES[:5], "as many classes as the dataset, 7; got 5"),
        ([*NAMES[:5], "gnu", "fox"], "class 5 is 'fox' in the dataset, got 'gnu'"),
        ([*NAMES[:6], "elk"], "class 6 is 'gnu' in the dataset, got 'elk'"),
    ],
    ids=["number", "order", "name"],
)
def test_refuses_a_model_with_other_classes(processor, images, names, message):
    model = EmoForImageClassification(build_config(names))

    with pytest.raises(ValueError, match=message):
        evaluate_model(model, processor, images, "image-classification")


def test_refuses_given_names_that_are_not_the_models(segmenter, processor, scenes):
    with pytest.raises(ValueError, match="class 0 is 'sky' in the dataset, got 'ant'"):
        evaluate_model(segmenter, processor, scenes, "semantic-segmentation", label_names=["sky", *NAMES[1:]])


def test_refuses_annotation_out_of_range(segmenter, processor, scenes):
    rows = scenes.map(lambda row: {"annotation": Image.new("L", (30, 26), 7)})

    with pytest.raises(ValueError, match=r"must hold ids in \[0, 7\) or 255 \(ignored\), for 7 classes; got 7"):
        evaluate_model(segmenter, processor, rows, "semantic-segmentation")


def test_refuses_a_model_that_diverged(classifier, processor, images):
    classifier.classifier.bias.data[3] = math.nan

    with pytest.raises(ValueError, match="`predictions` must be finite"):
        evaluate_model(classifier, processor, images, "image-classification")


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        ({"task": "image-clasification"}, ValueError, "`task` must be one of image-classification, image-feature"),
        ({"limit": 0}, ValueError, "`limit` must be at least 1, or None for all; got 0"),
    ],
    ids=["task", "limit"],
)
def test_refuses_bad_arguments(classifier, processor, images, overrides, kind, message):
    with pytest.raises(kind, match=message):
        evaluate_model(classifier, processor, images, **({"task": "image-classification"} | overrides))


def test_refuses_an_empty_data_set(classifier, processor, images):
    with pytest.raises(ValueError, match="`dataset` must hold at least one row; got none"):
        evaluate_model(classifier, processor, images.select([]), "image-classification")


def test_refuses_all_splits_at_once(classifier, processor, images):
    with pytest.raises(TypeError, match="`dataset` must be one split; got a dict of train, test"):
        evaluate_model(classifier, processor, datasets.DatasetDict(train=images, test=images), "image-classification")


@pytest.fixture(scope="module")
def measured_digits(tmp_path_factory):
    """A model folder whose `evaluation.json` says what the model gives on scikit-learn's digits."""
    torch.manual_seed(0)
    model = EmoForImageClassification(build_config(DATASETS["sklearn_digits"].label_names))
    processor = EmoImageProcessor(size={"height": 16, "width": 16}, do_center_crop=False)
    rows = load_dataset("sklearn_digits")["test"]
    scores = evaluate_model(model, processor, rows, "image-classification").scores
    folder = tmp_path_factory.mktemp("digits")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    facts = {"task": "image-classification", "dataset": "sklearn_digits", "split": "test"}
    write_evaluation(folder, scores, **facts, num_rows=len(rows), minutes=0.1)
    return folder, scores


@pytest.fixture
def digits_folder(measured_digits, tmp_path):
    """A copy of it, to be changed at will."""
    folder, scores = measured_digits
    return shutil.copytree(folder, tmp_path / "digits"), scores


def test_folder_gives_its_published_scores(digits_folder):
    folder, scores = digits_folder

    evaluation = evaluate_folder(folder)

    assert {row["metric"]: row["value"] for row in evaluation["figures"]} == scores
    assert evaluation["dataset"]["num_rows"] == 360


def test_folder_can_be_measured_on_another_split(digits_folder):
    folder, _ = digits_folder

    evaluation = evaluate_folder(folder, dataset="sklearn_digits", split="train", limit=20)

    assert (evaluation["dataset"]["split"], evaluation["figures"][0]["n"]) == ("train", 20)


def test_folder_without_evaluation_needs_a_data_set(digits_folder):
    folder, scores = digits_folder
    (folder / "evaluation.json").unlink()

    with pytest.raises(FileNotFoundError, match=r"`evaluation\.json` was not found; tried"):
        evaluate_folder(folder)

    assert evaluate_folder(folder, dataset="sklearn_digits")["figures"][0]["value"] == scores["accuracy"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"split": "validation"}, "`split` of 'sklearn_digits' must be one of train, test; got 'validation'"),
        ({"dataset": "camvid"}, "`family` of 'camvid' must be 'semantic-segmentation'; got 'image-classification'"),
    ],
)
def test_folder_refuses(digits_folder, overrides, message):
    with pytest.raises(ValueError, match=message):
        evaluate_folder(digits_folder[0], **overrides)


def test_auto_class_loads_the_folder(digits_folder):
    model = AutoModelForImageClassification.from_pretrained(digits_folder[0])

    assert isinstance(model, EmoForImageClassification)


@pytest.fixture
def photos(tmp_path):
    """Two photos with the splits `train` and `test`, and an empty model folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (5, 4)).save(folder / name)
    (folder / "scores.csv").write_text("image,score,split\na.png,1,train\nb.png,2,test\n")
    (tmp_path / "model").mkdir()
    return {"folder": tmp_path / "model", "dataset": folder, "task": "image-quality-assessment"}


def test_splits_of_another_dataset_are_not_used(photos, caplog):
    record = {"train": {"references": ["x"], "num_images": 1}, "test": {"references": ["y"], "num_images": 1}}
    save_splits({"format": FORMAT, "splits": record}, photos["folder"] / SPLITS_FILE)

    data = load_folder_data(**photos)

    assert data.rows["name"][:] == ["b.png"]
    assert "Measuring the split 'test' of the dataset, not that of reference_splits.json: each ref" in caplog.text


def test_damaged_splits_are_refused(photos):
    (photos["folder"] / SPLITS_FILE).write_text("{")

    with pytest.raises(ValueError, match=r"reference_splits\.json must be a file of splits that a run wrote"):
        load_folder_data(**photos)
