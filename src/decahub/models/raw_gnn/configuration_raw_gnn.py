"""Configuration of RAW-GNN (arXiv 2206.13953). Defaults are those of the authors' experiments."""

import copy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ..shared.checks import (
    MAX_DEPTH,
    MAX_FEATURES,
    MAX_WIDTH,
    CheckedConfig,
    check_maximum,
    check_minimum,
    check_rates,
)
from ..shared.losses import check_class_weight
from ..shared.variants import build_variant


# "paper": walks of the law that the paper names, and one fixed draw of them in evaluation.
# "official": walks as the authors' runs really had them, drawn anew for each evaluation. There the depth-first bias
# has no effect, because the sampler that they called accepts every candidate once q <= 1.
VARIANTS: dict[str, dict] = {
    "paper": {"walk_sampler": "node2vec", "eval_walks": "fixed"},
    "official": {"walk_sampler": "torch_cluster", "eval_walks": "resample"},
}
STRATEGIES = [{"name": "dfs", "p": 10.0, "q": 0.1}, {"name": "bfs", "p": 0.1, "q": 10.0}]
WALK_SAMPLERS = ("node2vec", "torch_cluster")
RNN_TYPES = ("gru", "lstm")
EVAL_WALKS = ("fixed", "resample")
MAX_STRATEGIES = 100
P_AND_Q = (1e-12, 1e12)  # beyond these, the random bits of a draw do not resolve the smaller weights


