"""Configuration of RELIANT's students and teachers (arXiv 2301.01150)."""

from typing import Any, Literal

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


_PLAIN = {"framework": "kd", "proxy_mode": "none", "fairness_weight": 0.0}

VARIANTS: dict[str, dict[str, Any]] = {
    "akd-sgc": {},
    "cpf-plp": {
        "architecture": "plp",
        "framework": "cpf",
        "num_hidden_layers": 1,
        "num_propagation_steps": 9,
        "feature_dropout_prob": 0.8,
        "attention_probs_dropout_prob": 0.2,
        "fairness_weight": 1000.0,
        "penalty_nodes": "unlabeled",
    },
    "kd-sgc": _PLAIN,
    "gcn-teacher": {**_PLAIN, "architecture": "gcn", "hidden_dropout_prob": 0.8, "embedding_layer": 1},
    "sage-teacher": {
        **_PLAIN,
        "architecture": "sage",
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "feature_dropout_prob": 0.5,
        "embedding_layer": 1,
        "embedding_before_activation": True,
    },
    "gat-teacher": {
        **_PLAIN,
        "architecture": "gat",
        "num_hidden_layers": 1,
        "feature_dropout_prob": 0.6,
        "hidden_dropout_prob": 0.6,
        "attention_probs_dropout_prob": 0.6,
    },
    "appnp-teacher": {
        **_PLAIN,
        "architecture": "appnp",
        "num_hidden_layers": 1,
        "num_propagation_steps": 10,
        "feature_dropout_prob": 0.5,
        "attention_probs_dropout_prob": 0.5,
    },
    "sgc-teacher": {
        **_PLAIN,
        "num_hidden_layers": 0,
        "num_propagation_steps": 2,
        "hidden_dropout_prob": 0.0,
        "use_bias": False,
    },
    "gcnii-teacher": {
        **_PLAIN,
        "architecture": "gcnii",
        "num_hidden_layers": 8,
        "feature_dropout_prob": 0.6,
        "hidden_dropout_prob": 0.6,
    },
    "mlp-teacher": {**_PLAIN, "architecture": "mlp", "num_hidden_layers": 1},
}
"""What differs from the defaults of [`ReliantConfig`]. Depth and dropout of `gcnii-teacher` and `mlp-teacher` are our
choice; the other teachers are those of the paper's code."""

NUM_REPLACED_COLUMNS = 2
MAX_NODES = 2**28  # architecture "plp" has a number for each


