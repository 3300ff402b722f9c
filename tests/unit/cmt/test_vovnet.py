"""VoVNet and the neck: published sizes, the formula of a block, rounding of maps, what is refused."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoBackbone

from decahub import CmtVovNetBackbone, CmtVovNetConfig
from decahub.models.cmt.camera.image_neck import CmtImageNeck
from tests.tiny.cmt_vovnet import tiny_vovnet_config


# Method specification, section 2.
NUM_PARAMETERS = {
    "99": 69_523_520,
    "57": 41_454_912,
    "39": 25_184_128,
    "19": 10_180_416,
    "19-dw": 5_518_080,
    "19-slim": 2_653_136,
    "19-slim-dw": 1_384_752,
}
NECK_PARAMETERS = {(768, 1024): 1_049_344, (1024, 2048): 1_377_024}
V99_TENSORS = 527  # without counters of batches
ATOL = 1e-5  # float32, sums of up to 60 products in another order


@pytest.mark.parametrize("variant", NUM_PARAMETERS)
def test_variant_has_the_published_number_of_parameters(variant):
    with torch.device("meta"):
        model = CmtVovNetBackbone(CmtVovNetConfig.from_variant(variant))

    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[variant]


def test_v99_has_the_published_number_of_tensors():
    with torch.device("meta"):
        names = CmtVovNetBackbone(CmtVovNetConfig.from_variant("99")).state_dict()

    assert sum(not name.endswith("num_batches_tracked") for name in names) == V99_TENSORS


@pytest.mark.parametrize("in_sizes", NECK_PARAMETERS, ids=["vovnet", "resnet"])
def test_neck_has_the_published_number_of_parameters(in_sizes):
    with torch.device("meta"):
        neck = CmtImageNeck(in_sizes, 256)

    assert sum(parameter.numel() for parameter in neck.parameters()) == NECK_PARAMETERS[in_sizes]


@torch.no_grad()
def test_block_is_its_formula():
    torch.manual_seed(0)
    backbone = CmtVovNetBackbone(tiny_vovnet_config(use_depthwise=False)).eval()
    block = backbone.stages[1].blocks[1]
    inputs = torch.randn(2, 12, 5, 7)

    def convolve(layer, maps, padding):
        normalization = layer.normalization
        normed = (
            functional.conv2d(maps, layer.convolution.weight, padding=padding)
            - normalization.running_mean[:, None, None]
        )
        normed = normed / (normalization.running_var[:, None, None] + normalization.eps).sqrt()
        return (normed * normalization.weight[:, None, None] + normalization.bias[:, None, None]).clamp(min=0)

    chain = [inputs]
    for layer in block.layers:
        chain.append(convolve(layer, chain[-1], padding=1))
    projected = convolve(block.projection, torch.cat(chain, 1), padding=0)
    weight, bias = block.gate.projection.weight[..., 0, 0], block.gate.projection.bias
    gate = ((projected.mean((2, 3)) @ weight.T + bias + 3).clamp(0, 6) / 6)[..., None, None]

    torch.testing.assert_close(block(inputs), projected * gate + inputs, atol=ATOL, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (70, 90), (33, 50)])
@torch.no_grad()
def test_maps_are_rounded_up(height, width):
    backbone = CmtVovNetBackbone(tiny_vovnet_config(out_features=["stem", "stage1", "stage2", "stage3", "stage4"]))

    maps = backbone.eval()(torch.zeros(1, 3, height, width)).feature_maps

    sizes = [tuple(feature_map.shape[-2:]) for feature_map in maps]
    # Two convolutions of stride 2, then windows of 3 that may begin, but not lie, outside of the map.
    expected = [((height + 3) // 4, (width + 3) // 4)] * 2
    for _ in range(3):
        expected.append(tuple(-(-(side - 3) // 2) + 1 for side in expected[-1]))
    assert sizes == expected
    assert backbone.channels == [10, 8, 12, 16, 20]


def test_auto_backbone_builds_it():
    backbone = AutoBackbone.from_config(tiny_vovnet_config(out_features=["stage3", "stage4"]))

    assert type(backbone) is CmtVovNetBackbone
    assert backbone.channels == [16, 20]


def test_input_embeddings_are_the_stem():
    backbone = CmtVovNetBackbone(tiny_vovnet_config())

    assert backbone.get_input_embeddings() is backbone.stem


def test_mode_calls_return_the_model():
    backbone = CmtVovNetBackbone(tiny_vovnet_config())

    assert backbone.eval() is backbone
    assert backbone.train() is backbone


@torch.no_grad()
def test_saved_backbone_loads(tmp_path):
    torch.manual_seed(0)
    backbone = CmtVovNetBackbone(tiny_vovnet_config()).eval()
    pixel_values = torch.randn(2, 3, 40, 56)

    backbone.save_pretrained(tmp_path)
    loaded = CmtVovNetBackbone.from_pretrained(tmp_path)

    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in backbone.state_dict().items())
    expected, features = (network(pixel_values).feature_maps[0] for network in (backbone, loaded))
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 32, 32), (3, 32, 32), (1, 2, 3, 32, 32)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"`pixel_values` must have shape \(batch_size, 3, height, width\); got"):
        CmtVovNetBackbone(tiny_vovnet_config())(torch.zeros(shape))


def test_refuses_unknown_inputs():
    with pytest.raises(ValueError, match="`pixels` must be an input of CmtVovNetBackbone"):
        CmtVovNetBackbone(tiny_vovnet_config())(torch.zeros(1, 3, 32, 32), pixels=1)


@torch.no_grad()
def test_neck_repeats_coarse_cells():
    torch.manual_seed(0)
    neck = CmtImageNeck((4, 6), 5)
    fine, coarse = torch.zeros(2, 4, 3, 5), torch.randn(2, 6, 2, 3)

    level, top = neck([fine, coarse])

    lateral = neck.lateral_convolutions[0].bias[:, None, None] + top
    rows, columns = [0, 0, 1], [0, 0, 1, 1, 2]  # floor(i * 2 / 3), floor(j * 3 / 5)
    expected = neck.output_convolution(lateral[:, :, rows][..., columns])
    torch.testing.assert_close(level, expected, atol=ATOL, rtol=0)


def test_neck_starts_with_xavier_weights():
    torch.manual_seed(0)
    neck = CmtImageNeck((40, 60), 50)

    neck.init_weights()

    bound = (6 / (40 + 50)) ** 0.5
    largest = neck.lateral_convolutions[0].weight.abs().max().item()
    assert 0.98 * bound < largest <= bound
    assert not neck.output_convolution.bias.any()