@strict
class RawGnnConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of the RAW-GNN models.

    Args:
        num_features (`int`, defaults to 16): columns of the node features.
        hidden_size (`int`, defaults to 32): width of a path's embedding.
        num_attention_heads (`int`, defaults to 2): heads that weigh the paths of a node.
        rnn_type (`str`, defaults to `"gru"`): what reads a path, `"gru"` or `"lstm"`.
        leaky_relu_slope (`float`, defaults to 0.01): slope below zero of the activation before the classifier.
        walk_length (`int`, defaults to 3): nodes of a path; 1 reads each node alone.
        long_walk_length (`int`, defaults to 4): steps of the walks from which paths are cut.
        long_walks_per_node (`int`, defaults to 2): walks that start in each node.
        strategies (`list[dict]`): one aggregator for each, as `{"name", "p", "q"}`: a step goes back with weight
            1/p, to a neighbor of the previous node with weight 1, elsewhere with weight 1/q.
        walk_sampler (`str`, defaults to `"node2vec"`): law of the walks: `"node2vec"`, the published one, or
            `"torch_cluster"`, which the authors' sampler really follows.
        undirected (`bool`, defaults to `True`): whether walks may cross an edge in both directions.
        add_self_loops (`bool`, defaults to `True`): whether each node is its own neighbor, once.
        eval_walks (`str` or `int`, defaults to `"fixed"`): walks in evaluation: `"fixed"`, the same in each call;
            `"resample"`, new ones from torch's generator; a number of fixed draws to average the logits over.
        walk_seed (`int`, defaults to 0): seed of fixed walks.
        feature_dropout_prob (`float`, defaults to 0.0): dropout of node features in training. The authors use none.
        hidden_dropout_prob (`float`, defaults to 0.0): dropout before the classifier. The authors use none.
        class_weight (`str` or `list[float]`, *optional*): weight of each class in the loss; `"balanced"` weighs a
            class by the inverse of its number of training nodes, in mini-batches of its number in the batch.
        initializer_range (`float`, *optional*): bound of the uniform start of recurrent weights; by default
            1/sqrt(hidden_size), as in the authors' code.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a value is of another type, out of range or contradicts
            another.
    """

    model_type = "raw_gnn"

    # Inputs
    num_features: int = 16

    # Architecture
    hidden_size: int = 32
    num_attention_heads: int = 2
    rnn_type: str = "gru"
    leaky_relu_slope: float | int = 0.01
    initializer_range: float | int | None = None

    # Walks
    walk_length: int = 3
    long_walk_length: int = 4
    long_walks_per_node: int = 2
    strategies: list[dict] | tuple[dict, ...] | None = None
    walk_sampler: str = "node2vec"
    undirected: bool = True
    add_self_loops: bool = True
    eval_walks: str | int = "fixed"
    walk_seed: int = 0

    # Regularization
    feature_dropout_prob: float | int = 0.0
    hidden_dropout_prob: float | int = 0.0

    # Loss
    class_weight: str | list[float | int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.strategies is None:
            self.strategies = copy.deepcopy(STRATEGIES)
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Number of strategies, each of which has one layer; they stand side by side."""
        return len(self.strategies)

    @property
    def embedding_size(self) -> int:
        """Width of a node's embedding: strategies x heads x hidden size."""
        return len(self.strategies) * self.num_attention_heads * self.hidden_size

    @property
    def num_windows(self) -> int:
        """Paths cut from one long walk."""
        return self.long_walk_length + 2 - self.walk_length

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "RawGnnConfig":
        """Configuration of a named variant, `"paper"` or `"official"`."""
        return build_variant(cls, VARIANTS, name, overrides)

    def validate_sizes(self):
        """Sizes are positive, and memory can hold them."""
        check_minimum(
            self, 1, "num_features", "hidden_size", "num_attention_heads", "walk_length", "long_walk_length",
            "long_walks_per_node",
        )  # fmt: skip
        check_maximum("num_features", [self.num_features], MAX_FEATURES)
        for name in ("hidden_size", "num_attention_heads"):
            check_maximum(name, [getattr(self, name)], MAX_WIDTH)
        for name in ("long_walk_length", "long_walks_per_node"):
            check_maximum(name, [getattr(self, name)], MAX_DEPTH)
        if isinstance(self.eval_walks, int):
            check_maximum("eval_walks", [self.eval_walks], MAX_DEPTH)
        if len(self.strategies) > MAX_STRATEGIES:
            raise ValueError(
                f"`strategies` must hold at most {MAX_STRATEGIES} strategies; got {len(self.strategies)}."
            )
        if self.walk_length > self.long_walk_length + 1:
            raise ValueError(
                f"`walk_length` must be at most `long_walk_length + 1` ({self.long_walk_length + 1}); "
                f"got {self.walk_length}."
            )

    def validate_choices(self):
        """Names are known."""
        for name, allowed in (("walk_sampler", WALK_SAMPLERS), ("rnn_type", RNN_TYPES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        walks = self.eval_walks
        if isinstance(walks, bool) or (walks < 1 if isinstance(walks, int) else walks not in EVAL_WALKS):
            raise ValueError(
                f"`eval_walks` must be one of {', '.join(EVAL_WALKS)} or a number of draws; got {walks!r}."
            )

    def validate_strategies(self):
        """Each strategy has a name of its own and positive p and q."""
        if not self.strategies:
            raise ValueError("`strategies` must hold at least one strategy; got none.")
        for strategy in self.strategies:
            if set(strategy) != {"name", "p", "q"}:
                raise ValueError(f"`strategies` must have name, p and q each; got {strategy!r}.")
            for name in ("p", "q"):
                value = strategy[name]
                if (
                    isinstance(value, bool)
                    or not isinstance(value, float | int)
                    or not P_AND_Q[0] <= value <= P_AND_Q[1]
                ):
                    raise ValueError(
                        f"`{name}` of a strategy must be a number from {P_AND_Q[0]} to {P_AND_Q[1]}; got {value!r}."
                    )
        names = [strategy["name"] for strategy in self.strategies]
        if len(set(names)) < len(names):
            raise ValueError(f"`strategies` must have different names; got {', '.join(map(str, names))}.")

    def validate_class_weight(self):
        """Weights are positive, one for each class."""
        check_class_weight(self)

    def validate_probabilities(self):
        """Dropout is in [0, 1)."""
        check_rates(self, "feature_dropout_prob", "hidden_dropout_prob")


__all__ = ["VARIANTS", "RawGnnConfig"]
