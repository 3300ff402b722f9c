"""Converting Mask2Former: names both ways, old names, files, refused files, and `from_mask2former`."""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from conversion.checkpoint import ConversionError
from conversion.coco_classes import BASE_CLASSES, COCO_CLASSES, NOVEL_CLASSES
from conversion.convert_reft import convert_checkpoint, convert_state_dict, keep_classes, main, revert_state_dict
from conversion.layouts_reft import rename_old_release, rename_old_swin
from conversion.pickles import read_array_pickle
from decahub import AutoModelForFewShotInstanceSegmentation, RefTForFewShotInstanceSegmentation, RefTProcessor
from tests.tiny.reft import SWIN, tiny_config, tiny_mask2former_fields, tiny_pixels


ATOL = 1e-5
BACKBONES = {"resnet": {}, "swin": {"backbone_config": SWIN}}
UNUSED_NORM = ".swin.layernorm."


def build_mask2former(seed=0, **fields):
    torch.manual_seed(seed)
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(**tiny_mask2former_fields(tiny_config(**fields)))
    ).eval()


def assert_equal_outputs(model, reference):
    with torch.no_grad():
        outputs, expected = model(tiny_pixels()), reference(tiny_pixels())
    for name in ("class_queries_logits", "masks_queries_logits"):
        torch.testing.assert_close(outputs[name], expected[name], atol=ATOL, rtol=0)


def write_pickle(path, state_dict):
    arrays = {name: tensor.numpy() for name, tensor in state_dict.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone", "matching_heuristics": True}))
    return path


@pytest.mark.parametrize("fields", BACKBONES.values(), ids=BACKBONES)
def test_names_are_a_bijection(fields):
    source, config = build_mask2former(**fields).state_dict(), tiny_config(**fields)
    ours = {name: tensor for name, tensor in source.items() if tensor.is_floating_point() and UNUSED_NORM not in name}

    official = revert_state_dict(source)
    back = convert_state_dict(official, config)

    assert all(name.startswith(("backbone.", "sem_seg_head.", "criterion.")) for name in official)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())
    again = revert_state_dict(back)
    assert again.keys() == official.keys()
    assert all(torch.equal(again[name], official[name]) for name in official)


@pytest.mark.parametrize("fields", BACKBONES.values(), ids=BACKBONES)
def test_command_converts_a_pickle_of_the_release(fields, tmp_path, capsys):
    reference = build_mask2former(**fields)
    path = write_pickle(tmp_path / "model.pkl", revert_state_dict(reference.state_dict()))

    main(["--checkpoint", str(path), "--output_dir", str(tmp_path / "out"), "--verify", "--support_size", "64"])

    model = AutoModelForFewShotInstanceSegmentation.from_pretrained(tmp_path / "out")
    assert_equal_outputs(model, reference)
    assert "tensors bit-equal" in capsys.readouterr().out
    assert RefTProcessor.from_pretrained(tmp_path / "out").image_processor.support_size == 64


def test_converts_a_training_checkpoint(tmp_path):
    reference = build_mask2former()
    content = {"model": revert_state_dict(reference.state_dict()), "optimizer": {"state": {}}, "iteration": 7}
    torch.save(content, tmp_path / "model.pth")

    convert_checkpoint(tmp_path / "model.pth", tmp_path / "out")

    assert_equal_outputs(RefTForFewShotInstanceSegmentation.from_pretrained(tmp_path / "out"), reference)


@pytest.mark.parametrize("fields", BACKBONES.values(), ids=BACKBONES)
def test_converts_a_folder_of_transformers(fields, tmp_path):
    reference = build_mask2former(**fields)
    reference.save_pretrained(tmp_path / "source")

    report = convert_checkpoint(tmp_path / "source", tmp_path / "out", verify=True, classifier="cosine")

    assert report["layout"] == "transformers"
    model = RefTForFewShotInstanceSegmentation.from_pretrained(tmp_path / "out")
    assert torch.equal(model.class_predictor.weight, reference.class_predictor.weight)


