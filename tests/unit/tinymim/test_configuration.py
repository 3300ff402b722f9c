"""TinyMimConfig: variants, round trip, and every contradiction that is refused."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from decahub import TinyMimConfig, TinyMimForImageClassification, TinyMimModel
from decahub.models.tinymim.configuration_tinymim import VARIANTS
from tests.tiny.tinymim import tiny_config


# Parameters of the authors' models: with the 1000-way head and mean pooling, and without a head.
NUM_PARAMETERS = {
    "tiny": (5_717_416, 5_524_416),
    "small": (22_050_664, 21_665_664),
    "base": (86_567_656, 85_798_656),
}
NUM_LARGE_ENCODER_PARAMETERS = 303_301_632


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_variants_have_the_published_number_of_parameters(name):
    config = TinyMimConfig.from_variant(name)

    with torch.device("meta"):
        classifier, model = TinyMimForImageClassification(config), TinyMimModel(config)

    assert (classifier.num_parameters(), model.num_parameters()) == NUM_PARAMETERS[name]


def test_large_teacher_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = TinyMimModel(TinyMimConfig.from_variant("mae-large"))

    assert model.num_parameters() == NUM_LARGE_ENCODER_PARAMETERS


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_survive_a_file(name, tmp_path):
    config = TinyMimConfig.from_variant(name, relation_pairs=[["q", "q"], ["k", "k"], ["v", "v"]])

    config.save_pretrained(tmp_path)

    assert TinyMimConfig.from_pretrained(tmp_path).to_dict() == config.to_dict() | {
        "transformers_version": config.to_dict()["transformers_version"]
    }


REFUSED = {
    "image no multiple of the patch": ({"image_size": 33}, "multiple of `patch_size`.*33"),
    "patch 0": ({"patch_size": 0}, "`patch_size` must be at least 1"),
    "heads do not divide width": ({"num_attention_heads": 5}, "multiple of `num_attention_heads` .5.; got 24"),
    "width no multiple of 4": ({"hidden_size": 26}, "multiple of 4.*26"),
    "no blocks": ({"num_hidden_layers": 0}, "num_hidden_layers|feature_layer"),
    "feature layer": ({"feature_layer": -4}, "`feature_layer` must count from the last block"),
    "feature layer from the start": ({"feature_layer": 1}, "`feature_layer` must count from the last block"),
    "pyramid of one map": ({"use_feature_pyramid": True}, "`use_feature_pyramid` must come with 4"),
    "endless pool": ({"pool_scales": [1, 10**7]}, "`pool_scales` must be at most 1000; got 10000000"),
    "endless width": ({"hidden_size": 2**20}, "`hidden_size` must be at most 65536; got 1048576"),
    "endless image": ({"image_size": 8 * 10**6}, "`image_size` must give at most 16384 patches of 8; got 8000000"),
    "pool of nothing": ({"pool_scales": [0, 1]}, "`pool_scales` must hold numbers of at least 1"),
    "star without its end": (
        {"pre_logits_dim": 8, "num_hidden_layers": 5, "out_indices": [1, 2, 3, 4]},
        "must end with the last block, 'stage5'",
    ),
    "drop path 1": ({"drop_path_rate": 1.0}, r"`drop_path_rate` must lie in \[0, 1\)"),
    "mask everything": ({"mask_ratio": 1.0}, r"`mask_ratio` must lie in \(0, 1\)"),
    "negative weight": ({"auxiliary_loss_weight": -1.0}, "`auxiliary_loss_weight` must not be negative"),
    "beta 0": ({"smooth_l1_beta": 0}, "`smooth_l1_beta` must be positive"),
    "layer 0": ({"teacher_layer": 0}, "`teacher_layer` must count from 1"),
    "mean without std": ({"teacher_image_mean": [0.5]}, "must be given together"),
    "class token that is left out": ({"distillation_target": "cls", "include_cls": False}, "'cls'"),
    "nothing to reconstruct": ({"reconstruction_weight": 1.0}, "`student_input` is 'masked'"),
    "no pairs": ({"relation_pairs": []}, "at least one pair"),
    "unknown state": ({"relation_pairs": [["q", "x"]]}, r"\['q', 'x'\]"),
    "three states": ({"relation_pairs": [["q", "k", "v"]]}, "pairs of"),
    "divergence of scores": ({"relation_softmax": False}, "`relation_loss` must be 'mse' or 'smooth_l1'"),
    "no relation heads": ({"head_alignment": "relation_heads"}, "`num_relation_heads` must be given"),
    "relation heads": ({"head_alignment": "relation_heads", "num_relation_heads": 7}, "must divide `hidden_size`"),
    "heads of the teacher": ({"teacher_num_attention_heads": 5}, "relation_heads"),
}


def test_refuses_endless_depth():
    with pytest.raises(ValueError, match="`num_hidden_layers` must be at most 1000; got 10000000"):
        tiny_config(num_hidden_layers=10**7)


def test_refuses_unknown_fields_with_the_nearest():
    with pytest.raises(ValueError, match="`patchsize` must be a field of TinyMimConfig.*Did you mean `patch_size`"):
        tiny_config(patchsize=8)


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_contradictions(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**fields)


def test_pyramid_takes_thirds_of_the_depth_unless_told():
    assert TinyMimConfig().pyramid_indices == [4, 6, 8, 12]
    assert TinyMimConfig(out_indices=[1, 2, 3, 4]).pyramid_indices == [1, 2, 3, 4]


def test_last_block_has_the_heads_of_the_teacher_only_where_it_adapts():
    heads = {"teacher_num_attention_heads": 6}

    assert tiny_config(**heads).target_num_attention_heads == 6
    assert tiny_config(**heads, head_alignment="extra_block").target_num_attention_heads == 6
    assert tiny_config().target_num_attention_heads == 2
    relation_heads = {"head_alignment": "relation_heads", "num_relation_heads": 3}
    assert tiny_config(**heads, **relation_heads).target_num_attention_heads == 2
