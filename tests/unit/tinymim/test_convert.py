"""The converter of TinyMIM: every layout both ways, what it infers, what it refuses, and the folder that it writes.

Parameter counts are those of the authors' networks (method specification, section 2.2).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conversion.checkpoint import ConversionError, find_changed_tensors, sha256_of
from conversion.config_tinymim import infer_config
from conversion.convert_tinymim import convert_state_dict, find_layout, main, revert_state_dict, select_state_dict
from conversion.deterministic_fill import fill_state_dict
from conversion.layouts_tinymim import (
    BACKBONE,
    CLASSIFICATION,
    ENCODER,
    LAYOUTS,
    PRETRAINING,
    SEGMENTATION,
    build_indices,
    build_official_shapes,
)
from decahub import (
    TinyMimConfig,
    TinyMimForImageClassification,
    TinyMimForPreTraining,
    TinyMimForSemanticSegmentation,
    TinyMimImageProcessor,
    TinyMimModel,
)
from decahub.models.tinymim.position_embeddings import resize_position_embeddings


REPOSITORY = Path(__file__).parents[3]
TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
TINY_FLAGS = ["--num_attention_heads", "2"]
STAR = {"use_distillation_token": True, "pre_logits_dim": 40}
SEGMENTER = {
    "use_relative_position_bias": True,
    "layer_scale_init_value": 1.0,
    "decode_hidden_size": 8,
    "auxiliary_hidden_size": 6,
    "num_labels": 5,
}
FEATURES = {
    "use_relative_position_bias": True,
    "layer_scale_init_value": 1.0,
    "num_hidden_layers": 6,
    "use_feature_pyramid": True,
    "out_indices": [2, 3, 4, 6],
}
CASES = {
    "pretraining": (PRETRAINING, {}),
    "no-qkv-bias": (PRETRAINING, {"qkv_bias": False}),
    "encoder": (ENCODER, {}),
    "mean": (CLASSIFICATION, {"num_labels": 7}),
    "cls": (CLASSIFICATION, {"num_labels": 7, "pooling": "cls"}),
    "star": (CLASSIFICATION, {"num_labels": 7, **STAR}),
    "segmenter": (SEGMENTATION, SEGMENTER),
    "segmenter-without-auxiliary-head": (
        SEGMENTATION,
        {name: value for name, value in SEGMENTER.items() if name != "auxiliary_hidden_size"}
        | {"use_auxiliary_head": False},
    ),
    "segmenter-star": (SEGMENTATION, {**SEGMENTER, **STAR}),
    "backbone": (BACKBONE, FEATURES),
    "backbone-star": (BACKBONE, {**FEATURES, **STAR}),
}
PARAMETERS = {"tiny": 5_717_416, "small": 22_050_664, "base": 86_567_656}
PARAMETERS_WITHOUT_HEAD = {
    "tiny": 5_524_416,
    "small": 21_665_664,
    "base": 85_798_656,
    "mae-small": 21_665_664,
    "mae-base": 85_798_656,
    "mae-large": 303_301_632,
}
MAE_DECODER = {
    "mask_token": (1, 1, 8),
    "decoder_embed.weight": (8, 24),
    "decoder_pos_embed": (1, 17, 8),
    "decoder_blocks.0.norm1.weight": (8,),
    "decoder_norm.bias": (8,),
    "decoder_pred.weight": (192, 8),
}


def tiny_config(**fields) -> TinyMimConfig:
    return TinyMimConfig(**{**TINY, **fields})


def fill_official(config: TinyMimConfig, layout=PRETRAINING) -> dict[str, torch.Tensor]:
    return fill_state_dict(build_official_shapes(config, layout)) | build_indices(config, layout)


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    """The authors' tensors of a tiny pre-training file."""
    return fill_official(tiny_config())


@pytest.fixture
def checkpoint(official, tmp_path) -> Path:
    """The same as a file."""
    torch.save({"model": official, "epoch": 299, "args": argparse.Namespace(lr=1.5e-4)}, tmp_path / "net.pth")
    return tmp_path / "net.pth"


def run(checkpoint: Path, *flags: str) -> dict:
    """The report of a conversion into `folder` beside the file."""
    main(["--checkpoint", str(checkpoint), "--output_dir", str(checkpoint.parent / "folder"), *flags])
    return json.loads((checkpoint.parent / "folder" / "parity_report.json").read_text())


