"""Training steps of RELIANT, in the order of an epoch: discriminators, student, proxy.

A step is `step(model, batch, **companions) -> {"loss": ..., further terms}`, without a backward pass. Its batch is one
graph: `node_features`, `edge_index`, `labels`, `train_mask`, and as far as the configuration needs them `sensitive`,
`teacher_logits` and `teacher_embedding` (see [`TeacherKnowledge`]).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from ..shared.losses import compute_node_loss
from .configuration_reliant import ReliantConfig
from .discriminators import ReliantDiscriminators
from .loss import (
    check_teacher_logits,
    compute_label_propagation_loss,
    compute_logits_distance,
    compute_penalty_of_batch,
    compute_softened_loss,
)
from .proxy import ReliantProxy


Batch = Mapping[str, torch.Tensor]
Terms = dict[str, torch.Tensor]

RECIPES = {
    # The authors' learning rates and weight decays. Their student of "akd" learns at a tenth of the option's value.
    "akd": {
        "learning_rate": 1e-4,
        "proxy_learning_rate": 1e-3,
        "discriminator_learning_rate": 1e-3,
        "weight_decay": 5e-4,
    },
    "cpf": {
        "learning_rate": 1e-2,
        "proxy_learning_rate": 1e-2,
        "discriminator_learning_rate": 1e-3,
        "weight_decay": 1e-2,
    },
    "kd": {
        "learning_rate": 1e-2,
        "proxy_learning_rate": 1e-2,
        "discriminator_learning_rate": 1e-3,
        "weight_decay": 5e-4,
    },
}


class ReliantUpdate(NamedTuple):
    """Arguments of one `decahub.training.Update`: `after(model, batch, **companions)` follows each update."""

    optimizer: torch.optim.Optimizer
    step: Callable[..., Terms]
    name: str
    after: Callable[..., None] | None = None


def teacher_step(model: nn.Module, batch: Batch, **companions: nn.Module) -> Terms:
    """Cross entropy of a teacher, or of any model without one, on the training nodes.

    Args:
        model ([`ReliantForNodeClassification`]): the model, possibly wrapped.
        batch (`Mapping`): the graph.
        companions: ignored.
    """
    graph = {name: batch[name] for name in ("node_features", "edge_index", "labels", "train_mask")}
    return {"loss": model(**graph).loss}


def call_student(model: nn.Module, batch: Batch, config: ReliantConfig, proxy: torch.Tensor | None) -> Any:
    """Outputs of a student, where only `"plp"` gets the training labels."""
    known = {"labels": batch["labels"], "train_mask": batch["train_mask"]} if config.architecture == "plp" else {}
    return model(batch["node_features"], batch["edge_index"], proxy=proxy, **known)


def student_proxy(config: ReliantConfig, proxy: nn.Module | None) -> torch.Tensor | None:
    """What the student reads while it learns: the mean of a learned proxy, or each node's own sensitive columns."""
    if proxy is None:
        if config.has_proxy:
            raise ValueError("`proxy` must be among the companions; make them with `build_companions`.")
        return None
    values = proxy()
    return values.mean(0) if config.proxy_mode == "learnable" else values


def discriminator_step(
    model: nn.Module,
    batch: Batch,
    discriminators: nn.Module,
    proxy: nn.Module | None = None,
    *,
    config: ReliantConfig,
    **companions: nn.Module,
) -> Terms:
    """Losses of the discriminators of framework `"akd"` against a student that stands still.

    Args:
        model ([`ReliantForNodeClassification`]): the student.
        batch (`Mapping`): the graph and the teacher's knowledge.
        discriminators ([`ReliantDiscriminators`]): what learns.
        proxy ([`ReliantProxy`], *optional*): the proxy.
        config ([`ReliantConfig`]): of the student.
        companions: ignored.
    """
    with torch.no_grad():
        outputs = call_student(model, batch, config, student_proxy(config, proxy))
    losses = judge_student(outputs, batch, discriminators, "discriminators")
    return {"loss": losses.pop("total"), **losses}


