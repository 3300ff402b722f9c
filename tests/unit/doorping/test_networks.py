"""The networks: sizes as published, initialization of both distillers, variants, and what they refuse."""

import math
from itertools import pairwise

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForImageClassification

from decahub import AlexNetConfig, ConvNetConfig, ConvNetForImageClassification, TransferNetConfig
from decahub.models.doorping.configuration_convnet import VARIANTS
from decahub.models.doorping.modeling_doorping import NETWORKS, build_network
from tests.tiny.doorping import tiny_network


def build_on_meta(config):
    with torch.device("meta"):
        return build_network(config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ConvNetConfig(num_labels=10), 694_090),
        (ConvNetConfig(num_labels=10, num_channels=1), 691_786),
        (AlexNetConfig(num_labels=10), 1_756_426),
        (AlexNetConfig(num_labels=10, num_channels=1), 1_753_226),
    ],
    ids=["convnet", "convnet gray", "alexnet", "alexnet gray"],
)
def test_number_of_parameters(config, expected):
    assert sum(value.numel() for value in build_on_meta(config).parameters()) == expected


def test_number_of_parameters_of_vgg11():
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in pairwise(widths))
    expected = convolutions + 2 * sum(widths[1:]) + 512 * 10 + 10

    network = build_on_meta(TransferNetConfig(num_labels=10, architecture="vgg11"))

    assert sum(value.numel() for value in network.parameters()) == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_survives_json(name, tmp_path):
    config = ConvNetConfig.from_variant(name)

    config.save_pretrained(tmp_path)

    assert ConvNetConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert build_on_meta(config).classifier[-1].out_features == 10


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("pooling", ["avg", "max", "none"])
@pytest.mark.parametrize("norm_type", ["none", "batch", "layer", "instance", "group"])
def test_every_combination_runs(norm_type, pooling, num_channels):
    if norm_type == "layer" and num_channels == 1:
        pytest.skip("refused: see test_refuses")
    fields = {"norm_type": norm_type, "pooling": pooling, "num_channels": num_channels, "hidden_size": 8}
    network = build_network(tiny_network(**fields)).eval()

    logits = network(torch.randn(2, num_channels, 12, 12)).logits

    assert logits.shape == (2, 4)


def test_gray_images_are_padded_by_three():
    network = build_network(ConvNetConfig(num_channels=1, hidden_size=2, num_labels=3))

    sizes = [maps.shape[-1] for maps in network.compute_feature_maps(torch.zeros(1, 1, 32, 32))]

    assert sizes == [18, 9, 4]


def test_classifier_without_hidden_layer_is_linear():
    network = build_network(tiny_network(classifier_hidden_size=None))

    assert isinstance(network.classifier, nn.Linear)
    assert network.classifier.in_features == 5 * 3 * 3


@pytest.mark.parametrize("init", ["default", "xavier"])
def test_initialization(init):
    torch.manual_seed(0)
    network = build_network(ConvNetConfig(hidden_size=64, init=init))
    weight, bias = network.features[3].weight, network.features[3].bias
    fan = 64 * 9

    if init == "xavier":
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (2 * fan)), rel=0.02)
        assert not bias.any()
    else:  # uniform within 1 / sqrt(fan_in), weights and biases
        assert weight.abs().max().item() == pytest.approx(fan**-0.5, rel=0.02)
        assert 0 < bias.abs().max().item() <= fan**-0.5


def test_input_embeddings_are_the_first_convolution():
    assert [build_on_meta(config()).get_input_embeddings().kernel_size for config in NETWORKS] == [
        (3, 3),
        (5, 5),
        (3, 3),
    ]


def test_loads_with_another_number_of_classes(tmp_path):
    network = build_network(tiny_network())
    network.save_pretrained(tmp_path)

    with pytest.raises(RuntimeError, match="size"):
        ConvNetForImageClassification.from_pretrained(tmp_path, num_labels=9)
    other = ConvNetForImageClassification.from_pretrained(tmp_path, num_labels=9, ignore_mismatched_sizes=True)

    assert other.classifier[-1].out_features == 9
    assert torch.equal(other.features[0].weight, network.features[0].weight)