@pytest.mark.parametrize(("layout", "fields"), CASES.values(), ids=CASES)
def test_round_trip_through_a_model_is_bit_equal(layout, fields):
    config = tiny_config(**fields)
    official = fill_official(config, layout)
    model = layout.architecture(config)

    model.load_state_dict(convert_state_dict(official, config, layout.task))
    restored = revert_state_dict(model.state_dict(), config)

    assert find_changed_tensors(official, restored) == []


@pytest.mark.parametrize(("layout", "fields"), CASES.values(), ids=CASES)
def test_infers_what_shapes_show(layout, fields):
    config = tiny_config(**fields)

    inferred = infer_config(fill_official(config, layout), layout, num_attention_heads=2)

    assert build_official_shapes(inferred, layout) == build_official_shapes(config, layout)
    for field in (*TINY, *fields):
        assert getattr(inferred, field) == getattr(config, field), field


@pytest.mark.parametrize("variant", PARAMETERS)
def test_classifier_has_the_published_number_of_parameters(variant):
    with torch.device("meta"):
        model = TinyMimForImageClassification(TinyMimConfig.from_variant(variant))

    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[variant]


@pytest.mark.parametrize("variant", PARAMETERS_WITHOUT_HEAD)
def test_encoder_has_the_published_number_of_parameters(variant):
    with torch.device("meta"):
        model = TinyMimModel(TinyMimConfig.from_variant(variant))

    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS_WITHOUT_HEAD[variant]


def test_star_has_about_the_published_number_of_parameters():
    with torch.device("meta"):
        model = TinyMimModel(TinyMimConfig.from_variant("tiny-star"))

    # The paper says 5.8 million; the classifiers of 1280 features are not counted there.
    assert 5.75e6 < sum(parameter.numel() for parameter in model.parameters()) < 5.85e6


def test_official_names_of_a_pretraining_file():
    assert set(build_official_shapes(tiny_config(num_hidden_layers=1), PRETRAINING).items()) == {
        ("cls_token", (1, 1, 24)),
        ("pos_embed", (1, 17, 24)),
        ("patch_embed.proj.weight", (24, 3, 8, 8)),
        ("patch_embed.proj.bias", (24,)),
        ("blocks.0.norm1.weight", (24,)),
        ("blocks.0.norm1.bias", (24,)),
        ("blocks.0.attn.qkv.weight", (72, 24)),
        ("blocks.0.attn.qkv.bias", (72,)),
        ("blocks.0.attn.proj.weight", (24, 24)),
        ("blocks.0.attn.proj.bias", (24,)),
        ("blocks.0.norm2.weight", (24,)),
        ("blocks.0.norm2.bias", (24,)),
        ("blocks.0.mlp.fc1.weight", (48, 24)),
        ("blocks.0.mlp.fc1.bias", (48,)),
        ("blocks.0.mlp.fc2.weight", (24, 48)),
        ("blocks.0.mlp.fc2.bias", (24,)),
        ("norm.weight", (24,)),
        ("norm.bias", (24,)),
    }


def test_official_names_of_a_star_segmenter():
    names = build_official_shapes(tiny_config(**SEGMENTER, **STAR), SEGMENTATION)

    assert {
        "backbone.dist_token",
        "backbone.conv1x1.0.bias",
        "backbone.conv1x1.1.weight",
        "backbone.blocks.2.gamma_1",
        "backbone.blocks.2.gamma_2",
        "backbone.blocks.2.attn.relative_position_bias_table",
        "backbone.blocks.2.attn.relative_position_index",
        "backbone.fpn1.0.weight",
        "backbone.fpn1.1.running_mean",
        "backbone.fpn1.3.bias",
        "backbone.fpn2.0.weight",
        "backbone.fpn3.weight",
        "backbone.fpn4.0.weight",
        "decode_head.psp_modules.3.1.conv.weight",
        "decode_head.psp_modules.3.1.bn.running_var",
        "decode_head.bottleneck.bn.weight",
        "decode_head.lateral_convs.2.conv.weight",
        "decode_head.fpn_convs.2.bn.num_batches_tracked",
        "decode_head.fpn_bottleneck.conv.weight",
        "decode_head.conv_seg.bias",
        "auxiliary_head.convs.0.bn.bias",
        "auxiliary_head.conv_seg.weight",
    } <= names.keys()


