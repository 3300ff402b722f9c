"""The converter of CMT: names and values both ways, both orders of sparse kernels, what it infers and refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conversion.checkpoint import ConversionError, find_changed_tensors, sha256_of
from conversion.config_cmt import find_variant, infer_config
from conversion.convert_cmt import (
    convert_state_dict,
    convert_tensors,
    main,
    revert_state_dict,
    revert_tensors,
    select_state_dict,
)
from conversion.deterministic_fill import fill_state_dict
from conversion.layouts_cmt import build_official_shapes, find_sparse_layout
from decahub import CmtConfig, CmtForObjectDetection3D, CmtLidarConfig, CmtProcessor
from tests.parity.golden import golden_params
from tests.tiny.cmt import LIDAR, VOVNET, tiny_config


REPOSITORY = Path(__file__).parents[3]
VARIANTS = ("r50", "vov99", "camera-vov99", "lidar")
SPARSE_LAYOUTS = ("spconv2", "spconv1")
RESNET = {
    "model_type": "resnet",
    "embedding_size": 6,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 2, 1, 1],
    "out_features": ["stage3", "stage4"],
}
CONFIGS = {
    "fusion": tiny_config(),
    "camera": tiny_config("camera"),
    "lidar": tiny_config("lidar", head_kernel_size=3),
    "resnet": tiny_config(image_backbone_config=RESNET),
    "basic": tiny_config("camera", image_backbone_config={**RESNET, "layer_type": "basic"}),
    "separable": tiny_config("camera", image_backbone_config={**VOVNET, "use_depthwise": True}),
    "plain": tiny_config("camera", image_backbone_config={**VOVNET, "use_depthwise": False, "depths": [1, 2, 1, 3]}),
    "tasks": tiny_config("lidar", tasks=[["car"], ["truck", "pedestrian"]]),
    "deep": tiny_config("lidar", lidar_backbone_config={**LIDAR, "depths": [1, 3, 2, 1], "bev_depths": [2, 3]}),
}
HEAD_SIZES = {"fusion": 8_763_396, "lidar": 9_498_372, "camera": 7_583_236}  # method specification, section 2
PART_SIZES = {
    "img_neck.": {"r50": 1_377_024, "vov99": 1_049_344},
    "pts_middle_encoder.": {"r50": 2_694_352, "lidar": 2_694_352},
    "pts_backbone.": {"vov99": 4_280_832},
    "pts_neck.": {"vov99": 295_936},
    "pts_bbox_head.": {
        "r50": HEAD_SIZES["fusion"],
        "vov99": HEAD_SIZES["fusion"],
        "camera-vov99": HEAD_SIZES["camera"],
        "lidar": HEAD_SIZES["lidar"],
    },
}
TRACELESS = {"voxel_size": LIDAR["voxel_size"], "sparse_shape": LIDAR["sparse_shape"], "num_attention_heads": 4}
TINY_FLAGS = [
    *("--voxel_size", "1.5", "2.0", "0.2"),
    *("--sparse_shape", "41", "48", "64"),
    *("--point_cloud_range", "-48", "-40", "-5", "48", "56", "3"),
    *("--num_attention_heads", "4"),
    *("--image_size", "64", "96"),
]


def fill_official(config: CmtConfig, sparse_layout: str = "spconv2") -> dict[str, torch.Tensor]:
    return fill_state_dict(build_official_shapes(config, sparse_layout))


def describe_official(config: CmtConfig, sparse_layout: str = "spconv2") -> dict[str, torch.Tensor]:
    """The authors' names and shapes without values."""
    shapes = build_official_shapes(config, sparse_layout)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def drop_numbers(name: str) -> str:
    return ".".join("N" if piece.isdigit() else piece for piece in name.split("."))


def traceless_of(config: CmtConfig) -> dict:
    return TRACELESS if config.has_lidar else {"num_attention_heads": 4}


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    return fill_official(CONFIGS["fusion"])


@pytest.fixture
def checkpoint(official, tmp_path) -> Path:
    torch.save({"meta": {}, "state_dict": official}, tmp_path / "cmt.pth")
    return tmp_path / "cmt.pth"


# --- Names and values