def judge_student(outputs: Any, batch: Batch, discriminators: nn.Module | None, player: str) -> Terms:
    """Losses of the discriminators, or of the student that they judge."""
    if discriminators is None or "teacher_embedding" not in batch:
        raise ValueError(
            "`teacher_embedding` must be in the batch and `discriminators` among the companions with framework 'akd'. "
            "Give `TeacherKnowledge` an embedding, and use `build_companions`."
        )
    graph = {name: batch[name] for name in ("edge_index", "labels", "train_mask")}
    graph["teacher_logits"] = check_teacher_logits(batch.get("teacher_logits"), outputs.logits)
    graph["teacher_embedding"] = batch["teacher_embedding"].to(outputs.node_embeddings.dtype)
    return discriminators(player, logits=outputs.logits, node_embeddings=outputs.node_embeddings, **graph)


def student_step(
    model: nn.Module,
    batch: Batch,
    proxy: nn.Module | None = None,
    discriminators: nn.Module | None = None,
    *,
    config: ReliantConfig,
    **companions: nn.Module,
) -> Terms:
    """Losses of the student: those of its framework, and the fairness penalty.

    Args:
        model ([`ReliantForNodeClassification`]): the student.
        batch (`Mapping`): the graph and the teacher's knowledge.
        proxy ([`ReliantProxy`], *optional*): the proxy, of which the student reads the mean.
        discriminators ([`ReliantDiscriminators`], *optional*): needed in framework `"akd"`.
        config ([`ReliantConfig`]): of the student.
        companions: ignored.

    Returns:
        `dict` with `loss`, the terms it is the sum of, and `fairness_penalty` without its weight.
    """
    outputs = call_student(model, batch, config, student_proxy(config, proxy))
    logits = outputs.logits
    teacher_logits = check_teacher_logits(batch.get("teacher_logits"), logits)
    if config.framework == "akd":
        terms = {
            "label_loss": compute_node_loss(logits, batch["labels"], batch["train_mask"], config.class_weight),
            "distance": compute_logits_distance(logits, teacher_logits, config.l1_target),
            **judge_student(outputs, batch, discriminators, "student"),
        }
        loss = terms["label_loss"] + terms["distance"] + terms.pop("total")
    elif config.framework == "cpf":
        kd_loss = compute_label_propagation_loss(logits, teacher_logits, batch["train_mask"], config.kd_loss)
        terms, loss = {"kd_loss": kd_loss}, kd_loss
    else:
        terms = {"kd_loss": compute_softened_loss(logits, teacher_logits, config.temperature)}
        loss = config.distillation_weight * terms["kd_loss"]
        if config.architecture != "plp":  # which spreads the labels instead
            terms["label_loss"] = compute_node_loss(logits, batch["labels"], batch["train_mask"], config.class_weight)
            loss = loss + terms["label_loss"]
    if config.fairness_weight > 0:
        terms["fairness_penalty"] = compute_penalty_of_batch(config, logits, batch, config.penalty_nodes)
        loss = loss + config.fairness_weight * terms["fairness_penalty"]
    return {"loss": loss, **terms}


def proxy_step(
    model: nn.Module, batch: Batch, proxy: nn.Module, *, config: ReliantConfig, **companions: nn.Module
) -> Terms:
    """Loss of the proxy: the negative penalty of a student that reads each node's own values.

    Args:
        model ([`ReliantForNodeClassification`]): the student.
        batch (`Mapping`): the graph.
        proxy ([`ReliantProxy`]): what learns.
        config ([`ReliantConfig`]): of the student.
        companions: ignored.
    """
    logits = call_student(model, batch, config, proxy()).logits
    penalty = compute_penalty_of_batch(config, logits, batch, config.effective_proxy_penalty_nodes)
    return {"loss": -config.fairness_weight * penalty, "fairness_penalty": penalty}


def build_companions(
    config: ReliantConfig,
    num_nodes: int,
    sensitive: torch.Tensor | None = None,
    teacher_embedding_size: int | None = None,
) -> dict[str, nn.Module]:
    """Modules that learn beside the student and go into its checkpoints: proxy and discriminators, as needed.

    Args:
        config ([`ReliantConfig`]): of the student.
        num_nodes (`int`): of the training graph.
        sensitive (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): needed with `proxy_mode="sensitive"`.
        teacher_embedding_size (`int`, *optional*): width of the teacher's embeddings, where not the student's.
    """
    companions: dict[str, nn.Module] = {}
    if config.has_proxy:
        companions["proxy"] = ReliantProxy(config, num_nodes, sensitive)
    if config.framework == "akd":
        companions["discriminators"] = ReliantDiscriminators(config, teacher_embedding_size)
    return companions