def test_conversion_shares_values_and_leaves_its_input_alone(official):
    names = list(official)

    converted = convert_state_dict(official, tiny_config())

    name = "blocks.1.attn.qkv.weight"
    assert converted["tinymim.layers.1.attention.qkv.weight"].data_ptr() == official[name].data_ptr()
    assert list(official) == names


# --- What lies in a checkpoint


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda net: net, "the file itself"),
        (lambda net: {"model": net, "optimizer": {}, "epoch": 3, "scaler": {}}, "model"),
        (lambda net: {"state_dict": net, "meta": {"CLASSES": ("road",)}}, "state_dict"),
        (lambda net: {"module": net}, "module"),
        (lambda net: {"model": {f"module.{name}": tensor for name, tensor in net.items()}}, "model"),
        (lambda net: {"model": {f"module.encoder.{name}": tensor for name, tensor in net.items()}}, "model"),
    ],
    ids=["flat", "training", "mmseg", "deepspeed", "module-prefix", "both-prefixes"],
)
def test_finds_the_weights(official, wrap, place):
    found_place, state_dict = select_state_dict(wrap(official))

    assert found_place == place
    assert find_changed_tensors(official, state_dict) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a dictionary; got list"),
        ({"epoch": 3}, "dense tensors; got int under 'epoch'"),
        ({"model": {}}, "must hold a state dict; got dict"),
        ({"model": {"a": torch.zeros(1), "b": torch.zeros(1).double()}}, r"one floating type; got \['torch.float32'"),
    ],
    ids=["list", "no-tensor", "empty", "mixed"],
)
def test_refuses_what_is_no_state_dict(content, message):
    with pytest.raises(ConversionError, match=message):
        select_state_dict(content)


# --- What is dropped


def test_masked_autoencoder_loses_its_decoder(official):
    full = official | fill_state_dict(MAE_DECODER)

    converted = convert_state_dict(full, tiny_config())

    assert find_changed_tensors(official, revert_state_dict(converted, tiny_config())) == []


def test_star_classifier_loses_the_head_of_the_distillation_token(tmp_path, capsys):
    official = fill_official(tiny_config(num_labels=7, **STAR), CLASSIFICATION)
    surplus = {"head_dist.weight": torch.zeros(7, 40), "head_dist.bias": torch.zeros(7)}
    torch.save({"model": official | surplus}, tmp_path / "star.pth")

    report = run(tmp_path / "star.pth", *TINY_FLAGS)

    assert list(report["names"]["dropped"]) == list(surplus)
    assert "head_dist.weight: classifier of the distillation token" in capsys.readouterr().out


def test_mean_pooling_classifier_loses_a_final_norm():
    config = tiny_config(num_labels=7)
    official = fill_official(config, CLASSIFICATION)
    surplus = {"norm.weight": torch.ones(24), "norm.bias": torch.zeros(24)}

    converted = convert_state_dict(official | surplus, config)

    assert find_changed_tensors(official, revert_state_dict(converted, config)) == []


def test_classifier_of_the_class_token_keeps_its_final_norm():
    config = tiny_config(num_labels=7, pooling="cls")

    converted = convert_state_dict(fill_official(config, CLASSIFICATION), config)

    assert "tinymim.layernorm.weight" in converted


# --- What is refused


def test_refuses_a_missing_tensor(official):
    del official["blocks.1.mlp.fc2.bias"]

    with pytest.raises(ConversionError, match=r"missing: blocks\.1\.mlp\.fc2\.bias\. "):
        convert_state_dict(official, tiny_config())


@pytest.mark.parametrize("name", ["blocks.1.attn.q_norm.weight", "decoder.weight", "head_distance.bias"])
def test_refuses_an_unexpected_tensor(official, name):
    official[name] = torch.zeros(3)

    with pytest.raises(ConversionError, match=f"unexpected: {name}"):
        convert_state_dict(official, tiny_config())


def test_refuses_a_tensor_of_another_shape(official):
    official["pos_embed"] = torch.zeros(1, 16, 24)

    with pytest.raises(ConversionError, match=r"pos_embed \[1, 16, 24\] instead of \[1, 17, 24\]"):
        convert_state_dict(official, tiny_config())


