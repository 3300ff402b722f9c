"""A misspelled name is refused with the nearest one, wherever graph methods take names."""

import pytest
import torch

from decahub import (
    RawGnnConfig,
    RawGnnFeatureExtractor,
    RawGnnForNodeClassification,
    ReliantConfig,
    ReliantFeatureExtractor,
    ReliantForNodeClassification,
)
from decahub.models.raw_gnn.geometric import RawGnn


def run(model_class, config_class):
    graph = {"node_features": torch.ones(3, 2), "edge_index": torch.tensor([[0, 1], [1, 2]])}
    model = model_class(config_class(num_features=2, num_labels=2))
    return model(**graph, trian_mask=torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("call", "given", "nearest"),
    [
        (lambda: RawGnnFeatureExtractor(normalise_features=True), "normalise_features", "normalize_features"),
        (lambda: ReliantFeatureExtractor(sensitive_col="age"), "sensitive_col", "sensitive_column"),
        (lambda: RawGnnConfig(hiden_size=3), "hiden_size", "hidden_size"),
        (lambda: ReliantConfig(hiden_size=3), "hiden_size", "hidden_size"),
        (lambda: RawGnn(2, 4, 2, walk_lenght=2), "walk_lenght", "walk_length"),
        (lambda: run(RawGnnForNodeClassification, RawGnnConfig), "trian_mask", "train_mask"),
        (lambda: run(ReliantForNodeClassification, ReliantConfig), "trian_mask", "train_mask"),
    ],
)
def test_a_misspelled_name_is_refused_with_the_nearest(call, given, nearest):
    with pytest.raises(ValueError, match=rf"`{given}` must be .*it does not exist\. Did you mean `{nearest}`\?"):
        call()
