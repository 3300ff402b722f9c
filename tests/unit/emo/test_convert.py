"""The converter of EMO: names and values both ways, what it infers, what it refuses, and the folder that it writes.

Parameter and entry counts are those of the paper's release (method specification, sections 2 and 4).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.reference_emo import ReferenceEmo
from conversion.checkpoint import ConversionError, find_changed_tensors, sha256_of, shapes_of
from conversion.convert_emo import (
    config_from_official,
    convert_state_dict,
    infer_config,
    main,
    revert_state_dict,
    select_state_dict,
)
from conversion.deterministic_fill import fill_state_dict
from conversion.layouts_emo import BACKBONE, CLASSIFICATION, SEGMENTATION, build_official_shapes
from decahub import EmoBackbone, EmoConfig, EmoForImageClassification, EmoForSemanticSegmentation, EmoImageProcessor
from tests.tiny.emo import tiny_config


REPOSITORY = Path(__file__).parents[3]
DECODE_HEADS = ("deeplabv3", "pspnet", "segformer", "sem_fpn")
ENTRIES = {"1m": 217, "2m": 258, "5m": 258, "6m": 258}
PARAMETERS = {"1m": 1_361_168, "2m": 2_377_472, "5m": 5_108_848, "6m": 6_168_496}
SEGMENTER_MILLIONS = {  # as released for 150 labels, with the auxiliary head; cut off after one digit
    ("deeplabv3", "1m"): 5.6,
    ("deeplabv3", "2m"): 6.9,
    ("deeplabv3", "5m"): 10.3,
    ("pspnet", "1m"): 4.3,
    ("pspnet", "2m"): 5.5,
    ("pspnet", "5m"): 8.5,
}
LOGITS_ATOL = 5e-6  # loaded weights lie unaligned in a mapped file, for which torch takes other kernels
TINY_FLAGS = ["--head_dims", "8", "12", "8", "14", "--window_sizes", "4", "4", "4", "4"]


def fill_official(config: EmoConfig, layout=CLASSIFICATION) -> dict[str, torch.Tensor]:
    return fill_state_dict(build_official_shapes(config, layout))


def describe_official(config: EmoConfig, layout=CLASSIFICATION) -> dict[str, torch.Tensor]:
    """The authors' names and shapes without values."""
    return {name: torch.empty(shape, device="meta") for name, shape in build_official_shapes(config, layout).items()}


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    """The authors' tensors of a tiny classifier."""
    return fill_official(tiny_config())


@pytest.fixture
def checkpoint(official, tmp_path) -> Path:
    """The same as a file."""
    torch.save(official, tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.mark.parametrize("variant", ENTRIES)
def test_round_trip_through_a_model_is_bit_equal(variant):
    config = EmoConfig.from_variant(variant)
    official = fill_official(config)
    model = EmoForImageClassification(config)

    model.load_state_dict(convert_state_dict(official, config))
    restored = revert_state_dict(model.state_dict(), config)

    assert find_changed_tensors(official, restored) == []
    assert len(restored) == ENTRIES[variant]


@pytest.mark.parametrize("variant", PARAMETERS)
def test_variant_has_the_published_number_of_parameters(variant):
    with torch.device("meta"):
        model = EmoForImageClassification(EmoConfig.from_variant(variant))

    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[variant]


@pytest.mark.parametrize(("head", "variant"), SEGMENTER_MILLIONS)
def test_segmenter_has_the_published_number_of_parameters(head, variant):
    with torch.device("meta"):
        model = EmoForSemanticSegmentation(EmoConfig.from_variant(variant, decode_head=head, num_labels=150))

    count = sum(parameter.numel() for parameter in model.parameters())
    assert count // 100_000 / 10 == SEGMENTER_MILLIONS[head, variant]


@pytest.mark.parametrize("variant", ENTRIES)
def test_official_names_are_those_of_a_model_built_from_the_paper(variant):
    config = EmoConfig.from_variant(variant)
    with torch.device("meta"):
        reference = ReferenceEmo(config)

    assert build_official_shapes(config, CLASSIFICATION) == shapes_of(reference.state_dict())


@pytest.mark.parametrize("head", DECODE_HEADS)
@pytest.mark.parametrize("use_auxiliary_head", [True, False], ids=["auxiliary", "plain"])
def test_segmenter_round_trip_is_bit_equal(head, use_auxiliary_head):
    config = tiny_config(decode_head=head, use_auxiliary_head=use_auxiliary_head)
    official = fill_official(config, SEGMENTATION)
    model = EmoForSemanticSegmentation(config)

    model.load_state_dict(convert_state_dict(official, config))

    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), config)) == []
    assert any(name.startswith("auxiliary_head.") for name in official) == use_auxiliary_head