def build_updates(
    config: ReliantConfig,
    model: nn.Module,
    companions: Mapping[str, nn.Module] | None = None,
    batch: Batch | None = None,
    *,
    learning_rate: float | None = None,
    proxy_learning_rate: float | None = None,
    discriminator_learning_rate: float | None = None,
    weight_decay: float | None = None,
) -> list[ReliantUpdate]:
    """Optimizers and their steps, in the order of an epoch.

    The model's `proxy_mean` follows the proxy: it is set now, and by `after` once the proxy was updated, so that an
    evaluation between two epochs reads the right mean.

    Args:
        config ([`ReliantConfig`]): of the student.
        model ([`ReliantForNodeClassification`]): the student, not wrapped.
        companions (`Mapping`, *optional*): what [`build_companions`] made.
        batch (`Mapping`, *optional*): the training graph. A model with labels of its own (`"plp"` with `num_nodes`)
            needs it and keeps its training labels, so that the saved model knows them.
        learning_rate (`float`, *optional*): of the student; this and the following are the authors' by default.
        proxy_learning_rate (`float`, *optional*): of the proxy.
        discriminator_learning_rate (`float`, *optional*): of the discriminators.
        weight_decay (`float`, *optional*): of all three.

    Returns:
        `list[ReliantUpdate]`: an Adam optimizer, its step, a name and what follows the update, if anything.

    Raises:
        ValueError: If a companion or the training graph is missing.
    """
    given = {
        "learning_rate": learning_rate,
        "proxy_learning_rate": proxy_learning_rate,
        "discriminator_learning_rate": discriminator_learning_rate,
        "weight_decay": weight_decay,
    }
    rates = RECIPES[config.framework] | {name: value for name, value in given.items() if value is not None}
    companions = check_companions(config, companions)
    keep_training_state(config, model, companions, batch)

    def build_optimizer(parameters: list[nn.Parameter], rate: str) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=rates[rate], weight_decay=rates["weight_decay"])

    updates: list[ReliantUpdate] = []
    student = list(model.parameters())
    if config.framework == "akd":
        projection = companions["discriminators"].projection
        own = [] if projection is None else list(projection.parameters())
        student += own
        judges = [p for p in companions["discriminators"].parameters() if all(p is not other for other in own)]
        optimizer = build_optimizer(judges, "discriminator_learning_rate")
        updates.append(ReliantUpdate(optimizer, partial(discriminator_step, config=config), "discriminators"))
    optimizer = build_optimizer(student, "learning_rate")
    updates.append(ReliantUpdate(optimizer, partial(student_step, config=config), "student"))
    if config.proxy_mode == "learnable" and config.fairness_weight > 0:
        optimizer = build_optimizer(list(companions["proxy"].parameters()), "proxy_learning_rate")
        updates.append(ReliantUpdate(optimizer, partial(proxy_step, config=config), "proxy", keep_proxy_mean))
    return updates


def keep_proxy_mean(model: nn.Module, batch: Batch, proxy: nn.Module, **companions: nn.Module) -> None:
    """Give the model the mean of the proxy, which it reads in evaluation."""
    model.reliant.set_proxy_mean(proxy())


def check_companions(config: ReliantConfig, companions: Mapping[str, nn.Module] | None) -> dict[str, nn.Module]:
    """The companions, if all that a configuration needs are among them."""
    companions = dict(companions or {})
    needed = {"proxy": config.has_proxy, "discriminators": config.framework == "akd"}
    missing = [name for name, is_needed in needed.items() if is_needed and name not in companions]
    if missing:
        raise ValueError(
            f"`companions` must hold {missing}; got {sorted(companions)}. Make them with `build_companions`."
        )
    return companions


def keep_training_state(
    config: ReliantConfig, model: nn.Module, companions: Mapping[str, nn.Module], batch: Batch | None
) -> None:
    """Gives the model what its file is to hold besides weights: training labels and the mean of the proxy."""
    if config.architecture == "plp" and config.num_nodes is not None:
        if batch is None:
            raise ValueError("`batch` must be given with architecture 'plp': its training labels go to the model.")
        model.set_known_labels(batch["labels"], batch["train_mask"])
    if config.has_proxy:
        model.reliant.set_proxy_mean(companions["proxy"]())


__all__ = [
    "RECIPES",
    "ReliantUpdate",
    "build_companions",
    "build_updates",
    "discriminator_step",
    "proxy_step",
    "student_step",
    "teacher_step",
]
