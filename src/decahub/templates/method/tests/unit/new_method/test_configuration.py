"""NewMethod's configuration: variants, JSON, and what it refuses."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from decahub import NewMethodConfig
from decahub.models.new_method.configuration_new_method import VARIANTS
from tests.tiny.new_method import tiny_config


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_survives_json(name, tmp_path):
    config = NewMethodConfig.from_variant(name, num_labels=3)

    config.save_pretrained(tmp_path)

    assert NewMethodConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 13}, "`image_size` must be a multiple of `patch_size` .4.; got 13"),
        ({"num_attention_heads": 6}, "`hidden_size` must be a multiple of `num_attention_heads` .6.; got 20"),
        ({"hidden_size": 20.5}, "hidden_size"),
    ],
    ids=["size", "heads", "type"],
)
def test_refuses(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**fields)


def test_refuses_unknown_variant():
    with pytest.raises(ValueError, match=r"`name` must be one of .*tiny.*; got 'huge'"):
        NewMethodConfig.from_variant("huge")