def test_conversion_shares_values_and_leaves_its_input_alone(official):
    names = list(official)

    converted = convert_state_dict(official, tiny_config())

    name = "stage3.1.qk.conv.weight"
    assert converted["emo.stages.2.blocks.1.query_key.weight"].data_ptr() == official[name].data_ptr()
    assert list(official) == names


# --- Inference of the configuration


@pytest.mark.parametrize("variant", ENTRIES)
def test_infers_every_variant(variant):
    config = EmoConfig.from_variant(variant)

    inferred = infer_config(describe_official(config))

    assert inferred.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm_types": ["layer_norm", "batch_norm", "layer_norm", "batch_norm"]},
        {"depthwise_kernel_sizes": [5, 3, 7, 1]},
        {"use_attention": [False, True, False, False]},
        {"use_attention": [False, False, False, False]},
        {"qkv_bias": False},
        {"grouped_value": True, "expansion_ratios": [2.0, 2.5, 3.0, 3.0]},
        {"pre_classifier_size": 9},
        {"num_labels": 0},
        {"num_channels": 1},
    ],
    ids=lambda fields: "-".join(fields) or "plain",
)
def test_infers_what_shapes_show(fields):
    config = tiny_config(**fields)

    inferred = infer_config(describe_official(config), head_dims=config.head_dims)

    for field in ("stem_hidden_size", "depths", "hidden_sizes", "expansion_ratios", *fields):
        assert getattr(inferred, field) == getattr(config, field), field


@pytest.mark.parametrize(
    "fields",
    [
        {"expansion_ratios": [1.7, 2.3, 3.1, 0.45]},
        {"expansion_ratios": [8 / 3, 3.14159, 1.0, 7]},
        {"squeeze_excitation_ratios": [0.25, 0.0, 0.3, 0.125]},
    ],
    ids=["short", "long", "squeeze"],
)
def test_infers_ratios_that_give_the_same_widths(fields):
    config = tiny_config(**fields)

    inferred = infer_config(describe_official(config), head_dims=config.head_dims)

    assert build_official_shapes(inferred, CLASSIFICATION) == build_official_shapes(config, CLASSIFICATION)


@pytest.mark.parametrize("head", DECODE_HEADS)
def test_infers_the_decode_head(head):
    config = tiny_config(decode_head=head)

    inferred = infer_config(describe_official(config, SEGMENTATION), head_dims=config.head_dims)

    for field in ("decode_head", "decode_hidden_size", "num_labels", "has_auxiliary_head"):
        assert getattr(inferred, field) == getattr(config, field), field
    assert build_official_shapes(inferred, SEGMENTATION) == build_official_shapes(config, SEGMENTATION)


def test_segmenter_of_5m_gets_windows_of_16():
    config = EmoConfig.from_variant("5m", decode_head="segformer", num_labels=3)

    assert infer_config(describe_official(config, SEGMENTATION)).window_sizes == [16, 16, 16, 16]


def test_maps_the_authors_keywords():
    keywords = {"embed_dims": [16, 20, 40, 42], "dim_heads": [16, 20, 20, 21], "norm_layers": ["ln_2d"] * 4}

    config = config_from_official({**keywords, "attn_pre": False, "num_classes": 3, "exp_ratios": [2, 2, 2, 2]})

    assert config.hidden_sizes == [16, 20, 40, 42]
    assert config.norm_types == ["layer_norm"] * 4
    assert config.attention_before_expansion is False
    assert config.num_labels == 3


def test_refuses_an_unknown_keyword_of_the_authors():
    with pytest.raises(ValueError, match="got 'img_size'"):
        config_from_official({"img_size": 224})


# --- What lies in a checkpoint


def averaged(official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in official.items()}


@pytest.mark.parametrize(
    ("wrap", "weights", "place"),
    [
        (lambda net: net, None, "the file itself"),
        (lambda net: {"net": net, "net_E": averaged(net), "iter": 3}, None, "net_E"),
        (lambda net: {"net": net, "net_E": None, "optimizer": {}}, None, "net"),
        (lambda net: {"net": net, "net_E": averaged(net)}, "net", "net"),
        (lambda net: {"state_dict": net, "meta": {"CLASSES": ("road",)}}, None, "state_dict"),
        (lambda net: {"net": {f"module.{name}": tensor for name, tensor in net.items()}}, None, "net"),
    ],
    ids=["flat", "averaged", "no-averaged", "asked-for", "mmseg", "module-prefix"],
)
def test_finds_the_weights(official, wrap, weights, place):
    found_place, state_dict = select_state_dict(wrap(official), weights)

    assert found_place == place
    assert find_changed_tensors(averaged(official) if place == "net_E" else official, state_dict) == []


