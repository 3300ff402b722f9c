import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from .configuration_toy import ToyConfig


class ToyModel(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"
    main_input_name = "node_features"

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.projection = nn.Linear(config.num_features, config.num_features)
        self.post_init()


class ToyForNodeClassification(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "toy"
    main_input_name = "node_features"

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.classifier = nn.Linear(config.num_features, config.num_labels)
        self.post_init()

    def forward(self, node_features: torch.Tensor, **kwargs) -> TokenClassifierOutput:
        return TokenClassifierOutput(logits=self.classifier(node_features))