def test_refuses_relative_positions_in_another_order():
    config = tiny_config(**SEGMENTER)
    official = fill_official(config, SEGMENTATION)
    name = "backbone.blocks.1.attn.relative_position_index"
    official[name] = official[name].flip(0)

    with pytest.raises(ConversionError, match=f"{name} is not"):
        convert_state_dict(official, config)


def test_way_back_refuses_a_missing_tensor(official):
    ours = convert_state_dict(official, tiny_config())
    del ours["tinymim.layernorm.bias"]

    with pytest.raises(ConversionError, match=r"TinyMimForPreTraining; missing: tinymim\.layernorm\.bias"):
        revert_state_dict(ours, tiny_config())


def test_refuses_to_guess_the_number_of_heads(official):
    with pytest.raises(ConversionError, match=r"`hidden_size` 24 .* Give `--num_attention_heads`"):
        infer_config(official, PRETRAINING)


def test_refuses_another_variant(official):
    with pytest.raises(ConversionError, match="got 'base' for `hidden_size` 24"):
        infer_config(official, PRETRAINING, "base", num_attention_heads=2)


def test_refuses_an_unknown_variant(official):
    with pytest.raises(ValueError, match="`variant` must be one of .*; got 'huge'"):
        infer_config(official, PRETRAINING, "huge")


def test_refuses_another_network():
    with pytest.raises(ConversionError, match=r"named patch_embed\.proj\.weight; it has none"):
        infer_config({"conv1.weight": torch.zeros(4, 3, 7, 7)}, PRETRAINING)


def test_refuses_another_patch_projection(official):
    official["patch_embed.proj.weight"] = torch.zeros(24, 192)

    with pytest.raises(ConversionError, match=r"4 axes in patch_embed\.proj\.weight; got \[24, 192\]"):
        infer_config(official, PRETRAINING)


def test_refuses_a_task_without_a_head(official):
    with pytest.raises(ValueError, match=r"one of \['pretraining', 'image-feature-extraction'\] .* 'image-class"):
        find_layout(official, "image-classification")


def test_refuses_to_guess_an_oblong_grid():
    config = tiny_config(image_size=[32, 48])
    official = fill_official(config)

    with pytest.raises(ConversionError, match="square grid of patches; got 25 rows"):
        infer_config(official, PRETRAINING, num_attention_heads=2)


# --- Inference that needs a name


@pytest.mark.parametrize(
    ("variant", "heads"), [("tiny", 3), ("small", 6), ("base", 12), ("mae-large", 16), ("tiny-star", 12)]
)
def test_heads_come_from_the_variant(variant, heads):
    layout = CLASSIFICATION if variant == "tiny-star" else PRETRAINING
    shapes = build_official_shapes(TinyMimConfig.from_variant(variant), layout)
    official = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    assert infer_config(official, layout).num_attention_heads == heads
    assert infer_config(official, layout, variant, num_attention_heads=1).num_attention_heads == 1


@pytest.mark.parametrize(
    ("surplus", "flags", "layer"),
    [({}, {}, -2), (MAE_DECODER, {}, -1), ({}, {"feature_layer": -1}, -1)],
    ids=["student", "masked-autoencoder", "asked-for"],
)
def test_students_show_the_features_of_the_block_before_the_last(official, surplus, flags, layer):
    official |= fill_state_dict(surplus)

    assert infer_config(official, PRETRAINING, num_attention_heads=2, **flags).feature_layer == layer


# --- The command


@pytest.mark.parametrize(("layout", "fields"), CASES.values(), ids=CASES)
def test_command_writes_a_folder_that_loads(layout, fields, tmp_path, capsys):
    official = fill_official(tiny_config(**fields), layout)
    torch.save({"model": official}, tmp_path / "net.pth")

    report = run(tmp_path / "net.pth", "--task", layout.task, *TINY_FLAGS)

    model = layout.architecture.from_pretrained(tmp_path / "folder")
    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), model.config)) == []
    assert report["architecture"] == layout.architecture.__name__
    assert report["source"] == {"file": "net.pth", "sha256": sha256_of(tmp_path / "net.pth"), "weights": "model"}
    assert report["names"] == {"in_the_file": len(official), "matched": len(official), "dropped": {}}
    assert report["round_trip"] == {"tensors": len(official), "bit_equal": len(official)}
    assert report["deterministic_fill"] == {"tensors": len(official), "bit_equal": len(official)}
    assert f"{len(official)} of {len(official)} tensors bit-equal" in capsys.readouterr().out


