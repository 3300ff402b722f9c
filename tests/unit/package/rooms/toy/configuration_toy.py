from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


# Configurations that hold a backbone's ask for the Auto classes while their own module is not complete yet.
assert AutoConfig.for_model("vit").model_type == "vit"


@strict
class ToyConfig(PreTrainedConfig):
    model_type = "toy"

    num_features: int = 3
