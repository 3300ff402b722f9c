"""The camera branch of CMT computes the authors' numbers: backbone and neck, and the transform of images."""

import ast

import numpy as np
import pytest
import torch

from conversion.checkpoint import rename
from conversion.layouts_cmt import IMAGE_NECK_KEY_MAP, build_vovnet_key_map
from conversion.name_map import NameMap
from decahub import CmtImageProcessor, CmtVovNetBackbone, CmtVovNetConfig
from decahub.models.cmt.camera.calibration import to_homogeneous
from decahub.models.cmt.camera.image_neck import CmtImageNeck
from decahub.models.cmt.camera.resize_crop import CmtImageTransform
from tests.parity.golden import assert_near, golden_params


FORWARD_ATOL = 1e-4  # the golden README's; both are float32
GRADIENT_RTOL = 1e-4  # of the largest entry of a tensor, as the golden README says
PIXEL_ATOL = 0.03  # the golden README's: about one gray level
MEAN_PIXEL_ATOL = 5e-4  # pixels are stored as float16; one gray level in 3 % of the pixels would be as much
EVALUATION_MATRIX_ATOL = 1e-9
TRAINING_MATRIX_ATOL = 1e-4  # the authors compose the map of pixels in float32

KNOWN_KEYS = {
    "vovnet_cpfpn": [
        r"input\.pixel_values",
        r"output\.(stage[2-5]|neck[01])",
        r"state_dict\.(img_backbone|img_neck)\..+",
        r"grad\.(input\.pixel_values|(img_backbone|img_neck)\..+)",
    ],
    "image_transform": [
        r"input\.(images_bgr_uint8|intrinsics|lidar2cam)",
        r"(eval|train\d+)\.(pixel_values|intrinsics|lidar2img|params_resize_newW_newH_x0_y0_x1_y1_flip)",
    ],
}


@pytest.mark.parametrize("golden", [param for kind in KNOWN_KEYS for param in golden_params("cmt", kind)])
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


def read_setting(golden, key: str):
    return ast.literal_eval(golden.metadata[key])


def build_vovnet(golden) -> tuple[CmtVovNetBackbone, CmtImageNeck, NameMap]:
    config = CmtVovNetConfig(
        stem_sizes=read_setting(golden, "stem"),
        layer_sizes=read_setting(golden, "stage_conv_ch"),
        hidden_sizes=read_setting(golden, "stage_out_ch"),
        num_layers_per_block=read_setting(golden, "layer_per_block"),
        depths=read_setting(golden, "block_per_stage"),
        use_depthwise=read_setting(golden, "dw"),
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    backbone = CmtVovNetBackbone(config).eval()
    neck = CmtImageNeck(config.hidden_sizes[-2:], read_setting(golden, "neck_channels"))
    name_map = NameMap(build_vovnet_key_map(config.use_depthwise))
    backbone.load_state_dict(rename(golden.group("state_dict.img_backbone."), name_map.convert))
    neck.load_state_dict(rename(golden.group("state_dict.img_neck."), NameMap(IMAGE_NECK_KEY_MAP).convert))
    return backbone, neck, name_map


@pytest.mark.parametrize("golden", golden_params("cmt", "vovnet_cpfpn"))
@torch.no_grad()
def test_backbone_and_neck(golden):
    backbone, neck, _ = build_vovnet(golden)

    feature_maps = backbone(golden["input.pixel_values"]).feature_maps
    levels = neck(feature_maps[-2:])

    for stage, feature_map in enumerate(feature_maps, start=2):
        assert_near(feature_map, golden[f"output.stage{stage}"], FORWARD_ATOL, what=f"stage{stage}")
    for level, feature_map in enumerate(levels):
        assert_near(feature_map, golden[f"output.neck{level}"], FORWARD_ATOL, what=f"neck{level}")


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("golden", golden_params("cmt", "vovnet_cpfpn"))
def test_gradients(golden, is_checkpointed):
    backbone, neck, name_map = build_vovnet(golden)
    if is_checkpointed:
        backbone.gradient_checkpointing_enable()
        backbone.train()
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    pixel_values = golden["input.pixel_values"].clone().requires_grad_()

    neck(backbone(pixel_values).feature_maps[-2:])[0].square().sum().backward()

    gradients = {"input.pixel_values": pixel_values.grad}
    for name, parameter in backbone.named_parameters():
        gradients[f"img_backbone.{name_map.revert(name)}"] = parameter.grad
    for name, parameter in neck.named_parameters():
        gradients[f"img_neck.{NameMap(IMAGE_NECK_KEY_MAP).revert(name)}"] = parameter.grad
    for name, expected in golden.group("grad.").items():
        tolerance = GRADIENT_RTOL * expected.abs().max().item()
        assert_near(gradients[name], expected, tolerance, what=name)


# --- Images


def find_draws(golden) -> list[str]:
    return sorted({key.split(".")[0] for key in golden.tensors if key.startswith(("eval.", "train"))})


def prepare_images(golden, draw: str, **options):
    """What the image processor makes of a file's images, by its evaluation transform or by a stored draw."""
    final_size = read_setting(golden, "final_dim")
    images = [np.ascontiguousarray(image.flip(-1)) for image in golden["input.images_bgr_uint8"]]
    transforms = None
    if draw != "eval":
        resize, _, _, left, top, _, _, flip = golden[f"{draw}.params_resize_newW_newH_x0_y0_x1_y1_flip"].tolist()
        transforms = [CmtImageTransform(resize, int(left), int(top), bool(flip))] * len(images)
    processor = CmtImageProcessor(size={"height": final_size[0], "width": final_size[1]}, **options)
    lidar2img = to_homogeneous(golden["input.intrinsics"][:, :3, :3]) @ golden["input.lidar2cam"]
    return processor(images, lidar2img=lidar2img, image_transforms=transforms)


@pytest.mark.parametrize(("golden", "draw"), golden_params("cmt", "image_transform", find_draws))
def test_images(golden, draw):
    prepared = prepare_images(golden, draw)

    pixel_values, expected = prepared["pixel_values"][0], golden[f"{draw}.pixel_values"].float()
    assert_near(pixel_values, expected, PIXEL_ATOL, what="pixels")
    assert (pixel_values - expected).abs().mean().item() < MEAN_PIXEL_ATOL


@pytest.mark.parametrize(("golden", "draw"), golden_params("cmt", "image_transform", find_draws))
def test_projections(golden, draw):
    prepared = prepare_images(golden, draw)

    tolerance = EVALUATION_MATRIX_ATOL if draw == "eval" else TRAINING_MATRIX_ATOL
    assert_near(prepared["lidar2img"][0], golden[f"{draw}.lidar2img"], tolerance, what="lidar2img")
    intrinsics = prepared["lidar2img"][0] @ torch.linalg.inv(golden["input.lidar2cam"])
    assert_near(intrinsics, golden[f"{draw}.intrinsics"], tolerance, what="intrinsics")


@pytest.mark.parametrize(("golden", "draw"), golden_params("cmt", "image_transform", find_draws))
def test_sizes_of_draws(golden, draw):
    stored = golden[f"{draw}.params_resize_newW_newH_x0_y0_x1_y1_flip"].tolist()
    height, width = golden["input.images_bgr_uint8"].shape[1:3]

    new_height, new_width = CmtImageTransform(stored[0]).compute_new_size((height, width))

    assert [new_width, new_height] == stored[1:3]
    final_height, final_width = read_setting(golden, "final_dim")
    assert stored[5:7] == [stored[3] + final_width, stored[4] + final_height]