def test_script_runs_from_anywhere(checkpoint, tmp_path):
    script = REPOSITORY / "conversion" / "convert_tinymim.py"
    command = [sys.executable, script, "--checkpoint", checkpoint.name, "--output_dir", "tinymim", *TINY_FLAGS]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tinymim" / "model.safetensors").is_file()


def test_command_resizes_positions_and_says_so(checkpoint, official, tmp_path, capsys):
    report = run(checkpoint, "--image_size", "48x40", *TINY_FLAGS)

    model = TinyMimForPreTraining.from_pretrained(tmp_path / "folder")
    expected = resize_position_embeddings(official["pos_embed"], (4, 4), (6, 5))
    assert torch.equal(model.tinymim.embeddings.position_embeddings, expected)
    assert "from 4 x 4 to 6 x 5 patches" in report["resized"]["pos_embed"]
    assert report["round_trip"] == {"tensors": len(official) - 1, "bit_equal": len(official) - 1}
    assert "pos_embed: resized from 4 x 4 to 6 x 5 patches" in capsys.readouterr().out
    processor = TinyMimImageProcessor.from_pretrained(tmp_path / "folder")
    assert dict(processor.crop_size) == {"height": 48, "width": 40}


def test_command_takes_the_size_of_an_oblong_grid(tmp_path):
    official = fill_official(tiny_config(image_size=[32, 40]))
    torch.save(official, tmp_path / "net.pth")

    report = run(tmp_path / "net.pth", "--image_size", "32x40", *TINY_FLAGS)

    assert report["resized"] == {}
    assert report["round_trip"]["bit_equal"] == len(official)


def test_command_refuses_to_resize_relative_positions(tmp_path):
    torch.save(fill_official(tiny_config(**SEGMENTER), SEGMENTATION), tmp_path / "seg.pth")

    with pytest.raises(SystemExit, match="`image_size` must be 32, that of the checkpoint"):
        run(tmp_path / "seg.pth", "--image_size", "64", *TINY_FLAGS)


def test_command_converts_a_segmenter_of_ade20k(tmp_path):
    config = tiny_config(**SEGMENTER | {"num_labels": 150})
    torch.save({"state_dict": fill_official(config, SEGMENTATION), "meta": {}}, tmp_path / "seg.pth")

    run(tmp_path / "seg.pth", *TINY_FLAGS)

    assert TinyMimForSemanticSegmentation.from_pretrained(tmp_path / "folder").config.decode_hidden_size == 8
    assert TinyMimImageProcessor.from_pretrained(tmp_path / "folder").do_reduce_labels is True


def test_values_stay_bit_for_bit_in_half_precision(official, tmp_path):
    official = {name: tensor.bfloat16() for name, tensor in official.items()}
    official["norm.bias"][0] = float("nan")
    official["norm.bias"][1] = -0.0
    torch.save(official, tmp_path / "net.pth")

    run(tmp_path / "net.pth", *TINY_FLAGS)

    model = TinyMimForPreTraining.from_pretrained(tmp_path / "folder")
    assert model.dtype == torch.bfloat16
    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), model.config)) == []


def test_tensors_that_share_memory_are_written(official, tmp_path):
    official["norm.bias"] = official["blocks.0.norm1.bias"]
    torch.save(official, tmp_path / "net.pth")

    report = run(tmp_path / "net.pth", *TINY_FLAGS)

    assert report["round_trip"]["bit_equal"] == len(official)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (lambda net: net.pop("norm.bias"), r"missing: norm\.bias"),
        (lambda net: net.update({"surplus.weight": torch.zeros(2)}), r"unexpected: surplus\.weight"),
    ],
    ids=["missing", "extra"],
)
def test_command_refuses_incomplete_files(official, problem, message, tmp_path):
    problem(official)
    torch.save(official, tmp_path / "net.pth")

    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run(tmp_path / "net.pth", *TINY_FLAGS)

    assert not (tmp_path / "folder").exists()


def test_command_runs_nothing_that_a_file_holds(official, tmp_path):
    torch.save({"model": official, "path": Path("net")}, tmp_path / "net.pth")

    with pytest.raises(SystemExit, match="nothing in it was executed"):
        run(tmp_path / "net.pth", *TINY_FLAGS)


def test_every_layout_is_tested():
    assert {layout for layout, _ in CASES.values()} == set(LAYOUTS.values())
