"""RELIANT's students and teachers: graph networks that classify nodes, with columns that take the bias.

Paper: "RELIANT: Fair Knowledge Distillation for Graph Neural Networks", arXiv 2301.01150. A node's features are
followed by `proxy_dim` columns, the proxy of bias. In training each node has values of its own, which learn to explain
the gap between groups; a finished model reads their mean for every node, so that the bias they carry is the same for
all. Losses and training steps are in `loss.py` and `optimization.py`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from ..shared.checks import refuse_unknown_inputs
from ..shared.graph_inputs import EXTRACTED_ONLY
from ..shared.ignore_index import IGNORED_CLASS
from ..shared.losses import compute_node_loss, select_labels
from .adjacency import Adjacency, prepare_adjacency
from .configuration_reliant import NUM_REPLACED_COLUMNS, ReliantConfig
from .layers import (
    ReliantAttentionConvolution,
    ReliantConvolution,
    ReliantInitialResidualConvolution,
    ReliantLabelPropagation,
    ReliantLayer,
    ReliantLinear,
    ReliantModule,
    ReliantPersonalizedPropagation,
    ReliantSageConvolution,
)
from .loss import check_labels
from .neighborhood import find_neighborhood


INITIAL_PROXY_MEAN = 0.5  # of the uniform distribution that proxies start from


@dataclass
class ReliantModelOutput(ModelOutput):
    """Output of [`ReliantModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(num_nodes, hidden_size)`): what a classifier reads.
        node_embeddings (`torch.FloatTensor` of shape `(num_nodes, hidden_size)`): output of
            `config.embedding_layer`, which is what adversarial distillation compares.
        hidden_states (`tuple(torch.FloatTensor)`, returned with `output_hidden_states=True`): output of each hidden
            layer, `(num_nodes, hidden_size)`.
    """

    last_hidden_state: torch.FloatTensor | None = None
    node_embeddings: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class ReliantNodeClassifierOutput(ModelOutput):
    """Output of [`ReliantForNodeClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, returned with `labels`): cross entropy over `train_mask`.
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores; probabilities are their softmax.
        node_embeddings (`torch.FloatTensor` of shape `(num_nodes, hidden_size)`): as in [`ReliantModelOutput`].
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): as in [`ReliantModelOutput`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    node_embeddings: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


def build_hidden_layer(config: ReliantConfig, index: int) -> ReliantLayer:
    """Hidden layer number `index`, counted from 0."""
    in_size = config.input_size if index == 0 else config.hidden_size
    dropout_prob = config.feature_dropout_prob if index == 0 else config.hidden_dropout_prob
    if config.architecture == "gcnii":
        return ReliantInitialResidualConvolution(config, layer=index + 1)
    if config.architecture == "gat":
        return ReliantAttentionConvolution(
            config, in_size, config.hidden_size, dropout_prob, config.num_attention_heads
        )
    if config.architecture == "plp":
        return ReliantLinear(config, in_size, config.hidden_size, config.feature_dropout_prob)
    layer_class = {
        "sgc": ReliantConvolution,
        "gcn": ReliantConvolution,
        "sage": ReliantSageConvolution,
        "appnp": ReliantLinear,
        "mlp": ReliantLinear,
    }[config.architecture]
    return layer_class(config, in_size, config.hidden_size, dropout_prob)


def build_classifier(config: ReliantConfig) -> ReliantModule:
    """The last layer, which gives the scores of labels."""
    has_hidden_layers = config.num_hidden_layers > 0
    in_size = config.hidden_size if has_hidden_layers else config.input_size
    dropout_prob = config.hidden_dropout_prob if has_hidden_layers else config.feature_dropout_prob
    if config.architecture == "plp":
        return ReliantLabelPropagation(config, in_size, config.num_labels)
    if config.architecture == "gat":
        return ReliantAttentionConvolution(
            config, in_size, config.num_labels, dropout_prob, config.num_output_heads, average_heads=True
        )
    layer_class = {
        "sgc": ReliantConvolution,
        "gcn": ReliantConvolution,
        "sage": ReliantSageConvolution,
        "gcnii": ReliantLinear,
        "appnp": ReliantPersonalizedPropagation,
        "mlp": ReliantLinear,
    }[config.architecture]
    return layer_class(config, in_size, config.num_labels, dropout_prob)


class ReliantPreTrainedModel(PreTrainedModel):
    """Weights, loading and saving of RELIANT's models."""

    config: ReliantConfig
    config_class = ReliantConfig
    base_model_prefix = "reliant"
    main_input_name = "node_features"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = [
        "ReliantAttentionConvolution",
        "ReliantConvolution",
        "ReliantInitialResidualConvolution",
        "ReliantLabelPropagation",
        "ReliantLinear",
        "ReliantPersonalizedPropagation",
        "ReliantSageConvolution",
    ]

    @torch.no_grad()
    def _init_weights(self, module):
        # The initializations of the authors' layers; a rectifier's gain where theirs have it.
        gain = nn.init.calculate_gain("relu")
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        if isinstance(module, ReliantSageConvolution):
            init.xavier_uniform_(module.projection.weight, gain=gain)
        elif isinstance(module, ReliantAttentionConvolution):
            for weight in (module.projection.weight, module.source_attention, module.target_attention):
                init.xavier_normal_(weight, gain=gain)
        elif isinstance(module, ReliantLabelPropagation):
            init.xavier_normal_(module.label_scores, gain=gain)
            if module.node_balance is not None:
                init.zeros_(module.node_balance)
                init.constant_(module.known_labels, IGNORED_CLASS)
        elif isinstance(module, ReliantModel) and self.config.has_proxy:
            init.constant_(module.proxy_mean, INITIAL_PROXY_MEAN)
        if getattr(module, "bias", None) is not None:
            init.zeros_(module.bias)


class ReliantModel(ReliantPreTrainedModel):
    """Hidden layers of a graph network.

    `proxy_mean`, a buffer of shape `(proxy_dim,)`, is what finished models read in place of a proxy.

    Args:
        config ([`ReliantConfig`]): the architecture. For `"plp"` the hidden layers are those of its perceptron.
    """

    def __init__(self, config: ReliantConfig):
        super().__init__(config)
        config.validate()
        self.input_projection = None
        if config.architecture == "gcnii":
            self.input_projection = nn.Linear(config.input_size, config.hidden_size, bias=config.use_bias)
        self.layers = nn.ModuleList(build_hidden_layer(config, index) for index in range(config.num_hidden_layers))
        self.activation = functional.elu if config.architecture == "gat" else functional.relu
        if config.has_proxy:
            self.register_buffer("proxy_mean", torch.full((config.proxy_dim,), INITIAL_PROXY_MEAN))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:
        """What reads the features first."""
        return self.input_projection or next(iter(self.layers), None)

    @can_return_tuple
    def forward(
        self,
        node_features: torch.FloatTensor | None = None,
        edge_index: torch.LongTensor | None = None,
        proxy: torch.FloatTensor | None = None,
        adjacency: Adjacency | None = None,
        **kwargs: Any,
    ) -> ReliantModelOutput:
        """Hidden states of nodes.

        Args:
            node_features (`torch.FloatTensor` of shape `(num_nodes, num_features)`): without proxy columns.
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): messages go from the first row to the second.
                With `config.undirected` an edge counts in both directions.
            proxy (`torch.FloatTensor`, *optional*): of shape `(proxy_dim,)`, the same for every node, or
                `(num_nodes, proxy_dim)`; `proxy_mean` by default.
            adjacency ([`~decahub.models.reliant.adjacency.Adjacency`], *optional*): the edges as they are prepared, in
                place of `edge_index`.
            kwargs: `output_hidden_states` and `return_dict`.

        Returns:
            [`ReliantModelOutput`].

        Raises:
            TypeError: If features are no floats, or node ids no integers.
            ValueError: If shapes do not fit, features are not finite, or a node id is out of range.
        """
        refuse_unknown_inputs(self, kwargs, EXTRACTED_ONLY)
        if adjacency is None:
            check_graph(node_features, edge_index, self.config)
            adjacency = self.prepare_adjacency(edge_index, node_features.shape[0])
        hidden_states, node_embeddings = self.encode(self.add_proxy(node_features, proxy), adjacency)
        returns_all = kwargs.get("output_hidden_states")
        returns_all = self.config.output_hidden_states if returns_all is None else returns_all
        return ReliantModelOutput(
            last_hidden_state=hidden_states[-1],
            node_embeddings=node_embeddings,
            hidden_states=hidden_states[1:] if returns_all else None,
        )

    def prepare_adjacency(self, edge_index: torch.Tensor, num_nodes: int) -> Adjacency:
        return prepare_adjacency(edge_index, num_nodes, self.config.add_self_loops, self.config.undirected)

    def add_proxy(self, node_features: torch.Tensor, proxy: torch.Tensor | None = None) -> torch.Tensor:
        """Features with their proxy columns, `(num_nodes, input_size)`."""
        node_features = node_features.to(next(self.parameters(), node_features).dtype)
        num_nodes, config = node_features.shape[0], self.config
        if not config.has_proxy:
            if proxy is not None:
                raise ValueError("`proxy` must be left out with `proxy_mode='none'`.")
            return node_features
        proxy = self.proxy_mean if proxy is None else proxy
        if proxy.shape not in ((config.proxy_dim,), (num_nodes, config.proxy_dim)):
            raise ValueError(
                f"`proxy` must have shape ({config.proxy_dim},) or ({num_nodes}, {config.proxy_dim}); got "
                f"{tuple(proxy.shape)}."
            )
        if config.proxy_position == "replace_last_two":
            node_features = node_features[:, :-NUM_REPLACED_COLUMNS]
        columns = proxy.to(node_features.dtype).expand(num_nodes, config.proxy_dim)
        return torch.cat([node_features, columns], dim=1)

    def encode(self, features: torch.Tensor, adjacency: Adjacency) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Input and output of each hidden layer, one after the other, and the embeddings that are distilled."""
        current, further = features, ()
        if self.training and not features.requires_grad and any(layer.gradient_checkpointing for layer in self.layers):
            current = features.detach().requires_grad_()  # or reentrant checkpointing would lose the first layer
        if self.input_projection is not None:
            rate, is_active = self.config.feature_dropout_prob, self.training or self.config.eval_dropout
            current = self.activation(self.input_projection(functional.dropout(current, rate, is_active)))
            further = (current,)
        hidden_states, node_embeddings = [current], current
        for index, layer in enumerate(self.layers, start=1):
            outputs = layer(current, adjacency, *further)
            current = self.activation(outputs)
            hidden_states.append(current)
            if self.config.embedding_layer in (index, -1):
                node_embeddings = outputs if self.config.embedding_before_activation else current
        return tuple(hidden_states), node_embeddings

    @torch.no_grad()
    def set_proxy_mean(self, proxy: torch.Tensor) -> None:
        """Keeps the mean of a proxy, which goes to the file with the weights.

        Args:
            proxy (`torch.FloatTensor` of shape `(num_nodes, proxy_dim)`): values of all nodes.

        Raises:
            ValueError: If the model reads no proxy.
        """
        if not self.config.has_proxy:
            raise ValueError("`proxy_mode` of the config must not be 'none' if a proxy is to be kept.")
        self.proxy_mean.copy_(proxy.mean(0))


class ReliantForNodeClassification(ReliantPreTrainedModel):
    """A graph network that classifies nodes: student or teacher.

    Args:
        config ([`ReliantConfig`]): the architecture.
    """

    def __init__(self, config: ReliantConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.reliant = ReliantModel(config)
        self.classifier = build_classifier(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:
        """What reads the features first."""
        return self.reliant.get_input_embeddings() or self.classifier

    @can_return_tuple
    def forward(
        self,
        node_features: torch.FloatTensor | None = None,
        edge_index: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        train_mask: torch.BoolTensor | None = None,
        proxy: torch.FloatTensor | None = None,
        known_labels: torch.LongTensor | None = None,
        target_nodes: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> ReliantNodeClassifierOutput:
        """Class scores of nodes.

        Args:
            node_features (`torch.FloatTensor` of shape `(num_nodes, num_features)`): without proxy columns.
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): messages go from the first row to the second.
            labels (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): class ids; -100 is ignored.
            train_mask (`torch.BoolTensor` of shape `(num_nodes,)`, *optional*): nodes whose labels count; all by
                default.
            proxy (`torch.FloatTensor`, *optional*): as in [`ReliantModel`].
            known_labels (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): labels that `"plp"` spreads, -100
                where unknown. By default `labels` of `train_mask` if both are given, else those of training if the
                graph has `config.num_nodes` nodes, else none. `labels` alone are never spread.
            target_nodes (`torch.LongTensor` of shape `(num_targets,)`, *optional*): nodes to classify; all outputs are
                then theirs, in this order, and `labels` and `train_mask` have one entry for each. Only the nodes that
                they depend on are computed, unless these are most of the graph, or the architecture is `"plp"`.
            kwargs: as in [`ReliantModel`].

        Returns:
            [`ReliantNodeClassifierOutput`].

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If shapes or values do not fit.
        """
        refuse_unknown_inputs(self, kwargs, EXTRACTED_ONLY)
        check_graph(node_features, edge_index, self.config)
        num_nodes = node_features.shape[0]
        check_targets(target_nodes, num_nodes)
        check_labels(labels, train_mask, num_nodes if target_nodes is None else len(target_nodes), self.num_labels)
        kwargs["return_dict"] = True
        part = None
        if target_nodes is not None and not torch.compiler.is_compiling():
            part = find_neighborhood(edge_index, num_nodes, target_nodes, self.config)
        if part is None:
            adjacency, targets = self.reliant.prepare_adjacency(edge_index, num_nodes), target_nodes
        else:
            adjacency, targets, node_features = part.adjacency, part.targets, node_features[part.nodes]
            if proxy is not None and proxy.ndim == 2:
                proxy = proxy[part.nodes]
        node_features = node_features.to(self.classifier.projection.weight.dtype)
        outputs = self.reliant(node_features, edge_index, proxy=proxy, adjacency=adjacency, **kwargs)
        if self.config.architecture == "plp":
            if known_labels is None and labels is not None and train_mask is not None and target_nodes is None:
                known_labels = select_labels(labels, train_mask)
            logits = self.propagate_labels(node_features, adjacency, proxy, known_labels, outputs.last_hidden_state)
        else:
            if known_labels is not None:
                raise ValueError(f"`known_labels` must be left out with architecture {self.config.architecture!r}.")
            logits = self.classifier(outputs.last_hidden_state, adjacency)
        hidden_states, node_embeddings = outputs.hidden_states, outputs.node_embeddings
        if targets is not None:
            logits, node_embeddings = logits[targets], node_embeddings[targets]
            hidden_states = hidden_states and tuple(states[targets] for states in hidden_states)
        loss = None
        if labels is not None:
            loss = compute_node_loss(logits, labels, train_mask, self.config.class_weight)
        return ReliantNodeClassifierOutput(
            loss=loss, logits=logits, node_embeddings=node_embeddings, hidden_states=hidden_states
        )

    def propagate_labels(
        self,
        node_features: torch.Tensor,
        adjacency: Adjacency,
        proxy: torch.Tensor | None,
        known_labels: torch.Tensor | None,
        last_hidden_state: torch.Tensor,
    ) -> torch.Tensor:
        check_labels(known_labels, None, node_features.shape[0], self.num_labels, name="known_labels")
        features = self.reliant.add_proxy(node_features, proxy)

        def encode() -> torch.Tensor:
            if not self.classifier.is_random:
                return last_hidden_state
            return self.reliant.encode(features, adjacency)[0][-1]

        return self.classifier(features, adjacency, known_labels=known_labels, encode=encode)

    @torch.no_grad()
    def set_known_labels(self, labels: torch.Tensor, train_mask: torch.Tensor) -> None:
        """Keeps the training labels that `"plp"` spreads; they go to the file with the weights.

        Args:
            labels (`torch.LongTensor` of shape `(num_nodes,)`): class ids.
            train_mask (`torch.BoolTensor` of shape `(num_nodes,)`): nodes whose labels are known.

        Raises:
            ValueError: If the model has no place for them, or shapes do not fit.
        """
        if getattr(self.classifier, "known_labels", None) is None:
            raise ValueError("`architecture` must be 'plp' and `num_nodes` be given if labels are to be kept.")
        check_labels(labels, train_mask, self.config.num_nodes, self.num_labels)
        self.classifier.known_labels.copy_(select_labels(labels, train_mask))


def check_graph(node_features: torch.Tensor | None, edge_index: torch.Tensor | None, config: ReliantConfig) -> None:
    """Raises a `TypeError` or `ValueError` if features or edges do not fit the configuration."""
    if node_features is None or edge_index is None:
        raise ValueError("`node_features` and `edge_index` must be given.")
    if not node_features.is_floating_point():
        raise TypeError(f"`node_features` must be floating point; got {node_features.dtype}.")
    if node_features.ndim != 2 or node_features.shape[1] != config.num_features:
        raise ValueError(
            f"`node_features` must have shape (num_nodes, {config.num_features}); got {tuple(node_features.shape)}. "
            f"`num_features` of the config is {config.num_features}."
        )
    if node_features.shape[0] == 0:
        raise ValueError("`node_features` must hold at least one node; got none.")
    if edge_index.dtype != torch.long:
        raise TypeError(f"`edge_index` must be of type torch.int64; got {edge_index.dtype}.")
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"`edge_index` must have shape (2, num_edges); got {tuple(edge_index.shape)}.")
    # Elsewhere looking at values would wait for the device or break the traced graph.
    can_look = node_features.device.type == "cpu" and not torch.compiler.is_compiling()
    if can_look and not torch.isfinite(
        node_features.sum(dtype=torch.promote_types(node_features.dtype, torch.float32))
    ):
        raise ValueError("`node_features` must be finite; got NaN or infinity.")


def check_targets(target_nodes: torch.Tensor | None, num_nodes: int) -> None:
    """Raises a `TypeError` or `ValueError` if targets are no nodes of the graph."""
    if target_nodes is None:
        return
    if target_nodes.dtype != torch.long:
        raise TypeError(f"`target_nodes` must be of type torch.int64; got {target_nodes.dtype}.")
    if target_nodes.ndim != 1 or not len(target_nodes):
        raise ValueError(f"`target_nodes` must have shape (num_targets,); got {tuple(target_nodes.shape)}.")
    can_look = target_nodes.device.type == "cpu" and not torch.compiler.is_compiling()
    if can_look and not 0 <= int(target_nodes.min()) <= int(target_nodes.max()) < num_nodes:
        raise ValueError(
            f"`target_nodes` must hold node ids in [0, {num_nodes}); got {int(target_nodes.min())} to "
            f"{int(target_nodes.max())}."
        )


__all__ = [
    "ReliantForNodeClassification",
    "ReliantModel",
    "ReliantModelOutput",
    "ReliantNodeClassifierOutput",
    "ReliantPreTrainedModel",
]