@pytest.mark.parametrize(
    ("content", "weights", "message"),
    [
        ({"net": {}, "net_E": None}, "net_E", r"`weights` must name weights .*\['net'\]; got 'net_E'"),
        ([1, 2], None, "must hold a dictionary; got list"),
        ({"epoch": 3}, None, "dense tensors; got int under 'epoch'"),
        ({}, None, "must hold a state dict; got dict"),
        ({"a": torch.zeros(1), "b": torch.zeros(1).double()}, None, r"one floating type; got \['torch.float32'"),
        ({"a": torch.zeros(2).to_sparse()}, None, "dense tensors; got Tensor under 'a'"),
    ],
    ids=["absent", "list", "no-tensor", "empty", "mixed", "sparse"],
)
def test_refuses_what_is_no_state_dict(content, weights, message):
    with pytest.raises(ConversionError, match=message):
        select_state_dict(content, weights)


def test_refuses_a_missing_tensor(official):
    del official["stage3.1.qk.conv.bias"]

    with pytest.raises(ConversionError, match=r"missing: stage3\.1\.qk\.conv\.bias\. "):
        convert_state_dict(official, tiny_config())


def test_refuses_an_unexpected_tensor(official):
    official["stage3.1.qk.norm.weight"] = torch.zeros(3)

    with pytest.raises(ConversionError, match=r"unexpected: stage3\.1\.qk\.norm\.weight\. "):
        convert_state_dict(official, tiny_config())


def test_refuses_a_tensor_of_another_shape(official):
    official["head.weight"] = torch.zeros(7, 29)

    with pytest.raises(ConversionError, match=r"head\.weight \[7, 29\] instead of \[7, 28\]"):
        convert_state_dict(official, tiny_config())


def test_way_back_refuses_a_missing_tensor(official):
    ours = convert_state_dict(official, tiny_config())
    del ours["classifier.bias"]

    with pytest.raises(ConversionError, match=r"EmoForImageClassification; missing: classifier\.bias"):
        revert_state_dict(ours, tiny_config())


def test_detector_keeps_its_backbone():
    config = tiny_config()
    official = fill_official(config, BACKBONE)
    dropped = {"bbox_head.cls.weight": torch.zeros(2), "neck.fpn_convs.0.conv.bias": torch.zeros(3)}

    converted = convert_state_dict({**official, **dropped}, config)

    EmoBackbone(config).load_state_dict(converted)
    assert find_changed_tensors(official, revert_state_dict(converted, config)) == []


def test_refuses_a_detector_with_unknown_parts():
    official = {**fill_official(tiny_config(), BACKBONE), "keypoint_head.weight": torch.zeros(2)}

    with pytest.raises(ConversionError, match=r"unexpected: keypoint_head\.weight"):
        convert_state_dict(official, tiny_config())


def test_refuses_an_unknown_decode_head():
    official = fill_official(tiny_config(decode_head="pspnet"), SEGMENTATION)
    official = {name.replace("psp_modules", "ppm"): tensor for name, tensor in official.items()}

    with pytest.raises(ConversionError, match="one decode head of .*; found none"):
        infer_config(official, head_dims=tiny_config().head_dims)


def test_refuses_to_guess_head_sizes(official):
    with pytest.raises(ConversionError, match=r"`hidden_sizes` \[8, 12, 16, 28\].* Give `--head_dims`"):
        infer_config(official)


def test_refuses_another_variant():
    official = describe_official(EmoConfig.from_variant("1m"))

    with pytest.raises(ConversionError, match="got '2m' .* which are those of '1m'"):
        infer_config(official, "2m")


def test_refuses_blocks_of_different_widths(official):
    official["stage3.1.v.conv.weight"] = official["stage3.1.v.conv.weight"][:-1]

    with pytest.raises(ConversionError, match=r"one expansion ratio in stage3\.\*\.v\.conv\.weight; got 72 .* 47"):
        infer_config(official, head_dims=tiny_config().head_dims)


def test_refuses_another_network():
    with pytest.raises(ConversionError, match=r"named like stage0\.0\.convs\.0\.0\.weight; it has none"):
        infer_config({"conv1.weight": torch.zeros(4, 3, 7, 7)})


# --- The command


