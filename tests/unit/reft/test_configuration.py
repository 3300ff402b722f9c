"""RefT's configuration: Mask2Former's fields, further ones, and what is refused."""

import logging
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import Mask2FormerConfig

from decahub import RefTConfig
from tests.tiny.reft import RESNET, tiny_config


def test_every_field_of_mask2former_has_its_default():
    ours, theirs = RefTConfig().to_dict(), Mask2FormerConfig().to_dict()

    different = {name for name in theirs if ours[name] != theirs[name]}
    assert different <= {"model_type", "architectures", "transformers_version"}


def test_from_mask2former_copies_every_field():
    source = Mask2FormerConfig(
        backbone_config=RESNET, hidden_dim=48, num_queries=9, decoder_layers=5, id2label={0: "cat", 1: "dog", 2: "cow"}
    )

    config = RefTConfig.from_mask2former(source, classifier="cosine")

    copied, original = config.to_dict(), source.to_dict()
    assert {name for name in original if copied[name] != original[name]} <= {"model_type", "architectures"}
    assert config.classifier == "cosine"
    assert config.id2label == {0: "cat", 1: "dog", 2: "cow"}


def test_from_mask2former_refuses_another_configuration():
    with pytest.raises(TypeError, match="`config` must be a Mask2FormerConfig; got dict"):
        RefTConfig.from_mask2former({})


def test_survives_a_file(tmp_path):
    config = tiny_config(base_label_ids=[0, 2], novel_label_ids=[1], query_enhancement_targets=["class"], dropout=0)
    config.save_pretrained(tmp_path)

    assert RefTConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_a_resnet_gives_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        logging.getLogger("transformers").propagate = True
        tiny_config(backbone_config=dict(RESNET))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"support_topk": 8}, r"`support_topk` must be in \[1, `num_queries` \(7\)\]; got 8"),
        ({"support_topk": 0}, "`support_topk` must be in"),
        ({"reference_attention_heads": 5}, r"`reference_attention_heads` must divide `hidden_dim` \(48\); got 5"),
        ({"feature_size": 48, "hidden_dim": 48}, "`feature_size` must be a multiple of 32"),
        ({"query_enhancement_targets": ["class", "box"]}, "'class' and 'mask'; got 'box'"),
        ({"feature_fusion": "sum"}, "feature_fusion"),
        ({"shot_reduction": "max"}, "shot_reduction"),
        ({"query_selection": "first"}, "query_selection"),
        ({"classifier": "svm"}, "classifier"),
        ({"classifier": "prototype", "query_selection": "score"}, "`query_selection` must be 'mask'"),
        ({"support_size": 32}, "`support_size` must be a multiple of 32 and at least 64; got 32"),
        ({"support_size": 100}, "`support_size` must be a multiple of 32"),
        ({"support_context": 0.5}, "`support_context` must be finite and at least 1"),
        ({"support_context": math.nan}, "`support_context` must be finite"),
        ({"logit_scale_init": math.inf}, "`logit_scale_init` must be positive and finite"),
        ({"kd_feature_weight": math.nan}, "`kd_feature_weight` must be at least 0; got nan"),
        ({"max_support_queries_per_class": 0}, "`max_support_queries_per_class` must be at least 1"),
        ({"support_chunk_size": 0}, "`support_chunk_size` must be at least 1"),
        ({"kd_threshold": 1.5}, r"`kd_threshold` must be in \[0, 1\]; got 1.5"),
        ({"kd_class_weight": -1}, "`kd_class_weight` must be at least 0"),
        ({"logit_scale_init": 0}, "`logit_scale_init` must be positive"),
        ({"base_label_ids": [0, 5]}, r"`base_label_ids` must hold ids in \[0, 5\); got 5"),
        ({"base_label_ids": [0, 0]}, "`base_label_ids` must hold each class once"),
        ({"base_label_ids": [0, 1], "novel_label_ids": [1]}, r"must be disjoint; both hold \[1\]"),
        ({"dropout": 1}, "`dropout` must lie in"),
        ({"suport_size": 64}, "Did you mean `support_size`"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises((StrictDataclassError, ValueError), match=message):
        tiny_config(**fields)


def test_few_decoder_layers_give_a_warning(caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        tiny_config(decoder_layers=2)
    assert "the finest of 3 maps is never attended to" in caplog.text
