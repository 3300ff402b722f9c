"""CmtConfig: published variants, backbones of images, round trips, and every contradiction refused by name."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, ResNetConfig

from decahub import CmtConfig, CmtForObjectDetection3D, CmtLidarConfig, CmtVovNetConfig, EmoConfig
from decahub.models.cmt.configuration_cmt import CENTERPOINT_TASKS, NUSCENES_CLASSES
from tests.tiny.cmt import CLASSES, LIDAR, VOVNET, tiny_config


# Method specification, section 2: parameters without backbones and necks, and of the whole LiDAR branch.
HEAD_PARAMETERS = {"vov99": 8_763_396, "r50": 8_763_396, "lidar": 9_498_372, "camera-vov99": 7_583_236}
LIDAR_PARAMETERS = 2_694_352 + 4_280_832 + 295_936
BACKBONES = ("model.image_backbone.", "model.image_neck.", "model.lidar_backbone.")


def count_parameters(model, belongs) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if belongs(name))


@pytest.mark.parametrize("variant", HEAD_PARAMETERS)
def test_variant_has_the_published_number_of_parameters(variant):
    with torch.device("meta"):
        model = CmtForObjectDetection3D(CmtConfig.from_variant(variant))

    head = count_parameters(model, lambda name: not name.startswith(BACKBONES))
    lidar = count_parameters(model, lambda name: name.startswith("model.lidar_backbone."))

    assert head == HEAD_PARAMETERS[variant]
    assert lidar == (0 if variant.startswith("camera") else LIDAR_PARAMETERS)


def test_default_is_the_smallest_published_fusion_model():
    config = CmtConfig()

    assert config.to_dict() == CmtConfig.from_variant("r50").to_dict()
    assert list(config.id2label.values()) == list(NUSCENES_CLASSES)
    assert config.task_sizes == [10]


@pytest.mark.parametrize("modality", ["fusion", "camera", "lidar"])
def test_round_trip_keeps_everything(modality, tmp_path):
    config = tiny_config(modality)
    config.save_pretrained(tmp_path)

    loaded = CmtConfig.from_pretrained(tmp_path)

    assert loaded.to_dict() == config.to_dict()
    assert type(loaded.image_backbone_config) is type(config.image_backbone_config)
    assert type(AutoConfig.from_pretrained(tmp_path)) is CmtConfig


@pytest.mark.parametrize(
    ("given", "config_class"),
    [
        ({"model_type": "resnet", "depths": [1, 1, 1, 1]}, ResNetConfig),
        ({"model_type": "emo"}, EmoConfig),
        (VOVNET, CmtVovNetConfig),
        (ResNetConfig(out_features=["stage2", "stage3"]), ResNetConfig),
        (None, ResNetConfig),
    ],
    ids=["resnet", "emo", "vovnet", "instance", "default"],
)
def test_image_backbone_is_any_backbone(given, config_class):
    backbone = tiny_config(image_backbone_config=given).image_backbone_config

    assert type(backbone) is config_class
    assert len(backbone.out_features) == 2


def test_labels_follow_the_tasks():
    config = CmtConfig(tasks=CENTERPOINT_TASKS)

    assert config.task_sizes == [1, 2, 2, 1, 2, 2]
    assert list(config.id2label.values()) == list(NUSCENES_CLASSES)


def test_one_head_takes_any_number_of_labels():
    assert tiny_config(tasks=None, num_labels=4).task_sizes == [4]
    assert tiny_config(tasks=None, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}).task_sizes == [2]


def test_published_grid_may_cover_less_than_the_range():
    config = CmtConfig.from_variant("r50")

    assert config.lidar_backbone_config.sparse_shape[1:] == [1024, 1024]  # of 1080 cells


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modality": "radar"}, "radar"),
        ({"modality": "lidar"}, "`image_backbone_config` must be None"),
        ({"image_backbone_config": {"model_type": "resnt"}}, "got 'resnt'. Did you mean 'resnet'"),
        ({"image_backbone_config": {}}, "must name the `model_type`"),
        ({"image_backbone_config": {**VOVNET, "out_features": ["stage4"]}}, "must choose two feature maps"),
        ({"image_backbone_config": {**VOVNET, "num_channels": 4}}, "`black_pixel` must have one value for each of 4"),
        ({"lidar_backbone_config": {**LIDAR, "model_type": "resnet"}}, "'cmt_lidar'"),
        ({"lidar_backbone_config": {**LIDAR, "sparse_shape": [41, 48, 60]}}, "multiple of 16 along x"),
        ({"lidar_backbone_config": {**LIDAR, "sparse_shape": [41, 48, 80]}}, "58 to 64 voxels along x"),
        ({"lidar_backbone_config": {**LIDAR, "sparse_shape": [41, 48, 32]}}, "58 to 64 voxels along x"),
        ({"lidar_backbone_config": {**LIDAR, "sparse_shape": [33, 48, 64]}}, "40 to 41 voxels along z"),
        ({"point_cloud_range": [0, 0, 0, 1, 1]}, "`point_cloud_range` must hold"),
        ({"point_cloud_range": [10, 0, 0, -10, 1, 1]}, "`point_cloud_range` must hold"),
        ({"post_center_range": [0, 0, 0, 1, 1, 0]}, "`post_center_range` must hold"),
        ({"post_center_range": [-9, -9, -9, 9, 9, float("inf")]}, "`post_center_range` must hold"),
        ({"hidden_size": 30}, "multiple of `num_attention_heads` .4."),
        ({"head_kernel_size": 2}, "`head_kernel_size` must be odd"),
        ({"num_queries": 0}, "`num_queries` must be at least 1"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1"),
        ({"max_detections": 0}, "`max_detections` must be at least 1"),
        ({"tasks": [["car"], ["car", "truck"]]}, "got 'car' twice"),
        ({"tasks": [["car"], []]}, "at least one class"),
        ({"tasks": [["a"], ["b"]], "id2label": {0: "b", 1: "a"}}, "in their order"),
        ({"tasks": [["a"]], "num_labels": 3}, "in their order"),
        ({"attention_dropout": 1.0}, "`attention_dropout` must lie in"),
        ({"code_weights": [1.0] * 9}, "`code_weights` must hold 10"),
        ({"focal_alpha": 1.5}, "`focal_alpha` must lie in"),
        ({"denoising_groups": -1}, "`denoising_groups` must be at least 0"),
        ({"box_slot_order": "mixed"}, "mixed"),
        ({"hiden_size": 32}, "Did you mean `hidden_size`"),
    ],
    ids=str,
)
def test_refuses(fields, message):
    with pytest.raises((StrictDataclassError, ValueError), match=message):
        tiny_config(**{"image_backbone_config": VOVNET, "lidar_backbone_config": LIDAR, **fields})


def test_refuses_a_mode_for_missing_sensors_without_a_second_sensor():
    with pytest.raises(StrictDataclassError, match="its only sensor cannot be missing"):
        tiny_config("camera", missing_modality="drop")


def test_refuses_a_lidar_backbone_for_cameras():
    with pytest.raises(StrictDataclassError, match="`lidar_backbone_config` must be None"):
        tiny_config("camera", lidar_backbone_config=CmtLidarConfig())


def test_classes_of_the_tiny_config_are_named():
    assert tiny_config().label2id == {name: index for index, name in enumerate(CLASSES)}
