"""RAW-GNN: a node is what the short random walks that end in it look like.

Paper: "RAW-GNN: RAndom Walk Aggregation based Graph Neural Network", arXiv 2206.13953. Walks of a depth-first and a
breadth-first bias are cut into paths; a recurrent network reads each path towards its node, attention weighs the
paths of a node, and the two biases stand side by side before a linear classifier.

Same numbers as the authors' code on the same paths. `walk_sampler="torch_cluster"` draws walks by the law that their
sampler really follows; `eval_walks="resample"` draws new ones for each evaluation, as they do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..shared.checks import can_look_at, refuse_unknown_inputs
from ..shared.graph_inputs import EXTRACTED_ONLY
from ..shared.ignore_index import IGNORED_CLASS
from ..shared.losses import compute_node_loss
from .configuration_raw_gnn import RawGnnConfig
from .path_aggregator import RawGnnInputProjection, RawGnnPathAggregator, RawGnnRecurrence
from .walks.sampling import prepare_walk_graph, sample_paths


MAX_SEED = 2**62


@dataclass
class RawGnnModelOutput(ModelOutput):
    """Output of [`RawGnnModel`].

    Args:
        node_embeddings (`torch.FloatTensor` of shape `(num_targets, embedding_size)`): strategies side by side, each
            with its heads side by side.
        path_embeddings (`tuple(torch.FloatTensor)`): for each strategy `(num_paths, hidden_size)`.
        path_attentions (`tuple(torch.FloatTensor)`): for each strategy `(num_paths, num_attention_heads)`; sums to 1
            over the paths of a node.
        paths (`tuple(torch.LongTensor)`): for each strategy `(num_paths, walk_length)`; the last node is the target.
        hidden_states (`tuple(torch.FloatTensor)`, returned with `output_hidden_states=True`): for each strategy
            `(num_targets, num_attention_heads * hidden_size)`.
    """

    node_embeddings: torch.FloatTensor | None = None
    path_embeddings: tuple[torch.FloatTensor, ...] | None = None
    path_attentions: tuple[torch.FloatTensor, ...] | None = None
    paths: tuple[torch.LongTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class RawGnnNodeClassifierOutput(ModelOutput):
    """Output of [`RawGnnForNodeClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, returned with `labels`): mean cross entropy over the labeled nodes of
            `train_mask`.
        logits (`torch.FloatTensor` of shape `(num_targets, num_labels)`): scores before the softmax.
        node_embeddings, path_embeddings, path_attentions, paths, hidden_states: as in [`RawGnnModelOutput`]; of the
            last draw where logits are averaged over several.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    node_embeddings: torch.FloatTensor | None = None
    path_embeddings: tuple[torch.FloatTensor, ...] | None = None
    path_attentions: tuple[torch.FloatTensor, ...] | None = None
    paths: tuple[torch.LongTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class RawGnnPreTrainedModel(PreTrainedModel):
    """Weights, loading and saving of RAW-GNN models."""

    config: RawGnnConfig
    config_class = RawGnnConfig
    base_model_prefix = "raw_gnn"
    main_input_name = "node_features"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = ["RawGnnInputProjection", "RawGnnPathAggregator"]
    # Strategies stand side by side, so there is no state before the first.
    _can_record_outputs = {"hidden_states": OutputRecorder(RawGnnPathAggregator, capture_initial_hidden_state=False)}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # As torch's own GRU and linear layers, which the authors use, and their uniform(-1, 1) for attention.
        if isinstance(module, RawGnnInputProjection | RawGnnRecurrence):
            for parameter in module.parameters(recurse=False):
                init.uniform_(parameter, -module.initializer_range, module.initializer_range)
        elif isinstance(module, RawGnnPathAggregator):
            init.uniform_(module.attention, -1.0, 1.0)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)

    def draw_walk_seed(self) -> int:
        """Seed of the next walks: a new one from torch's generator in training and for `eval_walks="resample"`."""
        if self.training or self.config.eval_walks == "resample":
            return int(torch.randint(MAX_SEED, (), device="cpu"))
        return self.config.walk_seed


class RawGnnModel(RawGnnPreTrainedModel):
    """Node embeddings from random walks, without a classifier.

    Args:
        config ([`RawGnnConfig`]): the configuration.
    """

    def __init__(self, config: RawGnnConfig):
        super().__init__(config)
        config.validate()
        self.projections = nn.ModuleList(RawGnnInputProjection(config) for _ in config.strategies)
        self.aggregators = nn.ModuleList(RawGnnPathAggregator(config) for _ in config.strategies)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.projections[0]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.projections[0] = value

    def sample_paths(
        self,
        edge_index: torch.Tensor,
        num_nodes: int,
        *,
        target_nodes: torch.Tensor | None = None,
        seed: int | None = None,
    ) -> list[torch.Tensor]:
        """Draw the paths of one forward pass.

        Args:
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): edges as they are; they are made undirected and
                get self-loops as the configuration says.
            num_nodes (`int`): nodes of the graph.
            target_nodes (`torch.LongTensor` of shape `(num_targets,)`, *optional*): draw for these only. In evaluation
                these are the paths that end in them when all are drawn; in training as many walks from each as a node
                has paths on average otherwise, which costs less. They do not depend on the other targets.
            seed (`int`, *optional*): of the walks; by default as the configuration says.

        Returns:
            For each strategy `(num_paths, walk_length)`; the last node of a path is its target.
        """
        config = self.config
        seed = self.draw_walk_seed() if seed is None else seed
        graph = prepare_walk_graph(
            edge_index, num_nodes, undirected=config.undirected, add_self_loops=config.add_self_loops
        )
        is_sampled = self.training and target_nodes is not None
        return [
            sample_paths(
                graph,
                p=strategy["p"],
                q=strategy["q"],
                law=config.walk_sampler,
                strategy=index,
                seed=seed,
                long_walks_per_node=config.long_walks_per_node,
                long_walk_length=config.long_walk_length,
                walk_length=config.walk_length,
                target_nodes=target_nodes,
                num_walks=config.long_walks_per_node * config.num_windows if is_sampled else None,
            ).to(self.device)
            for index, strategy in enumerate(config.strategies)
        ]

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        node_features: torch.Tensor,
        edge_index: torch.Tensor | None = None,
        paths: Sequence[torch.Tensor] | None = None,
        target_nodes: torch.Tensor | None = None,
        walk_seed: int | None = None,
        **kwargs: Any,
    ) -> RawGnnModelOutput:
        """Embed nodes.

        Args:
            node_features (`torch.Tensor` of shape `(num_nodes, num_features)`): dense, or sparse in CSR layout.
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`, *optional*): edges to walk on; needed unless
                `paths` are given.
            paths (sequence of `torch.LongTensor` of shape `(num_paths, walk_length)`, *optional*): one for each
                strategy; the last node of a path is its target. By default they are drawn.
            target_nodes (`torch.LongTensor` of shape `(num_targets,)`, *optional*): nodes to embed, each once; by
                default all. Only the features of nodes on paths are looked at; given paths of other nodes do not
                count. In evaluation the answer for a node is that of a pass over all nodes; in training only walks
                that start in a target are drawn for it.
            walk_seed (`int`, *optional*): seed of the walks; by default as the configuration says.
            **kwargs: `output_hidden_states` and `return_dict`, as in all models of transformers.

        Raises:
            TypeError: If ids are no integers.
            ValueError: If a shape does not fit, features are not finite, or an id is out of range or given twice.
        """
        refuse_unknown_inputs(self, kwargs, EXTRACTED_ONLY)
        self._check_inputs(node_features, edge_index, paths, target_nodes)
        num_nodes = node_features.shape[0]
        if paths is None:
            paths = self.sample_paths(edge_index, num_nodes, target_nodes=target_nodes, seed=walk_seed)
        paths = tuple(path.long() for path in paths)
        read, num_targets = paths, num_nodes
        targets = [path[:, -1] for path in paths]
        if target_nodes is not None:
            num_targets = target_nodes.shape[0]
            targets = [_find_positions(target, target_nodes.long(), num_nodes) for target in targets]
            node_features, read = _keep_visited(node_features, paths)
        _check_finite(node_features)
        outputs = [
            aggregator(project(node_features), path, target, num_targets)
            for project, aggregator, path, target in zip(
                self.projections, self.aggregators, read, targets, strict=True
            )
        ]
        nodes, embeddings, attentions = zip(*outputs, strict=True)
        return RawGnnModelOutput(torch.cat(nodes, dim=1), embeddings, attentions, paths)

    def _check_inputs(
        self,
        node_features: torch.Tensor,
        edge_index: torch.Tensor | None,
        paths: Sequence[torch.Tensor] | None,
        target_nodes: torch.Tensor | None,
    ) -> None:
        config = self.config
        num_strategies = len(config.strategies)
        if node_features is None:
            raise ValueError("`node_features` must be given; got None.")
        if node_features.ndim != 2 or node_features.shape[1] != config.num_features:
            raise ValueError(
                f"`node_features` must have shape (num_nodes, {config.num_features}); "
                f"got {tuple(node_features.shape)}."
            )
        if paths is None and edge_index is None:
            raise ValueError("`edge_index` or `paths` must be given; got neither.")
        if paths is not None and len(paths) != num_strategies:
            raise ValueError(f"`paths` must be one tensor for each of {num_strategies} strategies; got {len(paths)}.")
        for path in paths or ():
            if path.ndim != 2 or 0 in path.shape:
                raise ValueError(f"`paths` must have shape (num_paths, walk_length); got {tuple(path.shape)}.")
            _check_nodes("paths", path, node_features.shape[0])
        if target_nodes is not None:
            if target_nodes.ndim != 1 or target_nodes.shape[0] == 0:
                raise ValueError(f"`target_nodes` must have shape (num_targets,); got {tuple(target_nodes.shape)}.")
            _check_nodes("target_nodes", target_nodes, node_features.shape[0])
            if can_look_at(target_nodes) and target_nodes.unique().shape != target_nodes.shape:
                raise ValueError("`target_nodes` must be different nodes; got one of them twice. Use `unique` first.")


def _check_nodes(name: str, nodes: torch.Tensor, num_nodes: int) -> None:
    if nodes.is_floating_point() or nodes.dtype == torch.bool:
        raise TypeError(f"`{name}` must hold node ids, integers; got {nodes.dtype}.")
    if not can_look_at(nodes):
        return
    smallest, largest = (int(bound) for bound in nodes.aminmax())
    if smallest < 0 or largest >= num_nodes:
        raise ValueError(
            f"`{name}` must hold node ids in [0, {num_nodes}); got {smallest if smallest < 0 else largest}. Are the "
            "ids zero-based?"
        )


def _check_finite(node_features: torch.Tensor) -> None:
    if not can_look_at(node_features):
        return
    values = node_features if node_features.layout == torch.strided else node_features.values()
    if not torch.isfinite(values.detach().sum(dtype=torch.float64)):  # one pass; NaN and infinity survive a sum
        raise ValueError("`node_features` must be finite; got NaN or infinity. Fill missing values first.")


def _find_positions(nodes: torch.Tensor, target_nodes: torch.Tensor, num_nodes: int) -> torch.Tensor:
    """Position of each node in `target_nodes`; their number where it is none of them."""
    positions = target_nodes.new_full((num_nodes,), target_nodes.shape[0])
    positions[target_nodes] = torch.arange(target_nodes.shape[0], device=target_nodes.device)
    return positions[nodes]


def _keep_visited(
    node_features: torch.Tensor, paths: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Features of the nodes that lie on a path, and the paths in terms of them."""
    nodes, renamed = torch.cat([path.flatten() for path in paths]).unique(return_inverse=True)
    parts = renamed.split([path.numel() for path in paths])
    return select_rows(node_features, nodes), tuple(
        part.view_as(path) for part, path in zip(parts, paths, strict=True)
    )


