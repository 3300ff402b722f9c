"""RELIANT as it is written with torch-geometric: what the speed of `decahub.models.reliant` is measured against.

Convolutions take the faster of that library's two fast paths, with weights that are normalized once: a CSR matrix for
inference, and for training `EdgeIndex`, which keeps its transpose. Nothing is computed twice that does not change.
Discriminators have the authors' names, so that `conversion.convert_reliant` carries weights over. No dropout; graphs
come with one self-loop for each node.

Source: "RELIANT: Fair Knowledge Distillation for Graph Neural Networks", arXiv 2301.01150.
"""

import warnings
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.nn.conv.gcn_conv import gcn_norm


Propagation = Callable[[torch.Tensor], torch.Tensor]


def build_propagation(edge_index: torch.Tensor, num_nodes: int, *, training: bool) -> Propagation:
    """A function that sums up the rows of neighbors with symmetric normalization."""
    edges = EdgeIndex(edge_index, sparse_size=(num_nodes, num_nodes)).sort_by("col").values
    weight = gcn_norm(edges.as_tensor(), None, num_nodes, add_self_loops=False)[1]
    if training:
        edges.fill_cache_()
        return lambda states: edges.matmul(states, input_value=weight, transpose=True)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # CSR tensors are in beta, says torch
        matrix = torch.sparse_coo_tensor(edges.as_tensor().flip(0), weight, (num_nodes, num_nodes)).to_sparse_csr()
    return lambda states: matrix @ states


class GraphConvolution(nn.Module):
    """`A X W + b`, where the sum over neighbors has as few columns as it can."""

    def __init__(self, in_size: int, out_size: int):
        super().__init__()
        self.linear = nn.Linear(in_size, out_size)
        self.is_widening = in_size < out_size

    def forward(self, states: torch.Tensor, propagate: Propagation) -> torch.Tensor:
        if self.is_widening:
            return self.linear(propagate(states))
        return propagate(states @ self.linear.weight.T) + self.linear.bias


