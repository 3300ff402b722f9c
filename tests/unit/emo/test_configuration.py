"""EmoConfig: published variants, round trips, and every contradiction refused by name."""

import pytest
import torch
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassError,
    StrictDataclassFieldValidationError,
)

from decahub import EmoConfig, EmoForImageClassification, EmoModel, TinyMimConfig
from tests.tiny.emo import tiny_config


# methods/emo.md section 2: parameters and state-dict entries of the released models.
SIZES = {"1m": (1_361_168, 217), "2m": (2_377_472, 258), "5m": (5_108_848, 258), "6m": (6_168_496, 258)}
NUM_HEADS = {"1m": (4, 8), "2m": (6, 10), "5m": (5, 9), "6m": (8, 10)}


@pytest.mark.parametrize("variant", SIZES)
def test_variant_has_the_published_size(variant):
    with torch.device("meta"):
        model = EmoForImageClassification(EmoConfig.from_variant(variant))

    assert (model.num_parameters(), len(model.state_dict())) == SIZES[variant]


@pytest.mark.parametrize("variant", NUM_HEADS)
def test_variant_has_the_published_number_of_heads(variant):
    config = EmoConfig.from_variant(variant)

    heads = [size // head_dim for size, head_dim in zip(config.hidden_sizes, config.head_dims, strict=True)]

    assert tuple(heads[2:]) == NUM_HEADS[variant]


def test_default_is_the_smallest_variant():
    assert EmoConfig(num_labels=1000).to_dict() == EmoConfig.from_variant("1m").to_dict()


def test_variant_has_imagenet_labels_unless_told_otherwise():
    assert EmoConfig.from_variant("5m").num_labels == 1000
    assert EmoConfig.from_variant("5m", num_labels=4).num_labels == 4
    named = EmoConfig.from_variant(
        "5m", id2label={0: "cat", 1: "dog", 2: "owl"}, label2id={"cat": 0, "dog": 1, "owl": 2}
    )
    assert named.num_labels == 3


def test_variant_takes_overrides_and_keeps_the_rest():
    config = EmoConfig.from_variant("2m", window_sizes=[4, 4, 4, 2], stem_stride=1)

    assert (config.window_sizes, config.stem_stride, config.depths) == ([4, 4, 4, 2], 1, [3, 3, 9, 3])


def test_overrides_of_one_config_leave_the_table_alone():
    EmoConfig.from_variant("1m").depths[0] = 99

    assert EmoConfig.from_variant("1m").depths == [2, 2, 8, 3]


CONTRADICTIONS = {
    "short list": ({"depths": [1, 2, 2]}, r"`depths` must have one entry per stage \(4\); got 3"),
    "long list": ({"hidden_acts": ["silu"] * 5}, r"`hidden_acts` must have one entry per stage \(4\); got 5"),
    "no block": ({"depths": [1, 0, 2, 2]}, r"`depths` .* at least 1; got \[1, 0, 2, 2\]"),
    "even kernel": (
        {"depthwise_kernel_sizes": [3, 3, 4, 5]},
        r"`depthwise_kernel_sizes` must be odd; got \[3, 3, 4, 5\]",
    ),
    "unknown norm": (
        {"norm_types": ["batch_norm", "group_norm", "layer_norm", "layer_norm"]},
        r"`norm_types` must hold only \['batch_norm', 'layer_norm'\]; got 'group_norm'",
    ),
    "unknown activation": ({"hidden_acts": ["silu", "silu", "tanh", "gelu"]}, r"`hidden_acts` .* got 'tanh'"),
    "heads": (
        {"head_dims": [8, 12, 7, 14]},
        r"`hidden_sizes` must be multiples of `head_dims`.* got 16 and 7 in stage 3",
    ),
    "heads after expansion": (
        {"attention_before_expansion": False, "expansion_ratios": [2.0, 2.5, 3.0, 3.25]},
        r"91 channels and 2 heads in stage 4",
    ),
    "groups": (
        {"grouped_value": True, "expansion_ratios": [2.0, 2.5, 3.0, 3.25]},
        r"`grouped_value`.*91 channels and 2 heads in stage 4",
    ),
    "stem stride": ({"stem_stride": 4}, r"`stem_stride` must be 1 or 2; got 4"),
    "no channel": ({"num_channels": 0}, r"`num_channels` must be at least 1; got 0"),
    "no width left": (
        {"expansion_ratios": [0.01, 2.5, 3.0, 3.5]},
        r"`expansion_ratios` must leave at least one channel",
    ),
    "certain dropout": ({"drop_path_rate": 1.0}, r"`drop_path_rate` must lie in \[0, 1\); got 1.0"),
    "negative smoothing": ({"label_smoothing": -0.1}, r"`label_smoothing` must lie in \[0, 1\); got -0.1"),
    "endless stage": ({"depths": [1, 2, 10**7, 2]}, r"`depths` must be at most 1000; got 10000000"),
    "endless width": ({"hidden_sizes": [8, 12, 16, 10**9]}, r"`hidden_sizes` must be at most 65536; got 10"),
    "endless expansion": ({"expansion_ratios": [2.0, 2.5, 3.0, 9000]}, r"`expansion_ratios` must be at most 65536"),
    "endless head": ({"decode_hidden_size": 10**9}, r"`decode_hidden_size` must be at most 65536; got 10"),
    "frozen stage": ({"frozen_stages": 5}, r"`frozen_stages` must lie in \[-1, 4\]; got 5"),
}


@pytest.mark.parametrize(("fields", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_refuses_contradicting_fields(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_config(**fields)


def test_refuses_more_classes_than_memory_holds_names_of():
    with pytest.raises(ValueError, match="`num_labels` must be at most 1000000; got 1000000000"):
        tiny_config(num_labels=10**9)


@pytest.mark.parametrize(("name", "nearest"), [("hiden_sizes", "hidden_sizes"), ("num_label", "num_labels")])
def test_refuses_unknown_fields_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"`{name}` must be a field of EmoConfig.*Did you mean `{nearest}`"):
        tiny_config(**{name: 3})


def test_a_file_with_keys_of_another_version_loads(tmp_path):
    config = tiny_config()
    config.later_field = 3
    config.save_pretrained(tmp_path)

    loaded = EmoConfig.from_pretrained(tmp_path)

    assert (loaded.later_field, loaded.hidden_sizes) == (3, config.hidden_sizes)
    assert "_is_saved" not in loaded.to_dict()


def test_refuses_the_folder_of_another_method(tmp_path):
    TinyMimConfig().save_pretrained(tmp_path)

    with pytest.raises(ValueError, match="`model_type` must be 'emo' for EmoConfig; the folder holds a 'tinymim'"):
        EmoForImageClassification.from_pretrained(tmp_path)


WRONG_TYPES = {
    "text for a list": ({"depths": "2"}, "depths"),
    "fraction for a count": ({"depths": [1, 2, 2, 1.5]}, "depths"),
    "text for a number": ({"stem_hidden_size": "24"}, "stem_hidden_size"),
    "unknown window mode": ({"window_mode": "shifted"}, "window_mode"),
    "unknown decode head": ({"decode_head": "unet"}, "decode_head"),
}


@pytest.mark.parametrize(("fields", "name"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_refuses_wrong_types(fields, name):
    with pytest.raises(StrictDataclassFieldValidationError, match=f"field '{name}'"):
        tiny_config(**fields)


def test_heads_need_not_divide_where_nothing_attends():
    config = tiny_config(use_attention=[False] * 4, head_dims=[5, 5, 5, 5])

    assert config.head_dims == [5, 5, 5, 5]


def test_model_refuses_a_config_that_was_broken_after_construction():
    config = tiny_config()
    config.depths = [1, 2, 2]

    with pytest.raises(StrictDataclassError, match=r"`depths` must have one entry per stage"):
        EmoModel(config)


def test_round_trip_through_json_keeps_every_field(tmp_path):
    config = tiny_config(
        expansion_ratios=(2, 2.5, 3, 3.5),
        mask_padding=True,
        decode_head="sem_fpn",
        out_indices=[1, -1],
        drop_path_rate=0,
    )

    config.save_pretrained(tmp_path)

    loaded = EmoConfig.from_pretrained(tmp_path)
    as_lists = {**config.to_dict(), "expansion_ratios": [2, 2.5, 3, 3.5]}
    assert loaded.to_dict() == as_lists


@pytest.mark.parametrize(
    ("choice", "features", "indices"),
    [
        ({}, ["stage4"], [4]),
        ({"out_indices": [0, 3]}, ["stem", "stage3"], [0, 3]),
        ({"out_indices": [-2, -1]}, ["stage3", "stage4"], [-2, -1]),
        ({"out_features": ["stage1", "stage4"]}, ["stage1", "stage4"], [1, 4]),
    ],
    ids=["last", "indices", "negative indices", "names"],
)
def test_names_and_indices_of_outputs_stay_in_step(choice, features, indices):
    config = tiny_config(**choice)

    assert config.stage_names == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert (config.out_features, list(config.out_indices)) == (features, indices)


def test_refuses_unknown_stage():
    with pytest.raises(ValueError, match=r"stage5"):
        tiny_config(out_features=["stage5"])


@pytest.mark.parametrize(
    ("decode_head", "expected"), [("deeplabv3", True), ("pspnet", True), ("segformer", False), ("sem_fpn", False)]
)
def test_auxiliary_head_goes_with_the_heads_that_were_trained_with_it(decode_head, expected):
    assert tiny_config(decode_head=decode_head).has_auxiliary_head is expected
    assert tiny_config(decode_head=decode_head, use_auxiliary_head=not expected).has_auxiliary_head is not expected
