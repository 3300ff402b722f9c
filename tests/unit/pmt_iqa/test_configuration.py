"""PmtIqaConfig: variants, round trips, and every contradiction refused by name."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, ResNetConfig

from decahub import PmtIqaConfig, PmtIqaForImageQualityAssessment, PmtIqaModel
from tests.tiny.pmt_iqa import tiny_backbone, tiny_config


# Counted layer by layer: backbone, 1x1 convolutions, projections, shared layers and heads.
SIZES = {
    "tiny": 1_313_061,
    "resnet18": 11_277_253,
    "resnet18_wide": 11_344_196,
    "resnet50": 23_716_293,
    "resnet50_l11": 23_716_308,
    "resnet50_wide": 24_010_564,
    "resnet50_mid": 23_761_420,
}


@pytest.mark.parametrize("variant", SIZES)
def test_variant_has_its_size(variant):
    with torch.device("meta"):
        model = PmtIqaForImageQualityAssessment(PmtIqaConfig.from_variant(variant))

    assert model.num_parameters() == SIZES[variant]


def test_default_is_the_published_model():
    assert PmtIqaConfig().to_dict() == PmtIqaConfig.from_variant("resnet50").to_dict()


def test_grids_and_sizes_of_branches():
    config = PmtIqaConfig()

    assert config.branch_grids == [8, 4, 2, 1]
    assert config.branch_sizes == [28, 28, 28, 28]


def test_another_crop_size_has_another_grid():
    assert PmtIqaConfig(crop_size=160, pool_size=5).branch_grids == [8, 4, 2, 1]


@pytest.mark.parametrize(
    "backbone", [None, tiny_backbone(), ResNetConfig(**tiny_backbone())], ids=["default", "dict", "config"]
)
def test_round_trip(backbone, tmp_path):
    config = PmtIqaConfig(backbone_config=backbone, score_high=5.0, calibration=[5.0, 0.0, 2.5, 1.0], level_width=0.5)
    config.save_pretrained(tmp_path)

    loaded = AutoConfig.from_pretrained(tmp_path)

    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_in_size": 84}, r"`target_in_size` must be greater than 3 \* `lda_out_channels` \(84\); got 84"),
        ({"lda_channels": [16, 32]}, r"`lda_channels` must hold .* but the last, 3; got \[16, 32\]"),
        ({"lda_channels": [16, 0, 64]}, r"`lda_channels` must hold a positive number"),
        ({"feature_strides": [4, 0, 16, 32]}, r"`feature_strides` must hold positive numbers"),
        ({"pool_size": 8}, r"`pool_size` must be at most 7, .* got 8"),
        ({"crop_size": 31}, r"`pool_size` must be at most 0"),
        ({"num_levels": 1}, r"`num_levels` must be at least 2; got 1"),
        ({"score_low": 5, "score_high": 5}, r"`score_low` must be less than `score_high` \(5\); got 5"),
        ({"level_width": 0}, r"`level_width` must be positive; got 0"),
        ({"level_width": 10.0, "score_high": 1.0}, r"from 0 to 1 into about `num_levels` \(10\) levels; 10 gives 0.1"),
        ({"level_width": 0.01, "score_high": 1.0}, "0.01 gives 100"),
        ({"level_rule": "ceil"}, r"ceil"),
        ({"task_schedule": "random"}, r"random"),
        ({"w_reg": 0, "w_cls": 0}, r"`w_reg` or `w_cls` must be positive"),
        ({"w_reg": -1.0}, r"`w_reg` must be at least 0; got -1"),
        ({"calibration": [1.0, 2.0]}, r"`calibration` must hold the 4 parameters .* got 2"),
        ({"calibration": [1.0, 0.0, 1.0, 0.0]}, r"the last of `calibration` must not be 0"),
        ({"score_high": float("inf")}, r"`score_high` must be finite; got inf"),
        ({"level_width": float("nan")}, r"`level_width` must be finite; got nan"),
        ({"leaky_slope": float("nan")}, r"`leaky_slope` must be finite; got nan"),
        ({"w_cls": float("nan")}, r"`w_cls` must be finite; got nan"),
        ({"calibration": [1.0, 0.0, float("nan"), 1.0]}, r"`calibration` must be finite; got"),
        ({"num_level": 3}, r"`num_level` must be a field of PmtIqaConfig.* Did you mean `num_levels`"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refuses(fields, message):
    with pytest.raises((StrictDataclassError, ValueError), match=message):
        PmtIqaConfig(**fields)


def test_refuses_a_backbone_with_another_number_of_maps():
    config = tiny_config(backbone_config=tiny_backbone(out_features=["stage2", "stage4"]))

    with pytest.raises(ValueError, match=r"one feature map for each of `feature_strides` \(4\); got 2"):
        PmtIqaModel(config)


def test_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match="got 'resnet_50'. Did you mean 'resnet50'"):
        PmtIqaConfig.from_variant("resnet_50")