class ReferenceStudent(nn.Module):
    """Three convolutions; the second one's output is the embedding."""

    def __init__(self, input_size: int, hidden_size: int, num_labels: int):
        super().__init__()
        sizes = [input_size, hidden_size, hidden_size, num_labels]
        self.layers = nn.ModuleList(GraphConvolution(*pair) for pair in pairwise(sizes))

    @torch.no_grad()
    def copy_weights(self, model: nn.Module) -> None:
        """Takes those of a `ReliantForNodeClassification`."""
        for layer, own in zip(self.layers, [*model.reliant.layers, model.classifier], strict=True):
            layer.linear.weight.copy_(own.projection.weight)
            layer.linear.bias.copy_(own.bias)

    def forward(self, features: torch.Tensor, propagate: Propagation) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and embeddings."""
        first, second, last = self.layers
        embeddings = second(first(features, propagate).relu(), propagate).relu()
        return last(embeddings, propagate), embeddings


class LogitsDiscriminator(nn.Module):
    def __init__(self, num_labels: int):
        super().__init__()
        self.lin = nn.Linear(num_labels, num_labels)
        self.lin2 = nn.Linear(num_labels, num_labels + 1, bias=False)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return self.lin2((logits + self.lin(logits)).relu())


class EmbeddingDiscriminator(nn.Module):
    """Of edges, or of nodes against a summary."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.d = nn.Parameter(torch.ones(hidden_size))
        self.scale = nn.Parameter(torch.full((1,), 0.5))

    def judge_edges(self, embeddings: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        directions = F.normalize(embeddings)
        return self.scale * (directions[edge_index[0]] * self.d * directions[edge_index[1]]).sum(-1)

    def judge_nodes(self, embeddings: torch.Tensor, summary: torch.Tensor) -> torch.Tensor:
        return self.scale * ((F.normalize(embeddings) * self.d) @ summary)


class ReferenceDiscriminators(nn.Module):
    """The three discriminators under the names `Dl`, `De` and `Dg`."""

    def __init__(self, num_labels: int, hidden_size: int):
        super().__init__()
        self.Dl = LogitsDiscriminator(num_labels)
        self.De = EmbeddingDiscriminator(hidden_size)
        self.Dg = EmbeddingDiscriminator(hidden_size)


def believe(scores: torch.Tensor, is_teacher: bool) -> torch.Tensor:
    target = torch.ones_like(scores) if is_teacher else torch.zeros_like(scores)
    return F.binary_cross_entropy(scores.sigmoid(), target)


def step_polynomial(p: torch.Tensor) -> torch.Tensor:
    x = 2 * p - 1
    return (
        1 / 2
        + x / 2
        - (5 * x**3 - 3 * x) / 16
        + (63 * x**5 - 70 * x**3 + 15 * x) / 128
        - 5 * (429 * x**7 - 693 * x**5 + 315 * x**3 - 35 * x) / 2048
        + 7 * (12155 * x**9 - 25740 * x**7 + 18018 * x**5 - 4620 * x**3 + 315 * x) / 32768
    )


def penalty(logits: torch.Tensor, groups: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Gap in statistical parity between two groups of nodes."""
    first, second = (step_polynomial(logits[nodes].softmax(-1)).mean(0) for nodes in groups)
    return (first - second).square().sum()


class ReferenceTraining:
    """An epoch of the paper's adversarial distillation: discriminators, student, proxy, evaluation.

    Args:
        student ([`ReferenceStudent`]): the student.
        discriminators ([`ReferenceDiscriminators`]): the discriminators.
        proxy (`torch.Tensor` of shape `(num_nodes, 2)`): a leaf that requires gradients.
        batch (`dict`): what the steps of `decahub.models.reliant` read.
        fairness_weight (`float`): weight of the penalty.
    """

    def __init__(self, student, discriminators, proxy, batch, fairness_weight: float):
        self.student, self.discriminators, self.proxy, self.batch = student, discriminators, proxy, batch
        self.fairness_weight = fairness_weight
        self.propagate = build_propagation(batch["edge_index"], len(batch["node_features"]), training=True)
        self.train = batch["train_mask"].nonzero()[:, 0]
        group = batch["sensitive"][self.train]
        self.groups = self.train[group == 0], self.train[group == 1]
        self.optimizers = [
            torch.optim.Adam(parameters, lr=rate, weight_decay=5e-4)
            for parameters, rate in (
                (discriminators.parameters(), 1e-3),
                (student.parameters(), 1e-4),
                ([proxy], 1e-3),
            )
        ]

    def call(self, proxy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.batch["node_features"]
        columns = proxy.expand(len(features), proxy.shape[-1])
        return self.student(torch.cat([features, columns], 1), self.propagate)

    def discriminator_loss(self) -> torch.Tensor:
        batch, judges, train = self.batch, self.discriminators, self.train
        logits, embeddings = (output.detach() for output in self.call(self.proxy.mean(0)))
        loss = torch.zeros(())
        for scores, is_teacher in ((batch["teacher_logits"], True), (logits, False)):
            outputs = judges.Dl(scores)
            loss = loss + 0.5 * F.cross_entropy(outputs[train, :-1], batch["labels"][train])
            loss = loss + 0.5 * believe(outputs[:, -1], is_teacher)
        summary, teacher_summary = (e.mean(0).sigmoid() for e in (embeddings, batch["teacher_embedding"]))
        for states, is_teacher in ((batch["teacher_embedding"], True), (embeddings, False)):
            loss = loss + believe(judges.De.judge_edges(states, batch["edge_index"]), is_teacher)
            loss = loss + believe(judges.Dg.judge_nodes(states, teacher_summary), is_teacher)
            loss = loss + believe(judges.Dg.judge_nodes(states, summary), not is_teacher)
        return loss

    def student_loss(self) -> torch.Tensor:
        batch, judges, train = self.batch, self.discriminators, self.train
        logits, embeddings = self.call(self.proxy.mean(0))
        teacher_logits, teacher_embedding = batch["teacher_logits"], batch["teacher_embedding"]
        loss = F.cross_entropy(logits[train], batch["labels"][train])
        loss = loss + (logits - teacher_logits.log_softmax(-1)).abs().sum() / len(logits)
        outputs = judges.Dl(logits)
        loss = loss + 0.5 * F.cross_entropy(outputs[train, :-1], batch["labels"][train])
        loss = loss + 0.5 * believe(outputs[:, -1], True)
        loss = loss + believe(judges.De.judge_edges(embeddings, batch["edge_index"]), True)
        loss = loss + believe(judges.Dg.judge_nodes(embeddings, teacher_embedding.mean(0).sigmoid()), True)
        summary = embeddings.mean(0).sigmoid()
        loss = loss + believe(judges.Dg.judge_nodes(embeddings, summary), True)
        loss = loss + believe(judges.Dg.judge_nodes(teacher_embedding, summary), False)
        return loss + self.fairness_weight * penalty(logits, self.groups)

    def proxy_loss(self) -> torch.Tensor:
        logits, _ = self.call(self.proxy)
        return -self.fairness_weight * penalty(logits, self.groups)

    def epoch(self) -> torch.Tensor:
        """One epoch; returns the logits of its evaluation."""
        losses = (self.discriminator_loss, self.student_loss, self.proxy_loss)
        for optimizer, compute_loss in zip(self.optimizers, losses, strict=True):
            optimizer.zero_grad()
            compute_loss().backward()
            optimizer.step()
        with torch.no_grad():
            return self.call(self.proxy.mean(0))[0]