@pytest.mark.parametrize(
    "config",
    [tiny_network(norm_type="batch"), AlexNetConfig(), TransferNetConfig(), TransferNetConfig(norm_type="batch")],
    ids=["convnet", "alexnet", "resnet18", "resnet18 batch"],
)
def test_loads_through_its_auto_class(config, tmp_path):
    network = build_network(config)
    network.save_pretrained(tmp_path)

    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)

    assert type(loaded) is type(network)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_learns_a_batch_in_bfloat16():
    torch.manual_seed(0)
    network = build_network(tiny_network()).to(torch.bfloat16)

    outputs = network(torch.randn(4, 3, 12, 12), labels=torch.arange(4))

    assert outputs.logits.dtype == torch.bfloat16
    outputs.loss.backward()
    assert network.features[0].weight.grad.abs().sum() > 0


def test_exports():
    network = build_network(tiny_network()).eval()
    images = torch.randn(2, 3, 12, 12)
    batch = torch.export.Dim("batch", min=1, max=64)

    program = torch.export.export(network, (images,), dynamic_shapes={"pixel_values": {0: batch}})

    more = torch.randn(5, 3, 12, 12)
    torch.testing.assert_close(program.module()(more).logits, network(more).logits)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AlexNetConfig(image_size=28), r"`image_size` must be 32 for AlexNet; got 28"),
        (lambda: TransferNetConfig(image_size=64), r"`image_size` must be 32 for resnet18; got 64"),
        (lambda: ConvNetConfig(norm_type="layer", num_channels=1), r"`norm_type` must not be 'layer'.*pads by 3"),
        (lambda: ConvNetConfig(norm_type="group", hidden_size=6), r"`hidden_size` must be a multiple of 4.*got 6"),
        (lambda: ConvNetConfig(num_hidden_layers=6), r"`num_hidden_layers` must leave at least one pixel.*got 6"),
        (lambda: ConvNetConfig(hidden_size=0), "`hidden_size` must be at least 1; got 0"),
        (lambda: ConvNetConfig(pooling="min"), "pooling"),
        (lambda: ConvNetConfig(hidden_sise=3), r"`hidden_sise` must be a field of ConvNetConfig"),
    ],
    ids=["alexnet size", "resnet size", "layer norm", "groups", "depth", "width", "pooling", "unknown"],
)
def test_refuses(build, message):
    with pytest.raises((StrictDataclassError, ValueError), match=message):
        build()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 12, 12), r"must have shape \(batch_size, 3, 12, 12\); got \(2, 1, 12, 12\)"),
        (torch.zeros(2, 3, 13, 12), r"got \(2, 3, 13, 12\)"),
        (torch.full((1, 3, 12, 12), float("nan")), "must be finite"),
        (None, "got None"),
    ],
    ids=["channels", "size", "NaN", "missing"],
)
def test_refuses_images(images, message):
    with pytest.raises(ValueError, match=message):
        build_network(tiny_network())(images)


def test_refuses_integers():
    with pytest.raises(TypeError, match=r"`pixel_values` must be floating point; got torch.uint8"):
        build_network(tiny_network())(torch.zeros(1, 3, 12, 12, dtype=torch.uint8))


@pytest.mark.parametrize("names", [{"hidden_state": True}])
def test_refuses_unknown_inputs(names):
    with pytest.raises(ValueError, match="`hidden_state` must be an input of ConvNetForImageClassification"):
        build_network(tiny_network())(torch.zeros(1, 3, 12, 12), **names)


@pytest.mark.parametrize("config_class", [AlexNetConfig, ConvNetConfig, TransferNetConfig])
def test_label_smoothing_is_a_rate(config_class):
    with pytest.raises(StrictDataclassError, match=r"`label_smoothing` must lie in \[0, 1\); got 1\.5"):
        config_class(label_smoothing=1.5)