@strict
class ReliantConfig(CheckedConfig, PreTrainedConfig):
    r"""Configuration of [`ReliantModel`] and [`ReliantForNodeClassification`], students and teachers alike.

    The defaults are the student of the paper's adversarial distillation: three simplified graph convolutions.

    Args:
        num_features (`int`, defaults to 16): Width of `node_features`, without proxy columns.
        architecture (`str`, defaults to `"sgc"`): `"sgc"`, `"gcn"`, `"gat"`, `"sage"`, `"gcnii"`, `"appnp"`, `"mlp"`,
            or `"plp"`, label propagation with learned weights.
        framework (`str`, defaults to `"akd"`): How a teacher is imitated: `"akd"` adversarially, `"cpf"` by label
            propagation, `"kd"` by softened probabilities.
        hidden_size (`int`, defaults to 64): Channels of the hidden layers, over all heads.
        num_hidden_layers (`int`, defaults to 2): Layers before the classifier; for `"plp"`, of its perceptron.
        num_propagation_steps (`int`, defaults to 1): Neighbors' sums in each layer of `"sgc"`, and after the
            classifier of `"appnp"` and `"plp"`. Others take no notice.
        num_attention_heads (`int`, defaults to 8): Heads of the hidden layers of `"gat"`.
        num_output_heads (`int`, defaults to 1): Heads of its classifier, which are averaged.
        negative_slope (`float`, defaults to 0.2): Of its leaky rectifier.
        teleport_prob (`float`, defaults to 0.1): Share of the first hidden states in every propagation of `"appnp"`
            and every layer of `"gcnii"`.
        identity_decay (`float`, defaults to 0.5): Layer `l` of `"gcnii"` weighs its matrix `log(1 + decay / l)`.
        use_bias (`bool`, defaults to `True`): Whether layers have a bias.
        undirected (`bool`, defaults to `True`): Whether messages go along each edge in both directions, also
            where only one is listed.
        add_self_loops (`bool`, defaults to `True`): Whether nodes without a self-loop get one. The authors' graphs
            have exactly one for each node.
        num_nodes (`int`, *optional*): Nodes of the training graph, for `"plp"`, which then learns how much each node
            trusts its neighbors. On a graph of another size all nodes trust both sides equally.
        label_score_type (`str`, defaults to `"features"`): Whether `"plp"` reads a neighbor's weight off its features
            or learns it for each of `num_nodes` (`"nodes"`).
        embedding_layer (`int`, defaults to -1): Hidden layer whose output is `node_embeddings`, counted from 1; -1 is
            the last one. Without hidden layers it is the input.
        embedding_before_activation (`bool`, defaults to `False`): Whether it is taken before the activation.
        feature_dropout_prob (`float`, defaults to 0): Dropout on the input; for `"plp"` before each linear layer.
        hidden_dropout_prob (`float`, defaults to 0.5): Dropout between layers.
        attention_probs_dropout_prob (`float`, defaults to 0): Dropout on edge weights of `"gat"`, `"appnp"`, `"plp"`.
        eval_dropout (`bool`, defaults to `False`): Whether dropout is active in evaluation, as in the authors'
            adversarial distillation; scores are noisy then.
        proxy_mode (`str`, defaults to `"learnable"`): `"learnable"`: columns that learn to carry bias;
            `"sensitive"`: the columns are the sensitive attribute, `(s, 1 - s)`; `"none"`: no further columns.
        proxy_dim (`int`, defaults to 2): Number of proxy columns.
        proxy_position (`str`, defaults to `"append"`): `"append"` adds the columns; `"replace_last_two"` drops two
            features, the last, in exchange, as in the authors' label propagation.
        class_weight (`str` or `list[float]`, *optional*): Weight of each class in the loss; `"balanced"` weighs a
            class by the inverse of its number of training nodes, in mini-batches of its number in the batch.
        fairness_metric (`str`, defaults to `"sp"`): `"sp"` statistical parity or `"eo"` equal opportunity.
        fairness_weight (`float`, defaults to 10): Weight of the penalty; with 0 it is not computed.
        surrogate (`str`, defaults to `"legendre9"`): Smooth stand-in for "probability above one half": the authors'
            polynomial, the same with the coefficients of the expansion (`"legendre9_normalized"`), or the probability
            itself (`"identity"`).
        penalty_nodes (`str`, defaults to `"train"`): Nodes of the penalty: `"train"`, `"unlabeled"` (all others) or
            `"all"`. Beyond training nodes, only their sensitive attribute is used for `"sp"`.
        proxy_penalty_nodes (`str`, *optional*): The same for the proxy's own step; by default as `penalty_nodes`. The
            authors' adversarial distillation takes `"all"`.
        allow_label_leakage (`bool`, defaults to `False`): Whether `"eo"` may read labels of nodes outside training, as
            the authors' code does.
        temperature (`float`, defaults to 2): Softens both sides in framework `"kd"`.
        distillation_weight (`float`, defaults to 1): Weight of the teacher beside the labels in framework `"kd"`.
        kd_loss (`str`, defaults to `"euclidean"`): Distance to the teacher's probabilities in framework `"cpf"`:
            `"euclidean"` norm of the whole matrix, `"bce"` or `"kl"`.
        l1_target (`str`, defaults to `"log_probs"`): What the logits of a student of framework `"akd"` are compared
            with: the teacher's log-probabilities, its `"logits"`, or `"both_log_probs"`, log-probabilities on both
            sides.
        num_edge_samples (`int`, *optional*): Edges that the discriminator of edges sees in a step, drawn with
            replacement; all of them by default.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.

    Example:
    ```python
    >>> from decahub import ReliantConfig
    >>> ReliantConfig.from_variant("gcn-teacher", num_features=18).architecture
    'gcn'

    ```
    """

    model_type = "reliant"

    # Architecture
    num_features: int = 16
    architecture: Literal["sgc", "gcn", "gat", "sage", "gcnii", "appnp", "plp", "mlp"] = "sgc"
    framework: Literal["akd", "cpf", "kd"] = "akd"
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_propagation_steps: int = 1
    num_attention_heads: int = 8
    num_output_heads: int = 1
    negative_slope: float | int = 0.2
    teleport_prob: float | int = 0.1
    identity_decay: float | int = 0.5
    use_bias: bool = True
    undirected: bool = True
    add_self_loops: bool = True
    num_nodes: int | None = None
    label_score_type: Literal["features", "nodes"] = "features"
    embedding_layer: int = -1
    embedding_before_activation: bool = False

    # Regularization
    feature_dropout_prob: float | int = 0.0
    hidden_dropout_prob: float | int = 0.5
    attention_probs_dropout_prob: float | int = 0.0
    eval_dropout: bool = False

    # Proxy of bias
    proxy_mode: Literal["learnable", "sensitive", "none"] = "learnable"
    proxy_dim: int = 2
    proxy_position: Literal["append", "replace_last_two"] = "append"

    # Losses
    class_weight: str | list[float | int] | None = None
    fairness_metric: Literal["sp", "eo"] = "sp"
    fairness_weight: float | int = 10.0
    surrogate: Literal["legendre9", "legendre9_normalized", "identity"] = "legendre9"
    penalty_nodes: Literal["train", "unlabeled", "all"] = "train"
    proxy_penalty_nodes: Literal["train", "unlabeled", "all"] | None = None
    allow_label_leakage: bool = False
    temperature: float | int = 2.0
    distillation_weight: float | int = 1.0
    kd_loss: Literal["euclidean", "bce", "kl"] = "euclidean"
    l1_target: Literal["log_probs", "logits", "both_log_probs"] = "log_probs"
    num_edge_samples: int | None = None

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "ReliantConfig":
        """Configuration of a named variant, `"akd-sgc"`, `"cpf-plp"`, `"kd-sgc"` or `"<architecture>-teacher"`."""
        return build_variant(cls, VARIANTS, name, overrides)

    @property
    def has_proxy(self) -> bool:
        """Whether models read proxy columns."""
        return self.proxy_mode != "none"

    @property
    def input_size(self) -> int:
        """Width of what the first layer reads: features and proxy columns."""
        return self.num_features + (self.proxy_dim if self.has_proxy and self.proxy_position == "append" else 0)

    @property
    def effective_proxy_penalty_nodes(self) -> str:
        """Nodes whose penalty the proxy's own step maximizes."""
        return self.proxy_penalty_nodes or self.penalty_nodes

    def validate_architecture(self):
        # In this order: each check relies on those before it, while validators of their own run in order of name.
        self._check_sizes()
        self._check_rates()
        self._check_framework()
        self._check_proxy()
        self._check_penalty()
        check_class_weight(self)

    def _check_sizes(self):
        check_minimum(
            self, 1, "num_features", "hidden_size", "num_propagation_steps", "num_output_heads", "proxy_dim",
            "num_nodes", "num_edge_samples",
        )  # fmt: skip
        check_maximum("num_features", [self.num_features], MAX_FEATURES)
        for name in ("hidden_size", "num_output_heads", "proxy_dim"):
            check_maximum(name, [getattr(self, name)], MAX_WIDTH)
        for name in ("num_hidden_layers", "num_propagation_steps"):
            check_maximum(name, [getattr(self, name)], MAX_DEPTH)
        for name in ("num_nodes", "num_edge_samples"):
            check_maximum(name, [getattr(self, name)], MAX_NODES)
        least = 1 if self.architecture in ("gcnii", "appnp") else 0
        if self.num_hidden_layers < least:
            raise ValueError(
                f"`num_hidden_layers` must be at least {least} with architecture {self.architecture!r}; got "
                f"{self.num_hidden_layers}."
            )
        if self.architecture == "gat":
            heads = self.num_attention_heads
            if heads < 1 or self.hidden_size % heads:
                raise ValueError(f"`hidden_size` must be a multiple of `num_attention_heads` ({heads}).")
        if self.embedding_layer != -1 and not 1 <= self.embedding_layer <= self.num_hidden_layers:
            raise ValueError(
                f"`embedding_layer` must be -1 or lie in [1, {self.num_hidden_layers}] (`num_hidden_layers`); got "
                f"{self.embedding_layer}."
            )

    def _check_rates(self):
        check_rates(
            self, "feature_dropout_prob", "hidden_dropout_prob", "attention_probs_dropout_prob", "teleport_prob"
        )
        check_minimum(self, 0, "fairness_weight", "distillation_weight", "identity_decay")
        if self.temperature <= 0:
            raise ValueError(f"`temperature` must be above 0; got {self.temperature}.")

    def _check_framework(self):
        if self.framework == "cpf" and self.architecture != "plp":
            raise ValueError(f"`architecture` must be 'plp' with framework 'cpf'; got {self.architecture!r}.")
        if self.framework == "akd" and self.architecture == "plp":
            raise ValueError(
                "`architecture` must not be 'plp' with framework 'akd', since it has no hidden graph layers. "
                "Use framework 'cpf' or 'kd'."
            )
        if self.architecture == "plp" and self.label_score_type == "nodes" and self.num_nodes is None:
            raise ValueError("`num_nodes` must be given with `label_score_type='nodes'`; got None.")

    def _check_proxy(self):
        if not self.has_proxy:
            return
        if self.proxy_mode == "sensitive" and self.proxy_dim != 2:
            raise ValueError(f"`proxy_dim` must be 2 with `proxy_mode='sensitive'`; got {self.proxy_dim}.")
        if self.proxy_position == "replace_last_two":
            if self.proxy_dim != NUM_REPLACED_COLUMNS:
                raise ValueError(f"`proxy_dim` must be 2 with `proxy_position='replace_last_two'`; {self.proxy_dim}.")
            if self.num_features <= NUM_REPLACED_COLUMNS:
                raise ValueError(
                    "`num_features` must be above 2 with `proxy_position='replace_last_two'`, or no feature is left; "
                    f"got {self.num_features}."
                )

    def _check_penalty(self):
        if self.fairness_weight == 0:
            return
        chosen = {"penalty_nodes": self.penalty_nodes}
        if self.proxy_mode == "learnable":
            chosen["proxy_penalty_nodes"] = self.effective_proxy_penalty_nodes
        for name, nodes in chosen.items():
            if self.architecture == "plp" and nodes == "train":
                raise ValueError(
                    f"`{name}` must be 'unlabeled' or 'all' with architecture 'plp', where scores of training nodes "
                    "are fixed; got 'train'."
                )
            if self.fairness_metric == "eo" and nodes != "train" and not self.allow_label_leakage:
                raise ValueError(
                    f"`{name}` must be 'train' with `fairness_metric='eo'`; got {nodes!r}, which reads labels of "
                    "validation and test nodes. Set `allow_label_leakage=True` to do so, as the authors' code does."
                )


__all__ = ["VARIANTS", "ReliantConfig"]
