"""A graph network, its feature extractor and a processor of two parts, as small as they can be.

They stand for the kinds that EMO lacks, so that the harness is known to fit them before the first method needs it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, BatchFeature, FeatureExtractionMixin
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import ProcessorMixin
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs


@strict
class ToyGraphConfig(PreTrainedConfig):
    model_type = "decahub-toy-graph"

    num_features: int = 5
    hidden_size: int = 8
    num_hidden_layers: int = 2
    initializer_range: float | int = 0.1


@dataclass
class ToyGraphOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*): cross entropy over all nodes.
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`, *optional*): of the node classifier.
        last_hidden_state (`torch.FloatTensor` of shape `(num_nodes, hidden_size)`, *optional*): of the bare model.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): input of the first layer, then output of each.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class ToyGraphLayer(GradientCheckpointingLayer):
    def __init__(self, config: ToyGraphConfig):
        super().__init__()
        self.own = nn.Linear(config.hidden_size, config.hidden_size)
        self.neighbors = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        source, target = edge_index
        messages = torch.zeros_like(hidden_states).index_add(0, target, self.neighbors(hidden_states)[source])
        return hidden_states + torch.tanh(self.own(hidden_states) + messages)


class ToyGraphPreTrainedModel(PreTrainedModel):
    config_class = ToyGraphConfig
    config: ToyGraphConfig
    base_model_prefix = "graph"
    main_input_name = "node_features"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ToyGraphLayer"]
    _input_embed_layer = "projection"
    _can_record_outputs = {"hidden_states": ToyGraphLayer}


class ToyGraphModel(ToyGraphPreTrainedModel):
    def __init__(self, config: ToyGraphConfig):
        super().__init__(config)
        self.projection = nn.Linear(config.num_features, config.hidden_size)
        self.layers = nn.ModuleList(ToyGraphLayer(config) for _ in range(config.num_hidden_layers))
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, node_features: torch.Tensor, edge_index: torch.Tensor, **kwargs) -> ToyGraphOutput:
        hidden_states = self.projection(node_features)
        for layer in self.layers:
            hidden_states = layer(hidden_states, edge_index)
        return ToyGraphOutput(last_hidden_state=hidden_states)


class ToyGraphForNodeClassification(ToyGraphPreTrainedModel):
    def __init__(self, config: ToyGraphConfig):
        super().__init__(config)
        self.graph = ToyGraphModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.graph.get_input_embeddings()

    @can_return_tuple
    def forward(
        self,
        node_features: torch.Tensor,
        edge_index: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> ToyGraphOutput:
        outputs = self.graph(node_features, edge_index, **{**kwargs, "return_dict": True})
        logits = self.classifier(outputs.last_hidden_state)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ToyGraphOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class ToyGraphFeatureExtractor(FeatureExtractionMixin):
    """Scales the node features of one graph, given as arrays with edges of shape `(num_edges, 2)`."""

    model_input_names = ["node_features", "edge_index"]

    def __init__(self, scale: float = 1.0, **kwargs):
        self.scale = scale
        super().__init__(**kwargs)

    def __call__(self, graph: dict[str, np.ndarray], return_tensors: str | None = None, **kwargs) -> BatchFeature:
        features = np.asarray(graph["node_features"], dtype=np.float32) * np.float32(self.scale)
        edges = np.asarray(graph["edges"], dtype=np.int64).T
        return BatchFeature({"node_features": features, "edge_index": edges}, tensor_type=return_tensors)


class ToyGraphProcessor(ProcessorMixin):
    """Images and a graph together."""

    def __init__(self, image_processor=None, feature_extractor=None, **kwargs):
        super().__init__(image_processor, feature_extractor, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.image_processor.model_input_names, *self.feature_extractor.model_input_names]

    def __call__(self, images=None, graph=None, **kwargs) -> BatchFeature:
        if images is None and graph is None:
            raise ValueError("One of `images` and `graph` must be given; got neither.")
        merged = self._merge_kwargs(self.valid_processor_kwargs, tokenizer_init_kwargs={}, **kwargs)
        data = {} if images is None else dict(self.image_processor(images, **merged["images_kwargs"]))
        if graph is not None:
            data.update(self.feature_extractor(graph, return_tensors=kwargs.get("return_tensors")))
        return BatchFeature(data)


AutoConfig.register("decahub-toy-graph", ToyGraphConfig)
AutoModel.register(ToyGraphConfig, ToyGraphModel)
AutoFeatureExtractor.register(ToyGraphConfig, ToyGraphFeatureExtractor)
