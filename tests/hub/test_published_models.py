"""Published models, loaded by their ids over HTTP, with decahub and in a process that cannot import it."""

import pytest
import torch
from PIL import Image

from decahub import EmoBackbone, EmoForImageClassification, EmoForSemanticSegmentation, EmoImageProcessor, EmoModel
from tests.hub.builders import LABELS


LOCAL_CLASSES = {
    "AutoConfig": "EmoConfig",
    "AutoModel": "EmoModel",
    "AutoBackbone": "EmoBackbone",
    "AutoImageProcessor": "EmoImageProcessor",
    "AutoImageProcessor with PIL": "EmoImageProcessorPil",
    "AutoModelForImageClassification": "EmoForImageClassification",
    "AutoModelForSemanticSegmentation": "EmoForSemanticSegmentation",
}


@pytest.fixture(params=["with decahub", "without decahub"])
def loaded(request):
    return request.getfixturevalue(f"loaded_{request.param.replace(' ', '_')}")


@pytest.fixture(scope="module")
def expected(classifier_folder, segmenter_folder, image):
    """The same tensors from the folders that were published, in this process."""
    inputs = EmoImageProcessor.from_pretrained(classifier_folder)(Image.open(image), return_tensors="pt")
    with torch.inference_mode():
        backbone = EmoBackbone.from_pretrained(classifier_folder, out_indices=(1, 3))
        return {
            "pixel_values": inputs["pixel_values"],
            "pooler_output": EmoModel.from_pretrained(classifier_folder)(**inputs).pooler_output,
            "feature_map": backbone(**inputs).feature_maps[1],
            "class logits": EmoForImageClassification.from_pretrained(classifier_folder)(**inputs).logits,
            "pixel logits": EmoForSemanticSegmentation.from_pretrained(segmenter_folder)(**inputs).logits,
        }


@pytest.mark.parametrize("auto_class", LOCAL_CLASSES)
def test_auto_class_finds_the_class(loaded, auto_class):
    assert loaded.facts["loaded"][auto_class]["class"] == LOCAL_CLASSES[auto_class]


@pytest.mark.parametrize("auto_class", LOCAL_CLASSES)
def test_code_comes_from_the_repository_only_without_decahub(loaded_with_decahub, loaded_without_decahub, auto_class):
    assert loaded_with_decahub.facts["loaded"][auto_class]["module"].startswith("decahub.models.emo.")
    assert loaded_without_decahub.facts["loaded"][auto_class]["module"].startswith("transformers_modules.")


@pytest.mark.parametrize("name", ["pixel_values", "pooler_output", "feature_map", "class logits", "pixel logits"])
def test_same_bits_as_the_folder(loaded, expected, name):
    assert torch.equal(loaded.tensors[name], expected[name])


def test_pipeline_classifies(loaded):
    answers = loaded.facts["answers"]["image-classification"]

    assert {answer["label"] for answer in answers} == set(LABELS)
    probabilities = loaded.tensors["class logits"].softmax(-1)[0]
    assert answers[0]["score"] == pytest.approx(probabilities.max().item(), abs=1e-6)
    assert answers[0]["label"] == LABELS[probabilities.argmax()]


def test_pipeline_segments_at_the_size_of_the_image(loaded, image):
    parts = loaded.facts["answers"]["image-segmentation"]

    assert parts
    assert all(tuple(size) == Image.open(image).size for _, size in parts)


@pytest.mark.parametrize(
    ("model", "task"), [("classifier", "image-classification"), ("segmenter", "image-segmentation")]
)
def test_the_card_tells_the_pipeline_its_task(loaded, model, task):
    assert loaded.facts["answers"][f"task of the {model}"] == task