def test_old_names_of_the_release():
    official = revert_state_dict(build_mask2former().state_dict())
    old = {}
    for name, tensor in official.items():
        name = name.replace("predictor.query_feat.", "predictor.static_query.")
        old[name.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.")] = tensor

    assert {rename_old_release(name) for name in old} == set(official)
    converted = convert_state_dict(old, tiny_config())
    expected = convert_state_dict(official, tiny_config())
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def test_old_names_of_swin():
    source = build_mask2former(backbone_config=SWIN).state_dict()
    encoder = "model.pixel_level_module.encoder."
    pairs = (
        (f"{encoder}swin.", encoder),
        ("attention.relative_position_bias.", "attention.self."),
        ("attention.o_proj.", "attention.output.dense."),
        ("mlp.fc1.", "intermediate.dense."),
        ("mlp.fc2.", "output.dense."),
        *((f"attention.{name[0]}_proj.", f"attention.self.{name}.") for name in ("query", "key", "value")),
    )
    old = {}
    for name, tensor in source.items():
        if UNUSED_NORM in name:
            continue
        if name.startswith(encoder):
            for new, previous in pairs:
                name = name.replace(new, previous)
        old[name] = tensor
    old[f"{encoder}encoder.layers.0.blocks.0.attention.self.relative_position_index"] = torch.zeros(16, 16)

    converted = convert_state_dict(old, tiny_config(backbone_config=SWIN))

    assert all(torch.equal(converted[name], tensor) for name, tensor in source.items() if UNUSED_NORM not in name)
    assert rename_old_swin(f"{encoder}encoder.stages.0.x") == f"{encoder}encoder.stages.0.x"  # of a ResNet


def test_keeping_base_classes_slices_the_head(tmp_path):
    reference = build_mask2former(num_labels=80)
    path = write_pickle(tmp_path / "model.pkl", revert_state_dict(reference.state_dict()))

    convert_checkpoint(path, tmp_path / "out", keep_classes="base60")

    model = RefTForFewShotInstanceSegmentation.from_pretrained(tmp_path / "out")
    assert list(model.config.id2label.values()) == list(BASE_CLASSES)
    weight = reference.class_predictor.weight
    assert torch.equal(model.class_predictor.weight[-1], weight[-1])
    place = COCO_CLASSES.index("zebra")
    assert torch.equal(model.class_predictor.weight[model.config.label2id["zebra"]], weight[place])
    assert model.criterion.empty_weight.shape == (61,)


def test_class_lists_are_those_of_the_protocol():
    assert len(set(COCO_CLASSES)) == 80
    assert len(set(NOVEL_CLASSES)) == 20
    assert set(NOVEL_CLASSES) <= set(COCO_CLASSES)
    assert len(BASE_CLASSES) == 60


def test_keeping_classes_needs_the_known_head():
    with pytest.raises(ConversionError, match="requires a head of 80 classes and no object; got 6 rows"):
        keep_classes(build_mask2former().state_dict(), BASE_CLASSES)


# --- Refused files


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize(
    "build",
    [
        lambda mark: pickle.dumps({"model": {"x": Hostile(mark)}}),
        lambda mark: pickle.dumps({"model": np.array([Hostile(mark)], dtype=object)}),
        lambda mark: pickle.dumps({"model": getattr}),
        lambda mark: pickle.dumps({"model": np.load}),
        lambda mark: pickle.dumps({"model": np.zeros(9)})[:40],
        lambda mark: b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        lambda mark: b"",
    ],
    ids=["object", "object in an array", "builtin", "numpy function", "truncated", "codec", "empty"],
)
def test_a_hostile_pickle_is_refused_and_not_executed(build, tmp_path):
    mark, path = tmp_path / "was_executed", tmp_path / "model.pkl"
    path.write_bytes(build(mark))

    with pytest.raises(ConversionError, match="refused and nothing in it was executed"):
        read_array_pickle(path)
    assert not mark.exists()
    with pytest.raises(SystemExit, match="refused"):
        main(["--checkpoint", str(path), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_array_pickles_of_every_protocol_are_read(protocol, tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {"x": array, "n": np.float32(2)}, "__author__": "a"}, protocol=protocol))

    content = read_array_pickle(path)

    assert np.array_equal(content["model"]["x"], array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("sem_seg_head.predictor.decoder_norm.bias"), "missing"),
        (
            lambda tensors: tensors.update({"sem_seg_head.predictor.extra.weight": torch.zeros(2)}),
            "no Mask2Former has",
        ),
        (lambda tensors: tensors.update({"backbone.stem.conv1.norm.bias": torch.zeros(3)}), "of another shape"),
        (lambda tensors: tensors.pop("sem_seg_head.predictor.class_embed.weight"), "the tensor .* is missing"),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if "sem_seg_head" in name],
            "must be a Mask2Former",
        ),
    ],
    ids=["missing", "unexpected", "shape", "size", "another network"],
)
def test_other_tensors_are_refused(change, message, tmp_path):
    official = revert_state_dict(build_mask2former().state_dict())
    change(official)
    path = write_pickle(tmp_path / "model.pkl", official)

    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_transformers_need_their_configuration(tmp_path):
    save_file(build_mask2former().state_dict(), tmp_path / "model.safetensors")

    with pytest.raises(ConversionError, match=r"must have its `config.json` beside it"):
        convert_checkpoint(tmp_path / "model.safetensors", tmp_path / "out")


# --- from_mask2former


@pytest.mark.parametrize("fields", BACKBONES.values(), ids=BACKBONES)
def test_from_mask2former_folder_or_model(fields, tmp_path):
    reference = build_mask2former(**fields)
    reference.save_pretrained(tmp_path)

    for source in (reference, tmp_path):
        model = RefTForFewShotInstanceSegmentation.from_mask2former(source, support_size=64)

        assert_equal_outputs(model, reference)
        assert not model.training


def test_from_mask2former_begins_other_heads_with_the_linear_one():
    reference = build_mask2former()

    cosine = RefTForFewShotInstanceSegmentation.from_mask2former(reference, classifier="cosine")
    prototype = RefTForFewShotInstanceSegmentation.from_mask2former(reference, classifier="prototype")

    assert torch.equal(cosine.class_predictor.weight, reference.class_predictor.weight)
    assert torch.equal(prototype.class_predictor.no_object, reference.class_predictor.weight[-1])
    assert torch.equal(prototype.class_predictor.query_proj.weight, torch.eye(48))


def test_from_mask2former_with_other_labels():
    reference = build_mask2former()

    with pytest.raises(ValueError, match=r"`num_labels` must be that of the checkpoint \(5\); got 9"):
        RefTForFewShotInstanceSegmentation.from_mask2former(reference, num_labels=9)
    model = RefTForFewShotInstanceSegmentation.from_mask2former(reference, True, num_labels=9)
    assert model(tiny_pixels()).class_queries_logits.shape[-1] == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("model.transformer_module.decoder.layernorm.bias"), "is missing, such as 'model"),
        (lambda weights: weights.update({"model.x": torch.zeros(1)}), "is unexpected, such as 'model.x'"),
        (lambda weights: weights.pop("class_predictor.weight"), "`class_predictor` is missing"),
    ],
    ids=["missing", "unexpected", "head"],
)
def test_other_weights_are_refused(change, message):
    weights = build_mask2former().state_dict()
    change(weights)

    with pytest.raises(ValueError, match=message):
        RefTForFewShotInstanceSegmentation(tiny_config()).load_mask2former_weights(weights)