def test_command_writes_a_folder_that_loads(official, checkpoint, tmp_path, capsys):
    folder, pixel_values = tmp_path / "emo", torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    expected = EmoForImageClassification(tiny_config())
    expected.load_state_dict(convert_state_dict(official, tiny_config()))

    main(["--checkpoint", str(checkpoint), "--output_dir", str(folder), *TINY_FLAGS])

    model = EmoForImageClassification.from_pretrained(folder)
    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), model.config)) == []
    torch.testing.assert_close(
        model(pixel_values).logits, expected.eval()(pixel_values).logits, atol=LOGITS_ATOL, rtol=0
    )
    assert EmoImageProcessor.from_pretrained(folder).size == {"shortest_edge": 256}
    report = json.loads((folder / "parity_report.json").read_text())
    assert report["source"] == {"file": "net.pth", "sha256": sha256_of(checkpoint), "weights": "the file itself"}
    assert report["names"] == {"in_the_file": len(official), "matched": len(official), "dropped": {}}
    assert report["round_trip"] == {"tensors": len(official), "bit_equal": len(official)}
    assert report["deterministic_fill"] == {"tensors": len(official), "bit_equal": len(official)}
    printed = capsys.readouterr().out
    assert sha256_of(checkpoint) in printed
    assert f"{len(official)} of {len(official)} matched" in printed


def test_script_runs_from_anywhere(checkpoint, tmp_path):
    script = REPOSITORY / "conversion" / "convert_emo.py"
    command = [sys.executable, script, "--checkpoint", checkpoint.name, "--output_dir", "emo", *TINY_FLAGS]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "emo" / "model.safetensors").is_file()


@pytest.mark.parametrize("head", ["segformer", "sem_fpn"])
def test_command_converts_a_segmenter(head, tmp_path):
    config = tiny_config(decode_head=head, num_labels=150)
    torch.save({"state_dict": fill_official(config, SEGMENTATION), "meta": {}}, tmp_path / "seg.pth")

    main(["--checkpoint", str(tmp_path / "seg.pth"), "--output_dir", str(tmp_path / "emo"), *TINY_FLAGS])

    assert EmoForSemanticSegmentation.from_pretrained(tmp_path / "emo").config.decode_head == head
    processor = EmoImageProcessor.from_pretrained(tmp_path / "emo")
    assert (processor.do_reduce_labels, processor.do_center_crop) == (True, False)


def test_command_reports_what_it_drops(tmp_path, capsys):
    official = {**fill_official(tiny_config(), BACKBONE), "bbox_head.cls.weight": torch.zeros(2)}
    torch.save({"state_dict": official}, tmp_path / "det.pth")

    main(["--checkpoint", str(tmp_path / "det.pth"), "--output_dir", str(tmp_path / "emo"), *TINY_FLAGS])

    assert "bbox_head.cls.weight: head of a detector" in capsys.readouterr().out
    assert EmoBackbone.from_pretrained(tmp_path / "emo").out_features == ["stage1", "stage2", "stage3", "stage4"]


def test_values_stay_bit_for_bit_in_half_precision(official, tmp_path):
    official = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in official.items()}
    official["head.bias"][0] = float("nan")
    official["head.bias"][1] = -0.0
    torch.save(official, tmp_path / "net.pth")

    main(["--checkpoint", str(tmp_path / "net.pth"), "--output_dir", str(tmp_path / "emo"), *TINY_FLAGS])

    model = EmoForImageClassification.from_pretrained(tmp_path / "emo")
    assert model.dtype == torch.bfloat16
    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), model.config)) == []


@pytest.mark.parametrize("problem", ["missing", "extra"])
def test_command_refuses_incomplete_files(official, checkpoint, problem, tmp_path):
    official = {**official, "surplus.weight": torch.zeros(2)} if problem == "extra" else official
    if problem == "missing":
        del official["stage2.1.proj.conv.weight"]
    torch.save(official, checkpoint)

    with pytest.raises(
        SystemExit, match=r"error: .*(missing: stage2\.1\.proj\.conv\.weight|unexpected: surplus\.weight)"
    ):
        main(["--checkpoint", str(checkpoint), "--output_dir", str(tmp_path / "emo"), *TINY_FLAGS])

    assert not (tmp_path / "emo").exists()


def test_command_refuses_a_folder_in_use(checkpoint, tmp_path):
    folder = tmp_path / "emo"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")

    with pytest.raises(SystemExit, match="`output_dir` must be new or empty"):
        main(["--checkpoint", str(checkpoint), "--output_dir", str(folder), *TINY_FLAGS])

    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_folder_appears_complete_or_not_at_all(checkpoint, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(EmoImageProcessor, "save_pretrained", fail)

    with pytest.raises(SystemExit, match="No space left on device"):
        main(["--checkpoint", str(checkpoint), "--output_dir", str(tmp_path / "emo"), *TINY_FLAGS])

    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
