"""A VoVNet small enough for a test, with no two widths equal that could be mixed up."""

from decahub import CmtVovNetConfig


def tiny_vovnet_config(**overrides) -> CmtVovNetConfig:
    """Two blocks in stage 2; at 64 x 96 pixels the stage maps are 16 x 24, 8 x 12, 4 x 6 and 2 x 3."""
    fields = {
        "stem_sizes": [6, 7, 10],
        "layer_sizes": [5, 6, 7, 9],
        "hidden_sizes": [8, 12, 16, 20],
        "num_layers_per_block": 2,
        "depths": [1, 2, 1, 1],
    }
    return CmtVovNetConfig(**{**fields, **overrides})