@pytest.mark.parametrize("sparse_layout", SPARSE_LAYOUTS)
@pytest.mark.parametrize("case", CONFIGS)
def test_round_trip_through_a_model_is_bit_equal(case, sparse_layout):
    config = CONFIGS[case]
    official = fill_official(config, sparse_layout)
    model = CmtForObjectDetection3D(config)

    model.load_state_dict(convert_state_dict(official, config))

    restored = revert_state_dict(model.state_dict(), config, sparse_layout)
    assert find_changed_tensors(official, restored) == []


@pytest.mark.parametrize(
    ("variant", "part"), [(variant, part) for part, sizes in PART_SIZES.items() for variant in sizes]
)
def test_parts_have_the_published_number_of_parameters(variant, part):
    shapes = build_official_shapes(CmtConfig.from_variant(variant))

    buffers = ("running_mean", "running_var", "num_batches_tracked")
    count = sum(
        torch.Size(shape).numel()
        for name, shape in shapes.items()
        if name.startswith(part) and not name.endswith(buffers)
    )
    assert count == PART_SIZES[part][variant]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("img_backbone.stage4.OSA4_9.concat.OSA4_9_concat/norm.running_var", (768,)),
        ("img_backbone.stage5.OSA5_3.layers.4.OSA5_3_4/conv.weight", (224, 224, 3, 3)),
        ("img_backbone.stage2.OSA2_1.ese.fc.weight", (256, 256, 1, 1)),
        ("img_neck.fpn_convs.0.conv.bias", (256,)),
        ("pts_middle_encoder.conv_input.0.weight", (16, 3, 3, 3, 5)),
        ("pts_middle_encoder.encoder_layers.encoder_layer3.2.0.weight", (128, 3, 3, 3, 64)),
        ("pts_middle_encoder.encoder_layers.encoder_layer4.1.bn2.num_batches_tracked", ()),
        ("pts_middle_encoder.conv_out.0.weight", (128, 3, 1, 1, 128)),
        ("pts_backbone.blocks.1.15.weight", (256, 256, 3, 3)),
        ("pts_neck.deblocks.0.0.weight", (256, 128, 1, 1)),
        ("pts_neck.deblocks.1.0.weight", (256, 256, 2, 2)),
        ("pts_bbox_head.shared_conv.bn.weight", (256,)),
        ("pts_bbox_head.rv_embedding.0.weight", (1024, 192)),
        ("pts_bbox_head.transformer.decoder.layers.5.attentions.1.attn.in_proj_weight", (768, 256)),
        ("pts_bbox_head.transformer.decoder.layers.5.ffns.0.layers.1.weight", (256, 1024)),
        ("pts_bbox_head.transformer.decoder.post_norm.bias", (256,)),
        ("pts_bbox_head.task_heads.0.cls_logits.3.weight", (60, 64, 1)),
    ],
)
def test_names_and_shapes_are_those_of_the_release(name, shape):
    assert build_official_shapes(CmtConfig.from_variant("vov99"))[name] == shape


