"""A PMT-IQA small enough for a test, with no two widths equal that could be mixed up."""

from decahub import PmtIqaConfig


CROP_SIZE = 64


def tiny_backbone(**overrides) -> dict:
    """Maps of a crop of 64 pixels: 16, 8, 4 and 2 cells a side."""
    return {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 6,
        "hidden_sizes": [6, 10, 12, 18],
        "depths": [1, 1, 2, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
        **overrides,
    }


def tiny_config(**overrides) -> PmtIqaConfig:
    """Pooling by 2 gives grids of 8, 4, 2 and 1 windows, as the published model has."""
    fields = {
        "backbone_config": tiny_backbone(),
        "crop_size": CROP_SIZE,
        "pool_size": 2,
        "lda_channels": [3, 4, 5],
        "lda_out_channels": 7,
        "target_in_size": 32,
        "hidden_size": 15,
        "shared_size": 8,
        "num_levels": 6,
    }
    return PmtIqaConfig(**{**fields, **overrides})
