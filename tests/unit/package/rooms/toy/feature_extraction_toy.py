import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin


class ToyFeatureExtractor(FeatureExtractionMixin):
    model_input_names = ["node_features"]

    def __call__(self, graph: dict, return_tensors: str | None = None) -> BatchFeature:
        return BatchFeature({"node_features": np.asarray(graph["node_features"], np.float32)}, return_tensors)