def test_resnet_has_the_names_of_torchvision():
    shapes = build_official_shapes(CmtConfig.from_variant("r50"))

    assert shapes["img_backbone.conv1.weight"] == (64, 3, 7, 7)
    assert shapes["img_backbone.layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["img_backbone.layer4.0.downsample.1.running_mean"] == (2048,)


GOLDEN_KINDS = ("vovnet_cpfpn", "head", "sparse_encoder", "second_fpn")
GOLDENS = [param for kind in GOLDEN_KINDS for param in golden_params("cmt", kind)]


def count_sparse_blocks(official, stage: int) -> int:
    pattern = rf"pts_middle_encoder\.encoder_layers\.encoder_layer{stage}\.\d+\.conv1\.weight"
    return sum(re.fullmatch(pattern, name) is not None for name in official)


@pytest.mark.parametrize("golden", GOLDENS)
def test_official_tensors_of_golden_files_convert_and_return(golden):
    official = golden.group("state_dict.")
    blocks = [count_sparse_blocks(official, stage) for stage in (1, 2, 3, 4)]
    config = tiny_config(
        image_backbone_config={**VOVNET, "use_depthwise": golden.metadata.get("dw") == "True"},
        lidar_backbone_config={**LIDAR, "depths": blocks if any(blocks) else LIDAR["depths"]},
    )

    converted = convert_tensors(official, config)

    known = CmtForObjectDetection3D(config).state_dict()
    assert {drop_numbers(name) for name in converted} <= {drop_numbers(name) for name in known}
    assert find_changed_tensors(official, revert_tensors(converted, config)) == []


# --- Both orders of sparse kernels


@pytest.mark.parametrize("sparse_layout", SPARSE_LAYOUTS)
def test_order_of_sparse_kernels_is_told_by_shapes(sparse_layout):
    official = fill_official(CONFIGS["lidar"], sparse_layout)

    assert find_sparse_layout(official) == sparse_layout


def test_both_orders_give_the_same_weights():
    config = CONFIGS["lidar"]
    official = fill_official(config)
    kernels = [name for name, tensor in official.items() if tensor.ndim == 5]
    older = {name: tensor.permute(1, 2, 3, 4, 0) if name in kernels else tensor for name, tensor in official.items()}

    assert len(kernels) == 13  # stem, 4 x 2 in blocks, 3 strided, output
    assert find_changed_tensors(convert_state_dict(official, config), convert_state_dict(older, config)) == []


def test_refuses_sparse_kernels_of_neither_order():
    official = fill_official(CONFIGS["lidar"])
    name = "pts_middle_encoder.conv_out.0.weight"
    official[name] = official[name].permute(0, 4, 1, 2, 3)

    with pytest.raises(ConversionError, match=r"conv_out.0.weight must have the shape .* got \[5, 7, 3, 1, 1\]"):
        convert_state_dict(official, CONFIGS["lidar"])


# --- Inference of the configuration


@pytest.mark.parametrize("variant", VARIANTS)
def test_infers_every_variant(variant):
    config = CmtConfig.from_variant(variant)
    official = describe_official(config)

    assert find_variant(official) == variant
    assert infer_config(official).to_dict() == config.to_dict()


@pytest.mark.parametrize("sparse_layout", SPARSE_LAYOUTS)
@pytest.mark.parametrize("case", CONFIGS)
def test_infers_what_shapes_show(case, sparse_layout):
    config = CONFIGS[case]
    official = describe_official(config, sparse_layout)

    inferred = infer_config(official, point_cloud_range=config.point_cloud_range, **traceless_of(config))

    assert build_official_shapes(inferred) == build_official_shapes(config)
    for field in ("modality", "num_queries", "num_hidden_layers", "head_kernel_size", "task_sizes"):
        assert getattr(inferred, field) == getattr(config, field), field
    for part, fields in {
        "image_backbone_config": ("model_type", "depths", "hidden_sizes", "out_features", "layer_type"),
        "lidar_backbone_config": ("depths", "hidden_sizes", "bev_depths", "voxel_size", "sparse_shape"),
    }.items():
        for field in fields:
            ours, theirs = (getattr(getattr(c, part), field, None) for c in (inferred, config))
            assert ours == theirs, field


def test_names_of_classes_are_given_or_numbers():
    official = describe_official(CONFIGS["tasks"])
    fields = {"point_cloud_range": CONFIGS["tasks"].point_cloud_range, **TRACELESS}

    numbered = infer_config(official, **fields)
    named = infer_config(official, tasks=[["a"], ["b", "c"]], **fields)

    assert numbered.tasks == [["class_0"], ["class_1", "class_2"]]
    assert named.id2label == {0: "a", 1: "b", 2: "c"}
    with pytest.raises(ConversionError, match=r"numbers of classes of the checkpoint, \[1, 2\]; got \[3\]"):
        infer_config(official, tasks=[["a", "b", "c"]], **fields)


@pytest.mark.parametrize(
    ("case", "given", "message"),
    [
        ("fusion", {}, "`--num_attention_heads`, `--voxel_size`, `--sparse_shape` must be given"),
        ("camera", {}, "`--num_attention_heads` must be given"),
        ("fusion", {"variant": "r50"}, "got 'r50' for the tensors of no published model"),
    ],
)
def test_refuses_to_guess(case, given, message):
    with pytest.raises(ConversionError, match=message):
        infer_config(describe_official(CONFIGS[case]), **given)


def test_refuses_settings_that_are_not_those_of_the_variant():
    official = describe_official(CmtConfig.from_variant("lidar"))

    with pytest.raises(ConversionError, match=r"`voxel_size` must be that of 'lidar', \[0.075, 0.075, 0.2\]; got"):
        infer_config(official, voxel_size=[0.1, 0.1, 0.2])
    with pytest.raises(ConversionError, match="got 'r50' for the tensors of 'lidar'"):
        infer_config(official, "r50")
    with pytest.raises(ValueError, match="`variant` must be one of"):
        infer_config(official, "r101")


def test_refuses_another_network():
    with pytest.raises(ConversionError, match=r"a tensor pts_bbox_head\.reference_points\.weight .* it has none"):
        infer_config({"conv1.weight": torch.zeros(4, 3, 7, 7)})


# --- What lies in a checkpoint


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda net: net, "the file itself"),
        (lambda net: {"meta": {"epoch": 20}, "state_dict": net, "optimizer": {}}, "state_dict"),
        (lambda net: {"state_dict": {f"module.{name}": tensor for name, tensor in net.items()}}, "state_dict"),
    ],
    ids=["flat", "mmdetection", "module-prefix"],
)
def test_finds_the_weights(official, wrap, place):
    found_place, state_dict = select_state_dict(wrap(official))

    assert found_place == place
    assert find_changed_tensors(official, state_dict) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda net: net.pop("pts_bbox_head.shared_conv.bn.bias"),
            r"missing: pts_bbox_head\.shared_conv\.bn\.bias",
        ),
        (lambda net: net.update(surplus=torch.zeros(2)), r"unexpected: surplus\. "),
        (
            lambda net: net.update({"img_neck.fpn_convs.0.conv.bias": torch.zeros(31)}),
            r"img_neck\.fpn_convs\.0\.conv\.bias \[31\] instead of \[32\]",
        ),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_refuses_incomplete_files(official, spoil, message):
    spoil(official)

    with pytest.raises(ConversionError, match=message):
        convert_state_dict(official, CONFIGS["fusion"])


