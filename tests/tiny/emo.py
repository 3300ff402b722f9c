"""An EMO small enough for a test, with no two widths equal that could be mixed up."""

from torch import nn

from decahub import EmoConfig, EmoForImageClassification
from tests.tiny.batch_norms import make_norms_distinct


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


def build_distinct(model_class=EmoForImageClassification, **fields):
    """A model in evaluation mode whose batch norms are no identity and whose classifier is not near zero."""
    model = model_class(tiny_config(**fields)).eval()
    make_norms_distinct(model)
    for name, parameter in model.named_parameters():
        if name.endswith("classifier.weight"):
            nn.init.normal_(parameter, std=0.5)
    return model
