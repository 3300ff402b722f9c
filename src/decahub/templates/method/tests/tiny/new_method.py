"""A NewMethod small enough for a test, with no two widths equal that could be mixed up."""

from decahub import NewMethodConfig


def tiny_config(**overrides) -> NewMethodConfig:
    fields = {
        "image_size": 12,
        "patch_size": 4,
        "hidden_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "intermediate_size": 28,
        "num_labels": 7,
    }
    return NewMethodConfig(**{**fields, **overrides})