# --- The command


def test_command_writes_a_folder_that_loads(official, checkpoint, tmp_path, capsys):
    folder = tmp_path / "cmt"

    main(["--checkpoint", str(checkpoint), "--output_dir", str(folder), *TINY_FLAGS])

    model = CmtForObjectDetection3D.from_pretrained(folder)
    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), model.config)) == []
    processor = CmtProcessor.from_pretrained(folder)
    assert dict(processor.image_processor.size) == {"height": 64, "width": 96}
    assert processor.feature_extractor.voxel_size == [1.5, 2.0, 0.2]
    report = json.loads((folder / "parity_report.json").read_text())
    assert report["source"]["sha256"] == sha256_of(checkpoint)
    for part in ("round_trip", "deterministic_fill"):
        assert report[part] == {"tensors": len(official), "bit_equal": len(official)}
    assert report["names"] == {"in_the_file": len(official), "matched": len(official)}
    assert f"{len(official)} of {len(official)} matched" in capsys.readouterr().out


@pytest.mark.parametrize("sparse_layout", SPARSE_LAYOUTS)
def test_command_goes_back(tmp_path, sparse_layout):
    official = fill_official(CONFIGS["fusion"], sparse_layout)
    torch.save(official, tmp_path / "given.pth")
    ours, back = tmp_path / "ours", tmp_path / "back"

    main(["--checkpoint", str(tmp_path / "given.pth"), "--output_dir", str(ours), *TINY_FLAGS])
    main(["--to-official", "--checkpoint", str(ours), "--output_dir", str(back), "--sparse_layout", sparse_layout])

    restored = torch.load(back / "cmt.pth", weights_only=True)
    assert find_changed_tensors(official, restored["state_dict"]) == []


def test_script_runs_from_anywhere(checkpoint, tmp_path):
    script = REPOSITORY / "conversion" / "convert_cmt.py"
    command = [sys.executable, script, "--checkpoint", checkpoint.name, "--output_dir", "cmt", *TINY_FLAGS]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cmt" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (TINY_FLAGS[:-3], "error: `--image_size` must be given"),
        ([], "error: `checkpoint` must be of a published model"),
        ([*TINY_FLAGS, "--variant", "vov99"], "error: `variant` must be that of the checkpoint"),
    ],
)
def test_command_refuses(checkpoint, tmp_path, flags, message):
    with pytest.raises(SystemExit, match=message):
        main(["--checkpoint", str(checkpoint), "--output_dir", str(tmp_path / "cmt"), *flags])

    assert not (tmp_path / "cmt").exists()


def test_pickled_code_is_not_run(tmp_path):
    torch.save({"state_dict": {}, "meta": CmtLidarConfig}, tmp_path / "cmt.pth")

    with pytest.raises(SystemExit, match="nothing in it was executed"):
        main(["--checkpoint", str(tmp_path / "cmt.pth"), "--output_dir", str(tmp_path / "cmt")])
