"""EMO in transformers' own pipelines, from a local folder, and as the backbone of other libraries' models."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSemanticSegmentation,
    DetrConfig,
    DetrForObjectDetection,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    pipeline,
)

from decahub import (
    EmoBackbone,
    EmoConfig,
    EmoForImageClassification,
    EmoForSemanticSegmentation,
    EmoImageProcessor,
    EmoModel,
)
from tests.tiny.emo import tiny_config


ATOL_BATCH = 1e-5  # batched and single matrix products sum in another order
NAMES = ["cymbal", "hat", "kick", "ride", "rim", "snare", "tom"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One saved folder for each kind of model, as a user would have it on disk."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    folders = {}
    for model_class in (EmoModel, EmoForImageClassification, EmoForSemanticSegmentation):
        folder = folders[model_class] = str(tmp_path_factory.mktemp(model_class.__name__))
        model_class(tiny_config(num_labels=len(NAMES), **labels)).save_pretrained(folder)
        EmoImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((50, 70), (64, 41))]


def test_image_classification_names_the_classes_best_first(folders, images):
    classify = pipeline("image-classification", model=folders[EmoForImageClassification])

    answers = classify(images[0], top_k=len(NAMES))

    inputs = classify.image_processor(images[0], return_tensors="pt")
    probabilities = classify.model(**inputs).logits.softmax(1)[0]
    order = probabilities.argsort(descending=True).tolist()
    assert [answer["label"] for answer in answers] == [NAMES[index] for index in order]
    assert [answer["score"] for answer in answers] == pytest.approx(probabilities[order].tolist(), abs=ATOL_BATCH)
    json.dumps(answers)


def test_image_classification_takes_paths_lists_and_batches(folders, images, tmp_path):
    classify = pipeline("image-classification", model=folders[EmoForImageClassification])
    images[0].save(tmp_path / "image.png")

    single = classify(str(tmp_path / "image.png"))
    several = classify([*images, images[0]], batch_size=2)

    assert len(several) == 3
    for answers in (several[0], several[2]):
        assert [answer["label"] for answer in answers] == [answer["label"] for answer in single]
        scores = [answer["score"] for answer in single]
        assert [answer["score"] for answer in answers] == pytest.approx(scores, abs=ATOL_BATCH)


def test_image_segmentation_gives_masks_of_the_images_size(folders, images):
    segment = pipeline("image-segmentation", model=folders[EmoForSemanticSegmentation])
    segment.image_processor.do_center_crop = False  # a crop would be stretched over the whole image

    answers = segment(images[0], subtask="semantic")

    assert {answer["label"] for answer in answers} <= set(NAMES)
    masks = np.stack([np.array(answer["mask"]) for answer in answers])
    assert masks.shape[1:] == (50, 70)
    assert (np.count_nonzero(masks, axis=0) == 1).all()  # each pixel has one class


def test_image_feature_extraction_pools(folders, images):
    extract = pipeline("image-feature-extraction", model=folders[EmoModel])

    features = extract(images[0], pool=True, return_tensors=True)

    inputs = extract.image_processor(images[0], return_tensors="pt")
    torch.testing.assert_close(features, extract.model(**inputs).pooler_output, atol=0, rtol=0)


def test_pipeline_takes_objects(folders, images):
    model = EmoForImageClassification.from_pretrained(folders[EmoForImageClassification])
    processor = EmoImageProcessor.from_pretrained(folders[EmoForImageClassification])

    answers = pipeline("image-classification", model=model, image_processor=processor)(images[1])

    assert answers == pipeline("image-classification", model=folders[EmoForImageClassification])(images[1])


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, EmoModel),
        (AutoModelForImageClassification, EmoForImageClassification),
        (AutoModelForSemanticSegmentation, EmoForSemanticSegmentation),
    ],
)
def test_auto_classes_find_the_class(folders, auto_class, model_class):
    assert type(auto_class.from_pretrained(folders[model_class])) is model_class
    assert type(AutoConfig.from_pretrained(folders[model_class])) is EmoConfig


# As a backbone


def test_auto_backbone_builds_from_a_config():
    backbone = AutoBackbone.from_config(tiny_config(out_indices=[1, -1])).eval()

    feature_maps = backbone(torch.randn(2, 3, 65, 97)).feature_maps

    assert type(backbone) is EmoBackbone
    assert backbone.channels == [8, 28]
    assert [tuple(maps.shape) for maps in feature_maps] == [(2, 8, 17, 25), (2, 28, 3, 4)]


def test_backbone_of_a_classifier_folder_gives_the_stage_maps(folders):
    backbone = EmoBackbone.from_pretrained(folders[EmoForImageClassification], out_features=["stage2", "stage4"])
    classifier = EmoForImageClassification.from_pretrained(folders[EmoForImageClassification])
    pixel_values = torch.randn(2, 3, 65, 97)

    feature_maps = backbone(pixel_values).feature_maps

    hidden_states = classifier(pixel_values, output_hidden_states=True).hidden_states
    torch.testing.assert_close(feature_maps, (hidden_states[2], hidden_states[4]), atol=0, rtol=0)


def test_upernet_segments_with_emo_and_loads_back(tmp_path):
    config = UperNetConfig(
        backbone_config=tiny_config(out_features=["stage1", "stage2", "stage3", "stage4"]),
        hidden_size=8,
        auxiliary_channels=6,
        auxiliary_in_channels=16,
        num_labels=4,
    )
    model = UperNetForSemanticSegmentation(config).eval()
    pixel_values = torch.randn(2, 3, 64, 96)

    outputs = model(pixel_values, labels=torch.randint(4, (2, 64, 96)))
    model.save_pretrained(tmp_path)
    loaded = UperNetForSemanticSegmentation.from_pretrained(tmp_path)

    assert outputs.logits.shape == (2, 4, 64, 96)
    assert outputs.loss.isfinite()
    assert type(loaded.backbone) is EmoBackbone
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)


def test_detr_detects_with_emo():
    config = DetrConfig(
        backbone_config=tiny_config(out_features=["stage4"]),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=12,
        decoder_ffn_dim=12,
        num_queries=5,
        num_labels=4,
    )
    model = DetrForObjectDetection(config).train()

    outputs = model(torch.randn(2, 3, 64, 96))
    outputs.logits.sum().backward()

    assert outputs.pred_boxes.shape == (2, 5, 4)
    gradients = {name: p.grad for name, p in model.named_parameters() if "backbone" in name and "projection" in name}
    assert gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