def select_rows(matrix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows of a dense matrix, or of a sparse one in CSR layout, for which torch has no such function."""
    if matrix.layout == torch.strided:
        return matrix.index_select(0, rows)
    starts = matrix.crow_indices()
    counts = starts.diff()[rows]
    ends = counts.cumsum(0)
    within = torch.arange(int(ends[-1]), device=rows.device) - (ends - counts).repeat_interleave(counts)
    places = starts[rows].repeat_interleave(counts) + within
    return torch.sparse_csr_tensor(
        torch.cat([ends.new_zeros(1), ends]),
        matrix.col_indices()[places],
        matrix.values()[places],
        (rows.shape[0], matrix.shape[1]),
    )


class RawGnnForNodeClassification(RawGnnPreTrainedModel):
    """RAW-GNN with a linear classifier on the embeddings of nodes.

    Args:
        config ([`RawGnnConfig`]): the configuration.
    """

    def __init__(self, config: RawGnnConfig):
        super().__init__(config)
        self.raw_gnn = RawGnnModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.embedding_size, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.raw_gnn.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.raw_gnn.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        node_features: torch.Tensor,
        edge_index: torch.Tensor | None = None,
        paths: Sequence[torch.Tensor] | None = None,
        labels: torch.Tensor | None = None,
        train_mask: torch.Tensor | None = None,
        target_nodes: torch.Tensor | None = None,
        walk_seed: int | None = None,
        **kwargs: Any,
    ) -> RawGnnNodeClassifierOutput:
        """Classify nodes.

        Args:
            node_features (`torch.Tensor` of shape `(num_nodes, num_features)`): as in [`RawGnnModel.forward`].
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`, *optional*): as there.
            paths (sequence of `torch.LongTensor` of shape `(num_paths, walk_length)`, *optional*): as there.
            labels (`torch.LongTensor` of shape `(num_targets,)`, *optional*): classes, -100 for none.
            train_mask (`torch.BoolTensor` of shape `(num_targets,)`, *optional*): nodes whose labels count; by default
                all.
            target_nodes (`torch.LongTensor` of shape `(num_targets,)`, *optional*): as there.
            walk_seed (`int`, *optional*): as there.
            **kwargs: `output_hidden_states` and `return_dict`, as in all models of transformers.
        """
        refuse_unknown_inputs(self, kwargs, EXTRACTED_ONLY)
        self._check_labels(labels, train_mask, node_features if target_nodes is None else target_nodes)
        kwargs["return_dict"] = True
        seeds = self._choose_walk_seeds(paths, walk_seed)
        logits = 0
        for seed in seeds:
            outputs = self.raw_gnn(
                node_features, edge_index, paths=paths, target_nodes=target_nodes, walk_seed=seed, **kwargs
            )
            hidden = functional.leaky_relu(outputs.node_embeddings, self.config.leaky_relu_slope)
            logits = logits + self.classifier(self.dropout(hidden))
        logits = logits / len(seeds) if len(seeds) > 1 else logits
        loss = None
        if labels is not None:
            loss = compute_node_loss(logits, labels, train_mask, self.config.class_weight)
        return RawGnnNodeClassifierOutput(loss=loss, logits=logits, **outputs)

    @torch.no_grad()
    def predict(
        self,
        node_features: torch.Tensor,
        edge_index: torch.Tensor,
        target_nodes: torch.Tensor | None = None,
        *,
        batch_size: int = 1024,
        walk_seed: int | None = None,
    ) -> torch.Tensor:
        """Logits of nodes of a large graph, computed in mini-batches of nodes.

        The answer for a node is that of `forward` on all nodes in evaluation, whatever the batch and the order. Only
        walks that pass through a node of a batch are read, so that memory and time follow the batches.

        Args:
            node_features (`torch.Tensor` of shape `(num_nodes, num_features)`): dense, or sparse in CSR layout.
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): edges to walk on.
            target_nodes (`torch.LongTensor` of shape `(num_targets,)`, *optional*): nodes to classify, each once; by
                default all.
            batch_size (`int`): nodes of one mini-batch.
            walk_seed (`int`, *optional*): seed of the walks; by default as the configuration says.

        Returns:
            `torch.FloatTensor` of shape `(num_targets, num_labels)`. The model's mode is left as it is.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1; got {batch_size}.")
        if target_nodes is None:
            target_nodes = torch.arange(node_features.shape[0], device=edge_index.device)
        if walk_seed is None:  # one for all batches
            walk_seed = self.raw_gnn.draw_walk_seed()
        batches = target_nodes.split(batch_size)
        return torch.cat(
            [self(node_features, edge_index, target_nodes=batch, walk_seed=walk_seed).logits for batch in batches]
        )

    def _choose_walk_seeds(self, paths: Sequence[torch.Tensor] | None, walk_seed: int | None) -> list[int | None]:
        """One seed for each draw that logits are averaged over."""
        draws = self.config.eval_walks
        if self.training or paths is not None or isinstance(draws, str):
            return [walk_seed]
        first = self.config.walk_seed if walk_seed is None else walk_seed
        return [first + draw for draw in range(draws)]

    def _check_labels(
        self, labels: torch.Tensor | None, train_mask: torch.Tensor | None, nodes: torch.Tensor | None
    ) -> None:
        if labels is None or nodes is None:
            return
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(f"`labels` must hold class ids, integers; got {labels.dtype}.")
        if train_mask is not None and train_mask.dtype != torch.bool:
            raise TypeError(f"`train_mask` must hold booleans; got {train_mask.dtype}.")
        for name, values in (("labels", labels), ("train_mask", train_mask)):
            if values is not None and values.shape != nodes.shape[:1]:
                raise ValueError(
                    f"`{name}` must have shape ({nodes.shape[0]},), one for each node or target; got "
                    f"{tuple(values.shape)}."
                )
        if not can_look_at(labels):
            return
        counted = labels != IGNORED_CLASS if train_mask is None else (labels != IGNORED_CLASS) & train_mask
        if not counted.any():
            raise ValueError("`train_mask` must select at least one labeled node; got none.")
        selected = labels[counted]
        if int(selected.min()) < 0 or int(selected.max()) >= self.config.num_labels:
            raise ValueError(
                f"`labels` must be class ids in [0, {self.config.num_labels}) or {IGNORED_CLASS}; got values from "
                f"{int(selected.min())} to {int(selected.max())}."
            )


__all__ = [
    "RawGnnForNodeClassification",
    "RawGnnModel",
    "RawGnnModelOutput",
    "RawGnnNodeClassifierOutput",
    "RawGnnPreTrainedModel",
]
