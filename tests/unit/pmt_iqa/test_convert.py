"""The converter: names both ways bit for bit, wrapped files, backbones of other libraries, refusals."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import ResNetBackbone, ResNetForImageClassification

from conversion.checkpoint import ConversionError, find_changed_tensors
from conversion.convert_pmt_iqa import (
    build_official_shapes,
    convert_state_dict,
    infer_config,
    main,
    revert_state_dict,
    select_state_dict,
)
from conversion.deterministic_fill import fill_state_dict
from decahub import PmtIqaConfig, PmtIqaForImageQualityAssessment, PmtIqaImageProcessor, PmtIqaModel
from decahub.models.pmt_iqa.backbone_weights import load_backbone_weights, rename_torchvision
from tests.tiny.pmt_iqa import tiny_backbone, tiny_config


BOTTLENECK = tiny_backbone(layer_type="bottleneck", hidden_sizes=[8, 12, 16, 20])


def build_config(**fields) -> PmtIqaConfig:
    """What the tensors show cannot tell crop and pooling apart, so both are those of the published model."""
    return tiny_config(crop_size=224, pool_size=7, **fields)


@pytest.fixture
def official():
    return fill_state_dict(build_official_shapes(build_config()))


def test_published_model_has_the_names_of_the_authors():
    names = build_official_shapes(PmtIqaConfig())

    assert len(names) == 339
    assert names["res.conv1.weight"] == (64, 3, 7, 7)
    assert names["res.layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert names["res.layer1.0.downsample.1.running_var"] == (256,)
    assert names["res.lda3_pool.0.weight"] == (64, 1024, 1, 1)
    assert names["res.lda1_fc.weight"] == (28, 1024)
    assert names["fcs.2.bias"] == (14,)
    assert names["fc_cls.2.weight"] == (10, 14)
    assert names["fc_mos.weight"] == (1, 14)


@pytest.mark.parametrize("backbone", [tiny_backbone(), BOTTLENECK], ids=["basic", "bottleneck"])
def test_round_trip_is_bit_equal(backbone):
    config = build_config(backbone_config=backbone)
    official = fill_state_dict(build_official_shapes(config))
    model = PmtIqaForImageQualityAssessment(config)

    model.load_state_dict(convert_state_dict(official, config))

    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), config)) == []


@pytest.mark.parametrize("backbone", [tiny_backbone(), BOTTLENECK], ids=["basic", "bottleneck"])
def test_infers_what_shapes_show(backbone):
    config = build_config(backbone_config=backbone)

    inferred = infer_config(fill_state_dict(build_official_shapes(config)))

    assert build_official_shapes(inferred) == build_official_shapes(config)
    assert inferred.backbone_config.layer_type == backbone["layer_type"]


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "params"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_finds_the_weights(official, wrapper, prefix):
    content = {f"{prefix}{name}": tensor for name, tensor in official.items()}

    place, found = select_state_dict(content if wrapper is None else {wrapper: content, "epoch": 3})

    assert place == (wrapper or "the file itself")
    assert find_changed_tensors(official, found) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("fcs.2.bias"), r"missing: fcs\.2\.bias"),
        (lambda tensors: tensors.update({"extra.weight": torch.zeros(1)}), r"unexpected: extra\.weight"),
        (lambda tensors: tensors.update({"fc_mos.bias": torch.zeros(2)}), r"fc_mos\.bias \[2\] instead of \[1\]"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_refuses(official, change, message):
    change(official)

    with pytest.raises(ConversionError, match=message):
        convert_state_dict(official, build_config())


def test_refuses_another_network():
    with pytest.raises(ConversionError, match=r"it has no 'res\.layer1\.0\.conv1\.weight'"):
        infer_config({"fcs.0.weight": torch.zeros(2, 2)})


def test_command_writes_a_folder_that_loads(official, tmp_path, capsys):
    torch.save({"state_dict": official}, tmp_path / "net.pth")

    main(["--checkpoint", str(tmp_path / "net.pth"), "--output_dir", str(tmp_path / "out"), "--score_high", "1"])

    model = PmtIqaForImageQualityAssessment.from_pretrained(tmp_path / "out")
    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), model.config)) == []
    assert model.config.score_high == 1
    assert PmtIqaImageProcessor.from_pretrained(tmp_path / "out").crop_size == {"height": 224, "width": 224}
    assert f"{len(official)} of {len(official)} matched" in capsys.readouterr().out


def test_hostile_file_is_refused_and_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"state_dict": Hostile()}, tmp_path / "net.pth")

    with pytest.raises(SystemExit, match="nothing in it was executed"):
        main(["--checkpoint", str(tmp_path / "net.pth"), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "executed").exists()


# Backbones of other libraries


def to_torchvision(backbone: torch.nn.Module, official: dict) -> dict[str, torch.Tensor]:
    tensors = {name.removeprefix("res."): tensor for name, tensor in official.items() if name.startswith("res.")}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("lda")}


def test_torchvision_names_fill_the_backbone(official):
    model = PmtIqaModel(build_config())
    tensors = to_torchvision(model.backbone, official)

    unused = load_backbone_weights(model.backbone, {**tensors, "fc.weight": torch.zeros(3, 18)})

    assert unused == ["fc.weight"]
    for name, tensor in tensors.items():
        assert torch.equal(model.backbone.state_dict()[rename_torchvision(name)], tensor), name


def test_transformers_resnet_fills_the_backbone():
    config = build_config()
    source = ResNetForImageClassification(config.backbone_config)
    backbone = ResNetBackbone(config.backbone_config)

    unused = load_backbone_weights(backbone, source.state_dict())

    assert all(name.startswith("classifier.") for name in unused)
    expected = {f"resnet.{name}": tensor for name, tensor in backbone.state_dict().items()}
    assert all(torch.equal(source.state_dict()[name], tensor) for name, tensor in expected.items())


def test_refuses_weights_of_another_backbone(official):
    tensors = to_torchvision(None, official)
    other = PmtIqaModel(build_config(backbone_config=tiny_backbone(depths=[1, 1, 3, 1])))

    with pytest.raises(ValueError, match=r"must hold all weights of the backbone; \d+ of \d+ are missing"):
        load_backbone_weights(other.backbone, tensors)


def test_refuses_weights_of_a_backbone_that_are_not_finite():
    backbone = PmtIqaForImageQualityAssessment(tiny_config()).pmt_iqa.backbone
    state_dict = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    state_dict["embedder.embedder.convolution.weight"][0] = float("nan")

    with pytest.raises(ValueError, match=r"must be finite; `embedder\.embedder\.convolution\.weight` holds NaN"):
        load_backbone_weights(backbone, state_dict)


def test_command_starts_a_model_from_a_backbone(tmp_path, capsys):
    pytest.importorskip("timm")
    import timm

    network = timm.create_model("mobilenetv3_small_050")
    save_file(network.state_dict(), tmp_path / "timm.safetensors")
    words = ["--checkpoint", str(tmp_path / "timm.safetensors"), "--output_dir", str(tmp_path / "out")]

    with pytest.raises(SystemExit, match="`variant` or `timm_backbone` must say what backbone the file holds"):
        main(words)
    main([*words, "--timm_backbone", "mobilenetv3_small_050"])

    model = PmtIqaForImageQualityAssessment.from_pretrained(tmp_path / "out")
    weight = network.state_dict()["conv_stem.weight"]
    assert torch.equal(model.pmt_iqa.backbone._backbone.conv_stem.weight, weight)
    assert "classifier.weight" in capsys.readouterr().out
