"""An EMO small enough for a test, with no two widths equal that could be mixed up."""

from decahub import EmoConfig


def tiny_config(**overrides) -> EmoConfig:
    """Two heads attend in stages 3 and 4; at 32 x 48 pixels the stage maps are 8 x 12, 4 x 6, 2 x 3 and 1 x 2."""
    fields = {
        "stem_hidden_size": 10,
        "depths": [1, 2, 2, 2],
        "hidden_sizes": [8, 12, 16, 28],
        "head_dims": [8, 12, 8, 14],
        "window_sizes": [4, 4, 4, 4],
        "decode_hidden_size": 6,
        "auxiliary_hidden_size": 5,
        "num_labels": 7,
    }
    return EmoConfig(**{**fields, **overrides})
